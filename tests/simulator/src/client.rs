//! Those outside: callers with their starts, operators with their verbs.

use std::collections::BTreeSet;
use std::rc::Rc;

use sagamore_decider::transaction::Transaction;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Partition, Time, TransactionId};
use sagamore_schemas::wire::{
    Authority, DefinitionApplied, Payload, ShardVerb, ShardWish, Start, Verb, Wish as VerbWish,
};

use crate::faults::Fault;
use crate::kafka::{Place, Record};
use crate::world::{Event, T0_MS, World};

/// How often a stuck transaction is tried again before it is left to stand.
pub(crate) const RETRIES: u32 = 6;

/// A hasty operator looks so many times, in so many milliseconds.
const HASTY_RETRIES: u8 = 100;
const HASTE_MS: i64 = 60_000;

/// One shard gets definitions later than the others: those that are applied meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    partition: i32,
    from: i64,
    until: i64,
}

/// What somebody does.
#[derive(Debug, Clone, Copy)]
pub enum Wish {
    /// Applies a definition to all shards.
    Define(usize),
    /// Changes the settings of all shards: dedupe window and watermark age in seconds.
    Settings(u32, u32),
    /// Starts an order: issued when, with its own data or other.
    Start(usize, i64, bool),
    /// Wants an order undone.
    Cancel(usize),
    /// Wants an order tried now.
    Retry(usize),
    /// Holds an order.
    Pause(usize),
    /// Lets it go on.
    Resume(usize),
    /// Wants a child of an order undone.
    CancelChild(usize),
    /// Wants a child of an order tried now.
    RetryChild(usize),
    /// Wants everything tried now that is stuck.
    RetryStuck,
}

impl World {
    pub(crate) fn begin_clients(&mut self) {
        let mut rng = crate::stream(self.plan.seed, "settings", 0);
        let settings = Wish::Settings([5, 60, 300][rng.usize(0..3)], [60, 120, 3_600][rng.usize(0..3)]);
        self.after(0, Event::Client(settings));
        for number in 0..self.definitions.len() {
            self.after(
                50 + 10 * i64::try_from(number).unwrap_or_default(),
                Event::Client(Wish::Define(number)),
            );
        }
        for (number, order) in self.orders.clone().into_iter().enumerate() {
            if self.plan.without_orders.contains(&number) {
                continue;
            }
            for at in [order.at].into_iter().chain(order.again) {
                self.after(at, Event::Client(Wish::Start(number, order.at, true)));
            }
            if let Some(at) = order.conflict {
                self.after(at, Event::Client(Wish::Start(number, order.at, false)));
            }
            if let Some(at) = order.rebirth {
                self.after(at, Event::Client(Wish::Start(number, at, true)));
            }
            if let Some(at) = order.cancel {
                self.after(at, Event::Client(Wish::Cancel(number)));
            }
            if let Some(at) = order.retry {
                self.after(at, Event::Client(Wish::Retry(number)));
            }
            self.begin_pauses(number, order.at);
            if self.has_children {
                self.begin_clients_of_children(number, order.at);
            }
        }
        if self.has_children {
            self.begin_hasty_operator();
        }
        if self.has_children && self.partitions > 1 && self.faults.strikes(Fault::LateDefinition, 2) {
            let rng = self.faults.rng(Fault::LateDefinition);
            let (partition, from) = (rng.i32(0..self.partitions), rng.i64(50..150));
            let until = from + rng.i64(1_000..30_000);
            self.behind = Some(Behind { partition, from: self.now + from, until: self.now + until });
        }
    }

    /// An operator who does not wait: what a former child said may still be on its way.
    fn begin_hasty_operator(&mut self) {
        let mut rng = crate::stream(self.plan.seed, "hasty operator", 0);
        let until = self.trouble_ms.min(HASTE_MS);
        for _ in 0..HASTY_RETRIES {
            self.after(rng.i64(0..until), Event::Client(Wish::RetryStuck));
        }
    }

    /// One order in five is held for a while; one in three of these until its deadline.
    fn begin_pauses(&mut self, number: usize, at: i64) {
        let mut rng = crate::stream(self.plan.seed, "pauses", number as u64);
        if rng.u8(0..5) > 0 {
            return;
        }
        let later = [100, 1_000, 10_000][rng.usize(0..3)];
        let from = at + rng.i64(0..later);
        self.after(from, Event::Client(Wish::Pause(number)));
        if rng.u8(0..3) > 0 {
            self.after(from + rng.i64(0..30_000), Event::Client(Wish::Resume(number)));
        }
    }

    fn begin_clients_of_children(&mut self, number: usize, at: i64) {
        let mut rng = crate::stream(self.plan.seed, "order of children", number as u64);
        for wish in [Wish::CancelChild(number), Wish::RetryChild(number)] {
            if rng.u8(0..4) == 0 {
                let later = [300, 3_000, 30_000][rng.usize(0..3)];
                self.after(at + rng.i64(0..later), Event::Client(wish));
            }
        }
    }

    pub(crate) fn client_does(&mut self, wish: Wish) {
        match wish {
            Wish::Define(number) => {
                let json = self.definitions[number].clone();
                self.define(i64::try_from(number).unwrap_or_default(), &json);
            }
            Wish::Settings(window, age) => {
                // Where families are about, every other run has hardly room for one.
                let room = if self.has_children && self.plan.seed.is_multiple_of(2) {
                    r#","open_max":2"#
                } else {
                    ""
                };
                let text = format!(
                    r#"{{"dedupe_window":"{window}s","watermark_age":"{age}s","transaction_bytes_max":4096{room}}}"#
                );
                let Ok(data) = Payload::from_json(text) else { return };
                for partition in 0..self.partitions {
                    let wish = ShardWish::Settings { data: data.as_ref() };
                    self.shard_verb(partition, wish);
                }
            }
            Wish::Start(number, issued, own) => self.start(number, issued, own),
            Wish::Cancel(number) => self.verb(number, VerbWish::Cancel),
            Wish::Retry(number) => self.verb(number, VerbWish::Retry),
            Wish::Pause(number) => self.verb(number, VerbWish::Pause),
            Wish::Resume(number) => self.verb(number, VerbWish::Resume),
            Wish::CancelChild(number) => self.verb_to_child(number, VerbWish::Cancel),
            Wish::RetryChild(number) => self.verb_to_child(number, VerbWish::Retry),
            Wish::RetryStuck => {
                let open = self.witness.folds().flat_map(|(_, fold)| fold.shard.open_transactions());
                let stuck: Vec<_> = open.filter(|open| open.is_stuck()).map(|open| open.id.clone()).collect();
                for subject in stuck {
                    self.verb_to(subject, VerbWish::Retry);
                }
            }
        }
    }

    /// Appends a definition to all inboxes, as if it stood at `offset` of the definitions.
    pub(crate) fn define(&mut self, offset: i64, json: &str) {
        let Ok(data) = Payload::from_json(json.to_owned()) else { return };
        let value = DefinitionApplied { offset, data: data.as_ref() }.to_json();
        for partition in 0..self.partitions {
            let behind = self.behind.filter(|behind| {
                behind.partition == partition && (behind.from..behind.until).contains(&self.now)
            });
            match behind {
                Some(behind) => {
                    let record = record("", value.clone());
                    self.after(behind.until - self.now, Event::Arrive(Place::Inbox(partition), record, None));
                }
                None => self.append(partition, "", value.clone()),
            }
        }
    }

    /// Appends a verb to one inbox.
    pub(crate) fn shard_verb(&mut self, partition: i32, wish: ShardWish<'_>) {
        let value = ShardVerb { wish, authority: authority() }.to_json(Partition(partition));
        self.append(partition, "", value);
    }

    fn start(&mut self, number: usize, issued: i64, own: bool) {
        let order = &self.orders[number];
        let (Ok(subject), Ok(definition)) = (order.id.parse::<TransactionId>(), order.definition.parse())
        else {
            return;
        };
        let text = if own { order.data.clone() } else { r#"{"n":1,"minus":-1,"who":"else"}"#.to_owned() };
        let Ok(data) = Payload::from_json(text) else { return };
        let astray = i32::from(order.astray);
        let time = Time::from_epoch_ms(T0_MS + issued);
        let partition = (home(&subject, self.partitions).0 + astray) % self.partitions;
        let id = order.id.clone();
        let start = Start { subject, time, definition, traceparent: None, data: data.as_ref() };
        let value = start.to_json("/caller");
        self.append(partition, &id, value);
    }

    fn verb(&mut self, number: usize, wish: VerbWish<'_>) {
        let Ok(subject) = self.orders[number].id.parse::<TransactionId>() else { return };
        self.verb_to(subject, wish);
    }

    /// To a child that is open now, as an operator finds it in a list.
    fn verb_to_child(&mut self, number: usize, wish: VerbWish<'_>) {
        let order = &self.orders[number].id;
        let of_order =
            |child: &&Transaction| child.parent.as_ref().is_some_and(|parent| parent.id.as_str() == order);
        let child = self.witness.folds().find_map(|(_, fold)| fold.shard.open_transactions().find(of_order));
        if let Some(subject) = child.map(|child| child.id.clone()) {
            self.verb_to(subject, wish);
        }
    }

    fn verb_to(&mut self, subject: TransactionId, wish: VerbWish<'_>) {
        let partition = home(&subject, self.partitions).0;
        let key = subject.to_string();
        let value = Verb { subject, wish, authority: authority() }.to_json();
        self.append(partition, &key, value);
    }

    /// Sends a record to an inbox.
    pub(crate) fn append(&mut self, partition: i32, key: &str, value: Vec<u8>) {
        self.send(Place::Inbox(partition), record(key, value), None);
    }

    /// What operators do once nothing goes wrong any more: they skip what makes shards panic, try what is stuck, and
    /// restart what stands still.
    pub(crate) fn help_the_stuck(&mut self) {
        for (partition, offset) in self.poisoned() {
            self.shard_verb(partition, ShardWish::Skip { offset });
        }
        let mut retried: BTreeSet<TransactionId> = BTreeSet::new();
        for (_, fold) in self.witness.folds() {
            for transaction in fold.shard.open_transactions().filter(|transaction| transaction.is_stuck()) {
                if self.retries.get(&transaction.birth).copied().unwrap_or_default() < RETRIES
                    && !self.doomed.contains_key(&transaction.birth.partition.0)
                {
                    *self.retries.entry(transaction.birth).or_default() += 1;
                    retried.insert(transaction.id.clone());
                }
            }
        }
        for subject in retried {
            self.verb_to(subject, VerbWish::Retry);
        }
        let states = self.shard_states();
        let stands = states.iter().any(|(partition, states)| {
            !self.doomed.contains_key(partition) && states.iter().all(|state| *state == "halted")
        });
        if stands && self.poisoned().is_empty() {
            self.standstill += 1;
            if self.standstill.is_multiple_of(60) {
                for number in 0..self.servers.len() {
                    self.start_over(number);
                }
            }
        }
    }
}

fn record(key: &str, value: Vec<u8>) -> Record {
    Record { key: Some(Rc::from(key.as_bytes())), value: Some(Rc::from(value)), as_of: None }
}

fn authority() -> Authority<'static> {
    Authority { id: "verb".into(), actor: "operator".into(), reason: "simulated".into(), revision: None }
}

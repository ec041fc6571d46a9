//! Those outside: callers with their starts, operators with their verbs.

use std::collections::BTreeSet;
use std::rc::Rc;

use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Partition, Time, TransactionId};
use sagamore_schemas::wire::{
    Authority, DefinitionApplied, Payload, ShardVerb, ShardWish, Start, Verb, Wish as VerbWish,
};

use crate::kafka::{Place, Record};
use crate::world::{Event, T0_MS, World};

/// How often a stuck transaction is tried again before it is left to stand.
pub(crate) const RETRIES: u32 = 6;

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
        }
    }

    pub(crate) fn client_does(&mut self, wish: Wish) {
        match wish {
            Wish::Define(number) => {
                let json = self.definitions[number].clone();
                self.define(i64::try_from(number).unwrap_or_default(), &json);
            }
            Wish::Settings(window, age) => {
                let text = format!(
                    r#"{{"dedupe_window":"{window}s","watermark_age":"{age}s","transaction_bytes_max":4096}}"#
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
        }
    }

    /// Appends a definition to all inboxes, as if it stood at `offset` of the definitions.
    pub(crate) fn define(&mut self, offset: i64, json: &str) {
        let Ok(data) = Payload::from_json(json.to_owned()) else { return };
        let value = DefinitionApplied { offset, data: data.as_ref() }.to_json();
        for partition in 0..self.partitions {
            self.append(partition, "", value.clone());
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

    fn verb(&mut self, number: usize, wish: VerbWish) {
        let Ok(subject) = self.orders[number].id.parse::<TransactionId>() else { return };
        let partition = home(&subject, self.partitions).0;
        let key = subject.to_string();
        let value = Verb { subject, wish, authority: authority() }.to_json();
        self.append(partition, &key, value);
    }

    /// Sends a record to an inbox.
    pub(crate) fn append(&mut self, partition: i32, key: &str, value: Vec<u8>) {
        let record =
            Record { key: Some(Rc::from(key.as_bytes())), value: Some(Rc::from(value)), as_of: None };
        self.send(Place::Inbox(partition), record, None);
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
            let partition = home(&subject, self.partitions).0;
            let key = subject.to_string();
            let value = Verb { subject, wish: VerbWish::Retry, authority: authority() }.to_json();
            self.append(partition, &key, value);
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

fn authority() -> Authority<'static> {
    Authority { id: "verb".into(), actor: "operator".into(), reason: "simulated".into(), revision: None }
}

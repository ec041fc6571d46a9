//! A recorded transaction once more, by the very fold, in a time of its own.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_decider::definition::plan::Plan;
use sagamore_decider::identity::Identity;
use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_schemas::ids::{Partition, Span, Time};
use sagamore_schemas::wire::{
    Answer, Command, DefinitionApplied, DefinitionRef, Operation, OutcomeKind, Payload, Reply, Start,
    read_command, read_outcome,
};
use uuid::Uuid;

use super::record::{Answered, Asked, Recorded};

/// 2026-01-01T00:00:00Z: any time will do, for nothing is decided by it but differences.
const T0_MS: i64 = 1_767_225_600_000;
/// How long an assumed answer takes.
const ASSUMED_AFTER: Span = Span::from_ms(10);
/// Inputs of one transaction after which it counts as one that does not end.
const INPUTS_MAX: u32 = 10_000;

/// What came of it.
#[derive(Debug)]
pub struct Played {
    /// How it would have ended; stuck, when nothing more comes.
    pub outcome: OutcomeKind,
    /// Why.
    pub reason: Option<String>,
    /// What was assumed to go well: step and operation.
    pub assumed: BTreeSet<String>,
}

/// Plays one after the other.
pub struct Player<'a> {
    definition: &'a str,
    plan: &'a Plan,
}

struct World<'a> {
    shard: Shard,
    plan: &'a Plan,
    recorded: &'a Recorded,
    next_offset: i64,
    now: Time,
    /// What is on its way, by when it arrives and in which order it was sent.
    coming: BTreeMap<(Time, u32), Vec<u8>>,
    sent: u32,
    played: Played,
}

impl<'a> Player<'a> {
    /// By this definition, as canonical JSON.
    pub fn new(definition: &'a str, plan: &'a Plan) -> Self {
        Self { definition, plan }
    }

    /// Plays one of them, on a shard that knows nothing else.
    pub fn play(&self, recorded: &Recorded) -> Played {
        let identity = Identity::new(Uuid::nil(), Partition(0), 1, "what-if".to_owned(), None);
        let mut world = World {
            shard: Shard::new(identity),
            plan: self.plan,
            recorded,
            next_offset: 0,
            now: Time::from_epoch_ms(T0_MS),
            coming: BTreeMap::new(),
            sent: 0,
            played: Played { outcome: OutcomeKind::Stuck, reason: None, assumed: BTreeSet::new() },
        };
        world.run(self.definition);
        world.played
    }
}

impl World<'_> {
    fn run(&mut self, definition: &str) {
        let Ok(data) = Payload::from_json(definition.to_owned()) else {
            unreachable!("a definition is JSON")
        };
        self.apply(&DefinitionApplied { offset: 0, data: data.as_ref() }.to_json());
        let start = Start {
            subject: self.recorded.id.clone(),
            time: self.now,
            definition: DefinitionRef { name: self.plan.name.clone(), version: None },
            traceparent: None,
            data: self.recorded.data.as_ref(),
        };
        for (after, verb) in &self.recorded.verbs {
            self.sent += 1;
            self.coming.insert((self.now.after(*after), self.sent), verb.clone());
        }
        let mut next = Some(start.to_json("/what-if"));
        let mut inputs = 0;
        while let Some(value) = next {
            for output in self.apply(&value) {
                self.on_output(&output);
            }
            inputs += 1;
            let is_open = self.shard.open_count() > 0;
            next = if is_open && inputs < INPUTS_MAX { self.next_input() } else { None };
        }
    }

    fn apply(&mut self, value: &[u8]) -> Vec<Output> {
        let record = Record {
            offset: self.next_offset,
            timestamp: self.now,
            key: None,
            value: Some(value),
            headers: &[],
        };
        self.next_offset += 1;
        let mut outputs = Vec::new();
        self.shard.apply(&record, &mut outputs);
        outputs
    }

    fn on_output(&mut self, output: &Output) {
        let value = output.value.as_deref();
        match output.destination {
            Destination::Commands(_) => {
                if let Ok(command) = read_command(value) {
                    self.answer(&command);
                }
            }
            Destination::Outcomes => {
                if let Ok(outcome) = read_outcome(value) {
                    self.played.outcome = outcome.outcome;
                    self.played.reason = outcome.reason.map(std::borrow::Cow::into_owned);
                }
            }
            // A child: it is nobody's here, and its parent waits until its deadline.
            Destination::Inbox(_) | Destination::DeadLetters => {}
        }
    }

    /// What stands next in the inbox: something on its way, or a timer that is due before it.
    fn next_input(&mut self) -> Option<Vec<u8>> {
        let due = self.shard.timers().next_due();
        let arrives = self.coming.first_key_value().map(|((at, _), _)| *at);
        if let Some(at) = arrives.filter(|at| due.is_none_or(|due| *at <= due)) {
            self.now = self.now.max(at);
            return self.coming.pop_first().map(|(_, value)| value);
        }
        self.now = self.now.max(due?);
        let entry = self.shard.timers().due(self.now).next()?;
        Some(self.shard.timer_of(entry)?.to_json())
    }

    /// As the participant answered then.
    fn answer(&mut self, command: &Command<'_>) {
        let asked = Asked::of(&command.address);
        let answers = self.recorded.answers(&asked).unwrap_or_else(|| {
            self.played.assumed.insert(format!("{} {}", asked.step, asked.operation));
            vec![Answered { after: ASSUMED_AFTER, outcome: Answer::Ok, reason: None, data: Payload::Absent }]
        });
        for Answered { after, outcome, reason, data } in &answers {
            let reply = Reply {
                address: command.address.clone(),
                instance: command.instance,
                source: "/what-if".into(),
                outcome: *outcome,
                reason: reason.as_deref().map(Into::into),
                replytoken: None,
                data: data.as_ref(),
            };
            self.sent += 1;
            self.coming.insert((self.now.after(*after), self.sent), reply.to_json());
        }
    }
}

impl Recorded {
    /// What was answered to this; `None`: nothing of the kind was ever asked.
    fn answers(&self, asked: &Asked) -> Option<Vec<Answered>> {
        let of = |operation: Operation| {
            let first = Asked { operation, attempt: 0, ..asked.clone() };
            let same = |other: &&Asked| {
                (&other.step, &other.branch, other.operation) == (&asked.step, &asked.branch, operation)
            };
            let attempts = self.attempts.range(first..).take_while(|(other, _)| same(other));
            let attempts: Vec<_> = attempts.collect();
            let exact = attempts.iter().find(|(other, _)| other.attempt == asked.attempt);
            exact.or(attempts.last()).map(|(_, answers)| (*answers).clone())
        };
        of(asked.operation).or_else(|| match asked.operation {
            Operation::Execute => of(Operation::Prepare),
            Operation::Prepare => of(Operation::Execute),
            _ => None,
        })
    }
}

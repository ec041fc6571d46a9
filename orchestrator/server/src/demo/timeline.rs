//! What happened to one transaction, put together from the topics and from nothing else.
//!
//! The tree shows the steps in the order of their first commands, each command with its replies, and when each record
//! came into its topic, counted from the start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_examples::Kind;
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::topics::REQUEST_TIMEOUT;
use sagamore_schemas::ids::TransactionId;
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{
    Address, Answer, Input, Operation, OutcomeKind, PayloadRef, read_command, read_input, read_outcome,
};
use serde::Serialize;

use super::drive::partitions_of;
use crate::cli::tree::{Node, draw};

/// How long the topics may take to be read.
const READ_MAX: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One transaction, as its records tell it.
#[derive(Debug, Clone, Serialize)]
pub struct Timeline {
    /// Which transaction.
    pub id: TransactionId,
    /// Its records in the order of time; a repeated one once.
    pub entries: Vec<Entry>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Milliseconds since the start.
    pub at_ms: i64,
    /// Topic, partition and offset.
    pub place: String,
    /// How often it is there.
    pub copies: u32,
    /// What it says.
    #[serde(flatten)]
    pub what: What,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum What {
    /// The start.
    Start {
        /// Which definition.
        definition: String,
    },
    /// A command.
    Command {
        /// What is asked.
        #[serde(flatten)]
        call: Call,
    },
    /// The reply to a command.
    Reply {
        /// What was asked.
        #[serde(flatten)]
        call: Call,
        /// The answer.
        answer: Answer,
        /// Why, or the result.
        detail: String,
    },
    /// Another input: a timer, a verb.
    Input {
        /// Which.
        label: &'static str,
    },
    /// The outcome.
    Outcome {
        /// How it ended.
        outcome: OutcomeKind,
        /// Why.
        reason: Option<String>,
    },
}

/// An operation of a branch, and the attempt at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Step of the definition.
    pub step: String,
    /// Who is asked.
    pub branch: String,
    /// What.
    pub operation: Operation,
    /// Which attempt.
    pub attempt: u32,
}

impl Timeline {
    /// Reads the topics from their beginnings to their present ends.
    pub fn read(kafka: &ClientSettings, prefix: &Prefix, id: &TransactionId) -> Result<Self, KafkaError> {
        let mut found: Vec<(i64, Entry)> = Vec::new();
        let mut see = |record: &BorrowedMessage<'_>| {
            let what = if record.topic() == Topic::Inbox.name(prefix) {
                input(record.payload())
            } else if record.topic() == Topic::Outcomes.name(prefix) {
                outcome(record.payload())
            } else {
                command(record.payload())
            };
            let Some(what) = what else { return };
            if let Some((_, known)) = found.iter_mut().find(|(_, known)| known.what == what) {
                known.copies += 1;
                return;
            }
            let time = record.timestamp().to_millis().unwrap_or_default();
            let place = format!("{}/{}@{}", record.topic(), record.partition(), record.offset());
            found.push((time, Entry { at_ms: 0, place, copies: 1, what }));
        };
        let commands = Kind::OF_AN_ORDER.map(|kind| command_topic(prefix, &kind.name()));
        for topic in [Topic::Inbox.name(prefix), Topic::Outcomes.name(prefix)].iter().chain(&commands) {
            read_topic(kafka, topic, id, &mut see)?;
        }
        found.sort_by_key(|(time, entry)| (*time, entry.what.rank()));
        let begun = found.first().map_or(0, |(time, _)| *time);
        let entries = found.into_iter().map(|(time, entry)| Entry { at_ms: time - begun, ..entry }).collect();
        Ok(Self { id: id.clone(), entries })
    }

    /// As a tree.
    pub fn tree(&self) -> String {
        let mut roots = self.lines(|what| matches!(what, What::Start { .. }));
        for call in self.first_calls() {
            let in_step =
                |what: &What| matches!(what, What::Command { call: other } if other.step == call.step);
            let commands = self.entries.iter().filter(|entry| in_step(&entry.what));
            let children = commands.map(|entry| Node { title: entry.line(), children: self.replies(entry) });
            roots.push(Node {
                title: format!("{} ({})", call.step, call.branch),
                children: children.collect(),
            });
        }
        roots.extend(self.lines(|what| matches!(what, What::Input { .. })));
        roots.extend(self.lines(|what| matches!(what, What::Outcome { .. })));
        let mut text = self.id.to_string();
        draw(&roots, &mut text);
        text
    }

    /// The first command of each step.
    fn first_calls(&self) -> Vec<&Call> {
        let mut calls: Vec<&Call> = Vec::new();
        for entry in &self.entries {
            if let What::Command { call } = &entry.what
                && calls.iter().all(|known| known.step != call.step)
            {
                calls.push(call);
            }
        }
        calls
    }

    fn replies(&self, command: &Entry) -> Vec<Node> {
        let What::Command { call: asked } = &command.what else { return Vec::new() };
        self.lines(|what| matches!(what, What::Reply { call, .. } if call == asked))
    }

    fn lines(&self, wanted: impl Fn(&What) -> bool) -> Vec<Node> {
        let entries = self.entries.iter().filter(|entry| wanted(&entry.what));
        entries.map(|entry| Node { title: entry.line(), children: Vec::new() }).collect()
    }
}

impl Entry {
    fn line(&self) -> String {
        let what = match &self.what {
            What::Start { definition } => format!("start {definition}"),
            What::Command { call: Call { operation, attempt: 1, .. } } => operation.to_string(),
            What::Command { call: Call { operation, attempt, .. } } => {
                format!("{operation}, attempt {attempt}")
            }
            What::Reply { answer, detail, .. } => {
                format!("{} {detail}", answer.as_str()).trim_end().to_owned()
            }
            What::Input { label } => (*label).to_owned(),
            What::Outcome { outcome, reason } => match reason {
                Some(reason) => format!("outcome {outcome}: {reason}"),
                None => format!("outcome {outcome}"),
            },
        };
        let copies = match self.copies {
            1 => String::new(),
            copies => format!(" (there {copies} times)"),
        };
        format!("{:>5} ms  {what}{copies}  [{}]", self.at_ms, self.place)
    }
}

impl What {
    /// What follows from a record comes after it, even within one millisecond.
    fn rank(&self) -> u8 {
        match self {
            Self::Start { .. } => 0,
            Self::Command { .. } | Self::Reply { .. } | Self::Input { .. } => 1,
            Self::Outcome { .. } => 2,
        }
    }
}

impl Call {
    fn of(address: &Address<'_>) -> Self {
        Self {
            step: address.step.to_string(),
            branch: address.branch.to_string(),
            operation: address.operation,
            attempt: address.attempt,
        }
    }
}

fn input(value: Option<&[u8]>) -> Option<What> {
    let input = read_input(value).ok()?;
    Some(match &input {
        Input::Start(start) => What::Start { definition: start.definition.to_string() },
        Input::Reply(reply) => What::Reply {
            call: Call::of(&reply.address),
            answer: reply.outcome,
            detail: reply.reason.as_deref().or_else(|| result(&reply.data)).unwrap_or_default().to_owned(),
        },
        Input::Timer(_)
        | Input::Undeliverable(_)
        | Input::Inquiry(_)
        | Input::Child(_)
        | Input::Verb(_)
        | Input::Shard(_)
        | Input::Definition(_) => What::Input { label: input.label() },
    })
}

fn command(value: Option<&[u8]>) -> Option<What> {
    let command = read_command(value).ok()?;
    Some(What::Command { call: Call::of(&command.address) })
}

fn outcome(value: Option<&[u8]>) -> Option<What> {
    let outcome = read_outcome(value).ok()?;
    Some(What::Outcome { outcome: outcome.outcome, reason: outcome.reason.as_deref().map(str::to_owned) })
}

fn result<'a>(data: &PayloadRef<'a>) -> Option<&'a str> {
    data.json().filter(|json| *json != "null")
}

/// Shows the records of one key, from the beginning to the present end.
fn read_topic(
    kafka: &ClientSettings,
    topic: &str,
    id: &TransactionId,
    mut see: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), KafkaError> {
    let consumer: BaseConsumer = kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
    let mut from = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in partitions_of(&consumer, topic)? {
        let (begin, end) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        if begin < end {
            from.add_partition_offset(topic, partition, Offset::Offset(begin))?;
            ends.insert(partition, end);
        }
    }
    consumer.assign(&from)?;
    let deadline = Instant::now() + READ_MAX;
    while !ends.is_empty() && Instant::now() < deadline {
        let Some(record) = consumer.poll(POLL_INTERVAL) else { continue };
        let record = record?;
        if record.key() == Some(id.as_str().as_bytes()) {
            see(&record);
        }
        if ends.get(&record.partition()).is_some_and(|end| record.offset() + 1 >= *end) {
            ends.remove(&record.partition());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree() {
        let call = |step: &str, operation| Call {
            step: step.to_owned(),
            branch: format!("{step}r"),
            operation,
            attempt: 1,
        };
        let (reserve, undo) = (call("reserve", Operation::Execute), call("reserve", Operation::Compensate));
        let charge = call("charge", Operation::Execute);
        let reply = |call: &Call, answer, detail: &str| What::Reply {
            call: call.clone(),
            answer,
            detail: detail.to_owned(),
        };
        let whats = [
            What::Start { definition: "order@1".to_owned() },
            What::Command { call: reserve.clone() },
            reply(&reserve, Answer::Ok, "{}"),
            What::Command { call: charge.clone() },
            reply(&charge, Answer::Refused, "no"),
            What::Command { call: undo.clone() },
            reply(&undo, Answer::Ok, ""),
            What::Outcome { outcome: OutcomeKind::Compensated, reason: Some("charge: no".to_owned()) },
        ];
        let entry = |(at_ms, what)| Entry { at_ms, place: format!("t/0@{at_ms}"), copies: 1, what };
        let entries = (0..).zip(whats).map(entry).collect();
        let timeline = Timeline { id: "order-1".parse().unwrap(), entries };
        assert_eq!(
            timeline.tree(),
            "\
order-1
├─     0 ms  start order@1  [t/0@0]
├─ reserve (reserver)
│  ├─     1 ms  execute  [t/0@1]
│  │  └─     2 ms  ok {}  [t/0@2]
│  └─     5 ms  compensate  [t/0@5]
│     └─     6 ms  ok  [t/0@6]
├─ charge (charger)
│  └─     3 ms  execute  [t/0@3]
│     └─     4 ms  refused no  [t/0@4]
└─     7 ms  outcome compensated: charge: no  [t/0@7]"
        );
    }
}

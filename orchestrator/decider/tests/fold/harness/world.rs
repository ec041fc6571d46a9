//! The world: what the owner is given, and what became of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sagamore_decider::identity::Identity;
use sagamore_decider::outbox::{Sent, Way};
use sagamore_decider::output::{Destination, Notice, Output, Record};
use sagamore_decider::owner::{Duty, Owner, Pace};
use sagamore_decider::restore::StateReader;
use sagamore_decider::shard::Shard;
use sagamore_schemas::ids::{Partition, Span, Time, TransactionId};
use sagamore_schemas::log::CHECKPOINT_KEY;
use sagamore_schemas::wire::{DefinitionApplied, Payload};

use super::journal::{Entry, RowsTaken};

/// When every script begins: 2026-01-01T00:00:00Z.
pub const T0_MS: i64 = 1_767_225_600_000;

/// What goes wrong on the way, without anybody noticing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every record stands in the inbox twice.
    Twice,
    /// After every record another owner takes over.
    Takeover,
}

/// Records of a state partition, in their order.
pub type StateTopic = Vec<(Vec<u8>, i64, Option<Vec<u8>>)>;

/// Who is the shard in all of these tests.
pub fn identity() -> Identity {
    Identity {
        instance: uuid::Uuid::from_u128(7),
        partition: Partition(0),
        partitions: 1,
        replyto: "sagamore.inbox/0".into(),
        inbox: "sagamore.inbox".into(),
        secret: None,
    }
}

/// What one record led to.
#[derive(Debug, Default)]
pub struct Effect {
    /// What left.
    pub outputs: Vec<Output>,
    /// What was noted.
    pub entries: Vec<Entry>,
    /// What a client of the owner is told.
    pub notice: Option<Notice>,
}

/// An inbox, its owner, and all that came out.
#[derive(Debug)]
pub struct World {
    owner: Owner,
    fault: Fault,
    topic: StateTopic,
    next_offset: i64,
    rings: u64,
    /// The clock of broker and owner.
    pub now: Time,
    /// The journal so far.
    pub taken: RowsTaken,
    /// Every output so far, by id: the same id is the same bytes.
    pub told: BTreeMap<String, Output>,
}

impl World {
    /// A shard that nobody has read yet.
    pub fn new(fault: Fault) -> Self {
        let now = Time::from_epoch_ms(T0_MS);
        let restored = StateReader::default().finish(identity()).unwrap();
        Self {
            owner: Owner::new(restored, 0, Pace::default(), now),
            fault,
            topic: Vec::new(),
            next_offset: 0,
            rings: 0,
            now,
            taken: RowsTaken::default(),
            told: BTreeMap::new(),
        }
    }

    /// The shard as it is now.
    pub fn shard(&self) -> &Shard {
        self.owner.shard()
    }

    /// Applies a definition.
    pub fn define(&mut self, json: &str) -> Effect {
        let document: serde_json::Value = serde_json::from_str(json).unwrap();
        for step in document["steps"].as_array().unwrap() {
            if step["protocol"].is_string() || step["kind"] == "reserved" {
                self.taken.committing.insert(step["name"].as_str().unwrap().to_owned());
            }
            if step["definition"].is_string() {
                self.taken.children.insert(step["name"].as_str().unwrap().to_owned());
            }
        }
        let offset = self.shard().definitions().last_offset() + 1;
        let data = Payload::from_json(json.to_owned()).unwrap();
        self.apply(&DefinitionApplied { offset, data: data.as_ref() }.to_json())
    }

    /// Appends a record to the inbox, and lets the owner read it.
    pub fn apply(&mut self, value: &[u8]) -> Effect {
        self.apply_record(None, Some(value), &[])
    }

    /// The same with key and headers.
    pub fn apply_record(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Effect {
        let mut effect = self.once(key, value, headers);
        if self.fault == Fault::Twice {
            let again = self.once(key, value, headers);
            effect.outputs.extend(again.outputs);
            effect.entries.extend(again.entries);
        }
        effect
    }

    fn once(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Effect {
        let record = Record { offset: self.next_offset, timestamp: self.now, key, value, headers };
        self.next_offset += 1;
        let mut outputs = Vec::new();
        let notice = self.owner.on_record(&record, self.now, |output| outputs.push(output.clone()));
        for output in &outputs {
            let before = self.told.insert(said(output), output.clone());
            assert!(
                before.as_ref().is_none_or(|before| same(before, output)),
                "one id, two contents: {before:?} {output:?}"
            );
        }
        let mut tickets = Vec::new();
        self.owner.send(self.now, Way::AtOnce, |ticket, _, _, _| {
            tickets.push(ticket);
            Sent::Queued
        });
        for ticket in tickets {
            self.owner.on_delivered(ticket);
        }
        let mut entries = Vec::new();
        for duty in self.owner.poll(self.now, true) {
            // A timer that is due is rung by `advance` only: scripts say when.
            let Duty::Write(checkpoint) = duty else { continue };
            entries = self.taken.read(&checkpoint.journal);
            for record in checkpoint.state.into_iter().chain([checkpoint.last]) {
                self.topic.push((record.key, record.as_of, record.value));
            }
            self.owner.on_written(self.now);
        }
        assert!(self.owner.is_at_rest());
        if self.fault == Fault::Takeover {
            self.take_over();
        }
        Effect { outputs, entries, notice: Some(notice) }
    }

    fn take_over(&mut self) {
        let mut reader = StateReader::default();
        for (key, as_of, value) in &self.topic {
            let as_of = as_of.to_string();
            let header = (key != CHECKPOINT_KEY).then_some(as_of.as_bytes());
            reader.read(key, header, value.as_deref());
        }
        let restored = reader.finish(identity()).unwrap();
        assert_eq!(state_of(&restored.shard), state_of(self.owner.shard()), "takeover loses nothing");
        assert_eq!(restored.owed.len(), 0);
        self.owner = Owner::new(restored, self.next_offset, Pace::default(), self.now);
    }

    /// The birth of an open transaction, or of one that never was.
    pub fn birth_of(&self, id: &TransactionId) -> String {
        let open = self.shard().open_transactions().find(|transaction| transaction.id == *id);
        open.map_or_else(|| "0-0".to_owned(), |transaction| transaction.birth.to_string())
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Time> {
        self.shard().timers().next_due()
    }

    /// Lets time pass up to `then`, and the owner ring what is due first. `None`: nothing was.
    pub fn ring(&mut self, then: Time) -> Option<(Vec<u8>, Effect)> {
        let due = self.next_due().filter(|due| *due <= then);
        self.now = self.now.max(due.unwrap_or(then));
        due?;
        // Beyond the time after which a firing that was not accepted is repeated: of several timers due at once each is
        // rung in its turn.
        self.rings += 1;
        let asked_at = self.now.after(Span::from_secs(120 * self.rings));
        let ring = self.owner.poll(asked_at, false).into_iter().find_map(|duty| match duty {
            Duty::Append { value, .. } => Some(value),
            Duty::Write(_) => None,
        });
        let value = ring.expect("the owner rings what is due");
        let effect = self.apply(&value);
        Some((value, effect))
    }
}

fn same(one: &Output, other: &Output) -> bool {
    // A repeated outcome carries neither data nor reason: its id says that it is known.
    one == other || (one.destination == Destination::Outcomes && other.destination == Destination::Outcomes)
}

/// The id of an output.
pub fn said(output: &Output) -> String {
    match output.destination {
        Destination::DeadLetters => {
            let offset = output.headers.iter().find(|(name, _)| name == "__dlq.errors.offset");
            format!("dead letter {}", String::from_utf8_lossy(&offset.unwrap().1))
        }
        Destination::Commands(_) | Destination::Inbox(_) | Destination::Outcomes => {
            let document: serde_json::Value =
                serde_json::from_slice(output.value.as_deref().unwrap()).unwrap();
            document["id"].as_str().unwrap().to_owned()
        }
    }
}

/// Everything of a shard that can be seen, as text.
pub fn state_of(shard: &Shard) -> String {
    let mut text = format!(
        "next {} clock {} level {} settings {:?}\nchain {:?}\ntimers {:?}\nfinished {}\ndefinitions {}\n",
        shard.next_offset(),
        shard.clock(),
        shard.level(),
        shard.settings(),
        shard.journal().head(),
        shard.timers(),
        shard.finished_count(),
        shard.definitions().last_offset(),
    );
    for (id, _, json) in shard.definitions().iter() {
        writeln!(text, "{id} {json}").unwrap();
    }
    for transaction in shard.open_transactions() {
        text += &serde_json::to_string(transaction).unwrap();
        text.push('\n');
    }
    text
}

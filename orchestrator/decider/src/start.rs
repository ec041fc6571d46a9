//! Admission: what becomes of a start. The first rule that holds decides.
//!
//! | the start | becomes |
//! |---|---|
//! | belongs to another partition | refused: wrong-home |
//! | of an open id, with the same definition and data | accepted: it is known, its outcome will be told |
//! | of a remembered ended id, with the same definition and data | told the same outcome again |
//! | of a known id, with another definition or other data | refused: conflict |
//! | older than the dedupe window, or too far ahead | refused: too-old, too-early |
//! | of an unknown definition or version | refused: unknown-definition |
//! | larger than a transaction may be | refused: too-large |
//! | without a field that the definition maps | refused: missing-input |
//! | while the shard holds as much as it may | refused: overloaded |
//! | anything else | a transaction |

use std::fmt;

use sagamore_schemas::ids::{Birth, Time, TransactionId};
use sagamore_schemas::log::{Digest256, JournalEntry};
use sagamore_schemas::wire::{DefinitionRef, Payload, PayloadRef, Start};

use crate::output::{Notice, Output};
use crate::shard::{Shard, fingerprint_of};
use crate::transaction::{Branch, BranchPhase, DefinitionId, Parent, Phase, Transaction};

impl Shard {
    pub(crate) fn on_start(
        &mut self,
        entry: JournalEntry,
        start: &Start<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let offset = entry.offset;
        match self.admit(start) {
            Admission::New(definition) => {
                let newborn = Newborn {
                    id: start.subject.clone(),
                    time: start.time,
                    definition,
                    parent: None,
                    traceparent: start.traceparent.as_deref(),
                    data: &start.data,
                };
                let transaction = self.born(offset, newborn);
                self.open_transaction(entry, transaction, outputs);
                Notice::Accepted
            }
            Admission::Open => Notice::Accepted,
            Admission::Ended => {
                self.tell_again(&start.subject, outputs);
                Notice::Accepted
            }
            Admission::Refused(reason) => self.refuse(
                offset,
                start.subject.clone(),
                Some(start.definition.to_string()),
                reason,
                outputs,
            ),
        }
    }

    fn admit(&self, start: &Start<'_>) -> Admission {
        let id = &start.subject;
        if !self.is_home(id) {
            return Admission::refused(
                "wrong-home",
                "another inbox partition is this id's home (murmur2 of the id)",
            );
        }
        let conflict =
            || Admission::refused("conflict", "this id was started with another definition or other data");
        if let Some(transaction) = self.births.get(id).and_then(|offset| self.open.get(offset)) {
            let same = transaction.parent.is_none()
                && same_definition(&start.definition, &transaction.definition)
                && same_bytes(&start.data, &transaction.input.as_ref());
            return if same { Admission::Open } else { conflict() };
        }
        if let Some(ending) = self.finished.get(id) {
            let hash = Digest256(start.data.sha256());
            let same = start.definition.version.is_none_or(|version| version == ending.version)
                && fingerprint_of(start.definition.name.as_str(), hash) == ending.fingerprint;
            return if same { Admission::Ended } else { conflict() };
        }
        let admitted =
            self.is_timely(start.time).and_then(|()| self.place_for(&start.definition, &start.data, 1));
        match admitted {
            Ok(definition) => Admission::New(definition),
            Err(refusal) => Admission::Refused(refusal.to_string()),
        }
    }

    /// Whether what was issued at `time` can still be new, by the log's clock.
    pub(crate) fn is_timely(&self, time: Time) -> Result<(), Refusal> {
        if time < self.issued_after {
            let horizon = self.issued_after;
            return Err(Refusal::new(
                "too-old",
                &format!("first issued before {horizon}: it may have run, and be forgotten"),
            ));
        }
        if time > self.clock.after(self.settings.start_ahead) {
            let ahead = self.settings.start_ahead;
            return Err(Refusal::new(
                "too-early",
                &format!("its time is more than {ahead} ahead of the broker's clock"),
            ));
        }
        Ok(())
    }

    /// The version that runs, if it is known, its input is whole, and there is room for it: `room` times what the settings say.
    pub(crate) fn place_for(
        &self,
        asked: &DefinitionRef,
        data: &PayloadRef<'_>,
        room: u64,
    ) -> Result<DefinitionId, Refusal> {
        let Some(definition) = self.definitions.resolve(asked) else {
            return Err(Refusal::new("unknown-definition", &format!("{asked} has not been applied here")));
        };
        let bytes = data.size_bytes() as u64;
        if bytes > self.settings.transaction_bytes_max {
            let most = self.settings.transaction_bytes_max;
            return Err(Refusal::new("too-large", &format!("{bytes} bytes of data, {most} at most")));
        }
        let json = match data {
            PayloadRef::Json(raw) => Some(*raw),
            PayloadRef::Base64(_) | PayloadRef::Absent => None,
        };
        let plan = self.definitions.plan(&definition);
        let missing: Vec<String> = plan.missing_input(json).iter().map(ToString::to_string).collect();
        if !missing.is_empty() {
            return Err(Refusal::new("missing-input", &format!("{definition} needs {}", missing.join(", "))));
        }
        let full = self.open.len() as u64 >= self.settings.open_max.saturating_mul(room)
            || self.open_bytes + bytes > self.settings.open_bytes_max.saturating_mul(room)
            || (self.finished.len() + self.open.len()) as u64
                >= self.settings.finished_max.saturating_mul(room);
        if full {
            return Err(Refusal::new(
                "overloaded",
                "this shard holds as many transactions as it may: try again later",
            ));
        }
        Ok(definition)
    }

    pub(crate) fn born(&self, offset: i64, newborn: Newborn<'_>) -> Transaction {
        let Newborn { id, time, definition, parent, traceparent, data } = newborn;
        let plan = self.definitions.plan(&definition);
        let branch =
            |_| Branch { phase: BranchPhase::Waiting, result: Payload::default(), reason: None, begun: 0 };
        Transaction {
            id,
            birth: Birth { partition: self.identity.partition, offset },
            definition,
            logic: self.level,
            time,
            born: self.clock,
            deadline: self.clock.after(plan.deadline),
            parent,
            traceparent: traceparent.map(Into::into),
            input: data.to_payload(),
            input_hash: Digest256(data.sha256()),
            phase: Phase::Forward,
            reason: None,
            branches: plan.branch_indexes().map(branch).collect(),
            revision: 0,
        }
    }
}

/// What a transaction is made of.
pub(crate) struct Newborn<'a> {
    pub id: TransactionId,
    pub time: Time,
    pub definition: DefinitionId,
    pub parent: Option<Box<Parent>>,
    pub traceparent: Option<&'a str>,
    pub data: &'a PayloadRef<'a>,
}

/// Why nothing is begun.
#[derive(Debug)]
pub(crate) struct Refusal {
    word: &'static str,
    why: String,
}

impl Refusal {
    fn new(word: &'static str, why: &str) -> Self {
        Self { word, why: why.to_owned() }
    }

    /// Whether it would be the same at any other time.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self.word, "too-large" | "missing-input")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word, self.why)
    }
}

enum Admission {
    New(DefinitionId),
    Open,
    Ended,
    Refused(String),
}

impl Admission {
    fn refused(word: &str, why: &str) -> Self {
        Self::Refused(format!("{word}: {why}"))
    }
}

fn same_definition(asked: &DefinitionRef, pinned: &DefinitionId) -> bool {
    asked.name == pinned.name && asked.version.is_none_or(|version| version == pinned.version)
}

fn same_bytes(one: &PayloadRef<'_>, other: &PayloadRef<'_>) -> bool {
    match (one, other) {
        (PayloadRef::Json(one), PayloadRef::Json(other)) => one.get() == other.get(),
        (PayloadRef::Base64(one), PayloadRef::Base64(other)) => one == other,
        (PayloadRef::Absent, PayloadRef::Absent) => true,
        (PayloadRef::Json(_) | PayloadRef::Base64(_) | PayloadRef::Absent, _) => false,
    }
}

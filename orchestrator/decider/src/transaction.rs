//! A transaction as the fold holds it and as it stands in the state topic: one type, so that nothing is lost between.

use serde::{Deserialize, Serialize};

use sagamore_schemas::ids::{Birth, Name, Time, TransactionId};
use sagamore_schemas::log::Digest256;
use sagamore_schemas::wire::{Operation, Payload};

use crate::definition::plan::StepIndex;

/// One version of one definition: prints as `order@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefinitionId {
    /// Name.
    pub name: Name,
    /// Version, from 1.
    pub version: u32,
}

impl std::fmt::Display for DefinitionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// One global run, from its start to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transaction {
    /// The caller's key.
    pub id: TransactionId,
    /// Which life of that key.
    pub birth: Birth,
    /// What it was pinned to.
    pub definition: DefinitionId,
    /// The level of its birth: a transaction ends by the logic it began with.
    pub logic: u32,
    /// When the caller first issued it.
    pub time: Time,
    /// The log's clock at its start.
    pub born: Time,
    /// When its deadline falls.
    pub deadline: Time,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Box<str>>,
    /// The start's data.
    pub input: Payload,
    /// SHA-256 of the start's data.
    pub input_hash: Digest256,
    /// Where it stands as a whole.
    pub phase: Phase,
    /// Why it turned back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// By [`StepIndex`].
    pub steps: Vec<Step>,
    /// Count of inputs applied.
    pub revision: u64,
}

/// Where a transaction stands as a whole. `stuck` is not a phase: it is said of a transaction one of whose steps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No decision yet.
    Forward,
    /// Decided: commit. What is retriable is still to be done.
    Committing,
    /// Decided: rollback. What may have been done is being undone.
    RollingBack,
}

/// One step of one transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Where it stands.
    pub phase: StepPhase,
    /// What the forward operation gave.
    #[serde(default, skip_serializing_if = "is_absent")]
    pub result: Payload,
    /// What was last said against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

/// Where a step stands. The rows of a protocol's table are about these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepPhase {
    /// Not asked yet.
    Waiting,
    /// A command is out.
    Asked(Call),
    /// Between two attempts.
    Pausing(Call),
    /// The forward operation was answered `ok`.
    Done,
    /// The forward operation may have been done or not; it will not be asked again, but undone.
    Unknown,
    /// The forward operation was refused: there is nothing to undo.
    Refused,
    /// Never asked, and never will be.
    Skipped,
    /// Undone.
    Undone,
    /// Parked: it needs a human, or a late answer.
    Stuck(Call),
}

/// One operation being asked of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What is asked.
    pub operation: Operation,
    /// The latest attempt, from 1.
    pub attempt: u32,
    /// Attempts since a human last said `retry`; the definition's bound is on these.
    pub tries: u32,
    /// When this operation was first issued.
    pub issued: Time,
    /// When the timer of this phase is due; without meaning when stuck.
    pub due: Time,
}

impl StepPhase {
    /// When its timer is due, if it has one.
    pub fn due(&self) -> Option<Time> {
        match self {
            Self::Asked(call) | Self::Pausing(call) => Some(call.due),
            Self::Waiting
            | Self::Done
            | Self::Unknown
            | Self::Refused
            | Self::Skipped
            | Self::Undone
            | Self::Stuck(_) => None,
        }
    }

    /// The call that an answer may be about.
    pub fn call(&self) -> Option<Call> {
        match self {
            Self::Asked(call) | Self::Pausing(call) | Self::Stuck(call) => Some(*call),
            Self::Waiting | Self::Done | Self::Unknown | Self::Refused | Self::Skipped | Self::Undone => None,
        }
    }

    /// One word, for people and the journal.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Asked(_) => "asked",
            Self::Pausing(_) => "pausing",
            Self::Done => "done",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Undone => "undone",
            Self::Stuck(_) => "stuck",
        }
    }
}

impl std::fmt::Display for StepPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.call() {
            Some(call) => write!(f, "{} {} {}", self.word(), call.operation, call.attempt),
            None => f.write_str(self.word()),
        }
    }
}

impl Transaction {
    /// The step at `index`.
    pub fn step(&self, index: StepIndex) -> &Step {
        &self.steps[usize::from(index.0)]
    }

    /// The step at `index`.
    pub fn step_mut(&mut self, index: StepIndex) -> &mut Step {
        &mut self.steps[usize::from(index.0)]
    }

    /// Whether a step is stuck.
    pub fn is_stuck(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.phase, StepPhase::Stuck(_)))
    }

    /// Bytes its payloads take: what the bounds count.
    pub fn payload_bytes(&self) -> usize {
        self.input.size_bytes() + self.steps.iter().map(|step| step.result.size_bytes()).sum::<usize>()
    }
}

fn is_absent(payload: &Payload) -> bool {
    matches!(payload, Payload::Absent)
}

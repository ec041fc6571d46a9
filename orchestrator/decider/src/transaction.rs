//! A transaction as the fold holds it and as it stands in the state topic: one type, so that nothing is lost between.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use sagamore_schemas::definition::DefinitionId;
use sagamore_schemas::ids::{Birth, Time, TransactionId};
use sagamore_schemas::log::Digest256;
use sagamore_schemas::wire::{Address, Operation, OutcomeKind, Payload};

use crate::definition::plan::{BranchIndex, Plan, PlanStep};
use crate::timers::{TimerEntry, TimerOwner};

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
    /// Whose child it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
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
    /// By [`BranchIndex`].
    #[serde(rename = "steps")]
    pub branches: Vec<Branch>,
    /// Count of inputs applied.
    pub revision: u64,
}

/// The branch that began a transaction as its child, and waits for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its transaction id.
    pub id: TransactionId,
    /// Which life of that id.
    pub birth: Birth,
    /// The step.
    pub step: Box<str>,
    /// The branch of that step.
    pub branch: Box<str>,
    /// `execute`; `compensate` when the child undoes another one.
    pub operation: Operation,
    /// The attempt that began it.
    pub attempt: u32,
    /// How many parents there are above the child, from 1.
    pub depth: u32,
}

impl Parent {
    /// The branch at an address.
    pub fn at(address: &Address<'_>, depth: u32) -> Self {
        Self {
            id: address.subject.clone(),
            birth: address.birth,
            step: address.step.as_ref().into(),
            branch: address.branch.as_ref().into(),
            operation: address.operation,
            attempt: address.attempt,
            depth,
        }
    }

    /// As an address, which answers carry.
    pub fn address(&self) -> Address<'_> {
        Address {
            subject: self.id.clone(),
            birth: self.birth,
            step: Cow::Borrowed(&self.step),
            branch: Cow::Borrowed(&self.branch),
            operation: self.operation,
            attempt: self.attempt,
        }
    }

    /// Whether `address` is about the same branch, whatever the operation and the attempt.
    pub fn is(&self, address: &Address<'_>) -> bool {
        let same_place = *self.step == *address.step && *self.branch == *address.branch;
        self.id == address.subject && self.birth == address.birth && same_place
    }
}

/// Where a transaction stands as a whole. `stuck` is not a phase: it is said of a transaction one of whose branches is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No decision yet.
    Forward,
    /// No decision yet, and nothing is asked until it is resumed.
    Paused,
    /// Decided: commit. What is retriable is still to be done.
    Committing,
    /// Decided: rollback. What may have been done is being undone.
    RollingBack,
    /// A child that has ended: kept until its parent has heard of it.
    Ended(OutcomeKind),
}

/// One branch of one transaction: one participant's part of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Branch {
    /// Where it stands.
    pub phase: BranchPhase,
    /// What the forward operation gave.
    #[serde(default, skip_serializing_if = "is_absent")]
    pub result: Payload,
    /// What was last said against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// The attempt that began the present child: answers to earlier ones are about another. 0 for a participant.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub begun: u32,
}

/// Where a branch stands. The rows of a protocol's table are about these. A step has no phase of its own: where it stands
/// is read from its branches, so that the two cannot differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BranchPhase {
    /// Not asked yet.
    Waiting,
    /// A command is out.
    Asked(Call),
    /// Between two attempts.
    Pausing(Call),
    /// It has voted yes, and is bound by the decision.
    Prepared,
    /// It knows that every vote was yes.
    Precommitted,
    /// It was answered `ok`: `execute`, or `commit` after `prepare`.
    Done,
    /// The forward operation may have been done or not; it will not be asked again, but undone.
    Unknown,
    /// The forward operation was refused: there is nothing to undo.
    Refused,
    /// Never asked, and never will be.
    Skipped,
    /// Compensated.
    Undone,
    /// Aborted: nobody has seen an effect.
    Aborted,
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

impl BranchPhase {
    /// When its timer is due, if it has one.
    pub fn due(&self) -> Option<Time> {
        match self {
            Self::Asked(call) | Self::Pausing(call) => Some(call.due),
            Self::Waiting
            | Self::Prepared
            | Self::Precommitted
            | Self::Done
            | Self::Unknown
            | Self::Refused
            | Self::Skipped
            | Self::Undone
            | Self::Aborted
            | Self::Stuck(_) => None,
        }
    }

    /// The call that an answer may be about.
    pub fn call(&self) -> Option<Call> {
        match self {
            Self::Asked(call) | Self::Pausing(call) | Self::Stuck(call) => Some(*call),
            Self::Waiting
            | Self::Prepared
            | Self::Precommitted
            | Self::Done
            | Self::Unknown
            | Self::Refused
            | Self::Skipped
            | Self::Undone
            | Self::Aborted => None,
        }
    }

    /// One word, for people and the journal.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Asked(_) => "asked",
            Self::Pausing(_) => "pausing",
            Self::Prepared => "prepared",
            Self::Precommitted => "precommitted",
            Self::Done => "done",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Undone => "undone",
            Self::Aborted => "aborted",
            Self::Stuck(_) => "stuck",
        }
    }
}

impl BranchPhase {
    /// As it is written in the journal: what [`fmt::Display`](std::fmt::Display) says, the usual of it without writing.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Asked(Call { operation, attempt: 1, .. }) => Cow::Borrowed(match operation {
                Operation::Execute => "asked execute 1",
                Operation::Compensate => "asked compensate 1",
                Operation::Prepare => "asked prepare 1",
                Operation::Precommit => "asked precommit 1",
                Operation::Commit => "asked commit 1",
                Operation::Abort => "asked abort 1",
            }),
            phase if phase.call().is_none() => Cow::Borrowed(phase.word()),
            phase => Cow::Owned(phase.to_string()),
        }
    }
}

impl std::fmt::Display for BranchPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.call() {
            Some(call) => write!(f, "{} {} {}", self.word(), call.operation, call.attempt),
            None => f.write_str(self.word()),
        }
    }
}

impl Transaction {
    /// The branch at `index`.
    pub fn branch(&self, index: BranchIndex) -> &Branch {
        &self.branches[index.position()]
    }

    /// The branch at `index`.
    pub fn branch_mut(&mut self, index: BranchIndex) -> &mut Branch {
        &mut self.branches[index.position()]
    }

    /// The branches of a step.
    pub fn branches_of(&self, step: &PlanStep) -> impl Iterator<Item = &Branch> {
        step.indexes().map(|index| self.branch(index))
    }

    /// Whether every branch of a step is in a phase of which `is` is true.
    pub fn all_of(&self, step: &PlanStep, is: impl Fn(&BranchPhase) -> bool) -> bool {
        self.branches_of(step).all(|branch| is(&branch.phase))
    }

    /// Whether the deadline or a cancel can still turn it back: there is no decision, and no pivot has been asked.
    ///
    /// A step under a protocol that takes the pivot's place is no pivot in this sense: it can be aborted until its
    /// votes are complete, and they are the decision.
    pub fn has_way_back(&self, plan: &Plan) -> bool {
        let asked = |pivot: &PlanStep| {
            let untouched = |phase: &_| matches!(phase, BranchPhase::Waiting | BranchPhase::Skipped);
            pivot.protocol.is_none() && !self.all_of(pivot, untouched)
        };
        self.is_undecided() && !plan.pivot().is_some_and(|pivot| asked(plan.step(pivot)))
    }

    /// Whether there is no decision yet.
    pub fn is_undecided(&self) -> bool {
        match self.phase {
            Phase::Forward | Phase::Paused => true,
            Phase::Committing | Phase::RollingBack | Phase::Ended(_) => false,
        }
    }

    /// The timer of a branch that stands: none while it is paused, whatever is due then.
    pub fn timer(&self, index: BranchIndex) -> Option<TimerEntry> {
        let due = self.branch(index).phase.due().filter(|_| self.phase != Phase::Paused)?;
        Some(TimerEntry { due, birth_offset: self.birth.offset, owner: TimerOwner::Branch(index) })
    }

    /// Whether a branch is stuck.
    pub fn is_stuck(&self) -> bool {
        self.branches.iter().any(|branch| matches!(branch.phase, BranchPhase::Stuck(_)))
    }

    /// Bytes its payloads take: what the bounds count.
    pub fn payload_bytes(&self) -> usize {
        self.input.size_bytes() + self.branches.iter().map(|branch| branch.result.size_bytes()).sum::<usize>()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_absent(payload: &Payload) -> bool {
    matches!(payload, Payload::Absent)
}

//! What the owner can tell about its shard: for the API and the metrics, never for the fold.

use std::collections::BTreeMap;

use serde::Serialize;

use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::wire::{Operation, Timer};

use crate::definition::plan::PlanStep;
use crate::definitions::Definitions;
use crate::identity::Identity;
use crate::protocol::child::child_id;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::timers::{TimerEntry, TimerOwner, Timers};
use crate::transaction::{Branch, BranchPhase, DefinitionId, Phase, Transaction};

/// One transaction, open or remembered.
#[derive(Debug, Clone, Serialize)]
pub struct TransactionView {
    /// The id.
    pub id: String,
    /// `running`, `paused`, `committing`, `rolling-back`, `stuck`, or the outcome.
    pub status: &'static str,
    /// Which life of the id.
    pub birth: String,
    /// Count of inputs applied.
    pub revision: u64,
    /// `name@version`; unknown for a remembered one but for the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// When it was first issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When its deadline falls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Why it turned back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose child it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The branches of its steps, in the order of the definition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
}

/// One branch of one step of an open transaction.
#[derive(Debug, Clone, Serialize)]
pub struct StepView {
    /// Name of the step.
    pub step: String,
    /// Name of the branch, when the step has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who does it; for a step that starts a definition, that definition.
    pub participant: String,
    /// The child transaction, when it has been begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Where it stands.
    pub phase: &'static str,
    /// What is being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// The latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When its timer is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// What was last said against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Shard {
    /// What is known of `id`.
    pub fn view(&self, id: &TransactionId) -> Option<TransactionView> {
        if let Some(transaction) = self.births.get(id).and_then(|offset| self.open.get(offset)) {
            return Some(self.view_of(transaction));
        }
        let ending = self.finished.get(id)?;
        Some(TransactionView {
            id: id.to_string(),
            status: ending.outcome.as_str(),
            birth: format!("{}-{}", self.identity.partition, ending.birth_offset),
            revision: u64::from(ending.revision),
            definition: None,
            started: None,
            deadline: None,
            reason: None,
            parent: None,
            steps: Vec::new(),
        })
    }

    fn view_of(&self, transaction: &Transaction) -> TransactionView {
        let plan = self.definitions.plan(&transaction.definition);
        let steps = plan.branch_indexes().map(|index| {
            let (step, planned) = plan.branch(index);
            let branch = transaction.branch(index);
            let call = branch.phase.call();
            StepView {
                step: step.name.to_string(),
                branch: step.is_group.then(|| planned.name.to_string()),
                participant: planned.by.to_string(),
                child: self.child_of(transaction, step, branch).map(|id| id.to_string()),
                phase: branch.phase.word(),
                operation: call.map(|call| call.operation.as_str()),
                attempt: call.map(|call| call.attempt),
                due: branch.phase.due(),
                reason: branch.reason.as_deref().map(str::to_owned),
            }
        });
        TransactionView {
            id: transaction.id.to_string(),
            status: status(transaction),
            birth: transaction.birth.to_string(),
            revision: transaction.revision,
            definition: Some(transaction.definition.to_string()),
            started: Some(transaction.time),
            deadline: Some(transaction.deadline),
            reason: transaction.reason.as_deref().map(str::to_owned),
            parent: transaction.parent.as_ref().map(|parent| parent.id.to_string()),
            steps: steps.collect(),
        }
    }

    /// The child of a branch, the one that undoes it last.
    fn child_of(&self, transaction: &Transaction, step: &PlanStep, branch: &Branch) -> Option<TransactionId> {
        if !step.is_child() || branch.begun == 0 {
            return None;
        }
        let is_undone = branch.phase == BranchPhase::Undone
            || branch.phase.call().is_some_and(|call| call.operation == Operation::Compensate);
        let operation = if is_undone { Operation::Compensate } else { Operation::Execute };
        Some(child_id(&self.identity, transaction.birth, step.name.as_str(), operation, branch.begun))
    }

    /// Open transactions of a status (`None`: any), oldest first, after the one born at `after`.
    pub fn list(&self, wanted: Option<&str>, after: i64, most: usize) -> Vec<TransactionView> {
        let newer = self.open.range(after.saturating_add(1)..).map(|(_, transaction)| &**transaction);
        let of_status = newer.filter(|transaction| wanted.is_none_or(|wanted| status(transaction) == wanted));
        of_status.take(most).map(|transaction| self.view_of(transaction)).collect()
    }

    /// Everything below this inbox offset is folded in.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Which shard of which installation it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The fold's clock.
    pub fn clock(&self) -> Time {
        self.clock
    }

    /// Which rules the fold follows.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Whether this binary knows the rules of its level. If not, the shard halts.
    pub fn is_understood(&self) -> bool {
        self.level <= crate::planted::level_max()
    }

    /// The numbers the fold uses.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The definitions it knows.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The timers that stand.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The journal's head and what of it is not yet stored.
    pub fn journal(&self) -> &crate::journal::Journal {
        &self.journal
    }

    /// How many transactions are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many of them there are of each definition.
    pub fn open_by_definition(&self) -> BTreeMap<&DefinitionId, usize> {
        let mut open = BTreeMap::new();
        for transaction in self.open.values() {
            *open.entry(&transaction.definition).or_default() += 1;
        }
        open
    }

    /// How many ended transactions are remembered.
    pub fn finished_count(&self) -> usize {
        self.finished.len()
    }

    pub(crate) fn open_at(&self, birth_offset: i64) -> Option<&Transaction> {
        self.open.get(&birth_offset).map(Box::as_ref)
    }

    pub(crate) fn plan_of(&self, transaction: &Transaction) -> std::sync::Arc<crate::definition::plan::Plan> {
        self.definitions.plan(&transaction.definition)
    }

    /// A timer that stands as the record that lets it ring; `None` of a transaction that is not open.
    pub fn timer_of(&self, entry: TimerEntry) -> Option<Timer<'static>> {
        let transaction = self.open_at(entry.birth_offset)?;
        let branch = match entry.owner {
            TimerOwner::Deadline => None,
            TimerOwner::Branch(index) => {
                let plan = self.plan_of(transaction);
                let (step, branch) = plan.branch(index);
                Some((step.name.to_string().into(), branch.name.to_string().into()))
            }
        };
        let (subject, birth) = (transaction.id.clone(), transaction.birth);
        Some(Timer { subject, birth, branch, due: entry.due })
    }

    /// Every open transaction, oldest first.
    pub fn open_transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.open.values().map(Box::as_ref)
    }
}

fn status(transaction: &Transaction) -> &'static str {
    let parked = |branch: &Branch| matches!(branch.phase, BranchPhase::Stuck(_));
    match transaction.phase {
        _ if transaction.branches.iter().any(parked) => "stuck",
        Phase::Forward => "running",
        Phase::Paused => "paused",
        Phase::Committing => "committing",
        Phase::RollingBack => "rolling-back",
        Phase::Ended(outcome) => outcome.as_str(),
    }
}

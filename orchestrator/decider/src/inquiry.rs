//! A participant in doubt asks what has been decided, and is answered from the log. Asking changes nothing.
//!
//! | the inquiry is | answer |
//! |---|---|
//! | from another instance, about another partition or a birth that is still to come | dead letter |
//! | about a branch of an open transaction that does not vote, or is not the asker's | dead letter |
//! | about one that is told to commit, or has committed | `commit` |
//! | about one that has not committed, and the decision is to roll back | `abort` |
//! | about any other of an open transaction: votes or `precommit` are still to come | `undecided` |
//! | about a remembered transaction that has committed, or aborted | `commit`, `abort` |
//! | about anything else | `forgotten` |
//!
//! `forgotten` is never a guess about a decision to commit: a transaction ends when every branch has acknowledged what
//! it was told, and is not forgotten before.

use sagamore_schemas::wire::{Decided, Inquiry, Operation, OutcomeKind, Verdict};

use crate::definition::plan::BranchIndex;
use crate::output::{Destination, Notice, Output, Record};
use crate::planted::{self, Defect};
use crate::shard::Shard;
use crate::transaction::{BranchPhase, Phase, Transaction};
use crate::turn::key_of;

impl Shard {
    pub(crate) fn on_inquiry(
        &mut self,
        record: &Record<'_>,
        inquiry: &Inquiry<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let birth = inquiry.birth;
        if inquiry.instance != self.identity.instance {
            return self.set_aside(record, "an inquiry to another instance", outputs);
        }
        if birth.partition != self.identity.partition || birth.offset >= record.offset {
            return self.set_aside(record, "an inquiry about something that was not born here", outputs);
        }
        let open = self.open.get(&birth.offset).filter(|transaction| transaction.id == inquiry.subject);
        let (decision, key) = match open {
            Some(transaction) => match self.asked_by(transaction, inquiry) {
                Ok((index, key)) => (decided(transaction, index), key),
                Err(cause) => return self.set_aside(record, cause, outputs),
            },
            None => (self.remembered(inquiry), inquiry.subject.to_string()),
        };
        let verdict = Verdict { inquiry: inquiry.clone(), decision, heuristic: None };
        outputs.push(Output {
            destination: Destination::Commands(inquiry.participant.clone()),
            key: Some(key.into_bytes()),
            value: Some(verdict.to_json()),
            headers: Vec::new(),
        });
        Notice::None
    }

    /// The branch in doubt, and the key by which its participant is reached.
    fn asked_by(
        &self,
        transaction: &Transaction,
        inquiry: &Inquiry<'_>,
    ) -> Result<(BranchIndex, String), &'static str> {
        let plan = self.definitions.plan(&transaction.definition);
        let index = plan
            .branch_named(&inquiry.step, &inquiry.branch)
            .ok_or("an inquiry about a step or branch that does not exist")?;
        let (step, branch) = plan.branch(index);
        if branch.by.participant() != Some(&inquiry.participant) {
            return Err("an inquiry about another participant's branch");
        }
        if step.protocol.is_none() {
            return Err("an inquiry about a step that is executed: it is never in doubt");
        }
        let key =
            key_of(transaction, branch).map_err(|_| "an inquiry about a branch that was never asked")?;
        Ok((index, key))
    }

    fn remembered(&self, inquiry: &Inquiry<'_>) -> Decided {
        let ending = self.finished.get(&inquiry.subject);
        match ending.filter(|ending| ending.birth_offset == inquiry.birth.offset).map(|ending| ending.outcome)
        {
            Some(OutcomeKind::Committed) => Decided::Commit,
            Some(OutcomeKind::Aborted) => Decided::Abort,
            None if planted::is(Defect::InquiryGuessed) => Decided::Abort,
            // A group that commits in its place may have committed before it was undone, or never.
            Some(OutcomeKind::Compensated | OutcomeKind::Refused | OutcomeKind::Stuck) | None => {
                Decided::Forgotten
            }
        }
    }
}

fn decided(transaction: &Transaction, index: BranchIndex) -> Decided {
    let phase = &transaction.branch(index).phase;
    let otherwise = match transaction.phase {
        Phase::Forward | Phase::Paused | Phase::Committing => Decided::Undecided,
        Phase::Ended(OutcomeKind::Committed) => Decided::Commit,
        Phase::RollingBack | Phase::Ended(_) => Decided::Abort,
    };
    match (phase.call().map(|call| call.operation), phase) {
        (Some(Operation::Commit | Operation::Compensate), _)
        | (_, BranchPhase::Done | BranchPhase::Undone) => Decided::Commit,
        (Some(Operation::Abort), _) | (_, BranchPhase::Aborted) => Decided::Abort,
        (Some(Operation::Precommit), _) | (_, BranchPhase::Precommitted) => Decided::Undecided,
        (Some(Operation::Execute | Operation::Prepare), _)
        | (
            None,
            BranchPhase::Waiting
            | BranchPhase::Prepared
            | BranchPhase::Unknown
            | BranchPhase::Refused
            | BranchPhase::Skipped
            | BranchPhase::Asked(_)
            | BranchPhase::Pausing(_)
            | BranchPhase::Stuck(_),
        ) => otherwise,
    }
}

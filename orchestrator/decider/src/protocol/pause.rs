//! A person holds a transaction, and lets it go on: rows T8 and T9 of the decision.
//!
//! While it is paused nothing is asked of anybody: no step begins, no attempt follows another, no group commits. What is on
//! its way is answered, and each answer is kept and means what it always means; an answer that turns the transaction back is
//! a decision, and what has been decided is delivered. So does the deadline, which holds, because participants hold things
//! for it. Timers of attempts do not stand meanwhile; with `resume` they stand again, those that came due at once.
//!
//! Not to be paused: what cannot be cancelled either, for its pivot is asked until it answers; a group that has decided, for
//! its branches wait for what was decided; a branch that may decide by itself after a while (`termination: unilateral`).

use sagamore_schemas::wire::Operation;

use super::decision::way_back;
use crate::definition::plan::BranchIndex;
use crate::transaction::{BranchPhase, Phase, Transaction};
use crate::turn::Turn;

/// Nothing more is to be asked. The answer says why it goes on.
pub(crate) fn on_pause(turn: &mut Turn<'_>, transaction: &mut Transaction) -> Result<(), &'static str> {
    way_back(turn, transaction)?;
    if transaction.phase == Phase::Paused {
        return Err("it is paused already");
    }
    for index in turn.plan.branch_indexes() {
        may_wait(turn, transaction, index)?;
    }
    for timer in turn.plan.branch_indexes().filter_map(|index| transaction.timer(index)) {
        turn.timers.disarm(timer);
    }
    transaction.phase = Phase::Paused;
    Ok(())
}

/// It goes on from where it stands. The answer says why not.
pub(crate) fn on_resume(turn: &mut Turn<'_>, transaction: &mut Transaction) -> Result<(), &'static str> {
    if transaction.phase != Phase::Paused {
        return Err("it is not paused");
    }
    transaction.phase = Phase::Forward;
    for timer in turn.plan.branch_indexes().filter_map(|index| transaction.timer(index)) {
        turn.timers.arm(timer);
    }
    Ok(())
}

fn may_wait(turn: &Turn<'_>, transaction: &Transaction, index: BranchIndex) -> Result<(), &'static str> {
    let votes = turn.plan.branch(index).0.unilateral_after.is_some();
    let operation = match &transaction.branch(index).phase {
        BranchPhase::Asked(call) | BranchPhase::Pausing(call) | BranchPhase::Stuck(call) => call.operation,
        BranchPhase::Prepared => Operation::Prepare,
        BranchPhase::Precommitted => Operation::Precommit,
        BranchPhase::Waiting
        | BranchPhase::Done
        | BranchPhase::Unknown
        | BranchPhase::Refused
        | BranchPhase::Skipped
        | BranchPhase::Undone
        | BranchPhase::Aborted => return Ok(()),
    };
    match operation {
        Operation::Prepare if votes => Err("a branch of it may decide by itself meanwhile"),
        Operation::Execute | Operation::Prepare => Ok(()),
        Operation::Precommit | Operation::Commit | Operation::Compensate | Operation::Abort => {
            Err("a group of it has decided: its branches wait to be told")
        }
    }
}

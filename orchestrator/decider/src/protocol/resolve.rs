//! A person answers in the place of a participant, for a branch that is stuck: what was asked has been done, or has not
//! been done and will not be. It is the answer that never came, and means what that would have meant: rows S4, S7 and
//! S16 of the saga, P13 and P14, H2, C19 of children.
//!
//! | stuck | `ok` | `refused` |
//! |---|---|---|
//! | execute of a pivot | done, and with it the decision to commit | refused, and the decision to turn back |
//! | execute of a retriable step | done | not taken: the decision has fallen |
//! | compensate | undone | not taken: what is not undone stays stuck |
//! | precommit, commit, abort | precommitted, done, aborted | not taken: the decision has fallen |
//!
//! What the participant still does afterwards has no trace. Whoever resolves has looked at its books.

use sagamore_schemas::definition::StepKind;
use sagamore_schemas::wire::{Operation, Resolution, Resolved};

use super::decision::roll_back;
use crate::transaction::{BranchPhase, Transaction};
use crate::turn::Turn;

/// A branch is resolved; the answer says why not. `room` is what a transaction may hold in payloads, in bytes.
pub(crate) fn on_resolve(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    resolution: &Resolution<'_>,
    reason: &str,
    room: u64,
) -> Result<(), &'static str> {
    let branch = resolution.branch.as_deref();
    let mut named = turn.plan.branch_indexes().filter(|index| {
        let (step, own) = turn.plan.branch(*index);
        step.name.as_str() == resolution.step
            && branch.map_or(!step.is_group, |branch| own.name.as_str() == branch)
    });
    let index =
        named.next().ok_or("there is no such step or branch; of several branches one is to be named")?;
    let BranchPhase::Stuck(call) = transaction.branch(index).phase else { return Err("it is not stuck") };
    let kind = turn.plan.branch(index).0.kind;
    let phase = match (call.operation, resolution.outcome) {
        (Operation::Execute, Resolved::Done) => {
            if (transaction.payload_bytes() + resolution.data.size_bytes()) as u64 > room {
                return Err("the result does not fit in the transaction");
            }
            transaction.branch_mut(index).result = resolution.data.to_payload();
            BranchPhase::Done
        }
        (Operation::Execute, Resolved::Refused) if kind == StepKind::Pivot => BranchPhase::Refused,
        (Operation::Compensate, Resolved::Done) => BranchPhase::Undone,
        (Operation::Precommit, Resolved::Done) => BranchPhase::Precommitted,
        (Operation::Commit, Resolved::Done) => BranchPhase::Done,
        (Operation::Abort, Resolved::Done) => BranchPhase::Aborted,
        (Operation::Prepare, _) => return Err("a vote cannot be given by hand"),
        (_, Resolved::Refused) => return Err("it has been decided on, and can only be resolved as ok"),
    };
    let turns_back = phase == BranchPhase::Refused;
    turn.enter(transaction, index, phase);
    if turns_back {
        transaction.branch_mut(index).reason = Some(reason.into());
        let told = turn.told(index, reason);
        roll_back(turn, transaction, &told);
    }
    Ok(())
}

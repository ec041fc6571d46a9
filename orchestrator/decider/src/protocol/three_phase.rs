//! Three-phase commit: between the votes and the commit every branch acknowledges that all votes were yes.
//!
//! Source: D. Skeen, "Nonblocking Commit Protocols", SIGMOD 1981. Its point is that a branch in doubt can tell from its
//! own phase what may have been decided. Here the decision stands in Kafka's log, so a branch in doubt asks, and decides
//! nothing by itself; the classic timeout rule is `termination: unilateral`, and splits the branches when its
//! assumption fails.
//!
//! A branch of a step under `three-phase` has the rows of `two_phase`, with these in place of P11:
//!
//! | row | phase | on | becomes | and |
//! |---|---|---|---|---|
//! | H1 | prepared | every branch of the step is, and its turn to commit | asked precommit +1 | command |
//! | H2 | asked, pausing, stuck: precommit | `ok`, any; stuck: resolved as `ok` | precommitted | |
//! | H3 | asked, pausing: precommit | `refused` or `expired`, any | stuck | |
//! | H4 | asked precommit +n | `error` +n, timeout, undeliverable +n | pausing | without end |
//! | H5 | precommitted | every branch of the step is | asked commit +1 | command |
//!
//! The first `precommit` is the point of no return: the votes were complete, and deadline and cancel come too late.

use sagamore_schemas::definition::Protocol;
use sagamore_schemas::wire::Operation;

use crate::definition::plan::PlanStep;
use crate::planted::{self, Defect};
use crate::transaction::{BranchPhase, Transaction};

/// What is to be asked next of every branch of a step whose turn to commit has come; `None` while one is still to answer.
pub(super) fn next_to_commit(transaction: &Transaction, step: &PlanStep) -> Option<Operation> {
    let protocol = step.protocol?;
    let all = |phase: BranchPhase| transaction.all_of(step, |found| *found == phase);
    if all(BranchPhase::Prepared) || is_one_short(transaction, step) {
        return Some(match protocol {
            Protocol::TwoPhase => Operation::Commit,
            Protocol::ThreePhase if planted::is(Defect::PrecommitSkipped) => Operation::Commit,
            Protocol::ThreePhase => Operation::Precommit,
        });
    }
    all(BranchPhase::Precommitted).then_some(Operation::Commit)
}

/// Whether votes are taken for complete: the planted defect does not wait for the last one.
pub(super) fn is_one_short(transaction: &Transaction, step: &PlanStep) -> bool {
    let voted = transaction.branches_of(step).filter(|branch| branch.phase == BranchPhase::Prepared).count();
    let none_beyond = transaction.all_of(step, |phase| {
        matches!(phase, BranchPhase::Prepared | BranchPhase::Asked(_) | BranchPhase::Pausing(_))
    });
    planted::is(Defect::CommitBeforeLastVote)
        && none_beyond
        && step.branches.len() > 1
        && voted + 1 == step.branches.len()
}

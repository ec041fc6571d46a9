//! What became of a verdict, of the coordinator's or of an operator's, in the log and in the counters.

use sagamore_schemas::wire::{Decided, HeuristicWish, Operation};
use tracing::{debug, error, info, warn};

use super::counters::{Counts, count};
use crate::barrier::{Branch, Refusal};
use crate::code::Code;
use crate::doubt::Settled;
use crate::heuristic::Said;
use crate::perform::{Answered, Work};

/// The coordinator's, as the answer to an inquiry.
pub(super) fn tell_settled(counts: &Counts, of: &Branch, decision: Decided, settled: Settled) {
    let Branch { instance, subject, birth, step, branch } = of;
    let decision = decision.as_str();
    match settled {
        Settled::Told(Answered { work: Work::Failed, reason, .. }) => {
            let reason = reason.unwrap_or_default();
            warn!(%subject, %birth, %step, %branch, decision, %reason, "the verdict could not be carried out; asked again");
            count(&counts.failed);
        }
        Settled::Told(_) => {
            info!(%subject, %birth, %step, %branch, decision, "no longer in doubt");
            count(&counts.settled);
        }
        Settled::Undecided => {
            debug!(%subject, %birth, %step, %branch, "undecided: goes on waiting");
            count(&counts.undecided);
        }
        Settled::Forgotten => {
            error!(
                code = %Code::DecisionForgotten, %instance, %subject, %birth, %step, %branch,
                "in doubt for ever: the transaction has ended and the coordinator no longer remembers how, so it never \
                 had, or has lost, this branch's answer. Nothing is done. Look for the outcome of this birth in the \
                 outcomes or the journal, and decide by hand what it says: `sagamore participant decide`"
            );
            count(&counts.forgotten);
        }
        Settled::NotInDoubt | Settled::Repaired | Settled::NotMixed => {
            debug!(%subject, %birth, %step, %branch, decision, "a verdict about a branch that is not in doubt");
        }
        Settled::Contradicted(Refusal::Mixed) => {
            tell_mixed(of, if decision == "commit" { Operation::Commit } else { Operation::Abort });
            count(&counts.mixed);
        }
        Settled::Contradicted(has) => {
            error!(
                code = %Code::Contradicted, %instance, %subject, %birth, %step, %branch, decision, has = has.as_str(),
                "a verdict against what this branch has done: it has decided alone, or coordinator or participant \
                 has lost its memory. Nothing is done. Compare the books of all branches of this step"
            );
            count(&counts.contradicted);
        }
    }
}

/// An operator's.
pub(super) fn tell_by_hand(
    counts: &Counts,
    of: &Branch,
    operation: Operation,
    said: &Said,
    settled: Settled,
) {
    let Branch { subject, birth, step, branch, .. } = of;
    let actor = &said.by.actor;
    let wish = match said.wish {
        HeuristicWish::Decided => "decided by hand",
        HeuristicWish::Repaired => "repaired by hand",
    };
    match settled {
        Settled::Told(Answered { work: Work::Failed, reason, .. }) => {
            let reason = reason.unwrap_or_default();
            warn!(%subject, %birth, %step, %branch, %operation, %actor, %reason, "{wish}, and it could not be carried out: say it again");
            count(&counts.failed);
        }
        Settled::Told(_) => {
            warn!(%subject, %birth, %step, %branch, %operation, %actor, "{wish}: no longer in doubt");
            count(&counts.by_hand);
        }
        Settled::Repaired => {
            warn!(%subject, %birth, %step, %branch, %operation, %actor, "{wish}: from now on it counts as done");
        }
        Settled::Undecided | Settled::Forgotten | Settled::NotInDoubt => {
            warn!(%subject, %birth, %step, %branch, %operation, %actor, "{wish}, and the branch is not in doubt: nothing done");
        }
        Settled::NotMixed => {
            warn!(%subject, %birth, %step, %branch, %operation, %actor, "{wish}, and the coordinator has not said so: nothing done");
        }
        Settled::Contradicted(has) => {
            warn!(
                %subject, %birth, %step, %branch, %operation, %actor, has = has.as_str(),
                "{wish}, and the branch has ended the other way: nothing done"
            );
        }
    }
}

/// The coordinator's decision against an operator's.
pub(super) fn tell_mixed(of: &Branch, operation: Operation) {
    let Branch { instance, subject, birth, step, branch } = of;
    error!(
        code = %Code::HeuristicMixed, %instance, %subject, %birth, %step, %branch, %operation,
        "the coordinator says this, and an operator has decided the opposite by hand: refused, and the transaction is stuck. \
         Compare the books of all branches of this step: `sagamore participant heuristics --mixed`"
    );
}

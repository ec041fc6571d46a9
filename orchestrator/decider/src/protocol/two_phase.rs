//! Two-phase commit: every branch votes, one decision, `commit` or `abort` to all. XA and try/confirm/cancel (a reserved
//! step: a group of one that commits with the transaction's decision) are the same operations.
//!
//! Source: J. Gray, "Notes on Data Base Operating Systems", 1978, without any presumption (C. Mohan, B. Lindsay and
//! R. Obermarck, "Transaction Management in the R* Distributed Database Management System", TODS 1986, describe the
//! presumed variants): abort is remembered and asked until it is acknowledged, like commit. The votes are phases of the
//! branches, so a repeated vote changes nothing, and the decision is the record that brought the last of them.
//!
//! A branch of a step under `two-phase`:
//!
//! | row | phase | on | becomes | and |
//! |---|---|---|---|---|
//! | P1 | waiting | all before it passed, and its turn | asked prepare +1 | command |
//! | P2 | waiting | its input cannot be mapped, or its `when` has no answer | refused | rollback |
//! | P3 | waiting | rollback; or its turn, and its `when` is false | skipped | |
//! | P4 | asked, pausing: prepare | `ok`, any | prepared | result kept |
//! | P5 | asked, pausing: prepare | `ok`, result too large | unknown | rollback |
//! | P6 | asked, pausing: prepare | `refused`, any | refused | rollback |
//! | P7 | asked, pausing: prepare | `expired`, any | unknown | rollback |
//! | P8 | asked prepare +n | `error` +n, timeout, undeliverable +n; tries left | pausing | |
//! | P9 | asked prepare +n | `error` +n, timeout, undeliverable +n; none left | unknown | rollback |
//! | P10 | asked, pausing: prepare | rollback | unknown | |
//! | P11 | prepared | every branch of the step is, and its turn to commit | asked commit +1 | command |
//! | P12 | prepared, unknown | rollback, all after it settled | asked abort +1 | command |
//! | P13 | asked, pausing, stuck: commit | `ok`, any; stuck: resolved as `ok` | done | |
//! | P14 | asked, pausing, stuck: abort | `ok`, any; stuck: resolved as `ok` | aborted | |
//! | P15 | asked, pausing: commit, abort | `refused` or `expired`, any | stuck | |
//! | P16 | asked commit, abort +n | `error` +n, timeout, undeliverable +n | pausing | without end |
//! | P17 | asked | `pending` +n | asked | timeout starts anew |
//! | P18 | pausing +n | its pause is over, or `retry` | asked +(n+1) | command |
//! | P19 | pausing abort +n | a late `ok` to `prepare` | asked +(n+1) | command |
//! | P20 | stuck +n | `retry` | asked +(n+1) | command |
//! | P21 | done | rollback, all after it settled; the branch declares `compensate` | asked compensate +1 | on with S16 to S20 |
//! | P22 | any | anything else | as it was | no trace |
//!
//! A late yes finds that abort has been asked (it needs no other answer), that its pause is over at once (P19), or that
//! the branch has acknowledged it: then it has been forbidden by the participant's own barrier.

use sagamore_schemas::wire::{Answer, Operation, REASON_EXPIRED, Reply};

use super::call::{Heard, REASON_TOO_LARGE, ask_again};
use super::decision::roll_back;
use crate::definition::plan::BranchIndex;
use crate::planted::{self, Defect};
use crate::transaction::{BranchPhase, Call, Transaction};
use crate::turn::{Heeded, Turn};

/// `prepare` was answered `ok`: a vote for commit.
pub(super) fn on_yes(turn: &mut Turn<'_>, transaction: &mut Transaction, heard: &Heard<'_>) {
    let index = heard.index;
    if heard.fits {
        transaction.branch_mut(index).result = heard.reply.data.to_payload();
        turn.enter(transaction, index, BranchPhase::Prepared);
        return;
    }
    transaction.branch_mut(index).reason = Some(REASON_TOO_LARGE.into());
    turn.enter(transaction, index, BranchPhase::Unknown);
    roll_back(turn, transaction, &turn.told(index, REASON_TOO_LARGE));
}

/// `prepare` was answered `refused`: a vote for abort, or nobody knows.
pub(super) fn on_no(turn: &mut Turn<'_>, transaction: &mut Transaction, heard: &Heard<'_>) {
    let (index, reason) = (heard.index, heard.reason("refused"));
    let unknown = reason == REASON_EXPIRED;
    transaction.branch_mut(index).reason = Some(reason.into());
    turn.enter(transaction, index, if unknown { BranchPhase::Unknown } else { BranchPhase::Refused });
    roll_back(turn, transaction, &turn.told(index, reason));
}

/// An answer to another operation than the one that is being asked: a late yes hastens the abort.
pub(super) fn on_late_vote(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    reply: &Reply<'_>,
    call: Call,
) -> Heeded {
    let is_yes = reply.address.operation == Operation::Prepare && reply.outcome == Answer::Ok;
    let pauses = matches!(transaction.branch(index).phase, BranchPhase::Pausing(_));
    if !is_yes || !pauses || call.operation != Operation::Abort {
        return Heeded::No;
    }
    ask_again(turn, transaction, index, call, call.tries + 1);
    Heeded::Yes
}

/// A vote that has been counted changes nothing.
pub(super) fn on_repeated_vote(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    reply: &Reply<'_>,
) -> Heeded {
    let is_counted = transaction.branch(index).phase == BranchPhase::Prepared;
    if planted::is(Defect::VotesAsNumbers) && is_counted && reply.address.operation == Operation::Prepare {
        let asked = |other: &BranchIndex| matches!(transaction.branch(*other).phase, BranchPhase::Asked(call) if call.operation == Operation::Prepare);
        if let Some(other) = turn.plan.branch(index).0.indexes().find(asked) {
            turn.enter(transaction, other, BranchPhase::Prepared);
            return Heeded::Yes;
        }
    }
    Heeded::No
}

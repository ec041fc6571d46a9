//! The saga: each step is done, and what was done is undone when a later one is refused.
//!
//! Source: H. Garcia-Molina and K. Salem, "Sagas", SIGMOD 1987; pivot and retriable steps after Richardson,
//! "Microservices Patterns", chapter 4.
//!
//! The branch of a step without a protocol, by what happens to it (`+n`: the n-th attempt; "any" = any attempt up to the
//! latest):
//!
//! | row | phase | on | becomes | and |
//! |---|---|---|---|---|
//! | S1 | waiting | all before it passed, and its turn | asked execute +1 | command |
//! | S2 | waiting | its input cannot be mapped, or its `when` has no answer | refused; retriable: stuck | rollback |
//! | S3 | waiting | rollback; or its turn, and its `when` is false | skipped | |
//! | S4 | asked, pausing, stuck: execute | `ok`, any; stuck: resolved as `ok` | done | result kept |
//! | S5 | asked, pausing: execute | `ok`, result too large, compensatable | unknown | rollback |
//! | S6 | asked, pausing: execute | `refused`, any; retriable | stuck | |
//! | S7 | asked, pausing, stuck: execute | `refused`, any; stuck: resolved as `refused`; the others | refused | rollback |
//! | S8 | asked, pausing: execute | `expired`, any; compensatable | unknown | rollback |
//! | S9 | asked, pausing: execute | `expired`, any; pivot, retriable | stuck | |
//! | S10 | asked execute +n | `error` +n, timeout, undeliverable +n; tries left | pausing | |
//! | S11 | asked execute +n | `error` +n, timeout, undeliverable +n; none left | unknown | rollback |
//! | S12 | asked | `pending` +n | asked | timeout starts anew |
//! | S13 | pausing +n | its pause is over, or `retry` | asked +(n+1) | command |
//! | S14 | asked, pausing: execute | rollback | unknown | |
//! | S15 | done, unknown | rollback, all after it settled | asked compensate +1 | command |
//! | S16 | asked, pausing, stuck: compensate | `ok`, any; stuck: resolved as `ok` | undone | |
//! | S17 | asked, pausing: compensate | `refused` or `expired`, any | stuck | |
//! | S18 | asked compensate +n | `error` +n, timeout, undeliverable +n; tries left | pausing | |
//! | S19 | asked compensate +n | `error` +n, timeout, undeliverable +n; none left | stuck | |
//! | S20 | stuck +n | `retry` | asked +(n+1), tries anew | command |
//! | S21 | any | anything else | as it was | no trace |
//!
//! "unknown" lasts no longer than the turn: what was asked has nothing after it that could have begun, so that its
//! compensation is asked at once, and its late answers are S21. "Passed", "its turn" and "settled" are explained in
//! `decision`, "resolved" in `resolve`.

use sagamore_schemas::definition::StepKind;
use sagamore_schemas::wire::REASON_EXPIRED;

use super::call::{Heard, REASON_TOO_LARGE};
use super::decision::roll_back;
use crate::transaction::{BranchPhase, Transaction};
use crate::turn::{Heeded, Turn};

/// `execute` was answered `ok`.
pub(super) fn on_done(turn: &mut Turn<'_>, transaction: &mut Transaction, heard: &Heard<'_>) {
    let index = heard.index;
    if heard.fits {
        transaction.branch_mut(index).result = heard.reply.data.to_payload();
    } else {
        transaction.branch_mut(index).reason = Some(REASON_TOO_LARGE.into());
        if turn.plan.branch(index).0.kind == StepKind::Compensatable && !heard.stuck {
            turn.enter(transaction, index, BranchPhase::Unknown);
            roll_back(turn, transaction, &turn.told(index, REASON_TOO_LARGE));
            return;
        }
    }
    turn.enter(transaction, index, BranchPhase::Done);
}

/// `execute` was answered `refused`.
pub(super) fn on_refused(turn: &mut Turn<'_>, transaction: &mut Transaction, heard: &Heard<'_>) -> Heeded {
    let (index, reason) = (heard.index, heard.reason("refused"));
    let kind = turn.plan.branch(index).0.kind;
    let is_final = match kind {
        StepKind::Pivot => reason == REASON_EXPIRED,
        StepKind::Retriable => true,
        StepKind::Compensatable | StepKind::Reserved => false,
    };
    if is_final && heard.stuck {
        return Heeded::No;
    }
    transaction.branch_mut(index).reason = Some(reason.into());
    if is_final {
        turn.enter(transaction, index, BranchPhase::Stuck(heard.call));
        return Heeded::Yes;
    }
    let unknown = reason == REASON_EXPIRED;
    turn.enter(transaction, index, if unknown { BranchPhase::Unknown } else { BranchPhase::Refused });
    roll_back(turn, transaction, &turn.told(index, reason));
    Heeded::Yes
}

//! The saga: each step is done, and what was done is undone when a later one is refused.
//!
//! Source: H. Garcia-Molina and K. Salem, "Sagas", SIGMOD 1987; pivot and retriable steps after Richardson,
//! "Microservices Patterns", chapter 4.
//!
//! A step, by what happens to it (`+n`: the n-th attempt; "any" = any attempt up to the latest):
//!
//! | row | phase | on | becomes | and |
//! |---|---|---|---|---|
//! | S1 | waiting | all before it done, and its turn | asked execute +1 | command |
//! | S2 | waiting | its input cannot be mapped | refused; retriable: stuck | rollback |
//! | S3 | waiting | rollback | skipped | |
//! | S4 | asked, pausing, stuck: execute | `ok`, any | done | result kept |
//! | S5 | asked, pausing: execute | `ok`, result too large, compensatable | unknown | rollback |
//! | S6 | asked, pausing: execute | `refused`, any; retriable | stuck | |
//! | S7 | asked, pausing, stuck: execute | `refused`, any; the others | refused | rollback |
//! | S8 | asked, pausing: execute | `expired`, any; compensatable | unknown | rollback |
//! | S9 | asked, pausing: execute | `expired`, any; pivot, retriable | stuck | |
//! | S10 | asked execute +n | `error` +n, timeout, undeliverable +n; tries left | pausing | |
//! | S11 | asked execute +n | `error` +n, timeout, undeliverable +n; none left | unknown | rollback |
//! | S12 | asked | `pending` +n | asked | timeout starts anew |
//! | S13 | pausing +n | its pause is over, or `retry` | asked +(n+1) | command |
//! | S14 | asked, pausing: execute | rollback | unknown | |
//! | S15 | done, unknown | rollback, all after it settled | asked compensate +1 | command |
//! | S16 | asked, pausing, stuck: compensate | `ok`, any | undone | |
//! | S17 | asked, pausing: compensate | `refused` or `expired`, any | stuck | |
//! | S18 | asked compensate +n | `error` +n, timeout, undeliverable +n; tries left | pausing | |
//! | S19 | asked compensate +n | `error` +n, timeout, undeliverable +n; none left | stuck | |
//! | S20 | stuck +n | `retry` | asked +(n+1), tries anew | command |
//! | S21 | any | anything else | as it was | no trace |
//!
//! The transaction:
//!
//! | row | phase | on | becomes |
//! |---|---|---|---|
//! | T1 | forward | the pivot is done; without one, all that is not retriable | committing |
//! | T2 | forward | deadline, cancel; the pivot not asked yet | rolling back |
//! | T3 | forward | deadline, cancel; the pivot asked | as it was, refused |
//! | T4 | forward | S2, S5, S7, S8, S11 | rolling back |
//! | T5 | committing | all done | ended: committed |
//! | T6 | rolling back | all skipped, refused or undone | ended: compensated, or aborted when nothing was undone |
//! | T7 | any | a step gets stuck | told: stuck; everything else goes on |
//!
//! "unknown" lasts no longer than the turn: what was asked has nothing after it that could have begun, so that its
//! compensation is asked at once, and its late answers are S21.
//!
//! "Its turn": what is not retriable while forward, what is retriable while committing. "Settled": skipped, refused,
//! undone or stuck.

use sagamore_schemas::definition::StepKind;
use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::{Answer, Operation, OutcomeKind, REASON_EXPIRED, Reply};

use crate::definition::plan::{Retry, StepIndex};
use crate::planted::{self, Defect};
use crate::transaction::{Call, Phase, StepPhase, Transaction};
use crate::turn::{Heeded, Turn};

/// Why a step is answered as it is.
const REASON_TOO_LARGE: &str = "the result does not fit in the transaction";

/// A participant's answer to a command of `step`. `fits` says whether its result still fits in the transaction.
pub(crate) fn on_reply(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: StepIndex,
    reply: &Reply<'_>,
    fits: bool,
) -> Heeded {
    let phase = transaction.step(index).phase.clone();
    let (operation, attempt) = (reply.address.operation, reply.address.attempt);
    match &phase {
        StepPhase::Asked(call) | StepPhase::Pausing(call) | StepPhase::Stuck(call) => {
            let other = operation != call.operation && !planted::is(Defect::AnswerToAnything);
            if other || attempt == 0 || attempt > call.attempt {
                return Heeded::No;
            }
            let current = matches!(phase, StepPhase::Asked(_)) && attempt == call.attempt;
            match (heard(reply.outcome), operation) {
                (Answer::Ok, Operation::Compensate) => {
                    turn.enter(transaction, index, StepPhase::Undone);
                    Heeded::Yes
                }
                (Answer::Ok, _) => on_done(turn, transaction, index, reply, fits, &phase),
                (Answer::Refused, Operation::Compensate) => {
                    on_undo_refused(turn, transaction, index, reply, *call, &phase)
                }
                (Answer::Refused, _) => on_refused(turn, transaction, index, reply, *call, &phase),
                (Answer::Error, _) if current => {
                    on_no_answer(turn, transaction, index, *call, reply.reason.as_deref().unwrap_or("error"));
                    Heeded::Yes
                }
                (Answer::Pending, _) if current => {
                    let due = turn.clock.after(turn.plan.step(index).timeout);
                    turn.enter(transaction, index, StepPhase::Asked(Call { due, ..*call }));
                    Heeded::Yes
                }
                (Answer::Error | Answer::Pending, _) => Heeded::No,
            }
        }
        StepPhase::Waiting
        | StepPhase::Done
        | StepPhase::Unknown
        | StepPhase::Refused
        | StepPhase::Skipped
        | StepPhase::Undone => Heeded::No,
    }
}

fn heard(answer: Answer) -> Answer {
    match answer {
        Answer::Error if planted::is(Defect::ErrorMeansNo) => Answer::Refused,
        answer => answer,
    }
}

fn on_done(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: StepIndex,
    reply: &Reply<'_>,
    fits: bool,
    phase: &StepPhase,
) -> Heeded {
    let compensatable = turn.plan.step(index).kind == StepKind::Compensatable;
    if fits {
        transaction.step_mut(index).result = reply.data.to_payload();
    } else {
        transaction.step_mut(index).reason = Some(REASON_TOO_LARGE.into());
        if compensatable && !matches!(phase, StepPhase::Stuck(_)) {
            turn.enter(transaction, index, StepPhase::Unknown);
            roll_back(turn, transaction, &told(turn, index, REASON_TOO_LARGE));
            return Heeded::Yes;
        }
    }
    turn.enter(transaction, index, StepPhase::Done);
    Heeded::Yes
}

fn on_refused(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: StepIndex,
    reply: &Reply<'_>,
    call: Call,
    phase: &StepPhase,
) -> Heeded {
    let reason = reply.reason.as_deref().unwrap_or("refused");
    let stuck = matches!(phase, StepPhase::Stuck(_));
    let kind = turn.plan.step(index).kind;
    if reason == REASON_EXPIRED {
        if stuck {
            return Heeded::No;
        }
        transaction.step_mut(index).reason = Some(reason.into());
        match kind {
            StepKind::Compensatable => {
                turn.enter(transaction, index, StepPhase::Unknown);
                roll_back(turn, transaction, &told(turn, index, reason));
            }
            StepKind::Pivot | StepKind::Retriable | StepKind::Reserved => {
                turn.enter(transaction, index, StepPhase::Stuck(call));
            }
        }
        return Heeded::Yes;
    }
    if stuck && kind == StepKind::Retriable {
        return Heeded::No;
    }
    transaction.step_mut(index).reason = Some(reason.into());
    match kind {
        StepKind::Retriable => turn.enter(transaction, index, StepPhase::Stuck(call)),
        StepKind::Compensatable | StepKind::Pivot | StepKind::Reserved => {
            turn.enter(transaction, index, StepPhase::Refused);
            roll_back(turn, transaction, &told(turn, index, reason));
        }
    }
    Heeded::Yes
}

fn on_undo_refused(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: StepIndex,
    reply: &Reply<'_>,
    call: Call,
    phase: &StepPhase,
) -> Heeded {
    if matches!(phase, StepPhase::Stuck(_)) {
        return Heeded::No;
    }
    let reason = reply.reason.as_deref().unwrap_or("refused");
    transaction.step_mut(index).reason = Some(reason.into());
    turn.enter(transaction, index, StepPhase::Stuck(call));
    Heeded::Yes
}

/// A command that cannot be delivered: what became of it is unknown.
pub(crate) fn on_undeliverable(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: StepIndex,
    operation: Operation,
    attempt: u32,
    reason: &str,
) -> Heeded {
    match transaction.step(index).phase {
        StepPhase::Asked(call) if call.operation == operation && call.attempt == attempt => {
            on_no_answer(turn, transaction, index, call, reason);
            Heeded::Yes
        }
        _ => Heeded::No,
    }
}

/// The timer of `step` has fired, and stood.
pub(crate) fn on_step_timer(turn: &mut Turn<'_>, transaction: &mut Transaction, index: StepIndex) {
    match transaction.step(index).phase {
        StepPhase::Asked(call) => on_no_answer(turn, transaction, index, call, "timeout"),
        StepPhase::Pausing(call) => ask_again(turn, transaction, index, call, call.tries + 1),
        ref phase => unreachable!("SAG-INV-2 only a call has a timer: {} is {phase}", transaction.birth),
    }
}

/// The timer of the deadline has fired, and stood.
pub(crate) fn on_deadline(turn: &mut Turn<'_>, transaction: &mut Transaction) {
    roll_back(turn, transaction, "deadline");
}

/// Somebody wants it undone. The answer says why not.
pub(crate) fn on_cancel(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    reason: &str,
) -> Result<(), &'static str> {
    match transaction.phase {
        Phase::Forward if pivot_asked(turn, transaction) => {
            Err("the pivot has been asked: no way back is left")
        }
        Phase::Forward => {
            roll_back(turn, transaction, &format!("cancelled: {reason}"));
            Ok(())
        }
        Phase::Committing => Err("it has been decided to commit"),
        Phase::RollingBack => Err("it is being rolled back already"),
    }
}

/// Somebody wants what waits or is stuck to be tried now. The answer says why not.
pub(crate) fn on_retry(turn: &mut Turn<'_>, transaction: &mut Transaction) -> Result<(), &'static str> {
    let mut any = false;
    for (index, _) in turn.plan.indexed() {
        match transaction.step(index).phase {
            StepPhase::Stuck(call) => ask_again(turn, transaction, index, call, 1),
            StepPhase::Pausing(call) => ask_again(turn, transaction, index, call, call.tries + 1),
            _ => continue,
        }
        any = true;
    }
    if any { Ok(()) } else { Err("nothing is stuck or pausing") }
}

/// Does everything that has become possible; says how the transaction ended, if it has.
pub(crate) fn advance(turn: &mut Turn<'_>, transaction: &mut Transaction) -> Option<OutcomeKind> {
    loop {
        match transaction.phase {
            Phase::Forward => {
                ask_ready(turn, transaction, |kind| kind != StepKind::Retriable);
                if transaction.phase == Phase::Forward {
                    if !decided(turn, transaction) {
                        return None;
                    }
                    turn.decide(transaction, Decision::Commit);
                }
            }
            Phase::Committing => {
                ask_ready(turn, transaction, |kind| kind == StepKind::Retriable);
                let all_done = transaction.steps.iter().all(|step| step.phase == StepPhase::Done);
                return all_done.then_some(OutcomeKind::Committed);
            }
            Phase::RollingBack => {
                undo_ready(turn, transaction);
                return ended_back(transaction);
            }
        }
    }
}

fn decided(turn: &Turn<'_>, transaction: &Transaction) -> bool {
    match turn.plan.pivot() {
        Some(pivot) => transaction.step(pivot).phase == StepPhase::Done,
        None => turn
            .plan
            .indexed()
            .filter(|(_, step)| step.kind != StepKind::Retriable)
            .all(|(index, _)| transaction.step(index).phase == StepPhase::Done),
    }
}

fn ended_back(transaction: &Transaction) -> Option<OutcomeKind> {
    let mut undone = false;
    for step in &transaction.steps {
        match step.phase {
            StepPhase::Undone => undone = true,
            StepPhase::Skipped | StepPhase::Refused => {}
            StepPhase::Waiting
            | StepPhase::Asked(_)
            | StepPhase::Pausing(_)
            | StepPhase::Done
            | StepPhase::Unknown
            | StepPhase::Stuck(_) => return None,
        }
    }
    Some(if undone { OutcomeKind::Compensated } else { OutcomeKind::Aborted })
}

fn ask_ready(turn: &mut Turn<'_>, transaction: &mut Transaction, turns: impl Fn(StepKind) -> bool) {
    let plan = turn.plan;
    for (index, step) in plan.indexed() {
        let ready = transaction.step(index).phase == StepPhase::Waiting
            && turns(step.kind)
            && step.after.iter().all(|before| transaction.step(*before).phase == StepPhase::Done);
        if !ready {
            continue;
        }
        let call = first_call(turn, Operation::Execute);
        match turn.ask(transaction, index, call) {
            Ok(()) if step.kind == StepKind::Pivot => turn.disarm_deadline(transaction),
            Ok(()) => {}
            Err(reason) => {
                transaction.step_mut(index).reason = Some(reason.as_str().into());
                if step.kind == StepKind::Retriable {
                    turn.enter(transaction, index, StepPhase::Stuck(Call { attempt: 0, ..call }));
                } else {
                    turn.enter(transaction, index, StepPhase::Refused);
                    roll_back(turn, transaction, &told(turn, index, &reason));
                    return;
                }
            }
        }
    }
}

fn undo_ready(turn: &mut Turn<'_>, transaction: &mut Transaction) {
    let plan = turn.plan;
    for (index, step) in plan.indexed().rev() {
        let settled = |phase: &StepPhase| {
            matches!(phase, StepPhase::Skipped | StepPhase::Refused | StepPhase::Undone | StepPhase::Stuck(_))
        };
        let ready = matches!(transaction.step(index).phase, StepPhase::Done | StepPhase::Unknown)
            && step.before.iter().all(|after| settled(&transaction.step(*after).phase));
        if !ready {
            continue;
        }
        let call = first_call(turn, Operation::Compensate);
        if let Err(reason) = turn.ask(transaction, index, call) {
            transaction.step_mut(index).reason = Some(reason.into());
            turn.enter(transaction, index, StepPhase::Stuck(Call { attempt: 0, ..call }));
        }
    }
}

fn roll_back(turn: &mut Turn<'_>, transaction: &mut Transaction, reason: &str) {
    turn.decide(transaction, Decision::Rollback);
    transaction.reason = Some(reason.into());
    let plan = turn.plan;
    for (index, _) in plan.indexed() {
        match transaction.step(index).phase {
            StepPhase::Waiting => turn.enter(transaction, index, StepPhase::Skipped),
            StepPhase::Asked(_) | StepPhase::Pausing(_) => turn.enter(transaction, index, StepPhase::Unknown),
            StepPhase::Done
            | StepPhase::Unknown
            | StepPhase::Refused
            | StepPhase::Skipped
            | StepPhase::Undone
            | StepPhase::Stuck(_) => {}
        }
    }
}

fn on_no_answer(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: StepIndex,
    call: Call,
    reason: &str,
) {
    let attempts = turn.plan.step(index).retry.attempts;
    transaction.step_mut(index).reason = Some(reason.into());
    if attempts == Retry::UNBOUNDED || call.tries < attempts {
        let due = turn.pause(transaction, index, call);
        turn.enter(transaction, index, StepPhase::Pausing(Call { due, ..call }));
    } else if call.operation == Operation::Compensate {
        turn.enter(transaction, index, StepPhase::Stuck(call));
    } else {
        turn.enter(transaction, index, StepPhase::Unknown);
        roll_back(
            turn,
            transaction,
            &told(turn, index, &format!("no answer after {} attempts, last: {reason}", call.tries)),
        );
    }
}

fn ask_again(turn: &mut Turn<'_>, transaction: &mut Transaction, index: StepIndex, call: Call, tries: u32) {
    let next = Call { attempt: call.attempt + 1, tries, ..call };
    if let Err(reason) = turn.ask(transaction, index, next) {
        transaction.step_mut(index).reason = Some(reason.into());
        turn.enter(transaction, index, StepPhase::Stuck(call));
    }
}

fn pivot_asked(turn: &Turn<'_>, transaction: &Transaction) -> bool {
    let asked = |pivot| transaction.step(pivot).phase != StepPhase::Waiting;
    turn.plan.pivot().is_some_and(asked) && !planted::is(Defect::PivotTurnsBack)
}

fn first_call(turn: &Turn<'_>, operation: Operation) -> Call {
    Call { operation, attempt: 1, tries: 1, issued: turn.clock, due: turn.clock }
}

fn told(turn: &Turn<'_>, index: StepIndex, reason: &str) -> String {
    format!("{}: {reason}", turn.plan.step(index).name)
}

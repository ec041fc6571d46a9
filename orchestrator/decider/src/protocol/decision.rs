//! The decision: when a transaction commits, when it turns back, and what is asked next.
//!
//! A transaction has exactly one decision, and one record of the inbox makes it:
//!
//! | the definition has | the record that decides to commit | deadline and cancel until then |
//! |---|---|---|
//! | a pivot | answers it `ok` | turn back; refused once the pivot has been asked |
//! | a group in the pivot's place | brings the last of its votes | abort the group, and turn back |
//! | neither | lets the last step pass that is not retriable | turn back |
//!
//! A pivot, or a group in its place, that is skipped decides as if it had been done.
//!
//! | step | before the decision | after commit | after rollback |
//! |---|---|---|---|
//! | compensatable | `execute` | | `compensate` |
//! | group in its place, its branches declare `compensate` | `prepare`, and by its own votes `commit` | goes on to commit | before its votes are complete: `abort`; else goes on to commit, then `compensate` |
//! | reserved, or group with `commit: at-end` | `prepare` | `commit` | `abort` |
//! | pivot | `execute` | | it was refused, or never asked |
//! | group in the pivot's place | `prepare` | `commit` | `abort` |
//! | retriable | | `execute` | never asked |
//! | one that starts a definition, by its kind | begin a child | begin, if retriable | call it off; if it has committed, begin what undoes it |
//!
//! "Passed" is what lets the steps after it begin: done or skipped; before the decision also prepared, for a step that
//! commits with it. "Its turn": before the decision for all but retriable steps, after commit for these. "Settled":
//! skipped, refused, undone, aborted or stuck; on the way back a step is undone when all after it are settled.
//!
//! No combination waits for itself. A decision waits for results and votes only, never for the acknowledgement of
//! a `commit` that it causes, and never for a retriable step. The check demands that everything but retriable steps
//! comes before the pivot, or the group in its place: so nothing else is under way when it decides. A group that commits
//! in its place before the decision is compensatable, and waits for its own votes only.
//!
//! The transaction:
//!
//! | row | phase | on | becomes |
//! |---|---|---|---|
//! | T1 | forward | a record that decides to commit | committing |
//! | T2 | forward, paused | deadline, cancel, called off by its parent; the pivot not asked yet | rolling back |
//! | T3 | forward | the same; the pivot asked | as it was, refused |
//! | T4 | forward, paused | a row of a branch with rollback | rolling back |
//! | T5 | committing | all done or skipped | ended: committed |
//! | T6 | rolling back | all skipped, refused, undone or aborted | ended: compensated, or aborted when nothing was undone |
//! | T7 | any | a branch gets stuck | told: stuck; everything else goes on |
//! | T8 | forward | `pause`; the pivot not asked yet, no group of it has decided or may by itself | paused |
//! | T9 | paused | `resume` | forward, and what came due meanwhile is done |
//!
//! A child that has ended is kept, its parent is told, and it goes when the parent has heard of it (`crate::child`).

use sagamore_schemas::definition::StepKind;
use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::{Operation, OutcomeKind};

use super::call::ask_decided;
use super::three_phase::{is_one_short, next_to_commit};
use crate::definition::plan::PlanStep;
use crate::planted::{self, Defect};
use crate::transaction::{BranchPhase, Call, Phase, Transaction};
use crate::turn::{Turn, is_wanted};

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
    way_back(turn, transaction)?;
    roll_back(turn, transaction, &format!("cancelled: {reason}"));
    Ok(())
}

/// Whether there is a way back; otherwise why not.
pub(super) fn way_back(turn: &Turn<'_>, transaction: &Transaction) -> Result<(), &'static str> {
    match transaction.phase {
        Phase::Ended(_) => Err("it has ended"),
        Phase::Forward | Phase::Paused if !has_way_back(turn, transaction) => {
            Err("the pivot has been asked: no way back is left")
        }
        Phase::Forward | Phase::Paused => Ok(()),
        Phase::Committing => Err("it has been decided to commit"),
        Phase::RollingBack => Err("it is being rolled back already"),
    }
}

fn has_way_back(turn: &Turn<'_>, transaction: &Transaction) -> bool {
    transaction.has_way_back(turn.plan) || planted::is(Defect::PivotTurnsBack)
}

/// Does everything that has become possible; says how the transaction ended, if it has.
pub(crate) fn advance(turn: &mut Turn<'_>, transaction: &mut Transaction) -> Option<OutcomeKind> {
    let plan = turn.plan;
    loop {
        match transaction.phase {
            Phase::Ended(_) | Phase::Paused => return None,
            Phase::Forward => {
                let before = |step: &&PlanStep| step.kind == StepKind::Compensatable;
                plan.steps.iter().filter(before).for_each(|step| commit(turn, transaction, step));
                ask_ready(turn, transaction, |kind| kind != StepKind::Retriable);
                if transaction.phase == Phase::Forward {
                    if !is_decided(turn, transaction) {
                        return None;
                    }
                    turn.decide(transaction, Decision::Commit);
                }
            }
            Phase::Committing => {
                plan.steps.iter().for_each(|step| commit(turn, transaction, step));
                ask_ready(turn, transaction, |kind| kind == StepKind::Retriable);
                let has_ended = plan.steps.iter().all(|step| transaction.all_of(step, is_done));
                return has_ended.then_some(OutcomeKind::Committed);
            }
            Phase::RollingBack => {
                undo_ready(turn, transaction);
                return ended_back(transaction);
            }
        }
    }
}

fn is_decided(turn: &Turn<'_>, transaction: &Transaction) -> bool {
    let plan = turn.plan;
    if let Some(pivot) = plan.pivot().map(|pivot| plan.step(pivot)) {
        return has_passed(transaction, pivot) || is_one_short(transaction, pivot);
    }
    let decides = |step: &&PlanStep| step.kind != StepKind::Retriable;
    plan.steps.iter().filter(decides).all(|step| has_passed(transaction, step))
}

fn is_done(phase: &BranchPhase) -> bool {
    matches!(phase, BranchPhase::Done | BranchPhase::Skipped)
}

/// Whether the steps after it may begin, and the decision may fall.
fn has_passed(transaction: &Transaction, step: &PlanStep) -> bool {
    let prepared_is_enough = match step.kind {
        StepKind::Pivot | StepKind::Reserved => transaction.phase == Phase::Forward,
        StepKind::Compensatable | StepKind::Retriable => false,
    };
    let passed =
        |phase: &BranchPhase| is_done(phase) || prepared_is_enough && *phase == BranchPhase::Prepared;
    transaction.all_of(step, passed)
}

/// The next operation of a step whose turn to commit has come, when all its branches are ready for it.
fn commit(turn: &mut Turn<'_>, transaction: &mut Transaction, step: &PlanStep) {
    if let Some(operation) = next_to_commit(transaction, step) {
        step.indexes().for_each(|index| ask_decided(turn, transaction, index, operation));
    }
}

/// Begins every step that has become ready, until there is none or the transaction turns back.
fn ask_ready(turn: &mut Turn<'_>, transaction: &mut Transaction, turns: impl Fn(StepKind) -> bool) {
    let plan = turn.plan;
    loop {
        let mut has_skipped = false;
        for step in &plan.steps {
            let is_ready = turns(step.kind)
                && transaction.all_of(step, |phase| *phase == BranchPhase::Waiting)
                && step.after.iter().all(|before| has_passed(transaction, plan.step(*before)));
            if !is_ready {
                continue;
            }
            match begin(turn, transaction, step) {
                Begun::Asked => {}
                Begun::Skipped => has_skipped = true,
                Begun::TurnedBack => return,
            }
        }
        // What has been skipped has passed, and may stand in the file after what waits for it.
        if !has_skipped {
            return;
        }
    }
}

enum Begun {
    Asked,
    Skipped,
    TurnedBack,
}

fn begin(turn: &mut Turn<'_>, transaction: &mut Transaction, step: &PlanStep) -> Begun {
    let wanted = is_wanted(transaction, step);
    if wanted == Ok(false) {
        step.indexes().for_each(|index| turn.enter(transaction, index, BranchPhase::Skipped));
        return Begun::Skipped;
    }
    let operation = if step.protocol.is_some() { Operation::Prepare } else { Operation::Execute };
    for index in step.indexes() {
        let call = turn.first_call(operation);
        if step.is_child() {
            transaction.branch_mut(index).begun = call.attempt;
        }
        let asked = wanted.clone().and_then(|_| turn.ask(transaction, index, call));
        let Err(reason) = asked else { continue };
        transaction.branch_mut(index).reason = Some(reason.as_str().into());
        if step.kind == StepKind::Retriable {
            turn.enter(transaction, index, BranchPhase::Stuck(Call { attempt: 0, ..call }));
        } else {
            turn.enter(transaction, index, BranchPhase::Refused);
            roll_back(turn, transaction, &turn.told(index, &reason));
            return Begun::TurnedBack;
        }
    }
    if !transaction.has_way_back(turn.plan) {
        turn.disarm_deadline(transaction);
    }
    Begun::Asked
}

/// The decision to roll back. What has been asked and not answered may have been done.
pub(super) fn roll_back(turn: &mut Turn<'_>, transaction: &mut Transaction, reason: &str) {
    turn.decide(transaction, Decision::Rollback);
    transaction.reason = Some(reason.into());
    for index in turn.plan.branch_indexes() {
        match &transaction.branch(index).phase {
            BranchPhase::Waiting => turn.enter(transaction, index, BranchPhase::Skipped),
            BranchPhase::Asked(call) | BranchPhase::Pausing(call) => match call.operation {
                Operation::Execute if planted::is(Defect::MaybeDoneSkipped) => {
                    turn.enter(transaction, index, BranchPhase::Skipped);
                }
                Operation::Prepare if planted::is(Defect::LateYesForgotten) => {
                    turn.enter(transaction, index, BranchPhase::Skipped);
                }
                Operation::Execute | Operation::Prepare => {
                    turn.enter(transaction, index, BranchPhase::Unknown);
                }
                // What has been decided goes on: a compensatable group commits, and is compensated then.
                Operation::Precommit | Operation::Commit | Operation::Compensate | Operation::Abort => {}
            },
            BranchPhase::Prepared
            | BranchPhase::Precommitted
            | BranchPhase::Done
            | BranchPhase::Unknown
            | BranchPhase::Refused
            | BranchPhase::Skipped
            | BranchPhase::Undone
            | BranchPhase::Aborted
            | BranchPhase::Stuck(_) => {}
        }
    }
}

fn undo_ready(turn: &mut Turn<'_>, transaction: &mut Transaction) {
    let plan = turn.plan;
    for (_, step) in plan.indexed().rev() {
        let settled = |after: &PlanStep| transaction.all_of(after, is_settled);
        if !step.before.iter().all(|after| settled(plan.step(*after))) {
            continue;
        }
        if transaction.all_of(step, |phase| *phase == BranchPhase::Precommitted) {
            commit(turn, transaction, step);
        }
        let is_child = step.is_child();
        for index in step.indexes() {
            let operation = match transaction.branch(index).phase {
                BranchPhase::Prepared => Operation::Abort,
                BranchPhase::Unknown if step.protocol.is_some() || is_child => Operation::Abort,
                BranchPhase::Unknown | BranchPhase::Done => Operation::Compensate,
                BranchPhase::Waiting
                | BranchPhase::Asked(_)
                | BranchPhase::Pausing(_)
                | BranchPhase::Precommitted
                | BranchPhase::Refused
                | BranchPhase::Skipped
                | BranchPhase::Undone
                | BranchPhase::Aborted
                | BranchPhase::Stuck(_) => continue,
            };
            ask_decided(turn, transaction, index, operation);
        }
    }
}

fn is_settled(phase: &BranchPhase) -> bool {
    matches!(
        phase,
        BranchPhase::Skipped
            | BranchPhase::Refused
            | BranchPhase::Undone
            | BranchPhase::Aborted
            | BranchPhase::Stuck(_)
    )
}

fn ended_back(transaction: &Transaction) -> Option<OutcomeKind> {
    let phases = || transaction.branches.iter().map(|branch| &branch.phase);
    if phases().any(|phase| !is_settled(phase) || matches!(phase, BranchPhase::Stuck(_))) {
        return None;
    }
    let undone = phases().any(|phase| *phase == BranchPhase::Undone);
    Some(if undone { OutcomeKind::Compensated } else { OutcomeKind::Aborted })
}

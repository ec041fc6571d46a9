//! One operation being asked of a participant: attempts, answers, pauses. What an answer means is the protocol's matter.
//!
//! An answer counts when it is to the operation being asked and to any attempt up to the latest; `error` and `pending`
//! only to the latest. The rows are in the tables of the protocols.

use sagamore_schemas::wire::{Answer, Operation, Reply};

use super::{child, decision, saga, two_phase};
use crate::definition::plan::{BranchIndex, Retry};
use crate::planted::{self, Defect};
use crate::transaction::{BranchPhase, Call, Phase, Transaction};
use crate::turn::{Heeded, Turn, is_wanted};

/// Why a branch is answered as it is.
pub(super) const REASON_TOO_LARGE: &str = "the result does not fit in the transaction";

/// An answer to what is being asked of a branch, or was.
pub(super) struct Heard<'a> {
    pub index: BranchIndex,
    pub call: Call,
    /// Whether the branch was stuck.
    pub stuck: bool,
    pub reply: &'a Reply<'a>,
    /// Whether the result still fits in the transaction.
    pub fits: bool,
}

impl Heard<'_> {
    pub fn reason(&self, otherwise: &'static str) -> &str {
        self.reply.reason.as_deref().unwrap_or(otherwise)
    }
}

/// A participant's answer to a command of a branch. `fits` says whether its result still fits in the transaction.
pub(crate) fn on_reply(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    reply: &Reply<'_>,
    fits: bool,
) -> Heeded {
    if turn.plan.branch(index).0.is_child() {
        return child::on_reply(turn, transaction, index, reply, fits);
    }
    let phase = &transaction.branch(index).phase;
    let (operation, attempt) = (reply.address.operation, reply.address.attempt);
    let Some(call) = phase.call() else {
        return two_phase::on_repeated_vote(turn, transaction, index, reply);
    };
    if operation != call.operation && !planted::is(Defect::AnswerToAnything) {
        return two_phase::on_late_vote(turn, transaction, index, reply, call);
    }
    if attempt == 0 || attempt > call.attempt {
        return Heeded::No;
    }
    let is_asked = matches!(phase, BranchPhase::Asked(_));
    let stuck = matches!(phase, BranchPhase::Stuck(_));
    let heard = Heard { index, call, stuck, reply, fits };
    match (meant(reply.outcome), operation) {
        (Answer::Ok, Operation::Execute) => saga::on_done(turn, transaction, &heard),
        (Answer::Ok, Operation::Prepare) => two_phase::on_yes(turn, transaction, &heard),
        (Answer::Ok, Operation::Compensate) => turn.enter(transaction, index, BranchPhase::Undone),
        (Answer::Ok, Operation::Precommit) => turn.enter(transaction, index, BranchPhase::Precommitted),
        (Answer::Ok, Operation::Commit) => turn.enter(transaction, index, BranchPhase::Done),
        (Answer::Ok, Operation::Abort) => turn.enter(transaction, index, BranchPhase::Aborted),
        (Answer::Refused, Operation::Execute) => return saga::on_refused(turn, transaction, &heard),
        (Answer::Refused, Operation::Prepare) => two_phase::on_no(turn, transaction, &heard),
        (
            Answer::Refused,
            Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort,
        ) => {
            if stuck {
                return Heeded::No;
            }
            transaction.branch_mut(index).reason = Some(heard.reason("refused").into());
            turn.enter(transaction, index, BranchPhase::Stuck(call));
        }
        (Answer::Error | Answer::Pending, _) if !is_asked || attempt != call.attempt => return Heeded::No,
        (Answer::Error, _) => on_no_answer(turn, transaction, index, call, heard.reason("error")),
        (Answer::Pending, _) => on_pending(turn, transaction, index, call),
    }
    Heeded::Yes
}

pub(super) fn on_pending(turn: &mut Turn<'_>, transaction: &mut Transaction, index: BranchIndex, call: Call) {
    let due = turn.clock.after(turn.plan.branch(index).0.timeout);
    turn.enter(transaction, index, BranchPhase::Asked(Call { due, ..call }));
}

fn meant(answer: Answer) -> Answer {
    match answer {
        Answer::Error if planted::is(Defect::ErrorMeansNo) => Answer::Refused,
        answer => answer,
    }
}

/// A command that cannot be delivered: what became of it is unknown.
pub(crate) fn on_undeliverable(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    operation: Operation,
    attempt: u32,
    reason: &str,
) -> Heeded {
    match transaction.branch(index).phase {
        BranchPhase::Asked(call) if call.operation == operation && call.attempt == attempt => {
            on_no_answer(turn, transaction, index, call, reason);
            Heeded::Yes
        }
        _ => Heeded::No,
    }
}

/// The timer of a branch has fired, and stood.
pub(crate) fn on_timer(turn: &mut Turn<'_>, transaction: &mut Transaction, index: BranchIndex) {
    match transaction.branch(index).phase {
        BranchPhase::Asked(call) => on_no_answer(turn, transaction, index, call, "timeout"),
        BranchPhase::Pausing(call) => ask_again(turn, transaction, index, call, call.tries + 1),
        ref phase => unreachable!("SAG-INV-2 only a call has a timer: {} is {phase}", transaction.birth),
    }
}

/// Somebody wants what waits or is stuck to be tried now. The answer says why not.
pub(crate) fn on_retry(turn: &mut Turn<'_>, transaction: &mut Transaction) -> Result<(), &'static str> {
    if transaction.phase == Phase::Paused {
        return Err("it is paused");
    }
    let mut any = false;
    for index in turn.plan.branch_indexes() {
        match transaction.branch(index).phase {
            BranchPhase::Stuck(call) => {
                if turn.plan.branch(index).0.is_child() {
                    transaction.branch_mut(index).begun = call.attempt + 1;
                }
                ask_again(turn, transaction, index, call, 1);
            }
            BranchPhase::Pausing(call) => ask_again(turn, transaction, index, call, call.tries + 1),
            _ => continue,
        }
        any = true;
    }
    if any { Ok(()) } else { Err("nothing is stuck or pausing") }
}

/// The first command of an operation that has been decided on. What cannot be asked is stuck.
pub(super) fn ask_decided(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    operation: Operation,
) {
    let call = turn.first_call(operation);
    if operation != Operation::Abort && turn.plan.branch(index).0.is_child() {
        transaction.branch_mut(index).begun = call.attempt;
    }
    if let Err(reason) = turn.ask(transaction, index, call) {
        transaction.branch_mut(index).reason = Some(reason.into());
        turn.enter(transaction, index, BranchPhase::Stuck(Call { attempt: 0, ..call }));
    }
}

pub(super) fn ask_again(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    call: Call,
    tries: u32,
) {
    let next = Call { attempt: call.attempt + 1, tries, ..call };
    let is_wanted = match call.attempt {
        0 => is_wanted(transaction, turn.plan.branch(index).0),
        _ => Ok(true),
    };
    if let Err(reason) = is_wanted.and_then(|_| turn.ask(transaction, index, next)) {
        transaction.branch_mut(index).reason = Some(reason.into());
        turn.enter(transaction, index, BranchPhase::Stuck(call));
    }
}

pub(super) fn on_no_answer(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    call: Call,
    reason: &str,
) {
    let attempts = turn.attempts(index, call.operation);
    transaction.branch_mut(index).reason = Some(reason.into());
    if attempts == Retry::UNBOUNDED || call.tries < attempts {
        let due = turn.pause(transaction, index, call);
        turn.enter(transaction, index, BranchPhase::Pausing(Call { due, ..call }));
        return;
    }
    match call.operation {
        Operation::Execute | Operation::Prepare => {
            turn.enter(transaction, index, BranchPhase::Unknown);
            let why = format!("no answer after {} attempts, last: {reason}", call.tries);
            decision::roll_back(turn, transaction, &turn.told(index, &why));
        }
        Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort => {
            turn.enter(transaction, index, BranchPhase::Stuck(call));
        }
    }
}

//! A step that starts another definition: the child is a transaction of its own, with its own home and its own decision.
//!
//! The branch of such a step, by what happens to it (`+n`: the n-th attempt; "any" = any attempt from the one that began
//! the present child to the latest):
//!
//! | row | phase | on | becomes | and |
//! |---|---|---|---|---|
//! | C1 | waiting | all before it passed, and its turn | asked execute +1 | begin a child |
//! | C2 | waiting | its input cannot be mapped, its `when` is false or has no answer; rollback | S2, S3 | |
//! | C3 | asked, pausing: execute | `ok`, any: the child has committed | done | its outcome kept, forget |
//! | C4 | asked, pausing: execute | the same, too large; compensatable | done, without it | rollback, forget |
//! | C5 | asked, pausing: execute | `refused`, any: the child was undone or never begun; retriable | stuck | forget |
//! | C6 | asked, pausing: execute | the same; the others | refused | rollback, forget |
//! | C7 | asked +n | `pending` +n | asked | timeout starts anew |
//! | C8 | asked +n | `error` +n, timeout | pausing | |
//! | C9 | pausing +n | its pause is over, or `retry` | asked +(n+1) | the same again |
//! | C10 | asked, pausing: execute | rollback | unknown | |
//! | C11 | unknown | rollback, all after it settled | asked abort +1 | call it off |
//! | C12 | asked, pausing: abort | `ok`: it never began, and never will | aborted | |
//! | C13 | asked, pausing: abort | `refused` to execute: it was undone | undone | forget |
//! | C14 | asked, pausing: abort | `ok` to execute: it had committed | done | its outcome kept, forget |
//! | C15 | done | rollback, all after it settled | asked compensate +1 | begin what undoes it |
//! | C16 | asked, pausing: compensate | `ok`, any | undone | forget |
//! | C17 | asked, pausing: compensate | `refused`, any | stuck | forget |
//! | C18 | stuck +n | `retry` | asked +(n+1) | begin another child |
//! | C19 | stuck | resolved as `ok` | execute: done; compensate: undone | |
//! | C20 | any | anything else | as it was | no trace |
//!
//! A child is asked until its end is known, whatever the kind of the step: so the parent hears of every end, and "forget"
//! follows it. Until then the child's home keeps it; so what it does not know, and was issued before its memory begins,
//! has never run, or has been forgotten and is not asked for: `error`, and the next attempt is issued anew.
//!
//! A child is given half of what a transaction may hold at most; its result is "too large", too, when it and the input
//! would take more: so what undoes it is never refused for its size.

use std::borrow::Cow;

use sagamore_schemas::definition::StepKind;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Birth, Partition, TransactionId};
use sagamore_schemas::log::Digest128;
use sagamore_schemas::wire::{
    Address, Answer, ChildRequest, ChildWish, Operation, Payload, PayloadRef, Reply,
};

use super::call::{REASON_TOO_LARGE, on_no_answer, on_pending};
use super::decision::roll_back;
use crate::definition::plan::BranchIndex;
use crate::identity::Identity;
use crate::output::{Destination, Output};
use crate::planted::{self, Defect};
use crate::transaction::{BranchPhase, DefinitionId, Transaction};
use crate::turn::{Heeded, Turn};

/// The id of a child: its step's name, for people, and a hash of what makes it the only one.
pub(crate) fn child_id(
    identity: &Identity,
    birth: Birth,
    step: &str,
    operation: Operation,
    begun: u32,
) -> TransactionId {
    let seed = format!("{}/{birth}/{step}/{operation}/{begun}", identity.instance);
    match format!("{step}.{}", Digest128::of(seed.as_bytes())).parse() {
        Ok(id) => id,
        Err(error) => unreachable!("a name, a dot and hexadecimal digits are an id: {error}"),
    }
}

/// What a call means to a child: its home gets it.
pub(crate) fn request(
    turn: &mut Turn<'_>,
    transaction: &Transaction,
    index: BranchIndex,
    address: Address<'_>,
    data: PayloadRef<'_>,
) -> Result<(), String> {
    let wish = match address.operation {
        Operation::Abort => ChildWish::CallOff,
        Operation::Execute
        | Operation::Compensate
        | Operation::Prepare
        | Operation::Precommit
        | Operation::Commit => ChildWish::Begin,
    };
    let bytes = data.size_bytes() as u64;
    if address.operation == Operation::Execute && bytes > turn.child_bytes_max {
        return Err(format!("{bytes} bytes for a child, {} at most", turn.child_bytes_max));
    }
    let definition = definition_for(turn, index, address.operation)?;
    say(turn, transaction, index, wish, address, definition, data);
    Ok(())
}

/// What is begun for an operation: the step's definition, or what undoes it.
fn definition_for(turn: &Turn<'_>, index: BranchIndex, operation: Operation) -> Result<DefinitionId, String> {
    let Some(child) = turn.plan.branch(index).1.by.child() else {
        unreachable!("it is asked of the branch of a child only")
    };
    if operation != Operation::Compensate {
        return Ok(child.clone());
    }
    turn.definitions
        .known(child)
        .and_then(|plan| plan.compensated_by.clone())
        .ok_or_else(|| format!("{child} says nothing of what undoes it (compensated_by)"))
}

fn say(
    turn: &mut Turn<'_>,
    transaction: &Transaction,
    index: BranchIndex,
    wish: ChildWish,
    parent: Address<'_>,
    definition: DefinitionId,
    data: PayloadRef<'_>,
) {
    // What calls a child off names the one that was begun.
    let begun_by = match parent.operation {
        Operation::Abort => Operation::Execute,
        operation => operation,
    };
    let begun = transaction.branch(index).begun;
    let subject = child_id(turn.identity, transaction.birth, &parent.step, begun_by, begun);
    let home: Partition = home(&subject, turn.identity.partitions);
    let traceparent = transaction.traceparent.as_deref().map(Cow::Borrowed);
    let (instance, issued) = (turn.identity.instance, turn.clock);
    let depth = transaction.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
    let key = subject.as_str().as_bytes().to_vec();
    let said = ChildRequest { subject, wish, parent, instance, issued, depth, definition, traceparent, data };
    turn.outputs.push(Output {
        destination: Destination::Inbox(home),
        key: Some(key),
        value: Some(said.to_json()),
        headers: Vec::new(),
    });
}

/// The home of a child says what has become of it.
pub(super) fn on_reply(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    reply: &Reply<'_>,
    fits: bool,
) -> Heeded {
    let branch = transaction.branch(index);
    let (Some(call), begun) = (branch.phase.call(), branch.begun) else { return Heeded::No };
    let is_asked = matches!(branch.phase, BranchPhase::Asked(_));
    if matches!(branch.phase, BranchPhase::Stuck(_)) {
        return Heeded::No;
    }
    let (operation, attempt) = (reply.address.operation, reply.address.attempt);
    // While it is called off, its end is still told to the operation that began it.
    let is_called_off = call.operation == Operation::Abort;
    let is_of_present = match operation {
        Operation::Execute if is_called_off => attempt >= begun,
        Operation::Abort => attempt >= 1 && attempt <= call.attempt,
        _ => attempt >= begun && attempt <= call.attempt,
    };
    let is_about = operation == call.operation || (is_called_off && operation == Operation::Execute);
    if !is_about || !(is_of_present || planted::is(Defect::AnswerOfAnotherChild)) {
        return Heeded::No;
    }
    let is_latest = is_asked && operation == call.operation && attempt == call.attempt;
    let reason = reply.reason.as_deref();
    match (reply.outcome, operation) {
        (Answer::Pending, _) if is_latest => on_pending(turn, transaction, index, call),
        (Answer::Error, _) if is_latest => {
            on_no_answer(turn, transaction, index, call, reason.unwrap_or("error"));
        }
        (Answer::Pending | Answer::Error, _) | (Answer::Refused, Operation::Abort) => return Heeded::No,
        (Answer::Ok, Operation::Execute) => on_committed(turn, transaction, index, reply, fits),
        (Answer::Ok, Operation::Abort) => turn.enter(transaction, index, BranchPhase::Aborted),
        (Answer::Refused, _) if !is_called_off => {
            let reason = reason.unwrap_or("refused");
            transaction.branch_mut(index).reason = Some(reason.into());
            let is_final = turn.plan.branch(index).0.kind == StepKind::Retriable;
            if is_final || operation == Operation::Compensate {
                turn.enter(transaction, index, BranchPhase::Stuck(call));
            } else {
                turn.enter(transaction, index, BranchPhase::Refused);
                roll_back(turn, transaction, &turn.told(index, reason));
            }
        }
        // What undoes it has committed; or what was called off has been undone.
        (Answer::Ok | Answer::Refused, _) => turn.enter(transaction, index, BranchPhase::Undone),
    }
    let is_end = matches!(reply.outcome, Answer::Ok | Answer::Refused) && operation != Operation::Abort;
    if is_end && let Ok(definition) = definition_for(turn, index, operation) {
        let (parent, nothing) = (reply.address.clone(), PayloadRef::Absent);
        say(turn, transaction, index, ChildWish::Forget, parent, definition, nothing);
    }
    Heeded::Yes
}

/// Whether what undoes the child would be given more than half of what a transaction may hold: then it could not keep
/// results of its own.
fn is_too_large_to_undo(turn: &Turn<'_>, transaction: &Transaction, index: BranchIndex) -> bool {
    let data = turn.data(transaction, index, Operation::Compensate);
    data.is_ok_and(|data| data.size_bytes() as u64 > turn.child_bytes_max)
}

fn on_committed(
    turn: &mut Turn<'_>,
    transaction: &mut Transaction,
    index: BranchIndex,
    reply: &Reply<'_>,
    fits: bool,
) {
    transaction.branch_mut(index).result = reply.data.to_payload();
    let is_compensatable = turn.plan.branch(index).0.kind == StepKind::Compensatable;
    let fits = fits && !(is_compensatable && is_too_large_to_undo(turn, transaction, index));
    let goes_back = !fits && is_compensatable;
    if !fits {
        transaction.branch_mut(index).result = Payload::Absent;
        transaction.branch_mut(index).reason = Some(REASON_TOO_LARGE.into());
    }
    turn.enter(transaction, index, BranchPhase::Done);
    if goes_back && transaction.is_undecided() {
        roll_back(turn, transaction, &turn.told(index, REASON_TOO_LARGE));
    }
}

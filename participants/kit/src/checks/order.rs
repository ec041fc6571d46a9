//! Commands of one key, sent without waiting for answers.

use sagamore_schemas::wire::{Answer, Operation};

use crate::bench::Bench;
use crate::branch::{Branch, Effects};
use crate::error::Stop;
use crate::inbox::Said;

pub(super) fn one_branch(bench: &Bench<'_>) -> Result<(), Stop> {
    let (first, undo) = (bench.forward().first(), bench.forward().undo());
    let mut branches: Vec<Branch<'_, '_>> =
        (0..bench.settings.keys.get()).map(|_| bench.branch("order/one-branch")).collect();
    for branch in &mut branches {
        branch.mark()?;
    }
    for operation in [first, undo] {
        branches.iter_mut().try_for_each(|branch| branch.send(operation))?;
    }
    for branch in &mut branches {
        let done = branch.hear(first)?;
        let undone = branch.hear(undo)?;
        if done.outcome == Answer::Refused {
            return Err(branch.broken(&format!("{first} is done, and then undone"), &done.told()));
        }
        if [first, undo].map(|operation| place(bench, branch, operation)).is_sorted() {
            // A technical failure is asked again, as anywhere.
            if undone.outcome != Answer::Ok {
                branch.ask_ok(undo)?;
            }
            branch.expect(bench.forward(), Effects::None)?;
        } else {
            return Err(branch
                .broken(&format!("the answer to {first} first"), &format!("the answer to {undo} first")));
        }
    }
    Ok(())
}

pub(super) fn one_key(bench: &Bench<'_>) -> Result<(), Stop> {
    if bench.settings.key.is_some() {
        return Err(Stop::Skipped("with --key each transaction has a key of its own".to_owned()));
    }
    let operation = bench.forward().first();
    let mut branches: Vec<Branch<'_, '_>> =
        (0..bench.settings.keys.get()).map(|_| bench.branch("order/one-key")).collect();
    for branch in &mut branches {
        "order.one-key".clone_into(&mut branch.key);
        branch.birth.partition.0 = 0;
        branch.send(operation)?;
    }
    let mut last = None;
    for branch in &mut branches {
        branch.hear(operation)?;
        let place = place(bench, branch, operation);
        if last > place {
            return Err(
                branch.broken("answers in the order of the commands of this key", "it overtook another")
            );
        }
        last = place;
    }
    branches.iter_mut().try_for_each(|branch| branch.ask(bench.forward().undo()).map(|_| ()))
}

/// Where the first answer to it stands in its inbox partition.
fn place(bench: &Bench<'_>, branch: &Branch<'_, '_>, operation: Operation) -> Option<i64> {
    bench.inbox.look(|shelf| {
        shelf.of(&branch.subject).iter().find_map(|arrived| match &arrived.said {
            Said::Reply(reply) if reply.operation == operation => Some(arrived.offset),
            Said::Reply(_) | Said::Inquiry(_) => None,
        })
    })
}

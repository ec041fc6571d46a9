//! The same again, and what only looks like it.

use sagamore_schemas::wire::{Answer, Operation};
use uuid::Uuid;

use crate::bench::{Bench, Forward};
use crate::branch::{Branch, Effects};
use crate::error::Stop;

/// Duplicates at once: more than a batch of a hurried implementation, few enough for a slow one.
const BURST: usize = 50;

pub(super) fn same_answer(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("duplicates/same-answer");
    let operation = bench.forward().first();
    let first = branch.ask_ok(operation)?;
    branch.send_again(operation)?;
    let again = branch.hear(operation)?;
    branch.is_the_same(operation, &first, &again)?;
    branch.ask_the_same(operation, &first)?;
    branch.ask(bench.forward().undo()).map(|_| ())
}

pub(super) fn one_effect(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("duplicates/one-effect");
    let forward = bench.forward();
    branch.mark()?;
    branch.carry_out(forward)?;
    branch.expect(forward, Effects::Once)?;
    branch.send_again(forward.first())?;
    branch.hear(forward.first())?;
    branch.ask(forward.first())?;
    branch.expect(forward, Effects::Once)
}

pub(super) fn burst(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("duplicates/burst");
    let forward = bench.forward();
    let operation = forward.first();
    branch.mark()?;
    branch.say(format!("{operation}, {BURST} times at once"));
    for attempt in (1..=BURST).map(|turn| u32::try_from(turn / 2 + 1).unwrap_or(1)) {
        branch.put(branch.record(operation, attempt))?;
    }
    let mut first = None;
    for _ in 0..BURST {
        let answered = branch.hear(operation)?;
        // A technical failure says nothing about the answer.
        if answered.outcome == Answer::Error {
            continue;
        }
        let first = first.get_or_insert_with(|| answered.clone());
        branch.is_the_same(operation, first, &answered)?;
    }
    match first {
        Some(first) => branch.is_ok(operation, &first)?,
        None => drop(branch.ask_ok(operation)?),
    }
    if forward == Forward::Commit {
        branch.ask_ok(Operation::Commit)?;
    }
    branch.expect(forward, Effects::Once)
}

pub(super) fn another_birth(bench: &Bench<'_>) -> Result<(), Stop> {
    let branch = cancelled(bench, "duplicates/another-birth")?;
    is_another(bench, branch.turned("another birth", |branch| branch.birth.offset += 1_000_000))
}

pub(super) fn another_branch(bench: &Bench<'_>) -> Result<(), Stop> {
    let branch = cancelled(bench, "duplicates/another-branch")?;
    let another = branch.turned("another branch", |branch| "branch-2".clone_into(&mut branch.name));
    let another = is_another_branch(bench, another)?;
    is_another(bench, another.turned("another step", |branch| "step-2".clone_into(&mut branch.step)))
}

pub(super) fn another_instance(bench: &Bench<'_>) -> Result<(), Stop> {
    let branch = cancelled(bench, "duplicates/another-instance")?;
    is_another(bench, branch.turned("another instance", |branch| branch.instance = Uuid::new_v4()))
}

/// A branch that must never be done: whoever takes another one for it refuses.
fn cancelled<'b, 's>(bench: &'b Bench<'s>, check: &str) -> Result<Branch<'b, 's>, Stop> {
    let mut branch = bench.branch(check);
    branch.ask_ok(bench.forward().undo())?;
    Ok(branch)
}

fn is_another(bench: &Bench<'_>, branch: Branch<'_, '_>) -> Result<(), Stop> {
    is_another_branch(bench, branch).map(|_| ())
}

fn is_another_branch<'b, 's>(bench: &Bench<'_>, mut branch: Branch<'b, 's>) -> Result<Branch<'b, 's>, Stop> {
    let operation = bench.forward().first();
    let answered = branch.ask_ok(operation)?;
    if (answered.birth, answered.instance) != (branch.birth, branch.instance)
        || (&answered.step, &answered.branch) != (&branch.step, &branch.name)
    {
        let came = format!(
            "a reply about birth {}, step {}, branch {}",
            answered.birth, answered.step, answered.branch
        );
        return Err(branch.broken("a reply about this very branch", &came));
    }
    branch.ask(bench.forward().undo())?;
    Ok(branch)
}

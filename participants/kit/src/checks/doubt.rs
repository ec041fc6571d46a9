//! Votes that are left alone: they ask, they do what they are told, and they decide nothing by themselves.

use std::time::Instant;

use sagamore_schemas::wire::{Decided, Operation};

use super::Findings;
use crate::bench::{Bench, Forward};
use crate::branch::{Branch, Effects};
use crate::error::Stop;
use crate::inbox::Said;

pub(super) fn all(bench: &Bench<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let branch = || bench.branch("doubt");
    let (mut committed, mut aborted, mut waiting) = (branch(), branch(), branch());
    let prepared = [&mut committed, &mut aborted, &mut waiting].into_iter().try_for_each(|branch| {
        branch.mark()?;
        branch.ask_ok(Operation::Prepare).map(|_| ())
    });
    if let Err(stop) = prepared {
        return findings.take("doubt/asks", Err(stop));
    }
    let asked = [&mut committed, &mut aborted, &mut waiting]
        .into_iter()
        .try_for_each(|branch| asks(bench, branch, 0));
    findings.take("doubt/asks", asked)?;
    findings.take("doubt/waits", waits(&mut waiting))?;
    let told = told(&mut committed, Decided::Commit, Operation::Commit);
    let told = told.and_then(|()| self::told(&mut aborted, Decided::Abort, Operation::Abort));
    findings.take("doubt/silent", told)?;
    findings.take(
        "doubt/commit",
        (|| {
            committed.expect(Forward::Commit, Effects::Once)?;
            committed.ask_ok(Operation::Commit)?;
            committed.expect(Forward::Commit, Effects::Once)
        })(),
    )?;
    findings.take(
        "doubt/abort",
        (|| {
            aborted.expect_unchanged()?;
            aborted.ask_ok(Operation::Abort)?;
            aborted.expect_unchanged()
        })(),
    )
}

/// Waits for its inquiry, behind so many records about it, and reads it as the coordinator does.
pub(super) fn asks(bench: &Bench<'_>, branch: &mut Branch<'_, '_>, behind: usize) -> Result<(), Stop> {
    let patience = bench.settings.asks_within;
    branch.say("nothing for a while");
    let heard = bench.inbox.wait(
        Instant::now() + patience,
        || bench.pulse(),
        |shelf| {
            shelf.of(&branch.subject).iter().skip(behind).find_map(|arrived| match &arrived.said {
                Said::Inquiry(inquiry) => Some((inquiry.clone(), arrived.clone())),
                Said::Reply(_) => None,
            })
        },
    )?;
    let Some((inquiry, arrived)) = heard else {
        let came = format!("nothing within {} s (--asks-within)", patience.as_secs_f32());
        return Err(branch.broken("a sagamore.inquiry.v1", &came));
    };
    let wanted = branch.inquiry();
    if inquiry != wanted {
        return Err(branch.broken(&format!("an inquiry about {wanted:?}"), &format!("{inquiry:?}")));
    }
    let place = (arrived.partition, arrived.key.as_deref());
    let wanted = (branch.birth.partition.0, Some(branch.subject.as_str().as_bytes()));
    if place != wanted {
        let came = format!(
            "in partition {}, key {:?}",
            arrived.partition,
            arrived.key.map(|key| String::from_utf8_lossy(&key).into_owned())
        );
        return Err(branch.broken(&format!("in partition {}, key {}", wanted.0, branch.subject), &came));
    }
    Ok(())
}

/// What tells it nothing changes nothing.
fn waits(branch: &mut Branch<'_, '_>) -> Result<(), Stop> {
    let before = branch.see()?;
    branch.decide(Decided::Undecided)?;
    branch.decide(Decided::Forgotten)?;
    // Behind them, on the same key.
    branch.ask_ok(Operation::Prepare)?;
    let after = branch.see()?;
    if before != after {
        let told = |seen: Option<crate::observe::Seen>| seen.map(|seen| seen.told()).unwrap_or_default();
        return Err(branch.broken(&format!("the state stays {}", told(before)), &told(after)));
    }
    branch.ask_ok(Operation::Commit)?;
    branch.expect(Forward::Commit, Effects::Once)
}

/// Tells what was decided, and hears nothing of it until a command behind it has been answered.
fn told(branch: &mut Branch<'_, '_>, decision: Decided, operation: Operation) -> Result<(), Stop> {
    branch.decide(decision)?;
    branch.ask_ok(Operation::Prepare)?;
    match branch.replies(operation).first() {
        None => Ok(()),
        Some(reply) => {
            Err(branch.broken("no reply to a decision", &format!("a reply to {operation}: {}", reply.told())))
        }
    }
}

//! What a participant may forget, and what it does with what it may have forgotten. Under an instance of its own, so
//! that no other check is behind the watermark.

use sagamore_schemas::ids::{Span, Time};
use sagamore_schemas::wire::{Answer, Operation, REASON_EXPIRED};
use uuid::Uuid;

use super::Findings;
use crate::bench::{Bench, now};
use crate::branch::{Branch, Effects};
use crate::error::Stop;

/// All of them on one partition of the command topic: memory, and with it a watermark, may be kept for each.
const PARTITION: i32 = 0;
/// How long ago the old commands were issued.
const OLD: Span = Span::from_secs(3600);
/// Where the watermark comes to stand.
const WATERMARK: Span = Span::from_secs(1800);

pub(super) fn all(bench: &Bench<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let (forward, protocols) = (bench.forward(), bench.settings.protocols);
    let instance = Uuid::new_v4();
    let now = now();
    let of_home = |home: i32, issued: Time| {
        let mut branch = bench.branch_on(PARTITION, "watermark");
        branch.instance = instance;
        branch.birth.partition.0 = home;
        branch.issued = issued;
        branch
    };
    let old = || of_home(0, now.before(OLD));

    let mut seen = old();
    seen.mark()?;
    let mut vote = protocols.two_phase.then(old);
    let prepared = (|| {
        let first = seen.carry_out(forward)?;
        if let Some(vote) = &mut vote {
            vote.ask_ok(Operation::Prepare)?;
        }
        let mut newer = of_home(0, now);
        newer.watermark = now.before(WATERMARK);
        newer.ask_ok(forward.first())?;
        newer.ask(forward.undo())?;
        Ok(first)
    })();
    let first = match prepared {
        Ok(first) => first,
        Err(stop) => return findings.take("watermark/expired", Err(stop)),
    };
    for branch in [Some(&mut seen), vote.as_mut()].into_iter().flatten() {
        branch.say("behind it a command with a newer watermark");
    }
    findings.take("watermark/expired", expired(bench, old()).and_then(|()| expired_undo(bench, old())))?;
    findings.take(
        "watermark/seen",
        (|| {
            let answered = seen.ask(forward.first())?;
            let is_expired =
                answered.outcome == Answer::Refused && answered.reason.as_deref() == Some(REASON_EXPIRED);
            if !is_expired {
                seen.is_the_same(forward.first(), &first, &answered)?;
            }
            seen.expect(forward, Effects::Once)
        })(),
    )?;
    findings.take(
        "watermark/home",
        (|| {
            let mut elsewhere = of_home(1, now.before(OLD));
            elsewhere.say("behind the watermark of another home");
            let mut of_another = old();
            of_another.instance = Uuid::new_v4();
            of_another.say("behind the watermark of another instance");
            for mut branch in [elsewhere, of_another] {
                branch.ask_ok(forward.first())?;
                branch.ask(forward.undo())?;
            }
            Ok(())
        })(),
    )?;
    match vote {
        Some(mut vote) => findings.take("watermark/vote", vote.ask_ok(Operation::Commit).map(|_| ())),
        None => Ok(()),
    }
}

fn expired(bench: &Bench<'_>, mut branch: Branch<'_, '_>) -> Result<(), Stop> {
    branch.say("behind the watermark");
    branch.mark()?;
    branch.ask_refused(bench.forward().first(), Some(REASON_EXPIRED))?;
    branch.expect(bench.forward(), Effects::None)
}

fn expired_undo(bench: &Bench<'_>, mut branch: Branch<'_, '_>) -> Result<(), Stop> {
    branch.say("behind the watermark");
    branch.ask_refused(bench.forward().undo(), Some(REASON_EXPIRED)).map(|_| ())
}

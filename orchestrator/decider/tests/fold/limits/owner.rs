//! How the owner paces itself, to the millisecond.

use sagamore_decider::outbox::{Sent, Way};
use sagamore_decider::output::Record;
use sagamore_decider::owner::{Duty, Owner, Pace};
use sagamore_decider::restore::StateReader;
use sagamore_schemas::ids::{Span, Time};

use crate::harness::identity;

fn at(ms: u64) -> Time {
    Time::from_epoch_ms(1_000_000).after(Span::from_ms(ms))
}

fn owner() -> Owner {
    Owner::new(StateReader::default().finish(identity()).unwrap(), 0, Pace::default(), at(0))
}

/// Something that a checkpoint has to hold, and an output nobody waits for.
fn apply(owner: &mut Owner, now: Time) {
    let offset = owner.shard().next_offset();
    owner.on_record(&Record { offset, timestamp: now, key: None, value: None, headers: &[] }, now, |_| {});
    owner.send(now, Way::AtOnce, |_, _, _, _| Sent::Queued);
}

fn acknowledge(owner: &mut Owner) {
    for number in 0..100 {
        owner.on_delivered(sagamore_decider::outbox::Ticket(number));
    }
}

fn writes(owner: &mut Owner, now: Time) -> bool {
    owner.poll(now, false).iter().any(|duty| matches!(duty, Duty::Write(_)))
}

#[test]
fn the_pause_follows_from_the_last_checkpoint_and_has_a_bound() {
    for (took_ms, pause_ms) in [(1, 200), (66, 200), (67, 201), (666, 1_998), (667, 2_000), (5_000, 2_000)] {
        let mut owner = owner();
        apply(&mut owner, at(0));
        acknowledge(&mut owner);
        assert!(!writes(&mut owner, at(199)));
        assert!(writes(&mut owner, at(200)), "the first waits for the shortest pause");
        let written = 200 + took_ms;
        owner.on_written(at(written));
        apply(&mut owner, at(written));
        acknowledge(&mut owner);
        assert!(!writes(&mut owner, at(written + pause_ms - 1)), "{took_ms}");
        assert!(writes(&mut owner, at(written + pause_ms)), "{took_ms}");
    }
}

#[test]
fn the_lease_and_hope_end_to_the_millisecond() {
    const HOPELESS_LEASES: u64 = 3;
    let lease_ms = Pace::default().lease.as_ms();
    let mut owner = owner();
    apply(&mut owner, at(0));
    let past = |ms| (owner.is_past_lease(at(ms)), owner.is_hopeless(at(ms)));
    assert_eq!(past(lease_ms - 1), (false, false));
    assert_eq!(past(lease_ms), (false, false));
    assert_eq!(past(lease_ms + 1), (true, false));
    assert_eq!(past(HOPELESS_LEASES * lease_ms), (true, false));
    assert_eq!(past(HOPELESS_LEASES * lease_ms + 1), (true, true));
}

#[test]
fn a_record_lies_so_far_ahead_at_most() {
    const CLOCK_AHEAD_MAX_MS: u64 = 15 * 60 * 1_000;
    let owner = owner();
    for (ahead_ms, then) in
        [(CLOCK_AHEAD_MAX_MS - 1, true), (CLOCK_AHEAD_MAX_MS, true), (CLOCK_AHEAD_MAX_MS + 1, false)]
    {
        assert_eq!(owner.trusts(at(ahead_ms), at(0)), then, "{ahead_ms}");
    }
}

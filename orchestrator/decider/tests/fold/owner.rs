//! The owner around the fold: when it stores, when it stops, what it rings.

use sagamore_decider::outbox::{Sent, Ticket, Way};
use sagamore_decider::output::Record;
use sagamore_decider::owner::{Duty, Owner, Pace};
use sagamore_decider::restore::StateReader;
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{DefinitionApplied, Payload, Start};

use crate::harness::{definition, identity};

fn at(ms: i64) -> Time {
    Time::from_epoch_ms(1_000_000 + ms)
}

fn owner(live_from: i64) -> Owner {
    let restored = StateReader::default().finish(identity()).unwrap();
    let mut owner = Owner::new(restored, live_from, Pace::default(), at(0));
    let data = Payload::from_json(definition("a timeout=1s")).unwrap();
    apply(&mut owner, &DefinitionApplied { offset: 0, data: data.as_ref() }.to_json(), at(0));
    owner
}

fn apply(owner: &mut Owner, value: &[u8], now: Time) {
    let offset = owner.shard().next_offset();
    let record = Record { offset, timestamp: now, key: None, value: Some(value), headers: &[] };
    owner.on_record(&record, now, |_| {});
}

fn start(owner: &mut Owner, id: &str, now: Time) {
    let data = Payload::from_json("{}".to_owned()).unwrap();
    let (subject, definition) = (id.parse().unwrap(), "t".parse().unwrap());
    let start = Start { subject, time: now, definition, traceparent: None, data: data.as_ref() };
    apply(owner, &start.to_json("/owner"), now);
}

fn send(owner: &mut Owner, now: Time) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    owner.send(now, Way::AtOnce, |ticket, _, _, _| {
        tickets.push(ticket);
        Sent::Queued
    });
    tickets
}

fn writes(owner: &mut Owner, now: Time) -> usize {
    owner.poll(now, false).iter().filter(|duty| matches!(duty, Duty::Write(_))).count()
}

#[test]
fn a_checkpoint_waits_for_its_outputs_and_then_owes_them() {
    let mut owner = owner(0);
    start(&mut owner, "one", at(0));
    let tickets = send(&mut owner, at(0));
    assert_eq!(writes(&mut owner, at(199)), 0, "not yet");
    assert_eq!(writes(&mut owner, at(200)), 0, "drafted, and the command is not acknowledged");
    assert_eq!(writes(&mut owner, at(300)), 0);
    owner.on_delivered(tickets[0]);
    assert_eq!(writes(&mut owner, at(301)), 1);
    owner.on_written(at(310));
    assert!(owner.is_at_rest());
    start(&mut owner, "two", at(400));
    send(&mut owner, at(400));
    assert_eq!(writes(&mut owner, at(639)), 0, "the last one took 110 ms: the pause is three times that");
    assert_eq!(writes(&mut owner, at(640)), 0, "drafted");
    assert_eq!(writes(&mut owner, at(1_639)), 0);
    let duties = owner.poll(at(1_640), false);
    let write = duties.iter().find_map(|duty| match duty {
        Duty::Write(checkpoint) => Some(checkpoint),
        Duty::Append { .. } => None,
    });
    let checkpoint = write.unwrap();
    assert!(checkpoint.state.iter().any(|record| record.key.starts_with(b"\0owed/")), "owed after a while");
}

#[test]
fn the_lease_counts_from_the_first_record_that_no_checkpoint_holds() {
    let mut owner = owner(0);
    start(&mut owner, "one", at(0));
    let tickets = send(&mut owner, at(0));
    assert_eq!(writes(&mut owner, at(200)), 0, "drafted");
    start(&mut owner, "two", at(210));
    owner.on_delivered(tickets[0]);
    assert_eq!(writes(&mut owner, at(900)), 1);
    owner.on_written(at(950));
    assert!(!owner.is_past_lease(at(10_200)));
    assert!(owner.is_past_lease(at(10_211)), "the second start is 10 s old");
    assert!(!owner.may_apply(at(10_211)));
    assert!(send(&mut owner, at(10_211)).is_empty(), "it stops sending");
    assert!(
        owner.poll(at(10_211), false).iter().all(|duty| !matches!(duty, Duty::Append { .. })),
        "and ringing"
    );
}

#[test]
fn timers_ring_when_the_replay_has_caught_up() {
    let mut owner = owner(3);
    start(&mut owner, "one", at(0));
    let rings = |owner: &mut Owner, now| {
        owner.poll(now, false).iter().filter(|duty| matches!(duty, Duty::Append { .. })).count()
    };
    assert_eq!(rings(&mut owner, at(5_000)), 0, "the answer may stand in the inbox already");
    start(&mut owner, "two", at(5_000));
    assert_eq!(rings(&mut owner, at(5_001)), 1);
    assert_eq!(rings(&mut owner, at(5_002)), 0, "it is on its way");
    assert_eq!(rings(&mut owner, at(6_001)), 2, "and the other one");
}

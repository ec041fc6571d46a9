//! Outputs on their way when destinations fail: nothing is lost, nothing piles up, a dead topic stops nobody else.

use sagamore_decider::outbox::{OWED_MAX, Outbox, Route, Sent, Ticket, Way};
use sagamore_decider::output::{Destination, Output};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{Address, Command, Operation, PayloadRef};

fn command(attempt: u32) -> Output {
    let address = Address {
        subject: "order-1".parse().unwrap(),
        birth: "0-1".parse().unwrap(),
        step: "a".into(),
        branch: "a".into(),
        operation: Operation::Execute,
        attempt,
    };
    let command = Command {
        address,
        instance: uuid::Uuid::nil(),
        issued: "2026-01-01T00:00:00Z".parse().unwrap(),
        watermark: "2026-01-01T00:00:00Z".parse().unwrap(),
        deadline: "2026-01-01T00:00:00Z".parse().unwrap(),
        definition: "d@1".into(),
        replyto: "sagamore.inbox/0".into(),
        traceparent: None,
        replytoken: None,
        unilateral_after: None,
        data: PayloadRef::Absent,
    };
    let destination = Destination::Commands("a".parse().unwrap());
    Output { destination, key: None, value: Some(command.to_json()), headers: Vec::new() }
}

fn outcome() -> Output {
    Output {
        destination: Destination::Outcomes,
        key: None,
        value: Some((*b"{}").into()),
        headers: Vec::new(),
    }
}

fn sent(outbox: &mut Outbox) -> Vec<(Ticket, Route)> {
    let sent = sent_by(outbox, 0, Way::AtOnce);
    sent.into_iter().map(|(ticket, route, _)| (ticket, route)).collect()
}

fn sent_by(outbox: &mut Outbox, now_ms: i64, wish: Way) -> Vec<(Ticket, Route, Way)> {
    let mut sent = Vec::new();
    outbox.send(Time::from_epoch_ms(now_ms), wish, |ticket, route, _, way| {
        sent.push((ticket, route.clone(), way));
        Sent::Queued
    });
    sent
}

#[test]
fn another_way_is_gone_when_nothing_is_in_flight_on_the_old_one() {
    let mut outbox = Outbox::default();
    let check = |now_ms: i64, wish: Way, outbox: &mut Outbox, then: &[(u64, Way)]| {
        let gone = sent_by(outbox, now_ms, wish);
        let gone: Vec<(u64, Way)> = gone.into_iter().map(|(Ticket(number), _, way)| (number, way)).collect();
        assert_eq!(gone, then, "at {now_ms} ms");
    };
    outbox.push(command(1));
    check(0, Way::AtOnce, &mut outbox, &[(0, Way::AtOnce)]);
    outbox.push(command(2));
    outbox.push(outcome());
    check(1, Way::InCompany, &mut outbox, &[(4, Way::InCompany)]);
    check(2, Way::InCompany, &mut outbox, &[]);
    outbox.on_delivered(Ticket(0));
    check(3, Way::InCompany, &mut outbox, &[(2, Way::InCompany)]);
    outbox.push(command(3));
    check(4, Way::AtOnce, &mut outbox, &[]);
    check(5, Way::InCompany, &mut outbox, &[(6, Way::InCompany)]);
    outbox.push(command(4));
    check(6, Way::AtOnce, &mut outbox, &[]);
    check(106, Way::AtOnce, &mut outbox, &[]);
    // What is in flight does not end: the order is kept all the same, the old way.
    check(107, Way::AtOnce, &mut outbox, &[(8, Way::InCompany)]);
    for number in [2, 4, 6, 8] {
        outbox.on_delivered(Ticket(number));
    }
    outbox.push(command(5));
    check(108, Way::AtOnce, &mut outbox, &[(10, Way::AtOnce)]);
}

#[test]
fn a_late_report_about_a_command_is_not_about_the_input_that_replaced_it() {
    let mut outbox = Outbox::default();
    for attempt in 1..=u32::try_from(OWED_MAX).unwrap() + 1 {
        outbox.push(command(attempt));
    }
    let before = outbox.next_ticket();
    let in_flight = sent(&mut outbox);
    assert!(outbox.owe_before(before).is_none(), "one is too many, and becomes an input first");
    let [(input, Route::OwnInbox)] = &sent(&mut outbox)[..] else { panic!("one input") };
    // The producer gives up on the command only now: first for a while, then for good.
    let (oldest, _) = &in_flight[0];
    outbox.on_failed(*oldest);
    assert_eq!(outbox.on_undeliverable(*oldest, "unknown topic"), Ok(()));
    assert!(sent(&mut outbox).is_empty(), "the input is on its way already");
    assert!(outbox.owe_before(before).is_none(), "it has to be in the log first");
    outbox.on_delivered(*oldest);
    assert!(outbox.owe_before(before).is_none(), "and it alone says so");
    outbox.on_delivered(*input);
    assert_eq!(outbox.owe_before(before).map(|owed| owed.len()), Some(OWED_MAX));
}

#[test]
fn what_nobody_may_lose_is_waited_for_and_sent_once() {
    let mut outbox = Outbox::default();
    for _ in 0..=OWED_MAX {
        outbox.push(outcome());
    }
    let before = outbox.next_ticket();
    assert_eq!(sent(&mut outbox).len(), OWED_MAX + 1);
    for _ in 0..100 {
        assert!(outbox.owe_before(before).is_none());
    }
    assert!(sent(&mut outbox).is_empty(), "all of it is in flight");
    assert_eq!(outbox.on_undeliverable(Ticket(0), "no right"), Err(Destination::Outcomes));
    outbox.on_failed(Ticket(0));
    assert_eq!(sent(&mut outbox), [(Ticket(0), Route::To(Destination::Outcomes))], "again, and once");
}

#[test]
fn a_dead_destination_leaves_the_others_their_credit() {
    let mut outbox = Outbox::default();
    outbox.push(command(1));
    outbox.push(outcome());
    let tickets = sent(&mut outbox);
    let to_participant = |(_, route): &&(Ticket, Route)| matches!(route, Route::To(Destination::Commands(_)));
    let (dead, _) = *tickets.iter().find(to_participant).unwrap();
    outbox.on_failed(dead);
    outbox.on_delivered(tickets.iter().find(|ticket| !to_participant(ticket)).unwrap().0);
    assert_eq!((outbox.len(), outbox.bytes() > 0), (1, true));
    let owed: Vec<Output> = outbox.owe_before(outbox.next_ticket()).unwrap().into_iter().cloned().collect();
    assert_eq!(owed, [command(1)]);
    outbox.on_delivered(dead);
    assert_eq!((outbox.len(), outbox.bytes(), outbox.is_empty()), (0, 0, true));
}

//! The functions in SQL: what they take, and what they raise.

use sagamore_schemas::wire::{Input, PayloadRef, read_input};
use serde_json::Value;

use crate::bed::{Ask, Bed};

#[test]
fn a_start_is_a_record_as_the_wire_has_it() {
    let mut bed = Bed::new();
    let s = bed.s.clone();
    bed.service.run(&format!(
        r#"SELECT {s}.start('order-1', 'order@3', '{{"total": 440.00, "none": null, "text": "é\\"}}',
            '2026-11-22T16:00:00.0125Z', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')"#
    ));
    bed.service.run(&format!("SELECT {s}.start('order-2', 'order')"));
    let query = format!(
        "SELECT aggregatetype, aggregateid, type, payload::text, stamps FROM {s}.outbox ORDER BY seq"
    );
    let rows = bed.relay.rows(&query, &[]);
    let text: &str = rows[0].get(3);
    let Input::Start(start) = read_input(Some(text.as_bytes())).unwrap() else { panic!("{text}") };
    assert_eq!(start.time.to_string(), "2026-11-22T16:00:00.012Z");
    assert_eq!((start.subject.as_str(), start.definition.to_string().as_str()), ("order-1", "order@3"));
    assert!(start.traceparent.unwrap().starts_with("00-0af"));
    let PayloadRef::Json(data) = start.data else { panic!("{text}") };
    assert_eq!(data.get(), r#"{"none": null, "text": "é\\", "total": 440.00}"#);
    let [aggregatetype, aggregateid, kind] = [0, 1, 2].map(|column| rows[0].get::<_, &str>(column));
    assert_eq!((aggregatetype, aggregateid, kind), ("inbox", "order-1", "sagamore.start.v1"));
    assert_eq!([rows[0].get::<_, bool>(4), rows[1].get(4)], [false, true], "who says when, says it for good");
    let text: &str = rows[1].get(3);
    let second: Value = serde_json::from_str(text).unwrap();
    assert!(second.get("data").is_none() && second.get("traceparent").is_none(), "{second}");
}

#[test]
fn what_cannot_be_is_raised_and_rolls_back() {
    let mut bed = Bed::new();
    let s = bed.s.clone();
    let mut check = |call: &str, then: &str| {
        let refusal = bed.service.refusal(&format!("SELECT {s}.{call}"));
        assert!(refusal.contains(then), "{call}: {refusal}");
    };
    let long = format!("start('{}', 'order')", "i".repeat(129));
    for call in ["start('', 'order')", "start('a b', 'order')", "start(NULL, 'order')", long.as_str()] {
        check(call, "22023 a transaction id has");
    }
    let longest = format!("start('a', '{}')", "d".repeat(33));
    for call in ["start('a', 'Order')", "start('a', 'order@0')", "start('a', 'order@x')", longest.as_str()] {
        check(call, "22023 a definition is named like");
    }
    check("start('a', 'order', to_jsonb(repeat('x', 2097152)))", "54000 a start of");
    check("reply(1, 'maybe')", "22023 an outcome is");
    check("reply(1, 'ok')", "55000 command 1 is not open");
    check("again(1)", "P0002 no refused row");
    assert_eq!(bed.relay.number(&format!("SELECT count(*) FROM {s}.outbox")), 0);
}

#[test]
fn an_answer_that_cannot_be_is_raised() {
    let mut bed = Bed::new();
    bed.ask(&[Ask::new("t", "execute"), Ask::new("u", "execute")]);
    bed.work("ok");
    bed.ask(&[Ask::new("t", "compensate")]);
    let s = bed.s.clone();
    let number = |bed: &mut Bed, operation: &str| {
        bed.relay.number(&format!("SELECT number FROM {s}.todo WHERE operation = '{operation}'"))
    };
    let (execute, compensate) = (number(&mut bed, "execute"), number(&mut bed, "compensate"));
    for (call, then) in [
        (format!("reply({compensate}, 'refused', NULL, 'no')"), "no business reason refuses compensate"),
        (format!("reply({compensate}, 'ok', '{{}}')"), "has a result"),
        (format!("reply({execute}, 'refused')"), "a refusal has a reason"),
        (format!("reply({execute}, 'refused', NULL, 'expired')"), "a refusal has a reason"),
        (format!("reply({execute}, 'refused', '{{}}', 'no')"), "has a result"),
        (format!("reply({execute}, 'ok', to_jsonb(repeat('x', 2097152)))"), "a reply of"),
    ] {
        let refusal = bed.service.refusal(&format!("SELECT {s}.{call}"));
        assert!(refusal.contains(then), "{call}: {refusal}");
    }
    bed.service.run(&format!("SELECT {s}.reply({execute}, 'pending', NULL, 'the carrier sleeps')"));
    assert_eq!(bed.replies()[1], "execute pending the carrier sleeps");
    assert_eq!(number(&mut bed, "execute"), execute, "it stays open");
}

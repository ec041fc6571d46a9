//! Whatever stands in the inbox: a readable start is refused with a reason, everything else goes to the dead letters as
//! it is, with its cause, and every shard goes on.

use std::time::Duration;

use sagamore_end_to_end::http::{self, Answer};
use sagamore_end_to_end::load::{Load, order, start_record};
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::{Reader, Seen, write_now};
use sagamore_end_to_end::{PARTITIONS, checker, wait};
use serde_json::{Value, json};

use crate::{AT_A_TIME, stage};

const SEEN_WITHIN: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;

/// A record that is none of ours, and the cause under which it is set aside.
struct Stray {
    key: Option<&'static str>,
    value: Option<Vec<u8>>,
    cause: &'static str,
}

#[test]
fn bad_input_stops_nothing() {
    let stage = stage("bad-input");
    let server = stage.server(1);
    stage.wait_running(&[&server]);
    stage.define("order");
    let _participants = stage.participants();
    let before = Load::begin(&stage, "before", "order", AT_A_TIME, 30).finish();
    stage.judge(&before);

    check_dead_letters(&stage, &strays(&instance(&stage)));
    check_refusals(&stage);
    check_api(&stage);

    let after = Load::begin(&stage, "after", "order", AT_A_TIME, 60).finish();
    let mut outcomes = Reader::new(stage.bootstrap(), &stage.topic("outcomes"));
    wait::until(Duration::from_mins(1), "the orders after all that end", || {
        outcomes.catch_up();
        let documents: Vec<Value> = outcomes.records.iter().map(Seen::json).collect();
        checker::not_ended(&after, &documents).is_empty()
    });
    assert_eq!(i32::try_from(server.running().len()), Ok(PARTITIONS), "no shard has halted");
    assert_eq!(server.ready(), Some(200));
}

fn instance(stage: &Stage) -> String {
    let answer = http::get(&format!("{}/v1/shards", stage.some_address(0)), SEEN_WITHIN).unwrap();
    answer.body["instance"].as_str().unwrap().to_owned()
}

fn strays(instance: &str) -> Vec<Stray> {
    let text = |cause, document: Value| Stray {
        key: Some("k"),
        value: Some(document.to_string().into_bytes()),
        cause,
    };
    let event = |kind: &str, more: Value| {
        let mut event =
            json!({"specversion": "1.0", "type": kind, "id": "x", "source": "/x", "subject": "order-1"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let reply = |instance: &str, birth: &str| {
        let more = json!({"instance": instance, "birth": birth, "step": "charge", "branch": "payment",
            "operation": "execute", "attempt": 1, "outcome": "ok"});
        event("sagamore.reply.v1", more)
    };
    let long = "x".repeat(129);
    let start = |subject: &str| {
        event("sagamore.start.v1", json!({"subject": subject, "definition": "order", "data": {}}))
    };
    vec![
        Stray {
            key: None,
            value: Some(b"\xff\xfe\x00 no text at all".to_vec()),
            cause: "not a CloudEvents document",
        },
        Stray { key: Some("nothing"), value: None, cause: "the record has no value" },
        Stray { key: Some("empty"), value: Some(Vec::new()), cause: "" },
        Stray { key: Some("large"), value: Some(vec![b'x'; MIB]), cause: "not a CloudEvents document" },
        text("not a CloudEvents document", json!([1, 2, 3])),
        text("specversion", json!({"type": "sagamore.start.v1", "subject": "order-1"})),
        text("attribute type is missing", json!({"specversion": "1.0"})),
        text("unexpected type", event("sagamore.party.v1", json!({}))),
        text("transaction id", start(&long)),
        text("transaction id", start("a/b")),
        text("transaction id", start("")),
        text("a reply to nothing that is known", reply(instance, "0-999999")),
        text("a reply in the wrong partition", reply(instance, "1-1")),
        text("a reply to another instance", reply("00000000-0000-0000-0000-000000000000", "0-1")),
        text("attribute birth", reply(instance, "-1--1")),
        text("attribute outcome", event("sagamore.reply.v1", json!({"outcome": "maybe"}))),
        text("the level is", event("sagamore.level.v1", json!({"level": 0, "actor": "a", "reason": "r"}))),
        text(
            "setting open_max = 0",
            event("sagamore.settings.v1", json!({"actor": "a", "reason": "r", "data": {"open_max": 0}})),
        ),
        text("", event("sagamore.definition.v1", json!({"definitionsoffset": 99, "data": {"name": "x"}}))),
    ]
}

fn check_dead_letters(stage: &Stage, strays: &[Stray]) {
    let inbox = stage.topic("inbox");
    let write = |stray: &Stray| {
        write_now(stage.bootstrap(), &inbox, Some(0), stray.key.map(str::as_bytes), stray.value.as_deref())
    };
    let written: Vec<_> = strays.iter().map(write).collect();
    let mut dead = Reader::new(stage.bootstrap(), &stage.topic("dead-letters"));
    wait::until(SEEN_WITHIN, &format!("{} dead letters", strays.len()), || {
        dead.catch_up();
        dead.records.len() >= strays.len()
    });
    assert_eq!(dead.records.len(), strays.len(), "and no others: {:?}", dead.records);
    for (stray, (partition, offset)) in strays.iter().zip(written) {
        let place = (partition.to_string(), offset.to_string());
        let place_of =
            |record: &Seen| (record.header("__dlq.errors.partition"), record.header("__dlq.errors.offset"));
        let letter = dead.records.iter().find(|record| place_of(record) == place);
        let letter = letter.unwrap_or_else(|| panic!("{:?} of {place:?} is not there", stray.cause));
        assert_eq!(letter.key.as_deref(), stray.key.map(str::as_bytes), "{place:?}");
        assert_eq!(letter.value, stray.value, "{}: as it was", stray.cause);
        assert_eq!(letter.header("sent-by"), "a test", "with its own headers");
        assert_eq!(letter.header("__dlq.errors.topic"), inbox);
        assert!(letter.header("__dlq.errors.timestamp").parse::<u64>().is_ok_and(|ms| ms > 0));
        let cause = letter.header("__dlq.errors.message");
        assert!(!cause.is_empty() && cause.contains(stray.cause), "{:?} is not in {cause:?}", stray.cause);
        println!("set aside: {cause}");
    }
}

fn check_refusals(stage: &Stage) {
    let inbox = stage.topic("inbox");
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| jiff::Timestamp::from_second(now.as_second() + seconds).unwrap().to_string();
    let large = json!({"order": 1, "lines": "x".repeat(MIB)});
    let day = 24 * 3600;
    let refusals = [
        ("unknown-definition", start_record("refused-1", "nobody-knows", &order(1), &at(0))),
        ("unknown-definition", start_record("refused-2", "order@77", &order(1), &at(0))),
        ("too-large", start_record("refused-3", "order", &large, &at(0))),
        ("too-old", start_record("refused-4", "order", &order(1), &at(-day))),
        ("too-early", start_record("refused-5", "order", &order(1), &at(day))),
        ("missing-input", start_record("refused-6", "order", &json!({"order": 1}), &at(0))),
        ("malformed", start_record("refused-7", "No Name", &order(1), &at(0))),
        ("malformed", start_record("refused-8", "order", &order(1), "yesterday")),
        ("conflict", start_record("before-0", "order", &order(77), &at(0))),
    ];
    let mut outcomes = Reader::new(stage.bootstrap(), &stage.topic("outcomes"));
    let mut refused = |id: &str, (partition, offset): (i32, i64), word: &str| {
        let expected = format!("{id}/{partition}-{offset}/start/refused");
        let outcome = wait::until_some(SEEN_WITHIN, &expected, || {
            outcomes.catch_up();
            outcomes.records.iter().map(Seen::json).find(|outcome| outcome["id"] == json!(expected))
        });
        assert_eq!((&outcome["outcome"], &outcome["subject"]), (&json!("refused"), &json!(id)), "{outcome}");
        assert_eq!(outcome["cause"], json!(format!("{partition}-{offset}")), "{outcome}");
        let reason = outcome["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.starts_with(&format!("{word}: ")), "{word:?} is not the reason: {reason:?}");
        println!("refused: {reason}");
    };
    for (word, start) in refusals {
        let document: Value = serde_json::from_str(&start).unwrap();
        let id = document["subject"].as_str().unwrap();
        let write = |partition| {
            write_now(stage.bootstrap(), &inbox, partition, Some(id.as_bytes()), Some(start.as_bytes()))
        };
        // Where librdkafka's murmur2 puts it is its home.
        let place = write(None);
        refused(id, place, word);
        if word != "malformed" {
            let elsewhere = (place.0 + 1) % PARTITIONS;
            refused(id, write(Some(elsewhere)), "wrong-home");
        }
    }
}

fn check_api(stage: &Stage) {
    let url = format!("{}/v1/transactions", stage.some_address(0));
    let post = |body: &Value| http::post(&url, body, SEEN_WITHIN).unwrap();
    let check = |answer: &Answer, status: u16, title: &str, word: &str| {
        assert_eq!((answer.status, &answer.body["title"]), (status, &json!(title)), "{answer:?}");
        assert_eq!(answer.body["status"], json!(status), "{answer:?}");
        assert_eq!(answer.body["type"], json!(format!("urn:sagamore:problem:{title}")), "{answer:?}");
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    };
    let start = |id: &str, definition: &str, input: Value| json!({"id": id, "definition": definition, "input": input});
    check(&post(&json!("no object")), 400, "bad-request", "");
    check(&post(&json!({"id": "api-1"})), 400, "bad-request", "definition");
    check(&post(&json!({"id": "api-1", "definition": "order", "inputs": {}})), 400, "bad-request", "inputs");
    check(&post(&start("a b", "order", order(1))), 400, "bad-request", "transaction id");
    check(&post(&start(&"x".repeat(129), "order", order(1))), 400, "bad-request", "transaction id");
    check(&post(&start("api-2", "Order!", order(1))), 400, "bad-request", "name");
    check(&post(&start("api-3", "nobody-knows", order(1))), 422, "unknown-definition", "nobody-knows");
    check(&post(&start("api-4", "order", json!({}))), 422, "missing-input", "lines");
    check(&post(&start("api-5", "order", json!({"lines": "x".repeat(MIB)}))), 413, "too-large", "bytes");
    check(&post(&start("before-1", "order", order(77))), 409, "conflict", "other data");
    let answer = http::get(&format!("{url}/nobody"), SEEN_WITHIN).unwrap();
    check(&answer, 404, "not-found", "nobody");
}

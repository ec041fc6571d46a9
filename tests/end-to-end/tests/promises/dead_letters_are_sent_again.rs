//! What no shard could take is seen, mended and sent again, or discarded: with actor and reason, without a server, and the
//! letter itself stays as it came.

use std::fs;
use std::time::Duration;

use sagamore_end_to_end::load::{order, start_record};
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::{Seen, read_all, write_again, write_now};
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::stage;

const WITHIN: Duration = Duration::from_secs(30);

fn list(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    let said = stage.must(&[&["dead-letters", "list", "-o", "json"], arguments].concat(), 0);
    serde_json::from_str(&said.out).unwrap()
}

fn causes(letters: &[Value]) -> Vec<&str> {
    let mut causes: Vec<&str> = letters.iter().map(|letter| letter["cause"].as_str().unwrap()).collect();
    causes.sort_unstable();
    causes
}

fn with_cause<'l>(letters: &'l [Value], cause: &str) -> &'l str {
    let found = letters.iter().find(|letter| letter["cause"] == json!(cause));
    found.and_then(|letter| letter["place"].as_str()).unwrap_or_else(|| panic!("no {cause}: {letters:?}"))
}

#[test]
fn dead_letters_are_sent_again() {
    let stage = stage("letters");
    let server = stage.server(1);
    stage.wait_running(&[&server]);
    stage.define("order");
    let _participants = stage.participants();

    let now = jiff::Timestamp::now().to_string();
    let broken = start_record("mended", "order", &order(1), &now).replace("\"specversion\":\"1.0\",", "");
    let reply = json!({"specversion": "1.0", "type": "sagamore.reply.v1", "id": "x", "source": "/x",
        "subject": "order-1", "instance": "00000000-0000-0000-0000-000000000000", "birth": "0-1",
        "step": "charge", "branch": "payment", "operation": "execute", "attempt": 1, "outcome": "ok"});
    let party = json!({"specversion": "1.0", "type": "sagamore.party.v1", "id": "x", "source": "/x"});
    let (reply, party) = (reply.to_string(), party.to_string());
    let poison: [&[u8]; 5] =
        [broken.as_bytes(), b"\xff\xfe no text", reply.as_bytes(), party.as_bytes(), party.as_bytes()];
    let inbox = stage.topic("inbox");
    for value in poison {
        write_now(stage.bootstrap(), &inbox, Some(2), Some(b"k"), Some(value));
    }
    wait::until(WITHIN, "five dead letters", || stage.dead_letters().len() >= poison.len());

    let letters = list(&stage, &[]);
    let expected = ["not-an-event", "not-an-event", "other-instance", "unknown-type", "unknown-type"];
    assert_eq!(causes(&letters), expected, "{letters:#?}");
    let groups = list(&stage, &["--by-cause"]);
    let counts: Vec<(&str, u64)> = groups
        .iter()
        .map(|group| (group["cause"].as_str().unwrap(), group["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts, [("not-an-event", 2), ("unknown-type", 2), ("other-instance", 1)]);
    let first = list(&stage, &["--limit", "2"]);
    let rest = list(&stage, &["--after", first[1]["place"].as_str().unwrap()]);
    assert_eq!((first.len(), rest.len()), (2, 3), "pages");
    assert_eq!([first, rest].concat(), letters, "pages");
    assert_eq!(list(&stage, &["--cause", "not-an-event", "--to", "2020-01-01T00:00:00Z"]).len(), 0);

    mend(&stage, &letters, &broken);
    discard(&stage, &letters);
    let verified = stage.must(&["audit", "verify", "-o", "json"], 0);
    let verified: Value = serde_json::from_str(&verified.out).unwrap();
    let tally = &verified["topics"][stage.topic("dead-letters")];
    // One more: the reply was sent again as it was, and nobody could take it this time either.
    let identical = poison.len() + 1;
    assert_eq!((&tally["identical"], &tally["extra"]), (&json!(identical), &json!(0)), "{verified:#}");

    // Outputs may come twice: it is one letter all the same, with what was done about it.
    let (all, first) = (list(&stage, &["--all"]), stage.dead_letters().remove(0));
    write_again(stage.bootstrap(), &stage.topic("dead-letters"), &first);
    assert_eq!(list(&stage, &["--all"]), all);
    let repeat = format!("0/{}", stage.dead_letters().last().unwrap().offset);
    let shown = stage.must(&["dead-letters", "show", &repeat, "-o", "json"], 0);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&shown["place"], &shown["status"]), (&all[0]["place"], &json!("resent")), "{shown:#}");
}

/// An edited copy starts what the letter could not.
fn mend(stage: &Stage, letters: &[Value], broken: &str) {
    let specversion = list(stage, &["--cause", "specversion"]);
    assert_eq!(specversion.len(), 1, "by a part of the sentence");
    let place = specversion[0]["place"].as_str().unwrap();
    let shown = stage.must(&["dead-letters", "show", place, "-o", "json"], 0);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&shown["value"]["text"], &shown["status"]), (&json!(broken), &json!("open")), "{shown:#}");
    assert!(shown["headers"].as_array().unwrap().contains(&json!({"name": "sent-by", "text": "a test"})));
    let binary = stage.must(&["dead-letters", "show", &other_not_an_event(letters, place)], 0);
    assert!(binary.out.contains("ff fe 20 6e 6f"), "{}", binary.out);

    let raw = stage.must(&["dead-letters", "show", place, "--raw"], 0).out;
    let file = stage.folder().join("mended.json");
    fs::write(&file, raw.replacen('{', "{\"specversion\":\"1.0\",", 1)).unwrap();
    let file = file.display().to_string();
    let why = ["--reason", "it lacked a specversion", "--actor", "anna"];
    let dry = [&["dead-letters", "resend", place, "--edit", &file, "--dry-run"], &why[..]].concat();
    let before = stage.dead_letters().len();
    stage.must(&dry, 0);
    assert_eq!(stage.dead_letters().len(), before, "nothing was done yet");
    stage.must(&[&["dead-letters", "resend", place, "--edit", &file], &why[..]].concat(), 0);
    wait::until(WITHIN, "what was mended commits", || {
        outcome_of(stage, "mended").is_some_and(|outcome| outcome["outcome"] == json!("committed"))
    });
    let copy = read_all(stage.bootstrap(), &stage.topic("inbox"));
    let from = format!("{}/{}", stage.topic("dead-letters"), place.replace('/', "@"));
    let is_copy = |record: &&Seen| record.header("__dlq.resent.edited") == "true";
    let copy = copy.iter().find(is_copy).expect("the copy says where it came from");
    assert_eq!(copy.header("__dlq.resent.from"), from);
    assert_eq!((copy.header("sent-by"), copy.key.as_deref()), ("a test".into(), Some(&b"mended"[..])));

    let again = stage.must(&["dead-letters", "resend", place, "--reason", "twice"], 4);
    assert!(again.error.contains("--again"), "{}", again.error);
    stage.must(&["dead-letters", "resend", "0/999999", "--reason", "nobody"], 3);
    let all = list(stage, &["--all"]);
    let handled = all.iter().find(|letter| letter["place"] == json!(place)).unwrap();
    assert_eq!((&handled["status"], &handled["handled"]["actor"]), (&json!("resent"), &json!("anna")));
    assert_eq!(handled["handled"]["reason"], json!("it lacked a specversion"));
    let letter = stage.dead_letters().into_iter().next().unwrap();
    assert_eq!(letter.value.as_deref(), Some(broken.as_bytes()), "the letter stays as it was");
}

fn other_not_an_event(letters: &[Value], place: &str) -> String {
    let other = letters
        .iter()
        .find(|letter| letter["cause"] == json!("not-an-event") && letter["place"] != json!(place));
    other.unwrap()["place"].as_str().unwrap().to_owned()
}

fn outcome_of(stage: &Stage, id: &str) -> Option<Value> {
    let outcomes = read_all(stage.bootstrap(), &stage.topic("outcomes"));
    outcomes.iter().map(Seen::json).find(|outcome| outcome["subject"] == json!(id))
}

/// The rest: by filter, and one as it was, which comes back as a letter of its own.
fn discard(stage: &Stage, letters: &[Value]) {
    let reply = with_cause(letters, "other-instance");
    let before = stage.dead_letters().len();
    stage.must(&["dead-letters", "resend", reply, "--reason", "try"], 0);
    wait::until(WITHIN, "the same cause again", || {
        list(stage, &["--cause", "other-instance"]).iter().any(|letter| letter["place"] != json!(reply))
    });
    assert!(stage.dead_letters().len() > before);
    stage.must(&["dead-letters", "discard", "--reason", "of nobody"], 2);
    let filter =
        ["dead-letters", "discard", "--cause", "unknown-type", "--reason", "of nobody", "-o", "json"];
    let done = stage.must(&filter, 0);
    assert_eq!(serde_json::from_str::<Value>(&done.out).unwrap().as_array().map(Vec::len), Some(2));
    assert_eq!(causes(&list(stage, &[])), ["not-an-event", "other-instance"]);
    stage.must(&["dead-letters", "discard", "--from", "2020-01-01T00:00:00Z", "--reason", "all"], 0);
    assert!(list(stage, &[]).is_empty());
    let exported = stage.must(&["dead-letters", "export", "--all"], 0).out;
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), letters.len() + 1, "{exported}");
    let base64 = lines.iter().filter(|line| line["value"]["base64"].is_string()).count();
    assert_eq!(base64, 1, "what is no text: {exported}");
}

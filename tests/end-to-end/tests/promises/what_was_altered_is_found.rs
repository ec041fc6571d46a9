//! Whoever alters what stands in the topics is found by folding the log again, with the place and what should be there.

use sagamore_end_to_end::checker::Tally;
use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::{self, Seen};
use serde_json::{Value, json};

use crate::{AT_A_TIME, stage};

const ORDERS: u64 = 40;

#[test]
fn what_was_altered_is_found() {
    let stage = stage("altered");
    let mut server = stage.server(1);
    stage.wait_running(&[&server]);
    stage.define("order");
    let _participants = stage.participants();
    let intents = Load::begin(&stage, "order", "order", AT_A_TIME, ORDERS).finish();
    let tally = stage.judge(&intents);
    // On a live cluster; what no checkpoint has yet is under way.
    let live = verify(&stage, 0);
    assert_eq!(live["clean"], json!(true), "{live}");
    server.process.signal("TERM");
    server.process.wait(std::time::Duration::from_secs(20));

    let before = verify(&stage, 0);
    let journal = &before["topics"]["altered.journal"];
    assert!(journal["identical"].as_u64() >= before["inputs"].as_u64(), "{before}");
    assert_eq!((&journal["under_way"], &journal["repeated"]), (&json!(0), &json!(0)), "{before}");
    let outcomes = &before["topics"]["altered.outcomes"];
    assert_eq!(outcomes["identical"].as_u64(), u64::try_from(tally.orders()).ok(), "{before}");

    suppose(&stage, &tally);
    sign_and_export(&stage, &before);

    let forged = [forge_journal(&stage), forge_outcome(&stage, &intents.keys().next().unwrap().clone())];
    let after = verify(&stage, 10);
    println!("{after:#}");
    let findings = after["findings"].as_array().unwrap();
    assert_eq!(findings.len(), forged.len(), "{after:#}");
    for (finding, (topic, kind, offset)) in findings.iter().zip(&forged) {
        assert_eq!(finding["topic"].as_str(), Some(stage.topic(topic).as_str()), "{finding:#}");
        assert_eq!((&finding["kind"], &finding["offset"]), (&json!(kind), &json!(offset)), "{finding:#}");
    }
    let (found, said) = (findings[0]["found"].as_str().unwrap(), findings[0]["said"].as_str().unwrap());
    assert!(found.contains("committed-by-hand") && !said.contains("committed-by-hand"), "{found} {said}");

    let id = intents.keys().next().unwrap();
    let told = stage.must(&["audit", "trace", id, "-o", "json"], 0);
    let told: Value = serde_json::from_str(&told.out).unwrap();
    let what: Vec<&str> =
        told.as_array().unwrap().iter().map(|told| told["what"].as_str().unwrap()).collect();
    assert_eq!(what.first(), Some(&"start"), "{told:#}");
    for part in ["entry of start", "command", "reply", "outcome"] {
        assert!(what.contains(&part), "{part} in {what:?}");
    }
    stage.must(&["audit", "trace", "nobody"], 3);
}

/// The same definition ends every order the same; without a way to be refused at the border, more of them are committed.
fn suppose(stage: &Stage, tally: &Tally) {
    let what_if = |name: &str, code: i32| -> Value {
        let file = stage.folder().join("what-if.yaml");
        std::fs::write(&file, name).unwrap();
        let file = file.display().to_string();
        let told = stage.must(&["audit", "what-if", "--definition", &file, "-o", "json"], code);
        serde_json::from_str(&told.out).unwrap()
    };
    let same = what_if(ORDER, 0);
    let orders = u64::try_from(tally.orders()).unwrap();
    assert_eq!((same["played"].as_u64(), same["same"].as_u64()), (Some(orders), Some(orders)), "{same:#}");
    assert_eq!(same["with_assumptions"], json!(0), "{same:#}");

    // Nobody books a parcel: whoever was turned back by shipping would have been committed.
    let without = ORDER.split("  - name: ship").next().unwrap().replace("version: 1", "version: 2");
    let changed = what_if(&without, 10);
    println!("{changed:#}");
    assert!(changed["changes"].as_array().unwrap().iter().all(|change| change["would_be"] == "committed"));
    let told = changed["transactions"].as_array().unwrap();
    assert_eq!(changed["different"].as_u64(), u64::try_from(told.len()).ok(), "{changed:#}");
}

/// What was signed is there, unless it is somebody else's signature, or another chain.
fn sign_and_export(stage: &Stage, before: &Value) {
    let path = |name: &str| stage.folder().join(name).display().to_string();
    let (heads, forged, public) = (path("heads.jsonl"), path("forged.jsonl"), path("public.pem"));
    std::fs::write(path("key.pem"), KEY).unwrap();
    std::fs::write(&public, PUBLIC_KEY).unwrap();
    let signed = stage.must(&["audit", "sign", "--key", &path("key.pem"), "-o", "jsonl"], 0).out;
    std::fs::write(&heads, &signed).unwrap();
    let verify = |heads: &str, code| {
        stage.must(&["audit", "verify", "--signed", heads, "--public-key", &public, "-o", "json"], code).out
    };
    let found: Value = serde_json::from_str(&verify(&heads, 0)).unwrap();
    assert_eq!(found["topics"]["signed"]["identical"].as_u64(), Some(signed.lines().count() as u64));
    std::fs::write(&forged, signed.replacen("\"offset\":", "\"offset\":1", 1)).unwrap();
    verify(&forged, 10);

    let journal = path("journal.jsonl");
    stage.must(&["audit", "export", "--file", &journal], 0);
    let lines = std::fs::read_to_string(&journal).unwrap();
    let entries = &before["topics"][stage.topic("journal")]["identical"];
    assert_eq!(entries.as_u64(), Some(lines.lines().count() as u64));
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["entry"]["input"].is_string() && first["chain"].is_string(), "{first}");
    // What is there is not overwritten.
    stage.must(&["audit", "export", "--file", &journal], 2);
}

/// Of `openssl genpkey -algorithm ed25519`: nobody's but this test's.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIE7Is0i+XYb5RrbYhUxhT2LkI8GPFZvAXWUN7IuP6Wz7
-----END PRIVATE KEY-----
";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAQ4mawbWVRmNsNu50IO2bnyd89gTToMKW3FNglEmCTSU=
-----END PUBLIC KEY-----
";
const ORDER: &str = include_str!("../../definitions/order.yaml");

fn verify(stage: &Stage, code: i32) -> Value {
    serde_json::from_str(&stage.must(&["audit", "verify", "-o", "json"], code).out).unwrap()
}

type Forged = (&'static str, &'static str, i64);

/// An entry once more, with another text under the same chain.
fn forge_journal(stage: &Stage) -> Forged {
    let topic = stage.topic("journal");
    let is_entry = |seen: &&Seen| seen.key.as_ref().is_some_and(|key| key.starts_with(b"order-"));
    let records = topics::read_all(stage.bootstrap(), &topic);
    let record = records.iter().find(is_entry).unwrap();
    let text = String::from_utf8(record.value.clone().unwrap()).unwrap();
    // Only the first entry of the record, with something else in it.
    let mut entries: Value = serde_json::from_str(&text).unwrap();
    let first = entries[0]["entry"].to_string();
    let altered = format!("[{{\"entry\":{},\"chain\":{}}}]", altered(&first), entries[0]["chain"].take());
    let (key, value) = (record.key.as_deref(), altered.as_bytes());
    let (_, offset) = topics::write_now(stage.bootstrap(), &topic, Some(record.partition), key, Some(value));
    ("journal", "different", offset)
}

fn altered(entry: &str) -> String {
    entry.replacen('}', ",\"reason\":\"committed-by-hand\"}", 1)
}

/// An outcome that nobody has decided.
fn forge_outcome(stage: &Stage, id: &str) -> Forged {
    let outcome = json!({
        "specversion": "1.0", "type": "sagamore.outcome.v1", "id": format!("{id}/0-0/outcome/99"), "source": "/sagamore",
        "subject": id, "birth": "0-0", "revision": 99, "definition": "order@1", "outcome": "committed",
    });
    let topic = stage.topic("outcomes");
    let value = outcome.to_string();
    let (_, offset) =
        topics::write_now(stage.bootstrap(), &topic, None, Some(id.as_bytes()), Some(value.as_bytes()));
    ("outcomes", "extra", offset)
}

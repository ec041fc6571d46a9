//! A program with the client crate: a transfer and a collection that commit, one each that is refused, and a transfer
//! whose server is killed between start and wait. It is the code of the client's example, word for word.

use std::collections::BTreeMap;
use std::time::Duration;

use sagamore_client::{Client, Error, Outcome};
use sagamore_end_to_end::http::RUNTIME;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::stage;

#[path = "../../../../participants/client/examples/transfer/banking.rs"]
mod banking;

/// More than an account has.
const TOO_MUCH: u64 = 2_000_000_000;
const VOTED_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn transfers_and_collections_end_as_their_callers_are_told() {
    let stage = stage("client");
    let server = stage.server(1);
    stage.wait_running(&[&server]);
    let client = Client::connect(&server.wait_listening()).unwrap();
    let banks = ["bank-a", "bank-b"].map(|name| stage.participant_as("bank", name, &[]));
    RUNTIME.block_on(async {
        let Outcome::Committed(results) = banking::transfer(&client, "t-1", 100).await.unwrap() else {
            panic!("both banks agree")
        };
        for bank in ["bank-a", "bank-b"] {
            let posting: Value = results.of(bank).unwrap();
            assert!(posting["posting"].is_string(), "{bank}: {posting}");
        }
        let aborted = banking::transfer(&client, "t-2", TOO_MUCH).await.unwrap();
        assert!(matches!(aborted, Outcome::Aborted { .. }), "{aborted}");
        assert!(aborted.reason().unwrap().contains("insufficient-funds"), "{aborted}");

        let Outcome::Committed(results) = banking::collect(&client, "c-1", 100, 200).await.unwrap() else {
            panic!("both banks agree")
        };
        assert!(results.of::<Value>("bank-b").unwrap()["posting"].is_string());
        let compensated = banking::collect(&client, "c-2", 100, TOO_MUCH).await.unwrap();
        assert!(matches!(compensated, Outcome::Compensated { .. }), "{compensated}");

        // The same again is the same transaction; something else under its id is not.
        assert!(banking::transfer(&client, "t-1", 100).await.unwrap().is_committed());
        let other = banking::transfer(&client, "t-1", 101).await;
        assert!(matches!(other, Err(Error::Conflict { .. })), "{other:?}");
        let unknown = client.start("nobody").id("n-1").input(&json!({})).unwrap().send().await;
        assert!(
            matches!(&unknown, Err(Error::Refused { reason, .. }) if reason == "unknown-definition"),
            "{unknown:?}"
        );
    });
    drop(banks);
    let expected = [
        ("c-1 bank-a applied", 1),
        ("c-1 bank-b applied", 1),
        ("c-2 bank-a applied", 1),
        ("c-2 bank-a undone", 1),
        ("t-1 bank-a confirmed", 1),
        ("t-1 bank-a held", 1),
        ("t-1 bank-b confirmed", 1),
        ("t-1 bank-b held", 1),
    ];
    let mut marks = marks(&stage);
    // Of the transfer that bank-a refused, bank-b may have held its part, and has let it go then.
    let (held, released) = (marks.remove("t-2 bank-b held"), marks.remove("t-2 bank-b released"));
    assert_eq!(held, released);
    assert_eq!(marks, expected.map(|(mark, count)| (mark.to_owned(), count)).into());
    let listed = stage.must(&["define", "list", "-o", "json"], 0);
    assert_eq!(listed.out.matches("adhoc-").count(), 2, "a definition per shape: {}", listed.out);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let of_transfers = |entry: &&Value| entry["definition"]["steps"][0]["protocol"] == "two-phase";
    let transfers = listed.as_array().unwrap().iter().find(of_transfers).unwrap();
    let name = transfers["definition"]["name"].as_str().unwrap();
    // The journal is written with the next checkpoint.
    let measured = wait::until_some(VOTED_WITHIN, "both transfers are in the journal", || {
        let told = stage.sagamore(&["predict", name, "--measure", "-o", "json"]);
        let told: Value = serde_json::from_str(&told.out).ok()?;
        (told["measured"]["transactions"] == 2).then_some(told)
    });
    let bank_a = &measured["measured"]["branches"][0];
    assert_eq!((&bank_a["name"], &bank_a["attempts"]), (&json!("all/bank-a"), &json!(2)), "{bank_a}");
    assert_eq!((&bank_a["p"]["count"], &bank_a["refused"]["count"]), (&json!(1), &json!(1)), "{bank_a}");
    assert!(measured["notes"].to_string().contains("attempts are few"), "{measured}");
}

#[test]
fn a_wait_outlives_the_server_that_took_the_start() {
    let stage = stage("client-killed");
    let mut first = stage.server(1);
    stage.wait_running(&[&first]);
    let _quick = stage.participant_as("bank", "bank-a", &[]);
    let second = stage.server(2);
    let addresses = format!("{},{}", first.wait_listening(), second.wait_listening());
    let client = Client::connect(&addresses).unwrap();
    let handle = RUNTIME.block_on(async {
        let new = client.transaction("k-1").two_phase();
        let new = new.participant("bank-a", &json!({"account": "alice", "debit_cents": 5})).unwrap();
        let new = new.participant("bank-b", &json!({"account": "bob", "credit_cents": 5})).unwrap();
        new.deadline("90s").patience(Duration::from_mins(1)).start().await.unwrap()
    });
    wait::until(VOTED_WITHIN, "one bank has voted", || marks(&stage).contains_key("k-1 bank-a held"));
    let early = RUNTIME.block_on(handle.wait(Duration::from_millis(300)));
    assert!(matches!(early, Err(Error::Timeout { .. })), "the other bank is away: {early:?}");
    first.process.kill();
    let _other = stage.participant_as("bank", "bank-b", &[]);
    let outcome = RUNTIME.block_on(handle.wait(Duration::from_secs(90))).unwrap();
    assert!(outcome.is_committed(), "{outcome}");
    let done = ["bank-a held", "bank-a confirmed", "bank-b held", "bank-b confirmed"];
    let done = done.map(|mark| (format!("k-1 {mark}"), 1));
    wait::until(VOTED_WITHIN, "both have done it, once", || marks(&stage) == done.clone().into());
}

/// How often what has been done, as `<transaction> <bank> <effect>`.
fn marks(stage: &Stage) -> BTreeMap<String, usize> {
    let mut marks = BTreeMap::new();
    for effect in stage.effects() {
        // instance/subject/birth/step/branch
        let key: Vec<&str> = effect["key"].as_str().unwrap_or_default().split('/').collect();
        let mark = format!("{} {} {}", key[1], key[4], effect["effect"].as_str().unwrap_or_default());
        *marks.entry(mark).or_default() += 1;
    }
    marks
}

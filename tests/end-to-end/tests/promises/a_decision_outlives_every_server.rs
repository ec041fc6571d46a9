//! Both servers are killed while one branch has voted and the other has not, and again when both have: two-phase and
//! three-phase, to commit and to abort. No effect is there before the last vote; then it is on both sides, or on none.

use std::collections::BTreeMap;
use std::time::Duration;

use sagamore_end_to_end::load::{Intent, Intents, order, start_record};
use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_end_to_end::{http, topics, wait};
use serde_json::Value;

use crate::stage;

const VOTED_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn two_phase_commit_outlives_every_server() {
    decide("two-phase", "commit-2", false);
}

#[test]
fn two_phase_abort_outlives_every_server() {
    decide("two-phase", "abort-2", true);
}

#[test]
fn three_phase_commit_outlives_every_server() {
    decide("three-phase", "commit-3", false);
}

#[test]
fn three_phase_abort_outlives_every_server() {
    decide("three-phase", "abort-3", true);
}

fn decide(protocol: &str, name: &str, refused: bool) {
    let stage = stage(name);
    let mut servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    stage.define(protocol);
    let _quick = stage.participant_as("bank", "bank-a", &[]);
    let input = order(1);
    let intent = Intent::of(protocol, input.clone(), true);
    let intents: Intents = [(name.to_owned(), intent)].into();
    start(&stage, name, protocol, &input);
    wait::until(VOTED_WITHIN, "one branch has voted", || marks(&stage).contains_key("bank-a held"));
    for server in &servers {
        let told = server.get("/v1/definitions").unwrap().body;
        assert_eq!(told["open"], serde_json::json!({ format!("{protocol}@1"): 1 }), "any server knows");
    }
    let listed = stage.must(&["define", "list", "--server", &servers[0].wait_listening(), "-o", "json"], 0);
    assert!(listed.out.contains(r#""open":1"#) || listed.out.contains(r#""open": 1"#), "{}", listed.out);
    kill_both(&mut servers);
    assert!(marks(&stage).keys().all(|mark| mark == "bank-a held"), "{:?}", marks(&stage));
    let percent = if refused { "100" } else { "0" };
    let _other = stage.participant_as("bank", "bank-b", &["--refuse-percent", percent, "--delay", "300ms"]);
    if !refused {
        wait::until(VOTED_WITHIN, "both branches have voted", || marks(&stage).contains_key("bank-b held"));
        kill_both(&mut servers);
    }
    let tally = stage.judge(&intents);
    let outcome = if refused { "aborted" } else { "committed" };
    assert_eq!(tally.of(outcome), 1, "{tally}");
    let told = marks(&stage);
    let expected: &[&str] = if refused {
        &["bank-a held", "bank-a released"]
    } else {
        &["bank-a confirmed", "bank-a held", "bank-b confirmed", "bank-b held"]
    };
    assert_eq!(told.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    assert!(told.values().all(|count| *count == 1), "each once: {told:?}");
}

fn start(stage: &Stage, id: &str, definition: &str, input: &Value) {
    let record = start_record(id, definition, input, &jiff::Timestamp::now().to_string());
    let producer = topics::producer(stage.bootstrap());
    let inbox = stage.topic("inbox");
    let written = topics::write(&producer, &inbox, None, Some(id.as_bytes()), Some(record.as_bytes()));
    http::RUNTIME.block_on(written).unwrap();
}

fn kill_both(servers: &mut [Server; 2]) {
    for server in &mut *servers {
        server.process.kill();
    }
    for server in servers {
        server.restart();
    }
}

/// How often what has been done, as `<participant> <effect>`.
fn marks(stage: &Stage) -> BTreeMap<String, usize> {
    let mut marks = BTreeMap::new();
    for effect in stage.effects() {
        let branch = effect["key"].as_str().and_then(|key| key.rsplit('/').next()).unwrap_or_default();
        *marks.entry(format!("{branch} {}", effect["effect"].as_str().unwrap_or_default())).or_default() += 1;
    }
    marks
}

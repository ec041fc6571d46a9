//! A participant is away, at first and again later, for longer than a timeout and several retries: its orders wait for
//! it, others do not, its effects happen once, and what had to be decided without it is undone when it is back.

use std::time::Duration;

use sagamore_end_to_end::load::{Intent, Intents, Load};
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::{http, wait};
use serde_json::{Value, json};

use crate::{AT_A_TIME, stage};

/// Attempts after which somebody counts as away.
const ATTEMPTS: u64 = 4;
/// Orders in a hurry that are started while it is away, one in each way; the last of them may come too late for that.
const HURRIED: [u64; 3] = [0, 1, 2];
const AWAY_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_participant_that_is_away_is_waited_for() {
    let stage = stage("away");
    let server = stage.server(1);
    stage.wait_running(&[&server]);
    for definition in ["patient", "hasty", "parcel"] {
        stage.define(definition);
    }
    let _present = ["inventory", "shipping"].map(|example| stage.participant(example, &[]));

    let mut all = Intents::new();
    let mut patient = Load::begin(&stage, "patient", "patient", AT_A_TIME, 60);
    let mut hasty = Load::begin(&stage, "hasty", "hasty", AT_A_TIME, 60);
    wait_until_missed(&stage, "patient-1");
    wait_until_turned_back(&stage, "hasty");
    all.extend(go_on(&stage, "parcel-1"));
    hold(&stage, "patient-1");
    let payment = stage.participant("payment", &[]);
    all.extend(patient.finish());
    all.extend(hasty.finish());

    // Once more: it has the commands of before in its memory, and its member of the group is lost meanwhile.
    payment.signal("STOP");
    patient = Load::begin(&stage, "again", "patient", AT_A_TIME, 60);
    hasty = Load::begin(&stage, "hurry", "hasty", AT_A_TIME, 60);
    wait_until_missed(&stage, "again-1");
    wait_until_turned_back(&stage, "hurry");
    all.extend(go_on(&stage, "parcel-2"));
    payment.signal("CONT");
    all.extend(patient.finish());
    all.extend(hasty.finish());

    let tally = stage.judge(&all);
    for name in ["hasty", "hurry"] {
        for number in HURRIED {
            assert_eq!(tally.ended[&format!("{name}-{number}")], "compensated");
        }
    }
    let hurried = |id: &str| id.starts_with('h');
    let lost: Vec<_> =
        tally.ended.iter().filter(|(id, ended)| !hurried(id) && *ended != "committed").collect();
    assert!(lost.is_empty(), "the others had time: {lost:?}");
}

/// Held by a person it asks for nothing, and goes on when it is let go.
fn hold(stage: &Stage, id: &str) {
    let server = stage.some_address(0);
    let verb = |arguments: &[&str]| {
        let more = ["--reason", "to see", "--server", &server, "-o", "json"];
        stage.command(&[arguments, &more].concat())
    };
    // Its timers may come between the look and the verb: then it is another revision.
    wait::until(AWAY_WITHIN, "one is paused", || verb(&["pause", id]).code == 0);
    assert!(verb(&["pause", id]).out.contains("it is paused already"));
    let held = view(stage, id);
    assert_eq!(held["status"], json!("paused"), "{held:#}");
    let listed = ["resume", "--status", "paused", "--dry-run"];
    wait::until(AWAY_WITHIN, "the view tells which one", || {
        serde_json::from_str::<Value>(&verb(&listed).out).unwrap() == json!([id])
    });
    assert_eq!(charge(&view(stage, id))["attempt"], charge(&held)["attempt"], "nothing is asked");
    assert_eq!(verb(&["resume", "--status", "paused"]).code, 0);
    wait::until(AWAY_WITHIN, "it asks again", || {
        charge(&view(stage, id))["attempt"].as_u64() > charge(&held)["attempt"].as_u64()
    });
}

fn view(stage: &Stage, id: &str) -> Value {
    stage.view(0, id).ok().filter(|answer| answer.status == 200).map(|answer| answer.body).unwrap_or_default()
}

fn charge(view: &Value) -> Value {
    let steps = view["steps"].as_array().cloned().unwrap_or_default();
    steps.into_iter().find(|step| step["step"] == "charge").unwrap_or_default()
}

fn wait_until_missed(stage: &Stage, id: &str) {
    wait::until(AWAY_WITHIN, &format!("{id} has asked payment {ATTEMPTS} times"), || {
        charge(&view(stage, id))["attempt"].as_u64().is_some_and(|attempt| attempt >= ATTEMPTS)
    });
}

/// The first orders in a hurry are on their way back.
fn wait_until_turned_back(stage: &Stage, name: &str) {
    for id in HURRIED.map(|number| format!("{name}-{number}")) {
        wait::until(AWAY_WITHIN, &format!("{id} asks payment to undo what it may have done"), || {
            let view = view(stage, &id);
            view["status"] == "rolling-back" && charge(&view)["operation"] == "compensate"
        });
    }
}

/// A transaction without the one who is away is not held up.
fn go_on(stage: &Stage, id: &str) -> Intents {
    let input = json!({"ship_country": "France"});
    let body = json!({"id": id, "definition": "parcel", "input": input});
    let url = format!("{}/v1/transactions?wait=10s", stage.some_address(0));
    let answer = http::post(&url, &body, Duration::from_secs(12)).unwrap();
    assert_eq!((answer.status, &answer.body["outcome"]), (200, &json!("committed")), "{answer:?}");
    [(id.to_owned(), Intent { branches: &["ship"], told: vec![answer.body], ..Intent::new(input, true) })]
        .into()
}

//! Three brokers, as in production: no `--development`. Two of them die in turn and come back, under load.

use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use serde_json::{Value, json};

use crate::{AT_A_TIME, NO_END, PROGRAM, after, assert_known_everywhere, two_servers};

/// How long the doctor may take to be told of a broker that has gone, on a busy machine.
const NAMED_WITHIN: Duration = Duration::from_mins(2);

#[test]
fn one_broker_of_three_may_die() {
    let mut kafka = LocalKafka::start(ClusterSize::Three).unwrap();
    let stage = Stage::new(kafka.bootstrap(), PROGRAM, "three");
    let (code, examined) = doctor(&stage);
    assert_eq!(code, 0, "three brokers are fit: {examined:#}");
    let clocks = examined["probe"]["clocks"].as_object().unwrap();
    assert!(
        clocks.len() == 3 && clocks.values().all(|clock| clock["ahead_ms"].as_i64().unwrap().abs() < 1_000)
    );
    let transactions = &examined["probe"]["transactions"];
    assert_eq!(transactions, &json!({"failed": null, "shows_committed_only": true, "fences": true}));
    let (_servers, _participants) = two_servers(&stage);
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    after(&load, 60, "before the first broker dies");
    for index in 0..2 {
        kafka.kill_broker(index);
        after(&load, 60, "with two brokers");
        if index == 0 {
            wait::until(NAMED_WITHIN, "the doctor says what is missing", || {
                let (code, examined) = doctor(&stage);
                code == 10 && settings(&examined).contains(&"copies in sync".to_owned())
            });
        }
        kafka.restart_broker(index).unwrap();
        println!("broker {} was away, {} answers so far", index + 1, load.answered());
    }
    after(&load, 60, "with three again");
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 240, "{tally}");
    assert_known_everywhere(&stage, &intents, 2);
}

/// Its exit code, and what it says.
fn doctor(stage: &Stage) -> (i32, Value) {
    let finished = stage.sagamore(&["doctor", "-o", "json"]);
    (
        finished.code,
        serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {finished:?}")),
    )
}

fn settings(examined: &Value) -> Vec<String> {
    let findings = examined["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["setting"].as_str().unwrap().to_owned()).collect()
}

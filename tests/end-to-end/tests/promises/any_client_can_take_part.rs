//! The participant in Python, with nothing of ours, takes a step of an order beside one in Rust.

use std::path::Path;
use std::time::Duration;

use sagamore_end_to_end::http;
use serde_json::json;

use crate::stage;

#[test]
fn any_client_can_take_part() {
    let Ok(python) = std::env::var("SAGAMORE_PYTHON") else {
        println!("skipped: SAGAMORE_PYTHON names no Python with confluent-kafka; tests/run sees to that");
        return;
    };
    let stage = stage("python");
    let server = stage.server(1);
    stage.wait_running(&[&server]);
    stage.define("abroad");
    let _inventory = stage.participant("inventory", &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../participants/python/shipping.py");
    let script = script.display().to_string();
    let store = stage.folder().join("shipping.db").display().to_string();
    let shipping = stage.spawn_other(
        "shipping-python",
        &python,
        &[&script, "--kafka", stage.bootstrap(), "--prefix", "python", "--store", &store],
    );

    let url = format!("{}/v1/transactions?wait=30s", stage.some_address(0));
    let lines = json!([{"product": 1, "quantity": 3}]);
    for (id, country, outcome) in [("order-1", "France", "committed"), ("order-2", "Norway", "compensated")] {
        let body = json!({"id": id, "definition": "abroad", "input": {"order": 1, "ship_country": country, "lines": lines}});
        let answer = http::post(&url, &body, Duration::from_secs(40)).unwrap();
        assert_eq!(
            (answer.status, &answer.body["outcome"]),
            (200, &json!(outcome)),
            "{answer:?}\n{}",
            shipping.log()
        );
        if outcome == "committed" {
            let tracking = answer.body["data"]["steps"]["ship"]["tracking"].as_str().unwrap_or_default();
            assert!(tracking.starts_with("trk-order-1-"), "its result is in the outcome: {answer:?}");
        } else {
            assert!(
                answer.body["reason"].as_str().is_some_and(|reason| reason.contains("no-carrier: Norway")),
                "{answer:?}"
            );
        }
    }
    let effects: Vec<_> = stage.effects().iter().map(|effect| effect["effect"].clone()).collect();
    assert_eq!(
        effects,
        ["applied", "applied", "undone"],
        "the reservation of the refused order is given back"
    );
}

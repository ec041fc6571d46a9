//! Lists, counts and causes come from each server's own view: one server is killed and its view deleted; the other answers
//! at once, shards or not, and the first does again when it has read the journal anew.

use std::time::Duration;

use sagamore_end_to_end::http;
use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::stage;

const SOON: Duration = Duration::from_secs(40);
/// Started, and stuck, of each definition.
const STUCK: [(&str, i64); 2] = [("forlorn", 2), ("lonely", 5)];
/// Started, and never answered.
const WAITING: i64 = 3;

#[test]
fn every_server_sees_everything() {
    let stage = stage("everything");
    let folder = stage.folder().join("view").display().to_string();
    let mut first = stage.try_server(1, &["--development", "--view", &folder]);
    first.wait_listening();
    let second = stage.server(2);
    stage.wait_running(&[&first, &second]);
    // Nobody plays these participants. What was asked once and not answered is undone, and that is not answered either.
    define(&stage, "lonely", "fetch", "absent", "timeout: 200ms\n    retry: { attempts: 1 }");
    define(&stage, "forlorn", "seek", "missing", "timeout: 200ms\n    retry: { attempts: 1 }");
    define(&stage, "waiting", "ask", "absent", "timeout: 1h");
    for (definition, count) in STUCK.into_iter().chain([("waiting", WAITING)]) {
        (0..count).for_each(|number| start(&stage, definition, number));
    }
    for server in [&first, &second] {
        wait::until(SOON, "the view has all that is stuck", || {
            causes(server) == STUCK.map(|(_, count)| count)
        });
    }

    first.process.kill();
    std::fs::remove_dir_all(&folder).unwrap();
    // At once, whoever the shards belong to now.
    look(&stage, &second);
    let id = "lonely-0";
    let one = second.get(&format!("/v1/transactions/{id}?history=true")).unwrap();
    assert_eq!((one.status, &one.body["status"]), (200, &json!("stuck")), "{one:?}");
    let attempts = &one.body["steps"][0]["attempts"];
    assert_eq!(
        (&attempts[0]["came_to"], &attempts[1]["operation"]),
        (&json!("timeout"), &json!("compensate")),
        "{one:?}"
    );

    first.restart();
    wait::until(SOON, "the view is built anew", || {
        let told = first.get("/v1/counts").map(|answer| answer.body).unwrap_or_default();
        told["lag_records"] == 0 && told["total"] == total()
    });
    look(&stage, &first);
    // A verb needs the owner; until the dead server's shards are given away there may be none.
    stage.wait_running(&[&first, &second]);
    decide(&stage, &first);
}

fn total() -> i64 {
    STUCK.into_iter().map(|(_, count)| count).sum::<i64>() + WAITING
}

fn define(stage: &Stage, name: &str, step: &str, participant: &str, rest: &str) {
    let file = stage.folder().join(format!("{name}.yaml"));
    let text = format!(
        "name: {name}\nversion: 1\ndeadline: 2h\nsteps:\n  - name: {step}\n    participant: {participant}\n    {rest}\n"
    );
    std::fs::write(&file, text).unwrap();
    stage.must(&["define", "apply", &file.display().to_string(), "--wait", "40s"], 0);
}

fn start(stage: &Stage, definition: &str, number: i64) {
    let body = json!({"id": format!("{definition}-{number}"), "definition": definition, "input": {}});
    let answer = http::post(&format!("{}/v1/transactions", stage.some_address(0)), &body, SOON).unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// How many are stuck of each cause, by definition.
fn causes(server: &Server) -> Vec<i64> {
    let told = server.get("/v1/stuck").map(|answer| answer.body).unwrap_or_default();
    let mut causes = told["causes"].as_array().cloned().unwrap_or_default();
    causes.sort_by_key(|cause| cause["definition"].to_string());
    causes.iter().filter_map(|cause| cause["count"].as_i64()).collect()
}

/// What is decided about all of a filter adds up, and is looked at again.
fn decide(stage: &Stage, server: &Server) {
    let address = server.wait_listening();
    let run = |arguments: &[&str]| {
        let told = ["--reason", "a test", "--server", &address];
        let finished = stage.command(&[arguments, &told].concat());
        assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
        finished.out
    };
    let dry = run(&["retry", "--participant", "absent", "--dry-run"]);
    assert!(
        dry.contains("would be asked: 8") && dry.contains("sagamore retry --stuck --definition lonely@1"),
        "{dry}"
    );
    let retried = run(&["retry", "--stuck", "--definition", "lonely", "--check-after", "3s"]);
    assert!(retried.contains("retry: 5 taken, 0 not; by now still stuck: 5"), "{retried}");
    let resolved = run(&["resolve", "--stuck", "--definition", "forlorn", "--step", "seek", "--as", "ok"]);
    assert!(resolved.contains("resolve: 2 taken, 0 not; by now compensated: 2"), "{resolved}");
    wait::until(SOON, "they are known as compensated", || {
        let told = server.get("/v1/counts?status=compensated&definition=forlorn@1");
        told.is_ok_and(|told| told.body["total"] == 2)
    });
}

/// What the command line shows of a server.
fn look(stage: &Stage, server: &Server) {
    let address = server.wait_listening();
    let ask = |arguments: &[&str]| -> Vec<Value> {
        let finished = stage.command(&[arguments, &["--server", &address, "-o", "json"]].concat());
        assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
        serde_json::from_str(&finished.out).unwrap()
    };
    let listed = ask(&["list", "--status", "stuck"]);
    assert_eq!(listed.len(), 7, "{listed:?}");
    assert_eq!(listed.iter().filter(|one| one["definition"] == "lonely@1").count(), 5, "{listed:?}");
    let counted = ask(&["count"]);
    let of = |status: &str| {
        counted.iter().find(|count| count["status"] == status).map(|count| count["transactions"].clone())
    };
    assert_eq!((of("running"), of("stuck"), of("open")), (Some(json!(3)), Some(json!(7)), Some(json!(10))));
    let causes = ask(&["stuck", "--by-cause"]);
    let told: Vec<_> =
        causes.iter().map(|cause| (&cause["step"], &cause["participant"], &cause["count"])).collect();
    assert_eq!(
        told,
        [(&json!("fetch"), &json!("absent"), &json!(5)), (&json!("seek"), &json!("missing"), &json!(2))]
    );
}

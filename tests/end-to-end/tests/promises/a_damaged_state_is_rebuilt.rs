//! Whoever writes to the state topic halts its shards, loudly. They are rebuilt from the inbox, under load, and every order
//! ends, once.

use std::collections::BTreeSet;
use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_end_to_end::{topics, wait};
use serde_json::{Value, json};

use crate::{AT_A_TIME, NO_END, after, stage, two_servers};

const HALTED_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn a_damaged_state_is_rebuilt() {
    let stage = stage("rebuilt");
    let (mut servers, _participants) = two_servers(&stage);
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    after(&load, 80, "before the state is damaged");
    for server in &mut servers {
        server.process.kill();
    }
    let shards = damage(&stage);
    for server in &mut servers {
        server.restart();
    }
    wait::until(HALTED_WITHIN, "every damaged shard has halted", || {
        servers.iter().flat_map(halted).collect::<BTreeSet<_>>() == shards
    });
    // Before anything is repaired the audit says that decisions are as they should be.
    stage.must(&["audit", "verify"], 0);

    for shard in &shards {
        let arguments = ["rebuild", &shard.to_string(), "--reason", "somebody wrote to it", "-o", "json"];
        let rebuilt: Value = serde_json::from_str(&stage.must(&arguments, 0).out).unwrap();
        println!("{rebuilt}");
        assert_eq!(rebuilt["by_checkpoint"], json!(shard % 2 == 0), "{rebuilt}");
        assert!(rebuilt["next_offset"].as_i64() > Some(0), "{rebuilt}");
    }
    for server in &mut servers {
        server.kill_and_restart();
    }
    stage.wait_running(&[&servers[0], &servers[1]]);
    // A healthy one at work: whoever comes first, the rebuild or the owner that takes it over again, nothing is lost.
    let at_work = stage.sagamore(&["rebuild", "0", "--reason", "to see"]);
    println!("{} {}", at_work.out, at_work.error);
    assert!(
        at_work.code == 0 || at_work.code == 4 && at_work.error.contains("has taken shard 0 over"),
        "{at_work:?}"
    );
    after(&load, 60, "after the rebuilding");
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 140, "{tally}");
    stage.must(&["audit", "verify"], 0);
    stage.must(&["rebuild", "99", "--reason", "no such shard"], 3);
}

/// Of shards with an even number a record is removed and a foreign one written; of the others the checkpoint is overwritten.
fn damage(stage: &Stage) -> BTreeSet<i32> {
    let topic = stage.topic("state");
    let mut shards = BTreeSet::new();
    for record in topics::read_all(stage.bootstrap(), &topic) {
        let Some(key) = record.key.filter(|key| key.starts_with(b"\0definition/")) else { continue };
        if !shards.insert(record.partition) {
            continue;
        }
        let to = Some(record.partition);
        if record.partition % 2 == 0 {
            topics::write_now(stage.bootstrap(), &topic, to, Some(&key), None);
            topics::write_now(stage.bootstrap(), &topic, to, Some(b"foreign"), Some(b"{}"));
        } else {
            topics::write_now(stage.bootstrap(), &topic, to, Some(b"\0checkpoint"), Some(b"{}"));
        }
    }
    assert!(shards.len() > 1, "both kinds of damage are done: {shards:?}");
    shards
}

fn halted(server: &Server) -> Vec<i32> {
    let shards = server.get("/v1/shards").map(|answer| answer.body["shards"].clone()).unwrap_or_default();
    let shards = shards.as_object().cloned().unwrap_or_default();
    let halted = shards.into_iter().filter(|(_, shard)| shard.to_string().contains("SAG-001"));
    halted.filter_map(|(partition, _)| partition.parse().ok()).collect()
}

//! Servers write snapshots while they work, and are killed meanwhile. When the inbox has been trimmed, audit and rebuild begin
//! at them; one that is damaged is named, and an older one used.

use std::collections::BTreeMap;
use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_end_to_end::topics::{self, Seen};
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::{AT_A_TIME, NO_END, after, stage};

/// Snapshots a shard may take to have two of, with its servers killed on the way.
const WRITTEN_WITHIN: Duration = Duration::from_mins(1);
/// A time after everything that happens here: what comes after it is asked for, and everything before is folded.
const LATER: &str = "2100-01-01T00:00:00Z";

#[test]
fn a_fold_begins_at_a_snapshot() {
    let stage = stage("snapshots");
    let mut servers = [1, 2].map(|number| server(&stage, number));
    stage.wait_running(&[&servers[0], &servers[1]]);
    stage.define("order");
    let _participants = stage.participants();
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    for server in [0, 1] {
        after(&load, 20, "while snapshots are written");
        servers[server].kill_and_restart();
    }
    stage.wait_running(&[&servers[0], &servers[1]]);
    wait::until(WRITTEN_WITHIN, "each shard has two snapshots", || {
        let whole = whole(&stage);
        whole.len() == 4 && whole.values().all(|offsets| offsets.len() > 1)
    });
    after(&load, 20, "behind the last snapshot");
    let mut intents = load.stop();
    stage.judge(&intents);

    // From the beginning, as long as that is there: each snapshot says what the fold says.
    let all = verify(&stage, &[], 0);
    let name = stage.topic("snapshots");
    assert!(all["topics"][&name]["identical"].as_u64() > Some(7), "{all:#}");
    assert!(all["shards"].as_array().unwrap().iter().all(|shard| shard["at"] == json!(0)), "{all:#}");
    let late = verify(&stage, &["--from", LATER], 0);
    assert!(late["shards"].as_array().unwrap().iter().all(began_at_a_snapshot), "{late:#}");

    for server in &mut servers {
        server.process.kill();
    }
    let offsets = whole(&stage);
    let lows = trim(&stage, &offsets);
    let trimmed = verify(&stage, &[], 0);
    for shard in trimmed["shards"].as_array().unwrap() {
        let partition = shard["partition"].as_i64().unwrap();
        // Two may stand at records that follow each other.
        let left = offsets[&partition].iter().find(|offset| **offset >= lows[&partition]);
        assert_eq!(shard["at"].as_i64(), left.copied(), "the oldest snapshot that is left: {trimmed:#}");
    }
    assert!(trimmed["topics"][stage.topic("journal")]["not_retained"].as_u64() > Some(0), "{trimmed:#}");
    let refused = stage.must(&["audit", "verify", "--no-snapshots"], 4);
    assert!(refused.error.contains("is not retained"), "{}", refused.error);
    let (shard, low) = lows.iter().next().unwrap();
    stage.must(&["audit", "state", "--at", &format!("{shard}/{}", low - 1)], 4);

    let rebuilt = stage.must(&["rebuild", "0", "--reason", "to see", "-o", "json"], 0);
    let rebuilt: Value = serde_json::from_str(&rebuilt.out).unwrap();
    assert!(began_at_a_snapshot(&rebuilt), "{rebuilt}");
    for server in &mut servers {
        server.restart();
    }
    stage.wait_running(&[&servers[0], &servers[1]]);
    intents.extend(Load::begin(&stage, "again", "order", AT_A_TIME, 20).finish());
    stage.judge(&intents);
    stage.must(&["snapshot", "0"], 0);
    stage.must(&["snapshot", "99"], 3);

    // Nobody writes a newer one meanwhile.
    for server in &mut servers {
        server.process.kill();
    }
    damaged_ones_are_named(&stage);
}

fn server(stage: &Stage, number: usize) -> Server {
    let server = stage.try_server(number, &["--development", "--snapshot-every", "1s"]);
    server.wait_listening();
    server
}

/// One is torn, as by a writer that was killed; of one a byte is wrong.
fn damaged_ones_are_named(stage: &Stage) {
    let topic = stage.topic("snapshots");
    let newest = topics::read_all(stage.bootstrap(), &topic);
    let newest =
        newest.into_iter().filter(|seen| seen.partition == 0).max_by_key(|seen| seen.offset).unwrap();
    let mut torn = part(&newest);
    (torn["id"], torn["count"]) = (json!("00000000-0000-0000-0000-000000000001"), json!(2));
    write(stage, &newest, &torn, |_| {});
    let mut wrong = part(&newest);
    wrong["id"] = json!("00000000-0000-0000-0000-000000000002");
    write(stage, &newest, &wrong, |value| value[40] ^= 1);

    let told = stage.must(&["audit", "state", "--at", LATER, "-o", "json"], 0);
    let passed_over: Vec<&str> = told.error.lines().filter(|line| line.contains("was not used")).collect();
    assert_eq!(passed_over.len(), 2, "{}", told.error);
    assert!(passed_over[0].contains("digest") && passed_over[1].contains("1 of 2 pieces"), "{passed_over:?}");
    let believed: Value = serde_json::from_str(&told.out).unwrap();
    assert!(believed["shards"].as_array().unwrap().iter().all(began_at_a_snapshot), "{believed:#}");

    let report = verify(stage, &[], 10);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{report:#}");
    assert_eq!((&findings[0]["topic"], &findings[0]["kind"]), (&json!(topic), &json!("different")));
    assert_eq!(report["topics"][&topic]["under_way"], json!(1), "torn: {report:#}");
}

fn part(seen: &Seen) -> Value {
    serde_json::from_str(&seen.header("part")).unwrap()
}

fn write(stage: &Stage, seen: &Seen, part: &Value, alter: impl FnOnce(&mut Vec<u8>)) {
    let mut again = seen.clone();
    again.headers.insert("part".into(), part.to_string().into_bytes());
    again.value.as_mut().map(alter).unwrap();
    topics::write_again(stage.bootstrap(), &stage.topic("snapshots"), &again);
}

/// Deletes what stands before the second snapshot of each shard, but for the record it ends with; returns where it begins now.
fn trim(stage: &Stage, snapshots: &BTreeMap<i64, Vec<i64>>) -> BTreeMap<i64, i64> {
    let second = |(partition, offsets): (&i64, &Vec<i64>)| (*partition, offsets[1] - 1);
    let lows: BTreeMap<i64, i64> = snapshots.iter().map(second).collect();
    for (partition, low) in &lows {
        let partition = i32::try_from(*partition).unwrap();
        topics::trim(stage.bootstrap(), &stage.topic("inbox"), partition, *low);
    }
    lows
}

/// What the snapshots of each shard have folded in.
fn whole(stage: &Stage) -> BTreeMap<i64, Vec<i64>> {
    let listed: Value =
        serde_json::from_str(&stage.must(&["snapshot", "--list", "-o", "json"], 0).out).unwrap();
    let mut offsets: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for one in listed.as_array().unwrap().iter().filter(|one| one["whole"] == json!(true)) {
        let number = |name: &str| one[name].as_i64().unwrap();
        offsets.entry(number("partition")).or_default().push(number("next_offset"));
    }
    for offsets in offsets.values_mut() {
        offsets.sort_unstable();
        offsets.dedup();
    }
    offsets
}

fn began_at_a_snapshot(shard: &Value) -> bool {
    shard["at"].as_i64() > Some(0) && shard["snapshot"].is_string()
}

fn verify(stage: &Stage, more: &[&str], code: i32) -> Value {
    let arguments = [&["audit", "verify", "-o", "json"], more].concat();
    serde_json::from_str(&stage.must(&arguments, code).out).unwrap()
}

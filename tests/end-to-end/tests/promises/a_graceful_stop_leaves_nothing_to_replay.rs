//! SIGTERM: a last checkpoint of each shard, then out of the group. The next one has nothing to apply again, and does not
//! wait for the session of the former.

use std::time::Duration;

use sagamore_end_to_end::PARTITIONS;
use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::process::Process;

use crate::{AT_A_TIME, NO_END, after, assert_known_everywhere, stage};

/// How long a graceful stop may take.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);
/// Less than the session of a member that has not left: 6 s.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_graceful_stop_leaves_nothing_to_replay() {
    let stage = stage("graceful");
    let mut first = stage.server(1);
    stage.wait_running(&[&first]);
    stage.define("order");
    let _participants = stage.participants();
    let intents = Load::begin(&stage, "calm", "order", AT_A_TIME, 90).finish();
    stage.judge(&intents);

    first.process.signal("TERM");
    assert_eq!(first.process.wait(STOPPED_WITHIN), 0);
    first.restart();
    let took = stage.wait_running(&[&first]);
    assert!(took < TAKEN_WITHIN, "it had left the group: {took:?}");
    assert_eq!(replayed(&first.process), [0; PARTITIONS as usize], "every shard, with nothing to replay");
    assert_known_everywhere(&stage, &intents, 1);

    let second = stage.server(2);
    stage.wait_running(&[&first, &second]);
    let load = Load::begin(&stage, "busy", "order", AT_A_TIME, NO_END);
    after(&load, 60, "before the stop");
    first.process.signal("TERM");
    assert_eq!(first.process.wait(STOPPED_WITHIN), 0);
    let took = stage.wait_running(&[&second]);
    assert!(took < TAKEN_WITHIN, "taken over under load: {took:?}");
    first.restart();
    after(&load, 60, "after the stop");
    let mut all = load.stop();
    all.extend(intents);
    stage.judge(&all);
}

/// How many records each shard had to apply again.
fn replayed(process: &Process) -> Vec<i64> {
    let log = process.log();
    let number = |line: &str, name: &str| -> i64 {
        let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line:?}"));
        rest.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(-1)
    };
    let restored = log.lines().filter(|line| line.contains(" restored "));
    restored.map(|line| number(line, "inbox_end=") - number(line, " from=")).collect()
}

//! SIGSTOP of a server beyond its session, takeover by the other, SIGCONT: the zombie has no say any more.

use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::wait;

use crate::{AT_A_TIME, NO_END, after, assert_known_everywhere, stage, two_servers};

/// Lines by which a server that was away says that it has understood.
const UNDERSTOOD: [&str; 3] = ["fenced: another owner", "dropped, to be taken over again", " taken "];

#[test]
fn a_paused_server_that_wakes_up_changes_nothing() {
    let stage = stage("paused");
    let (servers, _participants) = two_servers(&stage);
    let [zombie, other] = &servers;
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    after(&load, 60, "before the pause");
    assert!(!zombie.running().is_empty());
    zombie.process.signal("STOP");
    let before = zombie.process.log().len();
    let took = stage.wait_running(&[other]);
    println!("the other runs every shard after {} ms", took.as_millis());
    after(&load, 60, "while it is paused");
    zombie.process.signal("CONT");
    let what = "the zombie notices that it has been replaced";
    wait::until(Duration::from_secs(30), what, || {
        let log = zombie.process.log();
        let since = log.get(before..).unwrap_or_default();
        UNDERSTOOD.iter().any(|line| since.contains(line))
    });
    let log = zombie.process.log();
    let said = log[before..].lines().filter(|line| UNDERSTOOD.iter().any(|word| line.contains(word)));
    println!("the zombie says:\n{}", said.collect::<Vec<_>>().join("\n"));
    stage.wait_running(&[zombie, other]);
    let what = "both have shards again";
    wait::until(Duration::from_secs(30), what, || servers.iter().all(|server| !server.running().is_empty()));
    after(&load, 60, "after the pause");
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 180, "{tally}");
    assert_known_everywhere(&stage, &intents, 2);
}

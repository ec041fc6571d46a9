//! `kill -9` of a server under load, five times at random moments: every order ends, once, and every effect is there
//! once.

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::random::Random;

use crate::{AT_A_TIME, NO_END, after, assert_known_everywhere, stage, two_servers};

const KILLS: usize = 5;

#[test]
fn a_killed_server_loses_nothing() {
    let stage = stage("killed");
    let mut random = Random::seeded("a_killed_server_loses_nothing");
    let (mut servers, _participants) = two_servers(&stage);
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    after(&load, 30, "before the first kill");
    for kill in 1..=KILLS {
        let victim = usize::from(random.within(0..2) == 1);
        after(&load, random.within(5..60), "until the kill");
        servers[victim].kill_and_restart();
        println!("killed server {} after {} answers, time {kill}", victim + 1, load.answered());
    }
    stage.wait_running(&[&servers[0], &servers[1]]);
    after(&load, 60, "after the last kill");
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 150, "{tally}");
    assert_known_everywhere(&stage, &intents, 2);
    // And every record says what the fold says.
    stage.must(&["audit", "verify"], 0);
}

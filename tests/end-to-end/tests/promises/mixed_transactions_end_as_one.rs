//! One definition with a saga step, a reserved step, a condition, a two-phase group and a retriable step: some hundreds
//! of them (`SAGAMORE_TRANSACTIONS=1000` for more), every participant that may refuse does, and every few seconds a
//! server is killed.

use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::wait;

use crate::stage;

const TRANSACTIONS: u64 = 300;
const AT_A_TIME: usize = 24;
/// Transactions between two kills.
const KILL_EVERY: u64 = 80;
const DONE_WITHIN: Duration = Duration::from_mins(4);

#[test]
fn mixed_transactions_end_as_one() {
    let stage = stage("mixed");
    let mut random = Random::seeded("mixed_transactions_end_as_one");
    let mut servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    stage.define("mixed");
    let of = |example, name, percent| {
        let percent: &str = percent;
        stage.participant_as(
            example,
            name,
            &["--refuse-percent", percent, "--fail-percent", "3", "--seed", name_seed(name)],
        )
    };
    let _participants = [
        of("inventory", "inventory", "4"),
        of("inventory", "scarce", "4"),
        of("payment", "insurer", "8"),
        of("bank", "bank-a", "4"),
        of("bank", "bank-b", "4"),
        // What is retriable is not refused: it would be stuck.
        of("shipping", "shipping", "0"),
    ];
    let given = std::env::var("SAGAMORE_TRANSACTIONS").ok();
    let count = given.map_or(TRANSACTIONS, |count| count.parse().unwrap());
    let load = Load::begin(&stage, "mixed", "mixed", AT_A_TIME, count);
    let mut kills: u64 = 0;
    while load.answered() + KILL_EVERY < count {
        let goal = load.answered() + random.within(KILL_EVERY / 2..KILL_EVERY);
        wait::until(DONE_WITHIN, "the next kill", || load.answered() >= goal);
        let victim = usize::from(random.within(0..2) == 1);
        servers[victim].kill_and_restart();
        kills += 1;
        println!("killed server {} after {} answers, time {kills}", victim + 1, load.answered());
    }
    let intents = load.finish();
    let tally = stage.judge(&intents);
    assert!(kills >= count / 100, "{kills} kills");
    let count = usize::try_from(count).unwrap();
    assert_eq!(tally.orders(), count);
    assert!(tally.of("committed") > count / 2, "{tally}");
    assert!(tally.of("compensated") > count / 20 && tally.of("aborted") > 0, "{tally}");
    assert!(tally.released > count / 50, "votes were let go: {tally}");
}

/// Each refuses others than the others do.
fn name_seed(name: &str) -> &'static str {
    match name {
        "inventory" => "11",
        "scarce" => "12",
        "insurer" => "13",
        "bank-a" => "14",
        "bank-b" => "15",
        _ => "16",
    }
}

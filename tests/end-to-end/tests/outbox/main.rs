//! Two banks that know SQL and nothing else: they start transactions and answer commands in their own transactions, while
//! relays, workers, databases and coordinators are killed with `kill -9`.
//!
//! Each kind of process is killed once; `SAGAMORE_KILLS=20` for more.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

mod bank;
mod judge;
mod shop;

use std::time::Duration;

use sagamore_end_to_end::KAFKA;
use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::stage::Stage;

use bank::Bank;
use shop::Shop;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagamore-under-test");
const KILLS: u64 = 1;
/// Transactions that end between two kills.
const BETWEEN: u64 = 8;
const GOES_ON_WITHIN: Duration = Duration::from_mins(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// Of a relay that stands by, after the active one was killed.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(5);

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Relay,
    Worker,
    Database,
    Server,
}

#[test]
fn sql_alone_starts_and_answers_while_everything_is_killed() {
    let mut random = Random::seeded("outbox");
    let stage = Stage::new(KAFKA.bootstrap(), PROGRAM, "outbox");
    let mut servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    for definition in ["sql-prepared", "sql-saga"] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/outbox");
        stage.must(&["define", "apply", &format!("{folder}/{definition}.yaml"), "--wait", "40s"], 0);
    }
    let mut banks = [Bank::open(&stage, "sql-a"), Bank::open(&stage, "sql-b")];
    let mut shop = Shop::begin(&stage, &banks[0]);
    let kills = std::env::var("SAGAMORE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    for turn in 0..kills {
        for victim in [Victim::Relay, Victim::Worker, Victim::Database, Victim::Server] {
            shop.run_until_ended(random.within(BETWEEN / 2..BETWEEN), GOES_ON_WITHIN);
            let side = usize::from(random.within(0..2) == 1);
            match victim {
                Victim::Relay => {
                    let took = banks[side].kill_active_relay();
                    println!("the other relay took over {} ms after the kill", took.as_millis());
                    assert!(took < TAKES_OVER_WITHIN, "{took:?}");
                }
                Victim::Worker => banks[side].kill_worker(),
                Victim::Database => {
                    banks[side].database.kill();
                    // Away, for as long as it takes others to notice.
                    shop.run_for(Duration::from_millis(random.within(0..1_500)));
                    banks[side].database.restart().unwrap_or_else(|error| panic!("{error}"));
                }
                Victim::Server => servers[side].kill_and_restart(),
            }
            println!("kill {turn}: {victim:?} {side}, {} transactions ended", shop.ended.len());
        }
    }
    shop.run_until_ended(BETWEEN, GOES_ON_WITHIN);
    shop.finish(SETTLED_WITHIN);
    for bank in &mut banks {
        bank.wait_settled(SETTLED_WITHIN);
    }
    let tally = judge::judge(&stage, &shop, &banks);
    println!("{tally:?}");
    for definition in shop::DEFINITIONS {
        assert!(tally.outcomes.get(&(definition, "committed")).is_some_and(|count| *count > 0), "{tally:?}");
    }
    let is_back = |((_, outcome), count): (&(&str, &str), &u64)| *outcome != "committed" && *count > 0;
    assert!(tally.outcomes.iter().any(is_back), "{tally:?}");
    for bank in &mut banks {
        bank.end();
    }
}

/// Not a test: the process of a bank's worker, started by this very program.
#[test]
#[ignore = "the worker of a bank, a process of its own"]
fn worker() {
    bank::worker();
}

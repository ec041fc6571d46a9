//! Money between two databases on two servers: by prepared transactions (XA), by holds and by sagas, on the same
//! accounts, while coordinators, participants and databases are killed with `kill -9`.
//!
//! Each kind is killed once; `SAGAMORE_KILLS=20` for more.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

mod bank;
mod books;
mod transfers;

use std::time::Duration;

use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::{KAFKA, wait};
use sagamore_local_postgres::LocalPostgres;

use bank::Teller;
use books::Books;
use transfers::Transfers;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagamore-under-test");
const KILLS: u64 = 1;
/// Transfers that end between two kills.
const BETWEEN: u64 = 6;
const GOES_ON_WITHIN: Duration = Duration::from_mins(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Server,
    Bank,
    Teller,
    Database,
}

#[test]
fn money_is_neither_made_nor_lost_while_everything_is_killed() {
    let kills = std::env::var("SAGAMORE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut random = Random::seeded("databases");
    let postgres = || {
        // With fsync, as in production.
        LocalPostgres::start(&[("max_prepared_transactions", "64")]).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut databases = [postgres(), postgres()];
    let stage = Stage::new(KAFKA.bootstrap(), PROGRAM, "databases");
    let mut servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    for definition in transfers::DEFINITIONS {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/databases");
        stage.must(&["define", "apply", &format!("{folder}/{definition}.yaml"), "--wait", "40s"], 0);
    }
    let mut banks =
        [Teller::bank(&stage, "bank-a", &databases[0]), Teller::bank(&stage, "bank-b", &databases[1])];
    let mut tellers =
        [Teller::new(&stage, "teller-a", &databases[0]), Teller::new(&stage, "teller-b", &databases[1])];
    let mut transfers = Transfers::new(&stage);
    for turn in 0..kills {
        for victim in [Victim::Bank, Victim::Database, Victim::Teller, Victim::Server] {
            transfers.run_until_ended(random.within(BETWEEN / 2..BETWEEN), GOES_ON_WITHIN);
            let side = usize::from(random.within(0..2) == 1);
            match victim {
                Victim::Server => servers[side].kill_and_restart(),
                Victim::Bank => banks[side].kill_and_restart(),
                Victim::Teller => tellers[side].kill_and_restart(),
                Victim::Database => {
                    databases[side].kill();
                    // Away, for as long as it takes others to notice.
                    transfers.run_for(Duration::from_millis(random.within(0..1_500)));
                    databases[side].restart().unwrap_or_else(|error| panic!("{error}"));
                }
            }
            println!("kill {turn}: {victim:?} {side}, {} transfers ended", transfers.ended());
        }
    }
    transfers.run_until_ended(BETWEEN, GOES_ON_WITHIN);
    transfers.finish(SETTLED_WITHIN);
    let books = [Books::of(&databases[0]), Books::of(&databases[1])];
    for (book, name) in books.iter().zip(["a", "b"]) {
        wait::until(SETTLED_WITHIN, &format!("nothing is held in {name}"), || book.held() == 0);
    }
    let tally = transfers.judge(&books);
    println!("{tally:?}");
    for definition in transfers::DEFINITIONS {
        assert!(tally.get(&(definition, "committed")).is_some_and(|count| *count > 0), "{tally:?}");
    }
    let turned_back: u64 =
        tally.iter().filter(|((_, outcome), _)| *outcome != "committed").map(|(_, count)| *count).sum();
    assert!(turned_back > 0, "{tally:?}");
}

/// Not a test: what the processes of the test above are.
#[test]
#[ignore = "started by money_is_neither_made_nor_lost_while_everything_is_killed"]
fn bank_process() {
    bank::run();
}

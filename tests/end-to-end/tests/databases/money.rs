//! Money between two databases on two servers: by prepared transactions (XA), by holds and by sagas, on the same
//! accounts.

use std::time::Duration;

use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use sagamore_local_postgres::LocalPostgres;

use crate::books::Books;
use crate::member::Member;
use crate::transfers::{self, OPENING_CENTS, Transfers, judge};
use crate::{kills, postgres, site};

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
    let mut random = Random::seeded("databases");
    let mut databases = [postgres(), postgres()];
    let (stage, mut servers) = site("databases", &transfers::DEFINITIONS);
    let mut banks = [
        bank(&stage, "bank-a", "prepared", &databases[0]),
        bank(&stage, "bank-b", "prepared", &databases[1]),
    ];
    let mut tellers =
        [bank(&stage, "teller-a", "holds", &databases[0]), bank(&stage, "teller-b", "holds", &databases[1])];
    let mut transfers = Transfers::begin(&stage);
    for turn in 0..kills() {
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
            println!("kill {turn}: {victim:?} {side}, {} transfers ended", transfers.ended.len());
        }
    }
    transfers.run_until_ended(BETWEEN, GOES_ON_WITHIN);
    transfers.finish(SETTLED_WITHIN);
    let books = [Books::of(&databases[0]), Books::of(&databases[1])];
    for (book, name) in books.iter().zip(["a", "b"]) {
        wait::until(SETTLED_WITHIN, &format!("nothing is held in {name}"), || book.held() == 0);
    }
    let tally = judge(&transfers, &books);
    println!("{tally:?}");
    for definition in transfers::DEFINITIONS {
        assert!(tally.get(&(definition, "committed")).is_some_and(|count| *count > 0), "{tally:?}");
    }
    let turned_back: u64 =
        tally.iter().filter(|((_, outcome), _)| *outcome != "committed").map(|(_, count)| *count).sum();
    assert!(turned_back > 0, "{tally:?}");
}

fn bank(stage: &Stage, name: &str, votes: &str, database: &LocalPostgres) -> Member {
    let (url, opening) = (database.url(), OPENING_CENTS.to_string());
    // Each refuses others.
    let seed = name.bytes().map(u64::from).sum::<u64>().to_string();
    let refuses = ["--refuse-percent", "10", "--fail-percent", "5", "--seed", &seed];
    let lives = ["--postgres", &url, "--votes", votes, "--opening-cents", &opening, "--workers", "4"];
    Member::new(stage, name, "bank", name, &[lives.as_slice(), &refuses].concat())
}

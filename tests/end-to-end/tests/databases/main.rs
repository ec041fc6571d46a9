//! Participants on databases, all of them killed with `kill -9`: coordinators, participants, and the databases; and one whose
//! database is a topic.
//!
//! Each kind of process is killed once; `SAGAMORE_KILLS=20` for more.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

mod books;
mod by_hand;
mod changes;
mod flow;
mod member;
mod money;
mod orders;
mod points;
mod replicas;
mod restored;
mod transfers;

use std::time::Duration;

use sagamore_end_to_end::KAFKA;
use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_local_postgres::LocalPostgres;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagamore-under-test");
const KILLS: u64 = 1;
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How often each kind of process is killed.
fn kills() -> u64 {
    std::env::var("SAGAMORE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

/// With fsync, as in production.
fn postgres() -> LocalPostgres {
    LocalPostgres::start(&[("max_prepared_transactions", "64")]).unwrap_or_else(|error| panic!("{error}"))
}

/// Two servers with these definitions of this folder.
fn site(prefix: &str, definitions: &[&str]) -> (Stage, [Server; 2]) {
    let stage = Stage::new(KAFKA.bootstrap(), PROGRAM, prefix);
    let servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    for definition in definitions {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/databases");
        stage.must(&["define", "apply", &format!("{folder}/{definition}.yaml"), "--wait", "40s"], 0);
    }
    (stage, servers)
}

//! A change is in all of several databases of different kinds, or in none.

use std::path::Path;
use std::time::Duration;

use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::changes::{self, Changes};
use crate::member::Member;
use crate::{kills, postgres, site};

/// Changes that end between two kills.
const BETWEEN: u64 = 8;
const GOES_ON_WITHIN: Duration = Duration::from_mins(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// Longer than a change may take.
const AWAY: Duration = Duration::from_secs(7);

/// Members that are away for so long.
const FILE: usize = 2;
const LOG: usize = 3;

#[test]
fn a_change_is_in_all_databases_or_in_none_while_everything_is_killed() {
    let mut random = Random::seeded("replicas");
    // Votes of one are prepared transactions, those of the others rows.
    let mut databases = [postgres(), postgres()];
    let (stage, mut servers) = site("replicas", &changes::DEFINITIONS);
    let file = stage.folder().join("replica.sqlite");
    let urls = [databases[0].url(), databases[1].url()];
    let mut members = [
        replica(&stage, "replica-a", &["--postgres", &urls[0], "--votes", "prepared", "--workers", "2"]),
        replica(&stage, "replica-b", &["--postgres", &urls[1], "--workers", "2"]),
        replica(&stage, "replica-c", &["--sqlite", &file.display().to_string()]),
        member(&stage, "log-replica", "replica-d", &["--replication", "1", "--development"]),
    ];
    let mut flow = Changes::begin(&stage);
    for turn in 0..kills() {
        for victim in 0..members.len() + servers.len() + databases.len() {
            flow.run_until_ended(random.within(BETWEEN / 2..BETWEEN), GOES_ON_WITHIN);
            if let Some(member) = members.get_mut(victim) {
                member.kill_and_restart();
            } else if let Some(server) = servers.get_mut(victim - members.len()) {
                server.kill_and_restart();
            } else {
                let database = &mut databases[victim - members.len() - servers.len()];
                database.kill();
                flow.run_for(Duration::from_millis(random.within(0..1_500)));
                database.restart().unwrap_or_else(|error| panic!("{error}"));
            }
            println!("kill {turn}: {victim}, {} changes ended", flow.ended.len());
        }
    }
    // Down for longer than a change may take: what it has not voted for is aborted everywhere, the rest it catches up.
    flow.run_until_ended(BETWEEN, GOES_ON_WITHIN);
    for away in [FILE, LOG] {
        members[away].kill();
        flow.run_for(AWAY);
        members[away].restart();
        flow.run_until_ended(BETWEEN, GOES_ON_WITHIN);
    }
    flow.finish(SETTLED_WITHIN);

    let table = format!("kafka://{}/{}", stage.bootstrap(), stage.topic("tables.replica-d"));
    let places = [urls[0].as_str(), &urls[1], file.to_str().unwrap(), &table];
    wait::until(SETTLED_WITHIN, "nothing is held", || {
        compare(&stage, &places, 0)["held"] == json!([0, 0, 0, 0])
    });
    let compared = compare(&stage, &places, 0);
    assert_eq!(compared["rows"], json!(flow.next.rows().len()));
    assert_rows(&file, &flow.next);
    let committed = flow.ended.values().filter(|outcome| **outcome == "committed").count();
    println!("{} changes, {committed} committed; {compared}", flow.ended.len());
    assert!(committed > 0 && committed < flow.ended.len());

    // And the verifier sees what is different.
    let connection = rusqlite::Connection::open(&file).unwrap();
    let row = flow.next.rows().keys().next().unwrap();
    connection.execute("UPDATE replica_rows SET value = '1' WHERE name = ?1", [row]).unwrap();
    let compared = compare(&stage, &places, 10);
    assert_eq!((&compared["different"], &compared["differences"][0]["row"]), (&json!(1), &json!(row)));
}

fn replica(stage: &Stage, name: &str, lives: &[&str]) -> Member {
    member(stage, "replica", name, lives)
}

fn member(stage: &Stage, example: &str, name: &str, lives: &[&str]) -> Member {
    let seed = name.bytes().map(u64::from).sum::<u64>().to_string();
    let refuses = ["--refuse-percent", "5", "--fail-percent", "5", "--seed", &seed];
    Member::new(stage, name, example, name, &[lives, &refuses].concat())
}

fn compare(stage: &Stage, places: &[&str], code: i32) -> Value {
    let finished = stage.command(&[&["participant", "compare", "-o", "json"], places].concat());
    assert_eq!(finished.code, code, "{finished:?}");
    serde_json::from_str(&finished.out).unwrap()
}

/// One of them holds what was committed; the others are equal to it.
fn assert_rows(file: &Path, changes: &Changes) {
    let connection = rusqlite::Connection::open(file).unwrap();
    for (row, (version, value)) in changes.rows() {
        let query = "SELECT version, coalesce(value, 'null') FROM replica_rows WHERE name = ?1";
        let found: (i64, String) =
            connection.query_row(query, [row], |found| Ok((found.get(0)?, found.get(1)?))).unwrap();
        assert_eq!(
            (found.0, serde_json::from_str::<Value>(&found.1).unwrap()),
            (*version, value.clone()),
            "{row}"
        );
    }
}

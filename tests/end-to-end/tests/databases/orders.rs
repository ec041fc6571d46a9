//! The orders of the demo, with inventory, payment and shipping on PostgreSQL, two instances of each.

use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::stage::{PARTICIPANTS, Stage};
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::books::Books;
use crate::member::Member;
use crate::{kills, postgres, site};

const AT_A_TIME: usize = 12;
/// Orders that are answered between two kills.
const BETWEEN: u64 = 12;
const GOES_ON_WITHIN: Duration = Duration::from_mins(1);
/// Never met.
const ORDERS_MAX: u64 = 1_000_000;

#[test]
fn the_books_of_orders_balance_while_everything_is_killed() {
    let mut random = Random::seeded("orders");
    let mut database = postgres();
    let (stage, mut servers) = site("orders", &[]);
    stage.define("order");
    let url = database.url();
    let mut members: Vec<Member> = PARTICIPANTS
        .iter()
        .flat_map(|example| [1, 2].map(|instance| member(&stage, example, instance, &url)))
        .collect();
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, ORDERS_MAX);
    let goes_on = |more: u64| {
        let goal = load.answered() + more;
        wait::until(GOES_ON_WITHIN, &format!("{more} more orders are answered"), || load.answered() >= goal);
    };
    for turn in 0..kills() {
        for victim in 0..PARTICIPANTS.len() + 2 {
            goes_on(random.within(BETWEEN / 2..BETWEEN));
            let second = usize::from(random.within(0..2) == 1);
            match PARTICIPANTS.get(victim) {
                Some(_) => members[2 * victim + second].kill_and_restart(),
                None if victim == PARTICIPANTS.len() => servers[second].kill_and_restart(),
                None => {
                    database.kill();
                    database.restart().unwrap_or_else(|error| panic!("{error}"));
                }
            }
            println!("kill {turn}: {victim} {second}, {} orders answered", load.answered());
        }
    }
    goes_on(BETWEEN);
    let intents = load.stop();
    let tally = stage.judge_by(&intents, || effects(&Books::of(&database)));
    let (committed, turned_back) = (tally.of("committed"), tally.of("compensated") + tally.of("aborted"));
    assert!(committed > 0 && turned_back > 0, "{committed} committed, {turned_back} turned back");
    for member in &mut members {
        let said = member.end();
        assert_eq!(said["balance"], json!(true), "{said}");
    }
}

fn member(stage: &Stage, example: &str, instance: u32, url: &str) -> Member {
    let lives = ["--postgres", url, "--workers", "2"];
    let refuses = ["--refuse-percent", "4", "--fail-percent", "3", "--seed", "7"];
    Member::new(
        stage,
        &format!("{example}-{instance}"),
        example,
        example,
        &[lives.as_slice(), &refuses].concat(),
    )
}

/// What each operation has left in the database, as the checker reads it.
fn effects(books: &Books) -> Vec<Value> {
    let query = "SELECT concat_ws('/', 'instance', subject, birth, step, branch),
        CASE operation WHEN 'compensate' THEN 'undone' ELSE 'applied' END, abs(amount) FROM effects ORDER BY operation DESC";
    let rows = books.rows(query);
    let effect = |row: &tokio_postgres::Row| {
        let (key, effect, amount): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        json!({"key": key, "effect": effect, "amount": amount})
    };
    rows.iter().map(effect).collect()
}

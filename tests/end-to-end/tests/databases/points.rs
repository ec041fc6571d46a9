//! A participant with nothing but Kafka: two instances, killed with `kill -9` and once paused until others have its
//! partitions. The table, as a stranger reads it, is what the outcomes say; and each event is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::{KAFKA, topics, wait};
use serde_json::{Value, json};

use crate::flow::{Flow, Next};
use crate::member::Member;
use crate::{kills, site};

/// As often as every other process of these tests, and this many times more: it is the one that is looked at here.
const KILLS_MORE: u64 = 2;
const AT_A_TIME: usize = 24;
const CUSTOMERS: u64 = 10;
/// Transactions that end between two kills.
const BETWEEN: u64 = 20;
const GOES_ON_WITHIN: Duration = Duration::from_mins(2);
/// The kill with which the other one is paused.
const PAUSED_AT: u64 = 1;
/// Longer than a group waits for a silent member.
const PAUSED: Duration = Duration::from_millis(7_500);

struct Asked {
    definition: &'static str,
    customer: String,
    points: i64,
}

struct Shop;

impl Next for Shop {
    type Asked = Asked;

    fn next(&mut self, number: u64) -> Option<(String, &'static str, Value, Asked)> {
        let customer = format!("customer-{}", number * 7 % CUSTOMERS);
        let (definition, points) = match number % 3 {
            0 | 1 => ("earn", 10 + number % 40),
            // Now and then more than anybody has.
            _ => ("spend", if number.is_multiple_of(4) { 1_000_000 } else { 1 + number % 9 }),
        };
        let points = i64::try_from(points).unwrap() * if definition == "earn" { 1 } else { -1 };
        let country = if number.is_multiple_of(5) { "Norway" } else { "France" };
        let input = json!({ "customer": customer, "points": points, "cents": 100, "country": country });
        Some((format!("{definition}-{number}"), definition, input, Asked { definition, customer, points }))
    }

    fn ended(&mut self, _: &Asked, _: &'static str) {}
}

#[test]
fn a_table_that_is_a_topic_is_what_the_outcomes_say() {
    let bootstrap = KAFKA.bootstrap();
    let (stage, _servers) = site("points", &["earn", "spend"]);
    let events = "events-of-points";
    topics::create(bootstrap, events, 3);
    let _others = [
        stage.participant("payment", &["--refuse-percent", "15", "--seed", "3"]),
        stage.participant("shipping", &["--refuse-country", "Norway"]),
    ];
    let more = ["--events", events, "--replication", "1", "--development", "--fail-percent", "3"];
    let mut members =
        ["points-1", "points-2"].map(|name| Member::new(&stage, name, "points", "points", &more));
    let mut random = Random::seeded("points");
    let mut flow = Flow::new(&stage, Shop, AT_A_TIME);
    for kill in 0..kills() + KILLS_MORE {
        flow.run_until_ended(random.within(BETWEEN / 2..BETWEEN), GOES_ON_WITHIN);
        if kill == PAUSED_AT {
            // While one is away, the other one is killed; when it wakes up, its partitions are somebody else's.
            members[0].signal("STOP");
            members[1].kill_and_restart();
            flow.run_for(PAUSED);
            members[0].signal("CONT");
        } else {
            members[usize::from(random.within(0..2) == 1)].kill_and_restart();
        }
        println!("kill {kill}, {} transactions ended", flow.ended.len());
    }
    flow.run_until_ended(BETWEEN, GOES_ON_WITHIN);
    flow.finish(GOES_ON_WITHIN);

    let points: BTreeMap<&str, i64> = flow
        .asked
        .iter()
        .filter(|(id, _)| flow.ended[*id] == "committed")
        .fold(BTreeMap::new(), |mut points, (_, asked)| {
            *points.entry(&asked.customer).or_default() += asked.points;
            points
        });
    let expected: BTreeMap<String, Value> = points
        .iter()
        .filter(|(_, points)| **points != 0)
        .map(|(customer, points)| ((*customer).to_owned(), json!({ "points": points, "held": 0 })))
        .collect();
    // The last commit or abort may be under way when the outcome is told.
    let table = wait::until_some(GOES_ON_WITHIN, "the table is what the outcomes say", || {
        let table = table(bootstrap, &stage.topic("tables.points"));
        (table == expected).then_some(table)
    });
    assert!(table.len() > 4, "{table:?}");

    let mut ids = BTreeSet::new();
    let mut told: BTreeMap<(String, String), i64> = BTreeMap::new();
    for seen in topics::read_all(bootstrap, events) {
        let event = seen.json();
        assert!(ids.insert(seen.header("sagamore-id")), "twice: {event}");
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let before = told.insert((text("transaction"), text("operation")), event["change"].as_i64().unwrap());
        assert_eq!(before, None, "twice: {event}");
    }
    let mut tally: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (id, Asked { definition, points, .. }) in &flow.asked {
        let outcome = flow.ended[id];
        let mut of = |operation: &str| told.remove(&(id.clone(), operation.to_owned())).unwrap_or_default();
        let (executed, taken_back, committed) = (of("execute"), of("compensate"), of("commit"));
        let expected = match (*definition, outcome) {
            ("earn", "committed") => (*points, 0, 0),
            ("spend", "committed") => (0, 0, *points),
            _ if executed == 0 => (0, 0, 0),
            _ => (*points, -points, 0),
        };
        assert_eq!((executed, taken_back, committed), expected, "{id} {outcome}");
        *tally.entry((definition, outcome)).or_default() += 1;
    }
    assert!(told.is_empty(), "nobody has asked for it: {told:?}");
    println!("{tally:?}");
    for (definition, outcome) in
        [("earn", "committed"), ("earn", "compensated"), ("spend", "committed"), ("spend", "aborted")]
    {
        assert!(tally.contains_key(&(definition, outcome)), "{tally:?}");
    }
    for member in &mut members {
        println!("{}", member.end());
    }
}

fn table(bootstrap: &str, topic: &str) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for seen in topics::read_all(bootstrap, topic) {
        let row = seen.json();
        let key = String::from_utf8(seen.key.unwrap()).unwrap();
        match seen.value {
            Some(_) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
    rows
}

//! What must be true in the end, by the databases and topics as anybody sees them.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics;

use crate::bank::Bank;
use crate::shop::Shop;

/// How many of each definition ended how, and how many records came twice.
#[derive(Debug, Default)]
pub struct Tally {
    pub outcomes: BTreeMap<(&'static str, &'static str), u64>,
    pub records: usize,
    pub repeats: usize,
}

pub fn judge(stage: &Stage, shop: &Shop, banks: &[Bank; 2]) -> Tally {
    let mut tally = Tally::default();
    let placed: BTreeSet<String> =
        banks[0].rows("SELECT id FROM orders").iter().map(|row| row.get(0)).collect();
    let ended: BTreeSet<String> = shop.ended.keys().cloned().collect();
    assert_eq!(placed, ended, "what was placed has ended, and nothing else was started");
    let moved = banks.each_ref().map(moved);
    for (id, order) in &shop.asked {
        let (outcome, _) = &shop.ended[id];
        let sums = moved.each_ref().map(|side| side.get(id).copied().unwrap_or_default());
        let expected = if *outcome == "committed" { [-order.cents, order.cents] } else { [0, 0] };
        assert_eq!(sums, expected, "{id} {outcome}");
        *tally.outcomes.entry((order.definition, outcome)).or_default() += 1;
    }
    for bank in banks {
        let twice = bank.rows(
            "SELECT subject || ' ' || operation FROM postings GROUP BY subject, operation HAVING count(*) > 1",
        );
        assert!(twice.is_empty(), "an effect is once: {:?}", twice[0].get::<_, String>(0));
        let wrong = "SELECT count(*) FROM accounts a WHERE cents <>
            100000 + (SELECT coalesce(sum(cents), 0) FROM postings p WHERE p.account = a.account)";
        assert_eq!(bank.number(wrong), 0, "balances are what was posted");
        assert_eq!(bank.number("SELECT count(*) FROM sagamore.outbox_refused"), 0);
    }
    let change = "SELECT sum(cents)::bigint - 1200000 FROM accounts";
    assert_eq!(banks[0].number(change) + banks[1].number(change), 0, "money is neither made nor lost");
    assert!(stage.dead_letters().is_empty(), "what comes twice is no dead letter");

    let mut lives: BTreeMap<String, usize> = BTreeMap::new();
    for record in topics::read_all(stage.bootstrap(), &stage.topic("inbox")) {
        let record = record.json();
        let kind = record["type"].as_str().unwrap_or_default();
        if matches!(kind, "sagamore.start.v1" | "sagamore.reply.v1") {
            // A reply and the `pending` before it have one id.
            let id = format!("{} {}", record["id"], record["outcome"]);
            *lives.entry(id).or_default() += 1;
        }
    }
    tally.records = lives.values().sum();
    tally.repeats = tally.records - lives.len();
    tally
}

/// What each transaction has moved here.
fn moved(bank: &Bank) -> BTreeMap<String, i64> {
    let rows = bank.rows("SELECT subject, sum(cents)::bigint FROM postings GROUP BY subject");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

//! Ten thousand seeds with ten transactions each; every kind of fault happens, every row of the transition tables is taken.

use std::fmt::Write as _;
use std::time::Instant;

use sagamore_simulator::faults::Fault;
use sagamore_simulator::world::Plan;
use sagamore_simulator::{report, run};

const SEEDS: u64 = 10_000;
const TRANSACTIONS: usize = 10;
/// Halts that are accepted with their evidence: one that is not rare is a defect. 30,000 seeds have shown one.
const ACCEPTED_MAX: usize = 2;

#[test]
fn ten_thousand_seeds_keep_every_promise() {
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let summary = run::many(0, SEEDS, TRANSACTIONS, threads, &|| {});
    println!("{}", report::many(&summary, begun.elapsed()));
    if let Some((plan, violation)) = summary.failures.first() {
        let smallest = run::shrink(plan, None, violation);
        panic!(
            "{}\nkeep the last line in tests/simulator/regressions",
            report::violation(&smallest, None, violation)
        );
    }
    let accepted = &summary.told.accepted;
    assert!(accepted.len() <= ACCEPTED_MAX, "too many holes of one kind: {accepted:#?}");
    let silent: Vec<&str> = Fault::ALL
        .iter()
        .filter(|fault| summary.told.faults.get(fault).copied().unwrap_or_default() == 0)
        .map(|fault| fault.word())
        .collect();
    assert!(silent.is_empty(), "faults that never happened: {silent:?}");
    let untaken = summary.told.rows_untaken();
    assert!(untaken.is_empty(), "rows that were never taken: {untaken:?}");
}

/// A line is what `report::violation` prints under "again", and after `#` what it was.
#[test]
fn what_failed_once_fails_no_more() {
    let mut wrong = String::new();
    for line in include_str!("../regressions").lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let plan = plan_of(line);
        if let Some(violation) = run::run(&plan, None).violation {
            writeln!(wrong, "{}", report::violation(&plan, None, &violation)).unwrap_or_default();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn plan_of(line: &str) -> Plan {
    let mut plan = Plan { transactions: TRANSACTIONS, ..Plan::default() };
    let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("--"));
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        let number = || value.parse().unwrap_or_else(|_| panic!("{line}: {value} is no number"));
        match flag {
            "--seed" => plan.seed = number(),
            "--transactions" => plan.transactions = usize::try_from(number()).unwrap_or_default(),
            "--without-orders" => {
                plan.without_orders = value.split(',').filter_map(|number| number.parse().ok()).collect();
            }
            "--without-faults" => {
                let known = |word: &str| Fault::ALL.iter().copied().find(|fault| fault.word() == word);
                plan.without_faults = value.split(',').filter_map(known).collect();
            }
            _ => panic!("{line}: what is {flag}?"),
        }
    }
    plan
}

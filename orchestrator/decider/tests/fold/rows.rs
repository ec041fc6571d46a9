//! Every row of the tables at the head of the saga is taken by the cases.

use std::collections::BTreeSet;

use crate::harness::{Fault, play};
use crate::{saga_back, saga_forward, saga_stuck};

#[test]
fn every_row_of_the_saga_is_taken() {
    let specified: BTreeSet<String> = include_str!("../../src/protocol/saga.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter_map(|row| row.split(' ').next())
        .filter(|word| word.len() >= 2 && word[1..].bytes().all(|b| b.is_ascii_digit()))
        .map(str::to_owned)
        .collect();
    assert!(specified.contains("S21") && specified.contains("T7"), "the tables were found: {specified:?}");
    let mut taken = BTreeSet::new();
    for case in saga_forward::CASES.iter().chain(saga_back::CASES).chain(saga_stuck::CASES) {
        taken.extend(play(case, Fault::None).world.taken.rows);
    }
    assert_eq!(specified.difference(&taken).collect::<Vec<_>>(), Vec::<&String>::new(), "rows nobody took");
    assert_eq!(
        taken.difference(&specified).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "rows nobody specified"
    );
}

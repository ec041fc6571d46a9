//! Every row of the tables at the heads of the protocols is taken by the cases.

use std::collections::BTreeSet;

use crate::harness::{Fault, play};
use crate::{atomic, mixed, saga_back, saga_forward, saga_stuck};

#[test]
fn every_row_is_taken() {
    let tables = [
        include_str!("../../src/protocol/saga.rs"),
        include_str!("../../src/protocol/two_phase.rs"),
        include_str!("../../src/protocol/three_phase.rs"),
        include_str!("../../src/protocol/decision.rs"),
    ];
    let specified: BTreeSet<String> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter_map(|row| row.split(' ').next())
        .filter(|word| word.len() >= 2 && word[1..].bytes().all(|b| b.is_ascii_digit()))
        .map(str::to_owned)
        .collect();
    let ends = ["S21", "P22", "H5", "T7"];
    assert!(ends.iter().all(|row| specified.contains(*row)), "the tables were found: {specified:?}");
    let mut taken = BTreeSet::new();
    let sagas = saga_forward::CASES.iter().chain(saga_back::CASES).chain(saga_stuck::CASES);
    for case in sagas.chain(atomic::CASES).chain(mixed::CASES) {
        taken.extend(play(case, Fault::None).world.taken.rows);
    }
    assert_eq!(specified.difference(&taken).collect::<Vec<_>>(), Vec::<&String>::new(), "rows nobody took");
    assert_eq!(
        taken.difference(&specified).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "rows nobody specified"
    );
}

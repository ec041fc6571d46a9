//! Every row of the tables at the heads of the protocols is taken by the cases.

use std::collections::BTreeSet;

use crate::harness::{Fault, RowsTaken, play};
use crate::{atomic, children, mixed, pause, saga_back, saga_forward, saga_stuck};

#[test]
fn every_row_is_taken() {
    let specified = RowsTaken::specified();
    let mut taken = BTreeSet::new();
    let sagas = saga_forward::CASES.iter().chain(saga_back::CASES).chain(saga_stuck::CASES);
    for case in sagas.chain(atomic::CASES).chain(mixed::CASES).chain(children::CASES).chain(pause::CASES) {
        taken.extend(play(case, Fault::None).world.taken.rows);
    }
    assert_eq!(specified.difference(&taken).collect::<Vec<_>>(), Vec::<&String>::new(), "rows nobody took");
    assert_eq!(
        taken.difference(&specified).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "rows nobody specified"
    );
}

//! Transfers, and what must be true of each in the end.

use std::collections::BTreeMap;

use sagamore_end_to_end::stage::Stage;
use serde_json::{Value, json};

use crate::books::Books;
use crate::flow::{Flow, Next};

/// Enough for all transfers but those that are too dear.
pub const OPENING_CENTS: u64 = 100_000;
pub const DEFINITIONS: [&str; 3] = ["prepared", "holds", "saga"];
const AT_A_TIME: usize = 9;
/// Few, so that transfers meet.
const ACCOUNTS: u64 = 12;
/// One of so many asks for more than there is. With what the banks refuse by themselves that is three of ten.
const TOO_DEAR_EVERY: u64 = 10;

pub struct Transfer {
    definition: &'static str,
    cents: i64,
}

pub struct Transfers;

/// How many of each definition ended how.
pub type Tally = BTreeMap<(&'static str, &'static str), u64>;

impl Transfers {
    pub fn begin(stage: &Stage) -> Flow<Self> {
        Flow::new(stage, Self, AT_A_TIME)
    }
}

impl Next for Transfers {
    type Asked = Transfer;

    fn next(&mut self, number: u64) -> Option<(String, &'static str, Value, Transfer)> {
        let definition = DEFINITIONS[usize::try_from(number).unwrap() % DEFINITIONS.len()];
        let is_dear = number.is_multiple_of(TOO_DEAR_EVERY);
        let cents = if is_dear { 2 * OPENING_CENTS } else { 100 + number * 37 % 700 };
        let cents = i64::try_from(cents).unwrap();
        let (from, to) = (number * 7 % ACCOUNTS, number * 5 % ACCOUNTS);
        let input = json!({"from": format!("f{from}"), "to": format!("t{to}"), "cents": cents});
        Some((format!("{definition}-{number}"), definition, input, Transfer { definition, cents }))
    }

    fn ended(&mut self, _: &Transfer, _: &'static str) {}
}

/// Every transfer is on both sides or on none, once; and the sums are what they were.
pub fn judge(flow: &Flow<Transfers>, [from, to]: &[Books; 2]) -> Tally {
    let (taken, brought) = (from.moved(), to.moved());
    let mut tally = Tally::new();
    for (id, transfer) in &flow.asked {
        let outcome = flow.ended[id];
        let moved = |side: &BTreeMap<String, (i64, i64)>| side.get(id).copied().unwrap_or_default();
        if outcome == "committed" {
            assert_eq!(moved(&taken), (-transfer.cents, 1), "{id}");
            assert_eq!(moved(&brought), (transfer.cents, 1), "{id}");
        } else {
            assert_eq!((moved(&taken).0, moved(&brought).0), (0, 0), "{id} {outcome}");
        }
        *tally.entry((transfer.definition, outcome)).or_default() += 1;
    }
    for side in [from, to] {
        assert_eq!(side.wrong_accounts(), Vec::<String>::new());
    }
    assert_eq!(from.change() + to.change(), 0, "money is neither made nor lost");
    assert!(from.change() < 0, "and it has moved");
    tally
}

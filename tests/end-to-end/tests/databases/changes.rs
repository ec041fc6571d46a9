//! Changes of rows that several databases hold, and what must be in each of them in the end.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_end_to_end::stage::Stage;
use serde_json::{Value, json};

use crate::flow::{Flow, Next};

pub const DEFINITIONS: [&str; 2] = ["change-by-two-phase", "change-by-three-phase"];
const AT_A_TIME: usize = 6;
/// Few, so that changes meet.
const ROWS: u64 = 10;
/// One of so many replaces a version that is not there any more.
const STALE_EVERY: u64 = 9;
/// One of so many takes a row that another change is about to take.
const RACES_EVERY: u64 = 7;
/// One of so many removes its row.
const REMOVES_EVERY: u64 = 11;

pub struct Change {
    row: String,
    from: i64,
    value: Value,
}

/// What the rows should be by the outcomes so far.
#[derive(Default)]
pub struct Changes {
    rows: BTreeMap<String, (i64, Value)>,
    under_way: BTreeSet<String>,
}

impl Changes {
    pub fn begin(stage: &Stage) -> Flow<Self> {
        Flow::new(stage, Self::default(), AT_A_TIME)
    }

    /// Version and value of each row.
    pub fn rows(&self) -> &BTreeMap<String, (i64, Value)> {
        &self.rows
    }
}

impl Next for Changes {
    type Asked = Change;

    fn next(&mut self, number: u64) -> Option<(String, &'static str, Value, Change)> {
        let definition = DEFINITIONS[usize::try_from(number).unwrap() % DEFINITIONS.len()];
        let races = number.is_multiple_of(RACES_EVERY);
        let rows = (0..ROWS).map(|step| format!("row-{}", (number + step) % ROWS));
        let row = rows.into_iter().find(|row| races || !self.under_way.contains(row))?;
        let version = self.rows.get(&row).map_or(0, |(version, _)| *version);
        let from = if number.is_multiple_of(STALE_EVERY) { version - 1 } else { version };
        let is_removed = number.is_multiple_of(REMOVES_EVERY);
        let value = if is_removed { Value::Null } else { json!({"by": number}) };
        let input = json!({"row": row, "from": from, "value": value});
        self.under_way.insert(row.clone());
        Some((format!("change-{number}"), definition, input, Change { row, from, value }))
    }

    fn ended(&mut self, change: &Change, outcome: &'static str) {
        self.under_way.remove(&change.row);
        if outcome != "committed" {
            assert_eq!(outcome, "aborted");
            return;
        }
        let version = change.from + 1;
        let row = (version, change.value.clone());
        let replaced = self.rows.insert(change.row.clone(), row).map_or(0, |(version, _)| version);
        assert_eq!(replaced, change.from, "{}: no change is lost", change.row);
    }
}

//! What looks at the rows of the catalogue: a function for one row, or for several that need the same preparation.

use crate::bench::Bench;
use crate::catalogue;
use crate::error::Stop;
use crate::report::Judged;

mod answers;
mod commitment;
mod crash;
mod doubt;
mod duplicates;
mod kafka;
mod malformed;
mod order;
mod saga;
mod watermark;

pub(crate) use answers::{at_the_end, probe};

/// What came of rows so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    judged: Vec<Judged>,
}

impl Findings {
    /// Writes down what came of a row, with a note for one that passes. Whatever ends the run is passed on.
    pub(crate) fn note(&mut self, id: &'static str, came: Result<Option<String>, Stop>) -> Result<(), Stop> {
        let row = catalogue::by_id(id);
        self.judged.push(match came {
            Ok(note) => Judged::passed(row, note),
            Err(Stop::Broken(broken)) => Judged::failed(row, broken),
            Err(Stop::Skipped(why)) => Judged::skipped(row, why),
            Err(end @ (Stop::Ended(_) | Stop::Error(_))) => return Err(end),
        });
        Ok(())
    }

    /// Writes down what came of a row.
    pub(crate) fn take(&mut self, id: &'static str, came: Result<(), Stop>) -> Result<(), Stop> {
        self.note(id, came.map(|()| None))
    }

    pub(crate) fn into_judged(self) -> Vec<Judged> {
        self.judged
    }
}

/// What looks at rows.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// At one.
    One(fn(&Bench<'_>) -> Result<(), Stop>),
    /// At several, and judges each.
    Several(fn(&Bench<'_>, &mut Findings) -> Result<(), Stop>),
}

/// Rows, and what looks at them.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) rows: &'static [&'static str],
    pub(crate) look: Look,
}

const fn one(row: &'static [&'static str; 1], look: fn(&Bench<'_>) -> Result<(), Stop>) -> Check {
    Check { rows: row, look: Look::One(look) }
}

const fn several(
    rows: &'static [&'static str],
    look: fn(&Bench<'_>, &mut Findings) -> Result<(), Stop>,
) -> Check {
    Check { rows, look: Look::Several(look) }
}

/// Each on transactions of its own, so that they can run side by side; what waits longest comes first.
pub(crate) const SIDE_BY_SIDE: &[Check] = &[
    several(&["doubt/asks", "doubt/commit", "doubt/abort", "doubt/waits", "doubt/silent"], doubt::all),
    one(&["kafka/aborted"], kafka::aborted),
    one(&["kafka/committed"], kafka::committed),
    one(&["answers/echo"], answers::echo),
    several(&["answers/partition", "answers/key"], answers::place),
    one(&["answers/elsewhere"], answers::elsewhere),
    one(&["answers/unknown-attributes"], answers::unknown_attributes),
    one(&["duplicates/same-answer"], duplicates::same_answer),
    one(&["duplicates/one-effect"], duplicates::one_effect),
    one(&["duplicates/burst"], duplicates::burst),
    one(&["duplicates/another-birth"], duplicates::another_birth),
    one(&["duplicates/another-branch"], duplicates::another_branch),
    one(&["duplicates/another-instance"], duplicates::another_instance),
    one(&["saga/undo"], saga::undo),
    one(&["saga/undo-once"], saga::undo_once),
    one(&["saga/empty"], saga::empty),
    one(&["saga/late"], saga::late),
    one(&["saga/refused"], saga::refused),
    one(&["saga/refused-undo"], saga::refused_undo),
    one(&["commitment/commit"], commitment::commit),
    one(&["commitment/duplicates"], commitment::duplicates),
    one(&["commitment/abort"], commitment::abort),
    one(&["commitment/abort-first"], commitment::abort_first),
    one(&["commitment/unprepared"], commitment::unprepared),
    one(&["commitment/refused"], commitment::refused),
    one(&["commitment/precommit"], commitment::precommit),
    one(&["commitment/precommit-unprepared"], commitment::precommit_unprepared),
    one(&["order/one-branch"], order::one_branch),
    one(&["order/one-key"], order::one_key),
    several(&["watermark/expired", "watermark/seen", "watermark/home", "watermark/vote"], watermark::all),
];

/// While nothing else runs.
pub(crate) const KILLS: Check = several(
    &[
        "crash/redelivered",
        "crash/once",
        "crash/answers",
        "crash/cancelled",
        "crash/refused",
        "crash/undo",
        "crash/vote",
        "crash/asks",
    ],
    crash::all,
);

/// One after the other, at the end: what holds up everything.
pub(crate) const GARBAGE: &[Check] = &[
    one(&["malformed/shape"], malformed::shape),
    one(&["malformed/headers"], malformed::headers),
    one(&["malformed/json"], malformed::json),
    one(&["malformed/tombstone"], malformed::tombstone),
    one(&["malformed/attributes"], malformed::attributes),
    one(&["malformed/type"], malformed::kind),
    one(&["malformed/decision"], malformed::decision),
    one(&["malformed/huge"], malformed::huge),
    one(&["malformed/nested"], malformed::nested),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_row_is_looked_at_by_one_check() {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        let checks = SIDE_BY_SIDE.iter().chain([&KILLS]).chain(GARBAGE);
        let of_checks = checks.flat_map(|check| check.rows.iter().copied());
        for row in of_checks.chain(answers::ROWS_OF_THE_RUN) {
            *times.entry(row).or_default() += 1;
        }
        let rows: BTreeMap<&str, usize> = catalogue::ROWS.iter().map(|row| (row.id, 1)).collect();
        assert_eq!(times, rows);
    }
}

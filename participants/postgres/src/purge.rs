//! Purging: now and then, in the commit of whoever is at it, a portion of the oldest branches of a home.
//!
//! A cursor goes through the branches of a home from its oldest birth on, as far as they are behind the horizon:
//!
//! | a portion has | the cursor |
//! |---|---|
//! | something purged | goes on, until it has looked at enough for this commit |
//! | nothing purged, all in doubt | stays behind them for the next commit |
//! | nothing purged, one not behind | returns to the beginning: what follows is younger, nearly always |
//! | the end of the home | returns to the beginning |
//!
//! The horizon is raised in the same local transaction, by one of all instances at a time; the others pass. Rows of a
//! portion are locked, and those that somebody holds are skipped: who adds a row to a branch holds the rows he has seen,
//! so a branch goes as a whole or stays.

use sagamore_participant::barrier::{self, Home, Row, Stored};
use sagamore_participant::{Operation, Payload};
use sagamore_schemas::ids::Time;

use crate::connection::SqlError;
use crate::rows::{DONE, Statements, home as columns_of, operation};
use crate::schema::lock_key;
use crate::tx::Tx;

/// Rows inserted by one store until it is time again. A turn costs three round trips.
const INSERTED_PER_TURN: usize = 64;
/// Branches looked at for each row inserted: more than one, so that purging overtakes inserting.
const LOOKED_AT_PER_INSERT: usize = 4;
/// Rows read at once. A branch has six at most.
const PORTION_ROWS: i64 = 256;
/// A horizon that is so much higher is kept even when nothing is purged.
const RAISED_MS: u64 = 1_000;

/// Where a store stands with a home.
#[derive(Default)]
pub(crate) struct Place {
    cursor: Cursor,
    inserted: usize,
}

impl Place {
    pub(crate) fn count(&mut self, inserted: usize) {
        self.inserted += inserted;
    }

    pub(crate) fn is_due(&self) -> bool {
        self.inserted >= INSERTED_PER_TURN
    }
}

/// A branch within its home; the default one comes before all others.
#[derive(Debug, Clone, PartialEq)]
struct Cursor {
    birth: i64,
    subject: String,
    step: String,
    branch: String,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { birth: i64::MIN, subject: String::new(), step: String::new(), branch: String::new() }
    }
}

/// A home's horizon: as it stands in the database, and as it is known here.
#[derive(Clone, Copy)]
pub(crate) struct Horizon {
    pub(crate) stored: Time,
    pub(crate) raised: Time,
}

impl Horizon {
    pub(crate) fn is_far_ahead(self) -> bool {
        self.raised.since(self.stored).as_ms() >= RAISED_MS
    }
}

/// Raises the horizon and, when it is time, lets go branches whose rows were all issued before it, never one in doubt.
/// Nothing when another instance is at it.
pub(crate) fn tidy(
    tx: &mut Tx<'_>,
    statements: &Statements,
    schema: &str,
    home: Home,
    horizon: Horizon,
    place: &mut Place,
) -> Result<(), SqlError> {
    let (instance, partition) = columns_of(home);
    let key =
        lock_key(&[b"sagamore purge", schema.as_bytes(), instance.as_bytes(), &partition.to_be_bytes()]);
    let horizon_ms = horizon.raised.epoch_ms();
    let is_ours = tx.change(&statements.raise_horizon, &[&instance, &partition, &horizon_ms, &key])? > 0;
    if !is_ours || !place.is_due() {
        return Ok(());
    }
    let enough = std::mem::take(&mut place.inserted) * LOOKED_AT_PER_INSERT;
    let mut looked_at = 0;
    while looked_at < enough {
        let Portion { branches, is_end } = portion(tx, statements, home, &place.cursor)?;
        looked_at += branches.len();
        let has_younger =
            branches.iter().any(|(_, rows)| rows.iter().any(|row| row.issued >= horizon.raised));
        let (mut purged, mut last) = (Vec::new(), None);
        for (branch, rows) in branches {
            let is_old = rows.iter().all(|row| row.issued < horizon.raised);
            if is_old && !barrier::in_doubt(&rows) {
                purged.push(branch.clone());
            }
            last = Some(branch);
        }
        delete(tx, statements, home, horizon_ms, &purged)?;
        if let Some(last) = last {
            place.cursor = last;
        }
        if is_end || (has_younger && purged.is_empty()) {
            place.cursor = Cursor::default();
            break;
        }
        if purged.is_empty() {
            break;
        }
    }
    tx.change(&statements.forget_old, &[&instance, &partition, &horizon_ms])?;
    Ok(())
}

struct Portion {
    /// Whole ones, but for rows that somebody holds.
    branches: Vec<(Cursor, Vec<Row>)>,
    /// Nothing follows.
    is_end: bool,
}

/// The next branches behind the cursor.
fn portion(
    tx: &mut Tx<'_>,
    statements: &Statements,
    home: Home,
    cursor: &Cursor,
) -> Result<Portion, SqlError> {
    let (instance, partition) = columns_of(home);
    let Cursor { birth, subject, step, branch } = cursor;
    let found =
        tx.look(&statements.portion, &[&instance, &partition, birth, subject, step, branch, &PORTION_ROWS])?;
    let is_end = i64::try_from(found.len()).unwrap_or(i64::MAX) < PORTION_ROWS;
    let mut branches: Vec<(Cursor, Vec<Row>)> = Vec::new();
    for row in found {
        let branch = Cursor { birth: row.get(0), subject: row.get(1), step: row.get(2), branch: row.get(3) };
        // What cannot be read stays: a row of a newer release, say.
        let operation = operation(row.get(4)).unwrap_or(Operation::Prepare);
        let is_done = row.get::<_, &str>(6) == DONE;
        let answer = if is_done { Stored::Done(Payload::Absent) } else { Stored::Cancelled };
        let kept = Row { operation, issued: Time::from_epoch_ms(row.get(5)), answer };
        match branches.last_mut() {
            Some((last, rows)) if *last == branch => rows.push(kept),
            Some(_) | None => branches.push((branch, vec![kept])),
        }
    }
    if !is_end {
        // The rest of it may follow.
        branches.pop();
    }
    Ok(Portion { branches, is_end })
}

/// All rows of these branches, unless one has come that is younger.
fn delete(
    tx: &mut Tx<'_>,
    statements: &Statements,
    home: Home,
    horizon_ms: i64,
    branches: &[Cursor],
) -> Result<(), SqlError> {
    if branches.is_empty() {
        return Ok(());
    }
    let (instance, partition) = columns_of(home);
    let births: Vec<i64> = branches.iter().map(|branch| branch.birth).collect();
    let names = |part: fn(&Cursor) -> &String| branches.iter().map(part).collect::<Vec<&String>>();
    let (subjects, steps, names) =
        (names(|branch| &branch.subject), names(|branch| &branch.step), names(|branch| &branch.branch));
    tx.change(&statements.purge, &[&instance, &partition, &births, &subjects, &steps, &names, &horizon_ms])?;
    Ok(())
}

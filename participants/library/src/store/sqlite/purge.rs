//! Purging, a little with each commit.
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
//! "Nearly": a branch of a slow transaction may stand between younger ones; it goes in a later turn.

use rusqlite::{Connection, params};
use sagamore_schemas::ids::Time;

use super::rows;
use crate::barrier::{self, Home, Row};

/// Branches looked at for each row inserted: more than one, so that purging overtakes inserting.
const LOOKED_AT_PER_INSERT: usize = 4;
/// Rows read at once. A branch has six at most, so that two whole ones are always among them.
const PORTION_ROWS: u32 = 16;

/// A branch within its home; the default one comes before all others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cursor {
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

/// Lets go branches whose rows were all issued before `horizon`, never one in doubt.
pub(super) fn purge(
    connection: &Connection,
    home: Home,
    horizon: Time,
    cursor: &mut Cursor,
    inserted: usize,
) -> rusqlite::Result<()> {
    let enough = inserted * LOOKED_AT_PER_INSERT;
    let mut looked_at = 0;
    while looked_at < enough {
        let Portion { branches, is_end } = portion(connection, home, cursor)?;
        looked_at += branches.len();
        let (mut has_purged, mut has_younger) = (false, false);
        for (branch, rows) in branches {
            if rows.iter().any(|row| row.issued >= horizon) {
                has_younger = true;
            } else if !barrier::in_doubt(&rows) {
                delete(connection, home, &branch)?;
                has_purged = true;
            }
            *cursor = branch;
        }
        if is_end || (has_younger && !has_purged) {
            *cursor = Cursor::default();
            break;
        }
        if !has_purged {
            break;
        }
    }
    Ok(())
}

struct Portion {
    /// Whole ones.
    branches: Vec<(Cursor, Vec<Row>)>,
    /// Nothing follows.
    is_end: bool,
}

/// The next branches behind the cursor.
fn portion(connection: &Connection, home: Home, cursor: &Cursor) -> rusqlite::Result<Portion> {
    let mut statement = connection.prepare_cached(
        "SELECT birth, subject, step, branch, operation, issued_ms, answer FROM sagamore_barrier
         WHERE instance = ?1 AND home = ?2 AND (birth, subject, step, branch) > (?3, ?4, ?5, ?6)
         ORDER BY birth, subject, step, branch LIMIT ?7",
    )?;
    let mut found = statement.query(params![
        home.instance.as_bytes(),
        home.partition.0,
        cursor.birth,
        cursor.subject,
        cursor.step,
        cursor.branch,
        PORTION_ROWS,
    ])?;
    let mut branches: Vec<(Cursor, Vec<Row>)> = Vec::new();
    let mut count: u32 = 0;
    while let Some(row) = found.next()? {
        count += 1;
        let branch =
            Cursor { birth: row.get(0)?, subject: row.get(1)?, step: row.get(2)?, branch: row.get(3)? };
        let kept = Row {
            operation: rows::operation(row, 4)?,
            issued: Time::from_epoch_ms(row.get(5)?),
            answer: rows::without_result(row.get_ref(6)?.as_str()?),
        };
        match branches.last_mut() {
            Some((last, rows)) if *last == branch => rows.push(kept),
            Some(_) | None => branches.push((branch, vec![kept])),
        }
    }
    let is_end = count < PORTION_ROWS;
    if !is_end {
        // The rest of it may follow.
        branches.pop();
    }
    Ok(Portion { branches, is_end })
}

fn delete(connection: &Connection, home: Home, branch: &Cursor) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM sagamore_barrier
         WHERE instance = ?1 AND home = ?2 AND birth = ?3 AND subject = ?4 AND step = ?5 AND branch = ?6",
    )?;
    statement.execute(params![
        home.instance.as_bytes(),
        home.partition.0,
        branch.birth,
        branch.subject,
        branch.step,
        branch.branch,
    ])?;
    Ok(())
}

//! Decisions by hand. The table holds as many rows as operators have made decisions; none is ever purged.

use sagamore_participant::barrier::Branch;
use sagamore_participant::heuristic::Heuristic;
use sagamore_participant::store::StoreFault;

use crate::connection::{Connection, SqlError};
use crate::in_doubt::{behind, branch_of};
use crate::rows::{Key, Statements};
use crate::tx::Tx;

pub(crate) struct Texts {
    one: String,
    keep: String,
    pub(crate) forget: String,
    all: String,
}

impl Texts {
    pub(crate) fn new(s: &str, key: &str) -> Self {
        Self {
            // Locked, so that who notes what came of it and who sets it right come one after the other.
            one: format!("SELECT record FROM {s}.sagamore_heuristic WHERE {key} FOR UPDATE"),
            keep: format!(
                "INSERT INTO {s}.sagamore_heuristic (instance, home, birth, subject, step, branch, record)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (instance, home, birth, subject, step, branch) DO UPDATE SET record = excluded.record"
            ),
            forget: format!("DELETE FROM {s}.sagamore_heuristic WHERE {key}"),
            all: format!(
                "SELECT instance, home, birth, subject, step, branch, record FROM {s}.sagamore_heuristic
                 WHERE (instance, home, birth, subject, step, branch) > ($1, $2, $3, $4, $5, $6)
                 ORDER BY instance, home, birth, subject, step, branch LIMIT $7"
            ),
        }
    }
}

pub(crate) fn of_branch(
    tx: &mut Tx<'_>,
    statements: &Statements,
    key: &Key<'_>,
) -> Result<Option<Heuristic>, StoreFault> {
    let found = tx.look(&statements.heuristics.one, &key.parameters()).map_err(|error| error.fault())?;
    found.first().map(|row| read(row.get(0))).transpose()
}

pub(crate) fn keep(
    tx: &mut Tx<'_>,
    statements: &Statements,
    key: &Key<'_>,
    heuristic: &Heuristic,
) -> Result<(), StoreFault> {
    let record = heuristic.to_json()?.into_bytes();
    tx.change(&statements.heuristics.keep, &key.and(&[&record])).map_err(|error| error.fault())?;
    Ok(())
}

/// Before a prepared transaction is ended: on the disk when that is.
pub(crate) fn intend(
    side: &mut Connection,
    statements: &Statements,
    key: &Key<'_>,
    heuristic: &Heuristic,
) -> Result<(), StoreFault> {
    let record = heuristic.to_json()?.into_bytes();
    let kept: Result<u64, SqlError> = side.statement(&statements.heuristics.keep).and_then(|statement| {
        side.wait(async |client| client.execute(&statement, &key.and(&[&record])).await)
    });
    kept.map(|_| ()).map_err(|error| error.fault())
}

pub(crate) fn all(
    connection: &mut Connection,
    statements: &Statements,
    after: Option<&Branch>,
    limit: usize,
) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
    behind(connection, &statements.heuristics.all, after, limit)?
        .iter()
        .map(|row| Ok((branch_of(row, 0)?, read(row.get(6))?)))
        .collect()
}

fn read(record: &[u8]) -> Result<Heuristic, StoreFault> {
    let text = std::str::from_utf8(record)
        .map_err(|error| StoreFault::Unavailable(format!("a stored decision by hand: {error}")))?;
    Heuristic::from_json(text)
}

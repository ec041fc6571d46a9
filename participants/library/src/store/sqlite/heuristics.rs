//! Decisions by hand. The table holds as many rows as operators have made decisions; none is ever deleted.

use rusqlite::{Connection, OptionalExtension, params};

use super::unavailable;
use super::votes::behind;
use crate::barrier::{Branch, BranchKey};
use crate::heuristic::Heuristic;
use crate::store::StoreFault;

pub(super) fn keep(connection: &Connection, key: &BranchKey<'_>, record: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO sagamore_heuristic (instance, home, birth, subject, step, branch, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let BranchKey { instance, subject, birth, step, branch } = key;
    statement.execute(params![
        instance.as_bytes(),
        birth.partition.0,
        birth.offset,
        subject.as_str(),
        step,
        branch,
        record,
    ])?;
    Ok(())
}

pub(super) fn of_branch(
    connection: &Connection,
    key: &BranchKey<'_>,
) -> Result<Option<Heuristic>, StoreFault> {
    let record = record_of(connection, key).map_err(unavailable)?;
    record.map(|record| Heuristic::from_json(&record)).transpose()
}

fn record_of(connection: &Connection, key: &BranchKey<'_>) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT record FROM sagamore_heuristic
         WHERE instance = ?1 AND home = ?2 AND birth = ?3 AND subject = ?4 AND step = ?5 AND branch = ?6",
    )?;
    let BranchKey { instance, subject, birth, step, branch } = key;
    let named = params![instance.as_bytes(), birth.partition.0, birth.offset, subject.as_str(), step, branch];
    statement.query_row(named, |row| row.get(0)).optional()
}

pub(super) fn all(
    connection: &Connection,
    after: Option<&Branch>,
    limit: usize,
) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
    let record = |row: &rusqlite::Row<'_>| row.get::<_, String>(6);
    let found =
        behind(connection, "record", "sagamore_heuristic", after, limit, record).map_err(unavailable)?;
    found.into_iter().map(|(branch, record)| Ok((branch, Heuristic::from_json(&record)?))).collect()
}

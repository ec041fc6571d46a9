//! Votes of branches in doubt. The table holds as many rows as there are such branches.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};
use sagamore_schemas::ids::{Birth, Partition};
use uuid::Uuid;

use crate::barrier::{Branch, BranchKey};
use crate::doubt::{InDoubt, Vote};

pub(super) fn keep(connection: &Connection, key: &BranchKey<'_>, vote: &Vote) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO sagamore_vote (instance, home, birth, subject, step, branch, command)
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
        vote.as_bytes(),
    ])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, key: &BranchKey<'_>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM sagamore_vote
         WHERE instance = ?1 AND home = ?2 AND birth = ?3 AND subject = ?4 AND step = ?5 AND branch = ?6",
    )?;
    let BranchKey { instance, subject, birth, step, branch } = key;
    statement.execute(params![
        instance.as_bytes(),
        birth.partition.0,
        birth.offset,
        subject.as_str(),
        step,
        branch
    ])?;
    Ok(())
}

pub(super) fn of_branch(connection: &Connection, key: &BranchKey<'_>) -> rusqlite::Result<Option<Vote>> {
    let mut statement = connection.prepare_cached(
        "SELECT command FROM sagamore_vote
         WHERE instance = ?1 AND home = ?2 AND birth = ?3 AND subject = ?4 AND step = ?5 AND branch = ?6",
    )?;
    let BranchKey { instance, subject, birth, step, branch } = key;
    let named = params![instance.as_bytes(), birth.partition.0, birth.offset, subject.as_str(), step, branch];
    statement.query_row(named, |row| Ok(Vote::from_bytes(row.get_ref(0)?.as_blob()?))).optional()
}

pub(super) fn in_doubt(
    connection: &Connection,
    after: Option<&Branch>,
    limit: usize,
) -> rusqlite::Result<Vec<InDoubt>> {
    let found = behind(connection, "command", "sagamore_vote", after, limit, |row| {
        Ok(Vote::from_bytes(row.get_ref(6)?.as_blob()?))
    })?;
    Ok(found.into_iter().map(|(branch, vote)| InDoubt { branch, vote }).collect())
}

/// A column of the next branches of a table.
pub(super) fn behind<T>(
    connection: &Connection,
    column: &str,
    table: &str,
    after: Option<&Branch>,
    limit: usize,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<(Branch, T)>> {
    let columns = format!("SELECT instance, home, birth, subject, step, branch, {column} FROM {table}");
    let order = "ORDER BY instance, home, birth, subject, step, branch";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &rusqlite::Row<'_>| Ok((branch_of(row)?, read(row)?));
    let Some(Branch { instance, subject, birth, step, branch }) = after else {
        let mut statement = connection.prepare_cached(&format!("{columns} {order} LIMIT ?1"))?;
        return statement.query_map([limit], read)?.collect();
    };
    let mut statement = connection.prepare_cached(&format!(
        "{columns} WHERE (instance, home, birth, subject, step, branch) > (?1, ?2, ?3, ?4, ?5, ?6) {order} LIMIT ?7"
    ))?;
    let behind = params![
        instance.as_bytes(),
        birth.partition.0,
        birth.offset,
        subject.as_str(),
        step.as_ref(),
        branch.as_ref(),
        limit,
    ];
    statement.query_map(behind, read)?.collect()
}

fn branch_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Branch> {
    let instance = Uuid::from_slice(row.get_ref(0)?.as_blob()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error.into()))?;
    let subject = row
        .get_ref(3)?
        .as_str()?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, Box::new(error)))?;
    let birth = Birth { partition: Partition(row.get(1)?), offset: row.get(2)? };
    let (step, branch) = (row.get::<_, String>(4)?.into(), row.get::<_, String>(5)?.into());
    Ok(Branch { instance, subject, birth, step, branch })
}

//! Rows of the barrier as rows of SQLite.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{Operation, Payload, PayloadRef};

use crate::barrier::{BranchKey, Home, Row, Stored};

const DONE: &str = "done";
const REFUSED: &str = "refused";
const CANCELLED: &str = "cancelled";
const BY_HAND: &str = "by-hand";

pub(super) fn horizon(connection: &Connection, home: Home) -> rusqlite::Result<Time> {
    let mut statement = connection
        .prepare_cached("SELECT horizon_ms FROM sagamore_horizon WHERE instance = ?1 AND home = ?2")?;
    let stored = statement
        .query_row(params![home.instance.as_bytes(), home.partition.0], |row| row.get(0))
        .optional()?;
    Ok(stored.map(Time::from_epoch_ms).unwrap_or_default())
}

pub(super) fn raise_horizon(connection: &Connection, home: Home, horizon: Time) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO sagamore_horizon (instance, home, horizon_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET horizon_ms = max(horizon_ms, excluded.horizon_ms)",
    )?;
    statement.execute(params![home.instance.as_bytes(), home.partition.0, horizon.epoch_ms()])?;
    Ok(())
}

pub(super) fn of_branch(connection: &Connection, key: &BranchKey<'_>) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(
        "SELECT operation, issued_ms, answer, reason, data, data_base64 FROM sagamore_barrier
         WHERE instance = ?1 AND home = ?2 AND birth = ?3 AND subject = ?4 AND step = ?5 AND branch = ?6",
    )?;
    let BranchKey { instance, subject, birth, step, branch } = key;
    let named = params![instance.as_bytes(), birth.partition.0, birth.offset, subject.as_str(), step, branch];
    statement.query_map(named, read)?.collect()
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let answer = match row.get_ref(2)?.as_str()? {
        DONE => Stored::Done(match (row.get::<_, Option<String>>(4)?, row.get::<_, Option<String>>(5)?) {
            (Some(text), _) => Payload::from_json(text).map_err(|error| unreadable(4, error))?,
            (None, Some(text)) => Payload::Base64(text.into()),
            (None, None) => Payload::Absent,
        }),
        REFUSED => Stored::Refused(row.get::<_, String>(3)?.into()),
        CANCELLED => Stored::Cancelled,
        BY_HAND => Stored::ByHand,
        other => return Err(unreadable(2, format!("no such answer: {other}"))),
    };
    Ok(Row { operation: operation(row, 0)?, issued: Time::from_epoch_ms(row.get(1)?), answer })
}

/// The operation that stands in a column.
pub(super) fn operation(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Operation> {
    let name = row.get_ref(column)?.as_str()?;
    Operation::ALL
        .into_iter()
        .find(|known| known.as_str() == name)
        .ok_or_else(|| unreadable(column, format!("no such operation: {name}")))
}

fn unreadable(column: usize, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, cause.into())
}

pub(super) fn insert(connection: &Connection, key: &BranchKey<'_>, row: &Row) -> rusqlite::Result<()> {
    let (answer, reason, data) = match &row.answer {
        Stored::Done(result) => (DONE, None, result.as_ref()),
        Stored::Refused(reason) => (REFUSED, Some(reason.as_ref()), PayloadRef::Absent),
        Stored::Cancelled => (CANCELLED, None, PayloadRef::Absent),
        Stored::ByHand => (BY_HAND, None, PayloadRef::Absent),
    };
    let (data, data_base64) = match &data {
        PayloadRef::Json(raw) => (Some(raw.get()), None),
        PayloadRef::Base64(text) => (None, Some(text.as_ref())),
        PayloadRef::Absent => (None, None),
    };
    let mut statement = connection.prepare_cached(
        "INSERT INTO sagamore_barrier (instance, home, birth, subject, step, branch, operation, issued_ms,
             answer, reason, data, data_base64)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    statement.execute(params![
        key.instance.as_bytes(),
        key.birth.partition.0,
        key.birth.offset,
        key.subject.as_str(),
        key.step,
        key.branch,
        row.operation.as_str(),
        row.issued.epoch_ms(),
        answer,
        reason,
        data,
        data_base64,
    ])?;
    Ok(())
}

/// Whether a stored row says `done`, without its result.
pub(super) fn without_result(answer: &str) -> Stored {
    if answer == DONE { Stored::Done(Payload::Absent) } else { Stored::Cancelled }
}

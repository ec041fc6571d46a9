//! How far command topics have been answered with the knowledge of this database.

use std::collections::BTreeMap;

use sagamore_participant::store::Position;

use crate::connection::{Connection, SqlError};
use crate::rows::Statements;

pub(crate) fn of_topic(
    connection: &mut Connection,
    statements: &Statements,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, SqlError> {
    let statement = connection.statement(&statements.positions)?;
    let found = connection.wait(async |client| client.query(&statement, &[&topic]).await)?;
    Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// One statement, and so one local transaction, which waits for the disk.
pub(crate) fn raise(
    connection: &mut Connection,
    statements: &Statements,
    topic: &str,
    positions: &[Position],
) -> Result<(), SqlError> {
    let partitions: Vec<i32> = positions.iter().map(|position| position.partition).collect();
    let offsets: Vec<i64> = positions.iter().map(|position| position.offset).collect();
    let statement = connection.statement(&statements.keep_positions)?;
    connection.wait(async |client| client.execute(&statement, &[&topic, &partitions, &offsets]).await)?;
    Ok(())
}

pub(crate) fn forget(
    connection: &mut Connection,
    statements: &Statements,
    topic: &str,
    partition: i32,
) -> Result<(), SqlError> {
    let statement = connection.statement(&statements.forget_position)?;
    connection.wait(async |client| client.execute(&statement, &[&topic, &partition]).await)?;
    Ok(())
}

//! How far command topics have been answered with the knowledge of this database.

use std::collections::BTreeMap;

use sagamore_participant::store::Position;

use crate::connection::{Connection, SqlError};
use crate::rows::Statements;

pub(crate) struct Texts {
    of_topic: String,
    raise: String,
    forget: String,
}

impl Texts {
    pub(crate) fn new(s: &str) -> Self {
        Self {
            of_topic: format!("SELECT partition, next_offset FROM {s}.sagamore_position WHERE topic = $1"),
            raise: format!(
                "INSERT INTO {s}.sagamore_position AS o (topic, partition, next_offset)
                 SELECT $1, k.partition, k.next_offset
                 FROM unnest($2::int[], $3::bigint[]) AS k (partition, next_offset) ORDER BY k.partition
                 ON CONFLICT (topic, partition)
                 DO UPDATE SET next_offset = greatest(o.next_offset, excluded.next_offset)"
            ),
            forget: format!("DELETE FROM {s}.sagamore_position WHERE topic = $1 AND partition = $2"),
        }
    }
}

pub(crate) fn of_topic(
    connection: &mut Connection,
    statements: &Statements,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, SqlError> {
    let statement = connection.statement(&statements.positions.of_topic)?;
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
    let statement = connection.statement(&statements.positions.raise)?;
    connection.wait(async |client| client.execute(&statement, &[&topic, &partitions, &offsets]).await)?;
    Ok(())
}

pub(crate) fn forget(
    connection: &mut Connection,
    statements: &Statements,
    topic: &str,
    partition: i32,
) -> Result<(), SqlError> {
    let statement = connection.statement(&statements.positions.forget)?;
    connection.wait(async |client| client.execute(&statement, &[&topic, &partition]).await)?;
    Ok(())
}

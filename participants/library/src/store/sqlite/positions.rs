//! How far command topics have been answered with the knowledge of this file.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::store::Position;

pub(super) fn of_topic(connection: &Connection, topic: &str) -> rusqlite::Result<BTreeMap<i32, i64>> {
    let mut statement =
        connection.prepare_cached("SELECT partition, next_offset FROM sagamore_position WHERE topic = ?1")?;
    statement.query_map([topic], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

pub(super) fn raise(connection: &Connection, topic: &str, positions: &[Position]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO sagamore_position (topic, partition, next_offset) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
    )?;
    for Position { partition, offset } in positions {
        statement.execute(params![topic, partition, offset])?;
    }
    Ok(())
}

pub(super) fn forget(connection: &Connection, topic: &str, partition: i32) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("DELETE FROM sagamore_position WHERE topic = ?1 AND partition = ?2")?;
    statement.execute(params![topic, partition])?;
    Ok(())
}

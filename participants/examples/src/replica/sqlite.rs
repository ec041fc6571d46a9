//! Rows in an SQLite file.

use sagamore_participant::Fault;
use sagamore_participant::store::sqlite::rusqlite::{self, OptionalExtension as _, Transaction, params};

use super::Rows;

/// Makes the tables.
pub(crate) fn tables(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS replica_rows (
             name    TEXT PRIMARY KEY,
             version INTEGER NOT NULL,
             value   TEXT
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS replica_held (
             name   TEXT PRIMARY KEY,
             holder TEXT NOT NULL
         ) STRICT, WITHOUT ROWID",
    )
}

impl Rows for Transaction<'_> {
    fn hold(&mut self, row: &str, holder: &str) -> Result<Option<i64>, Fault> {
        let held = self
            .prepare_cached("INSERT INTO replica_held (name, holder) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute([row, holder])?;
        if held == 0 {
            return Ok(None);
        }
        let found = self
            .prepare_cached("SELECT version FROM replica_rows WHERE name = ?1")?
            .query_row([row], |found| found.get(0))
            .optional()?;
        Ok(Some(found.unwrap_or(0)))
    }

    fn let_go(&mut self, row: &str, holder: &str) -> Result<bool, Fault> {
        let let_go = self
            .prepare_cached("DELETE FROM replica_held WHERE name = ?1 AND holder = ?2")?
            .execute([row, holder])?;
        Ok(let_go == 1)
    }

    fn put(&mut self, row: &str, version: i64, value: Option<&str>) -> Result<(), Fault> {
        self.prepare_cached(
            "INSERT INTO replica_rows (name, version, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET version = excluded.version, value = excluded.value",
        )?
        .execute(params![row, version, value])?;
        Ok(())
    }
}

//! Rows in PostgreSQL.

use sagamore_participant::Fault;
use sagamore_participant_postgres::Tx;

use super::Rows;

/// In the order of bytes, as other databases have it.
pub(crate) const TABLES: &str = r#"
    CREATE TABLE IF NOT EXISTS replica_rows (
        name    TEXT COLLATE "C" PRIMARY KEY,
        version BIGINT NOT NULL,
        value   TEXT
    );
    CREATE TABLE IF NOT EXISTS replica_held (
        name   TEXT PRIMARY KEY,
        holder TEXT NOT NULL
    )"#;

impl Rows for Tx<'_> {
    fn hold(&mut self, row: &str, holder: &str) -> Result<Option<i64>, Fault> {
        // A change that is under way is waited for; after it, what it has committed is seen.
        let held = self.execute(
            "INSERT INTO replica_held (name, holder) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&row, &holder],
        )?;
        if held == 0 {
            return Ok(None);
        }
        let found = self.query_opt("SELECT version FROM replica_rows WHERE name = $1", &[&row])?;
        Ok(Some(found.map_or(0, |found| found.get(0))))
    }

    fn let_go(&mut self, row: &str, holder: &str) -> Result<bool, Fault> {
        let text = "DELETE FROM replica_held WHERE name = $1 AND holder = $2";
        Ok(self.execute(text, &[&row, &holder])? == 1)
    }

    fn put(&mut self, row: &str, version: i64, value: Option<&str>) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO replica_rows (name, version, value) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET version = excluded.version, value = excluded.value",
            &[&row, &version, &value],
        )?;
        Ok(())
    }
}

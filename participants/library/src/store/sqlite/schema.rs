//! The tables of this library in a participant's file, and their version.
//!
//! A migration that has been released is never edited: a change is one more entry, and a new version. Business tables
//! are the participant's own and have no version here.

use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction};

use super::{OpenError, unavailable};
use crate::store::StoreFault;

/// From nothing to now. The key of `sagamore_barrier` begins with home and birth, so the oldest branches of a home
/// stand together at its beginning, where purging looks for them; there is no second index to keep.
///
/// 2: what is kept of a vote. Votes from before have none: they wait for their `commit` or `abort`, and do not ask.
/// 3: decisions by hand; and how far command topics have been answered. A file from before has no positions, and is taken
/// for a lost one until `sagamore participant accept`.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE sagamore_barrier (
        instance    BLOB    NOT NULL,
        home        INTEGER NOT NULL,
        birth       INTEGER NOT NULL,
        subject     TEXT    NOT NULL,
        step        TEXT    NOT NULL,
        branch      TEXT    NOT NULL,
        operation   TEXT    NOT NULL,
        issued_ms   INTEGER NOT NULL,
        answer      TEXT    NOT NULL,
        reason      TEXT,
        data        TEXT,
        data_base64 TEXT,
        PRIMARY KEY (instance, home, birth, subject, step, branch, operation)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sagamore_horizon (
        instance   BLOB    NOT NULL,
        home       INTEGER NOT NULL,
        horizon_ms INTEGER NOT NULL,
        PRIMARY KEY (instance, home)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE sagamore_vote (
        instance BLOB    NOT NULL,
        home     INTEGER NOT NULL,
        birth    INTEGER NOT NULL,
        subject  TEXT    NOT NULL,
        step     TEXT    NOT NULL,
        branch   TEXT    NOT NULL,
        command  BLOB    NOT NULL,
        PRIMARY KEY (instance, home, birth, subject, step, branch)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE sagamore_heuristic (
        instance BLOB    NOT NULL,
        home     INTEGER NOT NULL,
        birth    INTEGER NOT NULL,
        subject  TEXT    NOT NULL,
        step     TEXT    NOT NULL,
        branch   TEXT    NOT NULL,
        record   TEXT    NOT NULL,
        PRIMARY KEY (instance, home, birth, subject, step, branch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sagamore_position (
        topic       TEXT    NOT NULL,
        partition   INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    ) STRICT, WITHOUT ROWID;
",
];

/// Pause between two attempts to make a file a WAL file.
const WAL_PAUSE: Duration = Duration::from_millis(5);

/// Readers then disturb no writer, and a commit is one fsync. It stays in the file.
pub(super) fn use_wal(connection: &Connection, timeout: Duration) -> Result<(), OpenError> {
    let until = Instant::now() + timeout;
    loop {
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        match mode {
            Ok(mode) => {
                let mode: String = mode;
                return if mode == "wal" { Ok(()) } else { Err(OpenError::NoWal { mode }) };
            }
            // SQLite does not wait by itself when two change the mode of one new file.
            Err(error) if is_busy(&error) && Instant::now() < until => thread::sleep(WAL_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Does what is missing.
pub(super) fn migrate(tx: &Transaction<'_>) -> Result<(), OpenError> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS sagamore_schema (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            version  INTEGER NOT NULL
        ) STRICT",
    )?;
    let found = version(tx)?;
    if found > known() {
        return Err(OpenError::NewerSchema { found, known: known() });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        tx.execute_batch(migration)?;
        tx.execute("INSERT OR REPLACE INTO sagamore_schema (only_row, version) VALUES (1, ?1)", [version])?;
    }
    Ok(())
}

/// Another process may have taken a newer release meanwhile.
pub(super) fn check(connection: &Connection) -> Result<(), StoreFault> {
    let (found, known) = (version(connection).map_err(unavailable)?, known());
    if found == known {
        return Ok(());
    }
    Err(StoreFault::Unavailable(format!("the file has schema {found} now, this process works with {known}")))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT version FROM sagamore_schema")?;
    Ok(statement.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn known() -> i64 {
    (1..).zip(MIGRATIONS).map(|(version, _)| version).max().unwrap_or(0)
}

//! The tables of the view, and their version.
//!
//! There is no migration: a file of another schema or another instance is made anew from the journal. A transaction is a
//! row with what is asked of it as columns, and its story as one text; branches of which something is being asked stand
//! in a table of their own, which is small, for most transactions have ended.
//!
//! Each index serves a question: a status, a definition, an error, an id's beginning; oldest first by `started_ms`, `birth`,
//! which is the order of every list. `kept` finds what the journal no longer retains.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use super::ViewError;

/// Raised with every change of a table, of a status's code, or of what a story means.
const VERSION: i64 = 4;
/// What a writer keeps of the file in memory, in KiB, as SQLite wants it.
const WRITER_CACHE: &str = "-16384";
/// Pages in the log before they are written to their places: in a crowd the same pages are written again and again, and
/// the default, 4 MiB, is one batch.
const WAL_PAGES: u32 = 4_000;
/// The same of a reader, of which there are few.
const READER_CACHE: &str = "-4096";
/// How long a reader waits while the file is just being made.
const PATIENCE: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE about (schema INTEGER NOT NULL, instance TEXT NOT NULL) STRICT;
    CREATE TABLE positions (
        home        INTEGER PRIMARY KEY,
        next_offset INTEGER NOT NULL,
        at_ms       INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE definitions (
        name        TEXT    NOT NULL,
        version     INTEGER NOT NULL,
        deadline_ms INTEGER NOT NULL,
        PRIMARY KEY (name, version)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE definition_branches (
        name        TEXT    NOT NULL,
        version     INTEGER NOT NULL,
        place       INTEGER NOT NULL,
        step        TEXT    NOT NULL,
        branch      TEXT    NOT NULL,
        participant TEXT    NOT NULL,
        kind        TEXT    NOT NULL,
        PRIMARY KEY (name, version, step, branch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE transactions (
        birth          INTEGER PRIMARY KEY,
        home           INTEGER NOT NULL,
        id             TEXT    NOT NULL,
        status         INTEGER NOT NULL,
        name           TEXT,
        version        INTEGER,
        revision       INTEGER NOT NULL,
        started_ms     INTEGER NOT NULL,
        updated_ms     INTEGER NOT NULL,
        reason         TEXT,
        error          TEXT,
        last_offset    INTEGER NOT NULL,
        last_sequence  INTEGER NOT NULL,
        journal_offset INTEGER NOT NULL,
        story          TEXT    NOT NULL
    ) STRICT;
    CREATE INDEX by_status ON transactions (status, started_ms);
    CREATE INDEX by_name ON transactions (name, status, started_ms, version);
    CREATE INDEX by_error ON transactions (error, status, started_ms) WHERE error IS NOT NULL;
    CREATE INDEX by_id ON transactions (id);
    CREATE INDEX kept ON transactions (home, journal_offset);
    CREATE TABLE open_branches (
        birth       INTEGER NOT NULL,
        step        TEXT    NOT NULL,
        branch      TEXT    NOT NULL,
        phase       TEXT    NOT NULL,
        operation   TEXT    NOT NULL,
        attempt     INTEGER NOT NULL,
        error       TEXT,
        was_refused INTEGER NOT NULL,
        since_ms    INTEGER NOT NULL,
        PRIMARY KEY (birth, step, branch)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX by_phase ON open_branches (phase, step);
";

/// Opens the file for its one writer; makes it anew when it is not ours.
pub(super) fn open(file: &Path, instance: Uuid) -> Result<Connection, ViewError> {
    if file.exists() {
        match found(file, instance) {
            Ok(Some(connection)) => return Ok(connection),
            Ok(None) => {
                tracing::info!(file = %file.display(), "the view is of another time or installation: built anew");
            }
            Err(ViewError::Store(error)) if is_damage(&error) => {
                tracing::warn!(file = %file.display(), %error, "the view's file is damaged: built anew");
            }
            Err(error) => return Err(error),
        }
        remove(file)?;
    }
    let connection = writer(file)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(TABLES)?;
    connection
        .execute("INSERT INTO about (schema, instance) VALUES (?1, ?2)", (VERSION, instance.to_string()))?;
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

/// Opens the file for one question.
pub(super) fn read(file: &Path) -> Result<Connection, ViewError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch(&format!("PRAGMA query_only = ON; PRAGMA cache_size = {READER_CACHE}"))?;
    Ok(connection)
}

/// Whether the file itself is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Removes the file, and what SQLite keeps beside it.
pub(super) fn remove(file: &Path) -> Result<(), ViewError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(ViewError::Folder { path: name.into(), cause });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn found(file: &Path, instance: Uuid) -> Result<Option<Connection>, ViewError> {
    let connection = writer(file)?;
    let is_there = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'about'";
    if connection.query_row(is_there, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    let is_ours = "SELECT count(*) FROM about WHERE schema = ?1 AND instance = ?2";
    let count: i64 = connection.query_row(is_ours, (VERSION, instance.to_string()), |row| row.get(0))?;
    Ok((count == 1).then_some(connection))
}

fn writer(file: &Path) -> Result<Connection, ViewError> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(32);
    // A power cut may take the newest commits: they take their place in the journal with them, and are read again.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = {WRITER_CACHE};
         PRAGMA temp_store = FILE; PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = {WAL_PAGES}"
    ))?;
    Ok(connection)
}

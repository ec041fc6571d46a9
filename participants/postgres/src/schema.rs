//! The tables of this library in a participant's database, and their version.
//!
//! A migration that has been released is never edited: a change is one more entry, and a new version. Business tables
//! are the participant's own and have no version here.

use sha2::{Digest, Sha256};

use crate::connection::{Connection, SqlError};
use crate::store::OpenError;

/// From nothing to now; `{s}` is the schema. The key of `sagamore_barrier` begins with home and birth, so the oldest
/// branches of a home stand together, where purging looks for them; there is no second index to keep. Names are compared
/// byte by byte. What may contain any character is kept as bytes.
///
/// 2: decisions by hand; and how far command topics have been answered. A database from before has no positions, and is
/// taken for a lost one until `sagamore participant accept`.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE {s}.sagamore_barrier (
        instance    UUID   NOT NULL,
        home        INT    NOT NULL,
        birth       BIGINT NOT NULL,
        subject     TEXT   COLLATE \"C\" NOT NULL,
        step        TEXT   COLLATE \"C\" NOT NULL,
        branch      TEXT   COLLATE \"C\" NOT NULL,
        operation   TEXT   COLLATE \"C\" NOT NULL,
        issued_ms   BIGINT NOT NULL,
        answer      TEXT   COLLATE \"C\" NOT NULL,
        reason      BYTEA,
        data        BYTEA,
        data_base64 BYTEA,
        PRIMARY KEY (instance, home, birth, subject, step, branch, operation)
    );
    CREATE TABLE {s}.sagamore_horizon (
        instance   UUID   NOT NULL,
        home       INT    NOT NULL,
        horizon_ms BIGINT NOT NULL,
        PRIMARY KEY (instance, home)
    );
    CREATE TABLE {s}.sagamore_vote (
        instance UUID   NOT NULL,
        home     INT    NOT NULL,
        birth    BIGINT NOT NULL,
        subject  TEXT   COLLATE \"C\" NOT NULL,
        step     TEXT   COLLATE \"C\" NOT NULL,
        branch   TEXT   COLLATE \"C\" NOT NULL,
        command  BYTEA  NOT NULL,
        PRIMARY KEY (instance, home, birth, subject, step, branch)
    );
    CREATE TABLE {s}.sagamore_xa (
        instance    UUID   NOT NULL,
        home        INT    NOT NULL,
        birth       BIGINT NOT NULL,
        subject     TEXT   COLLATE \"C\" NOT NULL,
        step        TEXT   COLLATE \"C\" NOT NULL,
        branch      TEXT   COLLATE \"C\" NOT NULL,
        gid         TEXT   COLLATE \"C\" NOT NULL,
        issued_ms   BIGINT NOT NULL,
        command     BYTEA  NOT NULL,
        data        BYTEA,
        data_base64 BYTEA,
        written_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (instance, home, birth, subject, step, branch)
    );
    CREATE INDEX sagamore_xa_gid ON {s}.sagamore_xa (gid);
",
    "
    CREATE TABLE {s}.sagamore_heuristic (
        instance UUID   NOT NULL,
        home     INT    NOT NULL,
        birth    BIGINT NOT NULL,
        subject  TEXT   COLLATE \"C\" NOT NULL,
        step     TEXT   COLLATE \"C\" NOT NULL,
        branch   TEXT   COLLATE \"C\" NOT NULL,
        record   BYTEA  NOT NULL,
        PRIMARY KEY (instance, home, birth, subject, step, branch)
    );
    CREATE TABLE {s}.sagamore_position (
        topic       TEXT   COLLATE \"C\" NOT NULL,
        partition   INT    NOT NULL,
        next_offset BIGINT NOT NULL,
        PRIMARY KEY (topic, partition)
    );
",
];

/// A schema's name as it stands in a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A key of the server's own locks, which are of one database.
pub fn lock_key(parts: &[&[u8]]) -> i64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |key, byte| key << 8 | i64::from(*byte))
}

/// Does what is missing, and what `business` says, in one transaction. Those who come meanwhile wait for it, whatever
/// their schema: business tables may be shared.
pub(crate) fn migrate(connection: &mut Connection, schema: &str, business: &str) -> Result<(), OpenError> {
    let key = lock_key(&[b"sagamore schema"]);
    connection.batch(&format!("BEGIN; SELECT pg_advisory_xact_lock({key})"))?;
    let is_there = connection
        .wait(async |client| {
            client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema]).await
        })?
        .is_some();
    let quoted = quoted(schema);
    if !is_there {
        connection.batch(&format!("CREATE SCHEMA {quoted}"))?;
    }
    let found = if let Some(version) = version(connection, schema)? {
        version
    } else {
        connection.batch(&format!(
            "CREATE TABLE {quoted}.sagamore_schema (
                only_row INT PRIMARY KEY CHECK (only_row = 1),
                version  INT NOT NULL
            );
            INSERT INTO {quoted}.sagamore_schema VALUES (1, 0)"
        ))?;
        0
    };
    if found > known() {
        return Err(OpenError::NewerSchema { found, known: known() });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        connection.batch(&migration.replace("{s}", &quoted))?;
        connection.batch(&format!("UPDATE {quoted}.sagamore_schema SET version = {version}"))?;
    }
    connection.batch(&format!("{business};COMMIT"))?;
    Ok(())
}

/// Another process may have taken a newer release meanwhile.
pub(crate) fn check(connection: &mut Connection, schema: &str) -> Result<(), String> {
    let (found, known) =
        (version(connection, schema).map_err(|error| error.to_string())?.unwrap_or(0), known());
    if found == known {
        return Ok(());
    }
    Err(format!("the database has schema {found} now, this process works with {known}"))
}

fn version(connection: &mut Connection, schema: &str) -> Result<Option<i32>, SqlError> {
    let quoted = quoted(schema);
    let table = format!("{quoted}.sagamore_schema");
    let is_there = connection.wait(async |client| {
        client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?.try_get::<_, bool>(0)
    })?;
    if !is_there {
        return Ok(None);
    }
    let query = format!("SELECT version FROM {table}");
    connection.wait(async |client| client.query_one(&query, &[]).await?.try_get(0)).map(Some)
}

fn known() -> i32 {
    (1..).zip(MIGRATIONS).map(|(version, _)| version).max().unwrap_or(0)
}

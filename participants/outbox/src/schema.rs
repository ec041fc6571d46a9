//! The tables and functions in a service's database, and their version.
//!
//! A migration that has been released is never edited: a change is one more entry, and a new version.

use sagamore_participant_postgres::{Connection, SqlError, lock_key};
use sagamore_schemas::topics::RECORD_BYTES_MAX;

use crate::relay::RelayError;

/// From nothing to now.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];
/// The longest that a name may be in PostgreSQL.
const NAME_CHARACTERS_MAX: usize = 63;
/// What Kafka puts around a record, generously.
const FRAME_BYTES: i64 = 4096;
/// The largest value that is sent: with its frame, what the topics take.
pub const VALUE_BYTES_MAX: i64 = RECORD_BYTES_MAX - FRAME_BYTES;

/// The name of a schema that needs no quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(String);

/// Not such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a schema has 1 to {NAME_CHARACTERS_MAX} of the characters a-z 0-9 _, and does not begin with a digit or pg_"
)]
pub struct SchemaError;

impl std::str::FromStr for Schema {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_name = (1..=NAME_CHARACTERS_MAX).contains(&text.len())
            && text.chars().all(is_plain)
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && !text.starts_with("pg_");
        if is_name { Ok(Self(text.to_owned())) } else { Err(SchemaError) }
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl Schema {
    /// Without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Does what is missing, in one transaction. Those who come meanwhile wait for it. Nothing is written when nothing is
/// missing, so that a role without rights to create may run the relay.
pub fn migrate(connection: &mut Connection, schema: &Schema) -> Result<(), RelayError> {
    let key = lock_key(&[b"sagamore outbox schema", schema.as_str().as_bytes()]);
    connection.batch(&format!("BEGIN; SELECT pg_advisory_xact_lock({key})"))?;
    let found = version(connection, schema)?;
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    let found = match found {
        Some(found) if found > known => return Err(RelayError::NewerSchema { found, known }),
        Some(found) => found,
        None => {
            connection.batch(&format!(
                "SET LOCAL client_min_messages = warning;
                 CREATE SCHEMA IF NOT EXISTS {schema};
                 CREATE TABLE {schema}.outbox_schema (
                     only_row INT PRIMARY KEY CHECK (only_row = 1), version INT NOT NULL);
                 INSERT INTO {schema}.outbox_schema VALUES (1, 0)"
            ))?;
            0
        }
    };
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let text = migration
            .replace("{s}", &schema.to_string())
            .replace("{record_bytes_max}", &VALUE_BYTES_MAX.to_string());
        connection.batch(&text)?;
        connection.batch(&format!("UPDATE {schema}.outbox_schema SET version = {version}"))?;
    }
    connection.batch("COMMIT")?;
    Ok(())
}

fn version(connection: &mut Connection, schema: &Schema) -> Result<Option<i32>, SqlError> {
    let table = format!("{schema}.outbox_schema");
    let is_there = connection.wait(async |client| {
        client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?.try_get::<_, bool>(0)
    })?;
    if !is_there {
        return Ok(None);
    }
    let query = format!("SELECT version FROM {table}");
    connection.wait(async |client| client.query_one(&query, &[]).await?.try_get(0)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_plain_name() {
        let longest = "s".repeat(NAME_CHARACTERS_MAX);
        for good in ["sagamore", "_a1", &longest] {
            assert_eq!(good.parse::<Schema>().map(|schema| schema.0), Ok(good.to_owned()));
        }
        let too_long = "s".repeat(NAME_CHARACTERS_MAX + 1);
        for bad in ["", "Sagamore", "1a", "pg_a", "a b", "a\"b", "a-b", &too_long] {
            assert_eq!(bad.parse::<Schema>(), Err(SchemaError), "{bad}");
        }
    }
}

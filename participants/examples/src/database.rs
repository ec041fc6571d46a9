//! Databases that an example can live in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sagamore_participant::store::sqlite::SqliteStore;
use sagamore_participant::{Fault, Handle, Participant, Runtime};
use sagamore_participant_postgres::tokio_postgres::Config;
use sagamore_participant_postgres::{PostgresOptions, PostgresStore};

use crate::books::Books;
use crate::run::{Kind, Settings, SpawnError};
use crate::{on_postgres, replica};

/// Where an example keeps what it does and has answered.
#[derive(Debug, Clone)]
pub enum Database {
    /// A database of a server. What each participant has answered is in a schema of its name; business tables are in
    /// the first schema of the search path, and shared.
    Postgres {
        /// `postgresql://user@host/database`.
        url: String,
        /// Bank and replicas heed it; inventory always holds.
        votes: Votes,
    },
    /// A file; replicas only.
    Sqlite(PathBuf),
}

/// What a vote is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Votes {
    /// A row that says so (try/confirm/cancel): others see the money, and cannot spend it.
    #[default]
    Holds,
    /// A prepared transaction (XA), which holds the rows of its accounts until it is ended.
    Prepared,
}

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Prepared => "prepared",
        })
    }
}

impl FromStr for Votes {
    type Err = UnknownVotes;

    fn from_str(text: &str) -> Result<Self, UnknownVotes> {
        match text {
            "holds" => Ok(Self::Holds),
            "prepared" => Ok(Self::Prepared),
            _ => Err(UnknownVotes(text.to_owned())),
        }
    }
}

/// Not a kind of vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kind of vote {0:?}: holds or prepared")]
pub struct UnknownVotes(String);

/// A store that outlives its process.
pub(crate) enum DurableStore {
    Postgres(Kind, PostgresStore),
    Sqlite(SqliteStore),
}

impl DurableStore {
    pub(crate) fn books(&self) -> Result<Books, Fault> {
        match self {
            Self::Postgres(kind, store) => on_postgres::books(*kind, store),
            Self::Sqlite(store) => replica::books(store),
        }
    }
}

pub(crate) fn spawn(
    kind: Kind,
    database: &Database,
    settings: &Settings,
) -> Result<(Handle, DurableStore), SpawnError> {
    match database {
        Database::Postgres { votes: Votes::Prepared, .. } if !matches!(kind, Kind::Bank | Kind::Replica) => {
            Err(SpawnError::Votes(kind))
        }
        Database::Postgres { url, votes } => {
            let (handle, store) = on_postgres::spawn(kind, url, *votes, settings)?;
            Ok((handle, DurableStore::Postgres(kind, store)))
        }
        Database::Sqlite(path) if kind == Kind::Replica => {
            let store = SqliteStore::open(path, replica::tables)?;
            let replica =
                replica::Replica::new(Votes::Holds, &settings.runtime.participant, &settings.injection);
            let handle = Runtime::spawn(replica, store.clone(), &settings.runtime)?;
            Ok((handle, DurableStore::Sqlite(store)))
        }
        Database::Sqlite(_) => Err(SpawnError::NoSqlite(kind)),
    }
}

/// Opens a database of PostgreSQL for a participant, and brings its tables up to date.
pub(crate) fn open(
    url: &str,
    votes: Votes,
    settings: &Settings,
    tables: &str,
) -> Result<PostgresStore, SpawnError> {
    let config: Config = url.parse().map_err(SpawnError::Url)?;
    let schema = settings.runtime.participant.to_string();
    let options = PostgresOptions { schema, xa: votes == Votes::Prepared, ..PostgresOptions::default() };
    Ok(PostgresStore::open(config, options, tables)?)
}

pub(crate) fn at_work<P: Participant<Store = PostgresStore>>(
    participant: P,
    store: PostgresStore,
    settings: &Settings,
) -> Result<(Handle, PostgresStore), SpawnError> {
    Ok((Runtime::spawn(participant, store.clone(), &settings.runtime)?, store))
}

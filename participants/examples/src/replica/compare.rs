//! Whether replicas are equal, row by row. It reads what is committed, a page at a time from each, and changes nothing. A
//! topic is read whole before, and held in memory: it has no order of names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sagamore_participant::store::sqlite::rusqlite::{self, Connection, OpenFlags};
use sagamore_participant::{ClientSettings, TableError};
use sagamore_participant_postgres::tokio_postgres::Config;
use sagamore_participant_postgres::{Reader, SqlError};
use serde::Serialize;

use super::log::{self, Snapshot};

/// Rows that are read at a time from each replica.
const PAGE_ROWS: i64 = 1_000;
/// Differences that are told one by one; the others are counted.
const DIFFERENCES_TOLD_MAX: usize = 100;

/// Where a replica is.
#[derive(Debug, Clone)]
pub enum Place {
    /// `postgresql://…`.
    Postgres(Box<Config>, String),
    /// A file.
    Sqlite(PathBuf),
    /// `kafka://HOST:PORT,…/TOPIC`: the table of a replica that has nothing but Kafka.
    Topic(Box<ClientSettings>, String),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if let Some(place) = text.strip_prefix("kafka://") {
            let parts = place.split_once('/').filter(|(hosts, topic)| !hosts.is_empty() && !topic.is_empty());
            let Some((hosts, topic)) = parts else { return Err(PlaceError::NoTopic(text.to_owned())) };
            return Ok(Self::Topic(Box::new(ClientSettings::new(hosts)), topic.to_owned()));
        }
        if !text.starts_with("postgresql://") && !text.starts_with("postgres://") {
            return Ok(Self::Sqlite(text.into()));
        }
        let config: Config = text.parse().map_err(SqlError::from)?;
        // Without what may be a password.
        let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
        Ok(Self::Postgres(Box::new(config), host.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(_, host) => f.write_str(host),
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Topic(_, topic) => f.write_str(topic),
        }
    }
}

/// Why a replica cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// What PostgreSQL says.
    #[error(transparent)]
    Postgres(#[from] SqlError),
    /// What SQLite says.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What Kafka says.
    #[error(transparent)]
    Topic(#[from] TableError),
    /// Not the address of a topic.
    #[error("{0}: a table is kafka://HOST:PORT/TOPIC")]
    NoTopic(String),
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The replicas, in the order in which they were named.
    pub replicas: Vec<String>,
    /// Names of rows that at least one of them has.
    pub rows: u64,
    /// How many of them are not the same everywhere.
    pub different: u64,
    /// Rows of each replica that a change holds: in doubt, or under way.
    pub held: Vec<u64>,
    /// The first of those that are different.
    pub differences: Vec<Difference>,
}

/// A row that is not the same everywhere.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// Its name.
    pub row: String,
    /// What each replica has; none: no such row.
    pub found: Vec<Option<Found>>,
}

/// A row of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How often it has been replaced.
    pub version: i64,
    /// Its value as JSON text; none: it has been removed.
    pub value: Option<String>,
}

/// Compares all of them.
pub fn compare(places: &[Place]) -> Result<Comparison, PlaceError> {
    let mut readers = places.iter().map(Pages::of).collect::<Result<Vec<_>, _>>()?;
    let mut comparison = Comparison {
        replicas: places.iter().map(ToString::to_string).collect(),
        rows: 0,
        different: 0,
        held: readers.iter_mut().map(|reader| reader.base.held()).collect::<Result<_, _>>()?,
        differences: Vec::new(),
    };
    loop {
        for reader in &mut readers {
            reader.fill()?;
        }
        let Some(row) = readers.iter().filter_map(|reader| reader.page.last()).map(|(row, _)| row).min()
        else {
            return Ok(comparison);
        };
        let row = row.clone();
        let found: Vec<Option<Found>> = readers.iter_mut().map(|reader| reader.take(&row)).collect();
        comparison.rows += 1;
        if found.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        comparison.different += 1;
        if comparison.differences.len() < DIFFERENCES_TOLD_MAX {
            comparison.differences.push(Difference { row, found });
        }
    }
}

enum Base {
    Postgres(Box<Reader>),
    Sqlite(Connection),
    Topic(Snapshot),
}

/// One replica, read in the order of its names.
struct Pages {
    base: Base,
    /// What has been read and not compared, the next one last.
    page: Vec<(String, Found)>,
    last: Option<String>,
    is_at_end: bool,
}

impl Pages {
    fn of(place: &Place) -> Result<Self, PlaceError> {
        let base = match place {
            Place::Postgres(config, _) => Base::Postgres(Box::new(Reader::connect(config)?)),
            Place::Sqlite(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Base::Sqlite(Connection::open_with_flags(path, flags)?)
            }
            Place::Topic(clients, topic) => Base::Topic(log::snapshot(clients, topic)?),
        };
        Ok(Self { base, page: Vec::new(), last: None, is_at_end: false })
    }

    fn fill(&mut self) -> Result<(), PlaceError> {
        if !self.page.is_empty() || self.is_at_end {
            return Ok(());
        }
        self.page = self.base.page(self.last.as_deref())?;
        self.is_at_end = self.page.is_empty();
        self.last = self.page.last().map(|(row, _)| row.clone());
        self.page.reverse();
        Ok(())
    }

    fn take(&mut self, row: &str) -> Option<Found> {
        self.page.pop_if(|(next, _)| next == row).map(|(_, found)| found)
    }
}

impl Base {
    fn page(&mut self, after: Option<&str>) -> Result<Vec<(String, Found)>, PlaceError> {
        match self {
            Self::Postgres(reader) => {
                let rows = reader.query(
                    "SELECT name, version, value FROM replica_rows
                     WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2",
                    &[&after, &PAGE_ROWS],
                )?;
                Ok(rows
                    .iter()
                    .map(|row| (row.get(0), Found { version: row.get(1), value: row.get(2) }))
                    .collect())
            }
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(
                    "SELECT name, version, value FROM replica_rows
                     WHERE ?1 IS NULL OR name > ?1 ORDER BY name LIMIT ?2",
                )?;
                let found = statement.query_map(rusqlite::params![after, PAGE_ROWS], |row| {
                    Ok((row.get(0)?, Found { version: row.get(1)?, value: row.get(2)? }))
                })?;
                Ok(found.collect::<Result<_, _>>()?)
            }
            // What has been compared is let go of: it comes only once.
            Self::Topic(Snapshot { rows, .. }) => Ok(std::mem::take(rows).into_iter().collect()),
        }
    }

    fn held(&mut self) -> Result<u64, PlaceError> {
        let text = "SELECT count(*) FROM replica_held";
        let count: i64 = match self {
            Self::Postgres(reader) => reader
                .query(
                    "SELECT (SELECT count(*) FROM replica_held) + (SELECT count(*) FROM pg_prepared_xacts)",
                    &[],
                )?
                .first()
                .map_or(0, |row| row.get(0)),
            Self::Sqlite(connection) => connection.query_row(text, [], |row| row.get(0))?,
            Self::Topic(snapshot) => return Ok(snapshot.held),
        };
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

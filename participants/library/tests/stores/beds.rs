//! The stores of this crate, each with a place where it is kept.

use sagamore_participant::Fault;
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::store::kafka::rehearsal::Topics;
use sagamore_participant::store::kafka::{Bounds, KafkaStore, Tx};

use crate::bed::Bed;

pub(crate) struct Memory(MemoryStore<Table<String, i64>>);

impl Default for Memory {
    fn default() -> Self {
        Self(MemoryStore::new(Table::default()))
    }
}

impl Bed for Memory {
    type Store = MemoryStore<Table<String, i64>>;

    fn open(&self) -> Self::Store {
        self.0.clone()
    }

    fn add(business: &mut Table<String, i64>, subject: &str, change: i64) -> Result<(), Fault> {
        let net = business.get(&subject.to_owned()).copied().unwrap_or_default();
        business.put(subject.to_owned(), net + change);
        Ok(())
    }

    fn net(&self, subject: &str) -> i64 {
        self.0.read(|effects| effects.get(&subject.to_owned()).copied().unwrap_or_default())
    }

    fn branches(&self) -> usize {
        self.0.branches()
    }
}

/// The Kafka-only store on topics in memory: what it decides, without a Kafka that would take a minute for it.
#[derive(Default)]
pub(crate) struct KafkaOnly(pub(crate) Topics);

impl Bed for KafkaOnly {
    type Store = KafkaStore;

    fn open(&self) -> KafkaStore {
        KafkaStore::new(self.0.clone(), Bounds::default())
    }

    fn add(business: &mut Tx<'_>, subject: &str, change: i64) -> Result<(), Fault> {
        let net: i64 = business.read(subject)?.unwrap_or_default();
        business.write(subject, &(net + change))
    }

    fn net(&self, subject: &str) -> i64 {
        let table = self.0.table();
        table.get(subject.as_bytes()).map_or(0, |net| std::str::from_utf8(net).unwrap().parse().unwrap())
    }

    fn branches(&self) -> usize {
        self.open().take_over().unwrap().branches()
    }
}

#[cfg(feature = "sqlite")]
pub(crate) use durable::Sqlite;

#[cfg(feature = "sqlite")]
mod durable {
    use std::path::PathBuf;

    use sagamore_participant::Fault;
    use sagamore_participant::store::sqlite::SqliteStore;
    use sagamore_participant::store::sqlite::rusqlite::{Connection, Transaction};
    use tempfile::TempDir;

    use crate::bed::Bed;

    pub(crate) struct Sqlite(TempDir);

    impl Default for Sqlite {
        fn default() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
    }

    impl Sqlite {
        pub(crate) fn path(&self) -> PathBuf {
            self.0.path().join("participant.sqlite")
        }

        /// Another look at the file than the store's own.
        pub(crate) fn connection(&self) -> Connection {
            Connection::open(self.path()).unwrap()
        }

        pub(crate) fn count(&self, query: &str) -> i64 {
            self.connection().query_row(query, [], |row| row.get(0)).unwrap()
        }
    }

    impl Bed for Sqlite {
        type Store = SqliteStore;

        fn open(&self) -> SqliteStore {
            open_at(self.path())
        }

        fn add(business: &mut Transaction<'_>, subject: &str, change: i64) -> Result<(), Fault> {
            let mut statement = business.prepare_cached(
                "INSERT INTO effects (subject, net) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET net = net + excluded.net",
            )?;
            statement.execute((subject, change))?;
            Ok(())
        }

        fn net(&self, subject: &str) -> i64 {
            let query = "SELECT coalesce(sum(net), 0) FROM effects WHERE subject = ?1";
            self.connection().query_row(query, [subject], |row| row.get(0)).unwrap()
        }

        fn branches(&self) -> usize {
            let query = "SELECT count(*) FROM
                (SELECT DISTINCT instance, home, birth, subject, step, branch FROM sagamore_barrier)";
            usize::try_from(self.count(query)).unwrap()
        }
    }

    pub(crate) fn open_at(path: PathBuf) -> SqliteStore {
        SqliteStore::open(path, |tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS effects (subject TEXT PRIMARY KEY, net INTEGER NOT NULL) STRICT",
            )
        })
        .unwrap()
    }
}

#[cfg(feature = "sqlite")]
pub(crate) use durable::open_at;

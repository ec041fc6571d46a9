//! Stores to be tested, each with a place where it is kept, and a participant that does as it is told.

use std::marker::PhantomData;

use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::store::Store;
use sagamore_participant::{Command, Effect, Fault, Open, Participant, Payload};

/// A place where one participant keeps its effects: a number for each transaction.
pub(crate) trait Bed: Default + Sync + 'static {
    type Store: Store;

    /// An instance of the participant opens its store there.
    fn open(&self) -> Self::Store;

    /// The effect of an operation.
    fn add(
        business: &mut <Self::Store as Store>::Business<'_>,
        subject: &str,
        change: i64,
    ) -> Result<(), Fault>;

    /// All that is committed.
    fn net(&self, subject: &str) -> i64;

    /// How many branches are remembered.
    fn branches(&self) -> usize;
}

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

#[cfg(feature = "sqlite")]
pub(crate) use durable::Sqlite;

#[cfg(feature = "sqlite")]
mod durable {
    use std::path::PathBuf;

    use sagamore_participant::Fault;
    use sagamore_participant::store::sqlite::SqliteStore;
    use sagamore_participant::store::sqlite::rusqlite::{Connection, Transaction};
    use tempfile::TempDir;

    use super::Bed;

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

/// Does what the command's `data` says: `"done"`, `"refused"`, `"fault"` or `"panic"`, each after its effect; `"slip"`
/// fails when it comes back as the input of what follows a vote.
pub(crate) struct Obedient<B>(PhantomData<fn() -> B>);

impl<B> Obedient<B> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<B: Bed> Obedient<B> {
    fn obey(tx: &mut Open<'_, Self>, change: i64, command: &Command<'_>) -> Result<Effect, Fault> {
        B::add(tx, command.address.subject.as_str(), change)?;
        match command.data.json() {
            Some("\"refused\"") => Ok(Effect::refused("told-to")),
            Some("\"fault\"" | r#"{"input":"slip","result":"result"}"#) => Err(Fault::new("told to")),
            Some("\"panic\"") => panic!("told to"),
            _ => Effect::done(&"result"),
        }
    }
}

impl<B: Bed> Participant for Obedient<B> {
    type Store = B::Store;

    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::obey(tx, 1, command)
    }

    fn compensate(
        &self,
        tx: &mut Open<'_, Self>,
        command: &Command<'_>,
        done: &Payload,
    ) -> Result<(), Fault> {
        assert_eq!(done.as_ref().json(), Some("\"result\""));
        Self::obey(tx, -1, command).map(|_| ())
    }

    fn prepare(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::obey(tx, 1, command)
    }

    fn commit(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::obey(tx, 10, command).map(|_| ())
    }

    fn abort(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::obey(tx, -1, command).map(|_| ())
    }
}

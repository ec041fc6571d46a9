//! A store in one SQLite file: effects and answers survive `kill -9` and a power cut.
//!
//! Business tables stand in the same file, and business code writes them through the open [`rusqlite::Transaction`].
//! Several workers and several processes may work on one file; SQLite has one writer at a time, so they take turns:
//! the workers of one store by a lock, processes by SQLite's own, for which they wait [`BUSY_TIMEOUT_DEFAULT`].
//!
//! ```text
//!  begin    BEGIN IMMEDIATE; is the schema still ours?
//!  command  SAVEPOINT ─ rows ─ business ─ insert      or  ROLLBACK TO
//!  commit   RELEASE; raised horizons; purge a little behind them; COMMIT, and with it one fsync
//! ```
//!
//! Nothing but [`LocalTransaction::commit`] commits. SQLite ends a local transaction by itself when the disk is full,
//! and business code that overlooks that error would go on writing effects without their answers; whatever would
//! commit them is refused by a commit hook.
//!
//! The memory of operations is bounded by the disk only: at `SQLITE_FULL` commands are answered `error`.
//!
//! ```
//! use sagamore_participant::store::Store;
//! use sagamore_participant::store::sqlite::{SqliteStore, rusqlite};
//! use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
//!
//! struct Theatre;
//!
//! impl Participant for Theatre {
//!     type Store = SqliteStore;
//!
//!     fn execute(&self, tx: &mut rusqlite::Transaction<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
//!         let taken = tx.execute(
//!             "INSERT INTO seats (seat, holder) VALUES ('A1', ?1) ON CONFLICT DO NOTHING",
//!             [command.address.subject.as_str()],
//!         )?;
//!         if taken == 0 { Ok(Effect::refused("taken: A1")) } else { Effect::done(&"A1") }
//!     }
//!
//!     fn compensate(&self, tx: &mut rusqlite::Transaction<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
//!         tx.execute("DELETE FROM seats WHERE seat = 'A1'", [])?;
//!         Ok(())
//!     }
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("theatre.sqlite");
//! let store = SqliteStore::open(&path, |tx| {
//!     tx.execute_batch("CREATE TABLE IF NOT EXISTS seats (seat TEXT PRIMARY KEY, holder TEXT NOT NULL) STRICT")
//! })?;
//! # store.session()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod heuristics;
mod positions;
mod purge;
mod rows;
mod schema;
mod votes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use rusqlite;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::Operation;

use self::purge::Cursor;
use super::{LocalTransaction, Position, Store, StoreFault};
use crate::barrier::{Branch, BranchKey, Home, Row};
use crate::doubt::{InDoubt, Vote};
use crate::heuristic::Heuristic;

/// How long one process waits for another's local transaction, unless told otherwise: many of them, and well within
/// a step's timeout.
pub const BUSY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long opening waits for another process that is opening the file, too, and may be bringing its tables up to date.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);
/// Statements kept prepared: the dozen of this store, and room for those of business code.
const STATEMENTS_KEPT: usize = 64;

/// The store. Clones share one file and take turns.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    busy_timeout: Duration,
    /// Who waits here is woken; who waits for SQLite's lock asks again and again. Inside, how far purging has come.
    turn: Arc<Mutex<Cursors>>,
}

type Cursors = BTreeMap<Home, Cursor>;

/// Why a file is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer release of this library has been here.
    #[error("the file has schema {found}, this release knows {known}: take the newer release")]
    NewerSchema {
        /// In the file.
        found: i64,
        /// The newest this release knows.
        known: i64,
    },
    /// Not an ordinary file on a local disk.
    #[error(
        "no write-ahead log is possible there (journal mode {mode}): an ordinary file on a local disk is needed"
    )]
    NoWal {
        /// What SQLite offers instead.
        mode: String,
    },
    /// Anything else SQLite says.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl SqliteStore {
    /// Opens or creates the file, and brings the tables of this library up to date. `prepare` then does the same
    /// for the business tables, at each opening, in the same local transaction.
    pub fn open(
        path: impl AsRef<Path>,
        prepare: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<Self, OpenError> {
        let store =
            Self { path: path.as_ref().to_owned(), busy_timeout: BUSY_TIMEOUT_DEFAULT, turn: Arc::default() };
        let mut connection = store.connect(OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.busy_timeout(OPENING_TIMEOUT)?;
        schema::use_wal(&connection, OPENING_TIMEOUT)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&tx)?;
        prepare(&tx)?;
        tx.commit()?;
        Ok(store)
    }

    /// Waits that long for other processes, instead of [`BUSY_TIMEOUT_DEFAULT`]; then the store is unavailable.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// A file that is there, as it is: nothing is made or brought up to date. For looking at another process's store.
    pub fn existing(path: impl AsRef<Path>) -> Result<Self, StoreFault> {
        let store =
            Self { path: path.as_ref().to_owned(), busy_timeout: BUSY_TIMEOUT_DEFAULT, turn: Arc::default() };
        let connection = store.connect(OpenFlags::empty()).map_err(unavailable)?;
        schema::check(&connection)?;
        Ok(store)
    }

    /// A local transaction without commands.
    fn alone(
        &self,
        session: &mut SqliteSession,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreFault> {
        let SqliteTransaction { tx, may_commit, cursors, .. } = self.begin(session)?;
        work(&tx).map_err(unavailable)?;
        may_commit.store(true, Ordering::Relaxed);
        let done = tx.commit();
        may_commit.store(false, Ordering::Relaxed);
        drop(cursors);
        done.map_err(unavailable)
    }

    fn connect(&self, more: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        // An answer leaves after `commit`: the write-ahead log must be on the disk by then, on a Mac as well.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        Ok(connection)
    }
}

/// One worker's connection.
pub struct SqliteSession {
    connection: Connection,
    may_commit: Arc<AtomicBool>,
}

impl Store for SqliteStore {
    type Session = SqliteSession;
    type Business<'t> = Transaction<'t>;
    type Transaction<'t> = SqliteTransaction<'t>;

    fn session(&self) -> Result<SqliteSession, StoreFault> {
        // Without `CREATE`: a file that has gone is not an empty memory.
        let mut connection = self.connect(OpenFlags::empty()).map_err(unavailable)?;
        let may_commit = Arc::new(AtomicBool::new(false));
        let hook = Arc::clone(&may_commit);
        connection.commit_hook(Some(move || !hook.load(Ordering::Relaxed))).map_err(unavailable)?;
        Ok(SqliteSession { connection, may_commit })
    }

    fn begin<'t>(&'t self, session: &'t mut SqliteSession) -> Result<SqliteTransaction<'t>, StoreFault> {
        let cursors = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let SqliteSession { connection, may_commit } = session;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
        schema::check(&tx)?;
        Ok(SqliteTransaction {
            tx,
            may_commit,
            horizons: BTreeMap::new(),
            rows: Vec::new(),
            inserted: 0,
            last_home: None,
            has_savepoint: false,
            cursors,
        })
    }

    fn in_doubt(
        &self,
        session: &mut SqliteSession,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<InDoubt>, StoreFault> {
        schema::check(&session.connection)?;
        votes::in_doubt(&session.connection, after, limit).map_err(unavailable)
    }

    fn heuristics(
        &self,
        session: &mut SqliteSession,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
        schema::check(&session.connection)?;
        heuristics::all(&session.connection, after, limit)
    }

    const KEEPS_POSITIONS: bool = true;

    fn positions(&self, session: &mut SqliteSession, topic: &str) -> Result<BTreeMap<i32, i64>, StoreFault> {
        schema::check(&session.connection)?;
        positions::of_topic(&session.connection, topic).map_err(unavailable)
    }

    fn keep_positions(
        &self,
        session: &mut SqliteSession,
        topic: &str,
        positions: &[Position],
    ) -> Result<(), StoreFault> {
        self.alone(session, |tx| positions::raise(tx, topic, positions))
    }

    fn forget_position(
        &self,
        session: &mut SqliteSession,
        topic: &str,
        partition: i32,
    ) -> Result<(), StoreFault> {
        self.alone(session, |tx| positions::forget(tx, topic, partition))
    }
}

/// An open local transaction: the only writer of the file.
pub struct SqliteTransaction<'t> {
    tx: Transaction<'t>,
    may_commit: &'t AtomicBool,
    /// Of the homes met so far. A command that fails does not take its watermark back.
    horizons: BTreeMap<Home, Horizon>,
    /// The rows of the last branch asked for.
    rows: Vec<Row>,
    inserted: usize,
    last_home: Option<Home>,
    has_savepoint: bool,
    /// The turn: the last field, so that it is let go when `tx` has ended.
    cursors: MutexGuard<'t, Cursors>,
}

#[derive(Clone, Copy)]
struct Horizon {
    stored: Time,
    raised: Time,
}

impl<'t> LocalTransaction for SqliteTransaction<'t> {
    type Business = Transaction<'t>;

    fn horizon(&mut self, home: Home, watermark: Time) -> Result<Time, StoreFault> {
        let mut horizon = if let Some(known) = self.horizons.get(&home) {
            *known
        } else {
            let stored = rows::horizon(self.alive()?, home).map_err(unavailable)?;
            Horizon { stored, raised: stored }
        };
        horizon.raised = watermark.max(horizon.raised);
        self.horizons.insert(home, horizon);
        Ok(horizon.raised)
    }

    fn rows(&mut self, key: &BranchKey<'_>) -> Result<&[Row], StoreFault> {
        self.rows = rows::of_branch(self.alive()?, key).map_err(unavailable)?;
        Ok(&self.rows)
    }

    fn business(&mut self) -> &mut Transaction<'t> {
        &mut self.tx
    }

    fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault> {
        rows::insert(self.alive()?, key, &row)
            .map_err(|error| if is_duplicate(&error) { StoreFault::Conflict } else { unavailable(error) })?;
        if matches!(row.operation, Operation::Commit | Operation::Abort) {
            votes::delete(self.alive()?, key).map_err(unavailable)?;
        }
        self.inserted += 1;
        self.last_home = Some(key.home());
        Ok(())
    }

    fn keep_vote(&mut self, key: &BranchKey<'_>, vote: Vote) -> Result<(), StoreFault> {
        votes::keep(self.alive()?, key, &vote).map_err(unavailable)
    }

    fn vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault> {
        votes::of_branch(self.alive()?, key).map_err(unavailable)
    }

    fn heuristic(&mut self, key: &BranchKey<'_>) -> Result<Option<Heuristic>, StoreFault> {
        heuristics::of_branch(self.alive()?, key)
    }

    fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: &Heuristic) -> Result<(), StoreFault> {
        heuristics::keep(self.alive()?, key, &heuristic.to_json()?).map_err(unavailable)
    }

    fn savepoint(&mut self) -> Result<(), StoreFault> {
        self.release()?;
        self.run("SAVEPOINT sagamore_command")?;
        self.has_savepoint = true;
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), StoreFault> {
        self.run("ROLLBACK TO sagamore_command")
    }

    fn commit(mut self) -> Result<(), StoreFault> {
        // Fails when what the commands wrote is not what this would commit.
        self.release()?;
        self.tidy().map_err(unavailable)?;
        let Self { tx, may_commit, cursors, .. } = self;
        may_commit.store(true, Ordering::Relaxed);
        let result = tx.commit();
        may_commit.store(false, Ordering::Relaxed);
        drop(cursors);
        result.map_err(unavailable)
    }
}

impl SqliteTransaction<'_> {
    /// The connection, while its local transaction is open. A savepoint or a row written later would begin another.
    fn alive(&self) -> Result<&Connection, StoreFault> {
        if self.tx.is_autocommit() {
            return Err(StoreFault::Unavailable(
                "the local transaction was ended by a failed statement or by business code".into(),
            ));
        }
        Ok(&self.tx)
    }

    fn run(&self, statement: &str) -> Result<(), StoreFault> {
        let mut statement = self.alive()?.prepare_cached(statement).map_err(unavailable)?;
        statement.execute([]).map_err(unavailable)?;
        Ok(())
    }

    fn release(&mut self) -> Result<(), StoreFault> {
        if std::mem::take(&mut self.has_savepoint) {
            self.run("RELEASE sagamore_command")?;
        }
        Ok(())
    }

    /// Writes raised horizons, and purges behind the one of the home that wrote last: in the long run each home gets
    /// the share that it fills.
    fn tidy(&mut self) -> rusqlite::Result<()> {
        for (home, horizon) in &self.horizons {
            if horizon.raised > horizon.stored {
                rows::raise_horizon(&self.tx, *home, horizon.raised)?;
            }
        }
        let Some(home) = self.last_home else { return Ok(()) };
        let Some(horizon) = self.horizons.get(&home) else { return Ok(()) };
        let cursor = self.cursors.entry(home).or_default();
        purge::purge(&self.tx, home, horizon.raised, cursor, self.inserted)
    }
}

fn is_duplicate(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY | rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
    )
}

#[expect(clippy::needless_pass_by_value, reason = "it is called as `map_err(unavailable)`")]
fn unavailable(error: rusqlite::Error) -> StoreFault {
    StoreFault::Unavailable(error.to_string())
}

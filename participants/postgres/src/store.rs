//! The store: how it is opened, and its sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagamore_participant::Operation;
use sagamore_participant::barrier::{Branch, Home};
use sagamore_participant::doubt::InDoubt;
use sagamore_participant::heuristic::Heuristic;
use sagamore_participant::store::{Position, Store, StoreFault};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, NoTls, Socket};

use crate::connection::{Connection, Connector, SqlError, connector};
use crate::purge::Place;
use crate::rows::Statements;
use crate::transaction::PostgresTransaction;
use crate::tx::Tx;
use crate::xa::{PREFIX_BYTES_MAX, is_prefix};
use crate::{Hold, held, heuristics, in_doubt, positions, schema};

/// How a client waits on top of what the server waits.
const MARGIN: Duration = Duration::from_secs(1);

/// How a store behaves.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where the tables of this library are; made if it is not there.
    pub schema: String,
    /// The longest that a statement may take, and connecting: well within a step's timeout.
    pub statement_timeout: Duration,
    /// The longest that a statement waits for a lock, such as another instance's uncommitted row.
    pub lock_timeout: Duration,
    /// After so long without a statement the server gives up a local transaction: that of a stopped process.
    pub idle_timeout: Duration,
    /// What business code sees of others.
    pub isolation: Isolation,
    /// Votes are prepared transactions; see [`xa`](crate::xa).
    pub xa: bool,
    /// What their names begin with; see [`gid`](crate::xa::gid).
    pub gid_prefix: String,
}

impl Default for PostgresOptions {
    /// Schema `public`, 5 s for a statement, 1 s for a lock, 30 s idle, read committed, no XA, gids that begin with
    /// `sagamore`.
    fn default() -> Self {
        Self {
            schema: "public".into(),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
            isolation: Isolation::ReadCommitted,
            xa: false,
            gid_prefix: "sagamore".into(),
        }
    }
}

/// Isolation of local transactions. The library needs no more than the first; with the others, what fails to serialize
/// is done again in a local transaction of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it began.
    ReadCommitted,
    /// All see what was committed before the first.
    RepeatableRead,
    /// As if one local transaction ran after the other.
    Serializable,
}

impl Isolation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// Why a database is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer release of this library has been here.
    #[error("the database has schema {found}, this release knows {known}: take the newer release")]
    NewerSchema {
        /// In the database.
        found: i32,
        /// The newest this release knows.
        known: i32,
    },
    /// XA needs prepared transactions.
    #[error(
        "prepared transactions are switched off: set max_prepared_transactions, at least to the branches in doubt at a time"
    )]
    NoPreparedTransactions,
    /// It would have to be escaped, or leaves no room.
    #[error("a gid prefix has 1 to {PREFIX_BYTES_MAX} of the characters A-Z a-z 0-9 . _ : -")]
    GidPrefix,
    /// Anything else the server says.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl OpenError {
    /// Whether the same may work a little later.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Sql(error) if error.is_away())
    }
}

/// The store. Clones share one database and their knowledge of it.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Config,
    connector: Connector,
    pub(crate) options: PostgresOptions,
    pub(crate) statements: Statements,
    pub(crate) begin: String,
    /// How far purging has come.
    pub(crate) places: Mutex<HashMap<Home, Place>>,
}

impl PostgresStore {
    /// Connects without encryption, brings the tables of this library up to date, and runs `business`, statements that
    /// do the same for the business tables, in the same transaction. Several instances may open it at once.
    pub fn open(config: Config, options: PostgresOptions, business: &str) -> Result<Self, OpenError> {
        Self::open_with(NoTls, config, options, business)
    }

    /// The same, encrypted as `tls` does it.
    pub fn open_with<T>(
        tls: T,
        config: Config,
        options: PostgresOptions,
        business: &str,
    ) -> Result<Self, OpenError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let inner = Inner::new(config, connector(tls), options)?;
        let mut connection = inner.connect()?;
        // Others may be at it: no lock is waited for too long.
        connection
            .batch("SET lock_timeout = 0; SET statement_timeout = 0; SET client_min_messages = warning")?;
        schema::migrate(&mut connection, &inner.options.schema, business)?;
        if inner.options.xa {
            let slots = connection.wait(async |client| {
                let query = "SELECT current_setting('max_prepared_transactions')::int";
                client.query_one(query, &[]).await?.try_get::<_, i32>(0)
            })?;
            if slots == 0 {
                return Err(OpenError::NoPreparedTransactions);
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A store that is there, as it is: nothing is made or brought up to date, nothing is asked yet. For looking at another
    /// process's store.
    pub fn existing(config: Config, options: PostgresOptions) -> Result<Self, OpenError> {
        Ok(Self { inner: Arc::new(Inner::new(config, connector(NoTls), options)?) })
    }

    /// What branches in doubt hold, and every prepared transaction of this database that nobody here knows, the oldest
    /// first; `limit` of those that are held in rows at most.
    pub fn held(&self, limit: usize) -> Result<Vec<Hold>, StoreFault> {
        let mut connection = self.inner.connect().map_err(away)?;
        schema::check(&mut connection, &self.inner.options.schema).map_err(StoreFault::Unavailable)?;
        held::held(&mut connection, &self.inner.statements, limit)
    }
}

impl Inner {
    fn new(config: Config, connector: Connector, options: PostgresOptions) -> Result<Self, OpenError> {
        if !is_prefix(&options.gid_prefix) {
            return Err(OpenError::GidPrefix);
        }
        Ok(Self {
            config,
            connector,
            statements: Statements::new(&options.schema),
            begin: format!("BEGIN ISOLATION LEVEL {};", options.isolation.as_str()),
            options,
            places: Mutex::default(),
        })
    }

    fn connect(&self) -> Result<Connection, SqlError> {
        let PostgresOptions { statement_timeout, lock_timeout, idle_timeout, .. } = &self.options;
        let mut connection = Connection::open(&self.connector, &self.config, *statement_timeout + MARGIN)?;
        connection.batch(&format!(
            "SET statement_timeout = {};
             SET lock_timeout = {};
             SET idle_in_transaction_session_timeout = {};
             SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off'",
            statement_timeout.as_millis(),
            lock_timeout.as_millis(),
            idle_timeout.as_millis(),
        ))?;
        Ok(connection)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is called as `map_err(away)`")]
fn away(error: SqlError) -> StoreFault {
    StoreFault::Away(error.to_string())
}

/// One worker's connection; with XA two.
pub struct PostgresSession {
    pub(crate) work: Connection,
    /// Ends prepared transactions, which cannot be done inside one.
    pub(crate) side: Option<Connection>,
}

impl Store for PostgresStore {
    type Session = PostgresSession;
    type Business<'t> = Tx<'t>;
    type Transaction<'t> = PostgresTransaction<'t>;

    fn session(&self) -> Result<PostgresSession, StoreFault> {
        let mut work = self.inner.connect().map_err(away)?;
        schema::check(&mut work, &self.inner.options.schema).map_err(StoreFault::Unavailable)?;
        let side = if self.inner.options.xa {
            let mut side = self.inner.connect().map_err(away)?;
            // What it commits by itself is on the disk when the next prepared transaction is.
            side.batch("SET synchronous_commit = off").map_err(away)?;
            Some(side)
        } else {
            None
        };
        Ok(PostgresSession { work, side })
    }

    fn begin<'t>(&'t self, session: &'t mut PostgresSession) -> Result<PostgresTransaction<'t>, StoreFault> {
        let PostgresSession { work, side } = session;
        Ok(PostgresTransaction::new(&self.inner, Tx::new(work, &self.inner.begin), side.as_mut()))
    }

    fn is_alone(&self, operation: Operation) -> bool {
        self.inner.options.xa
            && matches!(operation, Operation::Prepare | Operation::Commit | Operation::Abort)
    }

    fn in_doubt(
        &self,
        session: &mut PostgresSession,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<InDoubt>, StoreFault> {
        in_doubt::in_doubt(&mut session.work, &self.inner.statements, after, limit)
    }

    fn heuristics(
        &self,
        session: &mut PostgresSession,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
        heuristics::all(&mut session.work, &self.inner.statements, after, limit)
    }

    const KEEPS_POSITIONS: bool = true;

    fn positions(
        &self,
        session: &mut PostgresSession,
        topic: &str,
    ) -> Result<BTreeMap<i32, i64>, StoreFault> {
        positions::of_topic(&mut session.work, &self.inner.statements, topic).map_err(|error| error.fault())
    }

    fn keep_positions(
        &self,
        session: &mut PostgresSession,
        topic: &str,
        kept: &[Position],
    ) -> Result<(), StoreFault> {
        positions::raise(&mut session.work, &self.inner.statements, topic, kept)
            .map_err(|error| error.fault())
    }

    fn forget_position(
        &self,
        session: &mut PostgresSession,
        topic: &str,
        partition: i32,
    ) -> Result<(), StoreFault> {
        positions::forget(&mut session.work, &self.inner.statements, topic, partition)
            .map_err(|error| error.fault())
    }
}

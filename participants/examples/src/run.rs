//! An example as a process, or as a part of one.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use sagamore_participant::memory::{BRANCHES_MAX_DEFAULT, MemoryStore};
use sagamore_participant::store::sqlite;
use sagamore_participant::{Counters, Fault, Handle, Runtime, RuntimeError};
use sagamore_participant_postgres::OpenError;
use sagamore_participant_postgres::tokio_postgres::Error;
use sagamore_schemas::ids::Name;

use crate::bank::{self, Bank};
use crate::books::{Books, Ledger};
use crate::database::{self, Database, DurableStore};
use crate::injection::Injection;
use crate::inventory::{self, Inventory, Product, Restock, Warehouse};
use crate::payment::{self, Accounts, Payment};
use crate::shipping::{self, Dispatch, Shipping};

/// Which example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reserves stock.
    Inventory,
    /// Charges customers.
    Payment,
    /// Books parcels.
    Shipping,
    /// Moves money.
    Bank,
    /// Holds the rows that others hold, too.
    Replica,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Inventory, Self::Payment, Self::Shipping, Self::Bank, Self::Replica];
    /// Those of the order saga, in its order.
    pub const OF_AN_ORDER: [Self; 3] = [Self::Inventory, Self::Payment, Self::Shipping];

    /// As on the command line, and as the participant is named.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Payment => "payment",
            Self::Shipping => "shipping",
            Self::Bank => "bank",
            Self::Replica => "replica",
        }
    }

    /// As a participant.
    pub fn name(self) -> Name {
        match self.as_str().parse() {
            Ok(name) => name,
            Err(_) => unreachable!("{self} is a name"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no example {0:?}: inventory, payment, shipping, bank or replica")]
pub struct UnknownKind(String);

/// What an example does besides its business.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How its runtime runs.
    pub runtime: sagamore_participant::Settings,
    /// Failures on demand.
    pub injection: Injection,
    /// Where it keeps what it does; left out, in memory.
    pub database: Option<Database>,
    /// In memory: one JSON line is appended here for each effect applied or undone.
    pub effects: Option<PathBuf>,
    /// In memory: branches it remembers at most.
    pub branches_max: usize,
    /// Inventory: what is on the shelves.
    pub products: Vec<Product>,
    /// Inventory: when deliveries come.
    pub restock: Restock,
    /// Payment: every customer's credit.
    pub credit_limit_cents: u64,
    /// Shipping: where no carrier goes.
    pub refused_countries: Vec<String>,
    /// Bank: what every account begins with.
    pub opening_cents: u64,
}

impl Settings {
    /// Without failures, with the sample's products, credit limit and countries.
    pub fn new(runtime: sagamore_participant::Settings) -> Self {
        Self {
            runtime,
            injection: Injection::default(),
            database: None,
            effects: None,
            branches_max: BRANCHES_MAX_DEFAULT,
            products: inventory::sample_products(),
            restock: Restock::default(),
            credit_limit_cents: payment::CREDIT_LIMIT_CENTS_DEFAULT,
            refused_countries: shipping::REFUSED_COUNTRIES_DEFAULT.map(str::to_owned).into(),
            opening_cents: bank::OPENING_CENTS_DEFAULT,
        }
    }
}

/// Why an example does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The journal of effects cannot be opened.
    #[error("{path}: {cause}", path = path.display())]
    Effects {
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Not an address of PostgreSQL.
    #[error("not a URL of PostgreSQL: {0}")]
    Url(Error),
    /// The database is away, or not fit.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The same for a file.
    #[error(transparent)]
    OpenSqlite(#[from] sqlite::OpenError),
    /// Not everyone votes so.
    #[error("{0} does not vote by prepared transactions: bank and replica do")]
    Votes(Kind),
    /// Not everyone lives in a file.
    #[error("{0} has no store in SQLite: only replica has")]
    NoSqlite(Kind),
    /// It has no store in memory.
    #[error("a replica needs a database")]
    NoDatabase,
    /// The runtime does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// It has ended, and its books cannot be read.
    #[error("the books cannot be read: {}", .0.reason())]
    Books(Fault),
}

/// An example at work. Dropped, it is stopped.
pub struct Running {
    handle: Handle,
    store: AnyStore,
}

enum AnyStore {
    Inventory(MemoryStore<Warehouse>),
    Payment(MemoryStore<Accounts>),
    Shipping(MemoryStore<Dispatch>),
    Bank(MemoryStore<bank::Accounts>),
    Durable(DurableStore),
}

/// Starts an example. The participant's name in `settings.runtime` decides whose commands it takes; usually it is
/// that of its kind.
pub fn spawn(kind: Kind, settings: &Settings) -> Result<Running, SpawnError> {
    if let Some(database) = &settings.database {
        let (handle, store) = database::spawn(kind, database, settings)?;
        return Ok(Running { handle, store: AnyStore::Durable(store) });
    }
    let mut runtime = settings.runtime.clone();
    if !settings.injection.delay.is_zero() {
        // A delay is each command's own; in a batch the first would wait for the last.
        runtime.batch_max = NonZeroUsize::MIN;
    }
    let ledger = Ledger::new(settings.effects.as_deref())
        .map_err(|cause| SpawnError::Effects { path: settings.effects.clone().unwrap_or_default(), cause })?;
    let injection = settings.injection.clone();
    let branches_max = settings.branches_max;
    let (handle, store) = match kind {
        Kind::Inventory => {
            let warehouse = Warehouse::new(&settings.products, settings.restock, ledger);
            let store = MemoryStore::with_branches_max(warehouse, branches_max);
            let handle = Runtime::spawn(Inventory { injection }, store.clone(), &runtime)?;
            (handle, AnyStore::Inventory(store))
        }
        Kind::Payment => {
            let accounts = Accounts::new(settings.credit_limit_cents, ledger);
            let store = MemoryStore::with_branches_max(accounts, branches_max);
            let handle = Runtime::spawn(Payment { injection }, store.clone(), &runtime)?;
            (handle, AnyStore::Payment(store))
        }
        Kind::Shipping => {
            let dispatch = Dispatch::new(settings.refused_countries.iter().cloned(), ledger);
            let store = MemoryStore::with_branches_max(dispatch, branches_max);
            let handle = Runtime::spawn(Shipping { injection }, store.clone(), &runtime)?;
            (handle, AnyStore::Shipping(store))
        }
        Kind::Bank => {
            let accounts = bank::Accounts::new(settings.opening_cents, ledger);
            let store = MemoryStore::with_branches_max(accounts, branches_max);
            let handle = Runtime::spawn(Bank { injection }, store.clone(), &runtime)?;
            (handle, AnyStore::Bank(store))
        }
        Kind::Replica => return Err(SpawnError::NoDatabase),
    };
    Ok(Running { handle, store })
}

/// Runs an example until `until` returns, which should when it has ended by itself, then stops it gracefully. What `sagamore participant` calls.
pub fn run(
    kind: Kind,
    settings: &Settings,
    until: impl FnOnce(&Running),
) -> Result<(Books, Counters), SpawnError> {
    let running = spawn(kind, settings)?;
    until(&running);
    running.stop();
    running.join()
}

impl Running {
    /// The books as they stand.
    pub fn books(&self) -> Result<Books, SpawnError> {
        self.store.books()
    }

    /// What its runtime has done so far.
    pub fn counters(&self) -> Counters {
        self.handle.counters()
    }

    /// Whether it is still at work.
    pub fn is_running(&self) -> bool {
        self.handle.is_running()
    }

    /// Asks for the graceful end.
    pub fn stop(&self) {
        self.handle.stop();
    }

    /// Waits for the end.
    pub fn join(self) -> Result<(Books, Counters), SpawnError> {
        let counters = self.handle.join()?;
        Ok((self.store.books()?, counters))
    }
}

impl AnyStore {
    fn books(&self) -> Result<Books, SpawnError> {
        Ok(match self {
            Self::Inventory(store) => store.read(Warehouse::books),
            Self::Payment(store) => store.read(Accounts::books),
            Self::Shipping(store) => store.read(Dispatch::books),
            Self::Bank(store) => store.read(bank::Accounts::books),
            Self::Durable(store) => store.books().map_err(SpawnError::Books)?,
        })
    }
}

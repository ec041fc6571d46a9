//! Stores on one server, each in a schema of its own.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sagamore_local_postgres::LocalPostgres;
use sagamore_participant::Fault;
use sagamore_participant_postgres::tokio_postgres::types::ToSql;
use sagamore_participant_postgres::tokio_postgres::{Client, Config, NoTls};
use sagamore_participant_postgres::{PostgresOptions, PostgresStore, Tx};
use tokio::runtime::Runtime;

use crate::bed::Bed;

/// As many branches in doubt as any test has.
const SLOTS: &str = "1000";

/// One for all tests that leave it alone.
pub(crate) static SERVER: LazyLock<LocalPostgres> = LazyLock::new(|| server(&[]));

/// A server of its own.
pub(crate) fn server(more: &[(&str, &str)]) -> LocalPostgres {
    let slots = [("max_prepared_transactions", SLOTS), ("max_connections", "300"), ("fsync", "off")];
    LocalPostgres::start(&[&slots, more].concat()).unwrap_or_else(|error| panic!("{error}"))
}

/// Another look than the store's own.
pub(crate) struct Look {
    runtime: Runtime,
    client: Client,
}

impl Look {
    pub(crate) fn at(config: &Config) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
        runtime.spawn(connection);
        Self { runtime, client }
    }

    pub(crate) fn run(&self, text: &str) {
        self.runtime.block_on(self.client.batch_execute(text)).unwrap();
    }

    pub(crate) fn number(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> i64 {
        self.runtime.block_on(self.client.query_one(query, parameters)).unwrap().get(0)
    }

    pub(crate) fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.runtime.block_on(self.client.query(query, &[])).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// A schema.
pub(crate) struct Place {
    pub(crate) schema: String,
    pub(crate) config: Config,
}

impl Place {
    pub(crate) fn on(server: &LocalPostgres) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let schema = format!("Bed \"{}\"", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut config: Config = server.url().parse().unwrap();
        let path = schema.replace('"', "\\\"\\\"").replace(' ', "\\ ");
        config.options(format!("-c search_path=\"{path}\""));
        Self { schema, config }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        // All schemas are on one server, and use the same ids.
        let gid_prefix = self.schema.replace([' ', '"'], "");
        PostgresOptions { schema: self.schema.clone(), gid_prefix, ..PostgresOptions::default() }
    }

    pub(crate) fn xa(&self) -> PostgresOptions {
        PostgresOptions { xa: true, ..self.options() }
    }

    pub(crate) fn open(&self, options: PostgresOptions) -> PostgresStore {
        PostgresStore::open(self.config.clone(), options, EFFECTS).unwrap()
    }

    pub(crate) fn look(&self) -> Look {
        Look::at(&self.config)
    }
}

/// Effects are added, so that what is prepared stands in nobody's way.
pub(crate) const EFFECTS: &str =
    "CREATE TABLE IF NOT EXISTS effects (subject TEXT NOT NULL, change BIGINT NOT NULL)";

pub(crate) fn add(tx: &mut Tx<'_>, subject: &str, change: i64) -> Result<(), Fault> {
    tx.execute("INSERT INTO effects (subject, change) VALUES ($1, $2)", &[&subject, &change])?;
    Ok(())
}

fn net(look: &Look, subject: &str) -> i64 {
    look.number("SELECT coalesce(sum(change), 0)::bigint FROM effects WHERE subject = $1", &[&subject])
}

pub(crate) struct Postgres(pub(crate) Place);

impl Default for Postgres {
    fn default() -> Self {
        Self(Place::on(&SERVER))
    }
}

impl Bed for Postgres {
    type Store = PostgresStore;

    fn open(&self) -> PostgresStore {
        self.0.open(self.0.options())
    }

    fn add(business: &mut Tx<'_>, subject: &str, change: i64) -> Result<(), Fault> {
        add(business, subject, change)
    }

    fn net(&self, subject: &str) -> i64 {
        net(&self.0.look(), subject)
    }

    fn branches(&self) -> usize {
        let query = "SELECT count(*) FROM
            (SELECT DISTINCT instance, home, birth, subject, step, branch FROM sagamore_barrier) b";
        usize::try_from(self.0.look().number(query, &[])).unwrap()
    }
}

pub(crate) struct Xa(pub(crate) Place);

impl Default for Xa {
    fn default() -> Self {
        Self(Place::on(&SERVER))
    }
}

impl Bed for Xa {
    type Store = PostgresStore;
    const HOLDS_VOTES: bool = true;

    fn open(&self) -> PostgresStore {
        self.0.open(self.0.xa())
    }

    fn add(business: &mut Tx<'_>, subject: &str, change: i64) -> Result<(), Fault> {
        add(business, subject, change)
    }

    fn net(&self, subject: &str) -> i64 {
        net(&self.0.look(), subject)
    }

    fn branches(&self) -> usize {
        let query = "SELECT count(*) FROM
            (SELECT instance, home, birth, subject, step, branch FROM sagamore_barrier
             UNION SELECT instance, home, birth, subject, step, branch FROM sagamore_xa
                 WHERE gid IN (SELECT gid FROM pg_prepared_xacts)) b";
        usize::try_from(self.0.look().number(query, &[])).unwrap()
    }
}

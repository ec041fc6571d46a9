//! The books of a database, as anybody with SQL sees them.

use std::collections::BTreeMap;

use sagamore_end_to_end::http::RUNTIME;
use sagamore_local_postgres::LocalPostgres;
use tokio_postgres::{Client, NoTls};

/// A look at one database.
pub struct Books(Client);

impl Books {
    pub fn of(database: &LocalPostgres) -> Self {
        let url = database.url();
        let (client, connection) = RUNTIME.block_on(tokio_postgres::connect(&url, NoTls)).unwrap();
        RUNTIME.spawn(connection);
        Self(client)
    }

    /// Prepared transactions and held cents.
    pub fn held(&self) -> i64 {
        self.number("SELECT count(*) FROM pg_prepared_xacts")
            + self.number("SELECT coalesce(sum(held_cents), 0)::bigint FROM accounts")
    }

    /// Accounts whose balance is not what was posted.
    pub fn wrong_accounts(&self) -> Vec<String> {
        let query = "SELECT account FROM accounts a WHERE balance_cents <>
            opening_cents + (SELECT coalesce(sum(cents), 0) FROM postings p WHERE p.account = a.account)";
        self.rows(query).iter().map(|row| row.get(0)).collect()
    }

    /// What each transaction has moved, and by how many postings.
    pub fn moved(&self) -> BTreeMap<String, (i64, i64)> {
        let query = "SELECT subject, sum(cents)::bigint, count(*) FROM postings GROUP BY subject";
        self.rows(query).iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    /// Cents made or lost here since the accounts were opened.
    pub fn change(&self) -> i64 {
        self.number("SELECT coalesce(sum(balance_cents - opening_cents), 0)::bigint FROM accounts")
    }

    /// What a query finds.
    pub fn rows(&self, query: &str) -> Vec<tokio_postgres::Row> {
        RUNTIME.block_on(self.0.query(query, &[])).unwrap()
    }

    fn number(&self, query: &str) -> i64 {
        RUNTIME.block_on(self.0.query_one(query, &[])).unwrap().get(0)
    }
}

/// Runs statements in a database.
pub fn run(url: &str, text: &str) {
    RUNTIME.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(text).await.unwrap();
    });
}

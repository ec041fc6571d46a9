//! A connection for looking: it can change nothing.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, Row};

use crate::connection::{Connection, SqlError, connector};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that reads what is committed, statement by statement, for tools that judge a participant's database.
pub struct Reader(Connection);

impl Reader {
    /// Connects without encryption.
    pub fn connect(config: &Config) -> Result<Self, SqlError> {
        let mut connection = Connection::open(&connector(NoTls), config, PATIENCE)?;
        connection.batch("SET default_transaction_read_only = on")?;
        Ok(Self(connection))
    }

    /// Runs a query; it is prepared once.
    pub fn query(&mut self, text: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, SqlError> {
        let statement = self.0.statement(text)?;
        self.0.wait(async |client| client.query(&statement, parameters).await)
    }
}

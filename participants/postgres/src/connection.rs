//! One connection, driven by the thread that waits for it; and how long it waits.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sagamore_participant::store::StoreFault;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, Socket, Statement};

/// Prepared statements that a connection keeps; beyond it all are prepared anew.
const STATEMENTS_KEPT: usize = 256;

/// Why a statement did not work.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// What the server or the connection says.
    #[error("{}", describe(.0))]
    Postgres(#[from] Error),
    /// No answer: whether it was done is not known, and the connection is given up.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// It was given up before.
    #[error("the connection is lost")]
    Lost,
    /// Only the library begins and ends local transactions.
    #[error("{0} is not for business code: the library begins and ends local transactions")]
    NotYours(String),
    /// The system gives no runtime.
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
}

impl SqlError {
    /// Whether the same may work a little later: nobody listens, or the server begins, ends or has no room.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code().is_none_or(|code| {
                [
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::TOO_MANY_CONNECTIONS,
                ]
                .contains(code)
            }),
            Self::Silent(_) | Self::Lost => true,
            Self::NotYours(_) | Self::Runtime(_) => false,
        }
    }

    /// `SQLSTATE`, when the server gave one.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            Self::Silent(_) | Self::Lost | Self::NotYours(_) | Self::Runtime(_) => None,
        }
    }

    /// Serialization failure or deadlock: the same again may work.
    pub fn is_transient(&self) -> bool {
        self.code().is_some_and(|code| {
            *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
    }

    /// As the store's own.
    pub(crate) fn fault(&self) -> StoreFault {
        if self.is_transient() { StoreFault::Conflict } else { StoreFault::Unavailable(self.to_string()) }
    }
}

fn describe(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{} {}{detail}", said.code().code(), said.message());
    }
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;
type Connecting<'c> = Pin<Box<dyn Future<Output = Result<(Client, Driver), Error>> + Send + 'c>>;
/// Connects, with whatever encryption it was made for.
pub type Connector = Arc<dyn for<'c> Fn(&'c Config) -> Connecting<'c> + Send + Sync>;

/// Connections encrypted as `tls` does it.
pub fn connector<T>(tls: T) -> Connector
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    Arc::new(move |config| {
        let tls = tls.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            let driver: Driver = Box::pin(async move {
                if let Err(cause) = connection.await {
                    tracing::debug!(%cause, "a connection to PostgreSQL has ended");
                }
            });
            Ok((client, driver))
        })
    })
}

/// A connection. What is asked of it after it was lost is refused.
pub struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
    patience: Duration,
    is_lost: bool,
    // Last: what drives the connection goes after everything that uses it.
    runtime: Runtime,
}

impl Connection {
    /// Connects. `patience`: how long that, and each answer, is waited for.
    pub fn open(connector: &Connector, config: &Config, patience: Duration) -> Result<Self, SqlError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(SqlError::Runtime)?;
        let connecting = async { tokio::time::timeout(patience, connector(config)).await };
        let connected = runtime.block_on(connecting).map_err(|_| SqlError::Silent(patience))?;
        let (client, driver) = connected?;
        runtime.spawn(driver);
        Ok(Self { client, statements: HashMap::new(), patience, is_lost: false, runtime })
    }

    /// Waits for what is sent.
    pub fn wait<T>(&mut self, sent: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, SqlError> {
        if self.is_lost {
            return Err(SqlError::Lost);
        }
        let patience = self.patience;
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(patience, sent(&self.client)).await });
        let Ok(answer) = answer else {
            self.is_lost = true;
            return Err(SqlError::Silent(patience));
        };
        answer.map_err(|error| {
            self.is_lost |= self.client.is_closed();
            error.into()
        })
    }

    /// Several statements as text, without parameters.
    pub fn batch(&mut self, text: &str) -> Result<(), SqlError> {
        self.wait(async |client| client.batch_execute(text).await)
    }

    pub(crate) fn is_prepared(&self, text: &str) -> bool {
        self.statements.contains_key(text)
    }

    /// Prepared once.
    pub fn statement(&mut self, text: &str) -> Result<Statement, SqlError> {
        if let Some(known) = self.statements.get(text) {
            return Ok(known.clone());
        }
        let statement = self.wait(async |client| client.prepare(text).await)?;
        if self.statements.len() >= STATEMENTS_KEPT {
            self.statements.clear();
        }
        self.statements.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }
}

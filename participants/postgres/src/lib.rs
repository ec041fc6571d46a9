//! A store in PostgreSQL for participants, and atomic commitment with its own two phases (XA).
//!
//! Business tables stand in the same database, and business code writes them through the open local transaction, a
//! [`Tx`]. Any number of workers, processes and machines may share one database: what they must not do twice is decided
//! by a unique key, and what they wait for is waited for briefly.
//!
//! ```text
//!  begin     ┐
//!  foresee   ┘ BEGIN, and the rows of all branches of the batch            one round trip
//!  command     SAVEPOINT ─ business ─ row                                   the business's own, and one
//!  commit      now and then horizon and purge; COMMIT                       one
//! ```
//! What needs no answer of its own (`BEGIN`, savepoints) travels with the statement that follows it.
//!
//! One session, a connection of its own, belongs to one worker for as long as it works: the runtime's workers are the
//! pool. They block, and each connection is driven by the thread that waits for it; inside a tokio runtime they may
//! only be used from `spawn_blocking`.
//!
//! With [`PostgresOptions::xa`] a vote is a prepared transaction of PostgreSQL: see [`xa`].
//!
//! Deliberately absent: a pool beside the workers, retries of business code (the coordinator asks again), migrations of
//! business tables beyond the text that [`PostgresStore::open`] runs.
//!
//! ```no_run
//! use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
//! use sagamore_participant_postgres::{PostgresOptions, PostgresStore, Tx};
//!
//! struct Theatre;
//!
//! impl Participant for Theatre {
//!     type Store = PostgresStore;
//!
//!     fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
//!         let taken = tx.execute(
//!             "INSERT INTO seats (seat, holder) VALUES ('A1', $1) ON CONFLICT DO NOTHING",
//!             &[&command.address.subject.as_str()],
//!         )?;
//!         if taken == 0 { Ok(Effect::refused("taken: A1")) } else { Effect::done(&"A1") }
//!     }
//!
//!     fn compensate(&self, tx: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
//!         tx.execute("DELETE FROM seats WHERE seat = 'A1'", &[])?;
//!         Ok(())
//!     }
//! }
//!
//! let store = PostgresStore::open(
//!     "postgresql://theatre@127.0.0.1/theatre".parse()?,
//!     PostgresOptions::default(),
//!     "CREATE TABLE IF NOT EXISTS seats (seat TEXT PRIMARY KEY, holder TEXT NOT NULL)",
//! )?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod held;
mod heuristics;
mod in_doubt;
mod positions;
mod purge;
mod reader;
mod rows;
mod schema;
mod store;
mod transaction;
mod tx;
pub mod xa;

pub use connection::{Connection, Connector, SqlError, connector};
pub use held::{Hold, Locks, Waiter};
pub use reader::Reader;
pub use schema::lock_key;
pub use store::{Isolation, OpenError, PostgresOptions, PostgresSession, PostgresStore};
pub use tokio_postgres;
pub use transaction::PostgresTransaction;
pub use tx::Tx;

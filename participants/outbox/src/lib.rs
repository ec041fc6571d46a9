//! Outbox and inbox in PostgreSQL: a service starts transactions and answers commands from inside its own database
//! transaction, in SQL, with neither a library of ours nor a Kafka client.
//!
//! ```text
//!   service ──start()──▶ outbox ──────────▶ ┌───────┐ ──▶ inbox, and the service's own topics
//!   service ──reply()──▶ outbox ──────────▶ │ relay │
//!   service ◀──take()─── commands (open) ◀─ └───────┘ ◀── commands.<participant>
//! ```
//! One relay is active at a time, the one that holds an advisory lock; the others stand by. Its lock, its outbox and its
//! commands are of one connection, worked by one thread: who has lost the lock can write nothing more. What it had handed
//! to Kafka before comes twice at worst, under the same id.
//!
//! | module | what |
//! |---|---|
//! | `schema` | the tables and functions that services use (`schema.sql`) |
//! | `route` | pure: where a row of the outbox goes, or why nowhere |
//! | `handover` ◀ `lookup` | takes rows in order, sends them, deletes what was acknowledged |
//! | `inbox` ◀ `batch` ◀ `rows` | commands into the table, decided by the barrier of the participant library |
//! | `commands` | which commands have come, and how far they are kept |
//! | `chores` | inquiries of branches in doubt; purging behind the watermark |
//! | `relay` | the thread |
//!
//! Why a lock and not `FOR UPDATE SKIP LOCKED` among several relays: two of them would overtake each other, and rows of one
//! aggregate would leave out of order; one relay is not what limits (see the example `figures`). Why not `LISTEN`: `NOTIFY`
//! takes a lock that all commits of the database share, is lost while nobody listens, and so needs polling beside it. Why
//! not logical decoding: it needs a replication role and `wal_level=logical`, and a slot nobody reads fills the disk. Who has
//! that already may let Debezium forward the outbox: its columns and keys are those of its outbox event router.
//!
//! Deliberately absent: business code, a pool, TLS to the database.

mod batch;
mod chores;
mod commands;
mod counters;
mod handover;
pub mod inbox;
mod lookup;
mod relay;
pub mod route;
mod rows;
pub mod schema;

pub use counters::Counters;
pub use relay::{Handle, Relay, RelayError, Settings};

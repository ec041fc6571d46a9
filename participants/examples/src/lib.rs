//! The example participants: inventory, payment and shipping of an order, and a bank.
//!
//! | participant | `execute` takes | and answers | refuses | `compensate` |
//! |---|---|---|---|---|
//! | `inventory` | `{"order": …, "lines": [{"product": 11, "quantity": 12}]}` | `{"reservation": "res-order-1-0-7", "units": 12}` | `out-of-stock: product 11`, `unknown-product: 11` | releases |
//! | `payment` | `{"customer": "VINET", "amount_cents": 44000}` | `{"receipt": "rcp-order-1-0-7", "amount_cents": 44000}` | `credit-limit: customer VINET` | refunds |
//! | `shipping` | `{"country": "France", "order": …}` | `{"tracking": "trk-order-1-0-7"}` | `no-carrier: Norway` | cancels the booking |
//! | `replica` | nothing: `prepare` takes a change of a row | | [`replica`] | |
//! | `points` | `{"customer": "VINET", "points": 40}` | the same | `insufficient-points: customer VINET` | takes it back |
//! | `bank` | `{"account": "alice", "debit_cents": 100}`, or `credit_cents` | `{"posting": "pst-order-1-0-7"}` | `insufficient-funds: account alice` | takes it back |
//!
//! `inventory`, `bank` and `points` also vote: `prepare` takes the same and holds it until `commit` or `abort`.
//!
//! Unknown fields are ignored: a line may be passed on as it stands in an order. What cannot be read is refused
//! as `bad-input: …`. Results follow from transaction id and birth.
//!
//! They keep everything in memory: **a killed example has lost its stock and what it has answered**, and a command that
//! comes again is done again. Each is one process: two instances would not know of each other's operations. With
//! [`Settings::database`] they live in PostgreSQL instead (`on_postgres`), may be killed, and run as several. So may
//! [`points`], which has nothing but Kafka.
//!
//! [`Settings::effects`] names a file that gets one JSON line for each effect, written as it is kept, for tests that
//! trust nobody's counters:
//!
//! ```json
//! {"participant":"payment","effect":"applied","operation":"execute","key":"<instance>/order-1/0-7/charge/payment","attempt":1,"amount":44000}
//! ```

mod books;
mod database;
mod injection;
mod on_postgres;
mod run;

pub mod bank;
pub mod inventory;
pub mod payment;
pub mod points;
pub mod replica;
pub mod shipping;

pub use books::{Books, Ledger, Totals, WATCHED_MAX};
pub use database::{Database, UnknownVotes, Votes};
pub use injection::Injection;
pub use run::{Kind, Running, Settings, SpawnError, UnknownKind, run, spawn};

use sagamore_participant::{Command, Fault, Payload};
use serde::de::DeserializeOwned;

/// A name for a result: the same for every attempt, another for every life of a transaction.
fn token(kind: &str, command: &Command<'_>) -> String {
    format!("{kind}-{}-{}", command.address.subject, command.address.birth)
}

/// Our own result, as it was stored.
fn stored<T: DeserializeOwned>(done: &Payload) -> Result<T, Fault> {
    read(done.as_ref().json(), "the stored result")
}

/// The command's `data`, where no business reason may refuse it.
fn asked<T: DeserializeOwned>(command: &Command<'_>) -> Result<T, Fault> {
    read(command.data.json(), "data")
}

fn read<T: DeserializeOwned>(json: Option<&str>, what: &str) -> Result<T, Fault> {
    let Some(json) = json else { return Err(Fault::new(format!("{what} is not JSON"))) };
    serde_json::from_str(json).map_err(|error| Fault::new(format!("{what}: {error}")))
}

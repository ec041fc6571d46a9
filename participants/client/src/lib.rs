//! Start transactions from a program, have them driven to their end, and wait for the outcome.
//!
//! ```text
//! program ──Client──HTTP──▶ any server ──▶ the log ──▶ commands to the participants, until it has ended
//!    ▲                          │
//!    └────────outcome───────────┘
//! ```
//! By a definition that has been applied, or by the participants themselves:
//!
//! ```no_run
//! use std::time::Duration;
//! use sagamore_client::{Client, Error, Outcome};
//! # use serde_json::json;
//! # async fn run() -> Result<(), Error> {
//! let client = Client::connect("http://127.0.0.1:8088")?;
//!
//! let order = json!({"customer": "VINET", "total_cents": 44_000});
//! let handle = client.start("order").id("order-1234").input(&order)?.send().await?;
//! println!("{}", handle.wait(Duration::from_secs(30)).await?);
//!
//! let transfer = client
//!     .transaction("transfer-77")
//!     .two_phase()
//!     .participant("bank-a", &json!({"account": "alice", "debit_cents": 100}))?
//!     .participant("bank-b", &json!({"account": "bob", "credit_cents": 100}))?
//!     .deadline("30s")
//!     .start()
//!     .await?;
//! match transfer.wait(Duration::from_secs(60)).await? {
//!     Outcome::Committed(results) => println!("{:?}", results.of::<serde_json::Value>("bank-a")),
//!     outcome => println!("{outcome}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Whatever happens on the way, an id is one transaction: the same id and the same `time` are sent again until a server
//! answers. A timeout means that nothing is known, never that it failed. Deliberately absent: Kafka, TLS (it belongs
//! before the server), any decision; a program that ends after [`Start::send`] leaves a transaction that goes on.

mod client;
mod error;
mod handle;
mod outcome;
mod shape;

pub mod http;
pub mod start;

pub use client::{Client, Start};
pub use error::Error;
pub use handle::Handle;
pub use outcome::{Outcome, ResultError, Results};
pub use sagamore_schemas::ids::Time;
pub use shape::NewTransaction;

//! What the promises are checked with: a real Kafka, real processes, and a checker that believes none of them.
//!
//! ```text
//!   test ──▶ Stage ──spawns──▶ sagamore server, participant, define, …   killed, stopped, continued
//!     │                               │
//!     ├────▶ Load ──starts, over HTTP and Kafka──▶ what was asked and answered ─┐
//!     │                                                                          ▼
//!     └────▶ Evidence ◀── outcomes, dead letters (topics), effects (files) ──▶ check ──▶ violations
//! ```
//! The checker knows the wire from the design's page only: it shares no type with what it checks. Deliberately absent:
//! fixed waits. Everything waits for a condition, up to a deadline.

use std::sync::LazyLock;

use sagamore_local_kafka::{ClusterSize, LocalKafka};

pub mod checker;
pub mod http;
pub mod load;
pub mod process;
pub mod random;
pub mod stage;
pub mod topics;
pub mod wait;

/// The whole of the binary `sagamore`, for other crates whose tests run it as a process.
pub use sagamore::cli::main as sagamore_main;

/// One broker for all tests that leave it alone; each has topics under a prefix of its own.
pub static KAFKA: LazyLock<LocalKafka> =
    LazyLock::new(|| LocalKafka::start(ClusterSize::One).unwrap_or_else(|error| panic!("{error}")));

/// As many shards as every test has unless it says otherwise.
pub const PARTITIONS: i32 = 4;

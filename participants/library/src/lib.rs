//! Write a participant: command in, effect, reply out, each effect once.
//!
//! ```text
//!  runtime ──command──▶ perform ──▶ barrier    decides, pure
//!     ▲                    │ ├────▶ participant  your effect
//!     └──── reply ─────────┘ └────▶ store        effect and answer in one local transaction
//! ```
//! Dependencies point to the right: `barrier` knows nothing, `perform` no Kafka, `runtime` everything. Beside `perform`
//! stands `doubt`: what a branch that has voted asks, and how it is settled without its command; and `heuristic`: how by hand.
#![doc = include_str!("../../README.md")]

pub mod barrier;
pub mod code;
pub mod doubt;
pub mod heuristic;
pub mod participant;
pub mod perform;
pub mod planted;
#[cfg(feature = "kafka")]
pub mod restore;
#[cfg(feature = "kafka")]
pub mod runtime;
pub mod store;

pub use participant::{Effect, Fault, Open, Participant, read_data};
#[cfg(feature = "kafka")]
pub use runtime::kafka_only::{KafkaOnly, KafkaOnlySettings, TableError, read_table};
#[cfg(feature = "kafka")]
pub use runtime::{Counters, Forgotten, Handle, Runtime, RuntimeError, Settings, WhenAway};
#[cfg(feature = "kafka")]
pub use sagamore_kafka::client::ClientSettings;
pub use sagamore_schemas::wire::{Command, Operation, Payload};
pub use store::memory;

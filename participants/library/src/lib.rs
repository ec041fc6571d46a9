//! Write a participant: command in, effect, reply out, each effect once.
//!
//! ```text
//!  runtime ──command──▶ perform ──▶ barrier    decides, pure
//!     ▲                    │ ├────▶ participant  your effect
//!     └──── reply ─────────┘ └────▶ store        effect and answer in one local transaction
//! ```
//! Dependencies point to the right: `barrier` knows nothing, `perform` no Kafka, `runtime` everything. Beside `perform`
//! stands `doubt`: what a branch that has voted asks, and how it is settled without its command.
#![doc = include_str!("../../README.md")]

pub mod barrier;
pub mod doubt;
pub mod participant;
pub mod perform;
pub mod planted;
#[cfg(feature = "kafka")]
pub mod runtime;
pub mod store;

pub use participant::{Effect, Fault, Open, Participant, read_data};
#[cfg(feature = "kafka")]
pub use runtime::kafka_only::{KafkaOnly, KafkaOnlySettings};
#[cfg(feature = "kafka")]
pub use runtime::{Counters, Handle, Runtime, RuntimeError, Settings, WhenAway};
pub use sagamore_schemas::wire::{Command, Operation, Payload};
pub use store::memory;

//! The pure fold: from the records of an inbox partition to commands, outcomes and state.
//!
//! ```text
//!  inbox k ──Record──▶ shard::Shard::apply ──Output──▶ commands, outcomes, dead letters
//!                        │  start: admission   protocol: the tables        finished, timers, journal
//!                        ▼
//!                      checkpoint::Draft ──StateRecord──▶ state k ──▶ restore::StateReader ──▶ Shard
//! ```
//! `owner` is what an owner of a shard does around the fold, still without I/O: what to send, when to store, what is
//! due; `takeover` how he becomes one. Deliberately absent, and kept out by `clippy.toml` and the tidy test: clocks, random sources, tokio, rdkafka.

pub mod checkpoint;
pub mod definition;
pub mod definitions;
pub mod finished;
pub mod identity;
pub mod invariants;
pub mod journal;
pub mod outbox;
pub mod output;
pub mod owner;
pub mod planted;
pub mod rebuild;
pub mod restore;
pub mod settings;
pub mod shard;
pub mod snapshot;
pub mod takeover;
pub mod timers;
pub mod transaction;
pub mod view;

mod child;
mod inquiry;
mod outcome;
mod protocol;
mod start;
mod stored;
mod turn;

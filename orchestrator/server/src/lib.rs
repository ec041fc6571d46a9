//! Sagamore, the server: it does what `sagamore-decider` decides.
//!
//! ```text
//!            ┌──────────── server ─────────────────────────────────────────────┐
//!  clients ─▶│ api (tokio) ──start, verb──▶ inbox        waiters ◀─ what is told │
//!            │                                │             ▲                  │
//!            │ lane (thread) ◀──records───────┘             │                  │
//!            │   per shard: owner (pure) ──outputs──▶ commands, outcomes       │
//!            │ checkpointer (thread per shard) ──▶ state, journal              │
//!            └─────────────────────────────────────────────────────────────────┘
//! ```

pub mod api;
pub mod audit;
pub mod checkpointer;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dead_letters;
pub mod definitions_tail;
pub mod demo;
pub mod findings;
pub mod halt;
pub mod lane;
pub mod metrics;
pub mod predict;
pub mod rebuild;
pub mod server;
pub mod site;
pub mod snapshots;
pub mod telemetry;
pub mod view;
pub mod waiters;
pub mod watch;

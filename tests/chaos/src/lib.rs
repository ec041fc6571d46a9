//! Faults on a real Kafka, several at once, for as long as wanted; then a check that believes nobody.
//!
//! ```text
//!  client ──starts, duplicates, contradictions, cancels──▶ servers ◀──▶ participants (a ledger in SQLite each)
//!    │ notes, on disk before and after                        ▲  proxy  ▲        │
//!    │                                                        └─▶ brokers ◀┘     │
//!    │   schedule(seed) ──▶ faults ──▶ kills, pauses, cuts, holds, full disks, …  │
//!    ▼                                                                            ▼
//!  evidence: notes · inbox, commands, outcomes, journal, state, dead letters · ledgers ──▶ check ──▶ verdict
//! ```
//! The check shares no type with what it checks. Deliberately absent: load; the rate is moderate, the faults are not.
//!
//! `cargo chaos --minutes 60 --seed 7`: the same seed is the same schedule; what real time makes of it differs.

pub mod check;
pub mod client;
pub mod evidence;
pub mod fate;
pub mod faults;
pub mod garbage;
pub mod journal;
pub mod member;
pub mod network;
pub mod notes;
pub mod operator;
pub mod participant;
pub mod proxy;
pub mod run;
pub mod schedule;
pub mod state;
pub mod tail;
pub mod world;

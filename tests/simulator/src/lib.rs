//! The simulator: the decider's owners and takeovers, and the library's barrier, on a modelled Kafka, in one thread, from
//! one seed, in virtual time.
//!
//! ```text
//!  workload ─▶ client ─▶ ┌──────── kafka (modelled) ────────┐ ─▶ desk: the real barrier, a ledger
//!                        │ inbox  state  journal  commands  │
//!  faults ───▶ world ──▶ └──────────────────────────────────┘ ◀─▶ server: the real Owner and Takeover
//!              (events)          │
//!                                └─▶ witness: a fold that nothing ever happens to, and the invariants
//! ```
//! Real: everything of `sagamore_decider` (fold, owner, outbox, checkpoint, takeover) and the participant's barrier,
//! `perform` and memory store. Modelled: Kafka, the network, the group, the threads of a server. Each hop is an event of
//! its own, so a crash, a pause or a rebalance can fall between any two.

pub mod defects;
pub mod desk;
pub mod faults;
pub mod kafka;
pub mod report;
pub mod run;
pub mod witness;
pub mod workload;
pub mod world;

mod asked;
mod client;
mod family;
mod handling;
mod hole;
#[expect(clippy::unwrap_used, reason = "the fold's test harness; a panic is a violation here")]
#[path = "../../../orchestrator/decider/tests/fold/harness/journal.rs"]
mod rows;
mod server;
mod trouble;

/// A stream of chance: of one seed, for one purpose.
pub(crate) fn stream(seed: u64, purpose: &str, number: u64) -> fastrand::Rng {
    let mut mixed = seed ^ 0x9e37_79b9_7f4a_7c15;
    for byte in purpose.bytes().chain(number.to_le_bytes()) {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
    fastrand::Rng::with_seed(mixed)
}

//! From an input to what becomes of a transaction.
//!
//! ```text
//! reply, undeliverable, timer, retry ──▶ call ──▶ saga │ two_phase │ three_phase │ child ──┐
//! deadline, cancel ────────────────────────────────────────────────────────────────────────┴──▶ decision ──▶ asks, outcome
//! ```
//! `resolve` is a person who answers in the place of a participant, `pause` one who holds it. `call` is one operation being asked and answered, whatever it is. One file per commit protocol says what its answers
//! mean to a branch, and has the table of a branch. `decision` is the transaction: when it commits, when it turns back,
//! what is asked next; it has the table of decisions.

pub(crate) mod call;
pub(crate) mod child;
pub(crate) mod decision;
pub(crate) mod pause;
pub(crate) mod resolve;
mod saga;
mod three_phase;
mod two_phase;

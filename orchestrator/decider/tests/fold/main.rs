//! The fold seen from outside: records in, outputs and journal out.
//!
//! `saga_*`, `atomic`, `mixed`, `children` and `pause` are transactions as data: given a definition, when a script is played, then this tree. Each of them is also
//! played with every record twice, and with a takeover after every record. `rows` demands that together they take every
//! row of the protocols' tables. `properties` and `takeover` generate what nobody thought of.

#![expect(clippy::unwrap_used, reason = "the harness belongs to the tests")]

mod harness;

mod admission;
mod atomic;
mod children;
mod edges;
mod inputs;
mod limits;
mod mixed;
mod outbox;
mod owner;
mod pause;
mod properties;
mod rows;
mod saga_back;
mod saga_forward;
mod saga_stuck;
mod takeover;

//! Write a participant: command in, effect, reply out, each effect once.

pub mod barrier;
pub mod participant;
pub mod perform;
pub mod runtime;
pub mod store;

pub use participant::{Effect, Fault, Open, Participant, read_data};
pub use runtime::{Counters, Handle, Runtime, RuntimeError, Settings};
pub use sagamore_schemas::wire::{Command, Operation, Payload};
pub use store::memory;

//! What business code implements, and what it says.

use std::fmt;

use sagamore_schemas::wire::{Command, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::Store;

/// What business code works on: the open local transaction of the participant's store.
pub type Open<'t, P> = <<P as Participant>::Store as Store>::Business<'t>;

/// A participant: what its operations do, in an open local transaction.
///
/// The library calls each operation at most once per branch with an effect that lasts: duplicates, reordered and late
/// commands never reach it. What it writes is kept only together with its answer: after [`Effect::Refused`] and
/// after a [`Fault`] it is rolled back. It touches nothing but `tx`; what cannot be rolled back (a mail, a call to
/// somebody else) is not an effect of an operation.
pub trait Participant: Send + Sync + 'static {
    /// Where effects and remembered operations are kept.
    type Store: Store;

    /// Called for every command, duplicates too, before the local transaction opens; a fault is answered `error` and
    /// nothing is touched. For what needs no store: switches, rate limits, failure injection.
    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        let _ = command;
        Ok(())
    }

    /// Saga: does it.
    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault>;

    /// Saga: undoes an `execute` (or a committed `prepare`) that answered `done`. No business reason refuses it.
    fn compensate(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, done: &Payload)
    -> Result<(), Fault>;

    /// Atomic commitment: votes, and from a yes on is able to do either, across crashes. By default votes no.
    fn prepare(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        let _ = (tx, command);
        Ok(Effect::refused("prepare-not-supported"))
    }

    /// Three-phase commit: learns that every vote was yes. By default nothing.
    fn precommit(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let _ = (tx, command, done);
        Ok(())
    }

    /// Atomic commitment: makes what was prepared final. No business reason refuses it.
    fn commit(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let _ = (tx, command, done);
        Err(Fault::new("commit is not implemented, although prepare voted yes"))
    }

    /// Atomic commitment: lets go what was prepared. No business reason refuses it.
    fn abort(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let _ = (tx, command, done);
        Err(Fault::new("abort is not implemented, although prepare voted yes"))
    }
}

/// What `execute` or `prepare` came to.
#[derive(Debug)]
pub enum Effect {
    /// Done (voted yes), with a result for later steps and for the undoing.
    Done(Payload),
    /// A business no, final; what was written is rolled back.
    Refused(String),
}

impl Effect {
    /// Done, with this result.
    pub fn done(result: &impl Serialize) -> Result<Self, Fault> {
        Ok(Self::Done(Payload::Json(serde_json::value::to_raw_value(result)?)))
    }

    /// A business no. By custom a word for programs, and after a colon what is meant: `out-of-stock: product 11`.
    pub fn refused(reason: impl fmt::Display) -> Self {
        Self::Refused(reason.to_string())
    }
}

/// A technical failure: answered `error`, rolled back, never stored, tried again by the coordinator.
///
/// Every error converts, so that `?` works on whatever a database says.
#[derive(Debug)]
pub struct Fault(String);

impl Fault {
    /// With a reason that an operator reads; no payloads, no secrets.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The command's `data` as a value, or the refusal `bad-input` that says what is wrong with it.
pub fn read_data<T: DeserializeOwned>(command: &Command<'_>) -> Result<T, Effect> {
    let Some(text) = command.data.json() else {
        return Err(Effect::refused("bad-input: data_base64 where JSON is expected"));
    };
    serde_json::from_str(text).map_err(|error| Effect::refused(format_args!("bad-input: {error}")))
}

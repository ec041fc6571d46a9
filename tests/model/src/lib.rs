//! The protocols at small scale, exhaustively: every order of events within a bound, not a sample of them.
//!
//! A model is a [`Protocol`]: a state machine for stateright, with properties by name, and words for what happens in
//! it. [`check`] visits every state it can reach. Each model can be had with one mechanism switched off; then
//! [`refute`] finds the shortest way in which a property breaks, and tells it as a numbered list of sentences. Which
//! rule of the design is covered by which model stands in the README beside.
//!
//! Deliberately absent: the code of the product. A model says that the protocol is right; that the code follows the
//! protocol is for the simulator, which runs the decider itself.

pub mod barrier;
pub mod checkpoint;
pub mod commitment;
pub mod saga;
mod search;
pub mod three_phase;
pub mod timers;
pub mod two_phase;

pub use search::{Refutation, Report, check, refute};

use std::fmt::Debug;
use std::hash::Hash;

use stateright::Model;

/// A model that can be told in words.
pub trait Protocol:
    Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Clone + Debug + PartialEq>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Its name, as in the table.
    fn name(&self) -> &'static str;

    /// The mechanism that is switched off, and the property that breaks without it.
    fn without(&self) -> Option<Missing>;

    /// One sentence: what an action did.
    fn tell(&self, before: &Self::State, action: &Self::Action, after: &Self::State) -> String;

    /// One sentence: what is wrong with the state in which a property is broken.
    fn tell_end(&self, state: &Self::State) -> String;
}

/// A mechanism that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// In a few words, and the name of its counterexample's file.
    pub mechanism: &'static str,
    /// The property that it upholds.
    pub upholds: &'static str,
}

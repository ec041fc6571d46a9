//! The protocols at small scale, exhaustively: every order of events within a bound, not a sample of them.
//!
//! A model is a `Protocol`: a state machine for stateright, with properties by name, and words for what happens in
//! it. [`check_all`] visits every state they can reach. Each model can be had with one mechanism switched off; then
//! [`refute_all`] finds the shortest way in which a property breaks, and tells it as a numbered list of sentences. Which
//! rule of the design is covered by which model stands in the README beside.
//!
//! Deliberately absent: the code of the product. A model says that the protocol is right; that the code follows the
//! protocol is for the simulator, which runs the decider itself.

mod barrier;
mod checkpoint;
mod commitment;
mod saga;
mod search;
mod three_phase;
mod timers;
mod two_phase;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::Model;

use barrier::Barrier;
use checkpoint::Checkpoint;
use saga::Saga;
use search::{check, refute};
use three_phase::ThreePhase;
use timers::Timers;
use two_phase::TwoPhase;

pub use search::{Refutation, Report};

/// Takeovers after the first owner; the properties add one more in every state.
const TAKEOVERS: u8 = 1;

/// Visits every state of every model.
pub fn check_all() -> Vec<Report> {
    vec![
        check(&Checkpoint { takeovers: TAKEOVERS, without: None }),
        check(&Timers::default()),
        check(&Barrier::default()),
        check(&Saga::default()),
        check(&TwoPhase::default()),
        check(&ThreePhase::default()),
    ]
}

/// Switches off one mechanism after the other.
pub fn refute_all() -> Vec<Refutation> {
    let checkpoints = checkpoint::Without::ALL;
    let checkpoints =
        checkpoints.map(|without| refute(&Checkpoint { takeovers: TAKEOVERS, without: Some(without) }));
    let timers = timers::Without::ALL.map(|without| refute(&Timers { without: Some(without) }));
    let barriers = barrier::Without::ALL.map(|without| refute(&Barrier { without: Some(without) }));
    let sagas = saga::Without::ALL.map(|without| refute(&Saga { without: Some(without) }));
    let two_phase = commitment::Without::ALL.map(|without| match without {
        commitment::Without::Waiting => refute(&ThreePhase { without: Some(without) }),
        commitment::Without::Remembering
        | commitment::Without::Forgotten
        | commitment::Without::Acknowledgements
        | commitment::Without::Sets
        | commitment::Without::VotesInLog => refute(&TwoPhase { without: Some(without) }),
    });
    let all = checkpoints.into_iter().chain(timers).chain(barriers).chain(sagas).chain(two_phase);
    all.flatten().collect()
}

/// A model that can be told in words.
trait Protocol:
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

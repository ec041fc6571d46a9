//! Three-phase commit: section 5 of the design ("3PC, honestly"), rule 7.
//!
//! Source: Skeen 1981. Skeen's termination by timeout assumes a synchronous network; here the decision stands in the
//! log, and a participant in doubt asks and waits. [`Without::Waiting`] is the unilateral termination: abort when
//! prepared, commit when precommitted.
//!
//! What is in it, and what is left out: see `commitment`. All yes: `precommit` leaves, and from then on neither a no
//! nor the deadline aborts; all precommitted: `commit`.
//!
//! **Properties.** [`ATOMIC`], [`DURABLE_FIRST`], [`REMEMBERED`], [`NO_GUESS`], [`ENDS`].

use stateright::{Model, Property};

use crate::commitment::{
    ATOMIC, Action, Answer, Command, DURABLE_FIRST, ENDS, NO_GUESS, Participant, Phase, REMEMBERED, Record,
    Rules, State, Without, tell, tell_end,
};
use crate::{Missing, Protocol};

/// The model.
#[derive(Debug, Clone, Default)]
pub struct ThreePhase {
    /// What is switched off.
    pub without: Option<Without>,
}

impl ThreePhase {
    fn rules(&self) -> Rules {
        Rules { has_precommit: true, without: self.without }
    }
}

impl Model for ThreePhase {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.rules().init()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.rules().actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.rules().next(last, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ATOMIC, |_, state: &State| !state.is_split()),
            Property::always(DURABLE_FIRST, |model: &Self, state: &State| {
                !state.sent[Command::Commit as usize] || state.is_commit_durable(model.rules())
            }),
            Property::always(REMEMBERED, |_, state: &State| {
                let is_over = |p: &Participant| *p != Participant::Idle && !p.is_in_doubt();
                state.fold.phase != Phase::Forgotten || state.participants.iter().all(is_over)
            }),
            Property::always(NO_GUESS, |_, state: &State| {
                state.answers.iter().all(|answer| answer.is_none() || *answer == state.decided)
            }),
            Property::always(ENDS, |model: &Self, state: &State| model.rules().ends(state)),
            Property::sometimes("everybody has committed, and all is forgotten", |_, state: &State| {
                state.fold.phase == Phase::Forgotten && state.participants == [Participant::Committed; 2]
            }),
            Property::sometimes("a no makes the other one abort", |_, state: &State| {
                state.participants == [Participant::Refused, Participant::Aborted { was_prepared: true }]
            }),
            Property::sometimes("the deadline comes before the second yes", |_, state: &State| {
                state.fold.phase == Phase::Aborting && state.participants == [Participant::Prepared; 2]
            }),
            Property::sometimes("one in doubt is answered commit", |_, state: &State| {
                state.answers.contains(&Some(Answer::Commit))
            }),
            Property::sometimes("one is precommitted while the other is in doubt", |_, state: &State| {
                state.participants == [Participant::Precommitted, Participant::Prepared]
            }),
            Property::sometimes("the deadline comes too late", |_, state: &State| {
                state.fold.phase == Phase::Precommitting && state.pending.contains(&Record::Deadline)
            }),
        ]
    }
}

impl Protocol for ThreePhase {
    fn name(&self) -> &'static str {
        "three-phase"
    }

    fn without(&self) -> Option<Missing> {
        self.without.map(Without::missing)
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        tell(before, *action, after)
    }

    fn tell_end(&self, state: &State) -> String {
        tell_end(state)
    }
}

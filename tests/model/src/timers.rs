//! Timers and the clock: section 6 of the design, rules 5 and 13, and "reply or timeout first?".
//!
//! Source: state machine replication (Schneider 1990): what is not the same for every replica, such as the time, has
//! to come in through the log.
//!
//! **What is in it.** One call with a timeout and two attempts. Two owners, one of them a zombie, each at its own
//! place in the log; both send what they derive. The broker stamps the records; its time goes on, and steps back when
//! the leader changes. An owner appends a firing of the timer that it holds at any moment, far too early or too late,
//! as one does whose own clock is wrong, and again as long as none was accepted. Replies arrive once, twice, late.
//!
//! **What is left out.** Other calls, backoff (an attempt follows the one before at once), checkpoints.
//!
//! **Properties.** [`SAME_OUTPUTS`], [`ONE_OUTCOME`], [`REPLAY_AGREES`], [`NOT_EARLY`], [`CLOCK_RISES`], [`ENDS`].

use stateright::{Model, Property};

use crate::{Missing, Protocol};

/// Owners and replays derive the same output from one record.
pub const SAME_OUTPUTS: &str = "the outputs of one record are always the same";
/// No two outcomes are told.
pub const ONE_OUTCOME: &str = "one outcome is told";
/// Whoever folds the log again arrives where the owners are.
pub const REPLAY_AGREES: &str = "a replay agrees with the owners";
/// Between two attempts lies the timeout, as the log counts time.
pub const NOT_EARLY: &str = "no timer fires early";
/// What the fold calls now is never before a record it has applied.
pub const CLOCK_RISES: &str = "the clock never goes back";
/// As long as it is open, a firing that is late enough ends it.
pub const ENDS: &str = "an open call can always be ended by its timer";

const TIMEOUT: u8 = 1;
const ATTEMPTS: u8 = 2;
const TIME_MAX: u8 = 3;
const RECORDS_MAX: usize = 6;
const REPLIES_MAX: usize = 2;
const STEPS_BACK_MAX: u8 = 1;
/// How far ahead each owner's own clock is.
const AHEAD: [u8; 2] = [0, 1];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Start,
    Reply,
    Firing { attempt: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    what: What,
    stamp: u8,
}

/// What a record makes an owner send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Output {
    Command { attempt: u8, issued: u8 },
    Committed,
    Compensated,
}

/// The fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Fold {
    clock: u8,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Phase {
    #[default]
    Unborn,
    Calling {
        attempt: u8,
        due: u8,
    },
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Owner {
    next: usize,
    fold: Fold,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    log: Vec<Record>,
    time: u8,
    steps_back: u8,
    owners: [Owner; 2],
    /// What was told: the record that caused it, and the output.
    told: Vec<(usize, Output)>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The broker's time goes on.
    Tick,
    /// Another leader, whose time is behind.
    StepBack,
    /// The participant's reply is appended.
    Reply,
    /// An owner appends a firing of the timer it holds.
    Fire(usize),
    /// An owner applies the next record and sends what follows.
    Apply(usize),
    /// An owner takes its timer for fired, and appends nothing.
    FireInside(usize),
}

/// The mechanism that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// An owner acts on its timer, not on a record.
    TimerFromLog,
    /// The time is the owner's own.
    NowFromLog,
    /// The clock is the last timestamp, not the largest.
    LargestStamp,
    /// A firing is accepted whenever it comes.
    DueCheck,
}

impl Without {
    /// Each.
    pub const ALL: [Self; 4] = [Self::TimerFromLog, Self::NowFromLog, Self::LargestStamp, Self::DueCheck];
}

/// The model.
#[derive(Debug, Clone, Default)]
pub struct Timers {
    /// What is switched off.
    pub without: Option<Without>,
}

impl Timers {
    fn lacks(&self, mechanism: Without) -> bool {
        self.without == Some(mechanism)
    }

    fn apply(&self, fold: &mut Fold, record: Record, own_time: u8) -> Option<Output> {
        let now = if self.lacks(Without::NowFromLog) { own_time } else { record.stamp };
        fold.clock = if self.lacks(Without::LargestStamp) { now } else { fold.clock.max(now) };
        match (record.what, fold.phase) {
            (What::Start, Phase::Unborn) => Some(fold.call(1)),
            (What::Reply, Phase::Calling { .. }) => {
                fold.phase = Phase::Ended;
                Some(Output::Committed)
            }
            (What::Firing { attempt }, Phase::Calling { attempt: asked, due }) if attempt == asked => {
                let is_due = fold.clock >= due || self.lacks(Without::DueCheck);
                is_due.then(|| fold.timeout(attempt))
            }
            (What::Start, Phase::Calling { .. })
            | (What::Reply, Phase::Unborn)
            | (What::Firing { .. }, Phase::Unborn | Phase::Calling { .. })
            | (_, Phase::Ended) => None,
        }
    }

    fn replay(&self, records: &[Record]) -> Fold {
        let mut fold = Fold::default();
        for record in records {
            self.apply(&mut fold, *record, record.stamp);
        }
        fold
    }
}

impl Fold {
    fn call(&mut self, attempt: u8) -> Output {
        self.phase = Phase::Calling { attempt, due: self.clock + TIMEOUT };
        Output::Command { attempt, issued: self.clock }
    }

    fn timeout(&mut self, attempt: u8) -> Output {
        if attempt < ATTEMPTS {
            return self.call(attempt + 1);
        }
        self.phase = Phase::Ended;
        Output::Compensated
    }
}

impl State {
    fn append(&mut self, what: What) {
        self.log.push(Record { what, stamp: self.time });
    }

    fn tell(&mut self, cause: usize, output: Option<Output>) {
        let Some(output) = output else { return };
        if !self.told.contains(&(cause, output)) {
            self.told.push((cause, output));
            self.told.sort_by_key(|(cause, output)| (*cause, format!("{output:?}")));
        }
    }

    fn issued(&self, attempt: u8) -> Option<u8> {
        self.told.iter().find_map(|(_, output)| match output {
            Output::Command { attempt: found, issued } if *found == attempt => Some(*issued),
            Output::Command { .. } | Output::Committed | Output::Compensated => None,
        })
    }

    fn has_told(&self, sought: Output) -> bool {
        self.told.iter().any(|(_, output)| *output == sought)
    }
}

impl Model for Timers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = Record { what: What::Start, stamp: 0 };
        let owners = [Owner::default(), Owner::default()];
        vec![State { log: vec![start], time: 0, steps_back: 0, owners, told: Vec::new() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.time < TIME_MAX {
            actions.push(Action::Tick);
        }
        if state.time > 0 && state.steps_back < STEPS_BACK_MAX {
            actions.push(Action::StepBack);
        }
        let has_room = state.log.len() < RECORDS_MAX;
        let replies = state.log.iter().filter(|record| record.what == What::Reply).count();
        let was_asked = state.issued(1).is_some();
        if has_room && was_asked && replies < REPLIES_MAX {
            actions.push(Action::Reply);
        }
        for (at, owner) in state.owners.iter().enumerate() {
            let is_calling = matches!(owner.fold.phase, Phase::Calling { .. });
            if is_calling && self.lacks(Without::TimerFromLog) {
                actions.push(Action::FireInside(at));
            } else if is_calling && has_room {
                actions.push(Action::Fire(at));
            }
            if owner.next < state.log.len() {
                actions.push(Action::Apply(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.time += 1,
            Action::StepBack => {
                state.time -= 1;
                state.steps_back += 1;
            }
            Action::Reply => state.append(What::Reply),
            Action::Fire(at) => {
                let Phase::Calling { attempt, .. } = state.owners[at].fold.phase else { return None };
                state.append(What::Firing { attempt });
            }
            Action::Apply(at) => {
                let own_time = state.time + AHEAD[at];
                let owner = &mut state.owners[at];
                let cause = owner.next;
                owner.next += 1;
                let output = self.apply(&mut owner.fold, state.log[cause], own_time);
                state.tell(cause, output);
            }
            Action::FireInside(at) => {
                let owner = &mut state.owners[at];
                let Phase::Calling { attempt, .. } = owner.fold.phase else { return None };
                let cause = owner.next;
                let output = owner.fold.timeout(attempt);
                state.tell(cause, Some(output));
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAME_OUTPUTS, |_, state: &State| {
                state.told.windows(2).all(|pair| pair[0].0 != pair[1].0)
            }),
            Property::always(ONE_OUTCOME, |_, state: &State| {
                !(state.has_told(Output::Committed) && state.has_told(Output::Compensated))
            }),
            Property::always(REPLAY_AGREES, |model: &Self, state: &State| {
                state.owners.iter().all(|owner| model.replay(&state.log[..owner.next]) == owner.fold)
            }),
            Property::always(NOT_EARLY, |_, state: &State| {
                let (first, second) = (state.issued(1), state.issued(2));
                first.zip(second).is_none_or(|(first, second)| second >= first + TIMEOUT)
            }),
            Property::always(CLOCK_RISES, |_, state: &State| {
                state.owners.iter().all(|owner| {
                    state.log[..owner.next].iter().all(|record| record.stamp <= owner.fold.clock)
                })
            }),
            Property::always(ENDS, |model: &Self, state: &State| {
                let mut fold = model.replay(&state.log);
                while let Phase::Calling { attempt, due } = fold.phase {
                    let firing = Record { what: What::Firing { attempt }, stamp: due };
                    if model.apply(&mut fold, firing, due).is_none() {
                        return false;
                    }
                }
                true
            }),
            Property::sometimes("it is committed on the second attempt", |_, state: &State| {
                state.issued(2).is_some() && state.has_told(Output::Committed)
            }),
            Property::sometimes("it is compensated, and the reply is late", |_, state: &State| {
                state.has_told(Output::Compensated)
                    && state.log.last().is_some_and(|last| last.what == What::Reply)
            }),
            Property::sometimes("time has stepped back in the log", |_, state: &State| {
                state.log.windows(2).any(|pair| pair[1].stamp < pair[0].stamp)
            }),
        ]
    }
}

impl Protocol for Timers {
    fn name(&self) -> &'static str {
        "timers"
    }

    fn without(&self) -> Option<Missing> {
        let (mechanism, upholds) = match self.without? {
            Without::TimerFromLog => ("timers from the log", ONE_OUTCOME),
            Without::NowFromLog => ("now from the log", SAME_OUTPUTS),
            Without::LargestStamp => ("the largest timestamp", CLOCK_RISES),
            Without::DueCheck => ("the check that a firing is due", NOT_EARLY),
        };
        Some(Missing { mechanism, upholds })
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        let name = |at: usize| ["The owner", "The zombie"][at];
        let sent = |cause: usize| {
            let new = after.told.iter().find(|told| told.0 == cause && !before.told.contains(told));
            new.map_or_else(
                || "sends nothing new".to_owned(),
                |(_, output)| format!("tells {}", words(*output)),
            )
        };
        match *action {
            Action::Tick => format!("The broker's time is {}.", after.time),
            Action::StepBack => format!("Another leader: the broker's time is {} again.", after.time),
            Action::Reply => {
                format!("The reply is appended at {}, stamped {}.", before.log.len(), before.time)
            }
            Action::Fire(at) => {
                format!(
                    "{} appends a firing of its timer at {}, stamped {}.",
                    name(at),
                    before.log.len(),
                    before.time
                )
            }
            Action::Apply(at) => {
                let cause = before.owners[at].next;
                let what = match before.log[cause].what {
                    What::Start => "the start",
                    What::Reply => "the reply",
                    What::Firing { .. } => "the firing",
                };
                format!("{} applies {what} at {cause} and {}.", name(at), sent(cause))
            }
            Action::FireInside(at) => {
                format!(
                    "{}'s timer goes off; no record says so; it {}.",
                    name(at),
                    sent(before.owners[at].next)
                )
            }
        }
    }

    fn tell_end(&self, state: &State) -> String {
        let told: Vec<String> =
            state.told.iter().map(|(cause, output)| format!("{} (from {cause})", words(*output))).collect();
        let clocks = state.owners.each_ref().map(|owner| owner.fold.clock);
        format!("Told was: {}. The owners' clocks say {} and {}.", told.join(", "), clocks[0], clocks[1])
    }
}

fn words(output: Output) -> String {
    match output {
        Output::Command { attempt, issued } => format!("attempt {attempt}, issued {issued}"),
        Output::Committed => "committed".to_owned(),
        Output::Compensated => "compensated".to_owned(),
    }
}

//! The participant's barrier: section 7 of the design, rules 4 and 6.
//!
//! Source: the barrier of seata and DTM against empty compensation and hanging, here with one unique key for the
//! operation and its cancellation; isolation is read committed, as databases have it by default.
//!
//! **What is in it.** One branch, `execute` and `compensate`. Instances of one participant work on the same store at
//! the same time: each opens a local transaction, looks at the rows that are committed, does its work, inserts its
//! rows one by one (waiting for whoever holds the same key uncommitted, and rolling back on a conflict), commits, or
//! is killed. A command that was ever sent arrives any number of times, in any order, however late: duplicates,
//! rebalances and zombies. Replies get lost. The coordinator gives up on an answer when it likes, and compensates.
//! Once the transaction has ended the watermark passes it, and its rows are purged.
//!
//! **What is left out.** `prepare`, `commit` and `abort`: the race of `abort` with a late `prepare` is this one, with
//! other names. More than one branch: rows of different branches never meet.
//!
//! **Properties.** [`AT_MOST_ONCE`], [`UNDONE_WAS_DONE`], [`NOTHING_STAYS`], [`COMMITTED_STAYS`].

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{Missing, Protocol};

/// The effect of `execute` is applied once at most.
pub const AT_MOST_ONCE: &str = "the effect is applied at most once";
/// The effect is taken back only when it is there.
pub const UNDONE_WAS_DONE: &str = "what is undone was done";
/// When compensation is answered, or the branch refused, no effect is there, nor comes later.
pub const NOTHING_STAYS: &str = "nothing stays of what is compensated";
/// The effect of a committed transaction is there.
pub const COMMITTED_STAYS: &str = "what is committed is there";

/// Two race; a third one makes sure that nothing depends on there being two.
const INSTANCES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    Done,
    Refused,
    Cancelled,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Execute,
    Compensate,
}

/// What the coordinator is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Done,
    Refused,
    Compensated,
}

/// Committed rows of the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Rows {
    execute: Option<Row>,
    compensate: Option<Row>,
}

/// An open local transaction: what is to be inserted, in this order, and what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Work {
    operation: Operation,
    /// To be inserted under the key of `execute`.
    execute: Option<Row>,
    has_execute: bool,
    has_compensate: bool,
    /// Its own, uncommitted: the effect is applied, or taken back.
    effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Effect {
    None,
    Apply,
    TakeBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Coordinator {
    Waiting,
    Compensating,
    Committed,
    Compensated,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    coordinator: Coordinator,
    /// `compensate` was sent once; `execute` always was.
    is_compensate_sent: bool,
    rows: Rows,
    /// Answers that were given, and may still arrive.
    answered: BTreeSet<Answer>,
    /// What was issued before it may be purged: our branch is, once it has ended.
    is_behind_horizon: bool,
    applied: u8,
    taken_back: u8,
    instances: [Option<Work>; INSTANCES],
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// An instance takes a command and looks; business code may refuse.
    Take { instance: usize, operation: Operation, refuses: bool },
    /// It inserts its next row.
    Insert { instance: usize },
    /// It commits.
    Commit { instance: usize },
    /// It is killed.
    Kill { instance: usize },
    /// The answer `ok` to `execute` reaches the coordinator.
    HearDone,
    /// A refusal reaches it.
    HearRefused,
    /// The answer to `compensate` reaches it.
    HearCompensated,
    /// It waits no longer: the result is unknown, and is compensated.
    GiveUp,
    /// The watermark has passed the branch, which is purged.
    Purge,
}

/// The mechanism that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// `compensate` of what was never done leaves no row for `execute`.
    Tombstone,
    /// Two transactions may insert the same key.
    UniqueKey,
    /// What was issued before the horizon is done like anything else.
    Horizon,
    /// The horizon is looked at in the beginning only, and not locked.
    HorizonLocked,
}

impl Without {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Tombstone, Self::UniqueKey, Self::Horizon, Self::HorizonLocked];
}

/// The model.
#[derive(Debug, Clone, Default)]
pub struct Barrier {
    /// What is switched off.
    pub without: Option<Without>,
}

impl Barrier {
    fn lacks(&self, mechanism: Without) -> bool {
        self.without == Some(mechanism)
    }

    /// The table of the barrier. `None`: the stored answer is repeated, or the command has expired.
    fn look(&self, state: &State, operation: Operation, refuses: bool) -> Option<Work> {
        let Rows { execute, compensate } = state.rows;
        let knows_branch = execute.is_some() || compensate.is_some();
        if !knows_branch && state.is_behind_horizon && !self.lacks(Without::Horizon) {
            return None;
        }
        let work = Work {
            operation,
            execute: None,
            has_execute: false,
            has_compensate: false,
            effect: Effect::None,
        };
        match operation {
            Operation::Execute => {
                let (row, effect) =
                    if refuses { (Row::Refused, Effect::None) } else { (Row::Done, Effect::Apply) };
                execute.is_none().then_some(Work { execute: Some(row), effect, ..work })
            }
            Operation::Compensate if compensate.is_some() => None,
            Operation::Compensate => Some(match execute {
                Some(Row::Done) => Work { effect: Effect::TakeBack, ..work },
                Some(Row::Refused | Row::Cancelled) => work,
                None if self.lacks(Without::Tombstone) => work,
                None => Work { execute: Some(Row::Cancelled), ..work },
            }),
        }
    }

    /// Whether another open local transaction holds the key that `instance` inserts next.
    fn is_blocked(&self, state: &State, instance: usize) -> bool {
        let Some(work) = state.instances[instance] else { return false };
        let others = state.instances.iter().enumerate().filter(|(at, _)| *at != instance);
        let mut others = others.filter_map(|(_, other)| other.as_ref());
        let holds = |other: &Work| {
            if work.needs_execute() {
                other.has_execute && other.execute.is_some()
            } else {
                other.has_compensate
            }
        };
        !self.lacks(Without::UniqueKey) && others.any(holds)
    }

    fn insert(&self, state: &mut State, instance: usize) {
        let Some(mut work) = state.instances[instance] else { return };
        let is_execute = work.needs_execute();
        let present = if is_execute { state.rows.execute } else { state.rows.compensate };
        let is_conflict = present.is_some() && !self.lacks(Without::UniqueKey);
        let is_checked = !self.lacks(Without::Horizon) && !self.lacks(Without::HorizonLocked);
        let knows_branch = state.rows != Rows::default();
        let has_expired = is_checked && state.is_behind_horizon && !knows_branch;
        if is_conflict || has_expired {
            state.instances[instance] = None;
            return;
        }
        work.has_execute |= is_execute;
        work.has_compensate |= !is_execute;
        state.instances[instance] = Some(work);
    }

    fn commit(state: &mut State, instance: usize) {
        let Some(work) = state.instances[instance].take() else { return };
        match work.effect {
            Effect::None => {}
            Effect::Apply => state.applied += 1,
            Effect::TakeBack => state.taken_back += 1,
        }
        if let Some(row) = work.execute {
            state.rows.execute = Some(row);
        }
        let answer = match work.operation {
            Operation::Execute if work.execute == Some(Row::Done) => Answer::Done,
            Operation::Execute => Answer::Refused,
            Operation::Compensate => {
                state.rows.compensate = Some(Row::Done);
                Answer::Compensated
            }
        };
        state.answered.insert(answer);
    }
}

impl Work {
    fn needs_execute(self) -> bool {
        self.execute.is_some() && !self.has_execute
    }

    fn has_all(self) -> bool {
        !self.needs_execute() && (self.operation == Operation::Execute || self.has_compensate)
    }
}

impl State {
    fn has_ended(&self) -> bool {
        matches!(self.coordinator, Coordinator::Committed | Coordinator::Compensated)
    }
}

impl Model for Barrier {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            coordinator: Coordinator::Waiting,
            is_compensate_sent: false,
            rows: Rows::default(),
            answered: BTreeSet::new(),
            is_behind_horizon: false,
            applied: 0,
            taken_back: 0,
            instances: [None; INSTANCES],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (instance, work) in state.instances.iter().enumerate() {
            let Some(work) = work else {
                let execute = Operation::Execute;
                actions.push(Action::Take { instance, operation: execute, refuses: false });
                actions.push(Action::Take { instance, operation: execute, refuses: true });
                if state.is_compensate_sent {
                    let operation = Operation::Compensate;
                    actions.push(Action::Take { instance, operation, refuses: false });
                }
                continue;
            };
            if work.has_all() {
                actions.push(Action::Commit { instance });
            } else if !self.is_blocked(state, instance) {
                actions.push(Action::Insert { instance });
            }
            actions.push(Action::Kill { instance });
        }
        match state.coordinator {
            Coordinator::Waiting => {
                if state.answered.contains(&Answer::Done) {
                    actions.push(Action::HearDone);
                }
                if state.answered.contains(&Answer::Refused) {
                    actions.push(Action::HearRefused);
                }
                actions.push(Action::GiveUp);
            }
            Coordinator::Compensating if state.answered.contains(&Answer::Compensated) => {
                actions.push(Action::HearCompensated);
            }
            Coordinator::Compensating => {}
            Coordinator::Committed | Coordinator::Compensated => {
                if !state.is_behind_horizon {
                    actions.push(Action::Purge);
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Take { instance, operation, refuses } => {
                state.instances[instance] = Some(self.look(last, operation, refuses)?);
            }
            Action::Insert { instance } => self.insert(&mut state, instance),
            Action::Commit { instance } => Self::commit(&mut state, instance),
            Action::Kill { instance } => state.instances[instance] = None,
            Action::HearDone => state.coordinator = Coordinator::Committed,
            Action::HearRefused | Action::HearCompensated => state.coordinator = Coordinator::Compensated,
            Action::GiveUp => {
                state.coordinator = Coordinator::Compensating;
                state.is_compensate_sent = true;
            }
            Action::Purge => {
                state.rows = Rows::default();
                state.is_behind_horizon = true;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(AT_MOST_ONCE, |_, state: &State| state.applied <= 1),
            Property::always(UNDONE_WAS_DONE, |_, state: &State| state.taken_back <= state.applied),
            Property::always(NOTHING_STAYS, |_, state: &State| {
                state.coordinator != Coordinator::Compensated || state.applied == state.taken_back
            }),
            Property::always(COMMITTED_STAYS, |_, state: &State| {
                state.coordinator != Coordinator::Committed || (state.applied, state.taken_back) == (1, 0)
            }),
            Property::sometimes("what was done is undone", |_, state: &State| {
                state.has_ended() && state.taken_back == 1
            }),
            Property::sometimes("what was never done is compensated", |_, state: &State| {
                state.has_ended() && state.rows.execute == Some(Row::Cancelled)
            }),
            Property::sometimes("a refusal ends it", |_, state: &State| {
                state.has_ended() && state.rows.execute == Some(Row::Refused) && !state.is_compensate_sent
            }),
            Property::sometimes("it is purged while an instance still works on it", |_, state: &State| {
                state.is_behind_horizon && state.instances.iter().any(Option::is_some)
            }),
            Property::sometimes("one waits for the other's key", |model: &Self, state: &State| {
                (0..INSTANCES).any(|instance| model.is_blocked(state, instance))
            }),
        ]
    }
}

impl Protocol for Barrier {
    fn name(&self) -> &'static str {
        "barrier"
    }

    fn without(&self) -> Option<Missing> {
        let (mechanism, upholds) = match self.without? {
            Without::Tombstone => ("the row of what was never done", NOTHING_STAYS),
            Without::UniqueKey => ("the unique key", NOTHING_STAYS),
            Without::Horizon => ("the purge horizon", AT_MOST_ONCE),
            Without::HorizonLocked => ("the horizon under a lock", NOTHING_STAYS),
        };
        Some(Missing { mechanism, upholds })
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        let name = |instance: usize| format!("Instance {}", instance + 1);
        match *action {
            Action::Take { instance, operation, refuses } => {
                let operation = command(operation);
                let does = match after.instances[instance].map(|work| (work.execute, work.effect)) {
                    Some((_, Effect::Apply)) => "finds nothing stored; it is about to do it",
                    Some((_, Effect::TakeBack)) => "finds it done; it is about to undo it",
                    Some((Some(Row::Cancelled), _)) => "finds nothing done; it is about to cancel it",
                    Some(_) if refuses => "finds nothing stored; business says no",
                    Some(_) | None => "finds nothing to undo",
                };
                format!("{} takes {operation}, begins a local transaction and {does}.", name(instance))
            }
            Action::Insert { instance } if after.instances[instance].is_none() => {
                format!("{} cannot insert its row, and rolls back.", name(instance))
            }
            Action::Insert { instance } => {
                let is_execute = before.instances[instance].is_some_and(Work::needs_execute);
                let row = command(if is_execute { Operation::Execute } else { Operation::Compensate });
                format!("{} inserts the row of {row}.", name(instance))
            }
            Action::Commit { instance } => {
                format!("{} commits: {}.", name(instance), balance(after))
            }
            Action::Kill { instance } => format!("{} is killed.", name(instance)),
            Action::HearDone => "The coordinator hears that it is done: committed.".to_owned(),
            Action::HearRefused => "The coordinator hears the refusal: nothing is to be undone.".to_owned(),
            Action::HearCompensated => "The coordinator hears that it is compensated: ended.".to_owned(),
            Action::GiveUp => "The coordinator hears nothing in time, and sends compensate.".to_owned(),
            Action::Purge => "The watermark has passed the transaction; its rows are purged.".to_owned(),
        }
    }

    fn tell_end(&self, state: &State) -> String {
        format!("The transaction is {:?}, and the effect was {}.", state.coordinator, balance(state))
    }
}

fn command(operation: Operation) -> &'static str {
    match operation {
        Operation::Execute => "execute",
        Operation::Compensate => "compensate",
    }
}

fn balance(state: &State) -> String {
    format!("applied {} and taken back {} times", state.applied, state.taken_back)
}

//! A saga of two steps: section 5 of the design.
//!
//! Source: Garcia-Molina and Salem 1987, with a coordinator whose state is a fold of a log.
//!
//! **What is in it.** Reserve, then charge; compensation in reverse order. Every input of the coordinator is a record:
//! replies, and timers that say "no answer, attempts exhausted". What has been applied is one value: a coordinator
//! that crashes and replays, or a zombie, stands at an earlier place of the same fold, so commands arrive any number
//! of times, in any order, late or never, and so do replies. Business may refuse. Participants remember, across
//! crashes, what they have answered, and cancel what was never done (see `barrier`).
//!
//! **What is left out.** Retries (a command that arrives again is one), a pivot, retriable steps, a compensation that
//! is refused (stuck).
//!
//! **Properties.** [`COMMITTED_IS_DONE`], [`NOTHING_STAYS`], [`ONE_OUTCOME`], [`IN_ORDER`], [`ENDS`].

use stateright::{Model, Property};

use crate::{Missing, Protocol};

/// When committed is told, every step is done and stays.
pub const COMMITTED_IS_DONE: &str = "what is committed is done, and stays";
/// When compensated is told, nothing is there, nor comes later.
pub const NOTHING_STAYS: &str = "nothing stays of what is compensated";
/// Not both outcomes.
pub const ONE_OUTCOME: &str = "one outcome is told";
/// A later step is undone before an earlier one.
pub const IN_ORDER: &str = "what was done last is undone first";
/// From every state on, it can be brought to its end.
pub const ENDS: &str = "a saga can be brought to its end";

const STEPS: usize = 2;
const PENDING_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Record {
    Done(usize),
    Refused(usize),
    Undone(usize),
    /// No answer to `execute`, and no attempt left.
    Timeout(usize),
}

/// The coordinator: the fold of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fold {
    /// Asking that step.
    Forward(usize),
    /// Undoing what is set, from the last on.
    Back([bool; STEPS]),
    Committed,
    Compensated,
}

/// What a participant remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Memory {
    Nothing,
    Done,
    Refused,
    Undone,
    /// Never done, and never to be done.
    Cancelled,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Execute,
    Compensate,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    fold: Fold,
    /// What a coordinator believes that does not wait for its log; `None` when it does wait.
    belief: Option<Fold>,
    pending: Vec<Record>,
    execute_sent: [bool; STEPS],
    compensate_sent: [bool; STEPS],
    memory: [Memory; STEPS],
    /// Told outcomes: committed, compensated.
    told: [bool; 2],
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A command arrives; business may refuse to execute.
    Deliver { step: usize, command: Command, refuses: bool },
    /// A reply, or a timeout, is appended to the log.
    Append { record: Record },
    /// The coordinator applies the next record, and sends what follows.
    Apply,
    /// A reply counts off the wire, before it is in the log.
    Overhear { record: Record },
    /// The coordinator crashes, and replays its log.
    Crash,
}

/// The mechanism that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// A reply counts as soon as it is heard.
    RepliesInLog,
    /// A step without an answer is taken for not done.
    Unknown,
    /// A participant does not remember what it cancels.
    Cancelling,
}

impl Without {
    /// Each.
    pub const ALL: [Self; 3] = [Self::RepliesInLog, Self::Unknown, Self::Cancelling];
}

/// The model.
#[derive(Debug, Clone, Default)]
pub struct Saga {
    /// What is switched off.
    pub without: Option<Without>,
}

impl Saga {
    fn lacks(&self, mechanism: Without) -> bool {
        self.without == Some(mechanism)
    }

    fn apply(&self, fold: &mut Fold, record: Record) {
        *fold = match (*fold, record) {
            (Fold::Forward(step), Record::Done(done)) if step == done => {
                if step + 1 == STEPS {
                    Fold::Committed
                } else {
                    Fold::Forward(step + 1)
                }
            }
            (Fold::Forward(step), Record::Refused(refused)) if step == refused => Fold::back(step),
            (Fold::Forward(step), Record::Timeout(late)) if step == late => {
                Fold::back(if self.lacks(Without::Unknown) { step } else { step + 1 })
            }
            (Fold::Back(mut due), Record::Undone(step)) => {
                due[step] = false;
                if due == [false; STEPS] { Fold::Compensated } else { Fold::Back(due) }
            }
            (unchanged, _) => unchanged,
        };
    }

    fn deliver(&self, memory: Memory, command: Command, refuses: bool) -> Memory {
        match (command, memory) {
            (Command::Execute, Memory::Nothing) if refuses => Memory::Refused,
            (Command::Execute, Memory::Nothing) => Memory::Done,
            (Command::Execute, Memory::Cancelled) if self.lacks(Without::Cancelling) => Memory::Done,
            (Command::Compensate, Memory::Nothing) => Memory::Cancelled,
            (Command::Compensate, Memory::Done) => Memory::Undone,
            (_, repeated) => repeated,
        }
    }

    /// Left in peace, it ends.
    fn ends(&self, state: &State) -> bool {
        let mut state = state.clone();
        // Each round takes it one phase further, or nothing is left to do.
        for _ in 0..=2 * STEPS {
            for record in std::mem::take(&mut state.pending) {
                self.apply(&mut state.fold, record);
                state.send();
            }
            for step in 0..STEPS {
                for command in state.sent(step) {
                    state.memory[step] = self.deliver(state.memory[step], command, false);
                }
                let replies = state.replies(step);
                state.pending.extend(replies);
            }
        }
        matches!(state.fold, Fold::Committed | Fold::Compensated)
    }
}

impl Fold {
    /// Undoes the steps below `end`.
    fn back(end: usize) -> Self {
        let mut due = [false; STEPS];
        due[..end].fill(true);
        if end == 0 { Self::Compensated } else { Self::Back(due) }
    }
}

impl State {
    fn send(&mut self) {
        match self.belief.unwrap_or(self.fold) {
            Fold::Forward(step) => self.execute_sent[step] = true,
            Fold::Back(due) => {
                if let Some(last) = due.iter().rposition(|due| *due) {
                    self.compensate_sent[last] = true;
                }
            }
            Fold::Committed => self.told[0] = true,
            Fold::Compensated => self.told[1] = true,
        }
    }

    fn sent(&self, step: usize) -> Vec<Command> {
        let execute = self.execute_sent[step].then_some(Command::Execute);
        let compensate = self.compensate_sent[step].then_some(Command::Compensate);
        [execute, compensate].into_iter().flatten().collect()
    }

    /// Every reply that was given so far: any of them may arrive once more.
    fn replies(&self, step: usize) -> Vec<Record> {
        let undone = Some(Record::Undone(step)).filter(|_| self.compensate_sent[step]);
        let replies = match self.memory[step] {
            Memory::Nothing => [None, None],
            Memory::Done => [Some(Record::Done(step)), None],
            Memory::Undone => [Some(Record::Done(step)), undone],
            // What is cancelled answers a late `execute` with `refused`.
            Memory::Refused | Memory::Cancelled => [Some(Record::Refused(step)), undone],
        };
        replies.into_iter().flatten().collect()
    }
}

impl Model for Saga {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fold = Fold::Forward(0);
        vec![State {
            fold,
            belief: self.lacks(Without::RepliesInLog).then_some(fold),
            pending: Vec::new(),
            execute_sent: [true, false],
            compensate_sent: [false; STEPS],
            memory: [Memory::Nothing; STEPS],
            told: [false; 2],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for step in 0..STEPS {
            for command in state.sent(step) {
                actions.push(Action::Deliver { step, command, refuses: false });
                if command == Command::Execute {
                    actions.push(Action::Deliver { step, command, refuses: true });
                }
            }
            if state.belief.is_some() {
                actions.extend(state.replies(step).into_iter().map(|record| Action::Overhear { record }));
            }
            if state.pending.len() < PENDING_MAX {
                actions.extend(state.replies(step).into_iter().map(|record| Action::Append { record }));
                if state.execute_sent[step] {
                    actions.push(Action::Append { record: Record::Timeout(step) });
                }
            }
        }
        if !state.pending.is_empty() {
            actions.push(Action::Apply);
        }
        if state.belief.is_some() {
            actions.push(Action::Crash);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver { step, command, refuses } => {
                state.memory[step] = self.deliver(state.memory[step], command, refuses);
            }
            Action::Append { record } => state.pending.push(record),
            Action::Apply => {
                let record = state.pending.remove(0);
                self.apply(&mut state.fold, record);
                if let Some(belief) = &mut state.belief {
                    self.apply(belief, record);
                }
                state.send();
            }
            Action::Overhear { record } => {
                self.apply(state.belief.as_mut()?, record);
                state.send();
            }
            Action::Crash => {
                state.belief = Some(state.fold);
                state.send();
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COMMITTED_IS_DONE, |_, state: &State| {
                !state.told[0] || state.memory == [Memory::Done; STEPS]
            }),
            Property::always(NOTHING_STAYS, |_, state: &State| {
                !state.told[1] || !state.memory.contains(&Memory::Done)
            }),
            Property::always(ONE_OUTCOME, |_, state: &State| state.told != [true; 2]),
            Property::always(IN_ORDER, |_, state: &State| state.memory != [Memory::Undone, Memory::Done]),
            Property::always(ENDS, |model: &Self, state: &State| model.ends(state)),
            Property::sometimes("it is committed", |_, state: &State| state.told[0]),
            Property::sometimes("both are undone", |_, state: &State| {
                state.told[1] && state.memory == [Memory::Undone; STEPS]
            }),
            Property::sometimes("the reply comes after its timeout", |_, state: &State| {
                matches!(state.fold, Fold::Back(_)) && state.pending.first() == Some(&Record::Done(1))
            }),
            Property::sometimes("what was never done is cancelled", |_, state: &State| {
                state.told[1] && state.memory[1] == Memory::Cancelled
            }),
        ]
    }
}

impl Protocol for Saga {
    fn name(&self) -> &'static str {
        "saga"
    }

    fn without(&self) -> Option<Missing> {
        let (mechanism, upholds) = match self.without? {
            Without::RepliesInLog => ("replies in the log before the decision", ONE_OUTCOME),
            Without::Unknown => ("unknown is not no", NOTHING_STAYS),
            Without::Cancelling => ("cancelling what was never done", NOTHING_STAYS),
        };
        Some(Missing { mechanism, upholds })
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        match *action {
            Action::Deliver { step, command, .. } => {
                let command = match command {
                    Command::Execute => "execute",
                    Command::Compensate => "compensate",
                };
                format!("{} gets {command}; it {}.", name(step), remembers(after.memory[step]))
            }
            Action::Append { record } => format!("Appended to the log: {}.", words(record)),
            Action::Apply => {
                let applied = before.pending.first().map(|record| words(*record)).unwrap_or_default();
                format!("The coordinator applies: {applied}; {}.", does(after))
            }
            Action::Overhear { record } => {
                format!("The coordinator hears, off the log: {}; {}.", words(record), does(after))
            }
            Action::Crash => format!("The coordinator crashes and replays its log; {}.", does(after)),
        }
    }

    fn tell_end(&self, state: &State) -> String {
        let told: Vec<&str> = ["committed", "compensated"]
            .into_iter()
            .zip(state.told)
            .filter_map(|(outcome, is_told)| is_told.then_some(outcome))
            .collect();
        let [inventory, payment] = state.memory.map(remembers);
        format!("Told was: {}; inventory {inventory}, payment {payment}.", told.join(" and "))
    }
}

fn name(step: usize) -> &'static str {
    ["Inventory", "Payment"][step]
}

fn words(record: Record) -> String {
    match record {
        Record::Done(step) => format!("{} answers ok", name(step)),
        Record::Refused(step) => format!("{} refuses", name(step)),
        Record::Undone(step) => format!("{} answers ok to compensate", name(step)),
        Record::Timeout(step) => format!("no answer of {} in time", name(step)),
    }
}

fn remembers(memory: Memory) -> &'static str {
    match memory {
        Memory::Nothing => "has done nothing",
        Memory::Done => "has done it",
        Memory::Refused => "has refused",
        Memory::Undone => "has undone it",
        Memory::Cancelled => "has cancelled what it never did",
    }
}

fn does(state: &State) -> String {
    match state.belief.unwrap_or(state.fold) {
        Fold::Forward(step) => format!("it asks {}", name(step)),
        Fold::Back(_) => "it compensates".to_owned(),
        Fold::Committed => "it tells: committed".to_owned(),
        Fold::Compensated => "it tells: compensated".to_owned(),
    }
}

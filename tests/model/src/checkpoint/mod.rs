//! Checkpoint, takeover, zombies: section 6 of the design, rules 1, 2, 9, 10 and 12.
//!
//! Source: log-structured recovery with fuzzy checkpoints (Gray and Reuter, "Transaction Processing"), fencing by
//! epoch as in Kafka's transactions (KIP-98), and what librdkafka does without KIP-890: an `EndTxn` that it repeats
//! may arrive late and commit the first part of the next Kafka transaction.
//!
//! **What is in it.** An inbox of four inputs for two transactions, A and B. Owners of rising epochs; an owner that
//! was deposed goes on applying and sending, as a paused process does that wakes up; one that is dead is one that
//! does nothing any more, so every place in every run is a crash. Outputs leave at once; those of one transaction are
//! acknowledged in their order, or never. A checkpoint is drafted as of X while the owner goes on; its records are
//! written one by one in any order, `\0checkpoint` last, and then committed; the `EndTxn` may be repeated, or be late
//! after its owner gave up. What is not acknowledged by then is owed. The state topic is compacted, key by key, at
//! any time.
//!
//! A takeover that finds a version of a checkpoint that never completed ignores it, and before it runs it writes again
//! what counts, one by one in any order, without a `\0checkpoint`; that is ended, late, repeated and cut like any other
//! Kafka transaction.
//!
//! **What is assumed.** `min.compaction.lag.ms`: between a version and the cleaning of an older one there is at least
//! one complete checkpoint, or one complete takeover, whether it applies anything afterwards or halts; and no takeover
//! takes longer than that. [`Without::CompactionLag`] shows why.
//!
//! **What that proves.** Whoever takes over within the lag after a part of a checkpoint was committed makes it harmless
//! for good, also when only a part of what it writes again is committed, in any order, and also if nobody ever writes a
//! checkpoint again: the cleaner then may take all that is not the newest of its key. Left is an outage of everybody who
//! could take over that is longer than the lag, just then.
//!
//! **What is left out.** The journal, settings, levels; memory of ended transactions (it is state like any other);
//! aborted Kafka transactions as markers (readers are `read_committed`); whether the outputs of one that was deposed
//! get out (what is not counted on cannot hide a loss).
//!
//! **Properties.** They stand in `properties`, by name. "Every output gets out" is a statement about every state: a
//! new owner that takes over now, and is left in peace, sends what is missing. So no fairness has to be assumed.

mod properties;
mod takeover;
mod words;

use stateright::{Model, Property};

use crate::{Missing, Protocol};
use properties::{NO_HALT, NOTHING_LOST, STATE_IS_THE_FOLD, properties};
use takeover::{Restored, Run, restore};

/// Which transaction an input is for: A or B.
type Key = usize;
const KEYS: usize = 2;
/// An offset of the inbox.
type Offset = u8;
/// An open transaction counts the inputs it has taken; one that is not open is `None`.
type Open = [Option<u8>; KEYS];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Start,
    Step,
    End,
}

/// A lives and ends, so that it is stored, stored as ended, and made a tombstone; B is touched before and after.
const INBOX: [(Input, Key); 4] = [(Input::Start, 0), (Input::Start, 1), (Input::End, 0), (Input::Step, 1)];
const END: Offset = 4;

/// What an input makes an owner send: the input, and what it found. A second look that finds something else
/// contradicts the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Output {
    input: Offset,
    found: Option<u8>,
}

/// The fold: the same for every owner, for a replay, and for the properties.
fn apply(open: &mut Open, input: Offset) -> Output {
    let (what, key) = INBOX[usize::from(input)];
    let found = open[key];
    open[key] = match (what, found) {
        (Input::Start, None) => Some(1),
        (Input::Step, Some(taken)) => Some(taken + 1),
        (Input::End, _) | (Input::Step, None) => None,
        (Input::Start, Some(_)) => found,
    };
    Output { input, found }
}

/// What the inputs below an offset make of nothing, and all that they make an owner send.
fn fold(next: Offset) -> (Open, Vec<Output>) {
    let mut open = Open::default();
    let outputs = (0..next).map(|input| apply(&mut open, input)).collect();
    (open, outputs)
}

/// A record of the state topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Record {
    Version(Version),
    Checkpoint(Head),
    Barrier {
        epoch: u8,
    },
    /// Not a record: here a takeover had left nothing ignored. What came before is as old as the lag from then on.
    Covered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    key: Key,
    as_of: Offset,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Open(u8),
    Ended,
    Tombstone,
}

/// `\0checkpoint`: X, as of when each key is stored, and what is owed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Head {
    next: Offset,
    stored: [Option<Offset>; KEYS],
    owed: Vec<Output>,
}

/// A process that owns the shard, or believes so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    epoch: u8,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// `init_transactions` has returned.
    Fenced,
    /// Its barrier is committed.
    Reading,
    /// It writes again what counts and stands before an ignored version.
    WritingAgain(Restored),
    Running(Run),
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// What is committed in the state topic.
    log: Vec<Record>,
    /// What stands there in a Kafka transaction that is open.
    open: Vec<Record>,
    /// Of the transactional id.
    epoch: u8,
    /// An `EndTxn` of this epoch is on its way.
    late_end: Option<u8>,
    owners: Vec<Owner>,
    /// Inputs whose outputs stand in their topics.
    told: [bool; END as usize],
    /// The first output that is not what the fold says.
    contradiction: Option<Output>,
    /// A takeover has found less than its checkpoint counts.
    halted: bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A new owner calls `init_transactions`.
    TakeOver,
    /// It commits its barrier; the `EndTxn` may be sent twice.
    Barrier { epoch: u8, repeated: bool },
    /// It reads the state up to that barrier, or up to an older end of that many records.
    Read { epoch: u8, end: Option<usize> },
    /// It applies the next input, and its output leaves.
    Apply { epoch: u8 },
    /// An output stands in its topic, and its owner learns it.
    Acknowledge { epoch: u8, output: Output },
    /// It writes once more the version of a key that counts.
    WriteAgain { epoch: u8, key: Key },
    /// It commits what it has written again, and runs; the `EndTxn` may be sent twice.
    CommitAgain { epoch: u8, repeated: bool },
    /// It drafts a checkpoint as of now.
    Draft { epoch: u8 },
    /// It writes the version of a key.
    WriteVersion { epoch: u8, key: Key },
    /// It writes `\0checkpoint`.
    WriteHead { epoch: u8 },
    /// It commits; the `EndTxn` may be sent twice.
    Commit { epoch: u8, repeated: bool },
    /// It sends `EndTxn`, hears nothing, and drops the shard.
    GiveUp { epoch: u8 },
    /// An `EndTxn` arrives late.
    LateEnd,
    /// Kafka cleans the older versions of a key, or its tombstone.
    Compact { key: Key },
}

/// The mechanism that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// `init_transactions` deposes nobody.
    Fencing,
    /// The checkpoint waits for no acknowledgement and writes down nothing as owed.
    Acknowledgement,
    /// Takeover reads up to an end that may be old.
    OwnBarrier,
    /// Takeover takes the newest version of a key, whatever it is true as of.
    AsOf,
    /// Versions that a takeover ignored are left as they are.
    WritingAgain,
    /// What is written again is said to be as of X, not as of when it was.
    AsOfBefore,
    /// A tombstone counts whatever X is.
    TombstoneAsOf,
    /// `\0checkpoint` may be written before the others.
    HeadLast,
    /// Compaction does not wait.
    CompactionLag,
    /// Owed outputs are not sent again.
    SendingOwed,
}

impl Without {
    /// Each.
    pub const ALL: [Self; 10] = [
        Self::Fencing,
        Self::Acknowledgement,
        Self::OwnBarrier,
        Self::AsOf,
        Self::WritingAgain,
        Self::AsOfBefore,
        Self::TombstoneAsOf,
        Self::HeadLast,
        Self::CompactionLag,
        Self::SendingOwed,
    ];
}

/// The model.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Takeovers after the first owner.
    pub takeovers: u8,
    /// What is switched off.
    pub without: Option<Without>,
}

impl Checkpoint {
    fn lacks(&self, mechanism: Without) -> bool {
        self.without == Some(mechanism)
    }

    fn may_write(&self, state: &State, owner: &Owner) -> bool {
        owner.epoch == state.epoch || self.lacks(Without::Fencing)
    }

    /// An owner's part of the actions.
    fn own_actions(&self, state: &State, owner: &Owner, actions: &mut Vec<Action>) {
        let epoch = owner.epoch;
        let may_write = self.may_write(state, owner);
        let run = match &owner.phase {
            Phase::Fenced => {
                if may_write {
                    actions.push(Action::Barrier { epoch, repeated: true });
                    actions.push(Action::Barrier { epoch, repeated: false });
                }
                return;
            }
            Phase::Reading => {
                actions.push(Action::Read { epoch, end: None });
                if self.lacks(Without::OwnBarrier) {
                    let ends = (0..state.log.len()).filter(|end| state.was_end(*end));
                    actions.extend(ends.map(|end| Action::Read { epoch, end: Some(end) }));
                }
                return;
            }
            Phase::WritingAgain(Restored { due, is_cut, .. }) => {
                if may_write && !is_cut {
                    actions.extend(due.iter().map(|version| Action::WriteAgain { epoch, key: version.key }));
                }
                if may_write && due.is_empty() {
                    if state.late_end.is_none() {
                        actions.push(Action::GiveUp { epoch });
                        actions.push(Action::CommitAgain { epoch, repeated: true });
                    }
                    actions.push(Action::CommitAgain { epoch, repeated: false });
                }
                return;
            }
            Phase::Running(run) => run,
        };
        if run.next < END {
            actions.push(Action::Apply { epoch });
        }
        for key in 0..KEYS {
            let mut sent = run.sent.iter().filter(|output| INBOX[usize::from(output.input)].1 == key);
            actions.extend(sent.next().map(|output| Action::Acknowledge { epoch, output: *output }));
        }
        let Some(draft) = &run.draft else {
            if may_write && run.next > run.since {
                actions.push(Action::Draft { epoch });
            }
            return;
        };
        if !may_write || draft.is_cut {
            return;
        }
        let keys = draft.due.iter().map(|version| version.key);
        actions.extend(keys.map(|key| Action::WriteVersion { epoch, key }));
        if !draft.has_head && (draft.due.is_empty() || self.lacks(Without::HeadLast)) {
            actions.push(Action::WriteHead { epoch });
        }
        if draft.has_head && draft.due.is_empty() {
            if state.late_end.is_none() {
                actions.push(Action::GiveUp { epoch });
                actions.push(Action::Commit { epoch, repeated: true });
            }
            actions.push(Action::Commit { epoch, repeated: false });
        }
    }

    fn read(&self, state: &mut State, epoch: u8, end: Option<usize>) {
        let own = Record::Barrier { epoch };
        let Some(barrier) = state.log.iter().position(|record| *record == own) else { return };
        let end = end.unwrap_or(barrier);
        match restore(&state.log[..end], self) {
            Some(restored) => {
                state.log.retain(|record| *record != own);
                if restored.due.is_empty() {
                    state.run_from(epoch, restored.run);
                } else {
                    state.owner(epoch).phase = Phase::WritingAgain(restored);
                }
            }
            None => state.halted = true,
        }
    }

    fn commit(&self, state: &mut State, epoch: u8, repeated: bool) {
        let records = std::mem::take(&mut state.open);
        state.log.extend(records);
        if repeated {
            state.late_end = Some(epoch);
        }
        state.written(epoch);
        state.forget_old_heads(self);
    }

    /// It ends whatever Kafka transaction is open under that epoch.
    fn late_end(&self, state: &mut State) {
        let Some(epoch) = state.late_end.take() else { return };
        if epoch != state.epoch && !self.lacks(Without::Fencing) || state.open.is_empty() {
            return;
        }
        let records = std::mem::take(&mut state.open);
        let is_whole = records.iter().any(|record| matches!(record, Record::Checkpoint(_)));
        state.log.extend(records);
        if is_whole && !self.lacks(Without::HeadLast) {
            state.written(epoch);
        } else {
            state.cut();
        }
        state.forget_old_heads(self);
    }

    /// Whether Kafka may clean something under that key now.
    fn cleanable(&self, state: &State, key: Key) -> Vec<usize> {
        let is_reading = |owner: &Owner| owner.phase == Phase::Reading;
        let lag = !self.lacks(Without::CompactionLag);
        if lag && state.owners.iter().any(is_reading) {
            return Vec::new();
        }
        let of_key = |record: &Record| matches!(record, Record::Version(version) if version.key == key);
        let is_old = |record: &Record| matches!(record, Record::Checkpoint(_) | Record::Covered);
        let cleans = |at: usize| !lag || state.log[at..].iter().any(is_old);
        let versions: Vec<usize> = (0..state.log.len()).filter(|at| of_key(&state.log[*at])).collect();
        let Some((&newest, older)) = versions.split_last() else { return Vec::new() };
        if older.is_empty() {
            let is_tombstone =
                matches!(&state.log[newest], Record::Version(version) if version.value == Value::Tombstone);
            return if is_tombstone && cleans(newest) { vec![newest] } else { Vec::new() };
        }
        let newer = versions.iter().skip(1);
        older.iter().zip(newer).filter(|(_, newer)| cleans(**newer)).map(|(older, _)| *older).collect()
    }
}

impl State {
    fn owner(&mut self, epoch: u8) -> &mut Owner {
        let Some(owner) = self.owners.iter_mut().find(|owner| owner.epoch == epoch) else {
            unreachable!("only the living act")
        };
        owner
    }

    fn run(&mut self, epoch: u8) -> &mut Run {
        let Phase::Running(run) = &mut self.owner(epoch).phase else { unreachable!("only who runs acts so") };
        run
    }

    /// The checkpoint of that owner is committed, if it still lives.
    fn written(&mut self, epoch: u8) {
        for owner in self.owners.iter_mut().filter(|owner| owner.epoch == epoch) {
            if let Phase::Running(run) = &mut owner.phase
                && let Some(draft) = run.draft.take()
            {
                run.since = draft.next;
            }
        }
    }

    /// The Kafka transaction ended under the hands of its writer: the broker refuses the rest.
    fn cut(&mut self) {
        let epoch = self.epoch;
        for owner in self.owners.iter_mut().filter(|owner| owner.epoch == epoch) {
            match &mut owner.phase {
                Phase::Running(Run { draft: Some(draft), .. }) => draft.is_cut = true,
                Phase::WritingAgain(restored) => restored.is_cut = true,
                Phase::Running(_) | Phase::Fenced | Phase::Reading => {}
            }
        }
    }

    /// A takeover is over. What it has read, or written again, leaves nothing ignored.
    fn run_from(&mut self, epoch: u8, run: Run) {
        let is_present = epoch == self.epoch;
        self.owner(epoch).phase = Phase::Running(run);
        if is_present {
            self.log.push(Record::Covered);
        }
    }

    /// Whether a Kafka transaction ended there: a reader that gets `read_committed` never sees half of one.
    fn was_end(&self, end: usize) -> bool {
        let before = end.checked_sub(1).map(|last| &self.log[last]);
        before.is_none_or(|record| !matches!(record, Record::Version(_)))
    }

    fn stop(&mut self, epoch: u8) {
        self.owners.retain(|owner| owner.epoch != epoch);
        self.log.retain(|record| *record != Record::Barrier { epoch });
    }

    /// Nobody reads a `\0checkpoint` that another one follows, unless someone may read to an old end.
    fn forget_old_heads(&mut self, model: &Checkpoint) {
        if model.lacks(Without::OwnBarrier) {
            return;
        }
        let mut is_read_beyond = false;
        let mut is_old = false;
        let mut kept = Vec::new();
        for record in std::mem::take(&mut self.log).into_iter().rev() {
            let was_old = is_old;
            is_old |= matches!(record, Record::Checkpoint(_) | Record::Covered);
            match record {
                Record::Covered if was_old => continue,
                Record::Checkpoint(_) if is_read_beyond => continue,
                Record::Checkpoint(_) => is_read_beyond = true,
                Record::Barrier { .. } => is_read_beyond = false,
                Record::Version(_) | Record::Covered => {}
            }
            kept.push(record);
        }
        kept.reverse();
        self.log = kept;
    }

    /// What a new owner makes of the state, if one takes over now.
    fn successor(&self, model: &Checkpoint) -> Option<Run> {
        restore(&self.log, model).map(|restored| restored.run)
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.owners.iter().filter_map(|owner| match &owner.phase {
            Phase::Running(run) => Some(run),
            Phase::Fenced | Phase::Reading | Phase::WritingAgain(_) => None,
        })
    }

    fn last_head(&self) -> Option<&Head> {
        self.log.iter().rev().find_map(|record| match record {
            Record::Checkpoint(head) => Some(head),
            Record::Version(_) | Record::Barrier { .. } | Record::Covered => None,
        })
    }
}

impl Model for Checkpoint {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Owner { epoch: 0, phase: Phase::Running(Run::default()) };
        vec![State {
            log: Vec::new(),
            open: Vec::new(),
            epoch: 0,
            late_end: None,
            owners: vec![first],
            told: [false; END as usize],
            contradiction: None,
            halted: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.halted {
            return;
        }
        for owner in &state.owners {
            self.own_actions(state, owner, actions);
        }
        if state.epoch < self.takeovers {
            actions.push(Action::TakeOver);
        }
        if state.late_end.is_some() {
            actions.push(Action::LateEnd);
        }
        let keys = (0..KEYS).filter(|key| !self.cleanable(state, *key).is_empty());
        actions.extend(keys.map(|key| Action::Compact { key }));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::TakeOver => {
                state.epoch += 1;
                state.open.clear();
                state.owners.push(Owner { epoch: state.epoch, phase: Phase::Fenced });
                if !self.lacks(Without::Fencing) {
                    state.late_end = None;
                    for owner in &mut state.owners {
                        if let Phase::Running(run) = &mut owner.phase {
                            run.depose();
                        }
                    }
                    let waits = |phase: &Phase| matches!(phase, Phase::Fenced | Phase::WritingAgain(_));
                    state.owners.retain(|owner| !waits(&owner.phase) || owner.epoch == state.epoch);
                }
            }
            Action::Barrier { epoch, repeated } => {
                let records = std::mem::take(&mut state.open);
                state.log.extend(records);
                state.log.push(Record::Barrier { epoch });
                if repeated {
                    state.late_end = Some(epoch);
                }
                state.owner(epoch).phase = Phase::Reading;
            }
            Action::Read { epoch, end } => {
                self.read(&mut state, epoch, end);
                state.forget_old_heads(self);
            }
            Action::Apply { epoch } => {
                let is_deposed = epoch != state.epoch && !self.lacks(Without::Fencing);
                let output = state.run(epoch).apply();
                if fold(END).1[usize::from(output.input)] != output {
                    state.contradiction.get_or_insert(output);
                }
                if is_deposed {
                    state.run(epoch).depose();
                }
            }
            Action::Acknowledge { epoch, output } => {
                state.told[usize::from(output.input)] = true;
                state.run(epoch).sent.retain(|sent| *sent != output);
            }
            Action::WriteAgain { epoch, key } => {
                let Phase::WritingAgain(restored) = &mut state.owner(epoch).phase else { return None };
                let at = restored.due.iter().position(|version| version.key == key)?;
                let version = restored.due.remove(at);
                state.open.push(Record::Version(version));
            }
            Action::CommitAgain { epoch, repeated } => {
                let records = std::mem::take(&mut state.open);
                state.log.extend(records);
                if repeated {
                    state.late_end = Some(epoch);
                }
                let Phase::WritingAgain(restored) = state.owner(epoch).phase.clone() else { return None };
                state.run_from(epoch, restored.run);
                state.forget_old_heads(self);
            }
            Action::Draft { epoch } => state.run(epoch).draft(),
            Action::WriteVersion { epoch, key } => {
                let version = state.run(epoch).take_due(key)?;
                state.open.push(Record::Version(version));
            }
            Action::WriteHead { epoch } => {
                let head = state.run(epoch).head(self)?;
                state.open.push(Record::Checkpoint(head));
            }
            Action::Commit { epoch, repeated } => self.commit(&mut state, epoch, repeated),
            Action::GiveUp { epoch } => {
                state.late_end = Some(epoch);
                state.stop(epoch);
            }
            Action::LateEnd => self.late_end(&mut state),
            Action::Compact { key } => {
                let cleaned = self.cleanable(&state, key);
                let mut at = 0;
                state.log.retain(|_| {
                    at += 1;
                    !cleaned.contains(&(at - 1))
                });
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

impl Protocol for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn without(&self) -> Option<Missing> {
        self.without.map(words::missing)
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        words::tell(before, action, after)
    }

    fn tell_end(&self, state: &State) -> String {
        words::tell_end(self, state)
    }
}

//! Looks on: a fold of each inbox that nothing ever happens to, what owners say compared with it, and the invariants.
//!
//! It believes no owner. What the fold itself must never do is checked from its outputs and from what stands open, not
//! from what it thinks of itself.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_decider::definition::plan::BranchIndex;
use sagamore_decider::identity::Identity;
use sagamore_decider::invariants::{self as inv, Invariant};
use sagamore_decider::output::{Destination, Notice, Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::{BranchPhase, Parent, Phase, Transaction};
use sagamore_schemas::ids::{Birth, Partition, Time};
use sagamore_schemas::log::{ChainHead, Decision};
use sagamore_schemas::wire::{
    Asked, Authority, Input, Occasion, OutcomeKind, ShardVerb, ShardWish, read_asked, read_input,
    read_outcome,
};

use crate::asked::{Seen, branch_name};
use crate::kafka::Entry;

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: &'static Invariant,
    /// What was seen.
    pub seen: String,
}

/// Everything of a shard that can be compared at little cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    chain: ChainHead,
    clock: Time,
    level: u32,
    open: usize,
    finished: usize,
    timers: usize,
    next_due: Option<Time>,
}

impl Digest {
    /// Of a shard as it is.
    pub fn of(shard: &Shard) -> Self {
        Self {
            chain: shard.journal().head().clone(),
            clock: shard.clock(),
            level: shard.level(),
            open: shard.open_count(),
            finished: shard.finished_count(),
            timers: shard.timers().len(),
            next_due: shard.timers().next_due(),
        }
    }
}

/// The fold of one inbox, uninterrupted.
#[derive(Debug)]
pub struct Fold {
    /// The shard.
    pub shard: Shard,
    /// What it said to each record.
    pub said: Vec<Vec<Output>>,
    digests: Vec<Digest>,
    /// It waits for the decision to skip this record.
    pub held: Option<i64>,
    /// The end of its inbox was cut: nothing after that is comparable.
    pub cut: bool,
    /// Every transaction that was born here.
    pub born: BTreeMap<Birth, Seen>,
    lives: BTreeSet<(String, Time)>,
    /// What its children have been told.
    pub(crate) called_off: BTreeSet<String>,
    pub(crate) children_born: BTreeSet<String>,
    pub(crate) partitions: i32,
    /// Rows of transition tables that leave no trace in the journal.
    pub rows: BTreeSet<&'static str>,
}

/// All folds, and the first violation.
#[derive(Debug)]
pub struct Witness {
    folds: BTreeMap<i32, Fold>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// Inbox records folded.
    pub records: u64,
}

/// Which shard of the simulated installation.
pub fn identity(partition: i32, partitions: i32) -> Identity {
    Identity {
        instance: uuid::Uuid::from_u128(7),
        partition: Partition(partition),
        partitions,
        replyto: format!("sagamore.inbox/{partition}"),
        inbox: "sagamore.inbox".into(),
        secret: None,
    }
}

/// A record of the inbox as the fold takes it.
pub fn record_of(entry: &Entry) -> Record<'_> {
    Record {
        offset: entry.offset,
        timestamp: Time::from_epoch_ms(entry.timestamp),
        key: entry.record.key.as_deref(),
        value: entry.record.value.as_deref(),
        headers: &[],
    }
}

impl Witness {
    /// Of so many inbox partitions.
    pub fn new(partitions: i32) -> Self {
        let fold = |partition| Fold {
            shard: Shard::new(identity(partition, partitions)),
            said: Vec::new(),
            digests: Vec::new(),
            held: None,
            cut: false,
            born: BTreeMap::new(),
            lives: BTreeSet::new(),
            called_off: BTreeSet::new(),
            children_born: BTreeSet::new(),
            partitions,
            rows: BTreeSet::new(),
        };
        let folds = (0..partitions).map(|partition| (partition, fold(partition))).collect();
        Self { folds, violation: None, records: 0 }
    }

    /// The fold of a partition.
    pub fn fold(&mut self, partition: i32) -> &mut Fold {
        match self.folds.get_mut(&partition) {
            Some(fold) => fold,
            None => unreachable!("a fold of every partition: {partition}"),
        }
    }

    /// All folds.
    pub fn folds(&self) -> impl Iterator<Item = (i32, &Fold)> {
        self.folds.iter().map(|(partition, fold)| (*partition, fold))
    }

    /// Something that must never be.
    pub fn violated(&mut self, invariant: &'static Invariant, seen: impl Into<String>) {
        self.violation.get_or_insert(Violation { invariant, seen: seen.into() });
    }

    /// What an owner's panic says about the invariants.
    pub fn panicked(&mut self, text: &str) {
        let invariant = inv::named_in(text).unwrap_or(&inv::HALTS_HAVE_CAUSES);
        self.violated(invariant, format!("a panic: {text}"));
    }

    /// The next visible record of an inbox. `skips`: the decision to pass over it, when there is one.
    pub fn sees(&mut self, partition: i32, entry: &Entry, poisoned: bool, skip: Option<&Authority<'_>>) {
        self.records += 1;
        let mut broken: Vec<(&'static Invariant, String)> = Vec::new();
        let fold = self.fold(partition);
        let record = record_of(entry);
        let (clock, head) = (fold.shard.clock(), fold.shard.journal().head().clone());
        let mut outputs = Vec::new();
        let mut notice = Notice::None;
        if poisoned {
            let Some(authority) = skip else {
                fold.held = Some(entry.offset);
                return;
            };
            fold.shard.skip(&record, authority);
        } else {
            match crate::server::caught(|| fold.shard.apply(&record, &mut outputs)) {
                Ok(told) => notice = told,
                Err(text) => return self.panicked(&text),
            }
        }
        fold.held = None;
        if fold.shard.clock() < clock {
            broken.push((&inv::CLOCK_RISES, format!("{clock} became {}", fold.shard.clock())));
        }
        let input = read_input(record.value);
        match &notice {
            Notice::VerbRefused { reason } if reason.contains("pivot") => {
                fold.rows.insert("T3");
            }
            Notice::None if outputs.is_empty() && *fold.shard.journal().head() == head => {
                fold.rows.extend(input.as_ref().ok().and_then(|input| fold.row_without_trace(input)));
            }
            _ => {}
        }
        if let Ok(Input::Timer(timer)) = &input
            && timer.due > clock.max(record.timestamp)
            && (!outputs.is_empty() || *fold.shard.journal().head() != head)
        {
            broken.push((&inv::TIMERS_ARE_DUE, format!("a timer due at {} at {clock}", timer.due)));
        }
        fold.look(entry, input.as_ref().ok(), &outputs, &mut broken);
        fold.digests.push(Digest::of(&fold.shard));
        fold.said.push(outputs);
        for (invariant, seen) in broken {
            self.violated(invariant, format!("shard {partition}, record {}: {seen}", entry.offset));
        }
    }

    /// What an owner has said to a record, and how its shard is afterwards.
    pub fn compare(&mut self, who: &str, partition: i32, offset: i64, said: &[Output], shard: &Shard) {
        let fold = self.fold(partition);
        let Some(at) = usize::try_from(offset).ok().filter(|at| *at < fold.said.len()) else { return };
        if fold.said[at] != said {
            let text = format!("{who}, record {offset}: {said:?} instead of {:?}", fold.said[at]);
            return self.violated(&inv::ONE_STORY, text);
        }
        let digest = Digest::of(shard);
        if digest != fold.digests[at] {
            let text = format!("{who}, after record {offset}: {digest:?} instead of {:?}", fold.digests[at]);
            self.violated(&inv::ONE_STORY, text);
        }
    }

    /// What a takeover has found as of X.
    pub fn compare_restored(&mut self, who: &str, partition: i32, shard: &Shard) {
        let next = shard.next_offset();
        let fold = self.fold(partition);
        let Some(at) = usize::try_from(next - 1).ok() else { return };
        let digest = Digest::of(shard);
        match fold.digests.get(at) {
            Some(known) if *known == digest => {}
            Some(known) => {
                let text = format!("{who}, as of {next}: {digest:?} instead of {known:?}");
                self.violated(&inv::STATE_IS_THE_FOLD, text);
            }
            None => {
                let text =
                    format!("{who}: the state is as of {next}, where the inbox ends at {}", fold.said.len());
                self.violated(&inv::STATE_IS_THE_FOLD, text);
            }
        }
    }
}

impl Fold {
    fn look(
        &mut self,
        entry: &Entry,
        input: Option<&Input<'_>>,
        outputs: &[Output],
        broken: &mut Vec<(&'static Invariant, String)>,
    ) {
        let cause = input.and_then(subject_of);
        self.look_at_births(input, outputs, broken);
        if let Some(Input::Reply(reply)) = input {
            self.born.entry(reply.address.birth).or_default().hears(reply);
        }
        for output in outputs {
            match output.destination {
                Destination::DeadLetters => {
                    if output.value.as_deref() != entry.record.value.as_deref() {
                        broken.push((&inv::ONE_STORY, "a dead letter is not the record itself".to_owned()));
                    }
                }
                Destination::Commands(_) => match read_asked(output.value.as_deref()) {
                    Ok(Asked::Command(command)) => self.look_at_command(&command, broken),
                    Ok(Asked::Verdict(verdict)) => self.look_at_verdict(&verdict, broken),
                    Err(error) => broken.push((&inv::COMMANDS_TO_PARTICIPANTS, format!("{}", error.cause))),
                },
                Destination::Outcomes => {
                    self.look_at_outcome(output, cause.as_deref(), input, broken);
                    self.look_at_end_of_child(output, outputs, broken);
                }
                Destination::Inbox(to) => self.look_at_family(to, output, input, broken),
            }
        }
        self.look_at_call_off(input, outputs);
        for transaction in self.shard.open_transactions() {
            let seen = self.born.entry(transaction.birth).or_default();
            let decided = match transaction.phase {
                Phase::Forward | Phase::Paused => None,
                Phase::Committing | Phase::Ended(OutcomeKind::Committed) => Some(Decision::Commit),
                Phase::RollingBack | Phase::Ended(_) => Some(Decision::Rollback),
            };
            let waits_for_parent = matches!(transaction.phase, Phase::Ended(_));
            if let Phase::Ended(kind) = transaction.phase
                && seen.ended != Some(kind)
            {
                let text = format!("{} has ended {kind}, and told {:?}", transaction.id, seen.ended);
                broken.push((&inv::OUTCOME_STAYS, text));
            }
            if seen.decision.is_some() && seen.decision != decided {
                broken.push((
                    &inv::DECIDED_ONCE,
                    format!("{} was {:?}, is {decided:?}", transaction.id, seen.decision),
                ));
            }
            seen.decision = decided;
            seen.refused.extend(names(&self.shard, transaction, &BranchPhase::Refused));
            if transaction.branches.iter().any(|branch| branch.phase == BranchPhase::Unknown) {
                let text = format!("{} leaves open what may have been done: {transaction:?}", transaction.id);
                broken.push((&inv::SOMEBODY_ACTS, text));
            }
            let has_timer = has_timer(&self.shard, transaction);
            if waits_for_parent == has_timer && !transaction.is_stuck() {
                let text = format!("{} has a timer ({has_timer}): {transaction:?}", transaction.id);
                broken.push((&inv::SOMEBODY_ACTS, text));
            }
        }
    }

    fn look_at_births(
        &mut self,
        input: Option<&Input<'_>>,
        outputs: &[Output],
        broken: &mut Vec<(&'static Invariant, String)>,
    ) {
        let (subject, time, definition, parent) = match input {
            Some(Input::Start(start)) => (&start.subject, start.time, &start.definition.name, None),
            Some(Input::Child(said)) => (
                &said.subject,
                said.issued,
                &said.definition.name,
                Some(Parent::at(&said.parent, said.depth)),
            ),
            _ => return,
        };
        let offset = self.shard.next_offset() - 1;
        let newest = self.shard.open_transactions().last().map(|transaction| transaction.birth);
        let ended_at_once = outputs.iter().filter(|output| output.destination == Destination::Outcomes);
        let ended_at_once =
            ended_at_once.filter_map(|output| match read_outcome(output.value.as_deref()).ok()?.occasion {
                Occasion::Transaction { birth, .. } => Some(birth),
                Occasion::Start { .. } => None,
            });
        let Some(birth) = newest.into_iter().chain(ended_at_once).find(|birth| birth.offset == offset) else {
            return;
        };
        let seen = self.born.entry(birth).or_default();
        seen.subject = subject.to_string();
        seen.definition = definition.to_string();
        let is_child = parent.is_some();
        seen.parent = parent;
        if is_child {
            self.look_at_birth_of_child(subject, broken);
        }
        if !self.lives.insert((subject.to_string(), time)) {
            broken.push((&inv::ONE_LIFE, format!("{subject} issued at {time} is born again")));
        }
    }

    fn look_at_outcome(
        &mut self,
        output: &Output,
        cause: Option<&str>,
        input: Option<&Input<'_>>,
        broken: &mut Vec<(&'static Invariant, String)>,
    ) {
        let outcome = match read_outcome(output.value.as_deref()) {
            Ok(outcome) => outcome,
            Err(error) => return broken.push((&inv::OUTCOME_STAYS, format!("{}", error.cause))),
        };
        if cause != Some(outcome.subject.as_str()) {
            broken.push((&inv::ONE_STORY, format!("an outcome of {} by {cause:?}", outcome.subject)));
        }
        let Occasion::Transaction { birth, .. } = outcome.occasion else { return };
        let seen = self.born.entry(birth).or_default();
        if let (None, false) = (seen.ended, outcome.outcome == OutcomeKind::Stuck)
            && let Err(text) = seen.ends(outcome.outcome, input)
        {
            broken
                .push((&inv::EFFECTS_AGREE, format!("{} ends {}: {text}", outcome.subject, outcome.outcome)));
        }
        if outcome.outcome == OutcomeKind::Stuck {
            seen.stuck = true;
        }
        match seen.ended {
            Some(ended) if ended != outcome.outcome => {
                let text = format!("{} was told {ended}, then {}", outcome.subject, outcome.outcome);
                broken.push((&inv::OUTCOME_STAYS, text));
            }
            None if outcome.outcome != OutcomeKind::Stuck => seen.ended = Some(outcome.outcome),
            _ => {}
        }
    }
}

fn subject_of(input: &Input<'_>) -> Option<String> {
    Some(match input {
        Input::Start(start) => start.subject.to_string(),
        Input::Reply(reply) => reply.address.subject.to_string(),
        Input::Timer(timer) => timer.subject.to_string(),
        Input::Undeliverable(lost) => lost.address.subject.to_string(),
        Input::Inquiry(inquiry) => inquiry.subject.to_string(),
        Input::Child(said) => said.subject.to_string(),
        Input::Verb(verb) => verb.subject.to_string(),
        Input::Shard(_) | Input::Definition(_) => return None,
    })
}

fn has_timer(shard: &Shard, transaction: &Transaction) -> bool {
    shard.timers().due(Time::MAX).any(|entry| entry.birth_offset == transaction.birth.offset)
}

fn names(shard: &Shard, transaction: &Transaction, phase: &BranchPhase) -> Vec<String> {
    let Some((_, plan, _)) = shard.definitions().iter().find(|(id, _, _)| **id == transaction.definition)
    else {
        return Vec::new();
    };
    let of_phase = |index: &BranchIndex| transaction.branch(*index).phase == *phase;
    let name = |index| {
        let (step, branch) = plan.branch(index);
        branch_name(step.name.as_str(), branch.name.as_str())
    };
    plan.branch_indexes().filter(of_phase).map(name).collect()
}

/// The decision to skip the record at `offset`, if this is one.
pub fn skip_of(value: Option<&[u8]>, offset: i64) -> Option<Authority<'_>> {
    match read_input(value) {
        Ok(Input::Shard(ShardVerb { wish: ShardWish::Skip { offset: target }, authority }))
            if target == offset =>
        {
            Some(authority)
        }
        _ => None,
    }
}

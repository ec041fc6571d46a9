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
use sagamore_decider::transaction::{BranchPhase, Phase, Transaction};
use sagamore_schemas::definition::StepKind;
use sagamore_schemas::ids::{Birth, Partition, Time};
use sagamore_schemas::log::{ChainHead, Decision};
use sagamore_schemas::wire::{
    Authority, Input, Occasion, Operation, OutcomeKind, ShardVerb, ShardWish, read_command, read_input,
    read_outcome,
};

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

/// One transaction, from outside.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Its id.
    pub subject: String,
    /// Name of its definition.
    pub definition: String,
    decision: Option<Decision>,
    /// How it ended.
    pub ended: Option<OutcomeKind>,
    /// Told to be stuck, at some time.
    pub stuck: bool,
    executed: BTreeSet<String>,
    refused: BTreeSet<String>,
    compensated: BTreeSet<String>,
    attempts: BTreeMap<(String, Operation), u32>,
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
    /// Rows of transition tables that leave no trace in the journal.
    pub rows: BTreeSet<&'static str>,
}

impl Seen {
    /// Steps that were asked to execute.
    pub fn executed(&self) -> impl Iterator<Item = &String> {
        self.executed.iter()
    }
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
                if matches!(input, Ok(Input::Reply(_) | Input::Timer(_) | Input::Undeliverable(_))) {
                    fold.rows.insert("S21");
                }
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
        for output in outputs {
            match output.destination {
                Destination::DeadLetters => {
                    if output.value.as_deref() != entry.record.value.as_deref() {
                        broken.push((&inv::ONE_STORY, "a dead letter is not the record itself".to_owned()));
                    }
                }
                Destination::Commands(_) => self.look_at_command(output, broken),
                Destination::Outcomes => self.look_at_outcome(output, cause.as_deref(), broken),
            }
        }
        for transaction in self.shard.open_transactions() {
            let seen = self.born.entry(transaction.birth).or_default();
            let decided = match transaction.phase {
                Phase::Forward => None,
                Phase::Committing => Some(Decision::Commit),
                Phase::RollingBack => Some(Decision::Rollback),
            };
            if seen.decision.is_some() && seen.decision != decided {
                broken.push((
                    &inv::DECIDED_ONCE,
                    format!("{} was {:?}, is {decided:?}", transaction.id, seen.decision),
                ));
            }
            seen.decision = decided;
            seen.refused.extend(names(&self.shard, transaction, &BranchPhase::Refused));
            if !has_timer(&self.shard, transaction) && !transaction.is_stuck() {
                broken
                    .push((&inv::SOMEBODY_ACTS, format!("{} has no timer: {transaction:?}", transaction.id)));
            }
        }
    }

    fn look_at_births(
        &mut self,
        input: Option<&Input<'_>>,
        outputs: &[Output],
        broken: &mut Vec<(&'static Invariant, String)>,
    ) {
        let Some(Input::Start(start)) = input else { return };
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
        seen.subject = start.subject.to_string();
        seen.definition = start.definition.name.to_string();
        if !self.lives.insert((start.subject.to_string(), start.time)) {
            broken
                .push((&inv::ONE_LIFE, format!("{} issued at {} is born again", start.subject, start.time)));
        }
    }

    fn look_at_command(&mut self, output: &Output, broken: &mut Vec<(&'static Invariant, String)>) {
        let command = match read_command(output.value.as_deref()) {
            Ok(command) => command,
            Err(error) => return broken.push((&inv::COMMANDS_TO_PARTICIPANTS, format!("{}", error.cause))),
        };
        let address = &command.address;
        let oldest = self.shard.open_transactions().map(|transaction| transaction.born).min();
        if oldest.is_some_and(|born| command.watermark > born) {
            let text = format!("watermark {} while one born at {oldest:?} is open", command.watermark);
            broken.push((&inv::WATERMARK_WAITS, text));
        }
        let step = address.step.to_string();
        let transaction = self.shard.open_transactions().find(|t| t.birth == address.birth);
        let planned = transaction.and_then(|transaction| {
            let (_, plan, _) =
                self.shard.definitions().iter().find(|(id, _, _)| **id == transaction.definition)?;
            let planned = plan.steps.iter().find(|planned| planned.name.as_str() == step)?;
            Some((planned.kind, planned.before.iter().map(|after| plan.step(*after)).collect::<Vec<_>>()))
        });
        let seen = self.born.entry(address.birth).or_default();
        let attempt = seen.attempts.entry((step.clone(), address.operation)).or_default();
        *attempt += 1;
        let mut graph = |holds: bool, text: &str| {
            if !holds {
                broken.push((
                    &inv::ALONG_THE_GRAPH,
                    format!("{} of {}: {text}", address.command_id(), address.subject),
                ));
            }
        };
        graph(address.attempt == *attempt, "attempts are counted one by one");
        let kind = planned.as_ref().map(|(kind, _)| *kind);
        match address.operation {
            Operation::Execute => {
                let first = seen.executed.insert(step.clone());
                graph(!seen.compensated.contains(&step), "done after it was undone");
                if kind == Some(StepKind::Retriable) {
                    graph(seen.decision != Some(Decision::Rollback), "runs after a commit only");
                } else {
                    graph(!first || seen.decision.is_none(), "first asked after the decision");
                }
            }
            Operation::Compensate => {
                graph(kind.is_none_or(|kind| kind == StepKind::Compensatable), "it cannot be undone");
                graph(seen.executed.contains(&step), "undone, and never asked");
                graph(!seen.refused.contains(&step), "undone, and was refused");
                if seen.compensated.insert(step.clone())
                    && let (Some(transaction), Some((_, before))) = (transaction, &planned)
                {
                    for after in before {
                        let is_settled = |phase: &BranchPhase| {
                            matches!(
                                phase,
                                BranchPhase::Skipped
                                    | BranchPhase::Refused
                                    | BranchPhase::Undone
                                    | BranchPhase::Aborted
                                    | BranchPhase::Stuck(_)
                            )
                        };
                        let settled = transaction.all_of(after, is_settled);
                        graph(settled, "undone before what came after it");
                    }
                }
            }
            Operation::Prepare | Operation::Precommit | Operation::Commit | Operation::Abort => {
                graph(false, "no protocol that there is says that");
            }
        }
    }

    fn look_at_outcome(
        &mut self,
        output: &Output,
        cause: Option<&str>,
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
    plan.branch_indexes().filter(of_phase).map(|index| plan.branch(index).0.name.to_string()).collect()
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

//! The shard: a pure, deterministic fold of one inbox partition. `apply` is the only way its state changes, live, at
//! takeover, in audit and in the simulator.
//!
//! ```text
//!             ┌───────────────────────── Shard ─────────────────────────┐
//!  Record ──▶ │ read ─▶ admission (start) │ protocol (reply, timer, …) │ ──▶ Outputs
//!             │         definitions, settings, level, skip              │ ──▶ Notice (to the owner's clients)
//!             └──── open · finished · timers · journal · touched ───────┘ ──▶ Checkpoint (on request)
//! ```
//! Deliberately absent: clocks (time is the record's), randomness, I/O. `apply` never waits and never fails: bad input
//! becomes a refusal or a dead letter, an impossible state is a panic that names the invariant.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Birth, Span, Time, TransactionId};
use sagamore_schemas::log::{AppliedRecord, JournalEntry};
use sagamore_schemas::wire::{
    Authority, DefinitionApplied, Input, Occasion, Outcome, OutcomeKind, PayloadRef, Reply, ShardVerb,
    ShardWish, Timer, Undeliverable, Verb, Wish, read_input,
};

use crate::definitions::{Adopted, Definitions};
use crate::finished::{Ending, Finished, seconds};
use crate::identity::Identity;
use crate::journal::Journal;
use crate::outcome::{outcome, outcome_output};
use crate::output::{Destination, Notice, Output, Record};
use crate::planted::{self, Defect};
use crate::protocol::{call, decision, pause, resolve};
use crate::settings::Settings;
use crate::stored::Stored;
use crate::timers::{TimerEntry, TimerOwner, Timers};
use crate::transaction::{Phase, Transaction};
use crate::turn::{Heeded, Turn};

/// Longest reason that is kept: 500 steps with one each, every byte of it escaped, fit beside the payloads in a state
/// record.
const REASON_BYTES_MAX: usize = 256;
/// Longest cause of a dead letter: it stands in a header beside the record itself.
const CAUSE_BYTES_MAX: usize = 1024;
/// Longest trace context that is passed on: version 00 has 55 characters; a longer one is no trace context.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// The fold of one inbox partition.
#[derive(Debug, Clone)]
pub struct Shard {
    pub(crate) identity: Identity,
    pub(crate) level: u32,
    pub(crate) settings: Settings,
    pub(crate) clock: Time,
    /// A start issued before this may have run and been forgotten: it never falls, whatever becomes of the window.
    pub(crate) issued_after: Time,
    /// Everything below this inbox offset is folded in.
    pub(crate) next_offset: i64,
    pub(crate) last: Option<LastRecord>,
    /// Which it was when the shard was restored.
    pub(crate) restored: Option<AppliedRecord>,
    /// By the inbox offset of the start, so that the first is the oldest.
    pub(crate) open: BTreeMap<i64, Box<Transaction>>,
    pub(crate) births: BTreeMap<TransactionId, i64>,
    pub(crate) open_bytes: u64,
    pub(crate) finished: Finished,
    pub(crate) timers: Timers,
    pub(crate) definitions: Definitions,
    pub(crate) journal: Journal,
    /// Transactions that a checkpoint has to write if they are open then, by the inbox offset of their start.
    pub(crate) touched: BTreeSet<i64>,
    /// Transactions that are stored and have ended.
    pub(crate) ended: Vec<TransactionId>,
    pub(crate) stored: Stored,
}

/// The last record applied, kept so that a checkpoint can say which it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastRecord {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl Shard {
    /// The fold of an inbox partition that nobody has read yet.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            level: 1,
            settings: Settings::default(),
            clock: Time::default(),
            issued_after: Time::default(),
            next_offset: 0,
            last: None,
            restored: None,
            open: BTreeMap::new(),
            births: BTreeMap::new(),
            open_bytes: 0,
            finished: Finished::default(),
            timers: Timers::default(),
            definitions: Definitions::default(),
            journal: Journal::default(),
            touched: BTreeSet::new(),
            ended: Vec::new(),
            stored: Stored::default(),
        }
    }

    /// Applies the next record of the inbox.
    ///
    /// # Panics
    /// On an offset that does not rise, and on a state that cannot be: the message names the invariant.
    pub fn apply(&mut self, record: &Record<'_>, outputs: &mut Vec<Output>) -> Notice {
        assert!(!planted::poisons(record.value), "planted: a record on which apply panics");
        self.pass(record);
        match read_input(record.value) {
            Ok(mut input) => {
                shorten(&mut input);
                let entry = self.entry(record.offset, input.label());
                match input {
                    Input::Start(start) => self.on_start(entry, &start, outputs),
                    Input::Reply(reply) => self.on_reply(entry, record, &reply, outputs),
                    Input::Timer(timer) => self.on_timer(entry, &timer, outputs),
                    Input::Undeliverable(lost) => self.on_undeliverable(entry, &lost, outputs),
                    Input::Inquiry(inquiry) => self.on_inquiry(record, &inquiry, outputs),
                    Input::Child(said) => self.on_child(entry, record, &said, outputs),
                    Input::Verb(verb) => self.on_verb(entry, &verb, outputs),
                    Input::Shard(verb) => self.on_shard_verb(entry, record, &verb, outputs),
                    Input::Definition(applied) => self.on_definition(entry, record, &applied, outputs),
                }
            }
            Err(error) => match error.start {
                Some(subject) => {
                    let reason = format!("malformed: {}", error.cause);
                    self.refuse(record.offset, subject, None, reason, outputs)
                }
                None => self.set_aside(record, &error.cause.to_string(), outputs),
            },
        }
    }

    /// Passes over a record on which `apply` panics, by the decision of an operator that stands later in the inbox.
    pub fn skip(&mut self, record: &Record<'_>, authority: &Authority<'_>) {
        self.pass(record);
        let mut authority = authority.clone();
        shorten_authority(&mut authority);
        let mut entry = self.entry(record.offset, "skipped");
        entry.actor = Some(authority.actor.into_owned());
        entry.reason = Some(authority.reason.into_owned());
        self.journal.append(entry);
    }

    fn pass(&mut self, record: &Record<'_>) {
        assert!(
            record.offset >= self.next_offset,
            "SAG-INV-3 offsets rise: {} after {} in {}",
            record.offset,
            self.next_offset - 1,
            self.identity.replyto
        );
        self.next_offset = record.offset + 1;
        self.clock = match planted::own_clock() {
            Some(own) if planted::is(Defect::ClockNotFromLog) => self.clock.max(own),
            _ if planted::is(Defect::ClockStepsBack) => record.timestamp,
            _ => self.clock.max(record.timestamp),
        };
        self.issued_after = self.issued_after.max(self.clock.before(self.settings.dedupe_window));
        self.finished.expire(self.issued_after);
        let last = self.last.get_or_insert_default();
        last.offset = record.offset;
        last.timestamp_ms = record.timestamp.epoch_ms();
        keep(&mut last.key, record.key);
        keep(&mut last.value, record.value);
    }

    pub(crate) fn entry(&mut self, offset: i64, input: &'static str) -> JournalEntry {
        JournalEntry {
            offset,
            sequence: 0,
            at: self.clock,
            input: Cow::Borrowed(input),
            transaction: None,
            birth: None,
            revision: None,
            definition: None,
            step: None,
            branch: None,
            operation: None,
            attempt: None,
            answer: None,
            reason: None,
            actor: None,
            payload: None,
            changes: self.journal.changes(),
            decision: None,
            outcome: None,
        }
    }

    /// What was issued before this may be purged by participants.
    pub(crate) fn watermark(&self) -> Time {
        let aged = self.clock.before(self.settings.watermark_age);
        if planted::is(Defect::WatermarkIgnoresOpen) {
            return aged;
        }
        self.open.first_key_value().map_or(aged, |(_, oldest)| aged.min(oldest.born))
    }

    fn on_reply(
        &mut self,
        mut entry: JournalEntry,
        record: &Record<'_>,
        reply: &Reply<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let address = &reply.address;
        if reply.instance != self.identity.instance {
            return self.set_aside(record, "a reply to another instance", outputs);
        }
        if address.birth.partition != self.identity.partition {
            return self.set_aside(record, "a reply in the wrong partition", outputs);
        }
        if self.settings.reply_token.is_some() {
            let expected = self.identity.reply_token(address);
            if expected.is_none() || expected.as_deref() != reply.replytoken.as_deref() {
                return self.set_aside(record, "a reply without the right token", outputs);
            }
        }
        let Some(transaction) = self.open.get(&address.birth.offset).filter(|t| t.id == address.subject)
        else {
            let ended =
                self.finished.get(&address.subject).is_some_and(|e| e.birth_offset == address.birth.offset);
            return if ended {
                Notice::None
            } else {
                self.set_aside(record, "a reply to nothing that is known", outputs)
            };
        };
        let plan = self.definitions.plan(&transaction.definition);
        let Some(index) = plan.branch_named(&address.step, &address.branch) else {
            return self.set_aside(record, "a reply of a step or branch that does not exist", outputs);
        };
        let bytes = transaction.payload_bytes() + reply.data.size_bytes();
        let fits = bytes as u64 <= self.settings.transaction_bytes_max;
        (entry.step, entry.branch) = plan.names(index);
        entry.operation = Some(address.operation);
        entry.attempt = Some(address.attempt);
        entry.answer = Some(reply.outcome);
        entry.reason = reply.reason.as_deref().map(str::to_owned);
        let payload = reply.data.sha256();
        entry.payload = Some(sagamore_schemas::log::Digest256(payload));
        self.turn(address.birth.offset, entry, outputs, |turn, transaction| {
            call::on_reply(turn, transaction, index, reply, fits)
        });
        Notice::None
    }

    fn on_timer(&mut self, mut entry: JournalEntry, timer: &Timer<'_>, outputs: &mut Vec<Output>) -> Notice {
        let early = timer.due > self.clock && !planted::is(Defect::TimerNotDue);
        if timer.birth.partition != self.identity.partition || early {
            return Notice::None;
        }
        let Some(transaction) = self.open.get(&timer.birth.offset) else { return Notice::None };
        let owner = match &timer.branch {
            None => TimerOwner::Deadline,
            Some((step, branch)) => {
                let plan = self.definitions.plan(&transaction.definition);
                let Some(index) = plan.branch_named(step, branch) else { return Notice::None };
                (entry.step, entry.branch) = plan.names(index);
                TimerOwner::Branch(index)
            }
        };
        let stands =
            self.timers.stands(TimerEntry { due: timer.due, birth_offset: timer.birth.offset, owner });
        if !stands && !planted::is(Defect::TimerNotProved) {
            return Notice::None;
        }
        self.turn(timer.birth.offset, entry, outputs, |turn, transaction| {
            match owner {
                TimerOwner::Deadline => decision::on_deadline(turn, transaction),
                TimerOwner::Branch(index) => call::on_timer(turn, transaction, index),
            }
            Heeded::Yes
        });
        Notice::None
    }

    fn on_undeliverable(
        &mut self,
        mut entry: JournalEntry,
        lost: &Undeliverable<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let address = &lost.address;
        if address.birth.partition != self.identity.partition {
            return Notice::None;
        }
        let Some(transaction) = self.open.get(&address.birth.offset) else { return Notice::None };
        let plan = self.definitions.plan(&transaction.definition);
        let Some(index) = plan.branch_named(&address.step, &address.branch) else {
            return Notice::None;
        };
        (entry.step, entry.branch) = plan.names(index);
        entry.operation = Some(address.operation);
        entry.attempt = Some(address.attempt);
        entry.reason = Some(lost.reason.to_string());
        self.turn(address.birth.offset, entry, outputs, |turn, transaction| {
            call::on_undeliverable(turn, transaction, index, address.operation, address.attempt, &lost.reason)
        });
        Notice::None
    }

    fn on_verb(&mut self, mut entry: JournalEntry, verb: &Verb<'_>, outputs: &mut Vec<Output>) -> Notice {
        entry.actor = Some(verb.authority.actor.to_string());
        entry.reason = Some(verb.authority.reason.to_string());
        let Some(&birth_offset) = self.births.get(&verb.subject) else {
            let reason = match self.finished.get(&verb.subject) {
                Some(ending) => format!("it has ended: {}", ending.outcome),
                None => "no such transaction".to_owned(),
            };
            return Notice::VerbRefused { reason };
        };
        let revision = self.open.get(&birth_offset).map(|transaction| transaction.revision);
        if verb.authority.revision.is_some() && verb.authority.revision != revision {
            let reason = format!("it is at revision {} by now", revision.unwrap_or_default());
            return Notice::VerbRefused { reason };
        }
        if let Wish::Resolve(resolution) = &verb.wish {
            // What is no name is no step, and is refused.
            entry.step = resolution.step.parse().ok();
            entry.branch = resolution.branch.as_deref().and_then(|branch| branch.parse().ok());
            entry.answer = Some(resolution.outcome.into());
            entry.payload = Some(sagamore_schemas::log::Digest256(resolution.data.sha256()));
        }
        let room = self.settings.transaction_bytes_max;
        let mut refusal = None;
        self.turn(birth_offset, entry, outputs, |turn, transaction| {
            let taken = match &verb.wish {
                Wish::Cancel => decision::on_cancel(turn, transaction, &verb.authority.reason),
                Wish::Retry => call::on_retry(turn, transaction),
                Wish::Pause => pause::on_pause(turn, transaction),
                Wish::Resume => pause::on_resume(turn, transaction),
                Wish::Resolve(resolution) => {
                    resolve::on_resolve(turn, transaction, resolution, &verb.authority.reason, room)
                }
            };
            match taken {
                Ok(()) => Heeded::Yes,
                Err(reason) => {
                    refusal = Some(reason.to_owned());
                    Heeded::No
                }
            }
        });
        refusal.map_or(Notice::VerbTaken, |reason| Notice::VerbRefused { reason })
    }

    fn on_shard_verb(
        &mut self,
        mut entry: JournalEntry,
        record: &Record<'_>,
        verb: &ShardVerb<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        entry.actor = Some(verb.authority.actor.to_string());
        entry.reason = Some(verb.authority.reason.to_string());
        match &verb.wish {
            // It counts only for a record on which `apply` panics, and there the owner has looked ahead for it.
            ShardWish::Skip { .. } => return Notice::VerbTaken,
            ShardWish::Level { level } if *level > self.level => self.level = *level,
            ShardWish::Level { level } => {
                let cause = format!("the level is {} already, and never falls to {level}", self.level);
                self.set_aside(record, &cause, outputs);
                return Notice::VerbRefused { reason: cause };
            }
            ShardWish::Settings { data } => match self.settings.changed_by(data.json().unwrap_or_default()) {
                Ok(settings) => self.settings = settings,
                Err(error) => {
                    self.set_aside(record, &error.to_string(), outputs);
                    return Notice::VerbRefused { reason: error.to_string() };
                }
            },
        }
        self.journal.append(entry);
        Notice::VerbTaken
    }

    fn on_definition(
        &mut self,
        mut entry: JournalEntry,
        record: &Record<'_>,
        applied: &DefinitionApplied<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let json = applied.data.json().unwrap_or_default();
        match self.definitions.adopt(applied.offset, json, self.settings.definitions_max) {
            Adopted::New(id) => {
                entry.definition = Some(id.to_string());
                self.journal.append(entry);
                Notice::None
            }
            Adopted::Known => Notice::None,
            Adopted::No(cause) => self.set_aside(record, &cause, outputs),
        }
    }

    /// Gives one input to one open transaction, and does all that follows from it.
    pub(crate) fn turn(
        &mut self,
        birth_offset: i64,
        mut entry: JournalEntry,
        outputs: &mut Vec<Output>,
        apply: impl FnOnce(&mut Turn<'_>, &mut Transaction) -> Heeded,
    ) {
        let watermark = self.watermark();
        let Some(transaction) = self.open.get_mut(&birth_offset) else {
            unreachable!("SAG-INV-4 a turn is an open transaction's: {birth_offset}")
        };
        let bytes_before = transaction.payload_bytes() as u64;
        entry.transaction = Some(transaction.id.clone());
        entry.birth = Some(transaction.birth);
        let plan = self.definitions.plan(&transaction.definition);
        let mut turn = Turn {
            identity: &self.identity,
            plan: &plan,
            definitions: &self.definitions,
            clock: self.clock,
            watermark,
            timers: &mut self.timers,
            tokens: self.settings.reply_token.is_some(),
            child_bytes_max: self.settings.transaction_bytes_max / 2,
            outputs,
            entry,
            stuck: None,
        };
        if apply(&mut turn, transaction) == Heeded::No {
            return;
        }
        transaction.revision += 1;
        let ended = decision::advance(&mut turn, transaction);
        turn.entry.revision = Some(transaction.revision);
        let stuck = turn.stuck.take();
        let told = ended.or(stuck.is_some().then_some(OutcomeKind::Stuck));
        turn.entry.outcome = told;
        self.journal.append(turn.entry);
        if let Some(kind) = told {
            let reason = match kind {
                OutcomeKind::Committed => None,
                OutcomeKind::Stuck => stuck.as_deref(),
                OutcomeKind::Compensated | OutcomeKind::Aborted | OutcomeKind::Refused => {
                    transaction.reason.as_deref()
                }
            };
            outputs.push(outcome(&self.identity, transaction, kind, reason, &plan));
        }
        self.touched.insert(birth_offset);
        self.open_bytes = self.open_bytes + transaction.payload_bytes() as u64 - bytes_before;
        if let Some(kind) = ended {
            self.on_end(birth_offset, kind, outputs);
        }
    }

    fn on_end(&mut self, birth_offset: i64, kind: OutcomeKind, outputs: &mut Vec<Output>) {
        let Some(ended) = self.open.get_mut(&birth_offset) else {
            unreachable!("SAG-INV-4 only what is open ends: {birth_offset}")
        };
        let is_child = ended.parent.is_some();
        if is_child {
            ended.phase = Phase::Ended(kind);
            self.tell_parent(&self.open[&birth_offset], kind, outputs);
        }
        if !is_child || planted::is(Defect::ChildForgottenAtEnd) {
            self.bury(birth_offset, kind);
        }
    }

    pub(crate) fn bury(&mut self, birth_offset: i64, outcome: OutcomeKind) {
        let Some(transaction) = self.open.remove(&birth_offset) else {
            unreachable!("SAG-INV-4 only what is open ends: {birth_offset}")
        };
        self.births.remove(&transaction.id);
        self.touched.remove(&birth_offset);
        if self.stored.contains(transaction.id.as_str().as_bytes()) {
            self.ended.push(transaction.id.clone());
        }
        self.open_bytes -= transaction.payload_bytes() as u64;
        let since = self.clock.max(transaction.time);
        let ending = Ending {
            birth_offset,
            fingerprint: fingerprint(&transaction),
            version: transaction.definition.version,
            outcome,
            revision: u32::try_from(transaction.revision).unwrap_or(u32::MAX),
            since_s: seconds(since.after(Span::from_ms(999))),
        };
        if !planted::is(Defect::EndingForgotten) {
            self.finished.insert(&transaction.id, ending);
        }
    }

    /// A new transaction, admitted: its first turn.
    pub(crate) fn open_transaction(
        &mut self,
        mut entry: JournalEntry,
        transaction: Transaction,
        outputs: &mut Vec<Output>,
    ) {
        let birth_offset = transaction.birth.offset;
        entry.definition = Some(transaction.definition.to_string());
        entry.payload = Some(transaction.input_hash);
        self.timers.arm(crate::turn::deadline_timer(&transaction));
        self.births.insert(transaction.id.clone(), birth_offset);
        self.open_bytes += transaction.payload_bytes() as u64;
        self.open.insert(birth_offset, Box::new(transaction));
        self.turn(birth_offset, entry, outputs, |_, _| Heeded::Yes);
    }

    /// Tells an outcome that has been told before, under the same id.
    pub(crate) fn tell_again(&self, id: &TransactionId, outputs: &mut Vec<Output>) {
        if let Some(ending) = self.finished.get(id) {
            let occasion = Occasion::Transaction {
                birth: Birth { partition: self.identity.partition, offset: ending.birth_offset },
                revision: u64::from(ending.revision),
            };
            let told = Outcome {
                subject: id.clone(),
                outcome: ending.outcome,
                occasion,
                instance: self.identity.instance,
                definition: None,
                reason: None,
                data: PayloadRef::Absent,
            };
            outputs.push(outcome_output(&told));
        }
    }

    /// Refuses a start.
    pub(crate) fn refuse(
        &mut self,
        offset: i64,
        subject: TransactionId,
        definition: Option<String>,
        reason: String,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let mut entry = self.entry(offset, "start");
        entry.transaction = Some(subject.clone());
        entry.definition.clone_from(&definition);
        entry.reason = Some(reason.clone());
        entry.outcome = Some(OutcomeKind::Refused);
        self.journal.append(entry);
        let told = Outcome {
            subject,
            outcome: OutcomeKind::Refused,
            occasion: Occasion::Start { cause: Birth { partition: self.identity.partition, offset } },
            instance: self.identity.instance,
            definition: definition.map(Cow::Owned),
            reason: Some(Cow::Borrowed(&reason)),
            data: PayloadRef::Absent,
        };
        outputs.push(outcome_output(&told));
        Notice::Refused { reason }
    }

    /// Puts a record among the dead letters, as it is, with its cause in headers.
    pub(crate) fn set_aside(
        &mut self,
        record: &Record<'_>,
        cause: &str,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        let mut cause = Cow::Borrowed(cause);
        bound(&mut cause, CAUSE_BYTES_MAX);
        let mut entry = self.entry(record.offset, "dead-letter");
        entry.reason = Some(cause.to_string());
        self.journal.append(entry);
        let mut headers: Vec<(String, Vec<u8>)> =
            record.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let place = [
            ("topic", self.identity.inbox.clone()),
            ("partition", self.identity.partition.to_string()),
            ("offset", record.offset.to_string()),
            ("timestamp", record.timestamp.epoch_ms().to_string()),
            ("message", cause.into_owned()),
        ];
        headers.extend(place.map(|(name, value)| (format!("__dlq.errors.{name}"), value.into_bytes())));
        outputs.push(Output {
            destination: Destination::DeadLetters,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers,
        });
        Notice::None
    }

    /// Whether this shard is the home of `id`.
    pub(crate) fn is_home(&self, id: &TransactionId) -> bool {
        home(id, self.identity.partitions) == self.identity.partition
    }
}

/// Hash of what a transaction was started with, for the comparison after its end: first 64 bits of a SHA-256.
pub(crate) fn fingerprint(transaction: &Transaction) -> u64 {
    fingerprint_of(transaction.definition.name.as_str(), transaction.input_hash)
}

pub(crate) fn fingerprint_of(definition: &str, input_hash: sagamore_schemas::log::Digest256) -> u64 {
    let mut bytes = input_hash.0.to_vec();
    bytes.extend_from_slice(definition.as_bytes());
    let digest = sagamore_schemas::log::Digest128::of(&bytes);
    u64::from_be_bytes([
        digest.0[0],
        digest.0[1],
        digest.0[2],
        digest.0[3],
        digest.0[4],
        digest.0[5],
        digest.0[6],
        digest.0[7],
    ])
}

/// Cuts what people and participants wrote: it is kept with the transaction and in the journal, beside the payloads whose
/// bytes are counted.
fn shorten(input: &mut Input<'_>) {
    match input {
        Input::Start(start) => forget_long(&mut start.traceparent),
        Input::Reply(reply) => {
            if let Some(reason) = &mut reply.reason {
                bound(reason, REASON_BYTES_MAX);
            }
        }
        Input::Undeliverable(lost) => bound(&mut lost.reason, REASON_BYTES_MAX),
        Input::Verb(verb) => shorten_authority(&mut verb.authority),
        Input::Shard(verb) => shorten_authority(&mut verb.authority),
        Input::Child(said) => forget_long(&mut said.traceparent),
        Input::Timer(_) | Input::Inquiry(_) | Input::Definition(_) => {}
    }
}

fn forget_long(traceparent: &mut Option<Cow<'_, str>>) {
    if traceparent.as_deref().is_some_and(|text| text.len() > TRACEPARENT_BYTES_MAX) {
        *traceparent = None;
    }
}

fn shorten_authority(authority: &mut Authority<'_>) {
    bound(&mut authority.actor, REASON_BYTES_MAX);
    bound(&mut authority.reason, REASON_BYTES_MAX);
}

fn bound(text: &mut Cow<'_, str>, bytes_max: usize) {
    if text.len() > bytes_max {
        *text = Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(bytes_max)]));
    }
}

fn keep(mine: &mut Option<Vec<u8>>, theirs: Option<&[u8]>) {
    match theirs {
        Some(bytes) => {
            let buffer = mine.get_or_insert_default();
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        None => *mine = None,
    }
}

//! What the owner of a shard does around the fold, without I/O: production and simulator drive the very same.
//!
//! ```text
//!   inbox ──on_record──▶ ┌────────── Owner ──────────┐ ──send──▶ producer ──on_delivered──▶ back in
//!                        │ Shard · Outbox · Alarm    │ ──poll──▶ Write(checkpoint) ──on_written──▶ back in
//!                        └───────────────────────────┘ ──poll──▶ Append(timer) to the own inbox
//! ```
//! | state of the checkpoint | on | becomes |
//! |---|---|---|
//! | idle | something applied, interval over | draining: drafted as of X |
//! | draining | all outputs of inputs below X acknowledged, or owed after a while | writing |
//! | writing | committed | idle |
//! | any | anything indefinite | the owner is dropped, and the shard taken over again |
//!
//! It is never repaired in place. An owner whose checkpoint is overdue by the lease stops: it neither applies nor sends.

use sagamore_schemas::ids::{Span, Time};

use crate::checkpoint::{Checkpoint, Draft};
use crate::outbox::{Outbox, Route, Sent, Ticket, Way};
use crate::output::{Notice, Output, Record};
use crate::planted::{self, Defect};
use crate::restore::Restored;
use crate::shard::Shard;
use crate::timers::Alarm;

/// How many times as long as the last checkpoint took the pause before the next is, at least: under load they take a
/// quarter of the time at most, and a transaction is stored less often while it lives.
const PAUSE_FACTOR: u64 = 3;
/// Longest pause that follows from [`PAUSE_FACTOR`]: it is what a successor has to replay.
const PAUSE_MAX: Span = Span::from_secs(2);
/// How far the timestamp of a record may lie ahead of the owner's own clock.
const CLOCK_AHEAD_MAX: Span = Span::from_secs(15 * 60);
/// Leases after which an owner whose checkpoint is due is given up.
const HOPELESS_LEASES: u64 = 3;

/// How an owner paces itself. Nothing here reaches the fold.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Shortest pause between two checkpoints; longer ones follow from how long they take.
    pub checkpoint_every: Span,
    /// How long a draft waits for acknowledgements before the rest is written down as owed.
    pub owed_after: Span,
    /// How long a checkpoint may be due before the owner stops.
    pub lease: Span,
    /// Outputs not acknowledged at which the owner stops applying: a slow broker must not fill the memory.
    pub outbox_max: usize,
    /// Their bytes.
    pub outbox_bytes_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            checkpoint_every: Span::from_ms(200),
            owed_after: Span::from_ms(1_000),
            lease: Span::from_secs(10),
            outbox_max: 100_000,
            outbox_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// The owner of one shard.
#[derive(Debug)]
pub struct Owner {
    shard: Shard,
    outbox: Outbox,
    alarm: Alarm,
    pace: Pace,
    /// Timers are armed when the fold has come to this offset: the end of the inbox at takeover.
    live_from: i64,
    stored_offset: i64,
    checkpoint: Progress,
    /// Since when something is applied that no checkpoint holds.
    due_since: Option<Time>,
    last_written: Time,
    /// How long the last checkpoint took, from its draft on.
    last_took: Span,
    scratch: Vec<Output>,
}

#[derive(Debug)]
enum Progress {
    Idle,
    Draining {
        draft: Box<Draft>,
        before: Ticket,
        since: Time,
    },
    /// `since` when it was drafted: what came after is in none yet.
    Writing {
        next_offset: i64,
        since: Time,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum Duty {
    /// Write this in one Kafka transaction, then say how it went.
    Write(Checkpoint),
    /// Append this record to the own inbox; it may be lost.
    Append {
        /// The record's key: the transaction id.
        key: String,
        /// The record's value.
        value: Vec<u8>,
    },
}

impl Owner {
    /// Takes up a restored shard. `live_from` is the end of its inbox now.
    pub fn new(restored: Restored, live_from: i64, pace: Pace, now: Time) -> Self {
        let mut outbox = Outbox::default();
        for output in restored.owed {
            outbox.push(output);
        }
        let stored_offset = if restored.applied.is_some() { restored.shard.next_offset() } else { 0 };
        Self {
            shard: restored.shard,
            outbox,
            alarm: Alarm::default(),
            pace,
            live_from,
            stored_offset,
            checkpoint: Progress::Idle,
            due_since: None,
            last_written: now,
            last_took: Span::default(),
            scratch: Vec::new(),
        }
    }

    /// The shard.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Whether the replay has caught up with the inbox as it was at takeover.
    pub fn is_live(&self) -> bool {
        self.shard.next_offset() >= self.live_from
    }

    /// Outputs not acknowledged.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether it may apply another record: not beyond the lease, not while too much is on its way.
    pub fn may_apply(&self, now: Time) -> bool {
        !self.is_past_lease(now)
            && self.outbox.len() < self.pace.outbox_max
            && self.outbox.bytes() < self.pace.outbox_bytes_max
    }

    /// Whether its due checkpoint has not succeeded for longer than the lease.
    pub fn is_past_lease(&self, now: Time) -> bool {
        let overdue = self.due_since.is_some_and(|since| now.since(since) > self.pace.lease);
        overdue && !planted::is(Defect::LeaseIgnored)
    }

    /// Whether it has stood still for so long that nothing but another takeover can help.
    pub fn is_hopeless(&self, now: Time) -> bool {
        let hopeless = Span::from_ms(self.pace.lease.as_ms().saturating_mul(HOPELESS_LEASES));
        self.due_since.is_some_and(|since| now.since(since) > hopeless)
    }

    /// When the last checkpoint succeeded; the takeover counts as one.
    pub fn last_written(&self) -> Time {
        self.last_written
    }

    /// Whether the clocks of broker and owner are near enough to apply a record with this timestamp. The fold's clock
    /// never comes back: who finds that they are not halts the shard.
    pub fn trusts(&self, timestamp: Time, now: Time) -> bool {
        timestamp <= now.after(CLOCK_AHEAD_MAX)
    }

    /// Applies the next record. `told` sees every output before it leaves.
    pub fn on_record(&mut self, record: &Record<'_>, now: Time, mut told: impl FnMut(&Output)) -> Notice {
        let notice = self.shard.apply(record, &mut self.scratch);
        for output in self.scratch.drain(..) {
            told(&output);
            self.outbox.push(output);
        }
        self.due_since.get_or_insert(now);
        notice
    }

    /// Passes over the next record, by the decision of an operator.
    pub fn on_skip(
        &mut self,
        record: &Record<'_>,
        authority: &sagamore_schemas::wire::Authority<'_>,
        now: Time,
    ) {
        self.shard.skip(record, authority);
        self.due_since.get_or_insert(now);
    }

    /// Hands what may go to the producer, the way that is wished for as soon as that keeps the order.
    pub fn send(&mut self, now: Time, wish: Way, send: impl FnMut(Ticket, &Route, &Output, Way) -> Sent) {
        if !self.is_past_lease(now) {
            self.outbox.send(now, wish, send);
        }
    }

    /// An output has been acknowledged.
    pub fn on_delivered(&mut self, ticket: Ticket) {
        self.outbox.on_delivered(ticket);
    }

    /// An output has not been delivered, and is sent again.
    pub fn on_failed(&mut self, ticket: Ticket) {
        self.outbox.on_failed(ticket);
    }

    /// An output can never be delivered.
    pub fn on_undeliverable(
        &mut self,
        ticket: Ticket,
        reason: &str,
    ) -> Result<(), crate::output::Destination> {
        self.outbox.on_undeliverable(ticket, reason)
    }

    /// What is due now. `hurry` begins a checkpoint without waiting for its interval: at a graceful stop.
    pub fn poll(&mut self, now: Time, hurry: bool) -> Vec<Duty> {
        let mut duties = Vec::new();
        if self.is_live() && !self.is_past_lease(now) {
            let ring = self.alarm.poll(self.shard.timers(), now);
            let timers = ring.into_iter().filter_map(|entry| self.shard.timer_of(entry));
            duties.extend(
                timers.map(|timer| Duty::Append { key: timer.subject.to_string(), value: timer.to_json() }),
            );
        }
        if matches!(self.checkpoint, Progress::Idle)
            && (hurry || now.since(self.last_written) >= self.pause())
            && let Some(draft) = self.shard.draft(self.stored_offset)
        {
            let before = self.outbox.next_ticket();
            self.checkpoint = Progress::Draining { draft: Box::new(draft), before, since: now };
        }
        if let Some(checkpoint) = self.poll_draft(now) {
            duties.push(Duty::Write(checkpoint));
        }
        duties
    }

    fn pause(&self) -> Span {
        let fair = Span::from_ms(self.last_took.as_ms().saturating_mul(PAUSE_FACTOR)).min(PAUSE_MAX);
        fair.max(self.pace.checkpoint_every)
    }

    fn poll_draft(&mut self, now: Time) -> Option<Checkpoint> {
        let Progress::Draining { before, since, .. } = self.checkpoint else { return None };
        let settled =
            self.outbox.settled_before(before) || planted::is(Defect::CheckpointBeforeAcknowledgement);
        let owed = if settled {
            Vec::new()
        } else if now.since(since) >= self.pace.owed_after {
            self.outbox.owe_before(before)?
        } else {
            return None;
        };
        let idle = Progress::Idle;
        let Progress::Draining { draft, .. } = std::mem::replace(&mut self.checkpoint, idle) else {
            unreachable!("it was draining just now")
        };
        let checkpoint = self.shard.complete(*draft, &owed);
        self.checkpoint = Progress::Writing { next_offset: checkpoint.next_offset, since };
        Some(checkpoint)
    }

    /// The checkpoint is committed. Anything else that may become of it means: drop this owner and take over again.
    pub fn on_written(&mut self, now: Time) {
        let Progress::Writing { next_offset, since } = self.checkpoint else {
            unreachable!("SAG-INV-8 only a checkpoint that is being written is written")
        };
        self.stored_offset = next_offset;
        self.checkpoint = Progress::Idle;
        self.last_written = now;
        self.last_took = now.since(since);
        self.due_since = (self.shard.next_offset() > next_offset).then_some(since);
    }

    /// Whether everything applied is in a checkpoint, and nothing is on its way.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.checkpoint, Progress::Idle) && self.stored_offset == self.shard.next_offset()
    }
}

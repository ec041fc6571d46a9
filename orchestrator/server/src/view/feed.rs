//! The thread that reads the journal and writes the view.
//!
//! ```text
//!  journal ─ assigned by hand, read_committed ─▶ batch ─ one local transaction ─▶ rows and positions
//!                                                                            └─▶ changes, to whoever listens
//! ```
//! It joins no group: every server reads every partition, and its place stands with the rows. Whatever goes wrong, it
//! begins again from that place; a server whose view does not get on says so by its lag, and runs shards all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{EndsAreNoErrors, Isolation};
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{BARRIER_KEY, EntryRef, entries_of};
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::{Input, read_input};

use super::changes::Change;
use super::store::{Batch, Store};
use super::{Shared, ViewError, schema};
use crate::checkpointer::timestamp_ms;
use crate::config::Installation;
use crate::definitions_tail::DefinitionsTail;
use crate::metrics;

/// How long a poll waits for the first record of a batch.
const POLL: Duration = Duration::from_millis(50);
/// How long a batch may be gathered: what is told of live transactions is not older for it.
const GATHERED_FOR: Duration = Duration::from_millis(100);
/// The same in a crowd.
const CROWD_GATHERED_FOR: Duration = Duration::from_secs(1);
/// How long open transactions are held back in a crowd: most end meanwhile.
const CROWD_HELD_FOR: Duration = Duration::from_secs(3);
/// Entries of a batch, by which a crowd is known.
const CROWD_ENTRIES: usize = 400;
/// Entries of a batch: a commit then costs little beside its rows.
const BATCH_ENTRIES: usize = 10_000;
/// Bytes of a batch, as they stand in the journal.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// What librdkafka may fetch ahead, in KiB: it would take 64 MiB.
const FETCHED_KIB: &str = "8192";
/// How often the ends of a partition are asked for.
const ENDS_EVERY: Duration = Duration::from_secs(5);
/// How long a broker may take to tell them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before everything begins again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What the thread works with.
pub(super) struct Feed {
    pub installation: Arc<Installation>,
    pub definitions: Arc<DefinitionsTail>,
    pub shared: Arc<Shared>,
}

/// What is known of a partition of the journal besides its rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ends {
    /// Offset of its first record.
    low: i64,
    /// Where what is committed ends.
    end: i64,
    /// Where the view stands.
    next: i64,
    /// Whether nothing was left when it last looked.
    is_at_end: bool,
    /// Whether what has been read is not yet in the file.
    is_held: bool,
    asked: Option<Instant>,
}

impl Ends {
    /// Records that are still to be written; marks of Kafka's own are among them, but none when nothing is left.
    pub(super) fn lag(&self) -> i64 {
        if self.is_at_end && !self.is_held { 0 } else { (self.end - self.next).max(0) }
    }
}

impl Feed {
    /// Runs until it is told to stop.
    pub(super) fn run(&self) {
        while !self.is_stopped() {
            match self.follow() {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the view does not get on; trying on");
                    if let ViewError::Store(cause) = &error
                        && schema::is_damage(cause)
                        && let Err(error) = schema::remove(&self.shared.folder.file())
                    {
                        tracing::warn!(%error, "the damaged view stays");
                    }
                    std::thread::sleep(RETRY_EVERY);
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn follow(&self) -> Result<(), ViewError> {
        let mut store = Store::open(&self.shared.folder.file(), self.installation.instance)?;
        let consumer = self.consumer()?;
        let topic = self.installation.topic(Topic::Journal);
        let mut ends = self.assign(&mut store, &consumer, &topic)?;
        let mut defined = -1;
        let mut gathered_for = GATHERED_FOR;
        let mut batch = Batch::default();
        let file = self.shared.folder.file();
        while !self.is_stopped() {
            if !file.exists() {
                return Err(ViewError::Deleted(file));
            }
            for (offset, value) in self.definitions.after(defined) {
                if let Ok(Input::Definition(applied)) = read_input(Some(&value))
                    && let Some(json) = applied.data.json()
                {
                    store.define(json)?;
                }
                defined = offset;
            }
            let entries = self.fill(&mut batch, &mut store, &consumer, &mut ends, gathered_for)?;
            gathered_for = if entries < CROWD_ENTRIES { GATHERED_FOR } else { CROWD_GATHERED_FOR };
            Self::look_after_one(&mut store, &consumer, &topic, &mut ends)?;
            self.shared.tell(&ends);
        }
        Ok(())
    }

    fn consumer(&self) -> Result<BaseConsumer<EndsAreNoErrors>, KafkaError> {
        let mut config = self.installation.config.kafka.replay_consumer(Isolation::ReadCommitted);
        config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", FETCHED_KIB);
        config.create_with_context(EndsAreNoErrors)
    }

    /// Begins at the stored place of each partition, or where its records begin.
    fn assign(
        &self,
        store: &mut Store,
        consumer: &BaseConsumer<EndsAreNoErrors>,
        topic: &str,
    ) -> Result<BTreeMap<i32, Ends>, ViewError> {
        let stored = store.positions()?;
        let mut assignment = TopicPartitionList::new();
        let mut ends = BTreeMap::new();
        for partition in 0..self.installation.partitions {
            let (low, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
            let next = match stored.get(&partition) {
                Some(next) if *next > end => return Err(self.begin_anew(partition, *next, end)),
                Some(next) => (*next).max(low),
                None => low,
            };
            store.place(partition, next)?;
            assignment.add_partition_offset(topic, partition, Offset::Offset(next))?;
            let known =
                Ends { low, end, next, is_at_end: next == end, is_held: false, asked: Some(Instant::now()) };
            ends.insert(partition, known);
        }
        consumer.assign(&assignment)?;
        Ok(ends)
    }

    /// The journal has been cut, by an operator or a lost broker: what is in the file may never have been.
    fn begin_anew(&self, partition: i32, next: i64, end: i64) -> ViewError {
        match schema::remove(&self.shared.folder.file()) {
            Ok(()) => ViewError::Cut { partition, next, end },
            Err(error) => error,
        }
    }

    /// Gathers a batch, and commits it.
    fn fill(
        &self,
        batch: &mut Batch,
        store: &mut Store,
        consumer: &BaseConsumer<EndsAreNoErrors>,
        ends: &mut BTreeMap<i32, Ends>,
        gathered_for: Duration,
    ) -> Result<usize, ViewError> {
        let mut changes = Vec::new();
        let mut bytes = 0;
        let begun = Instant::now();
        let is_crowd = gathered_for > GATHERED_FOR;
        let mut wait = POLL;
        while batch.entries() < BATCH_ENTRIES && bytes < BATCH_BYTES && begun.elapsed() < gathered_for {
            match consumer.poll(wait) {
                None if is_crowd && bytes > 0 => continue,
                None => break,
                Some(Ok(record)) => {
                    bytes += record.payload().map_or(0, <[u8]>::len);
                    self.take(store, batch, &record, &mut changes)?;
                    ends.entry(record.partition()).and_modify(|ends| ends.is_at_end = false);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ends.entry(partition).and_modify(|ends| ends.is_at_end = true);
                    continue;
                }
                Some(Err(cause)) if is_passing(&cause) => {
                    tracing::debug!(error = %cause, "the journal cannot be read at the moment");
                    continue;
                }
                Some(Err(cause)) => return Err(cause.into()),
            }
            wait = if is_crowd { POLL } else { Duration::ZERO };
        }
        let entries = batch.entries();
        if bytes > 0 || batch.is_holding() {
            store.commit(batch, (entries >= CROWD_ENTRIES).then_some(CROWD_HELD_FOR))?;
            for (partition, standing) in batch.standing() {
                ends.entry(partition)
                    .and_modify(|ends| (ends.next, ends.is_held) = (standing.next, standing.is_behind));
            }
            metrics::view_entries(entries);
            for change in changes {
                // Nobody listens: nobody is told.
                drop(self.shared.changes.send(Arc::new(change)));
            }
        }
        Ok(entries)
    }

    fn take(
        &self,
        store: &mut Store,
        batch: &mut Batch,
        record: &BorrowedMessage<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), ViewError> {
        let (partition, offset) = (record.partition(), record.offset());
        let is_listened_to = self.shared.changes.receiver_count() > 0;
        for (index, entry) in (0..).zip(entries(record)) {
            if let Some(life) = store.take(batch, partition, offset, &entry)?
                && is_listened_to
            {
                changes.push(Change::new(life, &entry, (partition, offset, index)));
            }
        }
        batch.passed(partition, offset, Time::from_epoch_ms(timestamp_ms(record.timestamp())));
        Ok(())
    }

    /// Asks for the ends of the partition that was asked about longest ago, and forgets what it no longer retains.
    fn look_after_one(
        store: &mut Store,
        consumer: &BaseConsumer<EndsAreNoErrors>,
        topic: &str,
        ends: &mut BTreeMap<i32, Ends>,
    ) -> Result<(), ViewError> {
        let is_due = |ends: &Ends| ends.asked.is_none_or(|asked| asked.elapsed() >= ENDS_EVERY);
        let Some((partition, known)) =
            ends.iter_mut().filter(|(_, ends)| is_due(ends)).min_by_key(|(_, ends)| ends.asked)
        else {
            return Ok(());
        };
        known.asked = Some(Instant::now());
        match consumer.fetch_watermarks(topic, *partition, PATIENCE) {
            Ok((low, end)) => (known.low, known.end) = (low, end),
            Err(error) => tracing::debug!(%error, "the ends of the journal are not known at the moment"),
        }
        if known.low > 0 {
            store.forget(*partition, known.low)?;
        }
        metrics::view_lag(*partition, known.lag());
        Ok(())
    }
}

/// What a journal record says. What nobody can read is told once, and passed over: the audit names it.
fn entries<'m>(record: &'m BorrowedMessage<'_>) -> Vec<EntryRef<'m>> {
    if record.key() == Some(BARRIER_KEY) {
        return Vec::new();
    }
    match entries_of(record.payload().unwrap_or_default()) {
        Ok(entries) => entries,
        Err(error) => {
            let (partition, offset) = (record.partition(), record.offset());
            tracing::warn!(partition, offset, %error, "a journal record is not understood; see `sagamore audit verify`");
            metrics::view_unreadable();
            Vec::new()
        }
    }
}

/// A broker that goes away comes back.
fn is_passing(cause: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, LeaderNotAvailable, NotLeaderForPartition, RequestTimedOut,
    };
    matches!(
        cause.rdkafka_error_code(),
        Some(
            AllBrokersDown
                | BrokerTransportFailure
                | LeaderNotAvailable
                | NotLeaderForPartition
                | RequestTimedOut
        )
    )
}

//! The commands of one participant: read by the relay that is active, kept in the table, and then committed.
//!
//! All partitions are assigned by hand: the lock says who reads, and a group would let a successor wait for the session of
//! a killed one. Offsets are committed to the group `<prefix>.<participant>` all the same, for the next relay and for
//! whoever measures lag. A command that undoes what a worker holds is decided again until it is free; offsets stay behind it
//! meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::Message;
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, EndsAreNoErrors};
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, command_topic};
use tracing::{info, warn};

use crate::counters::Counters;
use crate::inbox::{Inbox, Record};

/// Records of a batch.
const BATCH_RECORDS_MAX: usize = 500;
/// Bytes of a batch, give or take one record.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Commands that wait for a worker to let go. Others hear `pending`, and come again.
const HELD_MAX: usize = 1_000;
const HELD_AGAIN: Duration = Duration::from_millis(50);
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How often new partitions are looked for, and a topic that is not there yet.
const LOOKS_EVERY: Duration = Duration::from_secs(10);
const LOOKS_SOON: Duration = Duration::from_secs(1);
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Commands {
    consumer: BaseConsumer<EndsAreNoErrors>,
    topic: String,
    inbox: Inbox,
    /// What is kept, by partition: the next offset.
    next: BTreeMap<i32, i64>,
    /// Assigned, and read or not.
    partitions: Vec<i32>,
    held: Vec<(Place, Record)>,
    held_at: Instant,
    looked_at: Option<Instant>,
    committed_at: Instant,
    is_moved: bool,
    troubled_at: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Place {
    partition: i32,
    offset: i64,
}

impl Commands {
    pub(crate) fn new(
        clients: &ClientSettings,
        prefix: &Prefix,
        participant: &Name,
        inbox: Inbox,
    ) -> KafkaResult<Self> {
        let group = format!("{prefix}.{participant}");
        let config = clients.participant_consumer(&group, &format!("sagamore-{participant}"));
        Ok(Self {
            consumer: config.create_with_context(EndsAreNoErrors)?,
            topic: command_topic(prefix, participant),
            inbox,
            next: BTreeMap::new(),
            partitions: Vec::new(),
            held: Vec::new(),
            held_at: Instant::now(),
            looked_at: None,
            committed_at: Instant::now(),
            is_moved: false,
            troubled_at: None,
        })
    }

    /// Takes what is there, waiting so long for a first one, and keeps it. Whether there was anything.
    pub(crate) fn turn(
        &mut self,
        connection: &mut Connection,
        patience: Duration,
        counters: &mut Counters,
    ) -> Result<bool, SqlError> {
        self.look_when_due();
        let mut batch = self.poll(patience);
        let has_come = !batch.is_empty();
        if self.held_at.elapsed() >= HELD_AGAIN {
            self.held_at = Instant::now();
            // In the order in which they came.
            batch.splice(0..0, self.held.drain(..));
        }
        if !batch.is_empty() {
            let records: Vec<&Record> = batch.iter().map(|(_, record)| record).collect();
            let held = self.inbox.absorb(connection, &records, counters)?;
            for (index, (place, mut record)) in batch.into_iter().enumerate() {
                let next = self.next.entry(place.partition).or_default();
                *next = (*next).max(place.offset + 1);
                if held.contains(&index) && self.held.len() < HELD_MAX {
                    record.is_told = true;
                    self.held.push((place, record));
                }
            }
            self.is_moved = true;
        }
        if self.is_moved && self.committed_at.elapsed() >= COMMIT_INTERVAL {
            self.commit(CommitMode::Async);
        }
        Ok(has_come)
    }

    /// The last word to the group.
    pub(crate) fn finish(&mut self) {
        if self.is_moved {
            self.commit(CommitMode::Sync);
        }
    }

    fn poll(&mut self, patience: Duration) -> Vec<(Place, Record)> {
        let (mut batch, mut bytes, mut patience) = (Vec::new(), 0, patience);
        while batch.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    let place = Place { partition: message.partition(), offset: message.offset() };
                    let record = Record {
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().unwrap_or_default().to_vec(),
                        is_told: false,
                    };
                    bytes += record.value.len();
                    batch.push((place, record));
                    self.troubled_at = None;
                }
                Some(Err(failure)) => {
                    if self.troubled_at.is_none_or(|told| told.elapsed() >= TROUBLE_INTERVAL) {
                        self.troubled_at = Some(Instant::now());
                        warn!(topic = self.topic, %failure, "no commands from Kafka; trying again");
                    }
                    break;
                }
                None => break,
            }
            patience = Duration::ZERO;
        }
        batch
    }

    fn commit(&mut self, mode: CommitMode) {
        self.committed_at = Instant::now();
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in &self.next {
            let held = self.held.iter().filter(|(place, _)| place.partition == *partition);
            let least = held.map(|(place, _)| place.offset).min().unwrap_or(*next).min(*next);
            if let Err(failure) = offsets.add_partition_offset(&self.topic, *partition, Offset::Offset(least))
            {
                warn!(topic = self.topic, %failure, "an offset that is none");
                return;
            }
        }
        match self.consumer.commit(&offsets, mode) {
            Ok(()) => self.is_moved = !self.held.is_empty(),
            Err(failure) => {
                warn!(topic = self.topic, %failure, "offsets are not committed; what was kept comes again, and is known");
            }
        }
    }

    fn look_when_due(&mut self) {
        let interval = if self.partitions.is_empty() { LOOKS_SOON } else { LOOKS_EVERY };
        if self.looked_at.is_some_and(|looked_at| looked_at.elapsed() < interval) {
            return;
        }
        if let Err(failure) = self.assign_new() {
            warn!(topic = self.topic, %failure, "its partitions are not known; looking again");
        }
        self.looked_at = Some(Instant::now());
    }

    /// From where the group has committed; a new partition from its beginning.
    fn assign_new(&mut self) -> KafkaResult<()> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), METADATA_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        let found = found.map(|found| found.partitions().iter().map(MetadataPartition::id)).into_iter();
        let new: Vec<i32> =
            found.flatten().filter(|partition| !self.partitions.contains(partition)).collect();
        if new.is_empty() {
            if self.partitions.is_empty() && self.looked_at.is_none() {
                warn!(
                    topic = self.topic,
                    "the command topic does not exist; applying a definition with this participant creates it"
                );
            }
            return Ok(());
        }
        self.partitions.extend(new);
        let mut assigned = TopicPartitionList::new();
        for partition in &self.partitions {
            let from = self.next.get(partition).map_or(Offset::Stored, |next| Offset::Offset(*next));
            assigned.add_partition_offset(&self.topic, *partition, from)?;
        }
        self.consumer.assign(&assigned)?;
        info!(topic = self.topic, partitions = self.partitions.len(), "taking commands");
        Ok(())
    }
}

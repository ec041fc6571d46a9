//! A topic from its beginning to its present end, record by record: an hour of them is not kept in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const REQUEST_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Nothing comes for so long although something should.
const STALLED: Duration = Duration::from_secs(30);

/// Which records are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed Kafka transactions, and those outside any.
    Committed,
    /// All.
    Uncommitted,
}

/// A reader that goes on where it has stopped.
pub struct Tail {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
    next: BTreeMap<i32, i64>,
    /// Whose end has been met: control records have offsets and are never seen.
    ended: BTreeSet<i32>,
}

impl Tail {
    /// At the beginning of a topic.
    pub fn new(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<Self, String> {
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "chaos-check")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", level)
            .set("enable.partition.eof", "true")
            .set("fetch.queue.backoff.ms", "2")
            .set("queued.max.messages.kbytes", "16384")
            .create()
            .map_err(|error| error.to_string())?;
        let metadata =
            consumer.fetch_metadata(Some(topic), REQUEST_MAX).map_err(|error| error.to_string())?;
        let found = metadata.topics().first().ok_or("no such topic")?;
        let partitions: Vec<i32> = found.partitions().iter().map(MetadataPartition::id).collect();
        let mut from = TopicPartitionList::new();
        for partition in &partitions {
            let added = from.add_partition_offset(topic, *partition, Offset::Beginning);
            added.map_err(|error| error.to_string())?;
        }
        consumer.assign(&from).map_err(|error| error.to_string())?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            partitions,
            next: BTreeMap::new(),
            ended: BTreeSet::new(),
        })
    }

    /// Reads what is there; waits no longer than that for more.
    pub fn poll(&mut self, patience: Duration, mut each: impl FnMut(&BorrowedMessage<'_>)) {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(Ok(record)) = self.consumer.poll(POLL) {
                self.next.insert(record.partition(), record.offset() + 1);
                each(&record);
            }
        }
    }

    /// The present end of each partition that has records.
    pub fn ends(&self) -> Result<BTreeMap<i32, i64>, String> {
        let mut ends = BTreeMap::new();
        for partition in &self.partitions {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&self.topic, *partition, REQUEST_MAX)
                .map_err(|error| format!("{}: {error}", self.topic))?;
            if high > low {
                ends.insert(*partition, high);
            }
        }
        Ok(ends)
    }

    /// Reads to the present end. Every broker must answer.
    pub fn to_end(&mut self, mut each: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), String> {
        let ends = self.ends()?;
        let mut last = Instant::now();
        let lacks = |tail: &Self| {
            ends.iter().any(|(partition, end)| {
                !tail.ended.contains(partition) && tail.next.get(partition).is_none_or(|next| next < end)
            })
        };
        while lacks(self) {
            match self.consumer.poll(POLL) {
                Some(Ok(record)) => {
                    last = Instant::now();
                    self.next.insert(record.partition(), record.offset() + 1);
                    self.ended.remove(&record.partition());
                    each(&record);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(self.ended.insert(partition)),
                Some(Err(_)) | None if last.elapsed() > STALLED => {
                    return Err(format!("{} is not read up to {ends:?}: {:?}", self.topic, self.next));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }
}

/// Everything that stands in a topic.
pub fn read_all(
    bootstrap: &str,
    topic: &str,
    isolation: Isolation,
    each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), String> {
    Tail::new(bootstrap, topic, isolation)?.to_end(each)
}

/// A header as text.
pub fn header(record: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = record.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned())
}

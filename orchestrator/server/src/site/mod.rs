//! The topics of one prefix as commands and the API see them: a topic to its present end, the newest checkpoints, single
//! records, and from there the definitions. Everything here blocks: it is for commands and for threads that may.

pub mod apply;
pub mod catalogue;
pub mod children;

mod error;
mod journal;
mod letters;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, EndsAreNoErrors, Isolation};
use sagamore_kafka::topics::{Instance, read_instance};
use sagamore_schemas::log::{CHECKPOINT_KEY, CheckpointRecord};
use sagamore_schemas::topics::{Prefix, Topic};

pub use error::SiteError;
pub use journal::JournalPart;
pub use write::{NewRecord, Writer};

/// How long one request may take, before the cluster counts as unreachable.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a topic may take to be read to its end.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How far from its end a partition of the state is searched for its newest checkpoint at first, in records.
const SEARCH_RECORDS: i64 = 2_000;
/// By how much more each time that it was not enough.
const SEARCH_GROWTH: i64 = 16;

/// The topics of one prefix on one cluster.
#[derive(Debug, Clone)]
pub struct Site {
    /// How to reach it.
    pub settings: ClientSettings,
    /// What the names of its topics begin with.
    pub prefix: Prefix,
}

/// A partition as the cluster describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Its number.
    pub id: i32,
    /// How many copies it has.
    pub replication: u16,
}

/// The newest checkpoint of a shard.
#[derive(Debug, Clone)]
pub struct Newest {
    /// The checkpoint; none before the first.
    pub checkpoint: Option<CheckpointRecord>,
    /// Where the partition of the state ended when it was looked for.
    pub end: i64,
}

impl Site {
    /// The name of one of the topics.
    pub fn topic(&self, topic: Topic) -> String {
        topic.name(&self.prefix)
    }

    /// Which installation it is, and of how many shards.
    pub fn instance(&self) -> Result<Instance, SiteError> {
        // Asked first, because it fails sooner and in plainer words than reading does.
        self.partitions(Topic::State)?;
        Ok(read_instance(&self.settings, &self.prefix)?)
    }

    /// The partitions of a topic.
    pub fn partitions(&self, topic: Topic) -> Result<Vec<PartitionFacts>, SiteError> {
        self.partitions_of(&self.topic(topic))
    }

    /// The partitions of a topic that has no constant name, such as a participant's.
    pub fn partitions_of(&self, name: &str) -> Result<Vec<PartitionFacts>, SiteError> {
        let consumer = self.consumer(Isolation::ReadUncommitted)?;
        let metadata = consumer
            .fetch_metadata(Some(name), REQUEST_TIMEOUT)
            .map_err(|cause| self.failure("look at the topics", &cause))?;
        let facts = metadata.topics().iter().find(|facts| facts.name() == name && facts.error().is_none());
        let facts: Vec<_> = facts.map_or_else(Vec::new, |facts| {
            let partition = |facts: &rdkafka::metadata::MetadataPartition| PartitionFacts {
                id: facts.id(),
                replication: u16::try_from(facts.replicas().len()).unwrap_or(u16::MAX),
            };
            facts.partitions().iter().map(partition).collect()
        });
        if facts.is_empty() {
            return Err(SiteError::NoTopic(name.to_owned()));
        }
        Ok(facts)
    }

    /// How many copies the inbox has: what new topics beside it should have.
    pub fn replication(&self) -> Result<NonZeroU16, SiteError> {
        let partitions = self.partitions(Topic::Inbox)?;
        let copies = partitions.iter().map(|partition| partition.replication).min();
        Ok(copies.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN))
    }

    /// How many brokers there are.
    pub fn broker_count(&self) -> Result<usize, SiteError> {
        let consumer = self.consumer(Isolation::ReadUncommitted)?;
        let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT);
        Ok(metadata.map_err(|cause| self.failure("look at the brokers", &cause))?.brokers().len())
    }

    /// Every record of a topic of one partition, up to its end as it is now.
    pub fn read_all(&self, topic: Topic, mut see: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), SiteError> {
        self.partitions(topic)?;
        let consumer = self.consumer(Isolation::ReadUncommitted)?;
        self.read_to_end(&consumer, topic, &[(0, Offset::Beginning)].into(), READ_TIMEOUT, |record| {
            see(record);
        })
    }

    /// The newest checkpoint of every shard.
    pub fn newest_checkpoints(&self) -> Result<BTreeMap<i32, Newest>, SiteError> {
        let topic = self.topic(Topic::State);
        let partitions = self.partitions(Topic::State)?;
        let consumer = self.consumer(Isolation::ReadCommitted)?;
        let mut newest = BTreeMap::new();
        let mut lows = BTreeMap::new();
        for partition in partitions {
            let (low, end) = consumer
                .fetch_watermarks(&topic, partition.id, REQUEST_TIMEOUT)
                .map_err(|cause| self.failure("find the end of the state", &cause))?;
            lows.insert(partition.id, low);
            newest.insert(partition.id, Newest { checkpoint: None, end });
        }
        let mut window = SEARCH_RECORDS;
        while !lows.is_empty() {
            let from = |(id, low): (&i32, &i64)| (*id, Offset::Offset((newest[id].end - window).max(*low)));
            let from: BTreeMap<_, _> = lows.iter().map(from).collect();
            let mut found = BTreeMap::new();
            self.read_to_end(&consumer, Topic::State, &from, READ_TIMEOUT, |record| {
                if let Some(checkpoint) = checkpoint_of(record) {
                    found.insert(record.partition(), checkpoint);
                }
            })?;
            lows.retain(|id, low| !found.contains_key(id) && newest[id].end - window > *low);
            for (id, checkpoint) in found {
                newest.entry(id).and_modify(|newest| newest.checkpoint = Some(checkpoint));
            }
            window = window.saturating_mul(SEARCH_GROWTH);
        }
        Ok(newest)
    }

    /// Waits until every shard has applied the definition at `offset`; returns those that have not in time.
    pub fn wait_for_definition(&self, offset: i64, wait: Duration) -> Result<BTreeSet<i32>, SiteError> {
        let deadline = Instant::now() + wait;
        let lacks = |checkpoint: &CheckpointRecord| checkpoint.definitions_offset < offset;
        let newest = self.newest_checkpoints()?;
        let waiting = newest.into_iter().filter(|(_, newest)| newest.checkpoint.as_ref().is_none_or(lacks));
        let from: BTreeMap<_, _> = waiting.map(|(id, newest)| (id, Offset::Offset(newest.end))).collect();
        let mut lacking: BTreeSet<i32> = from.keys().copied().collect();
        if lacking.is_empty() {
            return Ok(lacking);
        }
        let consumer = self.consumer(Isolation::ReadCommitted)?;
        self.assign(&consumer, Topic::State, &from)?;
        while !lacking.is_empty() && Instant::now() < deadline {
            match consumer.poll(POLL_INTERVAL) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(cause)) if is_passing(&cause) => {}
                Some(Err(cause)) => return Err(self.failure("read the state", &cause)),
                Some(Ok(record)) => {
                    if checkpoint_of(&record).is_some_and(|checkpoint| !lacks(&checkpoint)) {
                        lacking.remove(&record.partition());
                    }
                }
            }
        }
        Ok(lacking)
    }

    pub(crate) fn consumer(&self, isolation: Isolation) -> Result<BaseConsumer<EndsAreNoErrors>, SiteError> {
        let mut config = self.settings.replay_consumer(isolation);
        // For a person who asks now, the present end is enough.
        config.set("enable.partition.eof", "true");
        config.create_with_context(EndsAreNoErrors).map_err(SiteError::Client)
    }

    fn read_to_end(
        &self,
        consumer: &BaseConsumer<EndsAreNoErrors>,
        topic: Topic,
        from: &BTreeMap<i32, Offset>,
        within: Duration,
        mut see: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), SiteError> {
        self.assign(consumer, topic, from)?;
        let mut unread: BTreeSet<i32> = from.keys().copied().collect();
        let deadline = Instant::now() + within;
        while !unread.is_empty() {
            if Instant::now() >= deadline {
                return Err(SiteError::NotRead { topic: self.topic(topic), within });
            }
            match consumer.poll(POLL_INTERVAL) {
                None => {}
                Some(Ok(record)) => see(&record),
                Some(Err(KafkaError::PartitionEOF(id))) => {
                    unread.remove(&id);
                }
                Some(Err(cause)) => return Err(self.failure("read a topic", &cause)),
            }
        }
        Ok(())
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<EndsAreNoErrors>,
        topic: Topic,
        from: &BTreeMap<i32, Offset>,
    ) -> Result<(), SiteError> {
        let name = self.topic(topic);
        let mut assignment = TopicPartitionList::new();
        let added = from.iter().try_for_each(|(id, at)| assignment.add_partition_offset(&name, *id, *at));
        added
            .and_then(|()| consumer.assign(&assignment))
            .map_err(|cause| self.failure("read a topic", &cause))
    }

    pub(crate) fn failure(&self, doing: &'static str, cause: &KafkaError) -> SiteError {
        SiteError::Kafka { doing, bootstrap: self.settings.bootstrap().to_owned(), cause: cause.clone() }
    }
}

/// A broker that goes away and comes back while somebody waits is no reason to stop waiting.
fn is_passing(cause: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(cause.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure))
}

fn checkpoint_of(record: &BorrowedMessage<'_>) -> Option<CheckpointRecord> {
    if record.key() != Some(CHECKPOINT_KEY) {
        return None;
    }
    serde_json::from_slice(record.payload()?).ok()
}

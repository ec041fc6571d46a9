//! The instance: a UUID in every partition of the state, written once, with the partition count and the hash.
//!
//! It tells two lives of the same topic names apart. Participants remember operations by it, and the transactional
//! ids of the checkpoints contain it; so it is written before the first shard runs, and never again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sagamore_schemas::ids::Partition;
use sagamore_schemas::topics::{HomeHash, INSTANCE_KEY, InstanceRecord, Prefix, Topic};
use serde::Serialize;
use uuid::Uuid;

use super::cluster::Cluster;
use super::{Change, Layout, POLL_INTERVAL, REQUEST_TIMEOUT, TOPIC_READY_TIMEOUT, TopicsError, is_silent};
use crate::client::{ClientSettings, EndsAreNoErrors, Isolation};

/// To which instance a set of topics belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Drawn once.
    pub instance: Uuid,
    /// How many partitions inbox, state and journal have.
    pub partitions: NonZeroU16,
    /// How a transaction id finds its partition.
    pub hash: HomeHash,
}

/// Why the instance of a set of topics is not known.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// There is no state topic.
    #[error("{topic} does not exist: run `sagamore topics apply`")]
    NoTopic {
        /// The state topic.
        topic: String,
    },
    /// Some partitions do not say.
    #[error("partition {} of {topic} names no instance: run `sagamore topics apply`", list(partitions))]
    Missing {
        /// The state topic.
        topic: String,
        /// Which ones.
        partitions: Vec<Partition>,
    },
    /// Two partitions, or a partition and the topic, say different things. Nothing repairs this.
    #[error("{topic} is not one instance's state: {detail}. Use another --prefix, or restore the topic")]
    Contradiction {
        /// The state topic.
        topic: String,
        /// What contradicts what.
        detail: String,
    },
    /// The topic could not be read to its end in time, or written.
    #[error("cannot read or write the instance in {topic}: {cause}")]
    Kafka {
        /// The state topic.
        topic: String,
        /// What the client says.
        cause: KafkaError,
    },
    /// A partition did not come to an end in time.
    #[error("{topic} was not read within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout {
        /// The state topic.
        topic: String,
    },
}

impl InstanceError {
    /// Whether a broker did not answer, or does not have yet what others have named: the next try may go well.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Kafka { cause, .. } => is_silent(cause) || is_behind(cause),
            Self::Timeout { .. } => true,
            Self::NoTopic { .. } | Self::Missing { .. } | Self::Contradiction { .. } => false,
        }
    }
}

/// A broker that does not know a topic, or an offset, which the metadata had: it comes up, or the topic is new.
fn is_behind(cause: &KafkaError) -> bool {
    matches!(
        cause.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::UnknownTopicOrPartition)
    )
}

/// Reads the instance of a set of topics.
///
/// # Errors
/// [`InstanceError::Missing`] unless every partition names it; [`InstanceError::Contradiction`] if they disagree.
pub fn read_instance(settings: &ClientSettings, prefix: &Prefix) -> Result<Instance, InstanceError> {
    read(settings, prefix)?.named_by_all()
}

/// Writes the instance to every partition that does not name it yet, and returns it. If none does, one is drawn.
///
/// # Errors
/// [`InstanceError::Contradiction`] when partitions disagree, or were written for another count.
pub fn ensure_instance(
    settings: &ClientSettings,
    prefix: &Prefix,
    partitions: NonZeroU16,
) -> Result<Uuid, InstanceError> {
    let found = read_created(settings, prefix)?;
    let missing = found.missing();
    if missing.is_empty()
        && let Some(present) = found.instance()?
    {
        return Ok(present.instance);
    }
    let instance = found.instance()?.map_or_else(Uuid::new_v4, |present| present.instance);
    write(settings, &found.topic, &missing, |home| InstanceRecord {
        instance,
        partitions,
        hash: HomeHash::Murmur2,
        home,
    })?;
    // Read again: if two applied at once, both learn of it here, before anything has run.
    Ok(read_created(settings, prefix)?.named_by_all()?.instance)
}

/// Reads a topic that has been created: a broker that does not know it, or no offset of it, has not heard of it yet.
fn read_created(settings: &ClientSettings, prefix: &Prefix) -> Result<Found, InstanceError> {
    let begun = Instant::now();
    loop {
        match read(settings, prefix) {
            Err(error) if begun.elapsed() < TOPIC_READY_TIMEOUT && is_too_early(&error) => {
                std::thread::sleep(POLL_INTERVAL);
            }
            read => return read,
        }
    }
}

fn is_too_early(error: &InstanceError) -> bool {
    match error {
        InstanceError::NoTopic { .. } => true,
        InstanceError::Kafka { cause, .. } => is_behind(cause),
        InstanceError::Missing { .. }
        | InstanceError::Contradiction { .. }
        | InstanceError::Timeout { .. } => false,
    }
}

/// What [`ensure_instance`] would write.
pub(super) fn plan(
    cluster: &Cluster,
    settings: &ClientSettings,
    layout: &Layout,
) -> Result<Option<Change>, TopicsError> {
    let topic = Topic::State.name(&layout.prefix);
    if !cluster.topics()?.contains_key(&topic) {
        return Ok(Some(Change::WriteInstance { topic, instance: None }));
    }
    let found = read(settings, &layout.prefix)?;
    let instance = found.instance()?.map(|present| present.instance);
    Ok((!found.missing().is_empty()).then_some(Change::WriteInstance { topic, instance }))
}

/// The first instance record of each partition that has one.
struct Found {
    topic: String,
    partitions: BTreeSet<Partition>,
    records: BTreeMap<Partition, Result<InstanceRecord, String>>,
}

impl Found {
    fn missing(&self) -> Vec<Partition> {
        self.partitions.iter().copied().filter(|partition| !self.records.contains_key(partition)).collect()
    }

    /// What those that have one agree on, with the topic as it is.
    fn instance(&self) -> Result<Option<Instance>, InstanceError> {
        let mut agreed: Option<(Partition, Instance)> = None;
        for (&partition, record) in &self.records {
            let record = record.as_ref().map_err(|cause| {
                self.contradiction(format!("the instance in partition {partition} is unreadable: {cause}"))
            })?;
            if record.home != partition {
                return Err(
                    self.contradiction(format!("partition {partition} says it is partition {}", record.home))
                );
            }
            if usize::from(record.partitions.get()) != self.partitions.len() {
                return Err(self.contradiction(format!(
                    "partition {partition} was written for {} partitions, the topic has {}",
                    record.partitions,
                    self.partitions.len()
                )));
            }
            let instance =
                Instance { instance: record.instance, partitions: record.partitions, hash: record.hash };
            match agreed {
                Some((other, known)) if known != instance => {
                    return Err(self.contradiction(format!(
                        "partition {other} belongs to instance {}, partition {partition} to {}",
                        known.instance, instance.instance
                    )));
                }
                Some(_) => {}
                None => agreed = Some((partition, instance)),
            }
        }
        Ok(agreed.map(|(_, instance)| instance))
    }

    /// The instance, when every partition names it.
    fn named_by_all(self) -> Result<Instance, InstanceError> {
        let missing = self.missing();
        match self.instance()? {
            Some(instance) if missing.is_empty() => Ok(instance),
            Some(_) | None => Err(InstanceError::Missing { topic: self.topic, partitions: missing }),
        }
    }

    fn contradiction(&self, detail: String) -> InstanceError {
        InstanceError::Contradiction { topic: self.topic.clone(), detail }
    }
}

/// The record is the first of its partition, and compaction leaves it there: reading stops at it.
fn read(settings: &ClientSettings, prefix: &Prefix) -> Result<Found, InstanceError> {
    let topic = Topic::State.name(prefix);
    let kafka = |cause| InstanceError::Kafka { topic: topic.clone(), cause };
    let mut config = settings.replay_consumer(Isolation::ReadUncommitted);
    // Here an end is enough: what is not written yet is written now, and then read again.
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<EndsAreNoErrors> =
        config.create_with_context(EndsAreNoErrors).map_err(kafka)?;
    let partitions = partitions_of(&consumer, &topic)?;
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(&topic, partition.0, Offset::Beginning).map_err(kafka)?;
    }
    consumer.assign(&assignment).map_err(kafka)?;

    let mut unread = partitions.clone();
    let mut records = BTreeMap::new();
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    while !unread.is_empty() {
        match consumer.poll(POLL_INTERVAL) {
            None if Instant::now() >= deadline => return Err(InstanceError::Timeout { topic }),
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&Partition(partition));
            }
            Some(Err(cause)) => return Err(kafka(cause)),
            Some(Ok(message)) => {
                let partition = Partition(message.partition());
                if message.key() == Some(INSTANCE_KEY) && unread.remove(&partition) {
                    let parsed = serde_json::from_slice(message.payload().unwrap_or_default());
                    records.insert(partition, parsed.map_err(|cause| cause.to_string()));
                }
            }
        }
    }
    Ok(Found { topic, partitions, records })
}

fn partitions_of(
    consumer: &BaseConsumer<EndsAreNoErrors>,
    topic: &str,
) -> Result<BTreeSet<Partition>, InstanceError> {
    let metadata = consumer
        .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
        .map_err(|cause| InstanceError::Kafka { topic: topic.to_owned(), cause })?;
    let facts = metadata.topics().iter().find(|facts| facts.name() == topic);
    let code = facts.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
    if let Some(code) = code.filter(|code| !is_not_there(*code)) {
        return Err(InstanceError::Kafka { topic: topic.to_owned(), cause: KafkaError::MetadataFetch(code) });
    }
    let facts = facts.filter(|_| code.is_none());
    let partitions: BTreeSet<_> = facts
        .map(|facts| facts.partitions().iter().map(|partition| Partition(partition.id())).collect())
        .unwrap_or_default();
    if partitions.is_empty() {
        return Err(InstanceError::NoTopic { topic: topic.to_owned() });
    }
    Ok(partitions)
}

/// Other errors of a topic do not say that it is missing, but for instance that it may not be seen.
fn is_not_there(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable)
}

fn write(
    settings: &ClientSettings,
    topic: &str,
    partitions: &[Partition],
    record: impl Fn(Partition) -> InstanceRecord,
) -> Result<(), InstanceError> {
    let kafka = |cause| InstanceError::Kafka { topic: topic.to_owned(), cause };
    let deliveries = Deliveries::default();
    let producer: BaseProducer<Deliveries> =
        settings.client_producer("sagamore-topics").create_with_context(deliveries.clone()).map_err(kafka)?;
    for &partition in partitions {
        let json = serde_json::to_vec(&record(partition)).expect("an instance record is plain data");
        let kafka_record = BaseRecord::to(topic).partition(partition.0).key(INSTANCE_KEY).payload(&json);
        producer.send(kafka_record).map_err(|(cause, _)| kafka(cause))?;
    }
    producer.flush(REQUEST_TIMEOUT).map_err(kafka)?;
    match deliveries.take_error() {
        Some(cause) => Err(kafka(cause)),
        None => Ok(()),
    }
}

/// The first record that was not delivered.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Option<KafkaError>>>);

impl Deliveries {
    fn take_error(&self) -> Option<KafkaError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((cause, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause.clone());
        }
    }
}

fn list(partitions: &[Partition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(home: i32, instance: u128, partitions: u16) -> InstanceRecord {
        InstanceRecord {
            instance: Uuid::from_u128(instance),
            partitions: NonZeroU16::new(partitions).expect("not 0"),
            hash: HomeHash::Murmur2,
            home: Partition(home),
        }
    }

    /// Two partitions; given what each says, what they agree on.
    fn check(said: &[(i32, Result<InstanceRecord, String>)], expected: Result<Option<u128>, &str>) {
        let found = Found {
            topic: "t".to_owned(),
            partitions: [Partition(0), Partition(1)].into(),
            records: said.iter().map(|(partition, said)| (Partition(*partition), said.clone())).collect(),
        };
        match (found.instance(), expected) {
            (Ok(agreed), Ok(expected)) => {
                assert_eq!(agreed.map(|agreed| agreed.instance.as_u128()), expected);
            }
            (Err(InstanceError::Contradiction { detail, .. }), Err(expected)) => assert_eq!(detail, expected),
            (agreed, expected) => panic!("{agreed:?}, not {expected:?}"),
        }
    }

    #[test]
    fn what_a_new_topic_may_say_at_first_is_too_early() {
        let kafka = |cause| InstanceError::Kafka {
            topic: "state".to_owned(),
            cause: KafkaError::MessageConsumption(cause),
        };
        assert!(is_too_early(&InstanceError::NoTopic { topic: "state".to_owned() }));
        assert!(is_too_early(&kafka(RDKafkaErrorCode::UnknownTopicOrPartition)));
        assert!(is_too_early(&kafka(RDKafkaErrorCode::AutoOffsetReset)));
        for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::BrokerTransportFailure] {
            assert!(!is_too_early(&kafka(code)), "{code}");
        }
        assert!(!is_too_early(&InstanceError::Timeout { topic: "state".to_owned() }));
        let detail = "two instances".to_owned();
        assert!(!is_too_early(&InstanceError::Contradiction { topic: "state".to_owned(), detail }));
    }

    #[test]
    fn agreement() {
        check(&[], Ok(None));
        check(&[(1, Ok(record(1, 7, 2)))], Ok(Some(7)));
        check(&[(0, Ok(record(0, 7, 2))), (1, Ok(record(1, 7, 2)))], Ok(Some(7)));
    }

    #[test]
    fn contradictions() {
        check(
            &[(0, Ok(record(0, 7, 2))), (1, Ok(record(1, 8, 2)))],
            Err("partition 0 belongs to instance 00000000-0000-0000-0000-000000000007, partition 1 to \
                 00000000-0000-0000-0000-000000000008"),
        );
        check(&[(0, Ok(record(1, 7, 2)))], Err("partition 0 says it is partition 1"));
        check(&[(0, Ok(record(0, 7, 4)))], Err("partition 0 was written for 4 partitions, the topic has 2"));
        check(&[(0, Err("x".to_owned()))], Err("the instance in partition 0 is unreadable: x"));
    }
}

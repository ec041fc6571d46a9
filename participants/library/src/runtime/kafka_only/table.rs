//! The table of a participant that has nothing but Kafka, as anybody reads it: what is committed, to its present end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};

use crate::store::kafka::BARRIER_KEY;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Silence after which a broker counts as unreachable.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// What Kafka says.
    #[error("{topic}: {cause}")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why not.
        cause: KafkaError,
    },
    /// There is no such table.
    #[error("there is no topic {0}")]
    Missing(String),
    /// A broker says nothing.
    #[error("{topic}: nothing was heard for {SILENCE_MAX:?}")]
    Silent {
        /// The topic.
        topic: String,
    },
}

/// Shows each record of the table in `topic`, each partition in its order: a key with the row that now has it, or with
/// none, which removes it. Ends where the table ended, or where a Kafka transaction was open, when it came there.
pub fn read_table(
    clients: &ClientSettings,
    topic: &str,
    mut on_row: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<(), TableError> {
    let kafka = |cause| TableError::Kafka { topic: topic.to_owned(), cause };
    let mut config = clients.replay_consumer(Isolation::ReadCommitted);
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().map_err(kafka)?;
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(kafka)?;
    let partitions = metadata.topics().iter().find(|facts| facts.name() == topic);
    let mut unread: BTreeSet<i32> = partitions
        .iter()
        .flat_map(|facts| facts.partitions())
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect();
    if unread.is_empty() {
        return Err(TableError::Missing(topic.to_owned()));
    }
    let mut assignment = TopicPartitionList::new();
    for partition in &unread {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).map_err(kafka)?;
    }
    consumer.assign(&assignment).map_err(kafka)?;
    let mut heard = Instant::now();
    while !unread.is_empty() {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(record)) => {
                let key = record.key().unwrap_or_default();
                if key != BARRIER_KEY && unread.contains(&record.partition()) {
                    on_row(key, record.payload());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
            }
            Some(Err(cause)) => return Err(kafka(cause)),
            None if heard.elapsed() > SILENCE_MAX => {
                return Err(TableError::Silent { topic: topic.to_owned() });
            }
            None => continue,
        }
        heard = Instant::now();
    }
    Ok(())
}

//! Partitions of topics, from their beginning to their end as it is when one looks.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{EndsAreNoErrors, Isolation};

use crate::site::{Site, SiteError};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Silence after which a broker counts as unreachable.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A partition of a topic, and what of it is there.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is there.
    pub low: i64,
    /// Behind the last.
    pub end: i64,
}

impl Stretch {
    /// How many offsets.
    pub fn span(&self) -> u64 {
        u64::try_from(self.end - self.low).unwrap_or_default()
    }
}

/// Topics whose names begin so, with the partitions of each.
pub fn stretches(site: &Site, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Stretch>, SiteError> {
    let consumer = consumer(site, Isolation::ReadUncommitted)?;
    let failure = |doing, cause| failure(site, doing, cause);
    let metadata = consumer
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .map_err(|cause| failure("look at the topics", cause))?;
    let mut found = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| is_wanted(topic.name())) {
        for partition in topic.partitions() {
            let (low, end) = consumer
                .fetch_watermarks(topic.name(), partition.id(), REQUEST_TIMEOUT)
                .map_err(|cause| failure("find the end of a topic", cause))?;
            found.push(Stretch { topic: topic.name().to_owned(), partition: partition.id(), low, end });
        }
    }
    found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(found)
}

/// Reads it, in its order, until `see` has had enough.
pub fn read(
    site: &Site,
    stretch: &Stretch,
    isolation: Isolation,
    mut see: impl FnMut(&BorrowedMessage<'_>) -> bool,
) -> Result<(), SiteError> {
    if stretch.low >= stretch.end {
        return Ok(());
    }
    let consumer = consumer(site, isolation)?;
    let mut assignment = TopicPartitionList::new();
    let from = Offset::Offset(stretch.low);
    assignment
        .add_partition_offset(&stretch.topic, stretch.partition, from)
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|cause| failure(site, "read a topic", cause))?;
    let mut heard = Instant::now();
    loop {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(record)) => {
                if record.offset() >= stretch.end || !see(&record) || record.offset() + 1 == stretch.end {
                    return Ok(());
                }
                heard = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(cause)) => return Err(failure(site, "read a topic", cause)),
            None if heard.elapsed() > SILENCE_MAX => {
                return Err(SiteError::NotRead { topic: stretch.topic.clone(), within: SILENCE_MAX });
            }
            None => {}
        }
    }
}

/// Its headers, as the fold takes them.
pub fn headers_of<'m>(record: &'m BorrowedMessage<'_>) -> Vec<(&'m str, &'m [u8])> {
    let headers = record
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect());
    headers.unwrap_or_default()
}

fn consumer(site: &Site, isolation: Isolation) -> Result<BaseConsumer<EndsAreNoErrors>, SiteError> {
    let mut config = site.settings.replay_consumer(isolation);
    config.set("enable.partition.eof", "true");
    config.create_with_context(EndsAreNoErrors).map_err(SiteError::Client)
}

fn failure(site: &Site, doing: &'static str, cause: KafkaError) -> SiteError {
    SiteError::Kafka { doing, bootstrap: site.settings.bootstrap().to_owned(), cause }
}

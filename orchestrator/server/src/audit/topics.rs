//! Partitions of topics, from their beginning to their end as it is when one looks.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::Isolation;

use crate::site::{REQUEST_TIMEOUT, Site, SiteError};

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
    let consumer = site.consumer(Isolation::ReadUncommitted)?;
    let metadata = consumer
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .map_err(|cause| site.failure("look at the topics", &cause))?;
    let mut found = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| is_wanted(topic.name())) {
        for partition in topic.partitions() {
            let (low, end) = consumer
                .fetch_watermarks(topic.name(), partition.id(), REQUEST_TIMEOUT)
                .map_err(|cause| site.failure("find the end of a topic", &cause))?;
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
    let consumer = site.consumer(isolation)?;
    let mut assignment = TopicPartitionList::new();
    let from = Offset::Offset(stretch.low);
    assignment
        .add_partition_offset(&stretch.topic, stretch.partition, from)
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|cause| site.failure("read a topic", &cause))?;
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
            Some(Err(cause)) => return Err(site.failure("read a topic", &cause)),
            None if heard.elapsed() > SILENCE_MAX => {
                return Err(SiteError::NotRead { topic: stretch.topic.clone(), within: SILENCE_MAX });
            }
            None => {}
        }
    }
}

/// Each of them, by as many threads as there are.
pub fn in_parallel<I: Sync, T: Send, E: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let waiting = Mutex::new(items.iter());
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = next() {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

//! The dead letters, from the beginning to their end as it is now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::topics::Topic;

use super::{POLL_INTERVAL, REQUEST_TIMEOUT, Site, SiteError};

/// Silence after which the brokers count as unreachable; the topic itself may be long.
const SILENT: Duration = Duration::from_secs(30);

impl Site {
    /// Reads every record of the dead letters; each partition in its order.
    pub fn read_dead_letters(&self, mut see: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), SiteError> {
        let topic = self.topic(Topic::DeadLetters);
        let consumer = self.consumer(Isolation::ReadUncommitted)?;
        let mut ends = BTreeMap::new();
        for partition in self.partitions(Topic::DeadLetters)? {
            let (low, end) = consumer
                .fetch_watermarks(&topic, partition.id, REQUEST_TIMEOUT)
                .map_err(|cause| self.failure("find the end of the dead letters", &cause))?;
            if low < end {
                ends.insert(partition.id, end);
            }
        }
        let from = ends.keys().map(|id| (*id, Offset::Beginning)).collect();
        self.assign(&consumer, Topic::DeadLetters, &from)?;
        let mut heard = Instant::now();
        while !ends.is_empty() {
            match consumer.poll(POLL_INTERVAL) {
                None if heard.elapsed() > SILENT => {
                    return Err(SiteError::NotRead { topic, within: SILENT });
                }
                None => continue,
                Some(Ok(record)) => {
                    let id = record.partition();
                    if ends.get(&id).is_some_and(|end| record.offset() < *end) {
                        see(&record);
                    }
                    // The end need not be waited for: nothing of this topic is hidden from anybody.
                    if ends.get(&id).is_some_and(|end| record.offset() + 1 >= *end) {
                        ends.remove(&id);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(id))) => {
                    ends.remove(&id);
                }
                Some(Err(cause)) => return Err(self.failure("read the dead letters", &cause)),
            }
            heard = Instant::now();
        }
        Ok(())
    }
}

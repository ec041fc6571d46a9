//! The journal, from some place on to its end as it is now.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Time;
use sagamore_schemas::topics::Topic;

use super::{REQUEST_TIMEOUT, Site, SiteError};

/// How long the journal may take to be read.
const READ_TIMEOUT: Duration = Duration::from_mins(10);

/// A part of the journal: from where on each partition is read, and to where.
#[derive(Debug, Clone, Default)]
pub struct JournalPart {
    from: BTreeMap<i32, (i64, i64)>,
    /// Whether nothing lies before it.
    pub is_all: bool,
}

impl JournalPart {
    /// How many offsets it spans; fewer records, where Kafka keeps marks of its own.
    pub fn records(&self) -> u64 {
        let spans = self.from.values().map(|(from, end)| u64::try_from(end - from).unwrap_or_default());
        spans.sum()
    }
}

impl Site {
    /// The newest records of each partition, so many.
    pub fn newest_of_journal(&self, records: i64) -> Result<JournalPart, SiteError> {
        let mut part = self.whole_journal()?;
        for (from, end) in part.from.values_mut() {
            let newest = (*end - records).max(*from);
            part.is_all &= newest == *from;
            *from = newest;
        }
        Ok(part)
    }

    /// What was written from this time on.
    pub fn journal_since(&self, since: Time) -> Result<JournalPart, SiteError> {
        let mut part = self.whole_journal()?;
        let consumer = self.consumer(Isolation::ReadCommitted)?;
        let topic = self.topic(Topic::Journal);
        let mut asked = TopicPartitionList::new();
        let failure = |cause| self.failure("find a time in the journal", &cause);
        for partition in part.from.keys() {
            asked
                .add_partition_offset(&topic, *partition, Offset::Offset(since.epoch_ms()))
                .map_err(failure)?;
        }
        for found in consumer.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(failure)?.elements() {
            let Some((from, end)) = part.from.get_mut(&found.partition()) else { continue };
            *from = match found.offset() {
                Offset::Offset(offset) => offset.clamp(*from, *end),
                // Nothing is as new.
                _ => *end,
            };
        }
        Ok(part)
    }

    fn whole_journal(&self) -> Result<JournalPart, SiteError> {
        let consumer = self.consumer(Isolation::ReadCommitted)?;
        let topic = self.topic(Topic::Journal);
        let mut from = BTreeMap::new();
        for partition in self.partitions(Topic::Journal)? {
            let marks = consumer.fetch_watermarks(&topic, partition.id, REQUEST_TIMEOUT);
            from.insert(
                partition.id,
                marks.map_err(|cause| self.failure("find the end of the journal", &cause))?,
            );
        }
        Ok(JournalPart { from, is_all: true })
    }

    /// Reads it, committed records only.
    pub fn read_journal(
        &self,
        part: &JournalPart,
        see: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), SiteError> {
        let consumer = self.consumer(Isolation::ReadCommitted)?;
        let from = part.from.iter().map(|(id, (from, _))| (*id, Offset::Offset(*from))).collect();
        self.read_to_end(&consumer, Topic::Journal, &from, READ_TIMEOUT, see)
    }
}

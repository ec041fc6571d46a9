//! The inbox must still hold what the checkpoint was made of: the last applied record is read again and compared.

use std::time::{Duration, Instant};

use rdkafka::Timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use sagamore_decider::restore::Restored;
use sagamore_kafka::client::Isolation;
use sagamore_schemas::log::{AppliedRecord, record_hash};
use sagamore_schemas::topics::Topic;

use super::Failure;
use super::takeover::{SILENCE_MAX, fail_if_final, reader_at};
use crate::config::Installation;
use crate::halt::{Code, Halt};

/// Returns the end of the inbox.
pub(super) fn check_inbox(
    installation: &Installation,
    partition: i32,
    restored: &Restored,
) -> Result<i64, Failure> {
    let inbox = installation.topic(Topic::Inbox);
    let first = restored.applied.as_ref().map_or(0, |applied| applied.offset);
    let consumer =
        reader_at(installation, &inbox, partition, Offset::Offset(first), Isolation::ReadUncommitted)?;
    let (low, high) = consumer
        .fetch_watermarks(&inbox, partition, SILENCE_MAX)
        .map_err(|error| Failure::Indefinite(format!("ends of {inbox}/{partition}: {error}")))?;
    let truncated =
        |reason: String| Err(Failure::Halt(Halt { code: Code::InboxTruncated, reason, offset: Some(first) }));
    match &restored.applied {
        None if low > 0 => {
            truncated(format!("there is no checkpoint, and {inbox}/{partition} begins at {low} instead of 0"))
        }
        None => Ok(high),
        Some(applied) if applied.offset < low || applied.offset >= high => truncated(format!(
            "the last applied record is at {}, and {inbox}/{partition} holds {low} to {}",
            applied.offset,
            high - 1
        )),
        Some(applied) if same_record(&consumer, applied)? => Ok(high),
        Some(applied) => truncated(format!(
            "{inbox}/{partition} holds another record at {} than the one that was applied",
            applied.offset
        )),
    }
}

fn same_record(consumer: &rdkafka::consumer::BaseConsumer, applied: &AppliedRecord) -> Result<bool, Failure> {
    let begun = Instant::now();
    while begun.elapsed() < SILENCE_MAX {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let timestamp_ms = timestamp_ms(message.timestamp());
                let hash = record_hash(message.key(), message.payload(), timestamp_ms);
                return Ok(message.offset() == applied.offset && hash == applied.hash);
            }
            Some(Err(error)) => fail_if_final(&error)?,
            None => {}
        }
    }
    Err(Failure::Indefinite("the last applied record cannot be read".to_owned()))
}

/// The broker's timestamp of a record in milliseconds, clamped as the fold's clock is.
pub(crate) fn timestamp_ms(timestamp: Timestamp) -> i64 {
    sagamore_schemas::ids::Time::from_epoch_ms(timestamp.to_millis().unwrap_or(0)).epoch_ms()
}

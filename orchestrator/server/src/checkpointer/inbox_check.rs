//! What the inbox holds: the last applied record is read again, to be compared.

use std::time::{Duration, Instant};

use rdkafka::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;

use sagamore_decider::takeover::InboxSeen;
use sagamore_kafka::client::Isolation;
use sagamore_schemas::log::{AppliedRecord, record_hash};
use sagamore_schemas::topics::Topic;

use super::Failure;
use super::takeover::{SILENCE_MAX, fail_if_final, reader_at};
use crate::config::Installation;

/// The ends of the inbox, and the record at `offset` where it is there.
pub(super) fn look_into_inbox(
    installation: &Installation,
    partition: i32,
    offset: Option<i64>,
) -> Result<InboxSeen, Failure> {
    let inbox = installation.topic(Topic::Inbox);
    let first = Offset::Offset(offset.unwrap_or(0));
    let consumer = reader_at(installation, &inbox, partition, first, Isolation::ReadUncommitted)?;
    let (low, high) = consumer
        .fetch_watermarks(&inbox, partition, SILENCE_MAX)
        .map_err(|error| Failure::Indefinite(format!("ends of {inbox}/{partition}: {error}")))?;
    let record = match offset {
        Some(offset) if (low..high).contains(&offset) => Some(first_record(&consumer)?),
        Some(_) | None => None,
    };
    Ok(InboxSeen { low, high, record })
}

fn first_record(consumer: &BaseConsumer) -> Result<AppliedRecord, Failure> {
    let begun = Instant::now();
    while begun.elapsed() < SILENCE_MAX {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let timestamp_ms = timestamp_ms(message.timestamp());
                let hash = record_hash(message.key(), message.payload(), timestamp_ms);
                return Ok(AppliedRecord { offset: message.offset(), hash });
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

/// Its headers, as the fold takes them.
pub(crate) fn headers_of<'m>(record: &'m BorrowedMessage<'_>) -> Vec<(&'m str, &'m [u8])> {
    let headers = record
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect());
    headers.unwrap_or_default()
}

//! Takeover on Kafka: `sagamore_decider::takeover` says what is to be done, in which order.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use sagamore_decider::identity::Identity;
use sagamore_decider::restore::{RestoreError, Restored};
use sagamore_decider::takeover::{Ask, Takeover, TakeoverError};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Partition;
use sagamore_schemas::log::AS_OF;
use sagamore_schemas::topics::Topic;
use uuid::Uuid;

use super::Failure;
use super::inbox_check::look_into_inbox;
use super::producer::CheckpointProducer;
use crate::config::Installation;
use crate::halt::{Code, Halt};

/// Silence of the state topic after which a takeover is given up and begun anew.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Does what [`Takeover`] asks for.
pub(super) fn take_over(
    installation: &Installation,
    partition: i32,
) -> Result<(CheckpointProducer, Restored, i64), Failure> {
    let identity = Identity::new(
        installation.instance,
        Partition(partition),
        installation.partitions,
        installation.topic(Topic::Inbox),
        installation.config.reply_secret.clone(),
    );
    let mut takeover = Takeover::new(identity, Uuid::new_v4(), installation.client_id.clone());
    let producer = CheckpointProducer::new(&installation.site(), installation.instance, partition)?;
    loop {
        match takeover.ask() {
            Ask::Fence => {
                producer.fence()?;
                takeover.on_fenced();
            }
            Ask::WriteBarrier(value) => {
                producer.write_barrier(&value)?;
                takeover.on_barrier();
            }
            Ask::ReadState => read_state(installation, partition, &mut takeover)?,
            Ask::WriteAgain(records) => {
                producer.write_again(&records)?;
                let records = records.len();
                tracing::info!(shard = partition, records, "covered what a part of a checkpoint had left");
                takeover.on_written_again().map_err(|error| halted(&error))?;
            }
            Ask::LookIntoInbox(offset) => {
                let seen = look_into_inbox(installation, partition, offset)?;
                let (restored, inbox_end) = takeover.on_inbox(&seen).map_err(|error| halted(&error))?;
                return Ok((producer, restored, inbox_end));
            }
        }
    }
}

fn read_state(installation: &Installation, partition: i32, takeover: &mut Takeover) -> Result<(), Failure> {
    let consumer = reader_at(
        installation,
        &installation.topic(Topic::State),
        partition,
        Offset::Beginning,
        Isolation::ReadCommitted,
    )?;
    let mut heard = Instant::now();
    while takeover.ask() == Ask::ReadState {
        if heard.elapsed() > SILENCE_MAX {
            return Err(Failure::Indefinite("the state topic does not show our own barrier".to_owned()));
        }
        let message = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                fail_if_final(&error)?;
                continue;
            }
            None => continue,
        };
        heard = Instant::now();
        let as_of = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == AS_OF))
            .and_then(|header| header.value);
        takeover
            .on_state(message.key().unwrap_or_default(), as_of, message.payload())
            .map_err(|error| halted(&error))?;
    }
    Ok(())
}

/// A consumer of one partition, in no group.
pub(super) fn reader_at(
    installation: &Installation,
    topic: &str,
    partition: i32,
    offset: Offset,
    isolation: Isolation,
) -> Result<BaseConsumer, Failure> {
    let indefinite = |error: KafkaError| Failure::Indefinite(format!("reading {topic}/{partition}: {error}"));
    let consumer: BaseConsumer =
        installation.config.kafka.replay_consumer(isolation).create().map_err(indefinite)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, offset).map_err(indefinite)?;
    consumer.assign(&assignment).map_err(indefinite)?;
    Ok(consumer)
}

/// Errors of a poll that more patience does not heal.
pub(super) fn fail_if_final(error: &KafkaError) -> Result<(), Failure> {
    use rdkafka::error::RDKafkaErrorCode as E;
    match error.rdkafka_error_code() {
        Some(E::AutoOffsetReset | E::OffsetOutOfRange | E::UnknownTopicOrPartition | E::UnknownPartition) => {
            Err(Failure::Indefinite(error.to_string()))
        }
        _ => Ok(()),
    }
}

fn halted(error: &TakeoverError) -> Failure {
    let (code, offset) = match error {
        TakeoverError::State(
            RestoreError::Damaged { .. } | RestoreError::Incomplete { .. } | RestoreError::Foreign { .. },
        ) => (Code::StateIncomplete, None),
        TakeoverError::State(RestoreError::Level { .. }) => (Code::LevelUnknown, None),
        TakeoverError::Inbox { offset, .. } => (Code::InboxTruncated, Some(*offset)),
        TakeoverError::Secret => (Code::WrongSecret, None),
    };
    Failure::Halt(Halt { code, reason: error.to_string(), offset })
}

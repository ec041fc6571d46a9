//! Takeover: fence the former owner, read the state up to our own barrier, find the last applied input in the inbox.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use sagamore_decider::identity::{Identity, ReplySecret};
use sagamore_decider::restore::{RestoreError, Restored, StateReader};
use sagamore_decider::settings::Settings;
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Partition;
use sagamore_schemas::log::{AS_OF, BARRIER_KEY, BarrierRecord};
use sagamore_schemas::topics::Topic;
use uuid::Uuid;

use super::Failure;
use super::inbox_check::check_inbox;
use super::producer::CheckpointProducer;
use crate::config::Installation;
use crate::halt::{Code, Halt};

/// Silence of the state topic after which a takeover is given up and begun anew.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(20);

pub(super) fn take_over(
    installation: &Installation,
    partition: i32,
) -> Result<(CheckpointProducer, Restored, i64), Failure> {
    let producer = CheckpointProducer::begin(installation, partition)?;
    let barrier = BarrierRecord { token: Uuid::new_v4(), owner: installation.client_id.clone() };
    producer.write_barrier(&barrier)?;
    let state = read_state(installation, partition, barrier.token)?;
    let identity = Identity {
        instance: installation.instance,
        partition: Partition(partition),
        partitions: installation.partitions,
        replyto: format!("{}/{partition}", installation.topic(Topic::Inbox)),
        inbox: installation.topic(Topic::Inbox),
        secret: installation.config.reply_secret.clone(),
    };
    let restored = state.finish(identity).map_err(|error| halted(&error))?;
    let secret = installation.config.reply_secret.as_ref();
    check_secret(restored.shard.settings(), secret).map_err(Failure::Halt)?;
    let inbox_end = check_inbox(installation, partition, &restored)?;
    Ok((producer, restored, inbox_end))
}

fn read_state(installation: &Installation, partition: i32, token: Uuid) -> Result<StateReader, Failure> {
    let consumer = reader_at(
        installation,
        &installation.topic(Topic::State),
        partition,
        Offset::Beginning,
        Isolation::ReadCommitted,
    )?;
    let mut reader = StateReader::default();
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE_MAX {
        let message = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                fail_if_final(&error)?;
                continue;
            }
            None => continue,
        };
        heard = Instant::now();
        let key = message.key().unwrap_or_default();
        if key == BARRIER_KEY {
            let found: Option<BarrierRecord> =
                message.payload().and_then(|value| serde_json::from_slice(value).ok());
            if found.is_some_and(|found| found.token == token) {
                return Ok(reader);
            }
            continue;
        }
        let as_of = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == AS_OF))
            .and_then(|header| header.value);
        reader.read(key, as_of, message.payload()).map_err(|error| halted(&error))?;
    }
    Err(Failure::Indefinite("the state topic does not show our own barrier".to_owned()))
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

/// The secret must be the one that the settings name: other tokens would be other outputs.
pub(crate) fn check_secret(settings: &Settings, ours: Option<&ReplySecret>) -> Result<(), Halt> {
    if settings.reply_token.is_some() && settings.reply_token != ours.map(ReplySecret::fingerprint) {
        return Err(Halt {
            code: Code::WrongSecret,
            reason: "the settings name another reply-token secret than this server has".to_owned(),
            offset: None,
        });
    }
    Ok(())
}

fn halted(error: &RestoreError) -> Failure {
    let code = match error {
        RestoreError::Damaged { .. } | RestoreError::Incomplete { .. } | RestoreError::Foreign { .. } => {
            Code::StateIncomplete
        }
        RestoreError::Level { .. } => Code::LevelUnknown,
    };
    Failure::Halt(Halt { code, reason: error.to_string(), offset: None })
}

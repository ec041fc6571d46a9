//! A partition of the participant's topics on Kafka: how it is taken over, and written to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::Isolation;
use sagamore_kafka::transactions::{TransactionError, Transactions};
use sagamore_schemas::topics::KafkaOnlyTopic;
use uuid::Uuid;

use super::KafkaOnlySettings;
use crate::store::kafka::{BARRIER_KEY, Batch, Destination, Found, Log, LogFault, Place, Record, Territory};

/// Silence of memory and table after which a takeover is given up and begun anew.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The header of a barrier, with a token that nobody else has.
const TOKEN: &str = "token";
/// The header of what was emitted: the same on a record that was written twice.
pub(super) const EMITTED_ID: &str = "sagamore-id";

pub(super) struct KafkaPlace {
    settings: Arc<KafkaOnlySettings>,
    territory: Territory,
}

/// The names of the topics.
#[derive(Clone)]
struct Names {
    memory: String,
    table: String,
    replies: String,
}

impl KafkaPlace {
    pub(super) fn new(settings: Arc<KafkaOnlySettings>, partition: i32, partitions: i32) -> Self {
        let territory = Territory { partition, partitions, reserved: format!("{}.", settings.prefix) };
        Self { settings, territory }
    }

    fn names(&self) -> Names {
        let KafkaOnlySettings { prefix, participant, .. } = &*self.settings;
        Names {
            memory: KafkaOnlyTopic::Memory.name(prefix, participant),
            table: KafkaOnlyTopic::Table.name(prefix, participant),
            replies: KafkaOnlyTopic::Replies.name(prefix, participant),
        }
    }

    /// Reads memory and table, each up to this very barrier: never to a watermark, which may be older than what the former
    /// owner has committed.
    fn read(&self, names: &Names, token: &str, found: &mut Found) -> Result<(), LogFault> {
        let partition = self.territory.partition;
        let consumer: BaseConsumer = self
            .settings
            .clients
            .replay_consumer(Isolation::ReadCommitted)
            .create()
            .map_err(|e| reading(&e))?;
        let mut assignment = TopicPartitionList::new();
        for topic in [&names.memory, &names.table] {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).map_err(|e| reading(&e))?;
        }
        consumer.assign(&assignment).map_err(|error| reading(&error))?;
        let (mut has_memory, mut has_table) = (false, false);
        let mut heard = Instant::now();
        while !(has_memory && has_table) {
            if heard.elapsed() > SILENCE_MAX {
                return Err(LogFault::Indefinite("memory and table do not show our own barrier".into()));
            }
            let message = match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_final(&error) => return Err(reading(&error)),
                Some(Err(_)) | None => continue,
            };
            heard = Instant::now();
            let key = message.key().unwrap_or_default();
            let is_barrier = key == BARRIER_KEY && is_marked(&message, token);
            if message.topic() == names.memory {
                // Behind the barrier stands nothing, unless somebody has fenced us already.
                if !has_memory {
                    found.on_memory(key, message.payload())?;
                }
                has_memory |= is_barrier;
            } else {
                if !has_table {
                    found.on_table(key, message.payload());
                }
                has_table |= is_barrier;
            }
        }
        Ok(())
    }
}

fn is_marked(message: &BorrowedMessage<'_>, token: &str) -> bool {
    let marks = |headers: &rdkafka::message::BorrowedHeaders| {
        headers.iter().any(|header| header.key == TOKEN && header.value == Some(token.as_bytes()))
    };
    message.headers().is_some_and(marks)
}

fn reading(error: &KafkaError) -> LogFault {
    LogFault::Indefinite(format!("memory and table cannot be read: {error}"))
}

/// More patience does not heal it.
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

impl Place for KafkaPlace {
    fn territory(&self) -> &Territory {
        &self.territory
    }

    fn take_over(&self, found: &mut Found) -> Result<Box<dyn Log>, LogFault> {
        let KafkaOnlySettings { clients, prefix, participant, .. } = &*self.settings;
        let (names, partition) = (self.names(), self.territory.partition);
        let id = format!("{prefix}-{participant}-{partition}");
        let transactions = Transactions::new(&clients.participant_transactions(&id))?;
        transactions.fence()?;
        let token = Uuid::new_v4().to_string();
        transactions.run(|| {
            for topic in [&names.memory, &names.table] {
                let headers = OwnedHeaders::new().insert(Header { key: TOKEN, value: Some(&token) });
                transactions
                    .send(BaseRecord::to(topic).partition(partition).key(BARRIER_KEY).headers(headers))?;
            }
            transactions.delivered()
        })?;
        self.read(&names, &token, found)?;
        Ok(Box::new(Writer { transactions, names, partition, id }))
    }
}

struct Writer {
    transactions: Transactions,
    names: Names,
    partition: i32,
    id: String,
}

impl Log for Writer {
    fn write(&mut self, batch: &Batch) -> Result<(), LogFault> {
        let number = batch.number();
        let mut this = &*self;
        self.transactions.run(|| {
            batch.write(
                &mut this,
                |writer, record| writer.send(number, &record),
                |writer| Ok(writer.transactions.delivered()?),
            )
        })
    }
}

impl Writer {
    fn send(&self, batch: u64, Record { to, key, value, emitted }: &Record<'_>) -> Result<(), LogFault> {
        let topic = match to {
            Destination::Memory => &self.names.memory,
            Destination::Table => &self.names.table,
            Destination::Replies => &self.names.replies,
            Destination::Topic(name) => &**name,
        };
        let mut record = BaseRecord::to(topic).key(*key);
        if let Some(value) = value {
            record = record.payload(*value);
        }
        record = match emitted {
            // To the partition of its key.
            Some(nth) => {
                let id = format!("{}/{batch}/{nth}", self.id);
                record.headers(OwnedHeaders::new().insert(Header { key: EMITTED_ID, value: Some(&id) }))
            }
            None => record.partition(self.partition),
        };
        Ok(self.transactions.send(record)?)
    }
}

impl From<TransactionError> for LogFault {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Fenced => Self::Fenced,
            TransactionError::Refused(_) => Self::Refused(error.to_string()),
            TransactionError::Indefinite(cause) => Self::Indefinite(cause),
        }
    }
}

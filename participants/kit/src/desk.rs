//! The coordinator's way out: commands, decisions and whatever else a topic may hold, to partitions that the key decides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, EndsAreNoErrors, Isolation};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::wire::CONTENT_TYPE;

use crate::error::CheckError;

/// How long the last records may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a record that was sent before another may come after it.
const SOON_AFTER: Duration = Duration::from_secs(1);
/// How long one look for a record takes.
const POLL: Duration = Duration::from_millis(50);

/// What becomes of a Kafka transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Commit,
    Abort,
}

/// One record of the command topic.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) partition: i32,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Option<OwnedHeaders>,
}

pub(crate) struct Desk {
    producer: ThreadedProducer<Deliveries>,
    failure: Arc<Mutex<Option<KafkaError>>>,
    clients: ClientSettings,
    topic: String,
    partitions: i32,
    sent: AtomicU64,
}

impl Desk {
    pub(crate) fn open(clients: &ClientSettings, topic: String, partitions: i32) -> Result<Self, CheckError> {
        let failure = Arc::new(Mutex::new(None));
        let producer = clients
            .client_producer("sagamore-kit")
            .create_with_context(Deliveries(Arc::clone(&failure)))
            .map_err(|cause| CheckError::Kafka { doing: "make a producer", cause })?;
        Ok(Self { producer, failure, clients: clients.clone(), topic, partitions, sent: AtomicU64::new(0) })
    }

    /// The command topic.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Where the coordinator sends a command of this key.
    pub(crate) fn partition_of(&self, key: &str) -> i32 {
        partition_of(key.as_bytes(), self.partitions).0
    }

    /// As the coordinator sends: with its one header.
    pub(crate) fn sending(&self, key: &str, value: Vec<u8>) -> Sending {
        let (header, content_type) = CONTENT_TYPE;
        let headers = OwnedHeaders::new().insert(Header { key: header, value: Some(content_type) });
        Sending {
            key: Some(key.as_bytes().to_vec()),
            partition: self.partition_of(key),
            value: Some(value),
            headers: Some(headers),
        }
    }

    /// Hands a record over. What is sent to one partition stands there in this order.
    pub(crate) fn send(&self, sending: Sending) -> Result<(), CheckError> {
        self.produce(&self.producer, sending)
    }

    /// Sends these in a Kafka transaction.
    pub(crate) fn send_in_a_kafka_transaction(
        &self,
        sendings: Vec<Sending>,
        ending: Ending,
        id: &str,
    ) -> Result<(), CheckError> {
        let kafka = |doing| move |cause| CheckError::Kafka { doing, cause };
        let producer: ThreadedProducer<Deliveries> = self
            .clients
            .checkpoint_producer(id)
            .create_with_context(Deliveries(Arc::clone(&self.failure)))
            .map_err(kafka("make a transactional producer"))?;
        producer.init_transactions(FLUSH_TIMEOUT).map_err(kafka("begin Kafka transactions"))?;
        producer.begin_transaction().map_err(kafka("begin a Kafka transaction"))?;
        for sending in sendings {
            self.produce(&producer, sending)?;
        }
        producer.flush(FLUSH_TIMEOUT).map_err(kafka("send in a Kafka transaction"))?;
        match ending {
            Ending::Commit => producer.commit_transaction(FLUSH_TIMEOUT),
            Ending::Abort => producer.abort_transaction(FLUSH_TIMEOUT),
        }
        .map_err(kafka("end a Kafka transaction"))
    }

    /// Waits until everything has arrived.
    pub(crate) fn flush(&self) -> Result<(), CheckError> {
        self.producer
            .flush(FLUSH_TIMEOUT)
            .map_err(|cause| CheckError::Kafka { doing: "send commands", cause })?;
        self.failed()
    }

    /// Where the next record of this partition will stand.
    pub(crate) fn end_of(&self, partition: i32) -> Result<i64, CheckError> {
        let ends = self.producer.client().fetch_watermarks(&self.topic, partition, FLUSH_TIMEOUT);
        ends.map(|(_, end)| end)
            .map_err(|cause| CheckError::Kafka { doing: "find the end of the commands", cause })
    }

    /// The values of what stands in a partition of the command topic, from there to this record of ours, and of what comes
    /// soon after: whoever writes there for the first time has to find the partition first.
    pub(crate) fn read_back(
        &self,
        partition: i32,
        from: i64,
        last: &[u8],
    ) -> Result<Vec<Vec<u8>>, CheckError> {
        let kafka = |cause| CheckError::Kafka { doing: "read the commands", cause };
        let config = self.clients.replay_consumer(Isolation::ReadUncommitted);
        let consumer: BaseConsumer<EndsAreNoErrors> =
            config.create_with_context(EndsAreNoErrors).map_err(kafka)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, partition, Offset::Offset(from)).map_err(kafka)?;
        consumer.assign(&assignment).map_err(kafka)?;
        let (mut values, mut until) = (Vec::new(), Instant::now() + FLUSH_TIMEOUT);
        let mut is_there = false;
        while Instant::now() < until {
            let Some(message) = consumer.poll(POLL).transpose().map_err(kafka)? else { continue };
            let value = message.payload().unwrap_or_default();
            if value == last {
                (is_there, until) = (true, Instant::now() + SOON_AFTER);
            }
            values.push(value.to_vec());
        }
        if is_there {
            return Ok(values);
        }
        Err(kafka(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)))
    }

    /// Whether a record could not be delivered.
    pub(crate) fn failed(&self) -> Result<(), CheckError> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            None => Ok(()),
            Some(cause) => Err(CheckError::Kafka { doing: "send commands", cause }),
        }
    }

    /// How many records were handed over.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn produce(&self, producer: &ThreadedProducer<Deliveries>, sending: Sending) -> Result<(), CheckError> {
        let Sending { key, partition, value, headers } = sending;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).partition(partition);
        if let Some(key) = &key {
            record = record.key(key.as_slice());
        }
        if let Some(value) = &value {
            record = record.payload(value.as_slice());
        }
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        producer.send(record).map_err(|(cause, _)| CheckError::Kafka { doing: "send commands", cause })
    }
}

/// Keeps the first failure: a command that has not arrived is not the participant's fault.
struct Deliveries(Arc<Mutex<Option<KafkaError>>>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, failure: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %failure, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // What an aborted Kafka transaction takes back has not failed.
        if let Err((failure, _)) = result
            && failure.rdkafka_error_code() != Some(RDKafkaErrorCode::PurgeInflight)
            && failure.rdkafka_error_code() != Some(RDKafkaErrorCode::PurgeQueue)
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure.clone());
        }
    }
}

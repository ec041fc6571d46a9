//! Single records, written and waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::CONTENT_TYPE;

use super::{POLL_INTERVAL, REQUEST_TIMEOUT, Site, SiteError};

/// A record as it is written.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Where to.
    pub partition: i32,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// Its value.
    pub value: Vec<u8>,
    /// Whether it says that it is a `CloudEvent`.
    pub is_event: bool,
}

impl Site {
    /// Writes records and waits until they are written; returns their offsets in the order given.
    pub fn write(&self, topic: Topic, records: &[NewRecord]) -> Result<Vec<i64>, SiteError> {
        self.write_to(&self.topic(topic), records)
    }

    /// The same, to a topic that has no constant name.
    pub fn write_to(&self, name: &str, records: &[NewRecord]) -> Result<Vec<i64>, SiteError> {
        self.partitions_of(name)?;
        let failure = |cause| self.failure("write to Kafka", &cause);
        let mut config = self.settings.client_producer("sagamore-cli");
        config.set("message.timeout.ms", REQUEST_TIMEOUT.as_millis().to_string());
        let deliveries = Deliveries::default();
        let producer: BaseProducer<Deliveries> =
            config.create_with_context(deliveries.clone()).map_err(failure)?;
        for (position, record) in records.iter().enumerate() {
            let mut message = BaseRecord::with_opaque_to(name, Box::new(position))
                .partition(record.partition)
                .payload(&record.value);
            if let Some(key) = &record.key {
                message = message.key(key);
            }
            if record.is_event {
                let (key, value) = CONTENT_TYPE;
                message = message.headers(OwnedHeaders::new().insert(Header { key, value: Some(value) }));
            }
            producer.send(message).map_err(|(cause, _)| failure(cause))?;
        }
        producer.flush(REQUEST_TIMEOUT + POLL_INTERVAL).map_err(failure)?;
        let mut delivered = deliveries.take();
        let offsets = (0..records.len()).map(|position| match delivered.remove(&position) {
            Some(Ok(offset)) => Ok(offset),
            Some(Err(cause)) => Err(failure(cause)),
            None => Err(SiteError::NotAcknowledged(name.to_owned())),
        });
        offsets.collect()
    }
}

/// Offsets of written records, by their position.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<BTreeMap<usize, Result<i64, KafkaError>>>>);

impl Deliveries {
    fn take(&self) -> BTreeMap<usize, Result<i64, KafkaError>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, position: Box<usize>) {
        let result = match result {
            Ok(record) => Ok(record.offset()),
            Err((cause, _)) => Err(cause.clone()),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*position, result);
    }
}

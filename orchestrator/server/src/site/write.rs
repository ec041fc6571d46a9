//! Single records, written and waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::CONTENT_TYPE;

use super::{POLL_INTERVAL, REQUEST_TIMEOUT, Site, SiteError};

/// A record as it is written.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Where to.
    pub partition: i32,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value, if it has one.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl NewRecord {
    /// A document without headers.
    pub fn plain(partition: i32, key: Option<String>, value: Vec<u8>) -> Self {
        Self { partition, key: key.map(String::into_bytes), value: Some(value), headers: Vec::new() }
    }

    /// A document that says that it is a `CloudEvent`.
    pub fn event(partition: i32, key: Option<String>, value: Vec<u8>) -> Self {
        let (name, kind) = CONTENT_TYPE;
        let headers = vec![(name.to_owned(), kind.as_bytes().to_vec())];
        Self { headers, ..Self::plain(partition, key, value) }
    }
}

impl Site {
    /// Writes records and waits until they are written; returns their offsets in the order given.
    pub fn write(&self, topic: Topic, records: &[NewRecord]) -> Result<Vec<i64>, SiteError> {
        self.write_to(&self.topic(topic), records)
    }

    /// The same, to a topic that has no constant name.
    pub fn write_to(&self, name: &str, records: &[NewRecord]) -> Result<Vec<i64>, SiteError> {
        self.partitions_of(name)?;
        self.writer()?.write_to(name, records)
    }

    /// Whoever writes several times: a producer takes the better part of a second to begin.
    pub fn writer(&self) -> Result<Writer<'_>, SiteError> {
        self.writer_of(self.settings.client_producer("sagamore-cli"))
    }

    /// For snapshots, which are large.
    pub fn snapshot_writer(&self) -> Result<Writer<'_>, SiteError> {
        self.writer_of(self.settings.snapshot_producer("sagamore-snapshots"))
    }

    fn writer_of(&self, mut config: ClientConfig) -> Result<Writer<'_>, SiteError> {
        config.set("message.timeout.ms", REQUEST_TIMEOUT.as_millis().to_string());
        let deliveries = Deliveries::default();
        let producer = config.create_with_context(deliveries.clone());
        let producer = producer.map_err(|cause| self.failure("write to Kafka", &cause))?;
        Ok(Writer { site: self, producer, deliveries })
    }
}

/// Writes to topics that are there.
pub struct Writer<'s> {
    site: &'s Site,
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
}

impl Writer<'_> {
    /// Writes records and waits until they are written; returns their offsets in the order given.
    pub fn write_to(&self, name: &str, records: &[NewRecord]) -> Result<Vec<i64>, SiteError> {
        let failure = |cause| self.site.failure("write to Kafka", &cause);
        for (position, record) in records.iter().enumerate() {
            let mut message: BaseRecord<'_, [u8], [u8], _> =
                BaseRecord::with_opaque_to(name, Box::new(position)).partition(record.partition);
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            if !record.headers.is_empty() {
                let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: Some(value) })
                });
                message = message.headers(headers);
            }
            self.producer.send(message).map_err(|(cause, _)| failure(cause))?;
        }
        self.producer.flush(REQUEST_TIMEOUT + POLL_INTERVAL).map_err(failure)?;
        let mut delivered = self.deliveries.take();
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

//! Replies and inquiries on their way to the inbox: an idempotent producer, rebuilt when it is broken for good.
//!
//! A reply is sent until it has arrived. An inquiry is not: the branch asks again by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use sagamore_schemas::wire::CONTENT_TYPE;
use tracing::{error, warn};

use super::counters::{Counts, count};
use super::progress::{Progress, Token};

/// What polling thread, workers and callbacks share.
pub(super) struct Shared {
    pub(super) progress: Progress,
    pub(super) counts: Arc<Counts>,
    /// Replies whose delivery failed, to be sent again.
    unsent: Mutex<Vec<Outgoing>>,
    has_unsent: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self::with(Arc::default())
    }

    /// Progress of its own, and counted with others.
    pub(super) fn with(counts: Arc<Counts>) -> Self {
        Self {
            progress: Progress::new(),
            counts,
            unsent: Mutex::new(Vec::new()),
            has_unsent: AtomicBool::new(false),
        }
    }

    fn hold(&self, reply: Outgoing) {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
        self.has_unsent.store(true, Ordering::Release);
    }
}

/// A reply, ready to leave.
pub(super) struct Outgoing {
    pub(super) token: Token,
    pub(super) partition: i32,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The way out.
pub(super) struct Replies {
    producer: RwLock<ThreadedProducer<Deliveries>>,
    config: ClientConfig,
    topic: String,
    headers: Option<OwnedHeaders>,
    shared: Arc<Shared>,
}

impl Replies {
    pub(super) fn new(
        config: ClientConfig,
        topic: String,
        has_content_type: bool,
        shared: Arc<Shared>,
    ) -> KafkaResult<Self> {
        let (key, value) = CONTENT_TYPE;
        let headers = has_content_type
            .then(|| OwnedHeaders::new_with_capacity(1).insert(Header { key, value: Some(value) }));
        let producer = config.create_with_context(Deliveries(Arc::clone(&shared)))?;
        Ok(Self { producer: RwLock::new(producer), config, topic, headers, shared })
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Hands a reply over. Its command is finished when it is delivered.
    pub(super) fn send(&self, reply: Outgoing) {
        if let Err(failure) = self.produce(Some(reply.token), reply.partition, &reply.key, &reply.value) {
            settle_failure(&self.shared, &failure, reply);
        }
    }

    /// Hands an inquiry over.
    pub(super) fn inquire(&self, partition: i32, key: &[u8], value: &[u8]) {
        if let Err(failure) = self.produce(None, partition, key, value) {
            warn!(%failure, partition, "an inquiry has not left; the branch asks again");
        }
    }

    fn produce(&self, token: Option<Token>, partition: i32, key: &[u8], value: &[u8]) -> KafkaResult<()> {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Token::as_usize(token))
            .partition(partition)
            .key(key)
            .payload(value);
        if let Some(headers) = &self.headers {
            record = record.headers(headers.clone());
        }
        let sent = self.producer.read().unwrap_or_else(PoisonError::into_inner).send(record);
        sent.map_err(|(failure, _)| failure)
    }

    /// Sends again what could not be delivered.
    pub(super) fn resend(&self) {
        if !self.shared.has_unsent.swap(false, Ordering::Acquire) {
            return;
        }
        self.rebuild_if_broken();
        let unsent = std::mem::take(&mut *self.shared.unsent.lock().unwrap_or_else(PoisonError::into_inner));
        for reply in unsent {
            count(&self.shared.counts.resent);
            self.send(reply);
        }
    }

    fn rebuild_if_broken(&self) {
        let broken = self.producer.read().unwrap_or_else(PoisonError::into_inner).client().fatal_error();
        let Some((code, reason)) = broken else { return };
        warn!(%code, reason, "the producer of replies is broken for good and is replaced");
        match self.config.create_with_context(Deliveries(Arc::clone(&self.shared))) {
            Ok(producer) => {
                let mut place = self.producer.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *place, producer);
                drop(place);
                // What it still held comes back as failed deliveries.
                drop(old);
            }
            Err(failure) => error!(%failure, "no new producer of replies; tried again"),
        }
    }
}

/// Called on the producer's own thread.
struct Deliveries(Arc<Shared>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
    }

    fn error(&self, failure: KafkaError, reason: &str) {
        super::log_client(RDKafkaLogLevel::Warning, &failure.to_string(), reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let Some(token) = Token::from_usize(token) else {
            if let Err((failure, message)) = result {
                warn!(%failure, partition = message.partition(), "an inquiry has not arrived; the branch asks again");
            }
            return;
        };
        match result {
            Ok(_) => {
                count(&self.0.counts.delivered);
                self.0.progress.finish(token);
            }
            Err((failure, message)) => {
                let reply = Outgoing {
                    token,
                    partition: message.partition(),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                };
                settle_failure(&self.0, failure, reply);
            }
        }
    }
}

/// Held for another try, unless it can never arrive.
fn settle_failure(shared: &Shared, failure: &KafkaError, reply: Outgoing) {
    if is_permanent(failure) {
        error!(%failure, partition = reply.partition, bytes = reply.value.len(), "a reply can never be delivered");
        count(&shared.counts.undeliverable);
        shared.progress.finish(reply.token);
    } else {
        shared.hold(reply);
    }
}

fn is_permanent(failure: &KafkaError) -> bool {
    matches!(
        failure.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}

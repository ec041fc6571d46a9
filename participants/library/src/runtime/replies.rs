//! Replies and inquiries on their way to the inbox: two idempotent producers, rebuilt when one is broken for good.
//!
//! A reply is sent until it has arrived. An inquiry is not: the branch asks again by itself. A few replies leave at once,
//! those of a crowd in company. Between replies there is no order to keep: each names the operation it answers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::crowd::{Crowd, Linger};
use sagamore_schemas::wire::CONTENT_TYPE;
use tracing::{error, warn};

use super::counters::{Counts, count};
use super::progress::{Progress, Token};
use super::restored::Forgotten;

/// What polling thread, workers and callbacks share.
pub(super) struct Shared {
    pub(super) progress: Progress,
    pub(super) counts: Arc<Counts>,
    /// Replies whose delivery failed, to be sent again.
    unsent: Mutex<Vec<Outgoing>>,
    has_unsent: AtomicBool,
    forgotten: OnceLock<Forgotten>,
    /// Records handed over and not yet reported on.
    on_their_way: AtomicUsize,
}

/// Replies on their way at which company is worth the wait: a participant has a part of a crowd's.
const CROWD: usize = 600;

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
            forgotten: OnceLock::new(),
            on_their_way: AtomicUsize::new(0),
        }
    }

    /// The store is not what it was: everything ends. The first one counts.
    pub(super) fn forget(&self, forgotten: Forgotten) {
        let _ = self.forgotten.set(forgotten);
    }

    pub(super) fn forgotten(&self) -> Option<&Forgotten> {
        self.forgotten.get()
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
    producers: RwLock<Producers>,
    in_company: AtomicBool,
    crowd: Mutex<Crowd>,
    clients: ClientSettings,
    client_id: String,
    topic: String,
    headers: Option<OwnedHeaders>,
    shared: Arc<Shared>,
}

struct Producers {
    at_once: ThreadedProducer<Deliveries>,
    in_company: ThreadedProducer<Deliveries>,
}

impl Producers {
    fn new(clients: &ClientSettings, client_id: &str, shared: &Arc<Shared>) -> KafkaResult<Self> {
        let producer = |linger| {
            clients.reply_producer(client_id, linger).create_with_context(Deliveries(Arc::clone(shared)))
        };
        Ok(Self { at_once: producer(Linger::None)?, in_company: producer(Linger::Crowd)? })
    }

    fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        [&self.at_once, &self.in_company].into_iter().find_map(|producer| producer.client().fatal_error())
    }
}

impl Replies {
    pub(super) fn new(
        clients: ClientSettings,
        client_id: String,
        topic: String,
        has_content_type: bool,
        shared: Arc<Shared>,
    ) -> KafkaResult<Self> {
        let (key, value) = CONTENT_TYPE;
        let headers = has_content_type
            .then(|| OwnedHeaders::new_with_capacity(1).insert(Header { key, value: Some(value) }));
        let producers = RwLock::new(Producers::new(&clients, &client_id, &shared)?);
        let (in_company, crowd) = (AtomicBool::new(false), Mutex::new(Crowd::at(CROWD)));
        Ok(Self { producers, in_company, crowd, clients, client_id, topic, headers, shared })
    }

    /// Looks at how many are on their way, and decides how the next ones leave.
    pub(super) fn look_around(&self) {
        let on_their_way = self.shared.on_their_way.load(Ordering::Relaxed);
        let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        let linger = crowd.look(on_their_way, Instant::now());
        self.in_company.store(linger == Linger::Crowd, Ordering::Relaxed);
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
        let producers = self.producers.read().unwrap_or_else(PoisonError::into_inner);
        let producer =
            if self.in_company.load(Ordering::Relaxed) { &producers.in_company } else { &producers.at_once };
        // Before: its report may come at once.
        self.shared.on_their_way.fetch_add(1, Ordering::Relaxed);
        producer.send(record).map_err(|(failure, _)| {
            self.shared.on_their_way.fetch_sub(1, Ordering::Relaxed);
            failure
        })
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
        let broken = self.producers.read().unwrap_or_else(PoisonError::into_inner).fatal_error();
        let Some((code, reason)) = broken else { return };
        warn!(%code, reason, "a producer of replies is broken for good: both are replaced");
        match Producers::new(&self.clients, &self.client_id, &self.shared) {
            Ok(producers) => {
                let mut place = self.producers.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *place, producers);
                drop(place);
                // What it still held comes back as failed deliveries.
                drop(old);
            }
            Err(failure) => error!(%failure, "no new producers of replies; tried again"),
        }
    }
}

/// Called on the producer's own thread.
struct Deliveries(Arc<Shared>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::trouble::log_client(level, facility, message);
    }

    fn error(&self, failure: KafkaError, reason: &str) {
        super::trouble::log_client(RDKafkaLogLevel::Warning, &failure.to_string(), reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        self.0.on_their_way.fetch_sub(1, Ordering::Relaxed);
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

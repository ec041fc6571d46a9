//! Kafka transactions, one after the other, with what has to be known of librdkafka to believe their results.
//!
//! A producer of ours is used until something is not as it should be, and then never again: a new one with the same id
//! fences it. So nothing is ever aborted, and an error says only whether somebody else is the owner now.
//!
//! - rdkafka's commit sleeps 100 ms while a record is not acknowledged: all deliveries are waited for before.
//! - librdkafka repeats an `EndTxn` by itself, and has no KIP-890: the first one may come late and end the next Kafka
//!   transaction, of which then a part is committed. After a slow commit, or a connection that failed, the producer counts
//!   as used up: with the epoch of its successor nothing late can end anything. rdkafka tells of connections from another
//!   thread, so that one may be heard of too late: whoever writes must survive a part.
//! - A record that was refused by `send` does not fail the Kafka transaction: here it does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

/// A commit slower than this may have been repeated by librdkafka on its own: it counts as indefinite.
const COMMIT_MAX: Duration = Duration::from_secs(2);
/// Delivery of the records: as long as the coordinator waits before it aborts (`TRANSACTION_TIMEOUT_MS`).
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// Fencing the former owner; over an open transaction of his it takes a second.
const INIT_MAX: Duration = Duration::from_secs(30);
/// So long after a commit a connection that failed may have been its own.
const HEARD_LATE: Duration = Duration::from_secs(1);

/// Why a Kafka transaction failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Another producer has this transactional id now.
    #[error("another owner has fenced this one")]
    Fenced,
    /// A record that its topic does not take, now or later.
    #[error("a record cannot be delivered: {0}")]
    Refused(RDKafkaErrorCode),
    /// It may have happened or not.
    #[error("{0}")]
    Indefinite(String),
}

#[derive(Debug, Default)]
struct Watch {
    failed: AtomicUsize,
    first: Mutex<Option<RDKafkaErrorCode>>,
    suspect: AtomicBool,
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.suspect.store(true, Ordering::Release);
        }
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.suspect.store(true, Ordering::Release);
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ProducerContext for Watch {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.fail(error);
        }
    }
}

impl Watch {
    fn fail(&self, error: &KafkaError) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        *first = first.or(error.rdkafka_error_code());
        self.failed.fetch_add(1, Ordering::Release);
    }
}

/// A producer of Kafka transactions.
pub struct Transactions {
    producer: ThreadedProducer<Watch>,
    ended: Mutex<Option<Instant>>,
}

impl Transactions {
    /// With a transactional id in its configuration. It has to fence before it may write.
    pub fn new(config: &ClientConfig) -> Result<Self, TransactionError> {
        let producer = config
            .create_with_context(Watch::default())
            .map_err(|error| TransactionError::Indefinite(format!("transactional producer: {error}")))?;
        Ok(Self { producer, ended: Mutex::new(None) })
    }

    /// Fences the former owner and ends its open Kafka transaction.
    pub fn fence(&self) -> Result<(), TransactionError> {
        self.producer.init_transactions(INIT_MAX).map_err(|error| failure("init_transactions", &error))
    }

    /// One Kafka transaction. `body` sends, and waits for the deliveries.
    pub fn run<E: From<TransactionError>>(&self, body: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let watch = self.producer.context();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let was_suspect = watch.suspect.swap(false, Ordering::AcqRel);
        if was_suspect && ended.is_some_and(|ended| ended.elapsed() < HEARD_LATE) {
            let late = "a connection failed with the last Kafka transaction".to_owned();
            return Err(TransactionError::Indefinite(late).into());
        }
        self.producer.begin_transaction().map_err(|error| failure("begin_transaction", &error))?;
        body()?;
        self.commit()?;
        *ended = Some(Instant::now());
        Ok(())
    }

    fn commit(&self) -> Result<(), TransactionError> {
        let begun = Instant::now();
        loop {
            match self.producer.commit_transaction(COMMIT_MAX) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && begun.elapsed() < COMMIT_MAX => {}
                Err(error) => return Err(failure("commit_transaction", &error)),
            }
        }
        if begun.elapsed() >= COMMIT_MAX {
            let took = begun.elapsed().as_millis();
            return Err(TransactionError::Indefinite(format!("the commit took {took} ms")));
        }
        if self.producer.context().suspect.load(Ordering::Acquire) {
            let failed = "a connection failed during the Kafka transaction".to_owned();
            return Err(TransactionError::Indefinite(failed));
        }
        Ok(())
    }

    /// Hands a record over; waits while the queue is full.
    pub fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), TransactionError> {
        let begun = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if begun.elapsed() < DELIVERY_MAX =>
                {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(failure("send", &error)),
            }
        }
    }

    /// Waits until everything sent is acknowledged.
    pub fn delivered(&self) -> Result<(), TransactionError> {
        const SPINS: u32 = 50;
        let begun = Instant::now();
        let mut rounds = 0;
        while self.producer.in_flight_count() > 0 {
            if begun.elapsed() > DELIVERY_MAX {
                let silent = "records of a Kafka transaction are not acknowledged".to_owned();
                return Err(TransactionError::Indefinite(silent));
            }
            rounds += 1;
            if rounds < SPINS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        let watch = self.producer.context();
        let failed = watch.failed.load(Ordering::Acquire);
        if failed == 0 {
            return Ok(());
        }
        let first = *watch.first.lock().unwrap_or_else(PoisonError::into_inner);
        Err(match self.producer.client().fatal_error() {
            Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced, _)) => {
                TransactionError::Fenced
            }
            Some((_, text)) => TransactionError::Indefinite(text),
            None => match first.filter(|code| is_permanent(*code)) {
                Some(code) => TransactionError::Refused(code),
                None => TransactionError::Indefinite(format!(
                    "{failed} records of a Kafka transaction were refused"
                )),
            },
        })
    }
}

fn failure(call: &str, error: &KafkaError) -> TransactionError {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch,
        ) => TransactionError::Fenced,
        Some(code) if is_permanent(code) => TransactionError::Refused(code),
        _ => TransactionError::Indefinite(format!("{call}: {error}")),
    }
}

fn is_permanent(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
    )
}

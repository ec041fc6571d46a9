//! The transactional producer of one shard: the only place where Kafka transactions are used.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use sagamore_decider::checkpoint::{Checkpoint, StateRecord};
use sagamore_schemas::log::{AS_OF, BARRIER_KEY};
use sagamore_schemas::topics::Topic;

use super::Failure;
use crate::config::Installation;

/// A commit slower than this may have been repeated by librdkafka on its own: it counts as indefinite.
const COMMIT_MAX: Duration = Duration::from_secs(2);
/// Delivery of a checkpoint's records: beyond the lease the owner has stopped anyway.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// Fencing the former owner; over an open transaction of his it takes a second.
const INIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Watch {
    failed: AtomicUsize,
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
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Release);
        }
    }
}

pub(super) struct CheckpointProducer {
    producer: ThreadedProducer<Watch>,
    partition: i32,
    state: String,
    journal: String,
}

impl CheckpointProducer {
    /// Of one shard; it has to fence before it may write.
    pub(super) fn new(installation: &Installation, partition: i32) -> Result<Self, Failure> {
        let id = format!("{}-{}-{partition}", installation.config.prefix, installation.instance);
        let producer: ThreadedProducer<Watch> = installation
            .config
            .kafka
            .checkpoint_producer(&id)
            .create_with_context(Watch::default())
            .map_err(|error| Failure::Indefinite(format!("checkpoint producer: {error}")))?;
        Ok(Self {
            producer,
            partition,
            state: installation.topic(Topic::State),
            journal: installation.topic(Topic::Journal),
        })
    }

    /// Fences the former owner and ends its open Kafka transaction.
    pub(super) fn fence(&self) -> Result<(), Failure> {
        self.producer.init_transactions(INIT_MAX).map_err(|error| failure("init_transactions", &error))
    }

    /// Writes the barrier up to which the state is to be read.
    pub(super) fn write_barrier(&self, value: &[u8]) -> Result<(), Failure> {
        self.transaction(|| {
            self.send(BaseRecord::to(&self.state).key(BARRIER_KEY).payload(value))?;
            self.send(BaseRecord::to(&self.journal).key(BARRIER_KEY).payload(value))?;
            self.delivered()
        })
    }

    /// Writes what a part of a checkpoint hides.
    pub(super) fn write_again(&self, records: &[StateRecord]) -> Result<(), Failure> {
        self.transaction(|| {
            records.iter().try_for_each(|record| self.send_state(record))?;
            self.delivered()
        })
    }

    /// Writes a checkpoint.
    pub(super) fn write(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        self.transaction(|| {
            for part in checkpoint.parts() {
                for (key, value) in part.journal {
                    self.send(BaseRecord::to(&self.journal).key(key.as_slice()).payload(value.as_slice()))?;
                }
                for record in part.state {
                    self.send_state(record)?;
                }
                self.delivered()?;
            }
            Ok(())
        })
    }

    fn transaction(&self, body: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let watch = self.producer.context();
        watch.suspect.store(false, Ordering::Release);
        self.producer.begin_transaction().map_err(|error| failure("begin_transaction", &error))?;
        body()?;
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
            return Err(Failure::Indefinite(format!("the commit took {} ms", begun.elapsed().as_millis())));
        }
        if watch.suspect.load(Ordering::Acquire) {
            return Err(Failure::Indefinite("a connection failed during the checkpoint".to_owned()));
        }
        Ok(())
    }

    fn send_state(&self, record: &StateRecord) -> Result<(), Failure> {
        let as_of = record.as_of.to_string();
        let headers = OwnedHeaders::new().insert(Header { key: AS_OF, value: Some(&as_of) });
        let mut base = BaseRecord::to(&self.state).key(record.key.as_slice()).headers(headers);
        if let Some(value) = &record.value {
            base = base.payload(value.as_slice());
        }
        self.send(base)
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut record = record.partition(self.partition);
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

    /// Waits until every record is acknowledged: rdkafka's commit sleeps 100 ms while one is not.
    fn delivered(&self) -> Result<(), Failure> {
        const SPINS: u32 = 50;
        let begun = Instant::now();
        let mut rounds = 0;
        while self.producer.in_flight_count() > 0 {
            if begun.elapsed() > DELIVERY_MAX {
                return Err(Failure::Indefinite("records of the checkpoint are not acknowledged".to_owned()));
            }
            rounds += 1;
            if rounds < SPINS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        match self.producer.context().failed.load(Ordering::Acquire) {
            0 => Ok(()),
            failed => Err(match self.producer.client().fatal_error() {
                Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced, _)) => Failure::Fenced,
                Some((_, text)) => Failure::Indefinite(text),
                None => Failure::Indefinite(format!("{failed} records of the checkpoint were refused")),
            }),
        }
    }
}

fn failure(call: &str, error: &KafkaError) -> Failure {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch,
        ) => Failure::Fenced,
        _ => Failure::Indefinite(format!("{call}: {error}")),
    }
}

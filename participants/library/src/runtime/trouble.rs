//! What Kafka's client library says, no louder than it is worth.

use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, info, warn};

/// How often an unreachable cluster is told of again.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

/// Says that the cluster is away, not every time the client library does.
#[derive(Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Trouble {
    pub(super) fn tell(&mut self, topic: &str, failure: &KafkaError) {
        self.since.get_or_insert_with(Instant::now);
        if self.told.is_some_and(|told| told.elapsed() < TROUBLE_INTERVAL) {
            debug!(topic, %failure, "Kafka still in trouble");
            return;
        }
        self.told = Some(Instant::now());
        if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
            warn!(
                topic,
                "the command topic does not exist; applying a definition with this participant creates it"
            );
        } else {
            warn!(topic, %failure, "no commands from Kafka; trying again");
        }
    }

    pub(super) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.told = None;
            info!(seconds = since.elapsed().as_secs(), "commands from Kafka again");
        }
    }
}

/// What the client library logs.
pub(super) fn log_client(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "{message}");
        }
        // Connections that come and go are told by the polling thread.
        RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning
        | RDKafkaLogLevel::Notice
        | RDKafkaLogLevel::Info => {
            debug!(facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::trace!(facility, "{message}"),
    }
}

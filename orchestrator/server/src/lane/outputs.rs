//! The idempotent producers of a lane: outputs leave at once, or in company, and come back as delivery reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use sagamore_decider::outbox::{Route, Sent, Ticket, Way};
use sagamore_decider::output::{Destination, Output};
use sagamore_kafka::crowd::Linger;
use sagamore_schemas::topics::{Topic, command_topic};
use sagamore_schemas::wire::CONTENT_TYPE;

use crate::checkpointer::Tenure;
use crate::config::Installation;

/// What became of an output.
#[derive(Debug)]
pub(super) struct Report {
    pub tenure: Tenure,
    pub ticket: Ticket,
    pub result: Result<(), Refusal>,
}

/// Why an output was not delivered.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The next try may go well.
    Later(String),
    /// No try ever will.
    Never(String),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    tenure: Tenure,
    /// `None` for a record that may be lost.
    ticket: Option<Ticket>,
}

/// What both producers tell.
#[derive(Debug, Default, Clone)]
pub(super) struct Reports(Arc<Mutex<Vec<Report>>>);

impl Reports {
    fn push(&self, report: Report) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "output producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Origin>;

    fn delivery(&self, result: &DeliveryResult<'_>, origin: Box<Origin>) {
        let Some(ticket) = origin.ticket else { return };
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| refusal(error));
        self.push(Report { tenure: origin.tenure, ticket, result });
    }
}

pub(super) struct OutputProducer {
    at_once: ThreadedProducer<Reports>,
    in_company: ThreadedProducer<Reports>,
    reports: Reports,
    topics: BTreeMap<Destination, String>,
    inbox: String,
    headers: OwnedHeaders,
}

impl OutputProducer {
    pub(super) fn new(installation: &Installation) -> Result<Self, KafkaError> {
        let reports = Reports::default();
        let producer = |linger| {
            let config = installation.config.kafka.lane_output_producer(&installation.client_id, linger);
            config.create_with_context(reports.clone())
        };
        let (name, value) = CONTENT_TYPE;
        Ok(Self {
            at_once: producer(Linger::None)?,
            in_company: producer(Linger::Crowd)?,
            topics: BTreeMap::from([
                (Destination::Outcomes, installation.topic(Topic::Outcomes)),
                (Destination::DeadLetters, installation.topic(Topic::DeadLetters)),
            ]),
            inbox: installation.topic(Topic::Inbox),
            headers: OwnedHeaders::new().insert(Header { key: name, value: Some(value) }),
            reports,
        })
    }

    pub(super) fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut *self.reports.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An error after which one of them delivers nothing any more.
    pub(super) fn fatal_error(&self) -> Option<String> {
        [&self.at_once, &self.in_company]
            .into_iter()
            .find_map(|producer| producer.client().fatal_error().map(|(_, text)| text))
    }

    pub(super) fn send(
        &mut self,
        installation: &Installation,
        tenure: Tenure,
        ticket: Ticket,
        route: &Route,
        output: &Output,
        way: Way,
    ) -> Sent {
        let origin = Box::new(Origin { tenure, ticket: Some(ticket) });
        let (topic, home) = match route {
            Route::OwnInbox => (self.inbox.as_str(), Some(tenure.partition)),
            Route::To(Destination::Inbox(home)) => (self.inbox.as_str(), Some(home.0)),
            Route::To(destination) => {
                if let Destination::Commands(participant) = destination
                    && !self.topics.contains_key(destination)
                {
                    let topic = command_topic(&installation.config.prefix, participant);
                    self.topics.insert(destination.clone(), topic);
                }
                (self.topics.get(destination).map(String::as_str).unwrap_or_default(), None)
            }
        };
        let mut record: BaseRecord<'_, [u8], [u8], Box<Origin>> = BaseRecord::with_opaque_to(topic, origin);
        if let Some(partition) = home {
            record = record.partition(partition);
        }
        if let Some(key) = &output.key {
            record = record.key(key);
        }
        if let Some(value) = &output.value {
            record = record.payload(value);
        }
        record = record.headers(if output.headers.is_empty() {
            self.headers.clone()
        } else {
            output.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
                headers.insert(Header { key: name, value: Some(&**value) })
            })
        });
        let producer = match way {
            Way::AtOnce => &self.at_once,
            Way::InCompany => &self.in_company,
        };
        match producer.send(record) {
            Ok(()) => Sent::Queued,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Sent::Full,
            Err((error, _)) => {
                self.reports.push(Report { tenure, ticket, result: Err(refusal(&error)) });
                Sent::Queued
            }
        }
    }

    /// Appends a record to the own inbox that may be lost: it is appended again while it is wanted.
    pub(super) fn append(&self, tenure: Tenure, key: &str, value: &[u8]) {
        let record: BaseRecord<'_, [u8], [u8], Box<Origin>> =
            BaseRecord::with_opaque_to(&self.inbox, Box::new(Origin { tenure, ticket: None }))
                .partition(tenure.partition)
                .key(key.as_bytes())
                .payload(value)
                .headers(self.headers.clone());
        if let Err((error, _)) = self.at_once.send(record) {
            tracing::debug!(shard = tenure.partition, %error, "an append to the own inbox waits");
        }
    }
}

fn refusal(error: &KafkaError) -> Refusal {
    use RDKafkaErrorCode as E;
    match error.rdkafka_error_code() {
        Some(
            E::MessageSizeTooLarge
            | E::InvalidRecord
            | E::InvalidTopic
            | E::UnknownTopic
            | E::UnknownTopicOrPartition
            | E::UnknownPartition
            | E::TopicAuthorizationFailed
            | E::ClusterAuthorizationFailed,
        ) => Refusal::Never(error.to_string()),
        _ => Refusal::Later(error.to_string()),
    }
}

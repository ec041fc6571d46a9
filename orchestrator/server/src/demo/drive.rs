//! Orders in, outcomes out: what a Kafka client does that starts transactions and waits for them.
//!
//! It stands on `outcomes` before it sends the first start, keeps a bounded number in flight, and drops what is told
//! twice by `id`. Deliberately absent: any knowledge of the server; the crash is done to it from outside.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::topics::REQUEST_TIMEOUT;
use sagamore_schemas::home::home;
use sagamore_schemas::topics::{Prefix, Topic};
use sagamore_schemas::wire::{DefinitionRef, Occasion, Outcome, OutcomeKind, Start, read_outcome};

use super::orders::Order;
use crate::clock::now;

/// Who starts the orders.
const SOURCE: &str = "/sagamore-demo";
/// Without one outcome for so long, the rest is given up.
const SILENCE_MAX: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The outcome.
    pub outcome: OutcomeKind,
    /// Why, unless committed.
    pub reason: Option<String>,
    /// Of two outcomes the higher holds.
    pub revision: u64,
    /// From start to outcome.
    pub latency: Duration,
}

/// What came of the orders, each at its own place.
#[derive(Debug)]
pub struct Driven {
    /// How each ended; `None` when that was never told.
    pub endings: Vec<Option<Ending>>,
    /// Outcomes told again.
    pub repeats: u64,
    /// Final outcomes followed by a different one. Any is a defect.
    pub contradictions: u64,
    /// First start to last outcome.
    pub took: Duration,
}

/// Where it stands, told after each look at `outcomes`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Orders started.
    pub started: usize,
    /// Orders ended, or stuck.
    pub ended: usize,
    /// Of these, committed.
    pub committed: usize,
}

/// Where the orders are at home, and how to get there.
pub struct Route<'a> {
    /// How to reach the broker.
    pub kafka: &'a ClientSettings,
    /// What writes the starts. A producer that has written before does it at once; a new one waits for its id.
    pub producer: &'a BaseProducer<Deliveries>,
    /// What the names of the topics begin with.
    pub prefix: &'a Prefix,
    /// Partitions of the inbox.
    pub partitions: i32,
}

/// Starts the orders and waits for their outcomes, at most `in_flight_max` at a time.
pub fn drive(
    route: &Route<'_>,
    orders: &[Order],
    in_flight_max: NonZeroUsize,
    mut watch: impl FnMut(Progress),
) -> Result<Driven, KafkaError> {
    let Route { kafka, producer, prefix, partitions } = *route;
    let outcomes = follow(kafka, &Topic::Outcomes.name(prefix))?;
    let mut waiting = Waiting::new(orders);
    let inbox = Topic::Inbox.name(prefix);
    let begun = Instant::now();
    let mut last_told = begun;
    while waiting.progress.ended < orders.len() && last_told.elapsed() < SILENCE_MAX {
        while let Some(order) = waiting.next(in_flight_max) {
            let partition = home(&order.id, partitions);
            let start = Start {
                subject: order.id.clone(),
                time: now(),
                definition: definition(),
                traceparent: None,
                data: order.data.as_ref(),
            };
            let value = start.to_json(SOURCE);
            let record = BaseRecord::to(&inbox).partition(partition.0).key(order.id.as_str()).payload(&value);
            producer.send(record).map_err(|(cause, _)| cause)?;
        }
        producer.poll(Duration::ZERO);
        if let Some(cause) = producer.context().take_error() {
            return Err(cause);
        }
        let mut patience = POLL_INTERVAL;
        while let Some(record) = outcomes.poll(patience) {
            patience = Duration::ZERO;
            let record = match record {
                Ok(record) => record,
                // It reconnects by itself; the silence is what counts.
                Err(cause) if is_passing(&cause) => break,
                Err(cause) => return Err(cause),
            };
            if let Ok(outcome) = read_outcome(record.payload()) {
                last_told = Instant::now();
                waiting.on_outcome(&outcome);
            }
        }
        watch(waiting.progress);
    }
    let Waiting { endings, repeats, contradictions, .. } = waiting;
    Ok(Driven { endings, repeats, contradictions, took: last_told.duration_since(begun) })
}

fn definition() -> DefinitionRef {
    "order@1".parse().unwrap_or_else(|error| unreachable!("the demo's own definition has a name: {error}"))
}

/// A consumer that stands at the present end of each partition of a topic.
fn follow(kafka: &ClientSettings, topic: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
    let mut from = TopicPartitionList::new();
    for partition in partitions_of(&consumer, topic)? {
        let (_, end) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        from.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

fn is_passing(cause: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(cause.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure))
}

/// The partitions of a topic.
pub fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let facts = metadata.topics().iter().filter(|facts| facts.name() == topic);
    Ok(facts.flat_map(|facts| facts.partitions().iter().map(MetadataPartition::id)).collect())
}

struct Waiting<'a> {
    orders: &'a [Order],
    /// Places of the orders by their ids.
    places: HashMap<&'a str, usize>,
    /// When each was started, as far as they are.
    started: Vec<Instant>,
    endings: Vec<Option<Ending>>,
    told: HashSet<String>,
    repeats: u64,
    contradictions: u64,
    progress: Progress,
}

impl<'a> Waiting<'a> {
    fn new(orders: &'a [Order]) -> Self {
        Self {
            orders,
            places: orders.iter().enumerate().map(|(place, order)| (order.id.as_str(), place)).collect(),
            started: Vec::with_capacity(orders.len()),
            endings: vec![None; orders.len()],
            told: HashSet::new(),
            repeats: 0,
            contradictions: 0,
            progress: Progress::default(),
        }
    }

    /// The next order to start, unless enough are in flight.
    fn next(&mut self, in_flight_max: NonZeroUsize) -> Option<&'a Order> {
        if self.progress.started - self.progress.ended >= in_flight_max.get() {
            return None;
        }
        let order = self.orders.get(self.progress.started)?;
        self.started.push(Instant::now());
        self.progress.started += 1;
        Some(order)
    }

    fn on_outcome(&mut self, outcome: &Outcome<'_>) {
        let Some(&place) = self.places.get(outcome.subject.as_str()) else { return };
        let Some(started) = self.started.get(place) else { return };
        if !self.told.insert(outcome.id()) {
            self.repeats += 1;
            return;
        }
        let revision = match outcome.occasion {
            Occasion::Transaction { revision, .. } => revision,
            Occasion::Start { .. } => 0,
        };
        let ending = Ending {
            outcome: outcome.outcome,
            reason: outcome.reason.as_deref().map(str::to_owned),
            revision,
            latency: started.elapsed(),
        };
        let former = &mut self.endings[place];
        match former {
            None => self.progress.ended += 1,
            Some(Ending { outcome: OutcomeKind::Stuck, revision: told, .. }) => {
                if *told > revision {
                    return;
                }
            }
            Some(_) => {
                self.contradictions += 1;
                return;
            }
        }
        self.progress.committed += usize::from(ending.outcome == OutcomeKind::Committed);
        *former = Some(ending);
    }
}

/// The first record that was not delivered.
#[derive(Default)]
pub struct Deliveries(Mutex<Option<KafkaError>>);

impl Deliveries {
    /// Why it was not, once.
    pub fn take_error(&self) -> Option<KafkaError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((cause, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause.clone());
        }
    }
}

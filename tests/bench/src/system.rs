//! What is measured, seen from outside: topics, processes, starts and ends. Sagamore is one system, the floor the other.

use std::error::Error;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::ClientSettings;
use serde::Serialize;

use crate::gate::GateError;
use crate::load::{Ends, Seen, Starts};

/// How long a new partition may take until it has a leader.
const LEADER: Duration = Duration::from_secs(10);

/// When the broker writes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Durability {
    /// Kafka's default: replicas keep what is not on a disk yet.
    C,
    /// Before it acknowledges: `flush.messages=1` on every topic of the system.
    P,
}

impl Durability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::P => "P",
        }
    }

    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::C => &[],
            Self::P => &[("flush.messages", "1")],
        }
    }
}

/// Where a system is built.
#[derive(Clone)]
pub(crate) struct Site {
    pub kafka: ClientSettings,
    pub partitions: NonZeroU16,
    /// Copies of each topic of ours and the floor.
    pub replication: NonZeroU16,
    pub durability: Durability,
    /// `KEY=VALUE` of librdkafka, for every client of our server and participants.
    pub overrides: Vec<String>,
}

/// The processes whose costs are told apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processes {
    pub orchestrator: u32,
    pub participants: u32,
    /// The user's code of the saga, where that is a process of its own.
    pub saga: Option<u32>,
    /// What drives the load beside this process.
    pub driver: Option<u32>,
    pub keeps: Keeps,
}

/// Which process keeps what must not be lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keeps {
    /// The Kafka that ours and the floor share.
    Broker,
    /// A database of its own, with a process for each connection.
    Database(u32),
    /// The orchestrator itself.
    Orchestrator,
}

impl Processes {
    /// Ours and the floor's.
    pub fn on_broker(orchestrator: u32, participants: u32) -> Self {
        Self { orchestrator, participants, saga: None, driver: None, keeps: Keeps::Broker }
    }
}

/// A topic whose records are counted, under a label that several may share.
#[derive(Debug, Clone)]
pub(crate) struct CountedTopic {
    pub label: &'static str,
    pub topic: String,
    pub partitions: i32,
}

/// Why a run has no number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("{0}")]
    Failed(Box<dyn Error>),
}

impl From<Box<dyn Error>> for RunError {
    fn from(error: Box<dyn Error>) -> Self {
        Self::Failed(error)
    }
}

pub(crate) trait System {
    fn name(&self) -> &'static str;
    fn starts(&self, run: u32) -> Box<dyn Starts>;
    fn ends(&mut self, run: u32) -> &mut dyn Ends;
    fn processes(&self) -> Processes;
    fn topics(&self) -> &[CountedTopic];
    /// Waits until nothing is left to be written for what has ended.
    fn settle(&mut self) -> Result<(), Box<dyn Error>>;
    /// The correctness gate.
    fn check(&mut self, run: u32, seen: &Seen) -> Result<(), RunError>;
}

/// Reads all partitions of a topic from their end on.
pub(crate) fn read_from_end(
    kafka: &ClientSettings,
    topic: &str,
    partitions: i32,
) -> Result<BaseConsumer, Box<dyn Error>> {
    let consumer: BaseConsumer =
        kafka.replay_consumer(sagamore_kafka::client::Isolation::ReadUncommitted).create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(
            topic,
            partition,
            Offset::Offset(end(&consumer, topic, partition)?),
        )?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

/// The end of a partition, asked until it has a leader: a new one gets it after its creation is acknowledged.
fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<i64, KafkaError> {
    let begun = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, LEADER) {
            Err(_) if begun.elapsed() < LEADER => std::thread::sleep(Duration::from_millis(50)),
            watermarks => return watermarks.map(|(_, end)| end),
        }
    }
}

/// Hands a record over; waits while the producer has no room.
pub(crate) fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    mut record: BaseRecord<'_, [u8], [u8]>,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// A topic to be made, with all its settings.
pub(crate) struct Wanted {
    pub topic: String,
    pub partitions: NonZeroU16,
    pub settings: Vec<(&'static str, String)>,
}

/// Makes topics.
pub(crate) fn create_topics(site: &Site, wanted: &[Wanted]) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = site.kafka.admin().create()?;
    let topics: Vec<NewTopic<'_>> = wanted
        .iter()
        .map(|wanted| {
            let partitions = i32::from(wanted.partitions.get());
            let mut topic = NewTopic::new(
                &wanted.topic,
                partitions,
                TopicReplication::Fixed(i32::from(site.replication.get())),
            );
            for (key, value) in &wanted.settings {
                topic = topic.set(key, value);
            }
            for (key, value) in site.durability.settings() {
                topic = topic.set(key, value);
            }
            topic
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for created in runtime.block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
        created.map_err(|(topic, code)| format!("{topic}: {code}"))?;
    }
    Ok(())
}

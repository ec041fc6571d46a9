//! The floor's orchestrator: a command or an outcome for each inbox record at once, and asynchronous checkpoints.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::clients::{Names, STEPS, checkpoint_producer, consumer, part_of, producer};
use crate::system::send as send_plain;

const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// Records taken before it looks at anything else.
const BATCH: usize = 2_000;
/// How much of a saga stands in its outcome.
const OUTCOME_BYTES: usize = 40;
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts acknowledged outputs.
#[derive(Clone, Default)]
struct Acknowledged(Arc<AtomicU64>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "the floor has lost an output");
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

type States = HashMap<Vec<u8>, Option<Vec<u8>>>;

struct Checkpoint {
    offsets: TopicPartitionList,
    group: ConsumerGroupMetadata,
    states: States,
    /// Outputs that must be acknowledged first.
    outputs: u64,
}

/// Runs until the process ends.
pub(crate) fn orchestrator(
    bootstrap: &str,
    tag: &str,
    partitions: i32,
    linger_ms: u32,
) -> Result<(), Box<dyn Error>> {
    let names = Names::new(tag, partitions);
    let acknowledged = Acknowledged::default();
    let is_busy = Arc::new(AtomicBool::new(false));
    let (to, checkpoints) = channel();
    {
        let (bootstrap, names) = (bootstrap.to_owned(), names.clone());
        let (acknowledged, is_busy) = (acknowledged.clone(), Arc::clone(&is_busy));
        std::thread::Builder::new().name("checkpointer".to_owned()).spawn(move || {
            write_checkpoints(&bootstrap, &names, &checkpoints, &acknowledged, &is_busy)
                .expect("the floor writes its checkpoints");
        })?;
    }
    let consumer = consumer(bootstrap, &format!("{tag}-orchestrator"), &names.inbox)?;
    let producer = producer(bootstrap, linger_ms).create_with_context(acknowledged)?;
    std::thread::Builder::new().name("lane".to_owned()).spawn(move || {
        let mut lane = Lane {
            consumer,
            producer,
            names,
            states: HashMap::new(),
            persisted: HashSet::new(),
            offsets: HashMap::new(),
            outputs: 0,
        };
        lane.run(&to, &is_busy).expect("the floor's lane runs");
    })?;
    Ok(())
}

struct Lane {
    consumer: BaseConsumer,
    producer: ThreadedProducer<Acknowledged>,
    names: Names,
    states: States,
    persisted: HashSet<Vec<u8>>,
    offsets: HashMap<i32, i64>,
    outputs: u64,
}

impl Lane {
    fn run(&mut self, to: &Sender<Checkpoint>, is_busy: &AtomicBool) -> Result<(), Box<dyn Error>> {
        let mut last = Instant::now();
        loop {
            self.take_batch()?;
            let is_due = !self.offsets.is_empty() && last.elapsed() >= CHECKPOINT_EVERY;
            if is_due && !is_busy.load(Ordering::Acquire) {
                is_busy.store(true, Ordering::Release);
                last = Instant::now();
                to.send(self.checkpoint()?)?;
            }
        }
    }

    fn take_batch(&mut self) -> Result<(), Box<dyn Error>> {
        let mut patience = CHECKPOINT_EVERY;
        for _ in 0..BATCH {
            let Some(message) = self.consumer.poll(patience) else { break };
            patience = Duration::ZERO;
            let message = message?;
            let key = message.key().unwrap_or_default();
            let saga = message.payload().unwrap_or_default();
            let progress = usize::from(saga.first().copied().unwrap_or_default());
            if progress < STEPS.len() {
                output(&self.producer, &self.names.commands[progress], self.names.partitions, key, saga)?;
                self.states.insert(key.to_vec(), Some(saga.to_vec()));
            } else {
                let told = &saga[..OUTCOME_BYTES.min(saga.len())];
                output(&self.producer, &self.names.outcome, self.names.partitions, key, told)?;
                if self.persisted.contains(key) {
                    self.states.insert(key.to_vec(), None);
                } else {
                    self.states.remove(key);
                }
            }
            self.outputs += 1;
            let next = self.offsets.entry(message.partition()).or_insert(0);
            *next = (*next).max(message.offset() + 1);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Checkpoint, Box<dyn Error>> {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in self.offsets.drain() {
            offsets.add_partition_offset(&self.names.inbox, partition, Offset::Offset(offset))?;
        }
        for (key, state) in &self.states {
            if state.is_some() {
                self.persisted.insert(key.clone());
            } else {
                self.persisted.remove(key);
            }
        }
        let group = self.consumer.group_metadata().ok_or("the floor's lane is in no group")?;
        Ok(Checkpoint { offsets, group, states: std::mem::take(&mut self.states), outputs: self.outputs })
    }
}

fn output(
    producer: &ThreadedProducer<Acknowledged>,
    topic: &str,
    partitions: i32,
    key: &[u8],
    value: &[u8],
) -> Result<(), KafkaError> {
    let mut record = BaseRecord::to(topic).partition(part_of(key, partitions)).key(key).payload(value);
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

fn write_checkpoints(
    bootstrap: &str,
    names: &Names,
    checkpoints: &Receiver<Checkpoint>,
    acknowledged: &Acknowledged,
    is_busy: &AtomicBool,
) -> Result<(), Box<dyn Error>> {
    let producer: ThreadedProducer<DefaultProducerContext> =
        checkpoint_producer(bootstrap, &format!("{}-0", names.tag))
            .create_with_context(DefaultProducerContext)?;
    producer.init_transactions(Duration::from_secs(30))?;
    for checkpoint in checkpoints {
        while acknowledged.0.load(Ordering::Acquire) < checkpoint.outputs {
            std::thread::sleep(Duration::from_micros(200));
        }
        producer.begin_transaction()?;
        until_done(|| {
            producer.send_offsets_to_transaction(&checkpoint.offsets, &checkpoint.group, PATIENCE)
        })?;
        for (key, state) in &checkpoint.states {
            let mut record =
                BaseRecord::to(&names.state).partition(part_of(key, names.partitions)).key(key.as_slice());
            if let Some(state) = state {
                record = record.payload(state.as_slice());
            }
            send_plain(&producer, record)?;
        }
        // A commit with deliveries outstanding sleeps for 100 ms.
        while producer.in_flight_count() > 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        until_done(|| producer.commit_transaction(PATIENCE))?;
        is_busy.store(false, Ordering::Release);
    }
    Ok(())
}

fn until_done(mut attempt: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match attempt() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

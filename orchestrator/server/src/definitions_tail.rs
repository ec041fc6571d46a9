//! The definitions topic, read from its beginning and on: one thread per server. Lanes pass on to each shard what it
//! does not have yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use sagamore_kafka::client::Isolation;
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::{DefinitionApplied, Payload};

use crate::config::Installation;

/// What has been read.
#[derive(Debug, Default)]
pub struct DefinitionsTail {
    records: Mutex<Vec<(i64, Arc<[u8]>)>>,
}

/// The thread that reads.
#[derive(Debug)]
pub struct TailThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DefinitionsTail {
    /// Offset of the last record read; -1 before the first.
    pub fn last_offset(&self) -> i64 {
        self.lock().last().map_or(-1, |(offset, _)| *offset)
    }

    /// Values of inbox records for everything after `offset`, with their offsets.
    pub fn after(&self, offset: i64) -> Vec<(i64, Arc<[u8]>)> {
        let records = self.lock();
        let first = records.partition_point(|(known, _)| *known <= offset);
        records[first..].to_vec()
    }

    /// As if these had been read.
    #[cfg(test)]
    pub(crate) fn of(records: Vec<(i64, Arc<[u8]>)>) -> Self {
        Self { records: Mutex::new(records) }
    }

    /// Begins to read.
    pub fn follow(self: &Arc<Self>, installation: &Installation) -> Result<TailThread, KafkaError> {
        let consumer: BaseConsumer =
            installation.config.kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&installation.topic(Topic::Definitions), 0, Offset::Beginning)?;
        consumer.assign(&assignment)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tail, stopped) = (Arc::clone(self), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("definitions".to_owned())
            .spawn(move || tail.read(&consumer, &stopped))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(TailThread { stop, thread: Some(thread) })
    }

    fn read(&self, consumer: &BaseConsumer, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let text = message.payload().and_then(|value| std::str::from_utf8(value).ok());
                    let payload = text.and_then(|text| Payload::from_json(text.to_owned()).ok());
                    let data = payload.unwrap_or_default();
                    let value = DefinitionApplied { offset: message.offset(), data: data.as_ref() }.to_json();
                    self.lock().push((message.offset(), value.into()));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the definitions topic cannot be read; trying on");
                    std::thread::sleep(Duration::from_millis(500));
                }
                None => {}
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(i64, Arc<[u8]>)>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TailThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the reader of definitions ended by a panic");
        }
    }
}

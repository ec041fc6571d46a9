//! Whether the brokers answer, and how far behind the shards are: asked now and then, off every hot path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use sagamore_kafka::client::Isolation;
use sagamore_schemas::topics::Topic;

use crate::config::Installation;
use crate::lane::Directory;
use crate::metrics;

const EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(4);

/// The thread that asks.
#[derive(Debug)]
pub struct Watch {
    reachable: Arc<AtomicBool>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask.
    pub fn start(installation: &Arc<Installation>, directory: Arc<Directory>) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer =
            installation.config.kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
        let reachable = Arc::new(AtomicBool::new(true));
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let inbox = installation.topic(Topic::Inbox);
        let (told, stopped) = (Arc::clone(&reachable), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(&consumer, &inbox, &directory, &told, &stopped))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { reachable, stop, thread: Some(thread) })
    }

    /// Whether the brokers answered when they were last asked.
    pub fn reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watch ended by a panic");
        }
    }
}

fn watch(
    consumer: &BaseConsumer,
    inbox: &str,
    directory: &Directory,
    reachable: &AtomicBool,
    stop: &(Mutex<bool>, Condvar),
) {
    loop {
        let answered = consumer.fetch_metadata(Some(inbox), PATIENCE);
        let was = reachable.swap(answered.is_ok(), Ordering::AcqRel);
        metrics::reachable(answered.is_ok());
        match &answered {
            Err(error) if was => {
                tracing::error!(%error, "the brokers do not answer; trying on, not ready meanwhile");
            }
            Ok(_) if !was => tracing::info!("the brokers answer again"),
            Ok(_) | Err(_) => {}
        }
        if answered.is_ok() {
            for (partition, status) in directory.shards() {
                if let Ok((_, end)) = consumer.fetch_watermarks(inbox, partition, PATIENCE) {
                    metrics::lag(partition, (end - status.next_offset).max(0));
                }
            }
        }
        let stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) = stop.1.wait_timeout(stopped, EVERY).unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return;
        }
    }
}

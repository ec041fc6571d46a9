//! The floor's participants: three threads that send every record back, one step further.

use std::error::Error;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

use super::clients::{Names, STEPS, consumer, part_of, producer};
use crate::system::send;

const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// Runs until the process ends.
pub(crate) fn participants(
    bootstrap: &str,
    tag: &str,
    partitions: i32,
    linger_ms: u32,
) -> Result<(), Box<dyn Error>> {
    for (step, name) in STEPS.into_iter().enumerate() {
        let names = Names::new(tag, partitions);
        let bootstrap = bootstrap.to_owned();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = participant(&bootstrap, &names, step, linger_ms) {
                eprintln!("the floor's {name} has failed: {error}");
            }
        })?;
    }
    Ok(())
}

fn participant(bootstrap: &str, names: &Names, step: usize, linger_ms: u32) -> Result<(), Box<dyn Error>> {
    let topic = &names.commands[step];
    let consumer = consumer(bootstrap, &format!("{topic}-g"), topic)?;
    let producer: ThreadedProducer<DefaultProducerContext> =
        producer(bootstrap, linger_ms).create_with_context(DefaultProducerContext)?;
    let mut committed = Instant::now();
    let mut is_dirty = false;
    loop {
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message?;
            let key = message.key().unwrap_or_default();
            let mut saga = message.payload().unwrap_or_default().to_vec();
            if let Some(progress) = saga.first_mut() {
                *progress += 1;
            }
            let record = BaseRecord::to(&names.inbox)
                .partition(part_of(key, names.partitions))
                .key(key)
                .payload(saga.as_slice());
            send(&producer, record)?;
            is_dirty = true;
        }
        if is_dirty && committed.elapsed() > COMMIT_EVERY {
            consumer.commit_consumer_state(CommitMode::Async).ok();
            committed = Instant::now();
            is_dirty = false;
        }
    }
}

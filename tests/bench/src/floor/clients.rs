//! Names and clients of the floor, with the settings under which its figures were first taken.

use std::error::Error;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// The steps of its saga; each has a topic of commands.
pub(super) const STEPS: [&str; 3] = ["reserve", "charge", "book"];

/// Its topics.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub tag: String,
    pub partitions: i32,
    pub inbox: String,
    pub commands: [String; 3],
    pub outcome: String,
    pub state: String,
}

impl Names {
    pub fn new(tag: &str, partitions: i32) -> Self {
        let topic = |name: &str| format!("{tag}-{name}");
        Self {
            tag: tag.to_owned(),
            partitions,
            inbox: topic("inbox"),
            commands: STEPS.map(topic),
            outcome: topic("outcome"),
            state: topic("state"),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let commands = self.commands.iter().map(|topic| ("commands", topic));
        commands.chain([("inbox", &self.inbox), ("outcomes", &self.outcome), ("state", &self.state)])
    }
}

/// FNV-1a of the key, modulo the partitions.
pub(super) fn part_of(key: &[u8], partitions: i32) -> i32 {
    let hash =
        key.iter().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619));
    (hash % partitions.unsigned_abs()).cast_signed()
}

pub(super) fn consumer(bootstrap: &str, group: &str, topic: &str) -> Result<BaseConsumer, Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.min.messages", "20000")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", "10000")
        .set("check.crcs", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

/// For everything outside a Kafka transaction.
pub(super) fn producer(bootstrap: &str, linger_ms: u32) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", linger_ms.to_string())
        .set("queue.buffering.max.messages", "1000000")
        .set("compression.codec", "none");
    config
}

/// For checkpoints.
pub(super) fn checkpoint_producer(bootstrap: &str, transactional_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "1000000")
        .set("retry.backoff.ms", "1")
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "10000");
    config
}

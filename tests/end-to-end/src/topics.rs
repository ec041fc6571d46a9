//! Topics as anybody sees them: with librdkafka and nothing of ours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::http::RUNTIME;
use crate::wait;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A record.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Where it stands.
    pub partition: i32,
    /// Where it stands.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: BTreeMap<String, Vec<u8>>,
}

impl Seen {
    /// The value as a document; null when it is none.
    pub fn json(&self) -> Value {
        self.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

/// All records of a topic, read further on demand.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
    next: BTreeMap<i32, i64>,
    /// What has been read so far.
    pub records: Vec<Seen>,
}

impl Reader {
    /// From the beginning.
    pub fn new(bootstrap: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = config(bootstrap)
            .set("group.id", "end-to-end")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "2")
            .create()
            .expect("a consumer can be made");
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).expect("the broker answers");
        let partitions: Vec<i32> =
            metadata.topics()[0].partitions().iter().map(MetadataPartition::id).collect();
        let mut from = TopicPartitionList::new();
        for partition in &partitions {
            from.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset that is legal");
        }
        consumer.assign(&from).expect("a topic that is there");
        Self { consumer, topic: topic.to_owned(), partitions, next: BTreeMap::new(), records: Vec::new() }
    }

    /// Reads to the present end; nothing when the broker is away.
    pub fn catch_up(&mut self) {
        let begun = Instant::now();
        let mut ends = BTreeMap::new();
        for partition in &self.partitions {
            match self.consumer.fetch_watermarks(&self.topic, *partition, REQUEST_TIMEOUT) {
                Ok((low, high)) if high > low => {
                    ends.insert(*partition, high);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let lacks = |next: &BTreeMap<i32, i64>| {
            ends.iter().any(|(partition, end)| next.get(partition).is_none_or(|next| next < end))
        };
        while lacks(&self.next) && begun.elapsed() < REQUEST_TIMEOUT {
            let Some(Ok(record)) = self.consumer.poll(POLL_INTERVAL) else { continue };
            self.next.insert(record.partition(), record.offset() + 1);
            let headers = record.headers().map(|headers| {
                let pair = |header: Header<'_, &[u8]>| {
                    (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
                };
                headers.iter().map(pair).collect()
            });
            self.records.push(Seen {
                partition: record.partition(),
                offset: record.offset(),
                key: record.key().map(<[u8]>::to_vec),
                value: record.payload().map(<[u8]>::to_vec),
                headers: headers.unwrap_or_default(),
            });
        }
    }
}

/// Everything that stands in a topic.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Seen> {
    let mut reader = Reader::new(bootstrap, topic);
    reader.catch_up();
    reader.records
}

/// A client that writes to inboxes. The homes are librdkafka's own murmur2, not ours.
pub fn producer(bootstrap: &str) -> FutureProducer {
    config(bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .set("message.max.bytes", "8388608")
        .create()
        .expect("a producer can be made")
}

/// Writes one record and waits for it; returns partition and offset.
pub async fn write(
    producer: &FutureProducer,
    topic: &str,
    partition: Option<i32>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<(i32, i64), String> {
    let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic)
        .headers(OwnedHeaders::new().insert(Header { key: "sent-by", value: Some("a test") }));
    record.partition = partition;
    record.key = key;
    record.payload = value;
    let delivered = producer.send(record, REQUEST_TIMEOUT).await.map_err(|(error, _)| error.to_string())?;
    Ok((delivered.partition, delivered.offset))
}

/// The same, for tests.
pub fn write_now(
    bootstrap: &str,
    topic: &str,
    partition: Option<i32>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> (i32, i64) {
    RUNTIME.block_on(write(&producer(bootstrap), topic, partition, key, value)).expect("a record is written")
}

/// Writes a record once more, behind what stands there.
pub fn write_again(bootstrap: &str, topic: &str, seen: &Seen) {
    let headers = seen.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
    record.partition = Some(seen.partition);
    record.key = seen.key.as_deref();
    record.payload = seen.value.as_deref();
    let written = RUNTIME.block_on(producer(bootstrap).send(record, REQUEST_TIMEOUT));
    written.expect("a record is written");
}

/// Sets one setting of a topic; the others go back to the broker's defaults, as librdkafka has it.
pub fn alter(bootstrap: &str, topic: &str, settings: &[(&str, &str)]) {
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (setting, value) in settings {
        change = change.set(setting, value);
    }
    let altered = RUNTIME.block_on(admin(bootstrap).alter_configs([&change], &AdminOptions::new()));
    altered.expect("the broker answers")[0].as_ref().expect("a setting that can be altered");
}

/// Deletes what stands before an offset.
pub fn trim(bootstrap: &str, topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset that is legal");
    let trimmed = RUNTIME.block_on(admin(bootstrap).delete_records(&offsets, &AdminOptions::new()));
    for element in trimmed.expect("the broker answers").elements() {
        element.error().expect("a partition that can be trimmed");
    }
}

/// Makes a topic that is nobody's but the test's, and waits until it can be read.
pub fn create(bootstrap: &str, topic: &str, partitions: i32) {
    let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let admin = admin(bootstrap);
    let made = RUNTIME.block_on(admin.create_topics([&wanted], &AdminOptions::new()));
    made.expect("the broker answers")[0].as_ref().expect("a topic that can be made");
    wait::until(REQUEST_TIMEOUT, "a new topic has leaders", || {
        let metadata =
            admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT).expect("the broker answers");
        let partitions = metadata.topics()[0].partitions();
        !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
    });
}

/// Gives a topic more partitions.
pub fn grow(bootstrap: &str, topic: &str, partitions: usize) {
    let wanted = NewPartitions::new(topic, partitions);
    let grown = RUNTIME.block_on(admin(bootstrap).create_partitions([&wanted], &AdminOptions::new()));
    grown.expect("the broker answers")[0].as_ref().expect("a topic that can be grown");
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    config(bootstrap).create().expect("an admin client can be made")
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "1000");
    config
}

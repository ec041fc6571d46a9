//! Tried out on a topic of its own: what a record costs, what the brokers' clocks say, and whether Kafka transactions hide,
//! show and fence as they must.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sagamore_schemas::topics::{IN_SYNC_LEAST, MIN_IN_SYNC, Prefix, REPLICATION_LEAST};
use serde::Serialize;
use uuid::Uuid;

use crate::client::{ClientSettings, EndsAreNoErrors, Isolation};
use crate::topics::{create_topic, remove_topics};

/// Records whose way is measured.
const ROUNDS: usize = 100;
/// Brokers that are probed, at most: one partition each.
const BROKERS_MAX: usize = 60;
/// How long one record may take to be acknowledged, or to be seen.
const RECORD_WITHIN: Duration = Duration::from_secs(10);
/// How long a step of a Kafka transaction may take.
const TRANSACTION_WITHIN: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Probed {
    /// From handing a record over to its acknowledgement by all copies in sync.
    pub produce: Latency,
    /// From there to when a reader had it.
    pub fetch: Latency,
    /// Each broker's clock beside this machine's, by its number.
    pub clocks: BTreeMap<i32, Clock>,
    /// Kafka transactions.
    pub transactions: TransactionsProbed,
    /// The newest version of some of Kafka's requests that the brokers take, the oldest broker's.
    pub requests: BTreeMap<String, i16>,
}

/// How long something took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them took less.
    pub p50_ms: f64,
    /// 99 of 100 took less.
    pub p99_ms: f64,
}

/// A broker's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// How far it is ahead of this machine's, in milliseconds.
    pub ahead_ms: i64,
    /// How much of that the way there and back may be.
    pub uncertain_ms: i64,
}

/// What Kafka transactions do here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TransactionsProbed {
    /// What has failed, if anything: the step, and what the client says.
    pub failed: Option<String>,
    /// A committed reader saw what was committed, and nothing else.
    pub shows_committed_only: bool,
    /// A successor with the same id has stopped the former owner.
    pub fences: bool,
}

/// What the names of a doctor's topics begin with.
pub(super) fn topics_begin_with(prefix: &Prefix) -> String {
    format!("{prefix}.doctor-")
}

/// Makes a topic, tries, and removes it whatever came of it.
pub(super) fn probe(settings: &ClientSettings, prefix: &Prefix, brokers: usize) -> Result<Probed, String> {
    let name = format!("{}{:.8}", topics_begin_with(prefix), Uuid::new_v4().simple());
    let copies = u16::try_from(brokers).unwrap_or(u16::MAX).min(REPLICATION_LEAST);
    let copies = NonZeroU16::new(copies).unwrap_or(NonZeroU16::MIN);
    let partitions = u16::try_from(brokers.clamp(1, BROKERS_MAX)).ok().and_then(NonZeroU16::new);
    let partitions = partitions.unwrap_or(NonZeroU16::MIN);
    let in_sync = IN_SYNC_LEAST.min(copies.get().saturating_sub(1).max(1)).to_string();
    let with = [
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "LogAppendTime"),
        (MIN_IN_SYNC, in_sync.as_str()),
    ];
    let with = with.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let tried = create_topic(settings, &name, partitions, copies, &with)
        .map_err(|error| format!("no topic to try with: {error}"))
        .and_then(|()| try_out(settings, &name, i32::from(partitions.get())));
    match remove_topics(settings, std::slice::from_ref(&name)) {
        Ok(()) => tried,
        Err(error) => tried.and(Err(format!("{name} cannot be removed again: {error}"))),
    }
}

fn try_out(settings: &ClientSettings, topic: &str, partitions: i32) -> Result<Probed, String> {
    let wrong = |error: KafkaError| error.to_string();
    let mut config = settings.client_producer("sagamore-doctor");
    // librdkafka tells only so which requests a broker takes.
    config.set("debug", "feature").set_log_level(RDKafkaLogLevel::Debug);
    let heard = Heard::default();
    let producer: ThreadedProducer<Heard> =
        ThreadedProducer::from_config_and_context(&config, heard.clone()).map_err(wrong)?;
    let reader = Reader::new(settings, topic, partitions, Isolation::ReadUncommitted)?;
    let leaders = leaders(&reader.consumer, topic)?;
    let mut ways: Vec<Way> = Vec::new();
    for round in 0..partitions + i32::try_from(ROUNDS).unwrap_or(i32::MAX) {
        let way = one_way(&producer, &heard, &reader, topic, round % partitions, &format!("way-{round}"))?;
        // The first of each partition opens connections.
        if round >= partitions {
            ways.push(way);
        }
    }
    let clocks = clocks(&ways, &leaders);
    let requests = heard.requests();
    drop(producer);
    Ok(Probed {
        produce: latency(ways.iter().map(|way| way.produce)),
        fetch: latency(ways.iter().map(|way| way.fetch)),
        clocks,
        transactions: transactions(settings, topic, partitions),
        requests,
    })
}

struct Way {
    partition: i32,
    produce: Duration,
    fetch: Duration,
    ahead_ms: i64,
}

fn one_way(
    producer: &ThreadedProducer<Heard>,
    heard: &Heard,
    reader: &Reader,
    topic: &str,
    partition: i32,
    key: &str,
) -> Result<Way, String> {
    let (begun, begun_ms) = (Instant::now(), now_ms());
    let record = BaseRecord::to(topic).partition(partition).key(key).payload("sagamore doctor");
    producer.send(record).map_err(|(error, _)| error.to_string())?;
    while heard.take_delivered()?.is_none() {
        if begun.elapsed() > RECORD_WITHIN {
            return Err(format!("a record was not acknowledged within {} s", RECORD_WITHIN.as_secs()));
        }
        std::thread::yield_now();
    }
    let produce = begun.elapsed();
    let stamped_ms = reader.wait_for(key, RECORD_WITHIN)?;
    let half = i64::try_from(produce.as_millis() / 2).unwrap_or(i64::MAX);
    Ok(Way {
        partition,
        produce,
        fetch: begun.elapsed().saturating_sub(produce),
        ahead_ms: stamped_ms - begun_ms - half,
    })
}

/// Of each broker the round that took the shortest time says most.
fn clocks(ways: &[Way], leaders: &BTreeMap<i32, i32>) -> BTreeMap<i32, Clock> {
    let mut best: BTreeMap<i32, &Way> = BTreeMap::new();
    for way in ways {
        let Some(leader) = leaders.get(&way.partition) else { continue };
        let known = best.entry(*leader).or_insert(way);
        if way.produce < known.produce {
            *known = way;
        }
    }
    let clock = |way: &Way| Clock {
        ahead_ms: way.ahead_ms,
        uncertain_ms: i64::try_from(way.produce.as_millis() / 2).unwrap_or(i64::MAX) + 1,
    };
    best.into_iter().map(|(leader, way)| (leader, clock(way))).collect()
}

fn latency(times: impl Iterator<Item = Duration>) -> Latency {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    Latency { p50_ms: at(50), p99_ms: at(99) }
}

/// Commits, aborts, is fenced; and what a committed reader saw of it.
fn transactions(settings: &ClientSettings, topic: &str, partitions: i32) -> TransactionsProbed {
    let mut probed = TransactionsProbed::default();
    probed.failed = try_transactions(settings, topic, partitions, &mut probed).err();
    probed
}

fn try_transactions(
    settings: &ClientSettings,
    topic: &str,
    partitions: i32,
    probed: &mut TransactionsProbed,
) -> Result<(), String> {
    let told = |step: &'static str| move |error: KafkaError| format!("{step}: {error}");
    let owner = || -> Result<ThreadedProducer<Heard>, String> {
        let config = settings.checkpoint_producer(topic);
        let producer = ThreadedProducer::from_config_and_context(&config, Heard::default());
        let producer: ThreadedProducer<Heard> = producer.map_err(told("make a producer"))?;
        producer.init_transactions(TRANSACTION_WITHIN).map_err(told("init_transactions"))?;
        Ok(producer)
    };
    let send = |producer: &ThreadedProducer<Heard>, key: &'static str| -> Result<(), String> {
        producer.begin_transaction().map_err(told("begin_transaction"))?;
        let record = BaseRecord::to(topic).partition(0).key(key).payload("sagamore doctor");
        producer.send(record).map_err(|(error, _)| format!("send: {error}"))?;
        producer.flush(TRANSACTION_WITHIN).map_err(told("flush"))
    };
    let former = owner()?;
    send(&former, "transaction-committed")?;
    former.commit_transaction(TRANSACTION_WITHIN).map_err(told("commit_transaction"))?;
    send(&former, "transaction-aborted")?;
    former.abort_transaction(TRANSACTION_WITHIN).map_err(told("abort_transaction"))?;
    send(&former, "transaction-open")?;
    let successor = owner()?;
    send(&successor, "transaction-last")?;
    successor.commit_transaction(TRANSACTION_WITHIN).map_err(told("commit_transaction"))?;
    probed.fences = former.commit_transaction(TRANSACTION_WITHIN).is_err();
    let reader = Reader::new(settings, topic, partitions, Isolation::ReadCommitted)?;
    let seen = reader.keys_up_to("transaction-last", TRANSACTION_WITHIN)?;
    let seen: Vec<&str> =
        seen.iter().map(String::as_str).filter(|key| key.starts_with("transaction-")).collect();
    probed.shows_committed_only = seen == ["transaction-committed", "transaction-last"];
    Ok(())
}

/// Reads the topic of the probe.
struct Reader {
    consumer: BaseConsumer<EndsAreNoErrors>,
}

impl Reader {
    fn new(
        settings: &ClientSettings,
        topic: &str,
        partitions: i32,
        isolation: Isolation,
    ) -> Result<Self, String> {
        let wrong = |error: KafkaError| error.to_string();
        let consumer: BaseConsumer<EndsAreNoErrors> =
            settings.replay_consumer(isolation).create_with_context(EndsAreNoErrors).map_err(wrong)?;
        let mut from = TopicPartitionList::new();
        for partition in 0..partitions {
            from.add_partition_offset(topic, partition, Offset::Beginning).map_err(wrong)?;
        }
        consumer.assign(&from).map_err(wrong)?;
        Ok(Self { consumer })
    }

    /// When the broker has stamped the record with this key.
    fn wait_for(&self, key: &str, within: Duration) -> Result<i64, String> {
        let mut stamped = None;
        self.read(within, |seen, at| {
            stamped = (seen == key).then_some(at);
            stamped.is_some()
        })?;
        stamped.ok_or_else(|| "the broker gives its records no time".to_owned())
    }

    fn keys_up_to(&self, last: &str, within: Duration) -> Result<Vec<String>, String> {
        let mut keys = Vec::new();
        self.read(within, |seen, _| {
            keys.push(seen.to_owned());
            seen == last
        })?;
        Ok(keys)
    }

    fn read(&self, within: Duration, mut is_enough: impl FnMut(&str, i64) -> bool) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            match self.consumer.poll(POLL_INTERVAL) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(format!("read: {error}")),
                Some(Ok(record)) => {
                    let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                    if is_enough(&key, record.timestamp().to_millis().unwrap_or_default()) {
                        return Ok(());
                    }
                }
            }
        }
        Err(format!("a record was not seen within {} s", within.as_secs()))
    }
}

/// Who leads each partition.
fn leaders(client: &BaseConsumer<EndsAreNoErrors>, topic: &str) -> Result<BTreeMap<i32, i32>, String> {
    let metadata = client.fetch_metadata(Some(topic), RECORD_WITHIN).map_err(|error| error.to_string())?;
    let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    Ok(partitions.map(|partition| (partition.id(), partition.leader())).collect())
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// What the producer's threads tell: one delivery at a time, and which requests brokers take.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<HeardParts>>);

#[derive(Default)]
struct HeardParts {
    delivered: Option<Result<(), KafkaError>>,
    requests: BTreeMap<String, i16>,
}

impl Heard {
    fn take_delivered(&self) -> Result<Option<()>, String> {
        let delivered = self.0.lock().unwrap_or_else(PoisonError::into_inner).delivered.take();
        delivered.transpose().map_err(|error| format!("produce: {error}"))
    }

    fn requests(&self) -> BTreeMap<String, i16> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, message: &str) {
        if let Some((request, newest)) = request_of(message) {
            let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = parts.requests.entry(request.to_owned()).or_insert(newest);
            *known = newest.min(*known);
        }
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).delivered = Some(result);
    }
}

/// From librdkafka's `… ApiKey Produce (0) Versions 0..13`: what is asked, and the newest version.
fn request_of(message: &str) -> Option<(&str, i16)> {
    let (_, rest) = message.split_once("ApiKey ")?;
    let (request, rest) = rest.split_once(" (")?;
    let (_, versions) = rest.split_once("Versions ")?;
    let (_, newest) = versions.split_once("..")?;
    let is_one = ["Produce", "Fetch", "InitProducerId", "AddPartitionsToTxn", "EndTxn"].contains(&request);
    is_one.then_some(())?;
    Some((request, newest.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_times() {
        let times = |count: u64| latency((1..=count).map(Duration::from_millis));
        assert_eq!(times(100), Latency { p50_ms: 50.0, p99_ms: 99.0 });
        assert_eq!(times(1), Latency { p50_ms: 1.0, p99_ms: 1.0 });
        assert_eq!(times(0), Latency::default());
    }

    #[test]
    fn the_shortest_round_tells_the_clock() {
        let way = |partition, produce, ahead_ms| Way {
            partition,
            produce: Duration::from_millis(produce),
            fetch: Duration::ZERO,
            ahead_ms,
        };
        let ways = [way(0, 400, -190), way(0, 4, 7), way(1, 2, -3), way(2, 2, 9)];
        let clocks = clocks(&ways, &[(0, 11), (1, 12)].into());
        let clock = |ahead_ms, uncertain_ms| Clock { ahead_ms, uncertain_ms };
        assert_eq!(clocks, [(11, clock(7, 3)), (12, clock(-3, 2))].into());
    }

    #[test]
    fn what_librdkafka_tells_of_requests() {
        let line = "[thrd:127.0.0.1:9/1]: 127.0.0.1:9/1:   ApiKey Produce (0) Versions 0..13";
        assert_eq!(request_of(line), Some(("Produce", 13)));
        assert_eq!(request_of("ApiKey DeleteGroups (42) Versions 0..2"), None);
        assert_eq!(request_of("connected"), None);
    }
}

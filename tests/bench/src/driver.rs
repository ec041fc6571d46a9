//! The driver: sends starts, reads outcomes, counts what it cost.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Name, Time, TransactionId};
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{DefinitionRef, OutcomeKind, Payload, Start, read_outcome};

use crate::roles::{PARTICIPANTS, participant_names};

const DEFINITION: &str = r#"{"name":"order","version":1,"steps":[
    {"name":"reserve","participant":"reserve"},{"name":"charge","participant":"charge"},{"name":"book","participant":"book"}]}"#;
const ORDER_BYTES: usize = 200;
const STALLED: Duration = Duration::from_secs(30);

pub(crate) fn run(
    kafka: &ClientSettings,
    prefix: &Prefix,
    partitions: i32,
    in_flight: usize,
    count: usize,
    broker: Option<u32>,
) -> Result<(), Box<dyn Error>> {
    let producer: ThreadedProducer<DefaultProducerContext> = kafka.client_producer("bench").create()?;
    producer
        .send(BaseRecord::to(&Topic::Definitions.name(prefix)).key("order@1").payload(DEFINITION))
        .map_err(|(error, _)| error)?;
    let server = role("server", kafka, prefix)?;
    let participants = role("participants", kafka, prefix)?;
    let outcomes = outcomes(kafka, prefix, partitions)?;
    warm_up(&producer, &outcomes, prefix, partitions)?;

    let before = Costs::now(&server, &participants, broker, &outcomes, prefix, partitions)?;
    let timing = drive(&producer, &outcomes, prefix, partitions, in_flight, count)?;
    let after = Costs::now(&server, &participants, broker, &outcomes, prefix, partitions)?;
    print(&timing, &before, &after, in_flight, count);
    Ok(())
}

struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

fn role(name: &str, kafka: &ClientSettings, prefix: &Prefix) -> Result<Role, Box<dyn Error>> {
    let child = Command::new(std::env::current_exe()?)
        .args([name, "--kafka", kafka.bootstrap(), "--prefix", prefix.as_str()])
        .stdin(Stdio::piped())
        .spawn()?;
    Ok(Role(child))
}

fn outcomes(kafka: &ClientSettings, prefix: &Prefix, partitions: i32) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(&Topic::Outcomes.name(prefix), partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

/// One order of each shard until it is committed: definition, group and connections are there then.
fn warm_up(
    producer: &ThreadedProducer<DefaultProducerContext>,
    outcomes: &BaseConsumer,
    prefix: &Prefix,
    partitions: i32,
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut missing: Vec<i32> = (0..partitions).collect();
    let mut number = 0;
    while let Some(partition) = missing.first().copied() {
        if begun.elapsed() > Duration::from_mins(1) {
            return Err(format!("shard {partition} did not commit an order within 60 s").into());
        }
        let id: TransactionId = format!("warm-{number}").parse()?;
        number += 1;
        if home(&id, partitions).0 != partition {
            continue;
        }
        start(producer, prefix, partitions, &id)?;
        let patience = Instant::now() + Duration::from_secs(2);
        while Instant::now() < patience {
            let Some(Ok(message)) = outcomes.poll(Duration::from_millis(20)) else { continue };
            let outcome = read_outcome(message.payload())?;
            if outcome.subject == id {
                if outcome.outcome == OutcomeKind::Committed {
                    missing.remove(0);
                }
                break;
            }
        }
    }
    Ok(())
}

struct Timing {
    latency_us: Histogram<u64>,
    rate_per_s: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
fn drive(
    producer: &ThreadedProducer<DefaultProducerContext>,
    outcomes: &BaseConsumer,
    prefix: &Prefix,
    partitions: i32,
    in_flight: usize,
    count: usize,
) -> Result<Timing, Box<dyn Error>> {
    let begun_at: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
    let flying = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let sender = {
        let (producer, prefix) = (producer.clone(), prefix.clone());
        let (begun_at, flying) = (Arc::clone(&begun_at), Arc::clone(&flying));
        std::thread::spawn(move || -> Result<(), String> {
            for number in 0..count {
                while flying.load(Ordering::Acquire) >= in_flight {
                    std::thread::sleep(Duration::from_micros(100));
                }
                flying.fetch_add(1, Ordering::AcqRel);
                let id: TransactionId =
                    format!("order-{number}").parse().map_err(|error| format!("{error}"))?;
                begun_at
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(id.to_string(), Instant::now());
                start(&producer, &prefix, partitions, &id).map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    };
    let mut latency_us: Histogram<u64> = Histogram::new(3)?;
    let (mut ended, warm) = (0, count / 5);
    let mut measured_from = begun;
    let mut heard = Instant::now();
    while ended < count {
        if heard.elapsed() > STALLED {
            return Err(
                format!("{ended} of {count} orders ended, and nothing for {} s", STALLED.as_secs()).into()
            );
        }
        let Some(message) = outcomes.poll(Duration::from_millis(200)) else { continue };
        let message = message?;
        let outcome = read_outcome(message.payload())?;
        let id = outcome.subject.to_string();
        if !id.starts_with("order-") {
            continue;
        }
        heard = Instant::now();
        if outcome.outcome != OutcomeKind::Committed {
            return Err(format!("{id} ended {}: {:?}", outcome.outcome, outcome.reason).into());
        }
        let started = begun_at.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        // An outcome can stand twice in the topic; it counts once.
        let Some(started) = started else { continue };
        flying.fetch_sub(1, Ordering::AcqRel);
        ended += 1;
        if ended == warm {
            measured_from = heard;
        }
        if ended > warm {
            latency_us.record(u64::try_from((heard - started).as_micros())?)?;
        }
    }
    let seconds = measured_from.elapsed().as_secs_f64();
    sender.join().map_err(|_| "the sender panicked")??;
    Ok(Timing { latency_us, rate_per_s: (count - warm) as f64 / seconds })
}

fn start(
    producer: &ThreadedProducer<DefaultProducerContext>,
    prefix: &Prefix,
    partitions: i32,
    id: &TransactionId,
) -> Result<(), Box<dyn Error>> {
    let data = Payload::from_json(format!("{{\"order\":\"{}\"}}", "x".repeat(ORDER_BYTES - 12)))?;
    let definition = DefinitionRef { name: "order".parse::<Name>()?, version: None };
    let time = Time::from_epoch_ms(i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis(),
    )?);
    let value = Start { subject: id.clone(), time, definition, traceparent: None, data: data.as_ref() }
        .to_json("/bench");
    let topic = Topic::Inbox.name(prefix);
    let mut record =
        BaseRecord::to(&topic).partition(home(id, partitions).0).key(id.as_str()).payload(value.as_slice());
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Processor seconds of the processes, and records in the topics.
struct Costs {
    server_s: f64,
    participants_s: f64,
    broker_s: Option<f64>,
    records: BTreeMap<String, i64>,
}

impl Costs {
    fn now(
        server: &Role,
        participants: &Role,
        broker: Option<u32>,
        consumer: &BaseConsumer,
        prefix: &Prefix,
        partitions: i32,
    ) -> Result<Self, Box<dyn Error>> {
        // A last checkpoint belongs to what it is the checkpoint of.
        std::thread::sleep(Duration::from_secs(1));
        let mut records = BTreeMap::new();
        let mut topics: Vec<(String, String)> =
            [Topic::Inbox, Topic::Outcomes, Topic::State, Topic::Journal, Topic::DeadLetters]
                .map(|topic| (topic.suffix().to_owned(), topic.name(prefix)))
                .into();
        topics.extend(
            participant_names().iter().map(|name| ("commands".to_owned(), command_topic(prefix, name))),
        );
        assert_eq!(topics.len(), 5 + PARTICIPANTS.len());
        for (label, topic) in topics {
            let count = if label == "dead-letters" { 1 } else { partitions };
            for partition in 0..count {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10))?;
                *records.entry(label.clone()).or_default() += end;
            }
        }
        Ok(Self {
            server_s: processor_s(server.0.id())?,
            participants_s: processor_s(participants.0.id())?,
            broker_s: broker.map(processor_s).transpose()?,
            records,
        })
    }
}

/// User and system time of a process: fields 14 and 15 of `/proc/<pid>/stat`, in hundredths of a second.
fn processor_s(process: u32) -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field =
        |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    Ok((field(11) + field(12)) / 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
fn print(timing: &Timing, before: &Costs, after: &Costs, in_flight: usize, count: usize) {
    let per_order = |seconds: f64| seconds * 1e6 / count as f64;
    let ms = |quantile: f64| timing.latency_us.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "in flight {in_flight}: {:.0} orders/s, p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
        timing.rate_per_s,
        ms(0.5),
        ms(0.99),
        ms(0.999)
    );
    println!(
        "processor us per order: orchestrator {:.1}, participants {:.1}{}",
        per_order(after.server_s - before.server_s),
        per_order(after.participants_s - before.participants_s),
        match (before.broker_s, after.broker_s) {
            (Some(before), Some(after)) => format!(", broker {:.1}", per_order(after - before)),
            _ => String::new(),
        }
    );
    let mut total = 0.0;
    let mut parts = Vec::new();
    for (label, end) in &after.records {
        let each = (end - before.records.get(label).copied().unwrap_or_default()) as f64 / count as f64;
        total += each;
        parts.push(format!("{label} {each:.2}"));
    }
    println!("records per order: {total:.2} ({}; ends of Kafka transactions counted)", parts.join(", "));
}

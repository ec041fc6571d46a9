//! What an operator asks at three in the morning, and how long each answer takes: 100,000 transactions of which 1,000 are
//! stuck for five reasons, 200 dead letters, one entry of the journal altered by hand.
//!
//! `tests/run -p sagamore-end-to-end --test operator -- --ignored --nocapture`; `SAGAMORE_TRANSACTIONS=10000` for fewer.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sagamore_end_to_end::load::start_record;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::{KAFKA, topics, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagamore-under-test");
const TRANSACTIONS: u64 = 100_000;
/// One of so many is stuck.
const STUCK_EVERY: u64 = 100;
const REASONS: [&str; 5] = ["limit", "closed", "address", "customs", "weight"];
const DEAD_LETTERS: u64 = 200;
const ENDED_WITHIN: Duration = Duration::from_mins(10);
const DEFINITION: &str = "name: purchase
version: 1
deadline: 2h
steps:
  - { name: pay, participant: payer, kind: pivot, input: { order: \"${input.order}\" } }
  - { name: ship, participant: shipper, kind: retriable, input: { order: \"${input.order}\", fails: \"${input.fails}\" } }
";

#[test]
#[ignore = "takes minutes"]
fn what_an_operator_asks() {
    let count = std::env::var("SAGAMORE_TRANSACTIONS").map_or(TRANSACTIONS, |count| count.parse().unwrap());
    let stage = Stage::new(KAFKA.bootstrap(), PROGRAM, "operator");
    let server = stage.server(1);
    stage.wait_running(&[&server]);
    let file = stage.folder().join("purchase.yaml");
    std::fs::write(&file, DEFINITION).unwrap();
    stage.must(&["define", "apply", &file.display().to_string(), "--wait", "40s"], 0);
    let is_healed = Arc::new(AtomicBool::new(false));
    let participants = Participants::begin(&stage, &is_healed);

    let begun = Instant::now();
    start_all(&stage, count);
    let stuck = count / STUCK_EVERY;
    wait::until(ENDED_WITHIN, "all have ended, or are stuck", || {
        let counts =
            server.get("/v1/counts?by=status&status=all").map(|answer| answer.body).unwrap_or_default();
        let groups = counts["counts"].as_array().cloned().unwrap_or_default();
        let of = |status: &str| {
            let group = groups.iter().find(|group| group["status"] == status);
            group.and_then(|group| group["transactions"].as_u64()).unwrap_or_default()
        };
        (of("committed"), of("stuck")) == (count - stuck, stuck)
    });
    println!("{count} transactions in {:.1} s, {stuck} of them stuck", begun.elapsed().as_secs_f64());

    let mut asked = Asked { stage: &stage, server: server.wait_listening(), rows: Vec::new() };
    asked.ask(&["count"], 0);
    asked.ask(&["list", "--status", "stuck", "--limit", "100"], 0);
    let causes = asked.ask(&["stuck", "--by-cause", "-o", "json"], 0);
    let causes: Value = serde_json::from_str(&causes).unwrap();
    assert_eq!(causes.as_array().map(Vec::len), Some(REASONS.len()), "{causes:#}");
    asked.ask(&["get", "purchase-99"], 0);
    asked.ask(&["retry", "--stuck", "--participant", "shipper", "--dry-run", "--reason", "to see"], 0);
    asked.ask(&["audit", "trace", "purchase-99"], 0);
    asked.ask(&["audit", "state", "--at", &jiff::Timestamp::now().to_string(), "--status", "stuck"], 0);
    asked.ask(&["audit", "verify"], 0);
    asked.ask(&["audit", "what-if", "--definition", &file.display().to_string()], 0);
    asked.ask(&["audit", "export", "--file", &stage.folder().join("journal.jsonl").display().to_string()], 0);
    asked.ask(&["dead-letters", "list"], 0);

    forge(&stage);
    let found = asked.ask(&["audit", "verify", "-o", "json"], 10);
    let found: Value = serde_json::from_str(&found).unwrap();
    println!("the altered record, as the auditor sees it: {:#}", found["findings"]);
    assert_eq!(found["findings"].as_array().map(Vec::len), Some(1));

    is_healed.store(true, Ordering::Relaxed);
    asked.ask(&["retry", "--stuck", "--participant", "shipper", "--reason", "the carrier is up again"], 0);
    wait::until(ENDED_WITHIN, "nothing is stuck any more", || {
        stage.command(&["stuck", "-o", "json", "--server", &asked.server]).out.trim() == "[]"
    });
    asked.ask(&["rebuild", "0", "--reason", "to see"], 0);
    asked.print();
    participants.end();
    server.process.signal("TERM");
}

/// What is asked of a server; the rest asks Kafka.
const OF_A_SERVER: [&str; 5] = ["count", "list", "stuck", "get", "retry"];

/// Questions, and how long each took.
struct Asked<'a> {
    stage: &'a Stage,
    server: String,
    rows: Vec<(String, Duration)>,
}

impl Asked<'_> {
    fn ask(&mut self, arguments: &[&str], code: i32) -> String {
        let begun = Instant::now();
        let finished = if OF_A_SERVER.contains(&arguments[0]) {
            self.stage.command(&[arguments, &["--server", &self.server]].concat())
        } else {
            self.stage.sagamore(arguments)
        };
        assert_eq!(finished.code, code, "{arguments:?}: {finished:?}");
        self.rows.push((arguments.join(" "), begun.elapsed()));
        println!("--- {} ({:.2} s)", arguments.join(" "), begun.elapsed().as_secs_f64());
        for line in finished.out.lines().take(12) {
            println!("{}", line.chars().take(160).collect::<String>());
        }
        finished.out
    }

    fn print(&self) {
        for (question, took) in &self.rows {
            println!("{:8.2} s  {question}", took.as_secs_f64());
        }
    }
}

fn producer(stage: &Stage) -> ThreadedProducer<DefaultProducerContext> {
    ClientConfig::new()
        .set("bootstrap.servers", stage.bootstrap())
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap()
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, mut record: BaseRecord<'_, [u8], [u8]>) {
    while let Err((_, back)) = producer.send(record) {
        record = back;
        thread::sleep(Duration::from_millis(2));
    }
}

fn start_all(stage: &Stage, count: u64) {
    let producer = producer(stage);
    let inbox = stage.topic("inbox");
    for number in 1..=count {
        let id = format!("purchase-{number}");
        let fails = if number % STUCK_EVERY == STUCK_EVERY - 1 {
            REASONS[usize::try_from(number / STUCK_EVERY).unwrap() % REASONS.len()]
        } else {
            ""
        };
        let input = json!({"order": number, "fails": fails});
        let start = start_record(&id, "purchase", &input, &jiff::Timestamp::now().to_string());
        send(&producer, BaseRecord::to(&inbox).key(id.as_bytes()).payload(start.as_bytes()));
    }
    for number in 0..DEAD_LETTERS {
        let text = format!("{{\"nobody can read this\": {number}");
        send(&producer, BaseRecord::to(&inbox).key(text.as_bytes()).payload(text.as_bytes()));
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// The payer and the shipper.
struct Participants {
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Participants {
    fn begin(stage: &Stage, is_healed: &Arc<AtomicBool>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = ["payer", "shipper"].map(|name| {
            let (stage, is_over, is_healed) = (stage.clone(), Arc::clone(&is_over), Arc::clone(is_healed));
            thread::spawn(move || answer(&stage, name, &is_over, &is_healed))
        });
        Self { is_over, threads: threads.into() }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn answer(stage: &Stage, name: &str, is_over: &AtomicBool, is_healed: &AtomicBool) {
    let topic = stage.topic(&format!("commands.{name}"));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", stage.bootstrap())
        .set("group.id", "nobody")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(20)).unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(&topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let producer = producer(stage);
    while !is_over.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let mut reply: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let fails = reply["data"]["fails"].as_str().unwrap_or_default().to_owned();
        let replyto = reply["replyto"].as_str().unwrap().to_owned();
        let (inbox, partition) = replyto.rsplit_once('/').unwrap();
        reply["type"] = json!("sagamore.reply.v1");
        reply["id"] = json!(format!("{}/reply", reply["id"].as_str().unwrap()));
        reply["source"] = json!(format!("/{name}"));
        let document = reply.as_object_mut().unwrap();
        for name in ["issued", "watermark", "deadline", "definition", "replyto", "data"] {
            document.remove(name);
        }
        let is_refused = !fails.is_empty() && !is_healed.load(Ordering::Relaxed);
        document.insert("outcome".into(), json!(if is_refused { "refused" } else { "ok" }));
        if is_refused {
            document.insert("reason".into(), json!(format!("{fails}: the carrier does not take it")));
        }
        let (value, subject) = (reply.to_string(), reply["subject"].as_str().unwrap().to_owned());
        let record = BaseRecord::to(inbox).partition(partition.parse().unwrap());
        send(&producer, record.key(subject.as_bytes()).payload(value.as_bytes()));
    }
}

/// An entry once more, with another text under the same chain.
fn forge(stage: &Stage) {
    let topic = stage.topic("journal");
    let records = topics::read_all(stage.bootstrap(), &topic);
    let record = records.iter().find(|seen| seen.key.as_deref() == Some(b"purchase-7")).unwrap();
    let mut entries: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
    let altered = entries[0]["entry"].to_string().replacen('}', ",\"reason\":\"committed-by-hand\"}", 1);
    let altered = format!("[{{\"entry\":{altered},\"chain\":{}}}]", entries[0]["chain"].take());
    let (key, value) = (record.key.as_deref(), altered.as_bytes());
    topics::write_now(stage.bootstrap(), &topic, Some(record.partition), key, Some(value));
}

//! Three-phase commit when one message is late: who waits and asks stays together, who decides alone is split. With the
//! real decider, the real library, and the same schedule for both.
//!
//! ```text
//!  bank-a  prepare ok   precommit ok   ·············· commit, alone
//!  bank-b  prepare ok   ······· abort, alone ················ its precommit arrives
//! ```
//! The model `three-phase` in `tests/model` finds the same split at protocol level, in every order of events.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use sagamore::config::ServerConfig;
use sagamore::server::Server;
use sagamore_decider::owner::Pace;
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::{
    Command, Effect, Fault, Handle, Operation, Participant, Payload, Runtime, Settings,
};
use sagamore_schemas::ids::Span;
use sagamore_schemas::topics::{Prefix, Topic};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
/// What the definition assumes: every message is there within so long.
const ASSUMED: Duration = Duration::from_secs(2);
/// How late `precommit` comes to one of the two.
const LATE: Duration = Duration::from_secs(6);

/// By transaction: what has been done, in turn.
type Done = Table<String, Vec<Operation>>;

struct Bank {
    /// How long a `precommit` is on its way.
    late: Duration,
}

impl Bank {
    fn note(done: &mut Done, command: &Command<'_>) {
        let subject = command.address.subject.to_string();
        let mut operations = done.get(&subject).cloned().unwrap_or_default();
        operations.push(command.address.operation);
        done.put(subject, operations);
    }
}

impl Participant for Bank {
    type Store = MemoryStore<Done>;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        if command.address.operation == Operation::Precommit {
            std::thread::sleep(self.late);
        }
        Ok(())
    }

    fn execute(&self, _: &mut Done, _: &Command<'_>) -> Result<Effect, Fault> {
        Ok(Effect::refused("banks vote"))
    }

    fn compensate(&self, _: &mut Done, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }

    fn prepare(&self, done: &mut Done, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::note(done, command);
        Effect::done(&())
    }

    fn commit(&self, done: &mut Done, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::note(done, command);
        Ok(())
    }

    fn abort(&self, done: &mut Done, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::note(done, command);
        Ok(())
    }
}

fn bank(kafka: &ClientSettings, name: &str, late: Duration) -> (Handle, MemoryStore<Done>) {
    let store = MemoryStore::new(Done::default());
    let settings = Settings::new(kafka.clone(), Prefix::default(), name.parse().unwrap());
    (Runtime::spawn(Bank { late }, store.clone(), &settings).unwrap(), store)
}

/// The transfer's end, what each bank has done, and how often one has decided alone.
fn transfer(termination: &Value) -> (String, [Vec<Operation>; 2], u64) {
    let broker = EmbeddedBroker::start().unwrap();
    let names = ["bank-a", "bank-b"].map(|name| name.parse().unwrap());
    broker.create_all_topics(&Prefix::default(), NonZeroU16::MIN, &names).unwrap();
    let kafka = broker.client_settings().unwrap();
    let mut step = json!({"name": "pay", "protocol": "three-phase",
                          "branches": [{"participant": "bank-a"}, {"participant": "bank-b"}]});
    step.as_object_mut().unwrap().extend(termination.as_object().unwrap().clone());
    let definition = json!({"name": "transfer", "version": 1, "steps": [step]}).to_string();
    let producer: ThreadedProducer<DefaultProducerContext> = kafka.client_producer("test").create().unwrap();
    let topic = Topic::Definitions.name(&Prefix::default());
    let sent = producer.send(BaseRecord::to(&topic).key("transfer@1").payload(&definition));
    sent.map_err(|(failure, _)| failure).unwrap();
    producer.flush(SOON).unwrap();

    let banks = [bank(&kafka, "bank-a", Duration::ZERO), bank(&kafka, "bank-b", LATE)];
    let mut server = Server::start(ServerConfig {
        kafka,
        prefix: Prefix::default(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        lanes: 1,
        development: true,
        view: None,
        check_topics: false,
        reply_secret: None,
        snapshot_every: Span::default(),
        pace: Pace::default(),
    })
    .unwrap();
    assert!(server.wait_ready(SOON));
    let url = format!("http://{}/v1/transactions", server.address());
    let end = tokio::runtime::Runtime::new().unwrap().block_on(drive(&url));
    let done = banks
        .each_ref()
        .map(|(_, store)| store.read(|done| done.get(&"t-1".to_owned()).cloned().unwrap_or_default()));
    let alone = banks.iter().map(|(handle, _)| handle.counters().alone).sum();
    server.stop();
    (end, done, alone)
}

async fn drive(url: &str) -> String {
    let client = reqwest::Client::new();
    let start = json!({"id": "t-1", "definition": "transfer", "input": {"amount": 5}}).to_string();
    let deadline = Instant::now() + SOON;
    loop {
        let answer = client.post(url).body(start.clone()).send().await.unwrap();
        match answer.status().as_u16() {
            202 => break,
            // The definition has not reached the shard yet.
            422 if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
    }
    loop {
        let answer = client.get(format!("{url}/t-1")).send().await.unwrap();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let status = body["status"].as_str().unwrap();
        if ["committed", "aborted", "compensated", "stuck"].contains(&status) {
            return status.to_owned();
        }
        assert!(Instant::now() < deadline, "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn by_default_a_late_message_delays_and_splits_nobody() {
    let (end, done, alone) = transfer(&json!({}));
    let committed = vec![Operation::Prepare, Operation::Commit];
    assert_eq!((end.as_str(), alone), ("committed", 0));
    assert_eq!(done, [committed.clone(), committed]);
}

#[test]
fn who_decides_alone_is_split_by_one_late_message_and_the_transaction_is_stuck() {
    let assumed_ms = u64::try_from(ASSUMED.as_millis()).unwrap();
    let (end, done, alone) =
        transfer(&json!({"termination": "unilateral", "assumes_synchrony_ms": assumed_ms}));
    assert_eq!((end.as_str(), alone), ("stuck", 2));
    assert_eq!(done, [[Operation::Prepare, Operation::Commit], [Operation::Prepare, Operation::Abort]]);
}

//! What a command costs with each store of this crate, from the command topic to the inbox, on one broker of this machine:
//! `cargo run --release -p sagamore-participant --features sqlite --example store-figures`.
//!
//! A command adds to an account. Alone, the next one is sent when the reply to the last one has come; in a crowd, all of them
//! are there when the participant begins.

use std::num::NonZeroU16;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::store::kafka::{KafkaStore, Tx};
use sagamore_participant::store::sqlite::SqliteStore;
use sagamore_participant::store::sqlite::rusqlite::Transaction;
use sagamore_participant::{
    Command, Effect, Fault, Handle, KafkaOnly, KafkaOnlySettings, Operation, Participant, Payload, Runtime,
    Settings,
};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{Address, PayloadRef};
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SHARDS: u16 = 4;
const ALONE: usize = 200;
const CROWD: usize = 60_000;
const ACCOUNTS: usize = 5_000;
const PATIENCE: Duration = Duration::from_mins(5);

fn main() -> Result<(), Failure> {
    let kafka = LocalKafka::start(ClusterSize::One)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("participant.sqlite");
    println!("| store | alone, p50 / p99 | in a crowd, commands/s |");
    println!("|---|---|---|");
    let bench = Bench::new(kafka.bootstrap(), "memory")?;
    bench.row("memory", |settings| {
        Ok(Runtime::spawn(
            InMemory,
            MemoryStore::new(Table::default()),
            &Settings::new(settings.clients, settings.prefix, name()?),
        )?)
    })?;
    let bench = Bench::new(kafka.bootstrap(), "sqlite")?;
    bench.row("SQLite", |settings| {
        let store = SqliteStore::open(&file, |tx| {
            tx.execute_batch("CREATE TABLE IF NOT EXISTS accounts (account TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT")
        })?;
        Ok(Runtime::spawn(InSqlite, store, &Settings::new(settings.clients, settings.prefix, name()?))?)
    })?;
    let bench = Bench::new(kafka.bootstrap(), "kafka-only")?;
    bench.row("nothing but Kafka", |settings| Ok(KafkaOnly::spawn(OnKafka, &settings)?))?;
    Ok(())
}

fn name() -> Result<Name, Failure> {
    Ok("bank".parse()?)
}

fn account(command: &Command<'_>) -> Result<String, Fault> {
    Ok(serde_json::from_str(command.data.json().unwrap_or_default())?)
}

struct InMemory;

impl Participant for InMemory {
    type Store = MemoryStore<Table<String, i64>>;

    fn execute(&self, accounts: &mut Table<String, i64>, command: &Command<'_>) -> Result<Effect, Fault> {
        let account = account(command)?;
        let cents = accounts.get(&account).copied().unwrap_or_default() + 1;
        accounts.put(account, cents);
        Effect::done(&cents)
    }

    fn compensate(&self, _: &mut Table<String, i64>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Err(Fault::new("it is not measured"))
    }
}

struct InSqlite;

impl Participant for InSqlite {
    type Store = SqliteStore;

    fn execute(&self, tx: &mut Transaction<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let sql = "INSERT INTO accounts (account, cents) VALUES (?1, 1)
                   ON CONFLICT DO UPDATE SET cents = cents + 1 RETURNING cents";
        let cents: i64 = tx.prepare_cached(sql)?.query_row([account(command)?], |row| row.get(0))?;
        Effect::done(&cents)
    }

    fn compensate(&self, _: &mut Transaction<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Err(Fault::new("it is not measured"))
    }
}

struct OnKafka;

impl Participant for OnKafka {
    type Store = KafkaStore;

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let account = account(command)?;
        let cents = tx.read::<i64>(&account)?.unwrap_or_default() + 1;
        tx.write(&account, &cents)?;
        Effect::done(&cents)
    }

    fn compensate(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Err(Fault::new("it is not measured"))
    }
}

/// The other side of the wire.
struct Bench {
    settings: ClientSettings,
    prefix: Prefix,
    producer: ThreadedProducer<DefaultProducerContext>,
    inbox: BaseConsumer,
}

impl Bench {
    fn new(bootstrap: &str, prefix: &str) -> Result<Self, Failure> {
        let settings = ClientSettings::new(bootstrap);
        let prefix: Prefix = prefix.parse()?;
        let partitions = NonZeroU16::new(SHARDS).ok_or("no shards")?;
        let layout = Layout { prefix: prefix.clone(), partitions, replication: NonZeroU16::MIN };
        apply(&settings, &layout)?;
        ensure_command_topics(&settings, &layout, &[name()?])?;
        let producer = settings.client_producer("figures").create()?;
        let inbox: BaseConsumer = settings.replay_consumer(Isolation::ReadCommitted).create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::from(SHARDS) {
            all.add_partition_offset(&Topic::Inbox.name(&prefix), partition, Offset::Beginning)?;
        }
        inbox.assign(&all)?;
        Ok(Self { settings, prefix, producer, inbox })
    }

    fn row(
        &self,
        what: &str,
        spawn: impl Fn(KafkaOnlySettings) -> Result<Handle, Failure>,
    ) -> Result<(), Failure> {
        let mut settings = KafkaOnlySettings::new(self.settings.clone(), self.prefix.clone(), name()?);
        (settings.replication, settings.is_development) = (NonZeroU16::MIN, true);
        for number in 0..CROWD {
            self.send(number)?;
        }
        self.producer.flush(PATIENCE)?;
        let handle = spawn(settings)?;
        let begun = Instant::now();
        while handle.counters().delivered == 0 {
            patient(begun)?;
        }
        let (first, begun) = (handle.counters().delivered, Instant::now());
        while handle.counters().delivered < CROWD as u64 {
            patient(begun)?;
        }
        let per_second = (CROWD as u64 - first) * 1_000 / u64::try_from(begun.elapsed().as_millis())?.max(1);
        for _ in 0..CROWD {
            self.reply()?;
        }
        let mut times = Vec::with_capacity(ALONE);
        for number in CROWD..CROWD + ALONE {
            let begun = Instant::now();
            self.send(number)?;
            self.reply()?;
            times.push(begun.elapsed());
        }
        times.sort();
        let ms = |nth: usize| times[nth].as_secs_f64() * 1_000.0;
        println!("| {what} | {:.1} ms / {:.1} ms | {per_second} |", ms(ALONE / 2), ms(ALONE * 99 / 100));
        handle.stop();
        handle.join()?;
        Ok(())
    }

    fn send(&self, number: usize) -> Result<(), Failure> {
        let (subject, account) = (format!("order-{number}"), format!("account-{}", number % ACCOUNTS));
        let home = partition_of(subject.as_bytes(), i32::from(SHARDS)).0;
        let data = serde_json::value::to_raw_value(&account)?;
        let command = Command {
            address: Address {
                subject: subject.parse()?,
                birth: format!("{home}-{number}").parse()?,
                step: "charge".into(),
                branch: "bank".into(),
                operation: Operation::Execute,
                attempt: 1,
            },
            instance: Uuid::nil(),
            issued: Time::from_epoch_ms(i64::try_from(number)?),
            watermark: Time::from_epoch_ms(i64::try_from(number)? - 20_000),
            deadline: Time::MAX,
            definition: "order@1".into(),
            replyto: format!("{}/{home}", Topic::Inbox.name(&self.prefix)).into(),
            traceparent: None,
            replytoken: None,
            unilateral_after: None,
            data: PayloadRef::Json(&data),
        };
        let (topic, value) = (command_topic(&self.prefix, &name()?), command.to_json());
        let partition = partition_of(account.as_bytes(), i32::from(SHARDS)).0;
        let mut record = BaseRecord::to(&topic).partition(partition).key(account.as_bytes()).payload(&value);
        while let Err((failure, refused)) = self.producer.send(record) {
            if failure.rdkafka_error_code() != Some(rdkafka::error::RDKafkaErrorCode::QueueFull) {
                return Err(failure.into());
            }
            record = refused;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn reply(&self) -> Result<(), KafkaError> {
        loop {
            if let Some(polled) = self.inbox.poll(PATIENCE) {
                return polled.map(drop);
            }
        }
    }
}

fn patient(begun: Instant) -> Result<(), Failure> {
    if begun.elapsed() > PATIENCE {
        return Err("the participant does not get on".into());
    }
    thread::sleep(Duration::from_millis(1));
    Ok(())
}

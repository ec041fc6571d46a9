//! A database, topics under a prefix of their own, and looks at both.

use std::num::NonZeroU16;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_local_postgres::LocalPostgres;
use sagamore_outbox::schema::migrate;
use sagamore_outbox::{Handle, Relay, Settings};
use sagamore_participant_postgres::{Connection, SqlError, connector};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use tokio_postgres::{NoTls, Row};

static KAFKA: LazyLock<LocalKafka> =
    LazyLock::new(|| LocalKafka::start(ClusterSize::One).unwrap_or_else(|error| panic!("{error}")));
const PATIENCE: Duration = Duration::from_secs(40);
const SHARDS: u16 = 3;

pub(crate) struct Site {
    pub(crate) database: LocalPostgres,
    clients: ClientSettings,
    prefix: Prefix,
    producer: BaseProducer,
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    /// The header of that name.
    pub(crate) id: Option<String>,
}

impl Site {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let database = LocalPostgres::start(&[("fsync", "off")]).unwrap_or_else(|error| panic!("{error}"));
        let clients = ClientSettings::new(KAFKA.bootstrap());
        let prefix: Prefix = format!("site{}", NEXT.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
        let site =
            Self { producer: clients.client_producer("test").create().unwrap(), database, clients, prefix };
        apply(&site.clients, &site.layout()).unwrap();
        let mut connection = site.connect().unwrap();
        migrate(&mut connection, &"sagamore".parse().unwrap()).unwrap();
        site
    }

    fn layout(&self) -> Layout {
        Layout {
            prefix: self.prefix.clone(),
            partitions: NonZeroU16::new(SHARDS).unwrap(),
            replication: NonZeroU16::MIN,
        }
    }

    pub(crate) fn relay(&self, participants: &[&str], change: impl FnOnce(&mut Settings)) -> Handle {
        let mut settings = Settings::new(self.database.url().parse().unwrap(), self.clients.clone());
        settings.prefix = self.prefix.clone();
        settings.participants = participants.iter().map(|name| name.parse().unwrap()).collect();
        change(&mut settings);
        Relay::spawn(settings).unwrap()
    }

    pub(crate) fn inbox(&self) -> String {
        Topic::Inbox.name(&self.prefix)
    }

    pub(crate) fn home(id: &str) -> i32 {
        partition_of(id.as_bytes(), i32::from(SHARDS)).0
    }

    fn connect(&self) -> Result<Connection, SqlError> {
        Connection::open(&connector(NoTls), &self.database.url().parse().unwrap(), PATIENCE)
    }

    pub(crate) fn sql(&mut self, text: &str) {
        self.try_sql(text).unwrap();
    }

    pub(crate) fn try_sql(&mut self, text: &str) -> Result<(), SqlError> {
        self.connect()?.batch(text)
    }

    fn rows(&self, text: &str) -> Vec<Row> {
        self.connect().unwrap().wait(async |client| client.query(text, &[]).await).unwrap()
    }

    pub(crate) fn number(&self, text: &str) -> i64 {
        self.rows(text)[0].get(0)
    }

    pub(crate) fn texts(&self, text: &str) -> Vec<String> {
        self.rows(text).iter().map(|row| row.get(0)).collect()
    }

    pub(crate) fn topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.clients.admin().create().unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
        created[0].as_ref().unwrap();
    }

    pub(crate) fn command_topic(&self, participant: &str) {
        ensure_command_topics(&self.clients, &self.layout(), &[participant.parse().unwrap()]).unwrap();
    }

    /// The command that its coordinator would send; times are of one day.
    pub(crate) fn command(
        &self,
        participant: &str,
        subject: &str,
        birth: i64,
        operation: &str,
        issued: &str,
        watermark: &str,
    ) {
        let home = Self::home(subject);
        let inbox = self.inbox();
        self.send(participant, subject, &format!(
            r#"{{"specversion":"1.0","type":"sagamore.command.v1","id":"i","source":"/sagamore","subject":"{subject}",
            "birth":"{home}-{birth}","step":"s","branch":"b","operation":"{operation}","attempt":1,"definition":"d@1",
            "instance":"00000000-0000-0000-0000-000000000000","replyto":"{inbox}/{home}",
            "issued":"2026-11-22T{issued}Z","watermark":"2026-11-22T{watermark}Z","deadline":"2026-11-22T17:00:00Z"}}"#
        ));
    }

    pub(crate) fn verdict(&self, participant: &str, subject: &str, birth: i64, decision: &str) {
        let home = Self::home(subject);
        self.send(participant, subject, &format!(
            r#"{{"specversion":"1.0","type":"sagamore.decision.v1","id":"i","source":"/sagamore","subject":"{subject}",
            "birth":"{home}-{birth}","step":"s","branch":"b","participant":"{participant}","decision":"{decision}",
            "instance":"00000000-0000-0000-0000-000000000000"}}"#
        ));
    }

    fn send(&self, participant: &str, key: &str, value: &str) {
        let topic = command_topic(&self.prefix, &participant.parse().unwrap());
        self.producer.send(BaseRecord::to(&topic).key(key).payload(value)).unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }

    /// So many records of a topic, in the order of each partition; no more within a moment.
    pub(crate) fn read(&self, topic: &str, count: usize) -> Vec<Seen> {
        let consumer: BaseConsumer = self.clients.replay_consumer(Isolation::ReadCommitted).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut places = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            places.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&places).unwrap();
        let (begun, mut seen) = (Instant::now(), Vec::new());
        loop {
            let Some(message) = consumer.poll(Duration::from_millis(200)) else {
                if seen.len() >= count {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{count} records of {topic}, not {seen:?}");
                continue;
            };
            let message = message.unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let id = message.headers().and_then(|headers| {
                headers.iter().find(|header| header.key == "id").and_then(|header| header.value.map(text))
            });
            seen.push(Seen {
                partition: message.partition(),
                key: message.key().map(text).unwrap_or_default(),
                value: message.payload().map(text),
                id,
            });
        }
        assert_eq!(seen.len(), count, "{topic}: {seen:?}");
        seen
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! The other side of the wire, and strangers who read the participant's topics.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_participant::{Command, Handle, KafkaOnly, KafkaOnlySettings, Operation, Payload};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::topics::{KafkaOnlyTopic, Prefix, Topic, command_topic};
use sagamore_schemas::wire::{Address, Decided, Input, Inquiry, Verdict, read_input};
use uuid::Uuid;

use crate::purse::Purse;

pub const SOON: Duration = Duration::from_secs(90);
pub const SHARDS: u16 = 2;

static KAFKA: LazyLock<Option<LocalKafka>> = LazyLock::new(|| match LocalKafka::start(ClusterSize::One) {
    Ok(kafka) => Some(kafka),
    Err(missing) => {
        eprintln!("skipped: {missing}");
        None
    }
});

pub struct Coordinator {
    pub settings: ClientSettings,
    pub prefix: Prefix,
    producer: ThreadedProducer<DefaultProducerContext>,
    inbox: Reader,
}

impl Coordinator {
    /// With topics of its own; none where there is no JDK.
    pub fn new(prefix: &str) -> Option<Self> {
        let settings = ClientSettings::new(KAFKA.as_ref()?.bootstrap());
        let prefix: Prefix = prefix.parse().unwrap();
        let partitions = NonZeroU16::new(SHARDS).unwrap();
        let layout = Layout { prefix: prefix.clone(), partitions, replication: NonZeroU16::MIN };
        apply(&settings, &layout).unwrap();
        ensure_command_topics(&settings, &layout, &[purse()]).unwrap();
        let producer = settings.client_producer("test").create().unwrap();
        let inbox = Reader::new(&settings, &Topic::Inbox.name(&prefix));
        Some(Self { settings, prefix, producer, inbox })
    }

    pub fn settings(&self) -> KafkaOnlySettings {
        let mut settings = KafkaOnlySettings::new(self.settings.clone(), self.prefix.clone(), purse());
        (settings.replication, settings.is_development) = (NonZeroU16::MIN, true);
        settings.asks_after = Duration::from_millis(500);
        settings
    }

    pub fn spawn(&self) -> Handle {
        KafkaOnly::spawn(Purse::new(self.events()), &self.settings()).unwrap()
    }

    /// A topic that is not Sagamore's: any will do.
    pub fn events(&self) -> String {
        format!("events-of-{}", self.prefix)
    }

    pub fn topic(&self, topic: KafkaOnlyTopic) -> String {
        topic.name(&self.prefix, &purse())
    }

    /// `owner` is what the record goes by, `operation=told`.
    pub fn send(&self, subject: &str, owner: &str, text: &str) {
        let (operation, told) = text.split_once('=').unwrap_or((text, "1"));
        let home = partition_of(subject.as_bytes(), i32::from(SHARDS)).0;
        let data = Payload::from_json(format!(r#"{{"owner":"{owner}","points":{told}}}"#)).unwrap();
        let command = Command {
            address: Address {
                subject: subject.parse().unwrap(),
                birth: format!("{home}-7").parse().unwrap(),
                step: "s".into(),
                branch: "purse".into(),
                operation: Operation::ALL.into_iter().find(|known| known.as_str() == operation).unwrap(),
                attempt: 1,
            },
            instance: Uuid::nil(),
            issued: Time::from_epoch_ms(10),
            watermark: Time::from_epoch_ms(1),
            deadline: Time::MAX,
            definition: "d@1".into(),
            replyto: format!("{}/{home}", Topic::Inbox.name(&self.prefix)).into(),
            traceparent: None,
            replytoken: Some("token".into()),
            unilateral_after: None,
            data: data.as_ref(),
        };
        self.send_raw(owner, &command.to_json());
    }

    pub fn send_raw(&self, key: &str, value: &[u8]) {
        let topic = command_topic(&self.prefix, &purse());
        let partition = partition_of(key.as_bytes(), i32::from(SHARDS)).0;
        self.producer.send(BaseRecord::to(&topic).partition(partition).key(key).payload(value)).unwrap();
    }

    /// The next replies by transaction, in their order; every one as often as it comes. Inquiries are answered.
    pub fn replies(&mut self, count: usize, verdict: Option<Decided>) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let begun = Instant::now();
        while told.values().map(Vec::len).sum::<usize>() < count {
            assert!(begun.elapsed() < SOON, "of {count} replies some are missing, after {told:?}");
            self.look(verdict, &mut told);
        }
        told
    }

    /// What has come to the inbox by now.
    pub fn look(&mut self, verdict: Option<Decided>, told: &mut BTreeMap<String, Vec<String>>) {
        for seen in self.inbox.read() {
            match read_input(seen.value.as_deref()).unwrap() {
                Input::Reply(reply) => {
                    assert_eq!(seen.key, reply.address.subject.as_str().as_bytes());
                    assert_eq!(reply.replytoken.as_deref(), Some("token"));
                    let reason = reply.reason.as_deref().map(|text| format!(" {text}")).unwrap_or_default();
                    let line = format!("{} {}{reason}", reply.address.operation, reply.outcome.as_str());
                    told.entry(reply.address.subject.to_string()).or_default().push(line);
                }
                Input::Inquiry(inquiry) => self.answer(inquiry, verdict.expect("nobody is in doubt")),
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&self, inquiry: Inquiry<'_>, decision: Decided) {
        let verdict = Verdict { inquiry, decision, heuristic: None };
        // To where commands for that branch go, which this coordinator knows to be the subject's.
        let key = verdict.inquiry.subject.as_str().to_owned();
        self.send_raw(&key, &verdict.to_json());
    }

    /// The table, as a stranger reads it.
    pub fn table(&self) -> BTreeMap<String, i64> {
        let mut rows = BTreeMap::new();
        for seen in Reader::new(&self.settings, &self.topic(KafkaOnlyTopic::Table)).read_to_end() {
            let key = String::from_utf8(seen.key).unwrap();
            assert!(seen.value.is_none() || !key.starts_with('\0'), "{key:?} deletes nothing");
            match seen.value {
                Some(value) => rows.insert(key, serde_json::from_slice(&value).unwrap()),
                None => rows.remove(&key),
            };
        }
        rows
    }

    /// What was emitted: `subject change`, and the id of each.
    pub fn emitted(&self) -> Vec<(String, String)> {
        let seen = Reader::new(&self.settings, &self.events()).read_to_end();
        seen.into_iter()
            .map(|seen| {
                (String::from_utf8(seen.value.unwrap()).unwrap(), seen.headers["sagamore-id"].clone())
            })
            .collect()
    }

    /// All of a topic's records that are committed.
    pub fn records(&self, topic: KafkaOnlyTopic) -> Vec<Seen> {
        Reader::new(&self.settings, &self.topic(topic)).read_to_end()
    }

    /// A producer that takes a partition away from its owner, as another process would.
    pub fn usurper(&self, partition: i32) -> BaseProducer {
        let id = format!("{}-purse-{partition}", self.prefix);
        let producer: BaseProducer = self.settings.participant_transactions(&id).create().unwrap();
        producer.init_transactions(SOON).unwrap();
        producer
    }
}

/// A committed record.
#[derive(Debug, Clone)]
pub struct Seen {
    pub partition: i32,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
}

struct Reader {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Reader {
    fn new(settings: &ClientSettings, topic: &str) -> Self {
        let consumer: BaseConsumer = settings.replay_consumer(Isolation::ReadCommitted).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
        let partitions = i32::try_from(metadata.topics()[0].partitions().len()).unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        Self { consumer, topic: topic.to_owned(), partitions }
    }

    /// What is there by now.
    fn read(&self) -> Vec<Seen> {
        let (mut seen, mut patience) = (Vec::new(), Duration::from_millis(200));
        while let Some(polled) = self.consumer.poll(patience) {
            let Ok(message) = polled else { continue };
            let headers = message.headers().map(|headers| {
                let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                    (header.key.to_owned(), value)
                };
                headers.iter().map(pair).collect()
            });
            seen.push(Seen {
                partition: message.partition(),
                key: message.key().unwrap_or_default().to_vec(),
                value: message.payload().map(<[u8]>::to_vec),
                headers: headers.unwrap_or_default(),
            });
            patience = Duration::ZERO;
        }
        seen
    }

    /// Up to the last stable offsets of now.
    fn read_to_end(&self) -> Vec<Seen> {
        let ends: Vec<i64> = (0..self.partitions)
            .map(|partition| {
                let (low, high) = self.consumer.fetch_watermarks(&self.topic, partition, SOON).unwrap();
                if low == high { 0 } else { high }
            })
            .collect();
        let (begun, mut seen) = (Instant::now(), Vec::new());
        loop {
            seen.extend(self.read());
            let positions = self.consumer.position().unwrap();
            let is_over = (0..self.partitions).zip(&ends).all(|(partition, end)| {
                *end == 0
                    || positions.find_partition(&self.topic, partition).is_some_and(|element| {
                        element.offset().to_raw().is_some_and(|offset| offset >= *end - 1)
                    })
            });
            if is_over {
                seen.extend(self.read());
                return seen;
            }
            assert!(begun.elapsed() < SOON, "{} is not read to its end {ends:?}: {positions:?}", self.topic);
        }
    }
}

pub fn purse() -> Name {
    "purse".parse().unwrap()
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

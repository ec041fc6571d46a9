//! Commands in, effects once, replies out: on the embedded broker, and on a real Kafka where there is a JDK.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::{Command, Effect, Fault, Handle, Participant, Payload, Runtime, Settings};
use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{Address, Answer, Input, Operation, read_input};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);
const SHARDS: i32 = 4;

/// By transaction: the steps whose effect is there, in the order in which they were done.
type Done = Table<String, Vec<String>>;

#[derive(Default)]
struct Diary {
    /// How long each command takes.
    takes: Duration,
}

impl Participant for Diary {
    type Store = MemoryStore<Done>;

    fn before(&self, _: &Command<'_>) -> Result<(), Fault> {
        std::thread::sleep(self.takes);
        Ok(())
    }

    fn execute(&self, done: &mut Done, command: &Command<'_>) -> Result<Effect, Fault> {
        let subject = command.address.subject.to_string();
        let mut steps = done.get(&subject).cloned().unwrap_or_default();
        steps.push(command.address.step.to_string());
        done.put(subject, steps);
        Effect::done(&"done")
    }

    fn compensate(&self, done: &mut Done, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let subject = command.address.subject.to_string();
        let mut steps = done.get(&subject).cloned().unwrap_or_default();
        steps.retain(|step| step != command.address.step.as_ref());
        done.put(subject, steps);
        Ok(())
    }
}

#[test]
fn on_the_embedded_broker() {
    let broker = EmbeddedBroker::start().expect("starts");
    everything(|prefix| {
        let shards = NonZeroU16::new(4).expect("not 0");
        broker.create_all_topics(prefix, shards, &[participant()]).expect("topics");
        broker.client_settings().expect("settings")
    });
}

#[test]
fn without_room_nothing_is_taken_and_the_member_stays() {
    const COUNT: usize = 4;
    let broker = EmbeddedBroker::start().expect("starts");
    let prefix = Prefix::default();
    broker.create_all_topics(&prefix, NonZeroU16::new(4).expect("not 0"), &[participant()]).expect("topics");
    let coordinator = Coordinator::new(broker.client_settings().expect("settings"), prefix);
    // Longer than the runtime waits before it pauses its consumer.
    let diary = Diary { takes: Duration::from_millis(1_300) };
    let settings = Settings { in_flight_max: NonZeroUsize::MIN, ..coordinator.runtime(2) };
    let handle = Runtime::spawn(diary, MemoryStore::new(Done::default()), &settings).expect("spawned");
    for number in 0..COUNT {
        coordinator.send(&format!("t-{number}"), "execute", "s", 1);
    }
    wait_until("all are done", || {
        let counters = handle.counters();
        assert!(counters.in_flight <= 1, "{counters:?}");
        counters.delivered >= COUNT as u64
    });
    assert_eq!(coordinator.replies(COUNT).len(), COUNT);
    assert_eq!(handle.counters().effects, COUNT as u64);
}

#[test]
fn without_a_broker_it_keeps_trying_and_can_be_stopped() {
    let settings = Settings::new(ClientSettings::new("127.0.0.1:1"), Prefix::default(), participant());
    let handle =
        Runtime::spawn(Diary::default(), MemoryStore::new(Done::default()), &settings).expect("spawned");
    std::thread::sleep(Duration::from_millis(500));
    assert!(handle.is_running());
    let since = Instant::now();
    handle.stop();
    handle.join().expect("no panic");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn on_a_real_kafka() {
    let kafka = match LocalKafka::start(ClusterSize::One) {
        Ok(kafka) => kafka,
        Err(missing) => return eprintln!("skipped: {missing}"),
    };
    everything(|prefix| {
        let settings = ClientSettings::new(kafka.bootstrap());
        let partitions = NonZeroU16::new(4).expect("not 0");
        let layout = Layout { prefix: prefix.clone(), partitions, replication: NonZeroU16::MIN };
        apply(&settings, &layout).expect("topics");
        ensure_command_topics(&settings, &layout, &[participant()]).expect("command topic");
        settings
    });
}

fn everything(cluster: impl Fn(&Prefix) -> ClientSettings) {
    let coordinator = |prefix: &str| {
        let prefix: Prefix = prefix.parse().expect("a prefix");
        Coordinator::new(cluster(&prefix), prefix)
    };
    duplicates_and_garbage(&coordinator("first"));
    a_crash_before_the_commit(&coordinator("second"));
    order_within_a_key(&coordinator("third"));
    another_instance_comes_and_goes(&coordinator("fourth"));
}

fn duplicates_and_garbage(coordinator: &Coordinator) {
    let store = MemoryStore::new(Done::default());
    let handle = coordinator.spawn(&store, 1);
    coordinator.send_raw("t-1", b"\0garbage");
    coordinator.send_raw("t-1", b"");
    coordinator.send_to("t-1", "execute", "s", 1, "elsewhere/0");
    for (operation, attempt) in [("execute", 1), ("execute", 2), ("compensate", 1), ("execute", 3)] {
        coordinator.send("t-1", operation, "s", attempt);
    }
    coordinator.send("t-2", "compensate", "s", 1);
    coordinator.send("t-2", "execute", "s", 1);
    let told = coordinator.replies(6);
    assert_eq!(told["t-1"], ["s execute 1 ok", "s execute 2 ok", "s compensate 1 ok", "s execute 3 ok"]);
    assert_eq!(told["t-2"], ["s compensate 1 ok", "s execute 1 refused cancelled"]);
    handle.stop();
    let counters = handle.join().expect("no panic");
    assert_eq!((counters.effects, counters.repeated, counters.nothing), (2, 3, 1), "{counters:?}");
    assert_eq!((counters.undecodable, counters.misdirected), (2, 1), "{counters:?}");
    assert_eq!((counters.taken, counters.delivered, counters.in_flight), (9, 6, 0), "{counters:?}");

    let handle = coordinator.spawn(&store, 1);
    coordinator.send("t-3", "execute", "s", 1);
    assert_eq!(coordinator.replies(1)["t-3"], ["s execute 1 ok"]);
    assert_eq!(handle.counters().taken, 1, "what was finished was committed at the stop");
}

fn a_crash_before_the_commit(coordinator: &Coordinator) {
    let store = MemoryStore::new(Done::default());
    let never = Settings { commit_interval: Duration::MAX, ..coordinator.runtime(1) };
    let crashing = Runtime::spawn(Diary::default(), store.clone(), &never).expect("spawned");
    coordinator.send("t-1", "execute", "s", 1);
    let before = coordinator.replies(1);
    crashing.abandon();
    crashing.join().expect("no panic");

    let handle = coordinator.spawn(&store, 1);
    let again = coordinator.replies(1);
    assert_eq!(before, again, "the same answer");
    assert_eq!(store.read(|done| done.get(&"t-1".to_owned()).cloned()), Some(vec!["s".to_owned()]));
    assert_eq!((handle.counters().effects, handle.counters().repeated), (0, 1));
}

fn order_within_a_key(coordinator: &Coordinator) {
    const KEYS: usize = 50;
    const STEPS: usize = 40;
    let store = MemoryStore::new(Done::default());
    let handle = coordinator.spawn(&store, 4);
    for step in 0..STEPS {
        for key in 0..KEYS {
            coordinator.send(&format!("t-{key}"), "execute", &format!("s-{step}"), 1);
        }
    }
    let told = coordinator.replies(KEYS * STEPS);
    let steps: Vec<String> = (0..STEPS).map(|step| format!("s-{step}")).collect();
    let replies: Vec<String> = steps.iter().map(|step| format!("{step} execute 1 ok")).collect();
    assert_eq!(told.len(), KEYS);
    for key in told.keys() {
        assert_eq!(told[key], replies, "replies of {key}");
        assert_eq!(store.read(|done| done.get(key).cloned()), Some(steps.clone()), "effects of {key}");
    }
    handle.stop();
    assert_eq!(handle.join().expect("no panic").in_flight, 0);
}

fn another_instance_comes_and_goes(coordinator: &Coordinator) {
    const COUNT: usize = 3_000;
    let store = MemoryStore::new(Done::default());
    let first = coordinator.spawn(&store, 2);
    let mut second = None;
    for number in 0..COUNT {
        coordinator.send(&format!("t-{number}"), "execute", "s", 1);
        if number == 1_000 {
            second = Some(coordinator.spawn(&store, 1));
        }
    }
    let second = second.expect("spawned");
    let mut told = coordinator.replies(COUNT);
    wait_until("the second takes some", || {
        // Until it owns partitions: some transaction of these has its home there.
        for number in 0..8 {
            coordinator.send(&format!("more-{number}"), "execute", "s", 1);
        }
        second.counters().taken > 0
    });
    second.stop();
    second.join().expect("no panic");
    coordinator.send("last", "execute", "s", 1);
    wait_until("the first takes all again", || {
        told.append(&mut coordinator.replies(0));
        told.contains_key("last")
    });
    assert!(first.is_running());
    let twice: Vec<_> = store.read(|done| {
        done.iter().filter(|(_, steps)| steps.len() != 1).map(|(subject, _)| subject.clone()).collect()
    });
    assert_eq!(twice, [""; 0], "each once");
    assert!((0..COUNT).all(|number| told.contains_key(&format!("t-{number}"))));
}

/// What one participant does when it has nothing else to do. Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    const COUNT: usize = 100_000;
    let kafka = LocalKafka::start(ClusterSize::One).expect("starts");
    let settings = ClientSettings::new(kafka.bootstrap());
    let prefix = Prefix::default();
    let partitions = NonZeroU16::new(4).expect("not 0");
    let layout = Layout { prefix: prefix.clone(), partitions, replication: NonZeroU16::MIN };
    apply(&settings, &layout).expect("topics");
    ensure_command_topics(&settings, &layout, &[participant()]).expect("command topic");
    let coordinator = Coordinator::new(settings, prefix);
    for (round, workers) in [2, 1, 2, 1].into_iter().enumerate() {
        for number in 0..COUNT {
            coordinator.send(&format!("w{round}-{number}"), "execute", "s", 1);
        }
        coordinator.producer.flush(SOON).expect("sent");
        let since = Instant::now();
        let handle = coordinator.spawn(&MemoryStore::new(Done::default()), workers);
        wait_until("the first is taken", || handle.counters().taken > 0);
        let joined = since.elapsed();
        let since = Instant::now();
        wait_until("all are done", || handle.counters().delivered >= COUNT as u64);
        let per_second = COUNT as u128 * 1_000 / since.elapsed().as_millis();
        eprintln!("{workers} workers: {per_second} commands/s ({joined:?} to join)");
        coordinator.replies(COUNT);
        let mut times: Vec<Duration> = (0..300)
            .map(|number| {
                let since = Instant::now();
                coordinator.send(&format!("one{round}-{number}"), "execute", "s", 1);
                coordinator.replies(1);
                since.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("{workers} workers, one in flight: p50 {:?}, p99 {:?}", times[150], times[297]);
        handle.stop();
        handle.join().expect("no panic");
    }
}

/// The other side of the wire.
struct Coordinator {
    settings: ClientSettings,
    prefix: Prefix,
    producer: ThreadedProducer<DefaultProducerContext>,
    inbox: BaseConsumer,
}

impl Coordinator {
    fn new(settings: ClientSettings, prefix: Prefix) -> Self {
        let producer = settings.client_producer("test").create().expect("a producer");
        let inbox: BaseConsumer =
            settings.replay_consumer(Isolation::ReadCommitted).create().expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..SHARDS {
            partitions
                .add_partition_offset(&Topic::Inbox.name(&prefix), partition, Offset::Beginning)
                .expect("an offset");
        }
        inbox.assign(&partitions).expect("assigned");
        Self { settings, prefix, producer, inbox }
    }

    fn spawn(&self, store: &MemoryStore<Done>, workers: usize) -> Handle {
        Runtime::spawn(Diary::default(), store.clone(), &self.runtime(workers)).expect("spawned")
    }

    fn runtime(&self, workers: usize) -> Settings {
        let mut settings = Settings::new(self.settings.clone(), self.prefix.clone(), participant());
        settings.workers = NonZeroUsize::new(workers).expect("not 0");
        settings
    }

    fn send(&self, subject: &str, operation: &str, step: &str, attempt: u32) {
        let home = home(subject);
        let replyto = format!("{}/{home}", Topic::Inbox.name(&self.prefix));
        self.send_to(subject, operation, step, attempt, &replyto);
    }

    fn send_to(&self, subject: &str, operation: &str, step: &str, attempt: u32, replyto: &str) {
        let command = Command {
            address: Address {
                subject: subject.parse().expect("an id"),
                birth: format!("{}-7", home(subject)).parse().expect("a birth"),
                step: step.into(),
                branch: "diary".into(),
                operation: Operation::ALL.into_iter().find(|o| o.as_str() == operation).expect("known"),
                attempt,
            },
            instance: Uuid::nil(),
            issued: Time::from_epoch_ms(10),
            watermark: Time::from_epoch_ms(1),
            deadline: Time::MAX,
            definition: "d@1".into(),
            replyto: replyto.into(),
            traceparent: None,
            replytoken: Some("token".into()),
            unilateral_after: None,
            data: sagamore_schemas::wire::PayloadRef::Absent,
        };
        self.send_raw(subject, &command.to_json());
    }

    fn send_raw(&self, key: &str, value: &[u8]) {
        let topic = command_topic(&self.prefix, &participant());
        let mut record = BaseRecord::to(&topic).partition(home(key)).key(key).payload(value);
        while let Err((_, refused)) = self.producer.send(record) {
            std::thread::sleep(Duration::from_millis(1));
            record = refused;
        }
    }

    /// By transaction, the next `count` replies in their order, as `step operation attempt outcome reason`.
    fn replies(&self, count: usize) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let deadline = Instant::now() + SOON;
        let mut left = count;
        let patience = if count == 0 { Duration::from_millis(50) } else { Duration::from_millis(500) };
        while left > 0 || count == 0 {
            assert!(Instant::now() < deadline, "{left} of {count} replies are missing, after {told:?}");
            let Some(polled) = self.inbox.poll(patience) else {
                if count == 0 {
                    break;
                }
                continue;
            };
            let Ok(message) = polled else { continue };
            let Ok(Input::Reply(reply)) = read_input(message.payload()) else { panic!("not a reply") };
            let Address { subject, step, operation, attempt, .. } = &reply.address;
            assert_eq!(message.key(), Some(subject.as_str().as_bytes()));
            assert_eq!(message.partition(), home(subject.as_str()));
            assert_eq!(message.headers().map(|headers| headers.get(0).key), Some("content-type"));
            assert_eq!((reply.source.as_ref(), reply.replytoken.as_deref()), ("/diary", Some("token")));
            if reply.outcome == Answer::Ok && *operation == Operation::Execute {
                assert_eq!(reply.data.json(), Some("\"done\""));
            }
            let reason = reply.reason.as_deref().map(|reason| format!(" {reason}")).unwrap_or_default();
            let line = format!("{step} {operation} {attempt} {}{reason}", reply.outcome.as_str());
            told.entry(subject.to_string()).or_default().push(line);
            left = left.saturating_sub(1);
        }
        told
    }
}

fn participant() -> Name {
    "diary".parse().expect("a name")
}

fn home(subject: &str) -> i32 {
    sagamore_schemas::home::partition_of(subject.as_bytes(), SHARDS).0
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

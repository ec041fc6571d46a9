//! A branch that has voted and hears nothing asks, also after its process was killed, and does what the verdict says.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU16;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::{Command, Effect, Fault, Handle, Participant, Payload, Runtime, Settings};
use sagamore_schemas::ids::{Name, Span, Time};
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{Address, Decided, Input, Inquiry, Operation, PayloadRef, Verdict, read_input};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);
const OFTEN: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_hours(1);
const HOME: i32 = 2;

/// By transaction: every operation whose effect is there.
type Done = Table<String, Vec<Operation>>;

struct Diary;

impl Diary {
    fn note(done: &mut Done, command: &Command<'_>) {
        let subject = command.address.subject.to_string();
        let mut operations = done.get(&subject).cloned().unwrap_or_default();
        operations.push(command.address.operation);
        done.put(subject, operations);
    }
}

impl Participant for Diary {
    type Store = MemoryStore<Done>;

    fn execute(&self, _: &mut Done, _: &Command<'_>) -> Result<Effect, Fault> {
        Ok(Effect::refused("it only votes"))
    }

    fn compensate(&self, _: &mut Done, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }

    fn prepare(&self, done: &mut Done, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::note(done, command);
        Effect::done(&"voted")
    }

    fn precommit(&self, done: &mut Done, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::note(done, command);
        Ok(())
    }

    fn commit(&self, done: &mut Done, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        assert_eq!(command.data.json(), Some(r#"{"input":{"seat":"A1"},"result":"voted"}"#));
        Self::note(done, command);
        Ok(())
    }

    fn abort(&self, done: &mut Done, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::note(done, command);
        Ok(())
    }
}

#[test]
fn on_the_embedded_broker() {
    let broker = EmbeddedBroker::start().unwrap();
    everything(|prefix| {
        broker.create_all_topics(prefix, NonZeroU16::new(4).unwrap(), &[diary()]).unwrap();
        broker.client_settings().unwrap()
    });
}

#[test]
fn on_a_real_kafka() {
    let kafka = match LocalKafka::start(ClusterSize::One) {
        Ok(kafka) => kafka,
        Err(missing) => return eprintln!("skipped: {missing}"),
    };
    everything(|prefix| {
        let settings = ClientSettings::new(kafka.bootstrap());
        let partitions = NonZeroU16::new(4).unwrap();
        let layout = Layout { prefix: prefix.clone(), partitions, replication: NonZeroU16::MIN };
        apply(&settings, &layout).unwrap();
        ensure_command_topics(&settings, &layout, &[diary()]).unwrap();
        settings
    });
}

fn everything(cluster: impl Fn(&Prefix) -> ClientSettings) {
    let coordinator = |prefix: &str| {
        let prefix: Prefix = prefix.parse().unwrap();
        Coordinator::new(cluster(&prefix), prefix)
    };
    a_killed_participant_asks_after_its_restart(&coordinator("first"));
    what_is_forgotten_is_told_and_nobody_guesses(&coordinator("second"));
    alone_decides_only_who_has_voted_here(&coordinator("third"));
}

/// A vote, and the process is gone before it hears what was decided.
fn killed_after_the_vote(coordinator: &Coordinator, store: &MemoryStore<Done>, subjects: &[&str]) {
    let first = coordinator.spawn(store, NEVER);
    for subject in subjects {
        coordinator.command(subject, Operation::Prepare);
        assert_eq!(coordinator.heard(), format!("{subject} prepare ok"));
    }
    assert_eq!(first.counters().inquiries, 0);
    first.abandon();
    first.join().unwrap();
}

fn a_killed_participant_asks_after_its_restart(coordinator: &Coordinator) {
    let store = MemoryStore::new(Done::default());
    killed_after_the_vote(coordinator, &store, &["t-1"]);
    let handle = coordinator.spawn(&store, OFTEN);
    coordinator.hears("t-1 asks");
    coordinator.verdict("t-1", Decided::Undecided);
    wait_until("the verdict has come", || handle.counters().undecided == 1);
    assert_eq!(done(&store, "t-1"), [Operation::Prepare]);
    coordinator.hears("t-1 asks");
    coordinator.verdict("t-1", Decided::Commit);
    coordinator.verdict("t-1", Decided::Commit);
    coordinator.verdict("t-1", Decided::Abort);
    wait_until("the last verdict has come", || handle.counters().contradicted == 1);
    let counters = handle.counters();
    assert_eq!((counters.settled, counters.effects), (1, 0), "{counters:?}");
    assert_eq!(done(&store, "t-1"), [Operation::Prepare, Operation::Commit]);
    coordinator.command("t-1", Operation::Commit);
    coordinator.hears("t-1 commit ok");
    wait_until("it is seen that nobody is in doubt", || handle.counters().in_doubt == 0);

    coordinator.command("t-2", Operation::Prepare);
    coordinator.hears("t-2 prepare ok");
    coordinator.hears("t-2 asks");
    coordinator.verdict("t-2", Decided::Abort);
    wait_until("it is told", || handle.counters().settled == 2);
    coordinator.command("t-2", Operation::Abort);
    coordinator.hears("t-2 abort ok");
    coordinator.command("t-2", Operation::Abort);
    coordinator.hears("t-2 abort ok");
    assert_eq!(done(&store, "t-2"), [Operation::Prepare, Operation::Abort], "one effect");
    let counters = handle.counters();
    assert_eq!((counters.undecodable, counters.misdirected, counters.forgotten), (0, 0, 0), "{counters:?}");
    handle.stop();
    let counters = handle.join().unwrap();
    assert_eq!(counters.in_flight, 0);
}

fn what_is_forgotten_is_told_and_nobody_guesses(coordinator: &Coordinator) {
    let store = MemoryStore::new(Done::default());
    killed_after_the_vote(coordinator, &store, &["t-1", "t-2", "t-3"]);
    let handle = coordinator.spawn(&store, OFTEN);
    for expected in ["t-1 asks", "t-2 asks", "t-3 asks"] {
        coordinator.hears(expected);
    }
    coordinator.verdict("t-1", Decided::Forgotten);
    wait_until("it is said", || handle.counters().forgotten == 1);
    let to_another = Inquiry { participant: "letter".parse().unwrap(), ..inquiry("t-2") };
    coordinator
        .send("t-2", &Verdict { inquiry: to_another, decision: Decided::Commit, heuristic: None }.to_json());
    wait_until("it is passed over", || handle.counters().misdirected == 1);
    let of_another_life = Inquiry { birth: "2-8".parse().unwrap(), ..inquiry("t-3") };
    coordinator.send(
        "t-3",
        &Verdict { inquiry: of_another_life, decision: Decided::Commit, heuristic: None }.to_json(),
    );
    coordinator.verdict("t-1", Decided::Undecided);
    wait_until("all is read", || handle.counters().undecided == 1);
    for subject in ["t-1", "t-2", "t-3"] {
        assert_eq!(done(&store, subject), [Operation::Prepare], "{subject} waits");
    }
    wait_until("three wait", || handle.counters().in_doubt == 3);
    // What a person has found out.
    coordinator.verdict("t-1", Decided::Abort);
    wait_until("it is told", || handle.counters().settled == 1);
    assert_eq!(done(&store, "t-1"), [Operation::Prepare, Operation::Abort]);
}

fn alone_decides_only_who_has_voted_here(coordinator: &Coordinator) {
    let coordinator = Coordinator { after: Some(Span::from_ms(1_500)), ..coordinator.again() };
    let store = MemoryStore::new(Done::default());
    // Gone before its time is up: it has decided nothing, and asks when it is back.
    let first = coordinator.spawn(&store, NEVER);
    coordinator.command("t-1", Operation::Prepare);
    coordinator.hears("t-1 prepare ok");
    first.abandon();
    assert_eq!(first.join().unwrap().alone, 0);

    let handle = coordinator.spawn(&store, NEVER);
    coordinator.command("t-1", Operation::Prepare);
    coordinator.command("t-2", Operation::Prepare);
    coordinator.command("t-3", Operation::Prepare);
    coordinator.command("t-3", Operation::Precommit);
    wait_until("two have decided", || handle.counters().alone == 2);
    assert_eq!(done(&store, "t-2"), [Operation::Prepare, Operation::Abort]);
    assert_eq!(done(&store, "t-3"), [Operation::Prepare, Operation::Precommit, Operation::Commit]);
    assert_eq!(done(&store, "t-1"), [Operation::Prepare], "it does not know what became of the others");
    coordinator.verdict("t-1", Decided::Commit);
    wait_until("it is told", || handle.counters().settled == 1);
    assert_eq!(handle.counters().alone, 2);
}

/// The branch of a transaction, as it asks.
fn inquiry(subject: &str) -> Inquiry<'static> {
    Inquiry {
        instance: Uuid::nil(),
        subject: subject.parse().unwrap(),
        birth: format!("{HOME}-7").parse().unwrap(),
        step: "seat".into(),
        branch: "diary".into(),
        participant: diary(),
    }
}

/// The other side of the wire.
struct Coordinator {
    settings: ClientSettings,
    prefix: Prefix,
    producer: ThreadedProducer<DefaultProducerContext>,
    inbox: BaseConsumer,
    /// What `prepare` and `precommit` carry.
    after: Option<Span>,
}

impl Coordinator {
    fn new(settings: ClientSettings, prefix: Prefix) -> Self {
        let producer = settings.client_producer("test").create().unwrap();
        let inbox: BaseConsumer = settings.replay_consumer(Isolation::ReadCommitted).create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(&Topic::Inbox.name(&prefix), HOME, Offset::Beginning).unwrap();
        inbox.assign(&partitions).unwrap();
        Self { settings, prefix, producer, inbox, after: None }
    }

    fn again(&self) -> Self {
        Self::new(self.settings.clone(), self.prefix.clone())
    }

    fn spawn(&self, store: &MemoryStore<Done>, asks_after: Duration) -> Handle {
        let settings = Settings::new(self.settings.clone(), self.prefix.clone(), diary());
        Runtime::spawn(Diary, store.clone(), &Settings { asks_after, ..settings }).unwrap()
    }

    fn command(&self, subject: &str, operation: Operation) {
        let data = Payload::from_json(r#"{"seat":"A1"}"#.into()).unwrap();
        let follows = Payload::from_json(r#"{"input":{"seat":"A1"},"result":"voted"}"#.into()).unwrap();
        let data: PayloadRef<'_> =
            if operation == Operation::Prepare { data.as_ref() } else { follows.as_ref() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let of = inquiry(subject);
        let command = Command {
            address: Address {
                subject: of.subject,
                birth: of.birth,
                step: of.step,
                branch: of.branch,
                operation,
                attempt: 1,
            },
            instance: of.instance,
            issued: Time::from_epoch_ms(i64::try_from(now).unwrap()),
            watermark: Time::from_epoch_ms(1),
            deadline: Time::MAX,
            definition: "d@1".into(),
            replyto: format!("{}/{HOME}", Topic::Inbox.name(&self.prefix)).into(),
            traceparent: None,
            replytoken: None,
            unilateral_after: self.after,
            data,
        };
        self.send(subject, &command.to_json());
    }

    fn verdict(&self, subject: &str, decision: Decided) {
        self.send(subject, &Verdict { inquiry: inquiry(subject), decision, heuristic: None }.to_json());
    }

    fn send(&self, key: &str, value: &[u8]) {
        let topic = command_topic(&self.prefix, &diary());
        let sent = self.producer.send(BaseRecord::to(&topic).partition(1).key(key).payload(value));
        sent.map_err(|(failure, _)| failure).unwrap();
        self.producer.flush(SOON).unwrap();
    }

    /// The next thing that comes to the inbox.
    fn heard(&self) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "nothing comes");
            let Some(Ok(message)) = self.inbox.poll(OFTEN) else { continue };
            return match read_input(message.payload()).unwrap() {
                Input::Reply(reply) => {
                    let Address { subject, operation, .. } = &reply.address;
                    format!("{subject} {operation} {}", reply.outcome.as_str())
                }
                Input::Inquiry(asked) => {
                    assert_eq!(message.key(), Some(asked.subject.as_str().as_bytes()));
                    assert_eq!(asked, inquiry(asked.subject.as_str()));
                    format!("{} asks", asked.subject)
                }
                _ => panic!("neither a reply nor an inquiry"),
            };
        }
    }

    /// Waits for it, and passes over what comes again at any time: inquiries, and the vote that a killed process had not
    /// finished.
    fn hears(&self, expected: &str) {
        loop {
            let heard = self.heard();
            if heard == expected {
                return;
            }
            let comes_again = heard.ends_with(" asks") || heard.ends_with(" prepare ok");
            assert!(comes_again, "{heard} instead of {expected}");
        }
    }
}

fn done(store: &MemoryStore<Done>, subject: &str) -> Vec<Operation> {
    store.read(|done| done.get(&subject.to_owned()).cloned().unwrap_or_default())
}

fn diary() -> Name {
    "diary".parse().unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

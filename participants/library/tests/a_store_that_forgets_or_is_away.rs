//! A store that has forgotten what it has answered ends its runtime; one that is away is waited for, in the way that was asked
//! for, and comes back without help.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::InDoubt;
use sagamore_participant::memory::{Cell, MemoryStore};
use sagamore_participant::store::memory::MemoryTransaction;
use sagamore_participant::store::{Position, Store, StoreFault};
use sagamore_participant::{
    Command, Effect, Fault, Forgotten, Handle, Participant, Payload, Runtime, RuntimeError, Settings,
    WhenAway,
};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{Input, read_input};

const SOON: Duration = Duration::from_secs(30);
const PARTITION: i32 = 1;
const HOME: i32 = 2;

/// Effects, counted.
type Count = CountState;

#[derive(Default)]
struct CountState(Cell<i64>);

impl sagamore_participant::store::memory::State for CountState {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn sagamore_participant::store::memory::Undo)) {
        visit(&mut self.0);
    }
}

/// A store in memory that outlives its runtime, keeps positions, and is away when it is told so.
#[derive(Clone)]
struct Shelf {
    memory: MemoryStore<Count>,
    positions: Arc<Mutex<BTreeMap<i32, i64>>>,
    is_away: Arc<AtomicBool>,
}

impl Shelf {
    fn new(positions: &[(i32, i64)]) -> Self {
        Self {
            memory: MemoryStore::new(Count::default()),
            positions: Arc::new(Mutex::new(positions.iter().copied().collect())),
            is_away: Arc::default(),
        }
    }

    fn position(&self) -> Option<i64> {
        self.positions.lock().unwrap().get(&PARTITION).copied()
    }

    fn there(&self) -> Result<(), StoreFault> {
        if self.is_away.load(Ordering::Relaxed) { Err(StoreFault::Away("told to".into())) } else { Ok(()) }
    }
}

impl Store for Shelf {
    type Session = ();
    type Business<'t> = Count;
    type Transaction<'t> = MemoryTransaction<'t, Count>;

    fn session(&self) -> Result<(), StoreFault> {
        self.there()
    }

    fn begin<'t>(&'t self, session: &'t mut ()) -> Result<MemoryTransaction<'t, Count>, StoreFault> {
        self.there()?;
        self.memory.begin(session)
    }

    fn in_doubt(&self, (): &mut (), _: Option<&Branch>, _: usize) -> Result<Vec<InDoubt>, StoreFault> {
        Ok(Vec::new())
    }

    const KEEPS_POSITIONS: bool = true;

    fn positions(&self, (): &mut (), _: &str) -> Result<BTreeMap<i32, i64>, StoreFault> {
        self.there()?;
        Ok(self.positions.lock().unwrap().clone())
    }

    fn keep_positions(&self, (): &mut (), _: &str, kept: &[Position]) -> Result<(), StoreFault> {
        self.there()?;
        let mut positions = self.positions.lock().unwrap();
        for Position { partition, offset } in kept {
            let known = positions.entry(*partition).or_default();
            *known = (*known).max(*offset);
        }
        Ok(())
    }

    fn forget_position(&self, (): &mut (), _: &str, partition: i32) -> Result<(), StoreFault> {
        self.positions.lock().unwrap().remove(&partition);
        Ok(())
    }
}

struct Counter;

impl Participant for Counter {
    type Store = Shelf;

    fn execute(&self, count: &mut Count, _: &Command<'_>) -> Result<Effect, Fault> {
        *count.0.change() += 1;
        Effect::done(&())
    }

    fn compensate(&self, _: &mut Count, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

struct Coordinator {
    _broker: EmbeddedBroker,
    clients: ClientSettings,
    producer: ThreadedProducer<DefaultProducerContext>,
    inbox: BaseConsumer,
}

impl Coordinator {
    fn new() -> Self {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_all_topics(&Prefix::default(), NonZeroU16::new(4).unwrap(), &[counter()]).unwrap();
        let clients = broker.client_settings().unwrap();
        let inbox: BaseConsumer = clients.replay_consumer(Isolation::ReadCommitted).create().unwrap();
        let mut place = TopicPartitionList::new();
        let topic = Topic::Inbox.name(&Prefix::default());
        place.add_partition_offset(&topic, HOME, Offset::Beginning).unwrap();
        inbox.assign(&place).unwrap();
        let producer = clients.client_producer("test").create().unwrap();
        Self { _broker: broker, clients, producer, inbox }
    }

    fn spawn(&self, store: &Shelf, when_away: WhenAway, workers: usize) -> Handle {
        let settings = Settings {
            when_away,
            workers: workers.try_into().unwrap(),
            commit_interval: Duration::from_millis(20),
            ..Settings::new(self.clients.clone(), Prefix::default(), counter())
        };
        Runtime::spawn(Counter, store.clone(), &settings).unwrap()
    }

    fn command(&self, subject: &str) {
        let command = format!(
            r#"{{"specversion":"1.0","type":"sagamore.command.v1","subject":"{subject}","birth":"{HOME}-1","step":"s",
            "branch":"b","operation":"execute","attempt":1,"definition":"d@1","replyto":"sagamore.inbox/{HOME}",
            "instance":"00000000-0000-0000-0000-000000000000","issued":"2026-11-22T16:00:00Z",
            "watermark":"2026-11-22T16:00:00Z","deadline":"2026-11-22T16:00:00Z"}}"#
        );
        let topic = command_topic(&Prefix::default(), &counter());
        let sent =
            self.producer.send(BaseRecord::to(&topic).partition(PARTITION).key(subject).payload(&command));
        sent.map_err(|(failure, _)| failure).unwrap();
        self.producer.flush(SOON).unwrap();
    }

    fn hears(&self, expected: &str) {
        assert_eq!(self.heard(), expected);
    }

    fn heard(&self) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "nothing is heard");
            let Some(Ok(message)) = self.inbox.poll(Duration::from_millis(100)) else { continue };
            let Input::Reply(reply) = read_input(message.payload()).unwrap() else { panic!("a reply") };
            return format!("{} {}", reply.address.subject, reply.outcome.as_str());
        }
    }
}

fn counter() -> Name {
    "counter".parse().unwrap()
}

fn until(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn forgotten(handle: Handle) -> Forgotten {
    until("it ends by itself", || !handle.is_running());
    match handle.join() {
        Err(RuntimeError::Forgotten(forgotten)) => *forgotten,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_is_behind_what_was_committed_ends_its_runtime() {
    let workers = 3;
    let coordinator = Coordinator::new();
    // What an earlier topic of that name had left: offsets begin anew, and the position with them.
    let store = Shelf::new(&[(PARTITION, 500)]);
    let handle = coordinator.spawn(&store, WhenAway::Error, workers);
    coordinator.command("a");
    coordinator.hears("a ok");
    until("the position follows", || store.position() == Some(1));

    // Restored under a running process.
    store.positions.lock().unwrap().clear();
    coordinator.command("b");
    let found = forgotten(handle);
    assert_eq!((found.partition, found.committed, found.known), (PARTITION, 1, 0));
    assert!(found.to_string().starts_with("SAG-101: "), "{found}");

    // Nor does it begin again, whether commands come or not, and answers nothing.
    let effects = store.memory.read(|count| *count.0.get());
    let again = forgotten(coordinator.spawn(&store, WhenAway::Error, workers));
    assert_eq!((again.committed, again.known, store.position()), (1, 0, None));
    coordinator.command("c");
    assert_eq!(forgotten(coordinator.spawn(&store, WhenAway::Error, workers)), again);
    assert_eq!(store.memory.read(|count| *count.0.get()), effects);

    // The right one: it goes on, with what was not committed once more.
    store.positions.lock().unwrap().insert(PARTITION, 1);
    let handle = coordinator.spawn(&store, WhenAway::Error, workers);
    // Its first answer may have left before the end.
    while coordinator.heard() != "c ok" {}
    until("all is kept", || store.position() == Some(3));
    handle.stop();
    let counters = handle.join().unwrap();
    // Another session than the first one's may have refused to do it in the first place.
    assert_eq!(counters.effects + counters.repeated, 2);
    assert_eq!(store.memory.read(|count| *count.0.get()), 3, "each once");
}

#[test]
fn while_the_store_is_away_the_answer_is_error_or_silence_and_it_comes_back_without_help() {
    let workers = 1;
    let coordinator = Coordinator::new();
    let store = Shelf::new(&[]);
    store.is_away.store(true, Ordering::Relaxed);
    let handle = coordinator.spawn(&store, WhenAway::Error, workers);
    coordinator.command("a");
    coordinator.hears("a error");
    store.is_away.store(false, Ordering::Relaxed);
    coordinator.command("a");
    coordinator.hears("a ok");
    until("positions are kept again", || store.position() == Some(2));
    handle.stop();
    handle.join().unwrap();

    let handle = coordinator.spawn(&store, WhenAway::Silence, workers);
    store.is_away.store(true, Ordering::Relaxed);
    coordinator.command("b");
    until("it keeps silent", || handle.counters().silent == 1);
    store.is_away.store(false, Ordering::Relaxed);
    coordinator.command("c");
    coordinator.hears("c ok");
    assert_eq!(handle.counters().failed, 0);
    handle.stop();
    handle.join().unwrap();
    assert_eq!(store.memory.read(|count| *count.0.get()), 2);
}

//! A participant that has nothing but Kafka, on a real one: effects and answers stand or fall together, whoever the owner
//! is and whatever he left half done. Skipped where there is no JDK.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod coordinator;
mod purse;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::ClientSettings;
use sagamore_participant::{Counters, RuntimeError};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::topics::{KafkaOnlyTopic, command_topic};
use sagamore_schemas::wire::Decided;

use coordinator::{Coordinator, SHARDS, SOON, wait_until};
use purse::{FAULT, NOWHERE};

fn create(settings: &ClientSettings, topic: &str, partitions: u16, more: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = settings.admin().create().unwrap();
    let mut new = NewTopic::new(topic, i32::from(partitions), TopicReplication::Fixed(1));
    for (key, value) in more {
        new = new.set(key, value);
    }
    let runtime = tokio_free(admin.create_topics([&new], &AdminOptions::new()));
    runtime.unwrap().into_iter().for_each(|made| drop(made.unwrap()));
    // Known to the brokers when it has leaders.
    let consumer: BaseConsumer = settings.admin().create().unwrap();
    wait_until("a new topic has leaders", || {
        let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
        let partitions = metadata.topics()[0].partitions();
        !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
    });
}

/// rdkafka's own thread does the work: all that is needed is to look again.
fn tokio_free<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stage(prefix: &str) -> Option<Coordinator> {
    let coordinator = Coordinator::new(prefix)?;
    create(&coordinator.settings, &coordinator.events(), 1, &[]);
    Some(coordinator)
}

fn ended(handle: sagamore_participant::Handle) -> Counters {
    handle.stop();
    handle.join().unwrap()
}

#[test]
fn each_command_is_done_once_and_told_once() {
    let Some(mut coordinator) = stage("once") else { return };
    let handle = coordinator.spawn();
    coordinator.send_raw("anna", b"\0garbage");
    coordinator.send_raw("anna", b"");
    for (subject, owner, text) in [
        ("t-1", "anna", "execute=5"),
        ("t-1", "anna", "execute=5"),
        ("t-2", "anna", "execute=-1"),
        ("t-3", "bert", "compensate=1"),
        ("t-3", "bert", "execute=1"),
        ("t-4", "carl", "execute=7"),
        ("t-4", "carl", "compensate"),
        ("t-5", "anna", &format!("execute={FAULT}")),
        ("t-6", "anna", "execute=2"),
    ] {
        coordinator.send(subject, owner, text);
    }
    let told = coordinator.replies(9, None);
    assert_eq!(told["t-1"], ["execute ok", "execute ok"]);
    assert_eq!(told["t-2"], ["execute refused less than nothing"]);
    assert_eq!(told["t-3"], ["compensate ok", "execute refused cancelled"]);
    assert_eq!(told["t-4"], ["execute ok", "compensate ok"]);
    assert_eq!(told["t-5"], ["execute error told to"]);
    assert_eq!(told["t-6"], ["execute ok"]);
    assert_eq!(coordinator.table(), BTreeMap::from([("anna".to_owned(), 7)]));
    let mut emitted: Vec<String> = coordinator.emitted().into_iter().map(|(told, _)| told).collect();
    emitted.sort();
    assert_eq!(emitted, ["t-1 +5", "t-4 +7", "t-4 -7", "t-6 +2"]);
    let counters = ended(handle);
    assert_eq!((counters.effects, counters.repeated, counters.refusals, counters.failed), (4, 2, 1, 1));
    assert_eq!((counters.undecodable, counters.delivered, counters.dropped), (2, 9, 0), "{counters:?}");
}

#[test]
fn whoever_comes_next_knows_everything_and_goes_on() {
    const COUNT: usize = 300;
    let Some(mut coordinator) = stage("next") else { return };
    let mut handle = coordinator.spawn();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..3 {
        for number in 0..COUNT {
            // The later rounds are duplicates.
            coordinator.send(&format!("t-{number}"), &format!("owner-{}", number % 7), "execute=1");
        }
        // In the middle of the work it is as if the process had died.
        wait_until("some are done", || handle.counters().batches > 0);
        handle.abandon();
        handle.join().unwrap();
        handle = coordinator.spawn();
    }
    while told.len() < COUNT || told.values().any(|lines| lines.len() < 3) {
        for (subject, lines) in coordinator.replies(1, None) {
            told.entry(subject).or_default().extend(lines);
        }
    }
    assert!(told.values().flatten().all(|line| line == "execute ok"), "{told:?}");
    assert_eq!(coordinator.table().values().sum::<i64>(), i64::try_from(COUNT).unwrap());
    let emitted = coordinator.emitted();
    assert_eq!(emitted.len(), COUNT);
    assert_eq!(emitted.iter().map(|(told, _)| told).collect::<BTreeSet<_>>().len(), COUNT);
    ended(handle);
}

/// A batch of which Kafka has committed only the first record; and one that was never committed.
#[test]
fn what_was_half_committed_is_completed_and_what_was_not_is_nothing() {
    let Some(mut coordinator) = stage("half") else { return };
    let handle = coordinator.spawn();
    coordinator.send("t-1", "anna", "execute=5");
    coordinator.replies(1, None);
    ended(handle);
    let partition = partition_of(b"anna", i32::from(SHARDS)).0;
    let memory = coordinator.topic(KafkaOnlyTopic::Memory);
    let of_anna = |seen: &coordinator::Seen| seen.partition == partition;
    let records = coordinator.records(KafkaOnlyTopic::Memory);
    let batch = records.iter().rfind(|seen| of_anna(seen) && seen.key == b"\0batch").unwrap();
    // The same work as another batch: `1 <position>` becomes `2 <position>`, and anna's 5 points 8.
    let mut half = batch.value.clone().unwrap();
    assert_eq!(half[4], b'1');
    half[4] = b'2';
    let place = half.windows(b"anna=\0\0\0\x015".len()).position(|part| part == b"anna=\0\0\0\x015").unwrap();
    half[place + 9] = b'8';
    let usurper = coordinator.usurper(partition);
    usurper.begin_transaction().unwrap();
    let record = BaseRecord::to(&memory).partition(partition).key(b"\0batch".as_slice()).payload(&half);
    usurper.send(record).map_err(|(error, _)| error).unwrap();
    usurper.commit_transaction(SOON).unwrap();
    // And of the next one something everywhere, of which nothing is committed.
    usurper.begin_transaction().unwrap();
    for topic in
        [&memory, &coordinator.topic(KafkaOnlyTopic::Table), &coordinator.topic(KafkaOnlyTopic::Replies)]
    {
        let record =
            BaseRecord::to(topic).partition(partition).key(b"anna".as_slice()).payload(b"999".as_slice());
        usurper.send(record).map_err(|(error, _)| error).unwrap();
    }
    usurper.flush(SOON).unwrap();
    assert_eq!(coordinator.table()["anna"], 5, "nobody has completed it yet");

    let handle = coordinator.spawn();
    let again = coordinator.replies(1, None);
    assert_eq!(again["t-1"], ["execute ok"], "the reply of the completed batch");
    assert_eq!(coordinator.table()["anna"], 8);
    let emitted = coordinator.emitted();
    assert_eq!(emitted.len(), 2);
    let place = |number: u32| format!("half-purse-{partition}/{number}/0");
    assert_eq!(emitted.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>(), [place(1), place(2)]);
    coordinator.send("t-2", "anna", "execute=1");
    assert_eq!(coordinator.replies(1, None)["t-2"], ["execute ok"]);
    assert_eq!(coordinator.table()["anna"], 9);
    ended(handle);
}

#[test]
fn an_owner_that_was_fenced_commits_nothing_and_takes_over_again() {
    let Some(mut coordinator) = stage("fenced") else { return };
    let handle = coordinator.spawn();
    coordinator.send("t-1", "anna", "execute=5");
    coordinator.replies(1, None);
    drop(coordinator.usurper(partition_of(b"anna", i32::from(SHARDS)).0));
    coordinator.send("t-2", "anna", "execute=6");
    wait_until("it has noticed", || handle.counters().dropped > 0);
    assert_eq!(coordinator.replies(1, None)["t-2"], ["execute ok"]);
    assert_eq!(coordinator.table()["anna"], 11);
    assert_eq!(coordinator.emitted().len(), 2);
    assert_eq!(ended(handle).effects, 2);
}

#[test]
fn a_record_that_no_topic_takes_is_told_to_its_command_alone() {
    let Some(mut coordinator) = stage("nowhere") else { return };
    for (subject, text) in
        [("t-1", "execute=1"), ("t-2", &*format!("execute={NOWHERE}")), ("t-3", "execute=3")]
    {
        coordinator.send(subject, "anna", text);
    }
    let handle = coordinator.spawn();
    let told = coordinator.replies(3, None);
    assert_eq!(
        (&*told["t-1"], &*told["t-3"]),
        (["execute ok".to_owned()].as_slice(), ["execute ok".to_owned()].as_slice())
    );
    assert!(told["t-2"][0].starts_with("execute error a record cannot be delivered"), "{told:?}");
    assert_eq!(coordinator.table()["anna"], 4);
    assert_eq!(coordinator.emitted().len(), 2);
    ended(handle);
}

#[test]
fn a_branch_in_doubt_asks_and_is_told() {
    let Some(mut coordinator) = stage("doubt") else { return };
    let handle = coordinator.spawn();
    coordinator.send("t-1", "t-1", "prepare=5");
    coordinator.send("t-2", "t-2", "prepare=5");
    assert_eq!(coordinator.replies(2, Some(Decided::Undecided)).len(), 2);
    assert!(coordinator.table().is_empty(), "a vote is no effect");
    // Another process asks, for what it has found in the memory.
    handle.abandon();
    handle.join().unwrap();
    let handle = coordinator.spawn();
    coordinator.send("t-2", "t-2", "abort=5");
    assert_eq!(coordinator.replies(1, Some(Decided::Commit))["t-2"], ["abort ok"]);
    wait_until("it is told", || {
        let mut told = BTreeMap::new();
        coordinator.look(Some(Decided::Commit), &mut told);
        assert!(told.is_empty(), "a verdict is not answered: {told:?}");
        handle.counters().settled == 1
    });
    assert_eq!(coordinator.table(), BTreeMap::from([("t-1".to_owned(), 5)]));
    ended(handle);
}

#[test]
fn topics_that_break_a_promise_are_refused() {
    for (prefix, partitions, policy, what) in [
        (
            "policy",
            SHARDS,
            "delete",
            "sagamore-unfit-policy.tables.purse cleanup.policy is delete, not compact",
        ),
        (
            "count",
            SHARDS + 1,
            "compact",
            "sagamore-unfit-count.tables.purse partitions is 3, not 2, as the command topic",
        ),
    ] {
        let Some(coordinator) = Coordinator::new(&format!("sagamore-unfit-{prefix}")) else { return };
        let table = coordinator.topic(KafkaOnlyTopic::Table);
        let more = [
            ("cleanup.policy", policy),
            ("max.message.bytes", "2097152"),
            ("delete.retention.ms", "86400000"),
        ];
        create(&coordinator.settings, &table, partitions, &more);
        let handle = coordinator.spawn();
        let Err(RuntimeError::Unfit(unfit)) = handle.join() else { panic!("{prefix} was taken") };
        assert!(unfit.to_string().contains(what), "{unfit}");
    }
    let Some(coordinator) = Coordinator::new("sagamore-unfit-copies") else { return };
    let mut settings = coordinator.settings();
    settings.is_development = false;
    let handle =
        sagamore_participant::KafkaOnly::spawn(purse::Purse::new(coordinator.events()), &settings).unwrap();
    let Err(RuntimeError::Unfit(unfit)) = handle.join() else { panic!("one copy was taken") };
    assert!(unfit.to_string().contains("replication is 1, not at least 3"), "{unfit}");
}

/// The group says that commands have been answered of which the memory knows nothing.
#[test]
fn a_memory_that_was_lost_is_not_papered_over() {
    let Some(mut coordinator) = stage("lost") else { return };
    let topic = command_topic(&coordinator.prefix, &coordinator::purse());
    let consumer: BaseConsumer =
        coordinator.settings.participant_partition_consumer("lost.purse").create().unwrap();
    let at = |offset| {
        let mut offsets = TopicPartitionList::new();
        for partition in 0..i32::from(SHARDS) {
            offsets.add_partition_offset(&topic, partition, offset).unwrap();
        }
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    };
    at(Offset::Offset(1));
    coordinator.send("t-1", "anna", "execute=5");
    let handle = coordinator.spawn();
    wait_until("both stand still", || handle.counters().dropped >= 2);
    assert_eq!(handle.counters().batches, 0);
    handle.abandon();
    handle.join().unwrap();
    assert!(coordinator.table().is_empty());
    at(Offset::Offset(0));
    let handle = coordinator.spawn();
    assert_eq!(coordinator.replies(1, None)["t-1"], ["execute ok"]);
    ended(handle);
}

#[test]
fn without_a_broker_it_keeps_trying_and_can_be_stopped() {
    let settings = sagamore_participant::KafkaOnlySettings::new(
        ClientSettings::new("127.0.0.1:1"),
        "nobody".parse().unwrap(),
        coordinator::purse(),
    );
    let handle =
        sagamore_participant::KafkaOnly::spawn(purse::Purse::new("events".into()), &settings).unwrap();
    assert!(handle.is_running());
    handle.stop();
    handle.join().unwrap();
}

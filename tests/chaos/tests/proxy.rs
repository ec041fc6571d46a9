//! The proxy before three real brokers: what passes is unchanged, and each fault happens, is counted, and does to a
//! client what it would do on a network.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, FutureProducer, FutureRecord, Producer, ThreadedProducer,
};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sagamore_chaos::proxy::{Action, Api, Ports, Proxy, Rule};
use sagamore_end_to_end::wait;
use sagamore_local_kafka::{ClusterSize, LocalKafka};

type Sender = ThreadedProducer<DefaultProducerContext>;

/// Longest wait for anything here; on an idle machine everything takes a second at most.
const SOON: Duration = Duration::from_mins(1);
/// Longer than anything takes by itself, on a busy machine too.
const DELAY: Duration = Duration::from_millis(400);
/// The error codes of a producer that is no longer the owner of its transactional id.
const FENCED: [i16; 2] = [47, 90];

/// Each belongs to one test. Made at once: a topic of its own would cost each test a second.
const TOPICS: [(&str, i32); 8] = [
    ("plain", 6),
    ("cost", 1),
    ("cut", 1),
    ("slow", 1),
    ("patient", 1),
    ("overtaken", 1),
    ("owners", 1),
    ("halves", 1),
];

/// For all tests: their clients and topics have names of their own.
static KAFKA: LazyLock<(LocalKafka, Proxy)> = LazyLock::new(|| {
    let begun = Instant::now();
    let both = Proxy::with_kafka(ClusterSize::Three).unwrap_or_else(|error| panic!("{error}"));
    println!("three brokers after {:?}", begun.elapsed());
    create_topics(both.0.bootstrap());
    println!("topics after {:?}", begun.elapsed());
    both
});

fn direct() -> &'static str {
    KAFKA.0.bootstrap()
}

fn proxy() -> &'static Proxy {
    &KAFKA.1
}

/// Without the proxy.
fn create_topics(bootstrap: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topics = TOPICS.map(|(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(3)));
    for created in runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap() {
        created.unwrap();
    }
    // All three know them: nobody is told of a topic without leaders.
    wait::until(SOON, "every partition has a leader", || {
        let metadata = admin.inner().fetch_metadata(None, SOON).unwrap();
        TOPICS.iter().all(|(name, partitions)| {
            let topic = metadata.topics().iter().find(|topic| topic.name() == *name);
            topic.is_some_and(|topic| {
                topic.partitions().len() == usize::try_from(*partitions).unwrap()
                    && topic.partitions().iter().all(|partition| partition.leader() >= 0)
            })
        })
    });
}

/// A client that goes through the proxy.
fn sender(client_id: &str, transactional_id: Option<&str>) -> Sender {
    let mut config = config(client_id, &proxy().bootstrap());
    if let Some(id) = transactional_id {
        config.set("transactional.id", id).set("transaction.timeout.ms", "30000");
    }
    config.create().unwrap()
}

fn config(client_id: &str, bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", client_id)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("retry.backoff.ms", "5")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200");
    config
}

fn send(sender: &Sender, topic: &str, partition: i32, value: &str) {
    let record = BaseRecord::<(), str>::to(topic).partition(partition).payload(value);
    sender.send(record).map_err(|(error, _)| error).unwrap();
}

/// What readers may see at this moment, by partition in the order of the log, without the proxy. On a busy machine
/// leaders change, and a new one may tell an old end: whoever knows what must be there says how many.
fn committed(topic: &str, least: usize) -> BTreeMap<i32, Vec<String>> {
    read(direct(), topic, least)
}

fn read(bootstrap: &str, topic: &str, least: usize) -> BTreeMap<i32, Vec<String>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "reader")
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
    let mut from = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        from.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let mut seen: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let mut ends = BTreeSet::new();
    let deadline = Instant::now() + SOON;
    while ends.len() < from.count() || seen.values().map(Vec::len).sum::<usize>() < least {
        assert!(Instant::now() < deadline, "{topic}: {:?} of {least} in all", lengths(&seen));
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                ends.remove(&record.partition());
                let text = String::from_utf8_lossy(record.payload().unwrap()).into_owned();
                seen.entry(record.partition()).or_default().push(text);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.insert(partition);
            }
            Some(Err(error)) => println!("{topic}: {error}"),
            None => {}
        }
    }
    seen
}

fn lengths(seen: &BTreeMap<i32, Vec<String>>) -> Vec<(i32, usize)> {
    seen.iter().map(|(partition, records)| (*partition, records.len())).collect()
}

#[test]
fn without_rules_everything_passes_unchanged_through_every_port() {
    let sender = sender("plain", None);
    let metadata = sender.client().fetch_metadata(Some("plain"), SOON).unwrap();
    let mut told: Vec<String> =
        metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
    let mut ports: Vec<String> = proxy().bootstrap().split(',').map(str::to_owned).collect();
    told.sort();
    ports.sort();
    assert_eq!(told, ports, "clients are told the proxy's ports");

    // From nothing to frames of a megabyte.
    let value = |number: usize| format!("{number}-{}", "x".repeat(number * number * 2_000));
    for number in 0..60 {
        send(&sender, "plain", i32::try_from(number % 6).unwrap(), &value(number % 20));
    }
    sender.flush(SOON).unwrap();
    let expected: BTreeMap<i32, Vec<String>> = (0..6_usize)
        .map(|partition| {
            let own = (partition..60).step_by(6).map(|number| value(number % 20));
            (i32::try_from(partition).unwrap(), own.collect())
        })
        .collect();
    for (way, bootstrap) in [("through the proxy", proxy().bootstrap().as_str()), ("past it", direct())] {
        let seen = read(bootstrap, "plain", 60);
        // Not assert_eq: nobody wants to read all that.
        assert!(seen == expected, "read {way}: {:?}", lengths(&seen));
    }
    for totals in proxy().totals() {
        println!("{totals:?}");
        assert!(totals.connections > 0 && totals.requests > 0 && totals.responses > 0, "{totals:?}");
        assert_eq!((totals.unparsed, totals.unmatched, totals.opaque), (0, 0, 0), "{totals:?}");
    }
}

/// One record at a time, in turn through the proxy and past it, so that a busy machine is busy for both.
#[test]
fn a_proxy_without_rules_costs_little() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (through, past) = (config("cost", &proxy().bootstrap()), config("cost", direct()));
    let senders: [FutureProducer; 2] = [through, past].map(|config| config.create().unwrap());
    let round_trip = |sender: &FutureProducer| {
        let begun = Instant::now();
        let record = FutureRecord::<(), str>::to("cost").partition(0).payload("x");
        runtime.block_on(sender.send(record, SOON)).unwrap();
        begun.elapsed()
    };
    // The first finds its way.
    let _ = senders.each_ref().map(round_trip);
    let rounds: Vec<[Duration; 2]> =
        (0..60).map(|_| [round_trip(&senders[0]), round_trip(&senders[1])]).collect();
    let [through, past] = [0, 1].map(|way| {
        let mut times: Vec<Duration> = rounds.iter().map(|round| round[way]).collect();
        times.sort();
        times[times.len() / 2]
    });
    println!("median through the proxy {through:?}, past it {past:?}");
    assert!(through < past * 2 + Duration::from_millis(2), "{through:?}, {past:?}");
}

#[test]
fn connections_cut_during_produce_lose_and_double_nothing() {
    let produce =
        |action| proxy().set(Rule::new(action).api(Api::PRODUCE).client_id_prefix("cut").every(5).times(3));
    let sender = sender("cut", None);
    let (before, after) = (produce(Action::CutBeforeRequest), produce(Action::CutAfterRequest));
    let dropped = produce(Action::DropResponse);
    let mut expected = Vec::new();
    let faults = || [before.counts().cut, after.counts().cut, dropped.counts().dropped];
    wait::until(SOON, "each fault three times", || {
        for _ in 0..10 {
            let value = format!("record {}", expected.len());
            send(&sender, "cut", 0, &value);
            expected.push(value);
        }
        faults() == [3, 3, 3]
    });
    sender.flush(SOON).unwrap();
    assert_eq!(committed("cut", expected.len()), BTreeMap::from([(0, expected)]));
    println!("before, after, dropped: {:?}", faults());
}

#[test]
fn a_delay_is_as_long_as_it_says_and_a_pipeline_is_delayed_once() {
    let sender = sender("slow", None);
    let produce = || Rule::new(Action::DelayRequest(DELAY)).api(Api::PRODUCE).client_id_prefix("slow");
    let round = |count: usize| {
        let begun = Instant::now();
        for number in 0..count {
            send(&sender, "slow", 0, &number.to_string());
            // Requests of their own, up to five in flight.
            thread::sleep(Duration::from_millis(10));
        }
        sender.flush(SOON).unwrap();
        begun.elapsed()
    };
    let warm = round(1);
    let quick = round(1);
    let rule = proxy().set(produce());
    let (alone, five) = (round(1), round(5));
    rule.remove();
    let answer =
        proxy().set(Rule::new(Action::DelayResponse(DELAY)).api(Api::PRODUCE).client_id_prefix("slow"));
    let back = round(1);
    answer.remove();
    println!("first {warm:?}, none {quick:?}, request {alone:?}, five requests {five:?}, response {back:?}");
    assert!(quick < DELAY && alone >= DELAY && back >= DELAY, "{quick:?} {alone:?} {back:?}");
    assert!((DELAY..DELAY * 3).contains(&five), "{five:?}: delayed side by side, not one after the other");
    assert!(rule.counts().delayed >= 2 && answer.counts().delayed == 1, "{rule:?}", rule = rule.counts());
}

#[test]
fn a_request_held_and_released_in_time_goes_its_own_way() {
    let sender = sender("patient", None);
    let rule =
        proxy().set(Rule::new(Action::HoldRequest).api(Api::PRODUCE).client_id_prefix("patient").times(1));
    send(&sender, "patient", 0, "held");
    wait::until(SOON, "it is held", || rule.counts().held == 1);
    assert_eq!(sender.in_flight_count(), 1);
    assert_eq!(committed("patient", 0), BTreeMap::new());
    assert_eq!(rule.release(), 1);
    sender.flush(SOON).unwrap();
    assert_eq!(committed("patient", 1)[&0], ["held"]);
    let counts = rule.counts();
    assert_eq!((counts.released, counts.released_late, counts.answers), (1, 0, BTreeMap::from([(0, 1)])));
}

#[test]
fn a_later_request_of_another_kind_overtakes() {
    let sender = sender("overtaken", None);
    let metadata = || sender.client().fetch_metadata(Some("overtaken"), SOON).unwrap();
    metadata();
    let rule = proxy().set(
        Rule::new(Action::LetOvertake(Duration::from_millis(200)))
            .api(Api::PRODUCE)
            .client_id_prefix("overtaken"),
    );
    let mut sent = Vec::new();
    // Metadata goes to any of the three brokers; now and then to the one that leads.
    wait::until(SOON, "it was overtaken", || {
        let value = sent.len().to_string();
        send(&sender, "overtaken", 0, &value);
        sent.push(value);
        metadata();
        rule.counts().overtaken >= 1
    });
    rule.remove();
    sender.flush(SOON).unwrap();
    assert_eq!(committed("overtaken", sent.len())[&0], sent);
    println!("{:?}", rule.counts());
}

#[test]
fn a_commit_that_arrives_after_another_owner_has_taken_over_commits_nothing() {
    let former = sender("former", Some("owned"));
    former.init_transactions(SOON).unwrap();
    former.begin_transaction().unwrap();
    send(&former, "owners", 0, "of the former owner");
    former.flush(SOON).unwrap();
    let rule = proxy().set(
        Rule::new(Action::HoldRequestAndCut)
            .api(Api::END_TXN)
            .client_id_prefix("former")
            .transactional_id("owned"),
    );
    let commit = thread::spawn(move || former.commit_transaction(SOON));
    wait::until(SOON, "its commit is held", || rule.counts().held >= 1);

    let owner = sender("owner", Some("owned"));
    owner.init_transactions(SOON).unwrap();
    owner.begin_transaction().unwrap();
    send(&owner, "owners", 0, "of the owner");
    owner.flush(SOON).unwrap();

    // Whatever the former asks from now on passes; what it asked before arrives late.
    rule.remove();
    let released = u64::try_from(rule.release()).unwrap();
    wait::until(SOON, "late answers", || rule.counts().answers.values().sum::<u64>() == released);
    let counts = rule.counts();
    println!("{counts:?}");
    assert!(counts.released_late >= 1 && counts.cut >= 1, "{counts:?}");
    assert!(counts.answers.keys().all(|code| FENCED.contains(code)), "{counts:?}");
    assert_eq!(committed("owners", 0), BTreeMap::new(), "nothing of either is committed yet");
    owner.commit_transaction(SOON).unwrap();
    let told = commit.join().unwrap();
    println!("the former owner is told: {told:?}");
    assert!(told.is_err());
    assert_eq!(committed("owners", 1)[&0], ["of the owner"]);
}

/// Why a checkpoint must be safe when only a prefix of it is committed: librdkafka asks again by itself, and without
/// KIP-890 the first request ends the next Kafka transaction of the same owner.
#[test]
fn a_commit_that_arrives_late_commits_half_of_the_next_transaction() {
    let owner = sender("halves", Some("halved"));
    owner.init_transactions(SOON).unwrap();
    owner.begin_transaction().unwrap();
    send(&owner, "halves", 0, "first, whole");
    owner.flush(SOON).unwrap();
    let rule = proxy()
        .set(Rule::new(Action::HoldRequestAndCut).api(Api::END_TXN).transactional_id("halved").times(1));
    owner.commit_transaction(SOON).unwrap();
    assert_eq!(committed("halves", 1)[&0], ["first, whole"]);

    owner.begin_transaction().unwrap();
    send(&owner, "halves", 0, "second, begun");
    owner.flush(SOON).unwrap();
    assert_eq!(committed("halves", 1)[&0], ["first, whole"]);
    assert_eq!(rule.release(), 1);
    wait::until(SOON, "a late answer", || rule.counts().answers.values().sum::<u64>() == 1);
    assert_eq!(rule.counts().answers, BTreeMap::from([(0, 1)]), "the broker believes it");
    assert_eq!(committed("halves", 2)[&0], ["first, whole", "second, begun"], "half of it is committed");
    assert_eq!(rule.counts().released_late, 1);
}

/// Before a server that sends back what it gets: no Kafka is needed to see what is no Kafka.
#[test]
fn what_cannot_be_parsed_passes_and_is_counted() {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = Ports::bind(1).unwrap();
    let proxy = ports.serve(&[echo.local_addr().unwrap()]).unwrap();
    thread::spawn(move || {
        for client in echo.incoming() {
            let (mut from, mut to) = (client.as_ref().unwrap(), client.as_ref().unwrap());
            std::io::copy(&mut from, &mut to).unwrap();
        }
    });
    // It takes everything it understands, and it understands nothing here.
    let rule = proxy.set(Rule::new(Action::CutBeforeRequest));
    let returned = |sent: &[u8]| {
        let mut client = TcpStream::connect(proxy.bootstrap()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut returned = Vec::new();
        client.read_to_end(&mut returned).unwrap();
        returned
    };
    let short = b"\0\0\0\x03abc";
    assert_eq!(returned(short), short);
    let text = b"GET / HTTP/1.1\r\n\r\n".repeat(10_000);
    assert!(returned(&text) == text);
    let both = [&short[..], &text].concat();
    assert!(returned(&both) == both, "a frame, then none");
    let totals = proxy.totals()[0];
    assert_eq!((totals.requests, totals.unparsed), (2, 2), "{totals:?}");
    assert_eq!((totals.responses, totals.unmatched), (2, 2), "{totals:?}");
    assert_eq!((totals.connections, totals.opaque), (3, 4), "{totals:?}");
    assert_eq!(rule.counts().faults(), 0);
}

//! `topics plan|apply|check` on a real Apache Kafka: what is created passes the check, what breaks a promise is named,
//! and the instance never changes.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::sync::LazyLock;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::topics::{
    Change, Finding, InstanceError, Layout, TopicsError, apply, check, ensure_command_topics, plan,
    read_instance,
};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_schemas::ids::Partition;
use sagamore_schemas::topics::{HomeHash, INSTANCE_KEY, InstanceRecord, Prefix, Severity};
use uuid::Uuid;

/// One broker for all tests of this file; each has a prefix of its own.
static KAFKA: LazyLock<LocalKafka> =
    LazyLock::new(|| LocalKafka::start(ClusterSize::One).expect("a broker starts"));

fn settings() -> ClientSettings {
    ClientSettings::new(KAFKA.bootstrap())
}

fn count(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("not 0")
}

fn layout(prefix: &str, partitions: u16) -> Layout {
    let prefix: Prefix = prefix.parse().expect("a prefix");
    Layout { prefix, partitions: count(partitions), replication: count(1) }
}

fn admin(settings: &ClientSettings) -> AdminClient<DefaultClientContext> {
    settings.admin().create().expect("an admin client")
}

async fn create(topic: &str, partitions: i32, config: &[(&str, &str)]) {
    let new = config
        .iter()
        .fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |new, (key, value)| {
            new.set(key, value)
        });
    let answers = admin(&settings()).create_topics([&new], &AdminOptions::new()).await.expect("answered");
    answers[0].as_ref().expect("created");
    wait_until_known(topic);
}

/// A broker under load tells of a topic a little after it has created it.
fn wait_until_known(topic: &str) {
    let client: BaseConsumer = settings().admin().create().expect("a client");
    for _ in 0..100 {
        let metadata = client.fetch_metadata(None, Duration::from_secs(10)).expect("metadata");
        if metadata.topics().iter().any(|known| known.name() == topic && !known.partitions().is_empty()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{topic} was created, and is not there");
}

fn worst(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::BreaksAPromise)
        .map(|finding| {
            format!("{} {}={} -> {}", finding.topic, finding.setting, finding.value, finding.remedy)
        })
        .collect()
}

fn write_instance(topic: &str, home: i32, instance: Uuid, partitions: u16) {
    let producer: BaseProducer = settings().client_producer("test").create().expect("a producer");
    let record = InstanceRecord {
        instance,
        partitions: count(partitions),
        hash: HomeHash::Murmur2,
        home: Partition(home),
    };
    let json = serde_json::to_vec(&record).expect("plain data");
    let record = BaseRecord::to(topic).partition(home).key(INSTANCE_KEY).payload(&json);
    producer.send(record).map_err(|(error, _)| error).expect("queued");
    producer.flush(Duration::from_secs(10)).expect("written");
}

#[test]
fn what_is_applied_passes_the_check_and_stays() {
    let layout = layout("fresh", 4);
    let planned = plan(&settings(), &layout).expect("planned");
    let applied = apply(&settings(), &layout).expect("applied");
    let created = |changes: &[Change]| -> BTreeSet<String> {
        let name = |change: &Change| match change {
            Change::CreateTopic { topic, .. } => Some(topic.clone()),
            Change::AlterSetting { .. } | Change::WriteInstance { .. } => None,
        };
        changes.iter().filter_map(name).collect()
    };
    assert_eq!(created(&planned), created(&applied));
    assert_eq!(created(&applied).len(), 7);
    assert_eq!(applied.len(), 8, "and the instance");

    let findings = check(&settings(), &layout.prefix).expect("checked");
    let others: Vec<_> =
        findings.iter().filter(|finding| finding.severity != Severity::DevelopmentOnly).collect();
    assert!(others.is_empty(), "{others:#?}");
    let kinds: BTreeSet<_> = findings.iter().map(|finding| finding.setting.as_str()).collect();
    assert!(kinds.contains("replication") && kinds.contains("min.insync.replicas"), "{kinds:?}");

    let instance = read_instance(&settings(), &layout.prefix).expect("written");
    assert_eq!(instance.partitions, count(4));
    assert_eq!(apply(&settings(), &layout).expect("again"), []);
    assert_eq!(read_instance(&settings(), &layout.prefix).expect("still there"), instance);
}

#[tokio::test]
async fn a_compacted_inbox_is_named_and_repaired_and_other_settings_stay() {
    let layout = layout("compacted", 2);
    create(
        "compacted.inbox",
        2,
        &[("cleanup.policy", "compact"), ("segment.ms", "123456789"), ("max.message.bytes", "4000000")],
    )
    .await;
    let findings = check(&settings(), &layout.prefix).expect("checked");
    assert!(
        worst(&findings)
            .contains(&"compacted.inbox cleanup.policy=compact -> sagamore topics apply".to_owned()),
        "{findings:#?}"
    );

    apply(&settings(), &layout).expect("applied");
    assert_eq!(worst(&check(&settings(), &layout.prefix).expect("checked")), [""; 0]);
    let answers = admin(&settings())
        .describe_configs([&ResourceSpecifier::Topic("compacted.inbox")], &AdminOptions::new())
        .await
        .expect("answered");
    let inbox = answers[0].as_ref().expect("described");
    let value = |key: &str| inbox.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
    assert_eq!(value("cleanup.policy"), "delete");
    assert_eq!(value("message.timestamp.type"), "LogAppendTime");
    assert_eq!((value("segment.ms"), value("max.message.bytes")), ("123456789".into(), "4000000".into()));
}

#[tokio::test]
async fn a_state_that_deletes_is_named() {
    let layout = layout("deleting", 2);
    create("deleting.state", 2, &[("cleanup.policy", "compact,delete")]).await;
    let findings = check(&settings(), &layout.prefix).expect("checked");
    assert!(
        worst(&findings)
            .contains(&"deleting.state cleanup.policy=compact,delete -> sagamore topics apply".to_owned()),
        "{findings:#?}"
    );
}

#[test]
fn a_partition_count_never_changes() {
    apply(&settings(), &layout("counted", 2)).expect("applied");
    for result in [plan(&settings(), &layout("counted", 4)), apply(&settings(), &layout("counted", 4))] {
        let error = result.expect_err("another count").to_string();
        assert!(
            error.starts_with("counted.inbox has 2 partitions, not 4. The count can never be changed"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_journal_with_fewer_partitions_than_the_inbox_is_named() {
    let layout = layout("narrow", 2);
    create("narrow.inbox", 2, &[]).await;
    create("narrow.journal", 1, &[]).await;
    let findings = check(&settings(), &layout.prefix).expect("checked");
    let of_journal = findings
        .iter()
        .find(|finding| finding.topic == "narrow.journal" && finding.setting == "partitions")
        .expect("found");
    assert_eq!((of_journal.value.as_str(), of_journal.severity), ("1", Severity::BreaksAPromise));
    let error = apply(&settings(), &layout).expect_err("cannot be repaired");
    assert!(matches!(error, TopicsError::PartitionCount { .. }), "{error}");
    assert!(!worst(&findings).is_empty());
}

#[tokio::test]
async fn an_instance_that_stands_in_one_partition_is_taken_by_the_others() {
    let layout = layout("half", 3);
    create("half.state", 3, &[("cleanup.policy", "compact")]).await;
    let known = Uuid::from_u128(42);
    write_instance("half.state", 1, known, 3);
    let error = read_instance(&settings(), &layout.prefix).expect_err("two are missing");
    assert_eq!(
        error.to_string(),
        "partition 0, 2 of half.state names no instance: run `sagamore topics apply`"
    );
    let applied = apply(&settings(), &layout).expect("applied");
    assert!(
        applied.contains(&Change::WriteInstance { topic: "half.state".to_owned(), instance: Some(known) })
    );
    assert_eq!(read_instance(&settings(), &layout.prefix).expect("complete").instance, known);
}

#[tokio::test]
async fn two_instances_in_one_state_are_an_error_and_a_finding() {
    let layout = layout("torn", 2);
    create("torn.state", 2, &[("cleanup.policy", "compact")]).await;
    write_instance("torn.state", 0, Uuid::from_u128(1), 2);
    write_instance("torn.state", 1, Uuid::from_u128(2), 2);
    let error = apply(&settings(), &layout).expect_err("which one?");
    assert!(matches!(error, TopicsError::Instance(InstanceError::Contradiction { .. })), "{error}");
    let findings = check(&settings(), &layout.prefix).expect("checked");
    assert!(findings.iter().any(|finding| finding.setting == "instance"), "{findings:#?}");
}

#[test]
fn command_topics_are_created_once_and_checked() {
    let layout = layout("commanded", 2);
    apply(&settings(), &layout).expect("applied");
    let participants = ["payment", "shipping"].map(|name| name.parse().expect("a name"));
    assert_eq!(ensure_command_topics(&settings(), &layout, &participants).expect("created").len(), 2);
    assert_eq!(ensure_command_topics(&settings(), &layout, &participants).expect("there"), []);
    let findings = check(&settings(), &layout.prefix).expect("checked");
    assert_eq!(worst(&findings), [""; 0]);
    assert!(findings.iter().any(|finding| finding.topic == "commanded.commands.payment"), "{findings:#?}");
}

#[test]
fn no_broker_is_an_error_that_says_where() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let settings = ClientSettings::new(nobody.to_string());
    let error = check(&settings, &Prefix::default()).expect_err("nobody there").to_string();
    assert!(error.starts_with(&format!("no broker answers at {nobody}")), "{error}");
}

#[tokio::test]
async fn three_brokers_satisfy_everything_until_one_stops_verifying() {
    let kafka = LocalKafka::start(ClusterSize::Three).expect("three brokers start");
    let settings = ClientSettings::new(kafka.bootstrap());
    let layout = Layout { replication: count(3), ..layout("sagamore", 4) };
    apply(&settings, &layout).expect("applied");
    assert_eq!(check(&settings, &layout.prefix).expect("checked"), []);

    let key = "transaction.partition.verification.enable";
    let off = AlterConfig::new(ResourceSpecifier::Broker(2)).set(key, "false");
    let answers = admin(&settings).alter_configs([&off], &AdminOptions::new()).await.expect("answered");
    answers[0].as_ref().expect("altered");
    let findings = check(&settings, &layout.prefix).expect("checked");
    let found: Vec<_> =
        findings.iter().map(|finding| (finding.topic.as_str(), finding.setting.as_str())).collect();
    assert_eq!(found, [("broker 2", key)]);
    assert_eq!(findings[0].severity, Severity::BreaksAPromise);
}

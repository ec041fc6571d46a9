//! The doctor on real clusters: one that is fit, one that has lost a broker, and one with planted unfit properties.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::doctor::{Ailment, Facts, examine, judge};
use sagamore_kafka::topics::{Layout, apply, present_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_schemas::topics::{Prefix, Severity};

const WITHIN: Duration = Duration::from_mins(1);

fn look(bootstrap: &str) -> (Facts, Vec<Ailment>) {
    let begun = Instant::now();
    let facts = examine(&ClientSettings::new(bootstrap), &Prefix::default()).expect("it answers");
    println!("examined in {:?}", begun.elapsed());
    let ailments = judge(&facts);
    println!("{:#?}\n{ailments:#?}", facts.probe);
    (facts, ailments)
}

fn settings_of(ailments: &[Ailment], severity: Severity) -> BTreeSet<&str> {
    let severe = ailments.iter().filter(|ailment| ailment.finding.severity == severity);
    severe.map(|ailment| ailment.finding.setting.as_str()).collect()
}

#[test]
fn a_fit_cluster_and_one_that_has_lost_a_broker() {
    let mut kafka = LocalKafka::start(ClusterSize::Three).expect("brokers start");
    let settings = ClientSettings::new(kafka.bootstrap());
    let count = |count| NonZeroU16::new(count).expect("not 0");
    let layout = Layout { prefix: Prefix::default(), partitions: count(2), replication: count(3) };
    apply(&settings, &layout).expect("topics");
    let before = present_topics(&settings).expect("topics");

    let (facts, ailments) = look(kafka.bootstrap());
    let advice = |ailment: &Ailment| ailment.finding.severity == Severity::Advice;
    assert!(ailments.iter().all(advice), "{ailments:#?}");
    let probed = facts.probe.expect("tried").expect("allowed");
    assert!(probed.transactions.fences && probed.transactions.shows_committed_only);
    assert_eq!(probed.clocks.len(), 3, "{:?}", probed.clocks);
    assert!(probed.clocks.values().all(|clock| clock.ahead_ms.abs() < 1_000), "{:?}", probed.clocks);
    assert!(
        probed.requests.get("InitProducerId").is_some_and(|newest| *newest >= 4),
        "{:?}",
        probed.requests
    );
    assert!(probed.produce.p50_ms > 0.0 && probed.produce.p50_ms <= probed.produce.p99_ms);
    let mut after = present_topics(&settings).expect("topics");
    // Kafka makes it for the first Kafka transaction there is.
    after.remove("__transaction_state");
    let before: BTreeSet<_> = before.into_iter().filter(|topic| topic != "__transaction_state").collect();
    assert_eq!(after, before, "nothing is left behind");

    kafka.kill_broker(2);
    let left: Vec<_> = kafka.bootstrap().split(',').take(2).collect();
    let left = left.join(",");
    let client: BaseConsumer = ClientSettings::new(&left).admin().create().expect("a client");
    let begun = Instant::now();
    while client.fetch_metadata(None, WITHIN).expect("metadata").brokers().len() > 2 {
        assert!(begun.elapsed() < WITHIN, "the broker that was killed is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (_, ailments) = look(&left);
    assert!(settings_of(&ailments, Severity::Advice).contains("copies in sync"), "{ailments:#?}");
    assert!(settings_of(&ailments, Severity::DevelopmentOnly).contains("brokers"), "{ailments:#?}");
}

#[test]
fn planted_properties_are_named_with_promise_and_remedy() {
    let planted = [
        ("group.min.session.timeout.ms", "10000"),
        ("transaction.max.timeout.ms", "5000"),
        ("socket.request.max.bytes", "4194304"),
        ("transaction.partition.verification.enable", "false"),
        ("transactional.id.expiration.ms", "3600000"),
        ("auto.create.topics.enable", "true"),
        ("offsets.retention.minutes", "60"),
    ];
    let kafka = LocalKafka::start_set(ClusterSize::One, &planted).expect("a broker starts");
    let (facts, ailments) = look(kafka.bootstrap());
    for (key, value) in planted {
        let found = ailments.iter().find(|ailment| ailment.finding.setting == key);
        let found = found.unwrap_or_else(|| panic!("{key} is not named: {ailments:#?}"));
        assert_eq!(found.finding.value, value);
        assert!(found.finding.remedy.contains(key), "{found:?}");
        let is_advice = found.finding.severity == Severity::Advice;
        assert_eq!(found.promises.is_empty(), is_advice, "{found:?}");
    }
    let probed = facts.probe.expect("tried").expect("allowed");
    let failed = probed.transactions.failed.expect("the broker allows no such timeout");
    assert!(failed.contains("init_transactions"), "{failed}");
    assert!(settings_of(&ailments, Severity::BreaksAPromise).contains("Kafka transactions"));
}

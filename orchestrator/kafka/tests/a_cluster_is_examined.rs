//! The doctor on a real broker with planted unfit properties. On three that are fit, and when one of them is away:
//! `one_broker_of_three_may_die` of the end-to-end tests, which has them anyway.

use std::collections::BTreeSet;

use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::doctor::{Ailment, Facts, examine, judge};
use sagamore_kafka::topics::present_topics;
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_schemas::topics::{Prefix, Severity};

fn look(bootstrap: &str) -> (Facts, Vec<Ailment>) {
    let facts = examine(&ClientSettings::new(bootstrap), &Prefix::default()).expect("it answers");
    let ailments = judge(&facts);
    println!("{:#?}\n{ailments:#?}", facts.probe);
    (facts, ailments)
}

fn settings_of(ailments: &[Ailment], severity: Severity) -> BTreeSet<&str> {
    let severe = ailments.iter().filter(|ailment| ailment.finding.severity == severity);
    severe.map(|ailment| ailment.finding.setting.as_str()).collect()
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
    let left = present_topics(&ClientSettings::new(kafka.bootstrap())).expect("topics");
    assert!(left.iter().all(|topic| !topic.contains("doctor")), "nothing is left behind: {left:?}");
}

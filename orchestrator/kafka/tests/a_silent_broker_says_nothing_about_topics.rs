//! A broker that does not answer is told apart from topics that are wrong: a server waits for the one and refuses the
//! other (SAG-007).

use std::num::NonZeroU16;
use std::process::Command;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::topics::{InstanceError, Layout, TopicsError, apply, check, read_instance};
use sagamore_local_kafka::{ClusterSize, LocalKafka};

const SILENCE: [RDKafkaErrorCode; 5] = [
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::RequestTimedOut,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::Resolve,
];
/// Somebody has answered, and it is no.
const ANSWERS: [RDKafkaErrorCode; 6] = [
    RDKafkaErrorCode::TopicAuthorizationFailed,
    RDKafkaErrorCode::ClusterAuthorizationFailed,
    RDKafkaErrorCode::InvalidConfig,
    RDKafkaErrorCode::InvalidReplicationFactor,
    RDKafkaErrorCode::PolicyViolation,
    RDKafkaErrorCode::UnknownTopicOrPartition,
];

/// Every error that carries what a broker or the client says.
fn errors_with(cause: RDKafkaErrorCode) -> [TopicsError; 4] {
    [
        TopicsError::Create { topic: "t".into(), cause },
        TopicsError::Alter { topic: "t".into(), cause },
        TopicsError::Describe { resource: "t".into(), cause },
        TopicsError::Request { action: "ask", cause: KafkaError::MetadataFetch(cause) },
    ]
}

#[test]
fn silence_is_no_answer() {
    for error in SILENCE.into_iter().flat_map(errors_with) {
        assert!(error.is_silence(), "{error:?}");
    }
    for error in ANSWERS.into_iter().flat_map(errors_with) {
        assert!(!error.is_silence(), "{error:?}");
    }
    let wanted = NonZeroU16::new(4).unwrap();
    assert!(!TopicsError::PartitionCount { topic: "t".into(), partitions: 6, wanted }.is_silence());
    assert!(TopicsError::NotReady { topic: "t".into() }.is_silence());
    assert!(!TopicsError::Instance(InstanceError::NoTopic { topic: "t".into() }).is_silence());
}

/// Whoever may not read the state is told so; before a broker that only has to come up one waits.
#[test]
fn what_keeps_the_instance_from_being_read_is_told_apart_too() {
    let reading = |cause| InstanceError::Kafka { topic: "t".into(), cause };
    let silent = |cause: KafkaError| {
        let alone = reading(cause.clone()).is_silence();
        assert_eq!(TopicsError::Instance(reading(cause)).is_silence(), alone);
        alone
    };
    let behind = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::AutoOffsetReset];
    for code in SILENCE.into_iter().chain(behind) {
        assert!(
            silent(KafkaError::MetadataFetch(code)) && silent(KafkaError::MessageConsumption(code)),
            "{code}"
        );
    }
    let answers = ANSWERS.into_iter().filter(|code| !behind.contains(code));
    for code in answers.chain([RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SSL]) {
        assert!(
            !silent(KafkaError::MetadataFetch(code)) && !silent(KafkaError::MessageConsumption(code)),
            "{code}"
        );
    }
    assert!(InstanceError::Timeout { topic: "t".into() }.is_silence());
    let detail = "two instances".to_owned();
    assert!(!InstanceError::Contradiction { topic: "t".into(), detail }.is_silence());
}

#[test]
fn a_paused_broker_is_silent_and_nothing_is_wrong_afterwards() {
    let kafka = LocalKafka::start(ClusterSize::One).unwrap();
    let settings = ClientSettings::new(kafka.bootstrap());
    let few = NonZeroU16::MIN;
    let layout = Layout { prefix: "paused".parse().unwrap(), partitions: few, replication: few };
    apply(&settings, &layout).unwrap();
    let before =
        (check(&settings, &layout.prefix).unwrap(), read_instance(&settings, &layout.prefix).unwrap());

    let pid = kafka.broker_pid(0).unwrap().to_string();
    let signal =
        |signal: &str| assert!(Command::new("kill").args([signal, pid.as_str()]).status().unwrap().success());
    signal("-STOP");
    let silent = check(&settings, &layout.prefix);
    signal("-CONT");
    let error = silent.unwrap_err();
    assert!(error.is_silence(), "{error:?}");

    let again =
        || Some((check(&settings, &layout.prefix).ok()?, read_instance(&settings, &layout.prefix).ok()?));
    assert_eq!((0..10).find_map(|_| again()), Some(before));
}

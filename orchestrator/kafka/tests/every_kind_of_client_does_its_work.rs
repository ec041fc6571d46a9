//! Every kind of client does its work with the properties we give it, on the embedded broker and on a real Kafka:
//! outputs arrive, a group's member is assigned with explicit offsets, a checkpoint is committed and read.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::message::{Message, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::crowd::Linger;
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_kafka::topics::{Layout, apply};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_schemas::topics::{Prefix, Topic};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn on_the_embedded_broker() {
    let broker = EmbeddedBroker::start().expect("starts");
    broker.create_all_topics(&Prefix::default(), NonZeroU16::MIN, &[]).expect("topics");
    everything_works(&broker.client_settings().expect("settings"));
}

#[test]
fn on_a_real_kafka() {
    let kafka = LocalKafka::start(ClusterSize::One).expect("starts");
    let settings = ClientSettings::new(kafka.bootstrap());
    let one = NonZeroU16::MIN;
    apply(&settings, &Layout { prefix: Prefix::default(), partitions: one, replication: one })
        .expect("applied");
    let timestamp = everything_works(&settings);
    assert!(matches!(timestamp, Timestamp::LogAppendTime(_)), "{timestamp:?}");
}

/// Returns the timestamp of the record in the inbox.
fn everything_works(settings: &ClientSettings) -> Timestamp {
    let prefix = Prefix::default();
    let (inbox, state) = (Topic::Inbox.name(&prefix), Topic::State.name(&prefix));

    let lane: BaseProducer =
        settings.lane_output_producer("lane-0", Linger::Crowd).create().expect("a producer");
    send(&lane, &inbox, "from the lane");
    lane.flush(SOON).expect("delivered");

    let member: BaseConsumer<FromTheBeginning> = settings
        .inbox_consumer(&prefix.orchestrator_group(), "lane-0")
        .create_with_context(FromTheBeginning)
        .expect("a consumer");
    member.subscribe(&[&inbox]).expect("subscribed");
    let (payload, timestamp) = next(&member);
    assert_eq!(payload, "from the lane");

    let checkpoint: BaseProducer = settings.checkpoint_producer("sagamore-x-0").create().expect("a producer");
    checkpoint.init_transactions(SOON).expect("fences its predecessor");
    checkpoint.begin_transaction().expect("begun");
    send(&checkpoint, &state, "a checkpoint");
    checkpoint.flush(SOON).expect("delivered");
    checkpoint.commit_transaction(SOON).expect("committed");

    let replay: BaseConsumer =
        settings.replay_consumer(Isolation::ReadCommitted).create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&state, 0, Offset::Beginning).expect("an offset");
    replay.assign(&assignment).expect("assigned");
    assert!(next(&replay).0.contains("instance"), "the first record of a state");
    assert_eq!(next(&replay).0, "a checkpoint");
    timestamp
}

fn send(producer: &BaseProducer, topic: &str, payload: &str) {
    let record = BaseRecord::to(topic).partition(0).key("k").payload(payload);
    producer.send(record).map_err(|(error, _)| error).expect("queued");
}

fn next<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> (String, Timestamp) {
    let deadline = Instant::now() + SOON;
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                let message = message.expect("a record, not an error");
                let payload = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                return (payload, message.timestamp());
            }
            None => assert!(Instant::now() < deadline, "no record within {SOON:?}"),
        }
    }
}

/// What a lane does: nobody's committed offset counts, so every partition is assigned with an offset of our own.
struct FromTheBeginning;

impl ClientContext for FromTheBeginning {}

impl ConsumerContext for FromTheBeginning {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            partitions.set_all_offsets(Offset::Beginning).expect("an offset");
            consumer.incremental_assign(partitions).expect("assigned");
        } else {
            consumer.incremental_unassign(partitions).expect("revoked");
        }
    }
}

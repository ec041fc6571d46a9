//! Three brokers, as in production: no `--development`. Each dies once and comes back, under load.

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::Stage;
use sagamore_local_kafka::{ClusterSize, LocalKafka};

use crate::{AT_A_TIME, NO_END, PROGRAM, after, assert_known_everywhere, two_servers};

#[test]
fn one_broker_of_three_may_die() {
    let mut kafka = LocalKafka::start(ClusterSize::Three).unwrap();
    let stage = Stage::new(kafka.bootstrap(), PROGRAM, "three");
    let (_servers, _participants) = two_servers(&stage);
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    after(&load, 60, "before the first broker dies");
    for index in 0..kafka.broker_count() {
        kafka.kill_broker(index);
        after(&load, 40, "with two brokers");
        kafka.restart_broker(index).unwrap();
        after(&load, 40, "with three again");
    }
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 300, "{tally}");
    assert_known_everywhere(&stage, &intents, 2);
}

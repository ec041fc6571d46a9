//! Three brokers, as in production: no `--development`. Two of them die in turn and come back, under load.

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
    for index in 0..2 {
        kafka.kill_broker(index);
        after(&load, 60, "with two brokers");
        kafka.restart_broker(index).unwrap();
        println!("broker {} was away, {} answers so far", index + 1, load.answered());
    }
    after(&load, 60, "with three again");
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 240, "{tally}");
    assert_known_everywhere(&stage, &intents, 2);
}

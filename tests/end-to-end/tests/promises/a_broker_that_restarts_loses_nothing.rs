//! The only broker is killed under load and comes back: servers say that they are not ready meanwhile, and go on. A
//! server that starts while it is away says so, and waits for it.

use std::time::Duration;

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use sagamore_local_kafka::{ClusterSize, LocalKafka};

use crate::{AT_A_TIME, NO_END, PROGRAM, after, assert_known_everywhere, two_servers};

/// How long a server may take to notice that no broker answers.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_broker_that_restarts_loses_nothing() {
    let mut kafka = LocalKafka::start(ClusterSize::One).unwrap();
    let stage = Stage::new(kafka.bootstrap(), PROGRAM, "broker");
    let (servers, _participants) = two_servers(&stage);
    let load = Load::begin(&stage, "order", "order", AT_A_TIME, NO_END);
    after(&load, 60, "before the broker goes");
    kafka.kill_broker(0);
    let late = stage.try_server(3, &["--development"]);
    let took = wait::until(NOTICED_WITHIN, "both servers say that they are not ready", || {
        servers.iter().all(|server| server.ready() == Some(503))
    });
    println!("not ready after {} ms", took.as_millis());
    for server in &servers {
        assert_eq!(server.get("/health/live").map(|answer| answer.status), Ok(200));
        assert!(server.process.log().contains("the brokers do not answer"), "{}", server.process.name());
    }
    wait::until(NOTICED_WITHIN, "the third server says that no broker answers", || {
        late.process.log().contains("SAG-008")
    });
    kafka.restart_broker(0).unwrap();
    late.wait_listening();
    let took = stage.wait_running(&[&servers[0], &servers[1], &late]);
    println!("every shard runs again after {} ms", took.as_millis());
    wait::until(NOTICED_WITHIN, "all three are ready", || {
        servers.iter().chain([&late]).all(|server| server.ready() == Some(200))
    });
    after(&load, 60, "after the broker is back");
    let intents = load.stop();
    let tally = stage.judge(&intents);
    assert!(tally.orders() >= 120, "{tally}");
    assert_known_everywhere(&stage, &intents, 3);
}

//! Wrong configuration: one clear error, and the exit code of wrong usage. Unreachable brokers are no such thing: the
//! server says so, is not ready, and keeps trying.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_end_to_end::{http, wait};

use crate::{PROGRAM, stage};

const USAGE: i32 = 2;
const TOLD_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn wrong_configuration_is_told_once() {
    let stage = stage("wrong");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let file = stage.folder().join("sagamore.toml");
    std::fs::write(&file, "lanes = \"many\"\n").unwrap();
    let file = file.display().to_string();
    for (arguments, expected) in [
        (vec!["--kafka-config", "linger.mss=5"], "linger.mss"),
        (vec!["--kafka-config", "linger.ms"], "is not KEY=VALUE"),
        (vec!["--kafka-config", "acks=1"], "acks cannot be overridden"),
        (vec!["--kafka-config", "enable.idempotence=false"], "enable.idempotence cannot be overridden"),
        (vec!["--kafka-config", "session.timeout.ms=soon"], "session.timeout.ms"),
        (vec!["--lanes", "0"], "--lanes"),
        (vec!["--speed", "high"], "--speed"),
        (vec!["--config", &file], "many"),
    ] {
        let finished = stage.must(&[&["server", "--development"], arguments.as_slice()].concat(), USAGE);
        assert!(finished.error.contains(expected), "{arguments:?}: {finished:?}");
        assert_eq!(finished.error.matches("error:").count(), 1, "told once: {finished:?}");
        assert!(finished.out.is_empty(), "data only on standard output: {finished:?}");
    }
    let finished = stage.must(&["server", "--development", "--listen", &taken], USAGE);
    assert!(finished.error.contains(&taken), "{finished:?}");
}

#[test]
fn unreachable_brokers_are_told_of_and_waited_for() {
    // Nobody listens here: it was free a moment ago.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let stage = Stage::bare(&nowhere, PROGRAM, "nowhere");
    let file = stage.folder().join("sagamore.yaml");
    std::fs::write(&file, "lanes: 1\n").unwrap();
    let named = file.display().to_string();
    let mut server = stage.try_server(1, &["--development", "--listen", &listen, "--config", &named]);
    wait::until(TOLD_WITHIN, "it says that no broker answers", || server.process.log().contains("SAG-008"));
    assert!(server.process.log().contains(&nowhere), "where it looked: {}", server.process.log());
    assert!(server.process.log().lines().count() < 10, "in few words: {}", server.process.log());
    let ask = |path: &str| http::get(&format!("http://{listen}{path}"), TOLD_WITHIN).unwrap();
    assert_eq!(ask("/health/live").status, 200);
    assert_eq!(ask("/health/ready").status, 503);
    assert_eq!(ask("/v1/transactions/order-1").status, 503);
    assert!(server.process.ended().is_none(), "it keeps trying");
    reloads(&server, &file);
    server.process.signal("TERM");
    assert_eq!(server.process.wait(TOLD_WITHIN), 0, "and can be stopped");

    let finished = stage.must(&["topics", "plan"], 6);
    assert!(finished.error.contains(&nowhere), "{finished:?}");
    let finished = stage.command(&["get", "order-1", "--server", &format!("http://{nowhere}")]);
    assert_eq!(finished.code, 6, "{finished:?}");
}

/// At SIGHUP it reads its file again, and says what has changed and what would hold from the next start on only.
fn reloads(server: &Server, file: &Path) {
    let hangs_up = |text: &str, told: &str| {
        std::fs::write(file, text).unwrap();
        server.process.signal("HUP");
        wait::until(TOLD_WITHIN, told, || server.process.log().contains(told));
    };
    hangs_up("lanes: 2\nlog: debug\n", "later=lanes");
    assert!(server.process.log().contains("this is logged from now on log=\"debug\""));
    hangs_up("lane: 2\n", "did you mean `lanes`?");
    hangs_up("lanes: 2\nlog: warn\n", "this is logged from now on log=\"warn\"");
}

//! Exit codes, and what is said when there is nothing to judge.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use sagamore_end_to_end::KAFKA;
use sagamore_end_to_end::process::{Folder, Process};

use crate::run::{check, program, run};

const INPUT: [&str; 4] = ["--name", "nobody", "--input", "{}"];

#[test]
fn what_cannot_be_run_is_told_before_anything_is() {
    let refused = |more: &[&str], exit: i32, said: &str| {
        let came = check(more);
        assert_eq!(came.exit, exit, "{more:?}: {}", came.err);
        assert!(came.err.contains(said), "{more:?}: {}", came.err);
    };
    refused(&INPUT, 2, "--prefix");
    refused(&["--name", "nobody", "--input", "{n", "--command", "true"], 2, "not JSON");
    refused(&["--name", "nobody", "--input", "@/nowhere/at/all", "--command", "true"], 2, "/nowhere/at/all");
    refused(&[&INPUT[..], &["--command", "true", "--operations", "tcc"]].concat(), 2, "two-phase");
    refused(&[&INPUT[..], &["--command", "true", "--only", "crush"]].concat(), 2, "crash");
    let away =
        run(&[&["participant", "check", "--kafka", "127.0.0.1:1", "--command", "true"], &INPUT[..]].concat());
    assert_eq!(away.exit, 6, "{}", away.err);
}

#[test]
fn who_does_not_answer_is_told_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("silent.log").display().to_string();
    let silent = |command: &str| {
        let more = ["--command", command, "--start-timeout", "3s", "--log-file", &log, "-o", "json"];
        check(&[&INPUT[..], &more].concat())
    };
    let came = silent("echo I am here; exec sleep 600");
    assert_eq!(
        (came.exit, came.rows("fail").into_iter().collect::<Vec<_>>()),
        (10, vec!["answers/ok".to_owned()])
    );
    assert!(came.rows("pass").is_empty());
    assert!(std::fs::read_to_string(&log).unwrap().contains("I am here"), "what it printed is kept");
    assert!(came.err.contains(&log), "and it is said where: {}", came.err);
    let came = silent("echo no such database >&2; exit 3");
    assert_eq!(came.exit, 10);
    let report = came.report();
    let told = report["rows"][0]["came"].as_str().unwrap();
    assert!(told.contains("exit status: 3") && told.contains("no such database"), "{told}");
}

#[test]
fn nobody_plays_coordinator_where_one_lives() {
    let prefix = "kit-occupied";
    let applied =
        run(&["topics", "apply", "--kafka", KAFKA.bootstrap(), "--prefix", prefix, "--replication", "1"]);
    assert_eq!(applied.exit, 0, "{}", applied.err);
    let came = check(&[&INPUT[..], &["--prefix", prefix]].concat());
    assert_eq!(came.exit, 4, "{}", came.err);
    assert!(came.err.contains("a coordinator"), "{}", came.err);
}

#[test]
fn one_that_runs_already_is_asked_and_not_killed() {
    let folder = Folder::new("kit-running");
    let place = ["--kafka", KAFKA.bootstrap(), "--prefix", "kit-running"];
    let arguments: Vec<OsString> =
        [&["participant", "shipping"], &place[..]].concat().into_iter().map(OsString::from).collect();
    let mut shipping = Process::spawn(&folder, "shipping", OsStr::new(program()), &arguments);
    let input = r#"{"country":"France"}"#;
    let came = check(&[
        "--prefix",
        "kit-running",
        "--name",
        "shipping",
        "--input",
        input,
        "--timeout",
        "20s",
        "-o",
        "json",
    ]);
    assert_eq!((came.exit, came.rows("fail").len()), (0, 0), "{}", came.err);
    let report = came.report();
    let kills: Vec<_> =
        report["rows"].as_array().unwrap().iter().filter(|row| row["group"] == "crash").collect();
    assert!(!kills.is_empty());
    for row in kills {
        assert_eq!((row["verdict"].as_str(), &report["kills"]), (Some("skipped"), &0.into()), "{row}");
    }
    assert!(shipping.ended().is_none(), "it goes on");
    assert!(came.err.contains("--observe"), "what was not seen is said: {}", came.err);
    assert!(topics("kit-running").is_empty(), "the topics of the run are gone: {:?}", topics("kit-running"));
}

fn topics(prefix: &str) -> Vec<String> {
    let client: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", KAFKA.bootstrap()).create().unwrap();
    let metadata = client.client().fetch_metadata(None, Duration::from_secs(20)).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

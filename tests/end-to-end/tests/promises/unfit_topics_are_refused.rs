//! A server does not run on topics that would break a promise: it names topic, setting, value and remedy, and ends with
//! the exit code of a negative check.

use std::time::Duration;

use sagamore_end_to_end::KAFKA;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::{alter, grow};

use crate::{PROGRAM, stage};

const REFUSED_WITHIN: Duration = Duration::from_secs(30);
const CHECK_NEGATIVE: i32 = 10;

/// A server that must not run: what it says at its end.
fn refused(stage: &Stage, number: usize, arguments: &[&str]) -> String {
    let mut server = stage.try_server(number, arguments);
    let code = server.process.wait(REFUSED_WITHIN);
    let said = server.process.log();
    assert_eq!(code, CHECK_NEGATIVE, "{said}");
    said
}

#[test]
fn unfit_topics_are_refused() {
    let stage = stage("unfit");
    let unfit = [
        ("inbox", "cleanup.policy", "compact"),
        ("state", "cleanup.policy", "delete"),
        ("state", "cleanup.policy", "compact,delete"),
        ("inbox", "retention.ms", "604800000"),
        ("definitions", "cleanup.policy", "compact"),
    ];
    for (number, (topic, setting, value)) in unfit.into_iter().enumerate() {
        let topic = stage.topic(topic);
        alter(stage.bootstrap(), &topic, &[(setting, value)]);
        let said = refused(&stage, number, &["--development"]);
        let line = said.lines().find(|line| line.contains(&format!("{topic} {setting}={value}")));
        let line = line.unwrap_or_else(|| panic!("{topic} {setting}={value} is not named:\n{said}"));
        assert!(
            line.contains("wanted: ") && line.contains("; sagamore topics apply"),
            "with its remedy: {line}"
        );
        assert!(said.contains("SAG-007"), "{said}");
        stage.must(&["topics", "check", "--development"], CHECK_NEGATIVE);
        stage.must(&["topics", "apply", "--partitions", "4", "--replication", "1"], 0);
        stage.must(&["topics", "check", "--development"], 0);
    }

    let said = refused(&stage, 10, &[]);
    assert!(
        said.contains("replication") && said.contains("wanted: "),
        "one broker is not production: {said}"
    );

    grow(stage.bootstrap(), &stage.topic("inbox"), 6);
    let said = refused(&stage, 11, &["--development"]);
    assert!(said.contains("unfit.inbox partitions=6 (wanted: 4"), "the one that was changed: {said}");
    assert!(!said.contains("delete the topic"), "no advice that loses transactions: {said}");
}

#[test]
fn missing_topics_are_refused() {
    let stage = Stage::bare(KAFKA.bootstrap(), PROGRAM, "missing");
    let said = refused(&stage, 1, &["--development"]);
    assert!(said.contains("SAG-009") && said.contains("missing.state"), "{said}");
    assert!(said.contains("sagamore topics apply"), "{said}");
}

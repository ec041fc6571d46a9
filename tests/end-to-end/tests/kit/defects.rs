//! Who breaks a rule is found, at the rows that say so and at no others.

use std::collections::BTreeSet;

use crate::naive;
use crate::observer::of_lines;
use crate::run::{check, myself, side_by_side};

/// What is broken, and the rows that see it.
const DEFECTS: &[(&str, &[&str])] = &[
    ("drops-token", &["answers/echo"]),
    ("first-attempt", &["answers/echo"]),
    ("any-partition", &["answers/partition"]),
    ("no-key", &["answers/key"]),
    ("in-a-kafka-transaction", &["answers/plain"]),
    ("replies-anywhere", &["answers/elsewhere"]),
    ("no-unknown", &["answers/unknown-attributes"]),
    ("does-it-again", &["duplicates/one-effect", "duplicates/burst", "saga/undo-once", "watermark/seen"]),
    (
        "says-duplicate",
        &[
            "duplicates/same-answer",
            "duplicates/burst",
            "saga/undo-once",
            "saga/empty",
            "saga/refused",
            "commitment/duplicates",
            "commitment/abort",
            "commitment/abort-first",
            "commitment/refused",
            "commitment/precommit",
            "watermark/seen",
            "doubt/silent",
            "doubt/waits",
            "doubt/commit",
        ],
    ),
    ("ignores-birth", &["duplicates/another-birth"]),
    ("ignores-branch", &["duplicates/another-branch"]),
    ("ignores-instance", &["duplicates/another-instance"]),
    ("undoes-nothing", &["saga/empty"]),
    ("undoes-refused", &["saga/refused-undo"]),
    ("forgets-cancelled", &["saga/late", "commitment/abort-first"]),
    ("asks-business-again", &["saga/refused", "commitment/refused"]),
    ("commits-unprepared", &["commitment/unprepared", "commitment/precommit-unprepared"]),
    ("commits-twice", &["commitment/duplicates", "doubt/commit"]),
    ("overtakes", &["order/one-branch", "order/one-key"]),
    ("does-the-expired", &["watermark/expired"]),
    ("one-watermark", &["watermark/home"]),
    ("forgets-behind", &["watermark/vote"]),
    ("dirty-reads", &["kafka/aborted"]),
    ("never-asks", &["doubt/asks"]),
    ("answers-decisions", &["doubt/silent"]),
    ("ignores-decisions", &["doubt/commit"]),
    ("decides-alone", &["doubt/waits"]),
    ("stops-at-garbage", &["malformed/json"]),
    ("any-type", &["malformed/type"]),
    ("silent-on-shape", &["malformed/shape"]),
    ("blocks-on-shape", &["malformed/shape"]),
    ("dies-at-a-tombstone", &["run/stays"]),
    ("commits-early", &["crash/redelivered"]),
    ("keeps-late", &["answers/effect"]),
    ("effect-apart", &["crash/once", "crash/undo"]),
    ("votes-in-memory", &["crash/vote", "crash/asks"]),
];

/// Those that stand in nobody's way can be broken by one participant at once.
const TOGETHER: &[&[&str]] = &[
    &[],
    &[
        "drops-token",
        "any-partition",
        "no-key",
        "ignores-birth",
        "commits-unprepared",
        "never-asks",
        "any-type",
    ],
    &["in-a-kafka-transaction", "ignores-branch", "undoes-nothing", "does-the-expired", "answers-decisions"],
    &[
        "first-attempt",
        "replies-anywhere",
        "ignores-instance",
        "undoes-refused",
        "one-watermark",
        "dirty-reads",
    ],
    &[
        "no-unknown",
        "forgets-cancelled",
        "asks-business-again",
        "commits-twice",
        "forgets-behind",
        "decides-alone",
    ],
    &["does-it-again", "ignores-decisions", "overtakes", "stops-at-garbage"],
    &["says-duplicate", "silent-on-shape"],
    &["dies-at-a-tombstone"],
    &["blocks-on-shape"],
    &["commits-early"],
    &["keeps-late"],
    &["effect-apart"],
    &["votes-in-memory"],
];

#[test]
#[ignore = "a process that the kit starts"]
fn is_a_participant() {
    if std::env::var_os(naive::FILE).is_some() {
        naive::run();
    }
}

#[test]
fn who_breaks_a_rule_is_found_at_that_rule() {
    let each: Vec<&[&str]> = DEFECTS.iter().map(|(name, _)| std::slice::from_ref(name)).collect();
    let is_each = std::env::var("SAGAMORE_KIT").is_ok_and(|what| what == "each");
    let named: BTreeSet<&str> = TOGETHER.concat().into_iter().collect();
    assert_eq!(named, DEFECTS.iter().map(|(name, _)| *name).collect(), "each defect is broken by somebody");
    let folder = tempfile::tempdir().unwrap();
    side_by_side(if is_each { &each } else { TOGETHER }, |defects| {
        let (name, broken) = (defects.join(","), rows(defects));
        let file = folder.path().join(format!("{name}.jsonl")).display().to_string();
        let log = folder.path().join(format!("{name}.log")).display().to_string();
        let command = myself(&[(naive::DEFECTS, &name), (naive::FILE, &file)], "defects::is_a_participant");
        let observe = of_lines(&file, "[^n]did.:.{subject}[\"]", "undid.:.{subject}[\"]");
        let is_about_kills = name.is_empty() || broken.iter().any(|row| row.starts_with("crash/"));
        let kills = if is_about_kills { "2" } else { "0" };
        let only = if is_about_kills && !name.is_empty() { "crash" } else { "" };
        let said = check(&[
            "--name",
            "naive",
            "--command",
            &command,
            "--input",
            r#"{"number":{n}}"#,
            "--refused",
            r#"{"refuse":true}"#,
            "--operations",
            "all",
            "--observe",
            &observe,
            "--asks-within",
            "8s",
            "--timeout",
            "8s",
            "--kills",
            kills,
            "--only",
            only,
            "--seed",
            "7",
            "--log-file",
            &log,
            "-o",
            "json",
        ]);
        println!("[{name}]: {}", said.summary());
        let printed = std::fs::read_to_string(&log).unwrap_or_default();
        let printed: Vec<&str> = printed.lines().rev().take(8).collect();
        said.fails(&name, &broken).map_err(|wrong| format!("{wrong}\nit printed: {printed:#?}"))
    });
}

/// What sees them.
fn rows(defects: &[&str]) -> Vec<&'static str> {
    let of_them = DEFECTS.iter().filter(|(name, _)| defects.contains(name));
    of_them.flat_map(|(_, rows)| rows.iter().copied()).collect()
}

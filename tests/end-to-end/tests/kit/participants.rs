//! Who keeps the rules: our stores, Python, Java. And one that forgets, at the kills.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use sagamore_end_to_end::{KAFKA, topics};
use sagamore_local_postgres::LocalPostgres;

use crate::observer::{of_lines, of_postgres, of_sqlite};
use crate::run::{check, program, side_by_side};

/// How often each is killed.
fn kills() -> String {
    std::env::var("SAGAMORE_KILLS").unwrap_or_else(|_| "1".to_owned())
}

static POSTGRES: LazyLock<LocalPostgres> = LazyLock::new(|| {
    LocalPostgres::start(&[("max_prepared_transactions", "200")]).unwrap_or_else(|error| panic!("{error}"))
});

struct Subject {
    name: &'static str,
    command: String,
    input: &'static str,
    refused: &'static str,
    operations: &'static str,
    /// What its steps have as `key`; empty: nothing.
    key: &'static str,
    observe: String,
    /// What it cannot keep.
    fails: &'static [&'static str],
}

/// Whatever happens to points is an event here, too.
const EVENTS: &str = "kit-events";

/// What is left to one that keeps everything in its process, once that is killed.
const FORGETS: [&str; 5] = ["crash/answers", "crash/cancelled", "crash/once", "crash/refused", "crash/undo"];

#[test]
fn who_keeps_the_rules_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mut subjects = of_ours(folder.path());
    subjects.extend(python(folder.path()));
    subjects.push(java(folder.path()));
    topics::create(KAFKA.bootstrap(), EVENTS, 3);
    side_by_side(&subjects, |subject| {
        let log = folder.path().join(format!("{}.log", subject.name)).display().to_string();
        let said = check(&[
            "--name",
            subject.name,
            "--command",
            &subject.command,
            "--input",
            subject.input,
            "--refused",
            subject.refused,
            "--operations",
            subject.operations,
            "--key",
            subject.key,
            "--observe",
            &subject.observe,
            "--asks-within",
            "30s",
            "--timeout",
            "20s",
            "--kills",
            &kills(),
            "--log-file",
            &log,
            "-o",
            "json",
        ]);
        println!("{}: {}", subject.name, said.summary());
        said.fails(subject.name, subject.fails)
    });
}

fn of_ours(folder: &Path) -> Vec<Subject> {
    let file = |name: &str| folder.join(name).display().to_string();
    let example = |example: &str, more: &str| {
        format!(
            "exec '{}' participant {example} --name {{name}} --kafka {{kafka}} --prefix {{prefix}} --asks-after 1s {more}",
            program()
        )
    };
    let url = POSTGRES.url();
    let parcels = "SELECT coalesce(sum(amount), 0)::bigint FROM effects WHERE subject = '{subject}'";
    let balance = |account: &str| {
        format!(
            "SELECT coalesce((SELECT balance_cents FROM accounts WHERE account = '{account}{{n}}'), 1000000)"
        )
    };
    let bank = |name, votes: &str, input, refused, account: &str| Subject {
        name,
        command: example("bank", &format!("--postgres '{url}' --votes {votes}")),
        input,
        refused,
        operations: "all",
        key: "",
        observe: of_postgres(&url, &balance(account)),
        fails: &[],
    };
    let shipping = |name, command, observe, fails| Subject {
        name,
        command,
        input: r#"{"country":"France"}"#,
        refused: r#"{"country":"Norway"}"#,
        operations: "saga",
        key: "",
        observe,
        fails,
    };
    let (effects, sqlite) = (file("effects.jsonl"), file("replica.db"));
    vec![
        shipping(
            "memory",
            example("shipping", &format!("--effects '{effects}'")),
            of_lines(&effects, "applied.*/{subject}/", "undone.*/{subject}/"),
            &FORGETS,
        ),
        // A name that is no user's of the database: a schema of that name would come first in its search path.
        shipping(
            "parcels",
            example("shipping", &format!("--postgres '{url}'")),
            of_postgres(&url, parcels),
            &[],
        ),
        bank(
            "holds",
            "holds",
            r#"{"account":"h{n}","debit_cents":5}"#,
            r#"{"account":"h{n}","debit_cents":2000000}"#,
            "h",
        ),
        bank(
            "prepared",
            "prepared",
            r#"{"account":"p{n}","debit_cents":5}"#,
            r#"{"account":"p{n}","debit_cents":2000000}"#,
            "p",
        ),
        Subject {
            name: "points",
            command: example("points", &format!("--events {EVENTS} --replication 1 --development")),
            input: r#"{"customer":"c{n}","points":40}"#,
            refused: r#"{"customer":"c{n}","points":-40}"#,
            operations: "all",
            key: "c{n}",
            // Its table is a topic: an answer is looked at, the table by the test of the databases.
            observe: String::new(),
            fails: &[],
        },
        Subject {
            name: "sqlite",
            command: example("replica", &format!("--sqlite '{sqlite}'")),
            input: r#"{"row":"r{n}","from":0,"value":{n}}"#,
            refused: r#"{"row":"r{n}","from":7,"value":{n}}"#,
            operations: "three-phase",
            key: "",
            observe: of_sqlite(
                &sqlite,
                "SELECT coalesce((SELECT version FROM replica_rows WHERE name = 'r{n}'), 0)",
            ),
            fails: &[],
        },
    ]
}

fn python(folder: &Path) -> Option<Subject> {
    let Ok(python) = std::env::var("SAGAMORE_PYTHON") else {
        println!(
            "python: skipped: SAGAMORE_PYTHON names no Python with confluent-kafka; tests/run sees to that"
        );
        return None;
    };
    let store = folder.join("python.db").display().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../participants/python/shipping.py");
    Some(Subject {
        name: "python",
        command: format!("exec '{python}' '{script}' --participant {{name}} --store '{store}'"),
        input: r#"{"country":"France"}"#,
        refused: r#"{"country":"Norway"}"#,
        operations: "saga",
        key: "",
        observe: of_sqlite(&store, "SELECT count(*) FROM parcels WHERE subject = '{subject}'"),
        fails: &[],
    })
}

/// Compiled once: each start of a source file would compile it again.
fn java(folder: &Path) -> Subject {
    let (java, classpath) = sagamore_local_kafka::java().unwrap_or_else(|error| panic!("{error}"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../participants/java/Shipping.java");
    let compiled = Command::new(java.with_file_name("javac"))
        .args(["-cp", &classpath, "-d"])
        .arg(folder)
        .arg(script)
        .output()
        .unwrap_or_else(|error| panic!("javac: {error}: a JDK has it beside java"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let store = folder.join("java.jsonl").display().to_string();
    Subject {
        name: "java",
        command: format!(
            "exec '{}' -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp '{}:{classpath}' Shipping --store '{store}' \
             --asks-after-ms 1000",
            java.display(),
            folder.display()
        ),
        input: r#"{"country":"France"}"#,
        refused: r#"{"country":"Norway"}"#,
        operations: "all",
        key: "",
        observe: of_lines(&store, "booked.:.{subject}[\"]", "returned.:.{subject}[\"]"),
        fails: &[],
    }
}

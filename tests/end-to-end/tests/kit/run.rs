//! One run of the kit, as a process.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use sagamore_end_to_end::KAFKA;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagamore-under-test");
/// Runs at a time: each is a process of ours, one of the kit, and a client's threads.
const AT_A_TIME: usize = 6;

/// What a run said, and how it ended.
pub struct Said {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

/// `sagamore participant check` with these arguments, and Kafka's address.
pub fn check(arguments: &[&str]) -> Said {
    run(&[&["participant", "check", "--kafka", KAFKA.bootstrap()], arguments].concat())
}

/// `sagamore` with these arguments.
pub fn run(arguments: &[&str]) -> Said {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SAGAMORE_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    Said {
        exit: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program under test, for a command of a participant.
pub fn program() -> &'static str {
    PROGRAM
}

impl Said {
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }

    /// The line that says how many rows passed, and how long it took.
    pub fn summary(&self) -> &str {
        self.err.lines().find(|line| line.contains(" passed, ")).unwrap_or_default()
    }

    /// The ids of rows with this verdict.
    pub fn rows(&self, verdict: &str) -> BTreeSet<String> {
        let report = self.report();
        let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == verdict);
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    /// That these rows fail, and no others.
    pub fn fails(&self, name: &str, rows: &[&str]) -> Result<(), String> {
        if self.out.is_empty() {
            return Err(format!("{name}: exit {}, and no verdict: {}", self.exit, self.err));
        }
        let (found, wanted) = (self.rows("fail"), rows.iter().map(|row| (*row).to_owned()).collect());
        let exit = if rows.is_empty() { 0 } else { 10 };
        if (self.exit, &found) == (exit, &wanted) {
            return Ok(());
        }
        let report = self.report();
        let different: BTreeSet<_> = found.symmetric_difference(&wanted).collect();
        let mut told = format!("{name}: exit {}, wanted {exit}; {}", self.exit, self.err);
        for row in report["rows"].as_array().unwrap() {
            if different.contains(&row["id"].as_str().unwrap().to_owned()) {
                writeln!(
                    told,
                    "  {}: {} {}\n    sent {}\n    expected {}\n    came {}",
                    row["id"], row["verdict"], row["note"], row["sent"], row["expected"], row["came"]
                )
                .unwrap();
            }
        }
        Err(told)
    }
}

/// Runs these side by side, some at a time, and fails with all that is wrong.
pub fn side_by_side<T: Sync>(of: &[T], run: impl Fn(&T) -> Result<(), String> + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(one) = of.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(what) = run(one) {
                        wrong.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// This very program, as another process that runs one of its tests.
pub fn myself(variables: &[(&str, &str)], test: &str) -> String {
    let exe = std::env::current_exe().unwrap().display().to_string();
    let variables: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let variables = variables.join(" ");
    format!("{variables} exec '{exe}' --exact {test} --ignored --nocapture")
}

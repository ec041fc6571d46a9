//! The example bank on PostgreSQL as a process: this test, started once more.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use sagamore_end_to_end::process::Process;
use sagamore_end_to_end::stage::Stage;
use sagamore_examples::bank_on_postgres::{Votes, spawn};
use sagamore_examples::{Injection, Settings};
use sagamore_kafka::client::ClientSettings;
use sagamore_local_postgres::LocalPostgres;

/// Enough for all transfers but those that are too dear.
pub const OPENING_CENTS: u64 = 100_000;
const ASKS_AFTER: Duration = Duration::from_secs(2);
/// How often a process that has just begun looks for its database.
const OPENS_EVERY: Duration = Duration::from_millis(200);

/// One process.
pub struct Teller {
    stage: Stage,
    name: &'static str,
    variables: Vec<String>,
    starts: usize,
    process: Process,
}

impl Teller {
    /// Holds, and sagas.
    pub fn new(stage: &Stage, name: &'static str, database: &LocalPostgres) -> Self {
        Self::spawn(stage, name, "holds", database)
    }

    /// Prepared transactions.
    pub fn bank(stage: &Stage, name: &'static str, database: &LocalPostgres) -> Self {
        Self::spawn(stage, name, "prepared", database)
    }

    fn spawn(stage: &Stage, name: &'static str, votes: &str, database: &LocalPostgres) -> Self {
        let variables = vec![
            format!("BANK_NAME={name}"),
            format!("BANK_VOTES={votes}"),
            format!("BANK_URL={}", database.url()),
            format!("BANK_KAFKA={}", stage.bootstrap()),
            format!("BANK_PREFIX={}", stage.topic("").trim_end_matches('.')),
        ];
        let process = start(stage, name, 1, &variables);
        Self { stage: stage.clone(), name, variables, starts: 1, process }
    }

    /// `kill -9`, and a new one.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.starts += 1;
        self.process = start(&self.stage, self.name, self.starts, &self.variables);
    }
}

fn start(stage: &Stage, name: &str, start: usize, variables: &[String]) -> Process {
    let program = std::env::current_exe().unwrap().display().to_string();
    let test = ["--ignored", "--exact", "bank_process", "--nocapture"];
    let arguments: Vec<&str> =
        variables.iter().map(String::as_str).chain([program.as_str()]).chain(test).collect();
    stage.spawn_other(&format!("{name}.{start}"), "env", &arguments)
}

/// What the process does.
pub fn run() {
    let of =
        |name: &str| std::env::var_os(name).and_then(|value: OsString| value.into_string().ok()).unwrap();
    let name = of("BANK_NAME");
    let runtime = sagamore_participant::Settings {
        workers: NonZeroUsize::new(4).unwrap(),
        asks_after: ASKS_AFTER,
        ..sagamore_participant::Settings::new(
            ClientSettings::new(of("BANK_KAFKA")),
            of("BANK_PREFIX").parse().unwrap(),
            name.parse().unwrap(),
        )
    };
    let mut settings = Settings::new(runtime);
    settings.opening_cents = OPENING_CENTS;
    let seed = name.bytes().map(u64::from).sum();
    settings.injection = Injection { seed, refuse_percent: 10, fail_percent: 5, ..Injection::default() };
    let votes = if of("BANK_VOTES") == "prepared" { Votes::Prepared } else { Votes::Holds };
    let handle = loop {
        match spawn(&of("BANK_URL"), votes, &settings) {
            Ok(handle) => break handle,
            Err(error) => {
                eprintln!("{error}");
                thread::sleep(OPENS_EVERY);
            }
        }
    };
    while handle.is_running() {
        thread::sleep(Duration::from_secs(1));
    }
    eprintln!("{:?}", handle.join());
}

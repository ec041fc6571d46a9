//! A bank: a database, two relays of which one is active, and a worker in SQL.

use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use sagamore_end_to_end::http::RUNTIME;
use sagamore_end_to_end::process::Process;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use sagamore_local_postgres::LocalPostgres;
use serde_json::Value;
use tokio_postgres::{Client, Error, NoTls, Row};

const READY_WITHIN: Duration = Duration::from_secs(40);
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const WORKS_EVERY: Duration = Duration::from_millis(10);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// What an active relay says of itself, and what one that is active no longer.
const RELAYING: &str = "relaying";
const NOT_RELAYING: [&str; 2] = ["standing by", "do not answer"];

pub struct Bank {
    stage: Stage,
    name: &'static str,
    pub database: LocalPostgres,
    relays: [Relay; 2],
    worker: Process,
    starts: usize,
}

struct Relay(Process);

impl Relay {
    /// By the last that it says of itself.
    fn is_active(&self) -> bool {
        let log = self.0.log();
        let lost = NOT_RELAYING.iter().filter_map(|word| log.rfind(word)).max();
        log.rfind(RELAYING).is_some_and(|at| lost.is_none_or(|lost| lost < at))
    }
}

impl Bank {
    /// With fsync, as in production.
    pub fn open(stage: &Stage, name: &'static str) -> Self {
        let database = LocalPostgres::start(&[]).unwrap_or_else(|error| panic!("{error}"));
        let url = database.url();
        let relay = |number| Relay(relay(stage, name, &url, number));
        let relays = [relay(1), relay(2)];
        wait::until(READY_WITHIN, &format!("a relay of {name} is active"), || {
            relays.iter().any(Relay::is_active)
        });
        query(&url, include_str!("bank.sql")).unwrap();
        let worker = worker_process(stage, name, &url, 1);
        Self { stage: stage.clone(), name, database, relays, worker, starts: 2 }
    }

    /// `kill -9` of the active one, a new one in its place; after how long the other one was active.
    pub fn kill_active_relay(&mut self) -> Duration {
        let what = format!("a relay of {} is active", self.name);
        let active = wait::until_some(READY_WITHIN, &what, || self.relays.iter().rposition(Relay::is_active));
        let other = 1 - active;
        self.relays[active].0.kill();
        let took = wait::until(READY_WITHIN, &what, || self.relays[other].is_active());
        self.starts += 1;
        self.relays[active] = Relay(relay(&self.stage, self.name, &self.database.url(), self.starts));
        took
    }

    /// `kill -9`, and a new one.
    pub fn kill_worker(&mut self) {
        self.worker.kill();
        self.starts += 1;
        self.worker = worker_process(&self.stage, self.name, &self.database.url(), self.starts);
    }

    /// Waits until nothing is open, in doubt or still to leave.
    pub fn wait_settled(&mut self, patience: Duration) {
        wait::until(patience, &format!("nothing is left to do in {}", self.name), || {
            self.number(
                "SELECT (SELECT count(*) FROM sagamore.outbox)
                     + (SELECT count(*) FROM sagamore.commands WHERE answer IS NULL OR in_doubt)",
            ) == 0
        });
    }

    pub fn number(&self, text: &str) -> i64 {
        self.rows(text)[0].get(0)
    }

    pub fn rows(&self, text: &str) -> Vec<Row> {
        let (client, _) = connect(&self.database.url()).unwrap();
        RUNTIME.block_on(client.query(text, &[])).unwrap()
    }

    /// Ends the relays gracefully, and looks at what they say.
    pub fn end(&mut self) {
        for relay in &mut self.relays {
            relay.0.signal("TERM");
            let code = relay.0.wait(ENDS_WITHIN);
            assert_eq!(code, 0, "{}", relay.0.log());
            let counters: Value = serde_json::from_str(&relay.0.out()).unwrap();
            println!("{}: {counters}", relay.0.name());
            assert_eq!((&counters["refused"], &counters["alarms"]), (&0.into(), &0.into()));
        }
    }
}

fn relay(stage: &Stage, name: &str, url: &str, number: usize) -> Process {
    let prefix = stage.topic("");
    let prefix = prefix.trim_end_matches('.');
    let arguments = [
        "outbox",
        "--postgres",
        url,
        "--kafka",
        stage.bootstrap(),
        "--prefix",
        prefix,
        "--participant",
        name,
        "--asks-after",
        "2s",
        "-o",
        "json",
    ];
    stage.spawn(&format!("{name}-relay.{number}"), &arguments.map(OsString::from))
}

/// This very program, as a worker.
fn worker_process(stage: &Stage, name: &str, url: &str, number: usize) -> Process {
    let program = std::env::current_exe().unwrap().display().to_string();
    let variables = [format!("BANK_URL={url}"), format!("BANK_NAME={name}")];
    let arguments = [&variables[0], &variables[1], &program, "--ignored", "--exact", "worker", "--nocapture"];
    stage.spawn_other(&format!("{name}-worker.{number}"), "env", &arguments)
}

/// Calls `work` for ever.
pub fn worker() -> ! {
    let url = std::env::var("BANK_URL").unwrap();
    let statement = format!("SELECT work('{}')", std::env::var("BANK_NAME").unwrap());
    loop {
        let ended = connect(&url).and_then(|(client, _)| {
            loop {
                let row = RUNTIME.block_on(client.query_one(&statement, &[]))?;
                if !row.get::<_, bool>(0) {
                    thread::sleep(WORKS_EVERY);
                }
            }
        });
        let Err::<(), Error>(cause) = ended else { unreachable!("it ends with an error only") };
        eprintln!("{cause}: {:?}", cause.as_db_error());
        thread::sleep(AGAIN_AFTER);
    }
}

/// A client, and what drives it.
pub fn connect(url: &str) -> Result<(Client, tokio::task::JoinHandle<Result<(), Error>>), Error> {
    let (client, connection) = RUNTIME.block_on(tokio_postgres::connect(url, NoTls))?;
    Ok((client, RUNTIME.spawn(connection)))
}

fn query(url: &str, text: &str) -> Result<(), Error> {
    let (client, _) = connect(url)?;
    RUNTIME.block_on(client.batch_execute(text))
}

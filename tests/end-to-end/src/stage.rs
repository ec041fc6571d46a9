//! One installation: topics under a prefix, servers, participants, each a process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;

use crate::PARTITIONS;
use crate::checker::{self, Evidence, Tally};
use crate::http;
use crate::load::Intents;
use crate::process::{Folder, Process};
use crate::topics::{self, Reader};
use crate::wait;

/// How long a command of the command line may take.
const COMMAND_MAX: Duration = Duration::from_mins(1);
/// How long a server may take until it listens.
const LISTENING_WITHIN: Duration = Duration::from_secs(20);
/// How long the shards of a group may take to run: the session of a killed owner, and a takeover, on a busy machine.
const RUNNING_WITHIN: Duration = Duration::from_mins(1);
/// How long the last orders may take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(90);
/// How long a server that answers may take to do so.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Units on each shelf, so that nothing is refused but what is meant to be.
const PLENTY: u64 = 1_000_000_000;

/// The three examples, in the order of the saga.
pub const PARTICIPANTS: [&str; 3] = ["inventory", "payment", "shipping"];

/// An installation. Clones are the same one.
#[derive(Clone)]
pub struct Stage {
    bootstrap: String,
    prefix: String,
    program: PathBuf,
    folder: Arc<Folder>,
    replication: u32,
    /// Where the API of each server is, by its number.
    addresses: Arc<RwLock<BTreeMap<usize, String>>>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub error: String,
}

/// A server.
pub struct Server {
    stage: Stage,
    number: usize,
    starts: usize,
    more: Vec<String>,
    /// Its process.
    pub process: Process,
}

impl Stage {
    /// No topics yet. `program` is `sagamore`.
    pub fn bare(bootstrap: &str, program: &str, prefix: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: prefix.to_owned(),
            program: program.into(),
            folder: Folder::new(prefix),
            replication: u32::try_from(bootstrap.split(',').count()).unwrap_or(1),
            addresses: Arc::default(),
        }
    }

    /// With its topics.
    pub fn new(bootstrap: &str, program: &str, prefix: &str) -> Self {
        let stage = Self::bare(bootstrap, program, prefix);
        let (partitions, replication) = (PARTITIONS.to_string(), stage.replication.to_string());
        stage.must(&["topics", "apply", "--partitions", &partitions, "--replication", &replication], 0);
        stage
    }

    /// Where its Kafka is.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name of one of its topics.
    pub fn topic(&self, topic: &str) -> String {
        format!("{}.{topic}", self.prefix)
    }

    /// Runs a command of the command line against this Kafka and prefix.
    pub fn sagamore(&self, arguments: &[&str]) -> Finished {
        self.command(&[arguments, &["--kafka", &self.bootstrap, "--prefix", &self.prefix]].concat())
    }

    /// Runs a command that must end with this code.
    pub fn must(&self, arguments: &[&str], code: i32) -> Finished {
        let finished = self.sagamore(arguments);
        assert_eq!(finished.code, code, "{arguments:?}: {finished:?}");
        finished
    }

    /// Runs a command as it is.
    pub fn command(&self, arguments: &[&str]) -> Finished {
        let name = format!("{}-{}", arguments[..2.min(arguments.len())].join("-"), self.count());
        let mut process = self.spawn(&name, &arguments.iter().map(OsString::from).collect::<Vec<_>>());
        let code = process.wait(COMMAND_MAX);
        Finished { code, out: process.out(), error: process.log() }
    }

    /// Applies a definition from this crate's folder of them; the servers must be there.
    pub fn define(&self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions").join(format!("{name}.yaml"));
        self.must(&["define", "apply", &file.display().to_string(), "--wait", "40s"], 0);
    }

    /// Starts a server; it need not get as far as listening.
    pub fn try_server(&self, number: usize, more: &[&str]) -> Server {
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        let process = self.spawn(&format!("server-{number}.1"), &self.server_arguments(&more));
        Server { stage: self.clone(), number, starts: 1, more, process }
    }

    /// Starts a server and waits until it listens.
    pub fn server(&self, number: usize) -> Server {
        let development: &[&str] = if self.replication == 1 { &["--development"] } else { &[] };
        let server = self.try_server(number, development);
        server.wait_listening();
        server
    }

    /// Starts an example participant; its effects are written to a file.
    pub fn participant(&self, example: &str, more: &[&str]) -> Process {
        self.participant_as(example, example, more)
    }

    /// The same under a name of its own.
    pub fn participant_as(&self, example: &str, name: &str, more: &[&str]) -> Process {
        let effects = self.effects_file(name).display().to_string();
        let mut arguments = vec![
            "participant",
            example,
            "--name",
            name,
            "--kafka",
            &self.bootstrap,
            "--prefix",
            &self.prefix,
        ];
        arguments.extend(["--effects", &effects]);
        let products = self.folder().join("products.jsonl").display().to_string();
        if example == "inventory" {
            let line = |product: u32| format!("{{\"product\":{product},\"units_in_stock\":{PLENTY}}}\n");
            fs::write(&products, (1..=77).map(line).collect::<String>()).expect("a file can be written");
            arguments.extend(["--products", &products]);
        }
        let limit = PLENTY.to_string();
        if example == "payment" {
            arguments.extend(["--credit-limit-cents", &limit]);
        }
        if example == "bank" {
            arguments.extend(["--opening-cents", &limit]);
        }
        arguments.extend(more);
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        self.spawn(&format!("{name}-{}", self.count()), &arguments)
    }

    /// Starts the three examples. Together they refuse one order in ten, and fail now and then.
    pub fn participants(&self) -> Vec<Process> {
        let refusals = ["3", "3", "4"];
        let start = |(example, percent)| {
            self.participant(example, &["--refuse-percent", percent, "--fail-percent", "3", "--seed", "7"])
        };
        PARTICIPANTS.into_iter().zip(refusals).map(start).collect()
    }

    /// The API of one of the servers, as a start of an URL.
    pub fn some_address(&self, nth: u64) -> String {
        let addresses = self.addresses.read().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.len().max(1) as u64;
        addresses.values().nth(usize::try_from(nth % count).unwrap_or(0)).expect("there is a server").clone()
    }

    /// Waits until every shard runs on one of these servers.
    pub fn wait_running(&self, servers: &[&Server]) -> Duration {
        let what = format!("every shard of {} runs", self.prefix);
        wait::until(RUNNING_WITHIN, &what, || {
            let running: BTreeSet<i32> = servers.iter().flat_map(|server| server.running()).collect();
            i32::try_from(running.len()) == Ok(PARTITIONS)
        })
    }

    /// Waits until every order that was asked for has ended, then judges by the effects that participants have written
    /// to files. Panics with every violation.
    pub fn judge(&self, intents: &Intents) -> Tally {
        self.judge_by(intents, || self.effects())
    }

    /// The same, by other evidence of the effects.
    pub fn judge_by(&self, intents: &Intents, effects: impl FnOnce() -> Vec<Value>) -> Tally {
        let mut outcomes = Reader::new(&self.bootstrap, &self.topic("outcomes"));
        let what = format!("an outcome of each of {} orders of {}", intents.len(), self.prefix);
        wait::until(ENDED_WITHIN, &what, || {
            outcomes.catch_up();
            let documents: Vec<Value> = outcomes.records.iter().map(topics::Seen::json).collect();
            checker::not_ended(intents, &documents).is_empty()
        });
        let evidence = Evidence {
            intents: intents.clone(),
            outcomes: outcomes.records.iter().map(topics::Seen::json).collect(),
            effects: effects(),
            dead_letters: self
                .dead_letters()
                .iter()
                .map(|record| record.header("__dlq.errors.message"))
                .collect(),
        };
        match checker::check(&evidence) {
            Ok(tally) => {
                println!("{}: {tally}", self.prefix);
                tally
            }
            Err(violations) => panic!("{} violations:\n{}", violations.len(), violations.join("\n")),
        }
    }

    /// What is among the dead letters.
    pub fn dead_letters(&self) -> Vec<topics::Seen> {
        topics::read_all(&self.bootstrap, &self.topic("dead-letters"))
    }

    /// Every effect, in the order of each participant.
    pub fn effects(&self) -> Vec<Value> {
        let files = fs::read_dir(self.folder()).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_effects = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("effects-"))
        };
        let text: String =
            files.filter(is_effects).map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
    }

    /// Starts `sagamore`, or what else is in `arguments`.
    pub fn spawn(&self, name: &str, arguments: &[OsString]) -> Process {
        Process::spawn(&self.folder, name, self.program.as_os_str(), arguments)
    }

    /// Starts another program.
    pub fn spawn_other(&self, name: &str, program: &str, arguments: &[&str]) -> Process {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Process::spawn(&self.folder, name, program.as_ref(), &arguments)
    }

    /// The transaction as some server tells it.
    pub fn view(&self, nth: u64, id: &str) -> Result<http::Answer, String> {
        http::get(&format!("{}/v1/transactions/{id}", self.some_address(nth)), LOOK_MAX)
    }

    fn effects_file(&self, example: &str) -> PathBuf {
        self.folder().join(format!("effects-{example}.jsonl"))
    }

    /// So that each process has logs of its own.
    fn count(&self) -> usize {
        fs::read_dir(self.folder()).into_iter().flatten().count()
    }

    fn server_arguments(&self, more: &[String]) -> Vec<OsString> {
        let mut arguments = vec!["server", "--kafka", &self.bootstrap, "--prefix", &self.prefix];
        if !more.iter().any(|argument| argument == "--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        arguments.iter().map(OsString::from).chain(more.iter().map(OsString::from)).collect()
    }
}

impl Server {
    /// The start of the URLs of its API; waits until it listens.
    pub fn wait_listening(&self) -> String {
        let what = format!("{} listens", self.process.name());
        let address = wait::until_some(LISTENING_WITHIN, &what, || self.listens_at());
        let mut addresses = self.stage.addresses.write().unwrap_or_else(PoisonError::into_inner);
        addresses.insert(self.number, address.clone());
        address
    }

    /// `GET`, from this server.
    pub fn get(&self, path: &str) -> Result<http::Answer, String> {
        http::get(&format!("{}{path}", self.listens_at().ok_or("it does not listen")?), LOOK_MAX)
    }

    /// The status of `/health/ready`.
    pub fn ready(&self) -> Option<u16> {
        self.get("/health/ready").ok().map(|answer| answer.status)
    }

    /// The shards it runs.
    pub fn running(&self) -> Vec<i32> {
        let shards = self.get("/v1/shards").map(|answer| answer.body["shards"].clone()).unwrap_or_default();
        let shards = shards.as_object().cloned().unwrap_or_default();
        let running = shards.into_iter().filter(|(_, shard)| shard["state"] == "running");
        running.filter_map(|(partition, _)| partition.parse().ok()).collect()
    }

    /// `kill -9`, and a new one in its place, at another port.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.restart();
    }

    /// A new one in the place of one that has ended.
    pub fn restart(&mut self) {
        self.starts += 1;
        let name = format!("server-{}.{}", self.number, self.starts);
        self.process = self.stage.spawn(&name, &self.stage.server_arguments(&self.more));
        self.wait_listening();
    }

    fn listens_at(&self) -> Option<String> {
        let log = self.process.log();
        let line = log.lines().find(|line| line.contains("serving"))?;
        let (_, rest) = line.split_once("address=")?;
        Some(format!("http://{}", rest.split_whitespace().next()?))
    }
}

//! Another coordinator beside ours: the same loop, the same gate, the same plan, over lines with a driver of its own.
//!
//! ```text
//!   this process ──lines──▶ the peer's driver ──▶ its server ──▶ the saga and the participants
//!                                                   └──▶ PostgreSQL (ours to start) or its own files
//! ```
//! `peers/<name>/start FOLDER CLASS ORDER POSTGRES_PORT` is the driver; how it is built is `peers/run`'s. First it says
//! a line of JSON, what it is and whose processor time counts as what. Then, with its input's end as its own:
//!
//! | asked | answered | |
//! |---|---|---|
//! | `start RUN INDEX` | `ended RUN INDEX OUTCOME`, `failed RUN INDEX WHY` | in any order; a failure is the run's |
//! | `open` | `open COUNT` | what its own server says is in flight |
//! | `ledger RUN FILE` | `written` | the participants' effects, as `roles::read_ledger` reads them |
//!
//! Deliberately absent: anything that knows a peer's language; other workloads than the order saga.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sagamore_bench::workload::{Workload, order_data};
use sagamore_local_postgres::{LocalPostgres, POSTGRES_VERSION};
use sagamore_schemas::wire::OutcomeKind;
use serde::{Deserialize, Serialize};

use crate::gate::{self, Evidence};
use crate::load::{Ended, Ends, Seen, Starts};
use crate::roles::read_ledger;
use crate::system::{CountedTopic, Durability, Keeps, Processes, RunError, System};

/// A server with its schema, on a machine with other work.
const READY: Duration = Duration::from_mins(5);
/// A ledger of some 100,000 orders is written in a second.
const ANSWERED: Duration = Duration::from_mins(1);
/// A driver that does not end with its input in this time is killed with all it has started.
const ENDED: Duration = Duration::from_secs(15);

/// Whom users compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerKind {
    /// Durable execution, with a log of its own.
    Restate,
    /// Durable execution, on PostgreSQL.
    Temporal,
}

impl PeerKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Restate => "restate",
            Self::Temporal => "temporal",
        }
    }

    fn database(self, durability: Durability) -> Result<Option<LocalPostgres>, Box<dyn Error>> {
        let synchronous_commit = match durability {
            Durability::C => "off",
            Durability::P => "on",
        };
        match self {
            Self::Restate => Ok(None),
            Self::Temporal => {
                let settings = [
                    ("synchronous_commit", synchronous_commit),
                    ("shared_buffers", "512MB"),
                    ("max_wal_size", "4GB"),
                ];
                Ok(Some(LocalPostgres::start(&settings)?))
            }
        }
    }
}

/// What a system is, in its own words: versions, settings, what its durability means.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    pub system: &'static str,
    pub durability: Durability,
    pub told: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Hello {
    about: BTreeMap<String, String>,
    processes: HelloProcesses,
}

#[derive(Deserialize)]
struct HelloProcesses {
    orchestrator: u32,
    participants: u32,
    saga: Option<u32>,
}

/// What the driver says about one transaction.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Ended { run: u32, index: u64, outcome: OutcomeKind },
    Failed(String),
}

pub(crate) struct Peer {
    kind: PeerKind,
    durability: Durability,
    driver: Child,
    to: Option<Input>,
    ends: TheirEnds,
    answers: Receiver<String>,
    hello: Hello,
    database: Option<LocalPostgres>,
    scratch: tempfile::TempDir,
}

type Input = Arc<Mutex<ChildStdin>>;

impl Peer {
    /// Its database, its server, its participants; ready when it has ended a first saga.
    pub fn build(kind: PeerKind, folder: &Path, durability: Durability) -> Result<Self, Box<dyn Error>> {
        let database = kind.database(durability)?;
        let scratch = tempfile::tempdir()?;
        let program = folder.join(kind.as_str()).join("start");
        let port = database.as_ref().map(LocalPostgres::port).map(|port| port.to_string());
        let mut driver = Command::new(&program)
            .arg(scratch.path())
            .args([durability.as_str(), &order_data()])
            .args(port)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let (to, from) = driver.stdin.take().zip(driver.stdout.take()).ok_or("no pipe")?;
        let ((to_ends, ends), (to_answers, answers)) = (channel(), channel());
        std::thread::spawn(move || sort_lines(BufReader::new(from), &to_ends, &to_answers));
        let mut peer = Self {
            kind,
            durability,
            driver,
            to: Some(Arc::new(Mutex::new(to))),
            ends: TheirEnds { told: ends, run: 0 },
            answers,
            hello: Hello {
                about: BTreeMap::new(),
                processes: HelloProcesses { orchestrator: 0, participants: 0, saga: None },
            },
            database,
            scratch,
        };
        peer.hello = serde_json::from_str(&peer.answer(READY)?)?;
        Ok(peer)
    }

    pub fn about(&self) -> About {
        let mut told = self.hello.about.clone();
        if self.database.is_some() {
            told.insert(
                "database".to_owned(),
                format!("PostgreSQL {POSTGRES_VERSION}, shared_buffers 512MB, max_wal_size 4GB"),
            );
        }
        About { system: self.kind.as_str(), durability: self.durability, told }
    }

    fn answer(&self, patience: Duration) -> Result<String, Box<dyn Error>> {
        let name = self.kind.as_str();
        self.answers
            .recv_timeout(patience)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    format!("{name} does not answer within {} s", patience.as_secs())
                }
                RecvTimeoutError::Disconnected => format!("{name} has ended; its log says why"),
            })
            .map_err(Into::into)
    }

    fn ask(&self, line: &str) -> Result<String, Box<dyn Error>> {
        let to = self.to.as_ref().ok_or("its input is closed")?;
        say(to, line)?;
        self.answer(ANSWERED)
    }
}

fn say(to: &Input, line: &str) -> Result<(), String> {
    let mut to = to.lock().map_err(|_| "a thread panicked while it wrote")?;
    writeln!(to, "{line}").map_err(|error| error.to_string())
}

/// Ends of transactions to one queue, answers to the other; both close with the driver's output.
fn sort_lines(from: impl BufRead, ends: &Sender<Result<Told, String>>, answers: &Sender<String>) {
    for line in from.lines() {
        let sent = match line {
            Ok(line) => match parse(&line) {
                Some(told) => ends.send(told).is_ok(),
                None => answers.send(line).is_ok(),
            },
            Err(error) => ends.send(Err(error.to_string())).is_ok(),
        };
        if !sent {
            return;
        }
    }
}

/// `None` when the line is no transaction's.
fn parse(line: &str) -> Option<Result<Told, String>> {
    let (verb, rest) = line.split_once(' ')?;
    match verb {
        "failed" => Some(Ok(Told::Failed(rest.to_owned()))),
        "ended" => Some(parse_ended(rest).ok_or_else(|| format!("not understood: {line}"))),
        _ => None,
    }
}

fn parse_ended(rest: &str) -> Option<Told> {
    let words: Vec<&str> = rest.split(' ').collect();
    let [run, index, outcome] = words[..] else { return None };
    let outcome = match outcome {
        "committed" => OutcomeKind::Committed,
        "compensated" => OutcomeKind::Compensated,
        _ => return None,
    };
    Some(Told::Ended { run: run.parse().ok()?, index: index.parse().ok()?, outcome })
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.to.take());
        let begun = Instant::now();
        while begun.elapsed() < ENDED {
            if !matches!(self.driver.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let group = format!("-{}", self.driver.id());
        Command::new("kill").args(["-9", "--", &group]).status().ok();
        self.driver.wait().ok();
    }
}

struct TheirStarts {
    to: Input,
    run: u32,
}

impl Starts for TheirStarts {
    fn start(&mut self, index: u64) -> Result<(), String> {
        say(&self.to, &format!("start {} {index}", self.run))
    }
}

struct TheirEnds {
    told: Receiver<Result<Told, String>>,
    run: u32,
}

impl Ends for TheirEnds {
    fn next(&mut self, patience: Duration) -> Result<Option<Ended>, Box<dyn Error>> {
        match self.told.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("a peer has ended; its log says why".into()),
            Ok(told) => match told? {
                Told::Failed(why) => Err(format!("a transaction failed: {why}").into()),
                Told::Ended { run, index, outcome } => {
                    Ok((run == self.run).then_some(Ended { index, told: outcome }))
                }
            },
        }
    }
}

/// Starts that nobody hears: the input has been closed, which only [`Drop`] does.
struct Closed;

impl Starts for Closed {
    fn start(&mut self, _: u64) -> Result<(), String> {
        Err("its input is closed".to_owned())
    }
}

impl System for Peer {
    fn name(&self) -> &'static str {
        self.kind.as_str()
    }

    fn starts(&self, run: u32) -> Box<dyn Starts> {
        match &self.to {
            Some(to) => Box::new(TheirStarts { to: to.clone(), run }),
            None => Box::new(Closed),
        }
    }

    fn ends(&mut self, run: u32) -> &mut dyn Ends {
        self.ends.run = run;
        &mut self.ends
    }

    fn processes(&self) -> Processes {
        let HelloProcesses { orchestrator, participants, saga } = self.hello.processes;
        let database = self.database.as_ref().and_then(LocalPostgres::pid);
        let keeps = database.map_or(Keeps::Orchestrator, Keeps::Database);
        Processes { orchestrator, participants, saga, driver: Some(self.driver.id()), keeps }
    }

    fn topics(&self) -> &[CountedTopic] {
        &[]
    }

    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(())
    }

    fn check(&mut self, run: u32, seen: &Seen) -> Result<(), RunError> {
        let open = self.ask("open")?;
        let open = open.strip_prefix("open ").and_then(|count| count.parse().ok());
        let open = open.ok_or("it does not say how many are open").map_err(Box::from)?;
        let path = self.scratch.path().join("ledger");
        self.ask(&format!("ledger {run} {}", path.display()))?;
        let ledger = read_ledger(run, &path)?;
        gate::check(&Evidence {
            run,
            workload: Workload::Order,
            outcomes: &seen.outcomes,
            contradictions: &seen.contradictions,
            ledger: &ledger,
            open,
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_answers_are_told_apart() {
        let lines = "ended 3 17 committed\nopen 0\nended 3 9 compensated\nended 3 x committed\nended 3 1 lost\nfailed 3 4 why not\nwritten\n";
        let ((to_ends, ends), (to_answers, answers)) = (channel(), channel());
        sort_lines(lines.as_bytes(), &to_ends, &to_answers);
        drop((to_ends, to_answers));
        assert_eq!(answers.iter().collect::<Vec<_>>(), ["open 0", "written"]);
        let not_understood = |line: &str| Err(format!("not understood: {line}"));
        assert_eq!(
            ends.iter().collect::<Vec<_>>(),
            [
                Ok(Told::Ended { run: 3, index: 17, outcome: OutcomeKind::Committed }),
                Ok(Told::Ended { run: 3, index: 9, outcome: OutcomeKind::Compensated }),
                not_understood("ended 3 x committed"),
                not_understood("ended 3 1 lost"),
                Ok(Told::Failed("3 4 why not".to_owned())),
            ]
        );
    }

    #[test]
    fn a_failure_and_an_end_of_the_peer_end_the_run_and_other_runs_are_passed_over() {
        let (to_ends, told) = channel();
        let mut ends = TheirEnds { told, run: 2 };
        let mut next = |told: Option<Told>| {
            if let Some(told) = told {
                to_ends.send(Ok(told)).unwrap();
            }
            ends.next(Duration::from_millis(1)).map(|ended| ended.map(|ended| ended.index))
        };
        let end_of = |run| Told::Ended { run, index: 5, outcome: OutcomeKind::Committed };
        assert_eq!(next(None).unwrap(), None);
        assert_eq!(next(Some(end_of(2))).unwrap(), Some(5));
        assert_eq!(next(Some(end_of(1))).unwrap(), None);
        assert!(next(Some(Told::Failed("why".to_owned()))).unwrap_err().to_string().contains("why"));
        drop(to_ends);
        assert!(ends.next(Duration::from_millis(1)).is_err());
    }
}

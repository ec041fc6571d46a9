//! The processes beside the driver: the server as it is, and three participants that refuse what the plan says.
//!
//! Every participant keeps a ledger in the same local transaction as its effects; the gate reads it. The store is the
//! one in memory. Another store (PostgreSQL) takes a variant of [`StoreKind`], and its arm in [`participants`]: the
//! participant is written over the trait [`Books`], so that only where the ledger stands differs.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Read, Write};
use std::path::Path;

use sagamore::config::ServerConfig;
use sagamore::server::Server;
use sagamore_decider::owner::Pace;
use sagamore_kafka::client::ClientSettings;
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::{Command, Effect, Fault, Handle, Participant, Payload, Runtime, Settings};
use sagamore_schemas::ids::Span;
use sagamore_schemas::topics::Prefix;
use serde::{Deserialize, Serialize};

use sagamore_bench::workload::{Fate, Workload, participant_names};

/// Orders whose operations a participant remembers: more than any run has.
const BRANCHES_MAX: usize = 60_000_000;

/// Where participants keep effects and ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoreKind {
    /// In the participants' own memory.
    Memory,
}

pub(crate) fn server(kafka: ClientSettings, prefix: Prefix, lanes: usize) -> Result<(), Box<dyn Error>> {
    let mut server = Server::start(ServerConfig {
        kafka,
        prefix,
        listen: "127.0.0.1:0".parse()?,
        advertise: None,
        lanes,
        development: true,
        view: None,
        check_topics: true,
        reply_secret: None,
        snapshot_every: Span::default(),
        pace: Pace::default(),
    })?;
    println!("{}", server.address());
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    server.stop();
    Ok(())
}

/// Answers `ledger <run> <path>` with a line when the ledger of that run stands in the file.
pub(crate) fn participants(
    kafka: &ClientSettings,
    prefix: &Prefix,
    workload: Workload,
    store: StoreKind,
) -> Result<(), Box<dyn Error>> {
    match store {
        StoreKind::Memory => {
            let mut handles = Vec::new();
            let mut books = Vec::new();
            for name in participant_names() {
                let kept = MemoryStore::with_branches_max(Table::default(), BRANCHES_MAX);
                books.push(kept.clone());
                let settings = Settings::new(kafka.clone(), prefix.clone(), name);
                handles.push(Runtime::spawn(Planned { workload }, kept, &settings)?);
            }
            serve(&handles, |run, path| {
                let entries = books.iter().flat_map(|kept| {
                    kept.read(|ledger| {
                        let of_run = ledger.iter().filter(|(key, _)| key.run == run);
                        of_run.map(|(key, row)| (*key, *row)).collect::<Vec<_>>()
                    })
                });
                write_ledger(path, entries)
            })
        }
    }
}

fn serve(
    handles: &[Handle],
    ledger: impl Fn(u32, &Path) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (run, path) = line
            .strip_prefix("ledger ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or("only `ledger <run> <path>` is understood")?;
        ledger(run.parse()?, Path::new(path))?;
        println!("written");
    }
    handles.iter().for_each(Handle::stop);
    Ok(())
}

/// One place of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EffectKey {
    pub run: u32,
    pub index: u64,
    pub place: u16,
}

/// How often each thing was done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct EffectCount {
    /// `execute`, or `prepare` with a yes.
    pub done: u16,
    /// `compensate` or `abort`.
    pub undone: u16,
    /// `commit`.
    pub committed: u16,
}

fn write_ledger(
    path: &Path,
    entries: impl Iterator<Item = (EffectKey, EffectCount)>,
) -> Result<(), Box<dyn Error>> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for (key, count) in entries {
        writeln!(file, "{} {} {} {} {}", key.index, key.place, count.done, count.undone, count.committed)?;
    }
    file.flush()?;
    Ok(())
}

/// What [`participants`] has written, added up per place: no two participants share one.
pub(crate) fn read_ledger(run: u32, path: &Path) -> Result<BTreeMap<EffectKey, EffectCount>, Box<dyn Error>> {
    let mut ledger = BTreeMap::new();
    for line in std::io::BufReader::new(std::fs::File::open(path)?).lines() {
        let line = line?;
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [index, place, done, undone, committed] = numbers[..] else {
            return Err(format!("a line of the ledger: {line}").into());
        };
        let count = EffectCount {
            done: done.try_into()?,
            undone: undone.try_into()?,
            committed: committed.try_into()?,
        };
        ledger.insert(EffectKey { run, index, place: place.try_into()? }, count);
    }
    Ok(ledger)
}

/// An id of the bench: which run, and which transaction of it.
pub(crate) fn transaction_id(run: u32, index: u64) -> String {
    format!("r{run}-{index}")
}

pub(crate) fn parse_transaction_id(id: &str) -> Option<(u32, u64)> {
    let (run, index) = id.strip_prefix('r')?.split_once('-')?;
    Some((run.parse().ok()?, index.parse().ok()?))
}

/// Where a participant's ledger stands: in whatever its store gives to business code.
trait Books {
    fn change(&mut self, key: EffectKey, change: impl FnOnce(&mut EffectCount)) -> Result<(), Fault>;
}

impl Books for Table<EffectKey, EffectCount> {
    fn change(&mut self, key: EffectKey, change: impl FnOnce(&mut EffectCount)) -> Result<(), Fault> {
        let mut count = self.get(&key).copied().unwrap_or_default();
        change(&mut count);
        self.put(key, count);
        Ok(())
    }
}

/// Does what the plan says.
struct Planned {
    workload: Workload,
}

impl Planned {
    fn key(&self, command: &Command<'_>) -> Result<EffectKey, Fault> {
        let address = &command.address;
        let (run, index) = parse_transaction_id(address.subject.as_str())
            .ok_or_else(|| Fault::new("not an id of the bench"))?;
        let place = self
            .workload
            .place_of(&address.step, &address.branch)
            .ok_or_else(|| Fault::new("not a place of this workload"))?;
        Ok(EffectKey { run, index, place: u16::try_from(place)? })
    }

    fn forward(&self, books: &mut impl Books, command: &Command<'_>) -> Result<Effect, Fault> {
        let key = self.key(command)?;
        if self.workload.fate(key.index) == Fate::Refused(usize::from(key.place)) {
            return Ok(Effect::refused("planned"));
        }
        books.change(key, |count| count.done += 1)?;
        Ok(Effect::Done(Payload::Absent))
    }

    fn back(&self, books: &mut impl Books, command: &Command<'_>) -> Result<(), Fault> {
        books.change(self.key(command)?, |count| count.undone += 1)
    }
}

impl Participant for Planned {
    type Store = MemoryStore<Table<EffectKey, EffectCount>>;

    fn execute(
        &self,
        books: &mut Table<EffectKey, EffectCount>,
        command: &Command<'_>,
    ) -> Result<Effect, Fault> {
        self.forward(books, command)
    }

    fn compensate(
        &self,
        books: &mut Table<EffectKey, EffectCount>,
        command: &Command<'_>,
        _: &Payload,
    ) -> Result<(), Fault> {
        self.back(books, command)
    }

    fn prepare(
        &self,
        books: &mut Table<EffectKey, EffectCount>,
        command: &Command<'_>,
    ) -> Result<Effect, Fault> {
        self.forward(books, command)
    }

    fn commit(
        &self,
        books: &mut Table<EffectKey, EffectCount>,
        command: &Command<'_>,
        _: &Payload,
    ) -> Result<(), Fault> {
        books.change(self.key(command)?, |count| count.committed += 1)
    }

    fn abort(
        &self,
        books: &mut Table<EffectKey, EffectCount>,
        command: &Command<'_>,
        _: &Payload,
    ) -> Result<(), Fault> {
        self.back(books, command)
    }
}

//! Everything that runs: three brokers, two servers, two instances of each participant, each a process.
//!
//! The programs are copies of this one under other names, in the folder of the run: what is built meanwhile does not
//! get into it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sagamore_end_to_end::process::{Folder, Process};
use sagamore_end_to_end::{PARTITIONS, http, wait};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use serde_json::Value;

use crate::fate::{DEFINITIONS, PARTICIPANTS};
use crate::member::Member;
use crate::proxy::Proxy;

/// What the names of topics begin with.
pub const PREFIX: &str = "chaos";
/// `argv[0]` of a server, or of any other use of `sagamore`.
pub const SAGAMORE: &str = "sagamore";
/// `argv[0]` of a participant.
pub const PARTICIPANT: &str = "sagamore-chaos-participant";
/// Instances of each participant.
const INSTANCES: usize = 2;
const SERVERS: u16 = 2;
/// Below the ports that Linux and the brokers choose from.
const PORTS: std::ops::Range<u16> = 12_000..19_000;
/// Brokers that are busy with starting do not all know the new topics at once; an operator would apply again.
const APPLY_TRIES_MAX: usize = 5;
const COMMAND_MAX: Duration = Duration::from_mins(1);
const RUNNING_WITHIN: Duration = Duration::from_mins(1);
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The store that a full disk is made for.
pub const SMALL: &str = "till";
/// Room for an hour of it; what is free is taken away for a while.
const SMALL_MIB: u64 = 512;
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The installation under test.
pub struct World {
    folder: Arc<Folder>,
    bootstrap: String,
    kafka: Mutex<LocalKafka>,
    /// Between every process of ours and the brokers.
    pub proxy: Proxy,
    servers: Vec<Mutex<Member>>,
    addresses: Vec<String>,
    participants: Vec<Mutex<Member>>,
    /// Where the clock of the last server is set, if it can be.
    pub clock: Option<PathBuf>,
    /// A disk of its own for one participant, if one can be had.
    pub small_disk: Option<PathBuf>,
    /// What cannot be done here, and why.
    pub skipped: Vec<String>,
}

impl World {
    /// Brokers, topics, servers, definitions, participants, in this order.
    pub fn start(path: &Path, seed: u64) -> Result<Self, String> {
        let begun = Instant::now();
        let took = |what: &str| println!("{:>5.1} s  {what}", begun.elapsed().as_secs_f32());
        let say = |what: &str, error: std::io::Error| format!("{what}: {error}");
        fs::create_dir_all(path.join("bin")).map_err(|error| say("make the folder", error))?;
        let this = std::env::current_exe().map_err(|error| say("find this program", error))?;
        let sagamore = path.join("bin").join(SAGAMORE);
        let participant = path.join("bin").join(PARTICIPANT);
        fs::copy(this, &sagamore).map_err(|error| say("copy this program", error))?;
        fs::hard_link(&sagamore, &participant).map_err(|error| say("link the copy", error))?;
        let (kafka, proxy) = Proxy::with_kafka(ClusterSize::Three).map_err(|error| error.to_string())?;
        took("brokers");
        let bootstrap = kafka.bootstrap().to_owned();
        let folder = Folder::at(path.to_owned());
        let mut skipped = Vec::new();
        let clock = clock_of(path).map_err(|why| skipped.push(why)).ok();
        let small_disk = small_disk(path).map_err(|why| skipped.push(why)).ok();
        let through = proxy.bootstrap();
        let mut addresses = Vec::new();
        let servers = (1..=SERVERS)
            .map(|number| {
                let listen = format!("127.0.0.1:{}", free_port(seed, number));
                addresses.push(format!("http://{listen}"));
                let arguments = ["server", "--kafka", &through, "--prefix", PREFIX, "--listen", &listen];
                let clock = clock.as_deref().filter(|_| number == SERVERS);
                let (program, arguments) = under_clock(&sagamore, &arguments, clock);
                Mutex::new(Member::new(&folder, format!("server-{number}"), program, arguments))
            })
            .collect();
        let participants = PARTICIPANTS.iter().flat_map(|name| (1..=INSTANCES).map(move |nth| (*name, nth)));
        let participants = participants
            .map(|(name, nth)| {
                let store = store_of(path, small_disk.as_deref(), name).display().to_string();
                let seed = seed.to_string();
                let arguments =
                    [name, "--store", &store, "--kafka", &through, "--prefix", PREFIX, "--seed", &seed];
                let arguments = arguments.map(str::to_owned).to_vec();
                Mutex::new(Member::new(&folder, format!("{name}-{nth}"), participant.clone(), arguments))
            })
            .collect();
        let kafka = Mutex::new(kafka);
        let world = Self {
            folder,
            bootstrap,
            kafka,
            proxy,
            servers,
            addresses,
            participants,
            clock,
            small_disk,
            skipped,
        };
        let partitions = PARTITIONS.to_string();
        let apply = ["topics", "apply", "--partitions", &partitions, "--replication", "3"];
        let mut tries = 0;
        while let Err(why) = world.sagamore("topics", &apply) {
            tries += 1;
            println!("{why}");
            if tries >= APPLY_TRIES_MAX {
                return Err(why);
            }
        }
        took("topics");
        world.servers.iter().for_each(|server| lock(server).start());
        wait::until(RUNNING_WITHIN, "every shard runs", || world.running() == PARTITIONS);
        took("shards");
        thread::scope(|scope| {
            let apply = |name: &str, text: &str| {
                let file = path.join(format!("{name}.yaml"));
                fs::write(&file, text).map_err(|error| say("write a definition", error))?;
                world.sagamore(
                    &format!("define-{name}"),
                    &["define", "apply", &file.display().to_string(), "--wait", "40s"],
                )
            };
            let applied: Vec<_> =
                DEFINITIONS.iter().map(|(name, text, _)| scope.spawn(move || apply(name, text))).collect();
            let mut applied = applied.into_iter();
            applied.try_for_each(|one| one.join().expect("applying a definition does not panic"))
        })?;
        took("definitions");
        world.participants.iter().for_each(|participant| lock(participant).start());
        Ok(world)
    }

    /// Where everything of this run is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The brokers themselves, for whoever asks, writes and judges.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The name of a topic.
    pub fn topic(topic: &str) -> String {
        format!("{PREFIX}.{topic}")
    }

    /// The servers' APIs.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The server of this number, counted around.
    pub fn server(&self, nth: u64) -> MutexGuard<'_, Member> {
        lock(&self.servers[around(nth, self.servers.len())])
    }

    /// The participants' instance of this number, counted around.
    pub fn participant(&self, nth: u64) -> MutexGuard<'_, Member> {
        lock(&self.participants[around(nth, self.participants.len())])
    }

    /// Both instances of a participant.
    pub fn instances(&self, nth: u64) -> (&'static str, [MutexGuard<'_, Member>; INSTANCES]) {
        let first = around(nth, PARTICIPANTS.len());
        let at = |instance| lock(&self.participants[first * INSTANCES + instance]);
        (PARTICIPANTS[first], [at(0), at(1)])
    }

    /// Every process of ours.
    pub fn members(&self) -> impl Iterator<Item = MutexGuard<'_, Member>> {
        self.servers.iter().chain(&self.participants).map(lock)
    }

    /// The brokers.
    pub fn kafka(&self) -> MutexGuard<'_, LocalKafka> {
        lock(&self.kafka)
    }

    /// The store of each participant.
    pub fn stores(&self) -> Vec<(&'static str, PathBuf)> {
        let of = |name| (name, store_of(self.path(), self.small_disk.as_deref(), name));
        PARTICIPANTS.into_iter().map(of).collect()
    }

    /// How many shards run.
    pub fn running(&self) -> i32 {
        let mut running: BTreeMap<String, Value> = BTreeMap::new();
        for address in &self.addresses {
            let Ok(answer) = http::get(&format!("{address}/v1/shards"), LOOK_MAX) else { continue };
            let shards = answer.body["shards"].as_object().cloned().unwrap_or_default();
            running.extend(shards.into_iter().filter(|(_, shard)| shard["state"] == "running"));
        }
        i32::try_from(running.len()).unwrap_or(i32::MAX)
    }

    /// The UUID of the installation.
    pub fn instance(&self) -> Option<String> {
        let answer = http::get(&format!("{}/v1/shards", self.addresses[0]), LOOK_MAX).ok()?;
        Some(answer.body["instance"].as_str()?.to_owned())
    }

    /// Everything runs and answers: whatever a fault has left behind is started or continued.
    pub fn mend(&self) {
        self.proxy.clear();
        {
            let mut kafka = self.kafka();
            for index in 0..kafka.broker_count() {
                match kafka.broker_pid(index) {
                    Some(pid) => drop(crate::member::send(pid, "CONT")),
                    None => drop(kafka.restart_broker(index)),
                }
            }
        }
        for mut member in self.members() {
            member.signal("CONT");
            member.start();
        }
    }

    /// Copies what would be gone with the brokers and the small disk into the folder of the run.
    pub fn keep(&self) {
        if let Some(disk) = &self.small_disk {
            for file in fs::read_dir(disk).into_iter().flatten().flatten() {
                if let Err(error) = fs::copy(file.path(), self.path().join(file.file_name())) {
                    println!("{} cannot be kept: {error}", file.path().display());
                }
            }
        }
        let data = self.kafka().data_dir();
        for broker in 1..=3 {
            let log = data.join(format!("broker-{broker}")).join("kafka.log");
            let copied = fs::copy(log, self.path().join(format!("broker-{broker}.log")));
            if let Err(error) = copied {
                println!("the log of broker {broker} cannot be kept: {error}");
            }
        }
    }

    /// Runs `sagamore` to its end; its log has this name.
    fn sagamore(&self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let place = ["--kafka", &self.bootstrap, "--prefix", PREFIX];
        let arguments: Vec<_> = arguments.iter().chain(&place).map(std::ffi::OsString::from).collect();
        let program = self.path().join("bin").join(SAGAMORE);
        let mut process = Process::spawn(&self.folder, name, program.as_os_str(), &arguments);
        match process.wait(COMMAND_MAX) {
            0 => Ok(()),
            code => Err(format!("{arguments:?} ended with {code}: {}", process.log())),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mut member in self.members() {
            member.kill();
        }
        if let Some(disk) = &self.small_disk {
            run("umount", &["-l", &disk.display().to_string()]);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn around(nth: u64, count: usize) -> usize {
    usize::try_from(nth % count as u64).unwrap_or(0)
}

fn store_of(path: &Path, small_disk: Option<&Path>, name: &str) -> PathBuf {
    let folder = small_disk.filter(|_| name == SMALL).unwrap_or(path);
    folder.join(format!("{name}.sqlite"))
}

/// A program and its arguments, under a clock that can be set, if there is one.
fn under_clock(program: &Path, arguments: &[&str], clock: Option<&Path>) -> (PathBuf, Vec<String>) {
    let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let Some(clock) = clock else { return (program.to_owned(), arguments) };
    let mut before = vec![
        format!("LD_PRELOAD={FAKETIME}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_CACHE_DURATION=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
        program.display().to_string(),
    ];
    before.append(&mut arguments);
    ("env".into(), before)
}

fn clock_of(path: &Path) -> Result<PathBuf, String> {
    if !Path::new(FAKETIME).exists() {
        return Err(format!("clock-stepped: no {FAKETIME} (Debian: apt-get install libfaketime)"));
    }
    let file = path.join("clock");
    fs::write(&file, "+0").map_err(|error| format!("clock-stepped: {error}"))?;
    Ok(file)
}

fn small_disk(path: &Path) -> Result<PathBuf, String> {
    let disk = path.join("small-disk");
    fs::create_dir(&disk).map_err(|error| format!("disk-full: {error}"))?;
    let size = format!("size={SMALL_MIB}m");
    if run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &disk.display().to_string()]) {
        Ok(disk)
    } else {
        Err("disk-full: mounting a tmpfs is not permitted here".to_owned())
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A port nobody listens on just now; a server comes back to its own.
fn free_port(seed: u64, number: u16) -> u16 {
    let begin = fastrand::u16(PORTS.start..PORTS.end - 1_000) + number;
    let mut ports = begin..PORTS.end;
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or_else(|| panic!("no free port, seed {seed}"))
}

//! Does what the schedule says, each fault on a thread of its own, and counts what has really happened.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fate;
use crate::garbage;
use crate::member::{self, Member};
use crate::network;
use crate::notes::Notes;
use crate::operator::operate;
use crate::schedule::{Fault, Kind};
use crate::world::{PREFIX, World};

/// Pause between two looks at who has ended.
const SUPERVISE_EVERY: Duration = Duration::from_millis(500);

/// What has happened so far.
#[derive(Default)]
pub struct Tally(Mutex<Counted>);

#[derive(Default, Clone)]
struct Counted {
    done: BTreeMap<String, u64>,
    missed: BTreeMap<String, u64>,
    details: BTreeMap<String, u64>,
}

/// What became of a fault.
pub enum Became {
    /// It happened.
    Done,
    /// There was nobody to do it to, or it changed nothing.
    Missed(String),
}

impl Tally {
    fn count(&self, place: impl FnOnce(&mut Counted) -> &mut BTreeMap<String, u64>, name: &str, by: u64) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *place(&mut counted).entry(name.to_owned()).or_default() += by;
    }

    /// Counts something that belongs to a fault, such as frames.
    pub fn detail(&self, name: &str, by: u64) {
        if by > 0 {
            self.count(|counted| &mut counted.details, name, by);
        }
    }

    /// How often each kind has happened.
    pub fn done(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).done.clone()
    }

    /// How often each kind came to nothing.
    pub fn missed(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).missed.clone()
    }

    /// Everything else that was counted.
    pub fn details(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).details.clone()
    }
}

/// What every fault knows.
pub struct Scene {
    /// The installation.
    pub world: World,
    /// What is written down.
    pub notes: Arc<Notes>,
    /// What is counted.
    pub tally: Tally,
    /// When it began.
    pub begun: Instant,
    /// What went wrong and when, for people.
    pub log: Mutex<fs::File>,
    /// The UUID of the installation.
    pub instance: String,
}

impl Scene {
    /// A line for people, with the time.
    pub fn say(&self, line: &str) {
        use std::io::Write as _;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, since) = (jiff::Timestamp::now(), self.begun.elapsed().as_secs_f32());
        // The log is for people; without it the run is as good.
        let _ = writeln!(log, "{now} {since:7.1} {line}");
    }
}

/// Begins every fault at its time; returns when all are over.
pub fn run(scene: &Arc<Scene>, faults: &[Fault]) {
    let mut threads = Vec::new();
    for fault in faults.iter().copied() {
        thread::sleep(fault.at.saturating_sub(scene.begun.elapsed()));
        let scene = Arc::clone(scene);
        threads.push(thread::spawn(move || one(&scene, fault)));
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        thread.join().expect("a fault that panics is a defect of the harness");
    }
}

fn one(scene: &Scene, fault: Fault) {
    let kind = fault.kind;
    scene.say(&format!("{kind} begins, {} ms", fault.lasts.as_millis()));
    match act(scene, fault) {
        Became::Done => {
            scene.tally.count(|counted| &mut counted.done, kind.as_str(), 1);
            scene.say(&format!("{kind} is over"));
        }
        Became::Missed(why) => {
            scene.tally.count(|counted| &mut counted.missed, kind.as_str(), 1);
            scene.say(&format!("{kind} missed: {why}"));
        }
    }
}

fn act(scene: &Scene, fault: Fault) -> Became {
    let Fault { kind, lasts, die, .. } = fault;
    let world = &scene.world;
    match kind {
        Kind::ServerKilled => killed(|| world.server(die), lasts),
        Kind::ServerPaused | Kind::ServerPausedPastSession | Kind::ServerPausedPastLease => {
            paused(|| world.server(die), lasts)
        }
        Kind::ParticipantKilled => killed(|| world.participant(die), lasts),
        Kind::ParticipantPaused | Kind::ParticipantPausedPastSession => {
            paused(|| world.participant(die), lasts)
        }
        Kind::BrokerKilled => brokers_killed(scene, die, 1, lasts),
        Kind::TwoBrokersKilled => brokers_killed(scene, die, 2, lasts),
        Kind::BrokerPaused => broker_paused(world, die, lasts),
        Kind::EverythingKilled => everything_killed(scene, die, lasts),
        Kind::LeadersMoved => leaders_moved(scene),
        Kind::OffsetsDeleted => offsets_deleted(scene, die),
        Kind::DiskFull => disk_full(world.small_disk.as_deref(), lasts),
        Kind::ClockStepped => clock_stepped(world.clock.as_deref(), die, lasts),
        Kind::GarbageToInbox => garbage::to_inbox(scene, die),
        Kind::GarbageToCommands => garbage::to_commands(scene, die),
        Kind::ProduceDelayed
        | Kind::ProduceCutBefore
        | Kind::ProduceCutAfter
        | Kind::ProduceHeld
        | Kind::RequestsOvertaken
        | Kind::FetchDelayed
        | Kind::FetchDropped
        | Kind::InitProducerIdDelayed
        | Kind::InitProducerIdDropped
        | Kind::EndTxnDelayed
        | Kind::EndTxnDropped
        | Kind::EndTxnCutBefore
        | Kind::EndTxnHeld => network::disturb(scene, fault),
    }
}

fn done_if(happened: bool, why: &str) -> Became {
    if happened { Became::Done } else { Became::Missed(why.to_owned()) }
}

fn killed<G: std::ops::DerefMut<Target = Member>>(member: impl Fn() -> G, lasts: Duration) -> Became {
    let happened = member().kill();
    thread::sleep(lasts);
    member().start();
    done_if(happened, "it did not run")
}

fn paused<G: std::ops::DerefMut<Target = Member>>(member: impl Fn() -> G, lasts: Duration) -> Became {
    let before = member().starts();
    let happened = member().signal("STOP");
    thread::sleep(lasts);
    let mut member = member();
    let is_same = member.starts() == before && member.signal("CONT");
    done_if(happened && is_same, "it was killed meanwhile, or did not run")
}

fn brokers_killed(scene: &Scene, die: u64, count: usize, lasts: Duration) -> Became {
    let mut kafka = scene.world.kafka();
    let brokers = kafka.broker_count();
    let first = usize::try_from(die % brokers as u64).unwrap_or(0);
    let victims: Vec<usize> = (0..count).map(|nth| (first + nth) % brokers).collect();
    for victim in &victims {
        kafka.kill_broker(*victim);
    }
    // With the lock: no other broker falls meanwhile.
    thread::sleep(lasts);
    for victim in victims {
        if let Err(error) = kafka.restart_broker(victim) {
            scene.say(&format!("broker {} does not come back: {error}", victim + 1));
        }
    }
    Became::Done
}

fn broker_paused(world: &World, die: u64, lasts: Duration) -> Became {
    let kafka = world.kafka();
    let victim = usize::try_from(die % kafka.broker_count() as u64).unwrap_or(0);
    let Some(pid) = kafka.broker_pid(victim) else { return Became::Missed("it does not run".to_owned()) };
    let happened = member::send(pid, "STOP");
    thread::sleep(lasts);
    done_if(happened && member::send(pid, "CONT"), "no signal can be sent")
}

/// Brokers cannot be started side by side, and one alone is no majority: two are killed, the third is frozen.
fn everything_killed(scene: &Scene, die: u64, lasts: Duration) -> Became {
    let world = &scene.world;
    let mut kafka = world.kafka();
    let brokers = kafka.broker_count();
    let frozen = usize::try_from(die % brokers as u64).unwrap_or(0);
    let frozen_pid = kafka.broker_pid(frozen);
    let stopped = frozen_pid.is_some_and(|pid| member::send(pid, "STOP"));
    let killed = world.members().map(|mut member| member.kill()).filter(|killed| *killed).count();
    let others: Vec<usize> = (0..brokers).filter(|index| *index != frozen).collect();
    for index in &others {
        kafka.kill_broker(*index);
    }
    thread::sleep(lasts);
    if let Some(pid) = frozen_pid {
        member::send(pid, "CONT");
    }
    for mut member in world.members() {
        member.start();
    }
    for index in others {
        if let Err(error) = kafka.restart_broker(index) {
            scene.say(&format!("broker {} does not come back: {error}", index + 1));
        }
    }
    scene.tally.detail("processes killed at once", killed as u64 + 2);
    done_if(stopped && killed > 0, "hardly anything ran")
}

fn leaders_moved(scene: &Scene) -> Became {
    match operate(&scene.world, "turn", PREFIX) {
        Ok(moved) => {
            scene.tally.detail("leaders moved", moved);
            done_if(moved > 0, "no leader moved")
        }
        Err(why) => Became::Missed(why),
    }
}

fn offsets_deleted(scene: &Scene, die: u64) -> Became {
    let world = &scene.world;
    let (name, instances) = world.instances(die);
    for mut instance in instances {
        instance.kill();
    }
    let deleted = operate(world, "forget", &format!("{PREFIX}.{name}"));
    let (_, instances) = world.instances(die);
    for mut instance in instances {
        instance.start();
    }
    match deleted {
        Ok(_) => Became::Done,
        Err(why) => Became::Missed(why),
    }
}

fn disk_full(disk: Option<&Path>, lasts: Duration) -> Became {
    let Some(disk) = disk else { return Became::Missed("skipped".to_owned()) };
    let filler = disk.join("filler");
    // The last pages too: `dd` writes until nothing goes any more.
    let of = format!("of={}", filler.display());
    let written = std::process::Command::new("dd").args(["if=/dev/zero", &of, "bs=64k"]).output();
    let full = written.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("No space left"));
    thread::sleep(lasts);
    let freed = fs::remove_file(filler).is_ok();
    done_if(full && freed, "the disk was not filled")
}

fn clock_stepped(clock: Option<&Path>, die: u64, lasts: Duration) -> Became {
    let Some(clock) = clock else { return Became::Missed("skipped".to_owned()) };
    let seconds = 2 + die % 90;
    let sign = if die & (1 << 40) == 0 { '+' } else { '-' };
    let stepped = fs::write(clock, format!("{sign}{seconds}")).is_ok();
    thread::sleep(lasts);
    let back = fs::write(clock, "+0").is_ok();
    done_if(stepped && back, "the clock's file cannot be written")
}

/// Starts again what has ended by itself, as whoever runs it in earnest would; says so and counts it.
pub fn supervise(scene: &Scene, over: &dyn Fn() -> bool) {
    while !over() {
        for mut member in scene.world.members() {
            if let Some(status) = member.take_ended() {
                let name = member.name().to_owned();
                scene.say(&format!("{name} ended by itself: {status}"));
                scene.notes.write(&json!({"note": "ended-by-itself", "who": name, "status": status}));
                let what = if name.starts_with("server") { "servers" } else { "participants" };
                scene.tally.detail(&format!("{what} that ended by themselves"), 1);
                member.start();
            }
        }
        thread::sleep(SUPERVISE_EVERY);
    }
}

/// A number that follows from a fault's die.
pub fn draw(die: u64, what: &str) -> u64 {
    fate::die(&[&die.to_string(), what])
}

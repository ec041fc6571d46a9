//! A server: the lane's part and the checkpointer's part of each shard, cut into events. What it decides, the real owner
//! and the real takeover decide.

mod group;
mod takeover;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use sagamore_decider::invariants as inv;
use sagamore_decider::outbox::{Route, Sent, Ticket, Way};
use sagamore_decider::output::{Destination, Output};
use sagamore_decider::owner::{Duty, Owner};
use sagamore_decider::planted;
use sagamore_decider::takeover::Takeover;
use sagamore_schemas::ids::Time;

pub use self::writes::Request;
use self::writes::Write;
use crate::faults::Fault;
use crate::kafka::{Bytes, Place, Record, Refusal};
use crate::witness::{record_of, skip_of};
use crate::world::{Event, Sender, World};

/// Pause after anything indefinite.
const REST: i64 = 200;
/// Records applied at once.
const BATCH_MAX: usize = 20;
/// Lease and slack of the witness, who sees a draft a little later than the owner made it.
const LEASE_SEEN: i64 = 11_500;

/// What became of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the log.
    Arrived,
    /// Nobody knows.
    Failed,
    /// It never will be.
    Never,
}

/// What a server hears.
#[derive(Debug)]
pub enum ToServer {
    /// The group gives it a shard.
    Given(i32),
    /// The group takes a shard away.
    Taken(i32),
    /// It looks after a shard.
    Wake(i32),
    /// Fenced: the epoch.
    Fenced(i32, u64, u32),
    /// More of the state is to be read.
    Read(i32, u64),
    /// The ends of the inbox are known.
    Looked(i32, u64),
    /// A part of a Kafka transaction is acknowledged, or refused.
    Part(i32, u64, u64, Result<(), Refusal>),
    /// The Kafka transaction is committed, or not.
    Ended(i32, u64, u64, Result<(), Refusal>),
    /// It has waited long enough for a Kafka transaction.
    GivenUp(i32, u64, u64),
    /// What became of an output.
    Report(i32, u64, Ticket, Delivery),
}

/// A process.
#[derive(Debug, Default)]
pub struct Server {
    /// Which life.
    pub life: u32,
    /// Whether it is up.
    pub up: bool,
    /// It stands still; what it hears waits.
    pub paused: bool,
    /// It is on its way out: last checkpoints, nothing new.
    pub stopping: bool,
    heard: VecDeque<ToServer>,
    group_heard: i64,
    /// How far its clock is off.
    pub skew: i64,
    /// The highest level its binary knows.
    pub level_max: u32,
    slots: BTreeMap<i32, Slot>,
    tenures: u64,
}

#[derive(Debug)]
struct Slot {
    tenure: u64,
    stage: Stage,
    /// When it is to be woken next.
    wake: i64,
    write: Option<Write>,
    skip: Option<i64>,
}

#[derive(Debug)]
enum Stage {
    Restoring { takeover: Option<Takeover>, begun: i64, epoch: u32, read: i64, until: i64 },
    Running(Box<Running>),
    Resting { until: i64 },
    Halted { poison: Option<i64>, epoch: u32 },
}

#[derive(Debug)]
struct Running {
    owner: Owner,
    epoch: u32,
    /// Since when something is applied that no checkpoint holds, as the witness sees it.
    unstored_since: Option<i64>,
    drafted: i64,
}

thread_local! {
    static CATCHING: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Whether a panic of this thread would be caught, and reported as a violation.
pub fn is_catching() -> bool {
    CATCHING.get() > 0
}

/// Runs what may panic, and says what the panic said.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    CATCHING.set(CATCHING.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(run));
    CATCHING.set(CATCHING.get() - 1);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

fn bytes(bytes: &[u8]) -> Bytes {
    Rc::from(bytes)
}

impl World {
    /// New records are visible: whoever runs the shard looks after it.
    pub(crate) fn wake_owners(&mut self, partition: i32) {
        for number in 0..self.servers.len() {
            if self.servers[number].slots.contains_key(&partition) {
                let at = self.now + self.net.i64(1..5);
                self.wake(number, partition, at);
            }
        }
    }

    fn wake(&mut self, number: usize, partition: i32, at: i64) {
        let life = self.servers[number].life;
        let now = self.now;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        if slot.wake > now && slot.wake <= at {
            return;
        }
        slot.wake = at;
        self.after(at - now, Event::Server(number, life, ToServer::Wake(partition)));
    }

    pub(crate) fn server_hears(&mut self, number: usize, life: u32, heard: ToServer) {
        let server = &mut self.servers[number];
        if server.life != life || !server.up {
            return;
        }
        if server.paused {
            server.heard.push_back(heard);
            return;
        }
        match heard {
            ToServer::Given(partition) => {
                if !server.slots.contains_key(&partition) {
                    self.take_over(number, partition, None);
                }
            }
            ToServer::Taken(partition) => {
                server.slots.remove(&partition);
                self.tell(|| format!("server {number} gives shard {partition} back"));
            }
            ToServer::Wake(partition) => self.look_after(number, partition),
            ToServer::Fenced(partition, tenure, epoch) => self.on_fenced(number, partition, tenure, epoch),
            ToServer::Read(partition, tenure) => self.read_state(number, partition, tenure),
            ToServer::Looked(partition, tenure) => self.on_looked(number, partition, tenure),
            ToServer::Part(partition, tenure, write, result) => {
                self.on_part(number, partition, tenure, write, result);
            }
            ToServer::Ended(partition, tenure, write, result) => {
                self.on_ended(number, partition, tenure, write, result);
            }
            ToServer::GivenUp(partition, tenure, write) => {
                let slot = server.slots.get(&partition).filter(|slot| slot.tenure == tenure);
                if slot.is_some_and(|slot| slot.write.as_ref().is_some_and(|open| open.number == write)) {
                    self.rest(number, partition, REST);
                }
            }
            ToServer::Report(partition, tenure, ticket, delivery) => {
                self.on_report(number, partition, tenure, ticket, delivery);
            }
        }
    }

    fn stand_still(&mut self, number: usize, partition: i32, poison: Option<i64>) {
        if let Some(slot) = self.servers[number].slots.get_mut(&partition) {
            let epoch = match &slot.stage {
                Stage::Restoring { epoch, .. } | Stage::Halted { epoch, .. } => *epoch,
                Stage::Running(running) => running.epoch,
                Stage::Resting { .. } => unreachable!("who rests finds nothing"),
            };
            slot.stage = Stage::Halted { poison, epoch };
        }
    }

    fn rest(&mut self, number: usize, partition: i32, ms: i64) {
        let until = self.now + ms;
        if let Some(slot) = self.servers[number].slots.get_mut(&partition) {
            slot.stage = Stage::Resting { until };
            slot.write = None;
            slot.tenure = u64::MAX;
        }
        self.tell(|| format!("server {number} drops shard {partition}"));
        self.wake(number, partition, until);
    }

    /// One turn of the lane's loop.
    fn look_after(&mut self, number: usize, partition: i32) {
        let own = self.now + self.servers[number].skew;
        let stopping = self.servers[number].stopping;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        match &slot.stage {
            Stage::Resting { until } if *until <= self.now => {
                let skip = slot.skip;
                return self.take_over(number, partition, skip);
            }
            Stage::Resting { until } => {
                let until = *until;
                return self.wake(number, partition, until);
            }
            Stage::Halted { poison: Some(offset), .. } => {
                let offset = *offset;
                return self.look_ahead(number, partition, offset);
            }
            Stage::Halted { poison: None, .. } | Stage::Restoring { .. } => return,
            Stage::Running(_) => {}
        }
        if !stopping {
            self.apply_some(number, partition, own);
        }
        self.send_and_store(number, partition, own, stopping);
    }

    fn look_ahead(&mut self, number: usize, partition: i32, offset: i64) {
        let inbox = self.kafka.at(Place::Inbox(partition));
        let skip = inbox.visible().any(|entry| skip_of(entry.record.value.as_deref(), offset).is_some());
        if skip {
            self.take_over(number, partition, Some(offset));
        }
    }

    fn apply_some(&mut self, number: usize, partition: i32, own: i64) {
        let level_max = self.servers[number].level_max;
        planted::set_level_max(level_max);
        planted::set_own_clock(Some(Time::from_epoch_ms(own)));
        for _ in 0..BATCH_MAX {
            let Some(slot) = self.servers[number].slots.get_mut(&partition) else { break };
            let Stage::Running(running) = &mut slot.stage else { break };
            let time = Time::from_epoch_ms(own);
            let next = running.owner.shard().next_offset();
            let Some(entry) = self.kafka.at(Place::Inbox(partition)).get(next).cloned() else { break };
            if !running.owner.may_apply(time) {
                break;
            }
            let record = record_of(&entry);
            if !running.owner.trusts(record.timestamp, time) {
                self.faults.note(Fault::ClockJump);
                let has_cause = entry.timestamp > own + 800_000;
                self.stand_still(number, partition, None);
                self.tell(|| {
                    format!("server {number} halts shard {partition}: record {next} is of the future")
                });
                if !has_cause {
                    self.witness.violated(&inv::HALTS_HAVE_CAUSES, "a clock that is not far ahead");
                }
                break;
            }
            running.unstored_since.get_or_insert(self.now);
            if slot.skip == Some(next) {
                let inbox = self.kafka.at(Place::Inbox(partition));
                let skip = inbox.visible().find_map(|later| skip_of(later.record.value.as_deref(), next));
                if let Some(authority) = skip {
                    running.owner.on_skip(&record, &authority, time);
                    self.witness.compare(
                        &format!("server {number}"),
                        partition,
                        next,
                        &[],
                        running.owner.shard(),
                    );
                    continue;
                }
            }
            let mut said: Vec<Output> = Vec::new();
            let owner = &mut running.owner;
            match caught(|| owner.on_record(&record, time, |output| said.push(output.clone()))) {
                Ok(_) => {}
                Err(_) if planted::poisons(record.value) => {
                    self.faults.note(Fault::Poison);
                    self.tell(|| {
                        format!("server {number} halts shard {partition}: record {next} makes it panic")
                    });
                    self.stand_still(number, partition, Some(next));
                    self.look_ahead(number, partition, next);
                    break;
                }
                Err(text) => {
                    self.witness.panicked(&text);
                    break;
                }
            }
            let who = format!("server {number}");
            if !self.doomed.contains_key(&partition) {
                self.witness.compare(&who, partition, next, &said, running.owner.shard());
            }
            if !running.owner.shard().is_understood() {
                self.tell(|| format!("server {number} halts shard {partition}: it does not know that level"));
                self.stand_still(number, partition, None);
                if level_max >= self.level {
                    self.witness.violated(&inv::HALTS_HAVE_CAUSES, "a level that this binary knows");
                }
                break;
            }
        }
        planted::set_own_clock(None);
    }

    fn send_and_store(&mut self, number: usize, partition: i32, own: i64, stopping: bool) {
        let time = Time::from_epoch_ms(own);
        let life = self.servers[number].life;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        let tenure = slot.tenure;
        let Stage::Running(running) = &mut slot.stage else { return };
        let sender = |ticket| Sender { server: number, life, partition, tenure, ticket };
        let mut sent: Vec<(Place, Record, Ticket)> = Vec::new();
        // Crowds come and go: which way an output leaves must not matter.
        let wish = if (own / 1_000) % 2 == 0 { Way::AtOnce } else { Way::InCompany };
        running.owner.send(time, wish, |ticket, route, output, _| {
            let place = match route {
                Route::OwnInbox => Place::Inbox(partition),
                Route::To(destination) => place_of(destination),
            };
            let record = Record {
                key: output.key.as_deref().map(bytes),
                value: output.value.as_deref().map(bytes),
                as_of: None,
            };
            sent.push((place, record, ticket));
            Sent::Queued
        });
        let overdue = running.unstored_since.filter(|since| self.now - since > LEASE_SEEN);
        if let (Some(since), false) = (overdue, sent.is_empty()) {
            let text = format!(
                "server {number} sends {} outputs {} ms after it should have stored",
                sent.len(),
                self.now - since
            );
            self.witness.violated(&inv::LEASE_ENDS, text);
        }
        let duties = running.owner.poll(time, stopping);
        let hopeless = running.owner.is_hopeless(time);
        let (at_rest, is_live) = (running.owner.is_at_rest(), running.owner.is_live());
        let busy = !at_rest || !is_live || !running.owner.outbox().is_empty();
        let next_due = running.owner.shard().timers().next_due().map(Time::epoch_ms);
        for (place, record, ticket) in sent {
            self.send(place, record, Some(sender(Some(ticket))));
        }
        for duty in duties {
            match duty {
                Duty::Write(checkpoint) => self.write(number, partition, &checkpoint),
                Duty::Append { key, value } => {
                    if !self.faults.strikes(Fault::LostTimer, 4) {
                        let record = Record {
                            key: Some(bytes(key.as_bytes())),
                            value: Some(bytes(&value)),
                            as_of: None,
                        };
                        self.send(Place::Inbox(partition), record, Some(sender(None)));
                    }
                }
            }
        }
        if hopeless {
            return self.rest(number, partition, REST);
        }
        let due = next_due.map(|due| (due - self.servers[number].skew).max(self.now + 1));
        let ringing = due.is_some_and(|due| due <= self.now + 1);
        let soon = busy.then(|| self.now + self.net.i64(20..120));
        let at = match (soon, due) {
            (Some(soon), _) => soon,
            (None, Some(_)) if ringing => self.now + 300,
            (None, Some(due)) => due,
            (None, None) => return,
        };
        self.wake(number, partition, at);
    }

    fn on_report(&mut self, number: usize, partition: i32, tenure: u64, ticket: Ticket, delivery: Delivery) {
        let Some(slot) = self.slot(number, partition, tenure) else { return };
        let Stage::Running(running) = &mut slot.stage else { return };
        match delivery {
            Delivery::Arrived => running.owner.on_delivered(ticket),
            Delivery::Failed => running.owner.on_failed(ticket),
            Delivery::Never => {
                if let Err(destination) = running.owner.on_undeliverable(ticket, "there is no such topic") {
                    let text = format!("{destination:?} may never be undeliverable");
                    self.witness.violated(&inv::OUTPUTS_ARRIVE, text);
                }
            }
        }
        let at = self.now + 1;
        self.wake(number, partition, at);
    }

    /// Which shards run, live and at rest, on which server; and which stand still.
    pub(crate) fn shard_states(&self) -> BTreeMap<i32, Vec<&'static str>> {
        let mut states: BTreeMap<i32, Vec<&'static str>> = BTreeMap::new();
        for server in self.servers.iter().filter(|server| server.up) {
            for (partition, slot) in &server.slots {
                let state = match &slot.stage {
                    Stage::Running(running)
                        if running.owner.is_at_rest()
                            && running.owner.outbox().is_empty()
                            && running.owner.shard().next_offset()
                                == self.kafka.high(Place::Inbox(*partition)) =>
                    {
                        "at rest"
                    }
                    Stage::Running(_) => "running",
                    Stage::Halted { .. } => "halted",
                    Stage::Restoring { .. } | Stage::Resting { .. } => "restoring",
                };
                states.entry(*partition).or_default().push(state);
            }
        }
        states
    }

    /// Whether a server that is stopping has nothing left to store.
    pub(crate) fn has_stopped(&self, number: usize) -> bool {
        self.servers[number].slots.values().all(|slot| match &slot.stage {
            Stage::Running(running) => running.owner.is_at_rest(),
            Stage::Restoring { .. } | Stage::Resting { .. } | Stage::Halted { .. } => true,
        })
    }

    /// Shards that stand on a poisoned record, with its offset.
    pub(crate) fn poisoned(&self) -> BTreeSet<(i32, i64)> {
        let slots = self.servers.iter().flat_map(|server| &server.slots);
        let held = slots.filter_map(|(partition, slot)| match slot.stage {
            Stage::Halted { poison: Some(offset), .. } => Some((*partition, offset)),
            _ => None,
        });
        held.collect()
    }

    /// Every shard is dropped by whoever has it, and shared out anew.
    pub(crate) fn start_over(&mut self, number: usize) {
        self.kill_server(number);
        self.start_server(number);
    }
}

fn place_of(destination: &Destination) -> Place {
    match destination {
        Destination::Commands(name) => {
            let number = name.as_str().trim_start_matches('p').parse().unwrap_or_default();
            Place::Commands(number)
        }
        Destination::Inbox(partition) => Place::Inbox(partition.0),
        Destination::Outcomes => Place::Outcomes,
        Destination::DeadLetters => Place::DeadLetters,
    }
}

/// Where an output belongs.
pub(crate) fn place_of_output(output: &Output) -> Place {
    place_of(&output.destination)
}

//! A server: the lane's part and the checkpointer's part of each shard, cut into events. What it decides, the real owner
//! and the real takeover decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use sagamore_decider::checkpoint::Checkpoint;
use sagamore_decider::invariants as inv;
use sagamore_decider::outbox::{Route, Sent, Ticket};
use sagamore_decider::output::{Destination, Output};
use sagamore_decider::owner::{Duty, Owner, Pace};
use sagamore_decider::planted;
use sagamore_decider::restore::RestoreError;
use sagamore_decider::takeover::{Ask, InboxSeen, Takeover, TakeoverError};
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{AppliedRecord, BARRIER_KEY, CHECKPOINT_KEY, record_hash};

use crate::faults::Fault;
use crate::kafka::{Bytes, Place, Record, Refusal};
use crate::witness::{identity, record_of, skip_of};
use crate::world::{Event, Sender, World, is_poison};

/// A commit slower than this counts as indefinite, as in production.
const COMMIT_MAX: i64 = 2_000;
/// Records of a checkpoint that are not acknowledged for so long: given up, as in production.
const DELIVERY_MAX: i64 = 10_000;
/// Pause after being fenced, as in production.
const REST_FENCED: i64 = 3_000;
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

/// A request in a Kafka transaction.
#[derive(Debug)]
pub struct Request {
    server: usize,
    life: u32,
    partition: i32,
    tenure: u64,
    write: u64,
    epoch: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Fence,
    Append { first: bool, last: bool, records: Vec<(Place, Record)> },
    Commit { is_repeat: bool },
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
    Restoring { takeover: Option<Takeover>, epoch: u32, read: i64, until: i64 },
    Running(Box<Running>),
    Resting { until: i64 },
    Halted { poison: Option<i64> },
}

#[derive(Debug)]
struct Running {
    owner: Owner,
    epoch: u32,
    /// Since when something is applied that no checkpoint holds, as the witness sees it.
    unstored_since: Option<i64>,
    drafted: i64,
}

/// A Kafka transaction under way.
#[derive(Debug)]
struct Write {
    number: u64,
    parts: VecDeque<Vec<(Place, Record)>>,
    first: bool,
    checkpoint: Option<i64>,
    committing: bool,
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
    pub(crate) fn begin_servers(&mut self) {
        for server in 0..self.servers.len() {
            self.start_server(server);
        }
    }

    /// Starts a server, and tells the group.
    pub(crate) fn start_server(&mut self, number: usize) {
        let level_max = if self.faults.has(Fault::Upgrade) { 1 } else { self.level.max(1) };
        let skew = if self.faults.strikes(Fault::OwnClock, 2) {
            self.faults.rng(Fault::OwnClock).i64(-20_000..20_000)
        } else {
            0
        };
        let server = &mut self.servers[number];
        let known = server.level_max.max(level_max);
        *server = Server {
            life: server.life + 1,
            up: true,
            skew,
            level_max: known,
            tenures: server.tenures,
            ..Server::default()
        };
        self.tell(|| format!("server {number} starts"));
        self.rebalance();
    }

    /// Kills a server. The group notices when its session is over.
    pub(crate) fn kill_server(&mut self, number: usize) {
        let server = &mut self.servers[number];
        server.up = false;
        server.life += 1;
        server.slots.clear();
        server.heard.clear();
        self.tell(|| format!("server {number} is killed"));
    }

    /// Goes on where it stood.
    pub(crate) fn resume_server(&mut self, number: usize) {
        let server = &mut self.servers[number];
        if !std::mem::take(&mut server.paused) {
            return;
        }
        let life = server.life;
        let heard = std::mem::take(&mut server.heard);
        self.tell(|| format!("server {number} wakes up, {} messages waiting", heard.len()));
        for heard in heard {
            self.server_hears(number, life, heard);
        }
        let partitions: Vec<i32> = self.servers[number].slots.keys().copied().collect();
        for partition in partitions {
            self.look_after(number, partition);
        }
        self.rebalance();
    }

    /// The group shares the shards out among who is there, by chance.
    pub(crate) fn rebalance(&mut self) {
        let there: Vec<usize> = (0..self.servers.len())
            .filter(|number| {
                let server = &self.servers[*number];
                server.up && !server.paused && !server.stopping
            })
            .collect();
        for partition in 0..self.partitions {
            let before = self.assigned.get(&partition).copied();
            let stays = before.filter(|server| there.contains(server) && self.net.u8(0..3) > 0);
            let Some(after) = stays.or_else(|| (!there.is_empty()).then(|| there[self.net.usize(0..there.len())]))
            else {
                self.assigned.remove(&partition);
                continue;
            };
            if before == Some(after) && self.servers[after].slots.contains_key(&partition) {
                continue;
            }
            self.assigned.insert(partition, after);
            if let Some(before) = before.filter(|before| *before != after) {
                self.tell_server(before, ToServer::Taken(partition));
            }
            self.tell_server(after, ToServer::Given(partition));
        }
    }

    fn tell_server(&mut self, server: usize, heard: ToServer) {
        // What the group says to one member comes in order.
        let at = self.now + self.latency();
        let member = &mut self.servers[server];
        let at = at.max(member.group_heard);
        member.group_heard = at;
        let life = member.life;
        self.after(at - self.now, Event::Server(server, life, heard));
    }

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

    fn take_over(&mut self, number: usize, partition: i32, skip: Option<i64>) {
        let server = &mut self.servers[number];
        server.tenures += 1;
        let tenure = server.tenures;
        let owner = format!("server {number}");
        let token = uuid::Uuid::from_u64_pair(u64::from(server.life), tenure * 16 + number as u64);
        let takeover = Takeover::new(identity(partition, self.partitions), token, owner);
        let stage = Stage::Restoring {
            takeover: Some(takeover),
            epoch: self.kafka.epoch(partition),
            read: 0,
            until: i64::MAX,
        };
        server.slots.insert(partition, Slot { tenure, stage, wake: 0, write: None, skip });
        self.tell(|| format!("server {number} takes shard {partition} over"));
        self.go_on(number, partition);
    }

    /// Does what the takeover asks for.
    fn go_on(&mut self, number: usize, partition: i32) {
        let life = self.servers[number].life;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        let tenure = slot.tenure;
        let Stage::Restoring { takeover: Some(takeover), epoch, .. } = &slot.stage else { return };
        let (ask, epoch) = (takeover.ask(), *epoch);
        let delay = self.latency();
        match ask {
            Ask::Fence => {
                let what = What::Fence;
                let request = Request { server: number, life, partition, tenure, write: 0, epoch, what };
                self.after(delay, Event::Transaction(request));
            }
            Ask::WriteBarrier(value) => {
                let record = Record { key: Some(bytes(BARRIER_KEY)), value: Some(bytes(&value)), as_of: None };
                let part = vec![(Place::State(partition), record.clone()), (Place::Journal(partition), record)];
                self.begin_write(number, partition, VecDeque::from([part]), None);
            }
            Ask::ReadState => self.after(delay, Event::Server(number, life, ToServer::Read(partition, tenure))),
            Ask::LookIntoInbox(_) => {
                self.after(delay, Event::Server(number, life, ToServer::Looked(partition, tenure)));
            }
        }
    }

    fn on_fenced(&mut self, number: usize, partition: i32, tenure: u64, now_epoch: u32) {
        let stale = self.faults.strikes(Fault::StaleEnd, 3);
        let high = self.kafka.at(Place::State(partition)).high();
        let old_end = if stale { self.faults.rng(Fault::StaleEnd).i64(0..=high) } else { i64::MAX };
        let Some(slot) = self.slot(number, partition, tenure) else { return };
        if let Stage::Restoring { takeover: Some(takeover), epoch, until, .. } = &mut slot.stage {
            *epoch = now_epoch;
            *until = old_end;
            takeover.on_fenced();
            self.go_on(number, partition);
        }
    }

    fn slot(&mut self, number: usize, partition: i32, tenure: u64) -> Option<&mut Slot> {
        self.servers[number].slots.get_mut(&partition).filter(|slot| slot.tenure == tenure)
    }

    fn read_state(&mut self, number: usize, partition: i32, tenure: u64) {
        let level_max = self.servers[number].level_max;
        let Some(slot) = self.servers[number].slots.get_mut(&partition).filter(|slot| slot.tenure == tenure)
        else {
            return;
        };
        let Stage::Restoring { takeover: Some(takeover), read, until, .. } = &mut slot.stage else { return };
        let (entries, end) = self.kafka.read_committed(Place::State(partition), *read, *until);
        *read = end;
        *until = i64::MAX;
        planted::set_level_max(level_max);
        for entry in entries {
            let as_of = entry.record.as_of.map(|as_of| as_of.to_string());
            let key = entry.record.key.as_deref().unwrap_or_default();
            let header = as_of.as_deref().map(str::as_bytes);
            match takeover.on_state(key, header, entry.record.value.as_deref()) {
                Err(error) => return self.halt(number, partition, &error),
                Ok(()) if takeover.ask() != Ask::ReadState => return self.go_on(number, partition),
                Ok(()) => {}
            }
        }
        let life = self.servers[number].life;
        self.after(50, Event::Server(number, life, ToServer::Read(partition, tenure)));
    }

    fn on_looked(&mut self, number: usize, partition: i32, tenure: u64) {
        let server = &mut self.servers[number];
        let Some(slot) = server.slots.get_mut(&partition).filter(|slot| slot.tenure == tenure) else { return };
        let Stage::Restoring { takeover, epoch, .. } = &mut slot.stage else { return };
        let Some(takeover) = takeover.take() else { return };
        let inbox = self.kafka.at(Place::Inbox(partition));
        let record = match takeover.ask() {
            Ask::LookIntoInbox(Some(offset)) => inbox.get(offset).map(|entry| AppliedRecord {
                offset,
                hash: record_hash(
                    entry.record.key.as_deref(),
                    entry.record.value.as_deref(),
                    Time::from_epoch_ms(entry.timestamp).epoch_ms(),
                ),
            }),
            _ => None,
        };
        let seen = InboxSeen { low: inbox.low(), high: inbox.high(), record };
        let own = Time::from_epoch_ms(self.now + server.skew);
        match takeover.on_inbox(&seen) {
            Err(error) => self.halt(number, partition, &error),
            Ok((restored, inbox_end)) => {
                let who = format!("server {number}, taking over");
                if !self.doomed.contains_key(&partition) {
                    self.witness.compare_restored(&who, partition, &restored.shard);
                }
                let next = restored.shard.next_offset();
                let owed = restored.owed.len();
                let owner = Owner::new(restored, inbox_end, Pace::default(), own);
                let running = Running { owner, epoch: *epoch, unstored_since: None, drafted: self.now };
                slot.stage = Stage::Running(Box::new(running));
                self.tell(|| format!("server {number} has shard {partition} as of {next}, {owed} owed"));
                self.look_after(number, partition);
            }
        }
    }

    /// It halts. Without an injected cause that is a violation.
    fn halt(&mut self, number: usize, partition: i32, error: &TakeoverError) {
        self.tell(|| format!("server {number} halts shard {partition}: {error}"));
        let doomed = self.doomed.get(&partition).copied();
        let has_cause = match error {
            TakeoverError::State(RestoreError::Incomplete { .. } | RestoreError::Damaged { .. }) => {
                doomed == Some(Fault::StateLost)
            }
            TakeoverError::State(RestoreError::Level { .. }) => self.servers[number].level_max < self.level,
            TakeoverError::Inbox { .. } => doomed == Some(Fault::InboxCut),
            TakeoverError::State(RestoreError::Foreign { .. }) | TakeoverError::Secret => false,
        };
        if !has_cause {
            let text = format!("server {number}, shard {partition}: {error}");
            return self.witness.violated(&inv::HALTS_HAVE_CAUSES, text);
        }
        if let Some(fault) = doomed {
            self.faults.note(fault);
        }
        self.stand_still(number, partition, None);
    }

    fn stand_still(&mut self, number: usize, partition: i32, poison: Option<i64>) {
        if let Some(slot) = self.servers[number].slots.get_mut(&partition) {
            slot.stage = Stage::Halted { poison };
            slot.write = None;
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
            Stage::Restoring { .. } => return,
            Stage::Halted { poison: Some(offset) } => {
                let offset = *offset;
                return self.look_ahead(number, partition, offset);
            }
            Stage::Halted { poison: None } => return,
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
                self.tell(|| format!("server {number} halts shard {partition}: record {next} is of the future"));
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
                    self.witness.compare(&format!("server {number}"), partition, next, &[], running.owner.shard());
                    continue;
                }
            }
            let mut said: Vec<Output> = Vec::new();
            let owner = &mut running.owner;
            match caught(|| owner.on_record(&record, time, |output| said.push(output.clone()))) {
                Ok(_) => {}
                Err(_) if is_poison(record.value) => {
                    self.faults.note(Fault::Poison);
                    self.tell(|| format!("server {number} halts shard {partition}: record {next} makes it panic"));
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
        running.owner.send(time, |ticket, route, output| {
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
            let text = format!("server {number} sends {} outputs {} ms after it should have stored", sent.len(), self.now - since);
            self.witness.violated(&inv::LEASE_ENDS, text);
        }
        let duties = running.owner.poll(time, stopping);
        let hopeless = running.owner.is_hopeless(time);
        let (at_rest, live) = (running.owner.is_at_rest(), running.owner.is_live());
        let busy = !at_rest || !live || !running.owner.outbox().is_empty();
        let next_due = running.owner.shard().timers().next_due().map(Time::epoch_ms);
        for (place, record, ticket) in sent {
            self.send(place, record, Some(sender(Some(ticket))));
        }
        for duty in duties {
            match duty {
                Duty::Write(checkpoint) => self.write(number, partition, &checkpoint),
                Duty::Append { key, value } => {
                    if !self.faults.strikes(Fault::LostTimer, 4) {
                        let record =
                            Record { key: Some(bytes(key.as_bytes())), value: Some(bytes(&value)), as_of: None };
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

    fn write(&mut self, number: usize, partition: i32, checkpoint: &Checkpoint) {
        let in_order = checkpoint.parts();
        let parts = in_order.iter().map(|part| {
            let journal = part.journal.iter().map(|(key, value)| {
                let record = Record { key: Some(bytes(key)), value: Some(bytes(value)), as_of: None };
                (Place::Journal(partition), record)
            });
            let state = part.state.iter().map(|record| {
                let as_of = Some(record.as_of).filter(|_| record.key != CHECKPOINT_KEY);
                let value = record.value.as_deref().map(bytes);
                (Place::State(partition), Record { key: Some(bytes(&record.key)), value, as_of })
            });
            journal.chain(state).collect()
        });
        let parts = parts.collect();
        if let Some(Slot { stage: Stage::Running(running), .. }) =
            self.servers[number].slots.get_mut(&partition)
        {
            running.drafted = self.now;
        }
        self.begin_write(number, partition, parts, Some(checkpoint.next_offset));
    }

    fn begin_write(
        &mut self,
        number: usize,
        partition: i32,
        parts: VecDeque<Vec<(Place, Record)>>,
        checkpoint: Option<i64>,
    ) {
        let write = self.net.u64(1..);
        if let Some(slot) = self.servers[number].slots.get_mut(&partition) {
            slot.write = Some(Write { number: write, parts, first: true, checkpoint, committing: false });
        }
        self.next_part(number, partition);
    }

    fn next_part(&mut self, number: usize, partition: i32) {
        let life = self.servers[number].life;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        let tenure = slot.tenure;
        let epoch = match &slot.stage {
            Stage::Restoring { epoch, .. } => *epoch,
            Stage::Running(running) => running.epoch,
            Stage::Resting { .. } | Stage::Halted { .. } => return,
        };
        let Some(write) = &mut slot.write else { return };
        let number_of_write = write.number;
        let request = |what| Request { server: number, life, partition, tenure, write: number_of_write, epoch, what };
        let give_up = ToServer::GivenUp(partition, tenure, number_of_write);
        let mut requests = Vec::new();
        match write.parts.pop_front() {
            Some(mut records) => {
                // Some arrive before others: a crash, or an EndTxn of somebody, may fall between.
                let first = std::mem::take(&mut write.first);
                let cut = if records.len() > 1 { self.net.usize(0..records.len()) } else { 0 };
                let rest = records.split_off(cut);
                if !records.is_empty() {
                    requests.push(request(What::Append { first, last: false, records }));
                }
                let first = first && requests.is_empty();
                requests.push(request(What::Append { first, last: true, records: rest }));
                self.after(DELIVERY_MAX, Event::Server(number, life, give_up));
            }
            None => {
                write.committing = true;
                requests.push(request(What::Commit { is_repeat: false }));
                self.after(COMMIT_MAX, Event::Server(number, life, give_up));
                if self.faults.strikes(Fault::RepeatedEndTxn, 12) {
                    let delay = 10 + self.faults.rng(Fault::RepeatedEndTxn).i64(0..1_500);
                    let repeat = Request { what: What::Commit { is_repeat: true }, ..request(What::Fence) };
                    self.after(delay, Event::Transaction(repeat));
                }
            }
        }
        let mut delay = 0;
        for request in requests {
            delay += self.latency();
            match request.what {
                What::Commit { .. } if self.faults.strikes(Fault::LateEndTxn, 15) => {
                    delay += self.faults.span(Fault::LateEndTxn);
                }
                What::Append { .. } if self.faults.strikes(Fault::SlowCheckpoint, 30) => {
                    delay += self.faults.rng(Fault::SlowCheckpoint).i64(0..15_000);
                }
                What::Commit { .. } | What::Append { .. } | What::Fence => {}
            }
            self.after(delay, Event::Transaction(request));
        }
    }

    /// A request of a transactional producer reaches the broker.
    pub(crate) fn transaction_request(&mut self, request: Request) {
        let Request { server, life, partition, tenure, write, epoch, what } = request;
        let mut delay = self.latency();
        let heard = match what {
            What::Fence => ToServer::Fenced(partition, tenure, self.kafka.fence(partition)),
            What::Append { first, last, records } => {
                let result = self.kafka.append_in(partition, epoch, first, &records, self.now);
                if result.is_ok() && !last {
                    return;
                }
                ToServer::Part(partition, tenure, write, result)
            }
            What::Commit { is_repeat } => {
                let result = self.kafka.commit(partition, epoch);
                if is_repeat {
                    return;
                }
                if self.faults.strikes(Fault::SlowCommit, 25) {
                    delay += COMMIT_MAX + 100;
                }
                ToServer::Ended(partition, tenure, write, result.map(|_| ()))
            }
        };
        self.after(delay, Event::Server(server, life, heard));
    }

    fn on_part(&mut self, number: usize, partition: i32, tenure: u64, write: u64, result: Result<(), Refusal>) {
        let Some(slot) = self.slot(number, partition, tenure) else { return };
        if slot.write.as_ref().is_none_or(|open| open.number != write || open.committing) {
            return;
        }
        match result {
            Ok(()) => self.next_part(number, partition),
            Err(refusal) => self.on_refusal(number, partition, refusal),
        }
    }

    fn on_ended(&mut self, number: usize, partition: i32, tenure: u64, write: u64, result: Result<(), Refusal>) {
        let own = Time::from_epoch_ms(self.now + self.servers[number].skew);
        let Some(slot) = self.slot(number, partition, tenure) else { return };
        let Some(open) = slot.write.take_if(|open| open.number == write) else { return };
        match result {
            Err(refusal) => self.on_refusal(number, partition, refusal),
            Ok(()) => match &mut slot.stage {
                Stage::Restoring { takeover: Some(takeover), .. } => {
                    takeover.on_barrier();
                    self.go_on(number, partition);
                }
                Stage::Running(running) => {
                    running.owner.on_written(own);
                    let all = open.checkpoint == Some(running.owner.shard().next_offset());
                    running.unstored_since = (!all).then_some(running.drafted);
                    self.look_after(number, partition);
                }
                Stage::Restoring { .. } | Stage::Resting { .. } | Stage::Halted { .. } => {}
            },
        }
    }

    fn on_refusal(&mut self, number: usize, partition: i32, refusal: Refusal) {
        match refusal {
            Refusal::Fenced => self.rest(number, partition, REST_FENCED),
            Refusal::NoTransaction => self.rest(number, partition, REST),
        }
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
                            && running.owner.shard().next_offset() == self.kafka.high(Place::Inbox(*partition)) =>
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
            Stage::Halted { poison: Some(offset) } => Some((*partition, offset)),
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
        Destination::Outcomes => Place::Outcomes,
        Destination::DeadLetters => Place::DeadLetters,
    }
}

/// Where an output belongs.
pub(crate) fn place_of_output(output: &Output) -> Place {
    place_of(&output.destination)
}

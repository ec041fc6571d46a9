//! When and how things go wrong, beside what goes wrong on the way.

use sagamore_schemas::log::{BARRIER_KEY, CHECKPOINT_KEY};
use sagamore_schemas::wire::ShardWish;

use crate::faults::Fault;
use crate::kafka::Place;
use crate::workload::PARTICIPANTS;
use crate::world::{Event, World};

/// After so long without a sign of life the group gives a server's shards to others.
const SESSION_MS: i64 = 6_000;
/// The cleaner leaves alone what is younger: `min.compaction.lag.ms` of the state topic.
pub(crate) const COMPACTION_LAG_MS: i64 = 600_000;

/// The level that servers know only after the upgrade.
const LEVEL_NEXT: u32 = 2;

/// Something that goes wrong, or right again.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The fault begins.
    Begin(Fault),
    /// A server comes back.
    Restart(usize, u32),
    /// A server wakes up.
    Wake(usize, u32),
    /// The group misses somebody.
    Rebalance,
    /// All servers come back.
    OutageOver,
    /// A server that was asked to stop may have done so.
    Stopping(usize, u32, u8),
    /// An operator decides to skip a record.
    Skip,
    /// A leader's clock is right again.
    ClockRight(i32),
    /// The cleaner comes by.
    Clean,
    /// A server is replaced by one that knows the next level.
    Replace(usize),
    /// An operator raises the level.
    Raise,
}

impl World {
    pub(crate) fn begin_trouble(&mut self) {
        for fault in self.faults.active() {
            let times = match fault {
                Fault::Crash | Fault::Pause | Fault::Rebalance | Fault::Compaction => 4,
                Fault::LeaderChange | Fault::ParticipantAway | Fault::Garbage => 3,
                Fault::Outage
                | Fault::GracefulStop
                | Fault::Undeliverable
                | Fault::DeadTopic
                | Fault::InboxAway
                | Fault::SettingsChange => 2,
                Fault::Upgrade
                | Fault::StateLost
                | Fault::InboxCut
                | Fault::ClockJump
                | Fault::Poison
                | Fault::LateDefinition => 1,
                _ => 0,
            };
            // What spoils a whole shard comes seldom, or nothing else would be seen.
            let rare = matches!(fault, Fault::StateLost | Fault::InboxCut | Fault::ClockJump);
            if rare && self.faults.rng(fault).u8(0..4) > 0 {
                continue;
            }
            for _ in 0..times {
                let until = if self.faults.rng(fault).bool() { 30_000 } else { self.trouble_ms / 2 };
                let at = self.faults.rng(fault).i64(500..until);
                self.after(at, Event::Trouble(Trouble::Begin(fault)));
            }
        }
        if self.faults.has(Fault::Compaction) {
            for hour in 1..=6 {
                self.after(hour * 1_500_000, Event::Trouble(Trouble::Clean));
            }
        }
    }

    pub(crate) fn goes_wrong(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Begin(fault) if self.faults.has(fault) => self.begin(fault),
            Trouble::Begin(_) => {}
            Trouble::Restart(number, life) => {
                if self.servers[number].life == life && !self.servers[number].up {
                    self.start_server(number);
                }
            }
            Trouble::Wake(number, life) => {
                if self.servers[number].life == life {
                    self.resume_server(number);
                }
            }
            Trouble::Rebalance => self.rebalance(),
            Trouble::OutageOver => {
                for number in 0..self.servers.len() {
                    if !self.servers[number].up {
                        self.start_server(number);
                    }
                }
            }
            Trouble::Stopping(number, life, times) => {
                let server = &self.servers[number];
                if server.life != life || !server.up {
                    return;
                }
                if self.has_stopped(number) || times == 0 {
                    self.kill_server(number);
                    self.rebalance();
                    let delay = self.latency() * 100;
                    let life = self.servers[number].life;
                    self.after(delay, Event::Trouble(Trouble::Restart(number, life)));
                } else {
                    self.after(200, Event::Trouble(Trouble::Stopping(number, life, times - 1)));
                }
            }
            Trouble::Skip => {
                for (partition, offset) in self.poisoned() {
                    self.shard_verb(partition, ShardWish::Skip { offset });
                }
            }
            Trouble::ClockRight(partition) => self.kafka.at(Place::Inbox(partition)).skew = 0,
            Trouble::Clean => self.clean(),
            // What an upgrade has not come to, calm completes.
            Trouble::Replace(_) | Trouble::Raise if self.faults.calm => {}
            Trouble::Replace(number) => self.replace(number),
            Trouble::Raise => self.raise(),
        }
    }

    fn begin(&mut self, fault: Fault) {
        self.tell(|| format!("trouble: {}", fault.text()));
        let number = self.faults.rng(fault).usize(0..self.servers.len());
        let partition = self.faults.rng(fault).i32(0..self.partitions);
        let participant = self.faults.rng(fault).u8(0..PARTICIPANTS);
        let until = self.now + self.faults.span(fault);
        match fault {
            Fault::Crash => self.crash(number),
            Fault::Pause => self.pause(number, until - self.now),
            Fault::Outage => self.outage(until - self.now),
            Fault::GracefulStop => self.stop(number),
            Fault::Upgrade => self.upgrade(),
            Fault::Rebalance => {
                self.faults.note(fault);
                self.rebalance();
            }
            Fault::LeaderChange => {
                self.faults.note(fault);
                let skew = self.faults.rng(fault).i64(-20_000..2_000);
                let places = [Place::Inbox(partition), Place::Commands(participant), Place::Outcomes];
                let place = places[self.faults.rng(fault).usize(0..places.len())];
                self.elect(place, skew);
            }
            Fault::ClockJump => {
                let skew = self.faults.rng(fault).i64(900_000..9_000_000);
                self.kafka.at(Place::Inbox(partition)).skew = skew;
                self.after(500, Event::Trouble(Trouble::ClockRight(partition)));
            }
            Fault::Undeliverable => {
                self.desks[usize::from(participant)].missing_until = until.min(self.now + 20_000);
            }
            Fault::DeadTopic => {
                self.desks[usize::from(participant)].dead_until = until.min(self.now + 60_000);
            }
            Fault::InboxAway => {
                self.inbox_away.insert(partition, until.min(self.now + 60_000));
            }
            Fault::ParticipantAway => {
                self.faults.note(fault);
                self.desks[usize::from(participant)].away_until = until;
                self.hand_again(participant, until - self.now);
            }
            Fault::StateLost => self.lose_state(partition),
            Fault::InboxCut => self.cut_inbox(partition),
            Fault::Garbage => self.garbage(partition, participant),
            Fault::Poison => {
                self.append(partition, "poison", br#"{"kind":"poison"}"#.to_vec());
                self.after(4_000, Event::Trouble(Trouble::Skip));
            }
            Fault::LateDefinition => {
                self.faults.note(fault);
                let other = self.definitions[0].replace("deadline\":\"", "deadline\":\"1");
                self.define(0, &other);
                self.define(100, &other);
                let again = self.definitions[0].clone();
                self.define(101, &again);
            }
            Fault::SettingsChange => {
                self.faults.note(fault);
                let rng = self.faults.rng(fault);
                let wish = crate::client::Wish::Settings(rng.u32(1..400), rng.u32(60..4_000));
                self.client_does(wish);
            }
            Fault::Compaction => self.clean(),
            _ => {}
        }
    }

    fn crash(&mut self, number: usize) {
        if !self.servers[number].up {
            return;
        }
        self.faults.note(Fault::Crash);
        self.kill_server(number);
        let life = self.servers[number].life;
        let back = self.faults.span(Fault::Crash).min(60_000);
        self.after(back, Event::Trouble(Trouble::Restart(number, life)));
        self.after(SESSION_MS, Event::Trouble(Trouble::Rebalance));
    }

    fn stop(&mut self, number: usize) {
        let server = &mut self.servers[number];
        if !server.up || server.paused {
            return;
        }
        server.stopping = true;
        let life = server.life;
        self.faults.note(Fault::GracefulStop);
        self.after(100, Event::Trouble(Trouble::Stopping(number, life, 50)));
    }

    fn pause(&mut self, number: usize, ms: i64) {
        let server = &mut self.servers[number];
        if !server.up || server.paused {
            return;
        }
        server.paused = true;
        let life = server.life;
        self.faults.note(Fault::Pause);
        self.tell(|| format!("server {number} stands still for {ms} ms"));
        self.after(ms, Event::Trouble(Trouble::Wake(number, life)));
        self.after(SESSION_MS, Event::Trouble(Trouble::Rebalance));
    }

    fn outage(&mut self, ms: i64) {
        self.faults.note(Fault::Outage);
        for number in 0..self.servers.len() {
            self.kill_server(number);
        }
        self.assigned.clear();
        self.after(ms, Event::Trouble(Trouble::OutageOver));
    }

    /// A rolling upgrade: one server after the other, then the level; an operator in a hurry raises it after the first.
    fn upgrade(&mut self) {
        self.faults.note(Fault::Upgrade);
        let too_early = self.faults.rng(Fault::Upgrade).bool();
        let mut at = 0;
        for number in 0..self.servers.len() {
            self.after(at, Event::Trouble(Trouble::Replace(number)));
            if number == 0 && too_early {
                self.after(at + 1_000, Event::Trouble(Trouble::Raise));
            }
            at += self.faults.rng(Fault::Upgrade).i64(1..15_000);
        }
        if !too_early {
            self.after(at, Event::Trouble(Trouble::Raise));
        }
    }

    /// The newer binary takes a server's place, for good.
    fn replace(&mut self, number: usize) {
        self.servers[number].level_max = LEVEL_NEXT;
        if self.servers[number].up {
            self.kill_server(number);
            self.start_server(number);
        }
    }

    fn raise(&mut self) {
        self.level = LEVEL_NEXT;
        for partition in 0..self.partitions {
            self.shard_verb(partition, ShardWish::Level { level: LEVEL_NEXT });
        }
    }

    /// Of the newest versions of the state one is gone.
    fn lose_state(&mut self, partition: i32) {
        let place = Place::State(partition);
        let (entries, _) = self.kafka.read_committed(place, 0, i64::MAX);
        let mut newest = std::collections::BTreeMap::new();
        for entry in &entries {
            let own =
                [BARRIER_KEY, CHECKPOINT_KEY].iter().any(|key| entry.record.key.as_deref() == Some(key));
            if !own {
                newest.insert(entry.record.key.clone(), entry);
            }
        }
        let there: Vec<i64> =
            newest.values().filter(|entry| entry.record.value.is_some()).map(|entry| entry.offset).collect();
        if there.is_empty() || self.doomed.contains_key(&partition) {
            return;
        }
        let offset = there[self.faults.rng(Fault::StateLost).usize(0..there.len())];
        self.kafka.at(place).lose(offset);
        self.doomed.insert(partition, Fault::StateLost);
        self.tell(|| format!("record {offset} of the state of shard {partition} is gone"));
    }

    /// The end of an inbox is gone, below what a checkpoint holds, while nobody runs the shard.
    fn cut_inbox(&mut self, partition: i32) {
        if self.doomed.contains_key(&partition) {
            return;
        }
        self.outage(30_000);
        // What is under way in Kafka transactions must not commit any more.
        self.kafka.fence(partition);
        let head = self.last_checkpoint(partition).map(|(_, head)| head);
        let Some(next) = head.map(|head| head.next_offset).filter(|next| *next > 0) else { return };
        let from = self.faults.rng(Fault::InboxCut).i64(0..next);
        self.kafka.at(Place::Inbox(partition)).cut(from);
        self.kafka.at(Place::Inbox(partition)).waiting.clear();
        self.witness.fold(partition).cut = true;
        self.doomed.insert(partition, Fault::InboxCut);
        self.tell(|| format!("the inbox of shard {partition} is gone from {from} on, {next} was stored"));
    }

    fn garbage(&mut self, partition: i32, participant: u8) {
        self.faults.note(Fault::Garbage);
        let of_nobody = br#"{"specversion":"1.0","type":"sagamore.reply.v1","id":"x","source":"/x","instance":"00000000-0000-0000-0000-000000000007","subject":"nobody","birth":"0-99999","step":"s","branch":"b","operation":"execute","attempt":1,"outcome":"ok"}"#;
        let all: [&[u8]; 4] =
            [b"\xff\xfe not json", b"{\"specversion\":\"1.0\",\"type\":\"sagamore.sta", b"", of_nobody];
        for value in all {
            self.append(partition, "garbage", value.to_vec());
        }
        let record =
            crate::kafka::Record { key: None, value: Some(std::rc::Rc::from(&b"garbage"[..])), as_of: None };
        self.send(Place::Commands(participant), record, None);
    }

    fn clean(&mut self) {
        for partition in 0..self.partitions {
            let place = Place::State(partition);
            let old = self.now - COMPACTION_LAG_MS;
            let below =
                self.kafka.at(place).visible().find(|entry| entry.timestamp > old).map(|entry| entry.offset);
            let below = below.unwrap_or(i64::MAX);
            let keep =
                !self.faults.has(Fault::TombstonesGone) || self.faults.rng(Fault::TombstonesGone).bool();
            let gone = self.kafka.compact(place, below, keep);
            self.look_for_a_hole(partition, &gone);
            if !gone.is_empty() {
                self.faults.note(Fault::Compaction);
                if !keep {
                    self.faults.note(Fault::TombstonesGone);
                }
                self.tell(|| {
                    format!("the cleaner takes {} records of the state of shard {partition}", gone.len())
                });
            }
        }
    }

    /// Nothing goes wrong any more: everybody is up, with the newest binary.
    pub(crate) fn calm_down(&mut self) {
        self.tell(|| "calm".to_owned());
        self.faults.calm = true;
        for partition in 0..self.partitions {
            self.kafka.at(Place::Inbox(partition)).skew = 0;
        }
        for number in 0..self.servers.len() {
            self.kill_server(number);
            let server = &mut self.servers[number];
            server.level_max = server.level_max.max(self.level);
            self.start_server(number);
        }
    }
}

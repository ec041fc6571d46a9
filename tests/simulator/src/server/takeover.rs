//! What the real takeover asks for, done in events.

use std::collections::VecDeque;

use sagamore_decider::invariants as inv;
use sagamore_decider::owner::{Owner, Pace};
use sagamore_decider::planted;
use sagamore_decider::restore::RestoreError;
use sagamore_decider::takeover::{Ask, InboxSeen, Takeover, TakeoverError};
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{AppliedRecord, BARRIER_KEY, record_hash};

use super::writes::{Request, What, state_record};
use super::{Running, Slot, Stage, ToServer, bytes};
use crate::faults::Fault;
use crate::kafka::{Place, Record};
use crate::witness::identity;
use crate::world::{Event, World};

impl World {
    pub(super) fn take_over(&mut self, number: usize, partition: i32, skip: Option<i64>) {
        let server = &mut self.servers[number];
        server.tenures += 1;
        let tenure = server.tenures;
        let owner = format!("server {number}");
        let token = uuid::Uuid::from_u64_pair(u64::from(server.life), tenure * 16 + number as u64);
        let takeover = Takeover::new(identity(partition, self.partitions), token, owner);
        let stage = Stage::Restoring {
            takeover: Some(takeover),
            begun: self.now,
            epoch: self.kafka.epoch(partition),
            read: 0,
            until: i64::MAX,
        };
        server.slots.insert(partition, Slot { tenure, stage, wake: 0, write: None, skip });
        self.tell(|| format!("server {number} takes shard {partition} over"));
        self.go_on(number, partition);
    }

    /// Does what the takeover asks for.
    pub(super) fn go_on(&mut self, number: usize, partition: i32) {
        let life = self.servers[number].life;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        let tenure = slot.tenure;
        let Stage::Restoring { takeover: Some(takeover), begun, epoch, .. } = &slot.stage else { return };
        let (ask, begun, epoch) = (takeover.ask(), *begun, *epoch);
        let delay = self.latency();
        match ask {
            Ask::Fence => {
                let what = What::Fence;
                let request = Request { server: number, life, partition, tenure, write: 0, epoch, what };
                self.after(delay, Event::Transaction(request));
            }
            Ask::WriteBarrier(value) => {
                let record =
                    Record { key: Some(bytes(BARRIER_KEY)), value: Some(bytes(&value)), as_of: None };
                let part =
                    vec![(Place::State(partition), record.clone()), (Place::Journal(partition), record)];
                self.begin_write(number, partition, VecDeque::from([part]), None);
            }
            Ask::WriteAgain(records) => {
                self.tell(|| format!("server {number} covers {} keys of shard {partition}", records.len()));
                let part = records.iter().map(|record| state_record(partition, record)).collect();
                self.begin_write(number, partition, VecDeque::from([part]), None);
            }
            Ask::ReadState => {
                self.after(delay, Event::Server(number, life, ToServer::Read(partition, tenure)));
            }
            Ask::LookIntoInbox(_) => {
                self.is_covered(partition, begun);
                self.after(delay, Event::Server(number, life, ToServer::Looked(partition, tenure)));
            }
        }
    }

    pub(super) fn on_fenced(&mut self, number: usize, partition: i32, tenure: u64, now_epoch: u32) {
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

    /// What the takeover has asked to be written is committed.
    pub(super) fn on_asked_for(&mut self, number: usize, partition: i32) {
        let server = &mut self.servers[number];
        planted::set_level_max(server.level_max);
        let Some(slot) = server.slots.get_mut(&partition) else { return };
        let Stage::Restoring { takeover: Some(takeover), begun, .. } = &mut slot.stage else { return };
        let begun = *begun;
        let result = match takeover.ask() {
            Ask::WriteBarrier(_) => {
                takeover.on_barrier();
                Ok(())
            }
            Ask::WriteAgain(_) => {
                let result = takeover.on_written_again();
                self.is_covered(partition, begun);
                result
            }
            Ask::Fence | Ask::ReadState | Ask::LookIntoInbox(_) => unreachable!("nothing was to be written"),
        };
        match result {
            Err(error) => self.halt(number, partition, &error),
            Ok(()) => self.go_on(number, partition),
        }
    }

    pub(super) fn slot(&mut self, number: usize, partition: i32, tenure: u64) -> Option<&mut Slot> {
        self.servers[number].slots.get_mut(&partition).filter(|slot| slot.tenure == tenure)
    }

    pub(super) fn read_state(&mut self, number: usize, partition: i32, tenure: u64) {
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

    pub(super) fn on_looked(&mut self, number: usize, partition: i32, tenure: u64) {
        let server = &mut self.servers[number];
        let Some(slot) = server.slots.get_mut(&partition).filter(|slot| slot.tenure == tenure) else {
            return;
        };
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
    pub(super) fn halt(&mut self, number: usize, partition: i32, error: &TakeoverError) {
        self.tell(|| format!("server {number} halts shard {partition}: {error}"));
        let doomed = self.doomed.get(&partition).copied();
        let hole = self.hole(partition).map(str::to_owned);
        let has_cause = match error {
            TakeoverError::State(RestoreError::Incomplete { .. })
                if hole.is_some() && doomed != Some(Fault::StateLost) =>
            {
                self.accepted.extend(hole.map(|evidence| (partition, evidence)));
                self.doomed.entry(partition).or_insert(Fault::Compaction);
                true
            }
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
}

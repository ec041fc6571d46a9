//! Kafka transactions: barriers and checkpoints, part by part.

use std::collections::VecDeque;

use sagamore_decider::checkpoint::{Checkpoint, StateRecord};
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::CHECKPOINT_KEY;

use super::{REST, Slot, Stage, ToServer, bytes};
use crate::faults::Fault;
use crate::kafka::{Place, Record, Refusal};
use crate::world::{Event, World};

/// A commit slower than this counts as indefinite, as in production.
const COMMIT_MAX: i64 = 2_000;
/// Records of a checkpoint that are not acknowledged for so long: given up, as in production.
const DELIVERY_MAX: i64 = 10_000;
/// Pause after being fenced, as in production.
const REST_FENCED: i64 = 3_000;

/// A request in a Kafka transaction.
#[derive(Debug)]
pub struct Request {
    pub(super) server: usize,
    pub(super) life: u32,
    pub(super) partition: i32,
    pub(super) tenure: u64,
    pub(super) write: u64,
    pub(super) epoch: u32,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Fence,
    Append { first: bool, last: bool, records: Vec<(Place, Record)> },
    Commit { is_repeat: bool },
}

/// A Kafka transaction under way.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) number: u64,
    parts: VecDeque<Vec<(Place, Record)>>,
    first: bool,
    checkpoint: Option<i64>,
    committing: bool,
}

pub(super) fn state_record(partition: i32, record: &StateRecord) -> (Place, Record) {
    let as_of = Some(record.as_of).filter(|_| record.key != CHECKPOINT_KEY);
    let value = record.value.as_deref().map(bytes);
    (Place::State(partition), Record { key: Some(bytes(&record.key)), value, as_of })
}

impl World {
    pub(super) fn write(&mut self, number: usize, partition: i32, checkpoint: &Checkpoint) {
        let in_order = checkpoint.parts();
        let parts = in_order.iter().map(|part| {
            let journal = part.journal.iter().map(|(key, value)| {
                let record = Record { key: Some(bytes(key)), value: Some(bytes(value)), as_of: None };
                (Place::Journal(partition), record)
            });
            let state = part.state.iter().map(|record| state_record(partition, record));
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

    pub(super) fn begin_write(
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

    pub(super) fn next_part(&mut self, number: usize, partition: i32) {
        let life = self.servers[number].life;
        let Some(slot) = self.servers[number].slots.get_mut(&partition) else { return };
        let tenure = slot.tenure;
        let epoch = match &slot.stage {
            // Who halts writes a checkpoint under way to its end; if that fails the shard is taken over again.
            Stage::Restoring { epoch, .. } | Stage::Halted { epoch, .. } => *epoch,
            Stage::Running(running) => running.epoch,
            Stage::Resting { .. } => return,
        };
        let Some(write) = &mut slot.write else { return };
        let number_of_write = write.number;
        let request =
            |what| Request { server: number, life, partition, tenure, write: number_of_write, epoch, what };
        let give_up = ToServer::GivenUp(partition, tenure, number_of_write);
        let mut requests = Vec::new();
        if let Some(mut records) = write.parts.pop_front() {
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
        } else {
            write.committing = true;
            requests.push(request(What::Commit { is_repeat: false }));
            self.after(COMMIT_MAX, Event::Server(number, life, give_up));
            if self.faults.strikes(Fault::RepeatedEndTxn, 12) {
                let delay = 10 + self.faults.rng(Fault::RepeatedEndTxn).i64(0..1_500);
                let repeat = Request { what: What::Commit { is_repeat: true }, ..request(What::Fence) };
                self.after(delay, Event::Transaction(repeat));
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

    pub(super) fn on_part(
        &mut self,
        number: usize,
        partition: i32,
        tenure: u64,
        write: u64,
        result: Result<(), Refusal>,
    ) {
        let Some(slot) = self.slot(number, partition, tenure) else { return };
        if slot.write.as_ref().is_none_or(|open| open.number != write || open.committing) {
            return;
        }
        match result {
            Ok(()) => self.next_part(number, partition),
            Err(refusal) => self.on_refusal(number, partition, refusal),
        }
    }

    pub(super) fn on_ended(
        &mut self,
        number: usize,
        partition: i32,
        tenure: u64,
        write: u64,
        result: Result<(), Refusal>,
    ) {
        let own = Time::from_epoch_ms(self.now + self.servers[number].skew);
        let Some(slot) = self.slot(number, partition, tenure) else { return };
        let Some(open) = slot.write.take_if(|open| open.number == write) else { return };
        match result {
            Err(refusal) => self.on_refusal(number, partition, refusal),
            Ok(()) => match &mut slot.stage {
                Stage::Restoring { takeover: Some(_), .. } => self.on_asked_for(number, partition),
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

    pub(super) fn on_refusal(&mut self, number: usize, partition: i32, refusal: Refusal) {
        match refusal {
            Refusal::Fenced => self.rest(number, partition, REST_FENCED),
            Refusal::NoTransaction => self.rest(number, partition, REST),
        }
    }
}

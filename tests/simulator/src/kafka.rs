//! Kafka as far as Sagamore leans on it, in memory and at once: what takes time is an event of the [`crate::world`].
//!
//! Modelled: partitions with a high watermark (what is above may be lost with its leader), timestamps of a leader's own
//! clock, which may step back with the next leader; transactional ids with epochs, fencing, Kafka transactions that are
//! open, committed or aborted, an `EndTxn` that comes late or twice (librdkafka has no KIP-890), read-committed readers
//! that stop at the first open one; compaction with tombstones; deletion from the front. Left out: replication itself,
//! segments, several brokers, authorization.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::world::Sender;

/// Bytes that are shared, not copied.
pub type Bytes = Rc<[u8]>;

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Of the inbox.
    Inbox(i32),
    /// Of the state.
    State(i32),
    /// Of the journal.
    Journal(i32),
    /// The command topic of a participant.
    Commands(u8),
    /// The outcomes.
    Outcomes,
    /// The dead letters.
    DeadLetters,
}

/// What is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// The header of the state's records.
    pub as_of: Option<i64>,
}

/// What stands in a partition.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Offset.
    pub offset: i64,
    /// The leader's clock when it was appended, in milliseconds.
    pub timestamp: i64,
    /// The record.
    pub record: Record,
    /// The Kafka transaction it belongs to.
    transaction: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// One partition.
#[derive(Debug, Default)]
pub struct Partition {
    entries: Vec<Entry>,
    next: i64,
    low: i64,
    high: i64,
    /// Which leader: what was above the watermark of an earlier one is gone.
    pub leader: u32,
    /// How far the leader's clock is off, in milliseconds.
    pub skew: i64,
    /// What is not replicated yet, and who waits for it.
    pub waiting: Vec<(i64, Record, Option<Sender>)>,
}

#[derive(Debug, Default)]
struct Coordinator {
    epoch: u32,
    open: Option<u64>,
    /// Partitions of the open one.
    has_any: bool,
}

/// Why a write in a Kafka transaction is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A newer epoch has come.
    Fenced,
    /// Its Kafka transaction has been ended by somebody else: by an `EndTxn` that came twice.
    NoTransaction,
}

/// The cluster.
#[derive(Debug, Default)]
pub struct Kafka {
    partitions: BTreeMap<Place, Partition>,
    fates: Vec<Fate>,
    coordinators: BTreeMap<i32, Coordinator>,
}

impl Kafka {
    /// A partition.
    pub fn at(&mut self, place: Place) -> &mut Partition {
        self.partitions.entry(place).or_default()
    }

    /// The end of what is visible of a partition.
    pub fn high(&self, place: Place) -> i64 {
        self.partitions.get(&place).map_or(0, Partition::high)
    }

    /// Appends outside any Kafka transaction; returns the offset.
    pub fn append(&mut self, place: Place, record: Record, now: i64) -> i64 {
        self.at(place).append(record, now, None)
    }

    /// The newest epoch of a transactional id.
    pub fn epoch(&self, id: i32) -> u32 {
        self.coordinators.get(&id).map_or(0, |coordinator| coordinator.epoch)
    }

    /// `InitProducerId`: a new epoch; what the former has open is aborted.
    pub fn fence(&mut self, id: i32) -> u32 {
        let coordinator = self.coordinators.entry(id).or_default();
        coordinator.epoch += 1;
        if let Some(open) = coordinator.open.take() {
            set(&mut self.fates, open, Fate::Aborted);
        }
        coordinator.epoch
    }

    /// Appends in the Kafka transaction of `id`; `first` begins one. Replicated at once.
    pub fn append_in(
        &mut self,
        id: i32,
        epoch: u32,
        first: bool,
        records: &[(Place, Record)],
        now: i64,
    ) -> Result<(), Refusal> {
        let coordinator = self.coordinators.entry(id).or_default();
        if epoch < coordinator.epoch {
            return Err(Refusal::Fenced);
        }
        let open = match coordinator.open {
            Some(open) => open,
            None if first => {
                let open = self.fates.len() as u64;
                self.fates.push(Fate::Open);
                coordinator.open = Some(open);
                coordinator.has_any = false;
                open
            }
            None => return Err(Refusal::NoTransaction),
        };
        for (place, record) in records {
            let partition = self.at(*place);
            partition.append(record.clone(), now, Some(open));
            partition.high = partition.next;
        }
        Ok(())
    }

    /// `EndTxn` with commit. Without an open Kafka transaction it says yes, as Kafka does to one it believes repeated.
    /// `Ok(true)`: something was committed.
    pub fn commit(&mut self, id: i32, epoch: u32) -> Result<bool, Refusal> {
        let coordinator = self.coordinators.entry(id).or_default();
        if epoch < coordinator.epoch {
            return Err(Refusal::Fenced);
        }
        match coordinator.open.take() {
            Some(open) => {
                set(&mut self.fates, open, Fate::Committed);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Committed entries from `from` on, up to the first open Kafka transaction or `until`; and how far that is.
    pub fn read_committed(&self, place: Place, from: i64, until: i64) -> (Vec<Entry>, i64) {
        let Some(partition) = self.partitions.get(&place) else { return (Vec::new(), from) };
        let mut read = Vec::new();
        let end = until.min(partition.high);
        for entry in partition.entries.iter().filter(|entry| entry.offset >= from) {
            if entry.offset >= end {
                break;
            }
            match entry.transaction.map_or(Fate::Committed, |number| fate(&self.fates, number)) {
                Fate::Open => return (read, entry.offset),
                Fate::Committed => read.push(entry.clone()),
                Fate::Aborted => {}
            }
        }
        (read, end.max(from))
    }

    /// What the cleaner leaves below `below`: per key the newest committed entry there; tombstones only when asked to
    /// keep them. What stands above supersedes nothing yet. Returns what went, the newest first.
    pub fn compact(&mut self, place: Place, below: i64, keep_tombstones: bool) -> Vec<Entry> {
        let Self { partitions, fates, .. } = self;
        let Some(partition) = partitions.get_mut(&place) else { return Vec::new() };
        let fate_of = |entry: &Entry| entry.transaction.map_or(Fate::Committed, |number| fate(fates, number));
        let open = partition.entries.iter().find(|entry| fate_of(entry) == Fate::Open);
        let below = below.min(open.map_or(i64::MAX, |entry| entry.offset));
        let mut seen = BTreeSet::new();
        let mut kept: Vec<Entry> = Vec::with_capacity(partition.entries.len());
        let mut gone = Vec::new();
        for entry in partition.entries.drain(..).rev() {
            if entry.offset >= below {
                kept.push(entry);
                continue;
            }
            let is_newest = fate_of(&entry) == Fate::Committed && seen.insert(entry.record.key.clone());
            let is_dead = entry.record.value.is_none() && !keep_tombstones;
            if is_newest && !is_dead { kept.push(entry) } else { gone.push(entry) }
        }
        kept.reverse();
        partition.entries = kept;
        gone
    }
}

fn fate(fates: &[Fate], number: u64) -> Fate {
    usize::try_from(number).ok().and_then(|at| fates.get(at)).copied().unwrap_or(Fate::Aborted)
}

fn set(fates: &mut [Fate], number: u64, fate: Fate) {
    if let Some(place) = usize::try_from(number).ok().and_then(|at| fates.get_mut(at)) {
        *place = fate;
    }
}

impl Partition {
    fn append(&mut self, record: Record, now: i64, transaction: Option<u64>) -> i64 {
        let offset = self.next;
        self.next += 1;
        self.entries.push(Entry { offset, timestamp: now + self.skew, record, transaction });
        offset
    }

    /// The first offset.
    pub fn low(&self) -> i64 {
        self.low
    }

    /// The offset after the last one that is replicated: consumers see what is below.
    pub fn high(&self) -> i64 {
        self.high
    }

    /// The offset that the next record gets.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Everything below `upto` is replicated. Says whether that is news.
    pub fn replicate(&mut self, upto: i64) -> bool {
        let news = upto.min(self.next) > self.high;
        self.high = self.high.max(upto.min(self.next));
        news
    }

    /// The visible entry at an offset.
    pub fn get(&self, offset: i64) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        self.entries.get(at).filter(|entry| entry.offset < self.high)
    }

    /// All visible entries.
    pub fn visible(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take_while(|entry| entry.offset < self.high)
    }

    /// A new leader, who has nothing above the watermark, and whose clock is off by `skew`.
    pub fn elect(&mut self, skew: i64) {
        let high = self.high;
        self.entries.retain(|entry| entry.offset < high);
        self.next = high;
        self.leader += 1;
        self.skew = skew;
    }

    /// What no promise survives: the last entries below the watermark are gone, as after an unclean election.
    pub fn cut(&mut self, from: i64) {
        self.entries.retain(|entry| entry.offset < from);
        self.next = self.next.min(from);
        self.high = self.high.min(from);
        self.leader += 1;
    }

    /// One visible entry is gone without a trace.
    pub fn lose(&mut self, offset: i64) {
        self.entries.retain(|entry| entry.offset != offset);
    }
}

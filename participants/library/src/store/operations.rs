//! The memory of operations, held in the process: rows, votes and horizons, bounded by count, and each change undoable.
//!
//! `memory` has nothing else; `kafka` has it as the image of a topic, and writes there what [`Operations::changes`] names.
//!
//! The oldest branches go first, only when all they know was issued before the horizon of their home, and never while
//! they are in doubt. When it is full, new branches are answered `error`; nothing is forgotten silently.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

#[cfg(feature = "kafka")]
use sagamore_schemas::ids::Birth;
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::wire::Operation;
use uuid::Uuid;

use super::StoreFault;
use crate::barrier::{self, Branch, BranchKey, Home, Row};
use crate::doubt::{InDoubt, Vote};
use crate::heuristic::Heuristic;

/// Branches looked at for purging with each new one: more than one, so that purging overtakes inserting.
const PURGED_PER_COMMAND: usize = 4;

/// A branch as bytes: equal keys are equal branches.
pub(super) type Key = Arc<[u8]>;

pub(super) struct Operations {
    branches: HashMap<Key, Vec<Row>>,
    branches_max: usize,
    /// Branches in the order in which they came, which is nearly the order in which they may be purged.
    oldest: VecDeque<Key>,
    horizons: BTreeMap<Home, Time>,
    /// Of branches in doubt.
    votes: BTreeMap<Key, InDoubt>,
    /// Decisions by hand, as many as operators have made.
    heuristics: BTreeMap<Key, (Branch, Heuristic)>,
    /// Since the last [`Operations::keep`], in their order. Horizons are not among them: they never go back.
    changes: Vec<Change>,
    /// The last key written as bytes, kept for its buffer.
    key: Vec<u8>,
}

/// What can be taken back.
pub(super) enum Change {
    /// One more row; the first one makes the branch.
    Row(Key, Operation),
    /// A vote in place of what was there.
    Vote(Key, Option<InDoubt>),
    /// A decision by hand in place of what was there.
    Heuristic(Key, Option<(Branch, Heuristic)>),
    /// A branch has been let go.
    Purged(Key, Vec<Row>),
}

impl Operations {
    pub(super) fn new(branches_max: usize) -> Self {
        Self {
            branches: HashMap::new(),
            branches_max,
            oldest: VecDeque::new(),
            horizons: BTreeMap::new(),
            votes: BTreeMap::new(),
            heuristics: BTreeMap::new(),
            changes: Vec::new(),
            key: Vec::new(),
        }
    }

    /// How many branches are remembered.
    pub(super) fn len(&self) -> usize {
        self.branches.len()
    }

    /// Raises the horizon of a home, and returns it.
    pub(super) fn horizon(&mut self, home: Home, watermark: Time) -> Time {
        let horizon = self.horizons.entry(home).or_default();
        *horizon = watermark.max(*horizon);
        *horizon
    }

    pub(super) fn rows(&mut self, key: &BranchKey<'_>) -> &[Row] {
        write_key(key, &mut self.key);
        self.rows_of(&self.key)
    }

    pub(super) fn rows_of(&self, key: &[u8]) -> &[Row] {
        self.branches.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault> {
        write_key(key, &mut self.key);
        let operation = row.operation;
        if let Some((shared, _)) = self.branches.get_key_value(self.key.as_slice()) {
            let shared = Arc::clone(shared);
            let rows = self.branches.entry(Arc::clone(&shared)).or_default();
            if rows.iter().any(|known| known.operation == operation) {
                return Err(StoreFault::Conflict);
            }
            rows.push(row);
            self.changes.push(Change::Row(Arc::clone(&shared), operation));
            if matches!(operation, Operation::Commit | Operation::Abort)
                && let Some(vote) = self.votes.remove(&shared)
            {
                self.changes.push(Change::Vote(shared, Some(vote)));
            }
            return Ok(());
        }
        self.purge();
        if self.branches.len() >= self.branches_max {
            return Err(StoreFault::Full { branches_max: self.branches_max });
        }
        let shared: Key = self.key.as_slice().into();
        self.branches.insert(Arc::clone(&shared), vec![row]);
        self.oldest.push_back(Arc::clone(&shared));
        self.changes.push(Change::Row(shared, operation));
        Ok(())
    }

    pub(super) fn keep_vote(&mut self, key: &BranchKey<'_>, vote: Vote) {
        write_key(key, &mut self.key);
        let shared: Key = self.key.as_slice().into();
        let before = self.votes.insert(Arc::clone(&shared), InDoubt { branch: key.into(), vote });
        self.changes.push(Change::Vote(shared, before));
    }

    pub(super) fn vote(&mut self, key: &BranchKey<'_>) -> Option<Vote> {
        write_key(key, &mut self.key);
        self.vote_of(&self.key).cloned()
    }

    pub(super) fn vote_of(&self, key: &[u8]) -> Option<&Vote> {
        self.votes.get(key).map(|found| &found.vote)
    }

    pub(super) fn in_doubt(&self, after: Option<&Branch>, limit: usize) -> Vec<InDoubt> {
        let behind = self.votes.range((behind(after), Bound::Unbounded));
        behind.take(limit).map(|(_, found)| found.clone()).collect()
    }

    pub(super) fn heuristic(&mut self, key: &BranchKey<'_>) -> Option<Heuristic> {
        write_key(key, &mut self.key);
        self.heuristics.get(self.key.as_slice()).map(|(_, kept)| kept.clone())
    }

    #[cfg(feature = "kafka")]
    pub(super) fn heuristic_of(&self, key: &[u8]) -> Option<&Heuristic> {
        self.heuristics.get(key).map(|(_, kept)| kept)
    }

    /// A decision by hand as it stands in a log, or none.
    #[cfg(feature = "kafka")]
    pub(super) fn restore_heuristic(&mut self, key: &BranchKey<'_>, kept: Option<Heuristic>) {
        write_key(key, &mut self.key);
        let shared: Key = self.key.as_slice().into();
        match kept {
            Some(kept) => self.heuristics.insert(shared, (key.into(), kept)),
            None => self.heuristics.remove(&shared),
        };
    }

    pub(super) fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: Heuristic) {
        write_key(key, &mut self.key);
        let shared: Key = self.key.as_slice().into();
        let before = self.heuristics.insert(Arc::clone(&shared), (key.into(), heuristic));
        self.changes.push(Change::Heuristic(shared, before));
    }

    pub(super) fn heuristics(&self, after: Option<&Branch>, limit: usize) -> Vec<(Branch, Heuristic)> {
        let behind = self.heuristics.range((behind(after), Bound::Unbounded));
        behind.take(limit).map(|(_, found)| found.clone()).collect()
    }

    /// What has changed since the last `keep`.
    #[cfg(feature = "kafka")]
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Makes all changes final.
    pub(super) fn keep(&mut self) {
        self.changes.clear();
    }

    /// Takes back all changes but the first so many.
    pub(super) fn undo_to(&mut self, mark: usize) {
        while self.changes.len() > mark {
            match self.changes.pop() {
                Some(Change::Row(key, operation)) => self.take_row_back(&key, operation),
                Some(Change::Vote(key, Some(before))) => {
                    self.votes.insert(key, before);
                }
                Some(Change::Vote(key, None)) => {
                    self.votes.remove(&key);
                }
                Some(Change::Heuristic(key, Some(before))) => {
                    self.heuristics.insert(key, before);
                }
                Some(Change::Heuristic(key, None)) => {
                    self.heuristics.remove(&key);
                }
                Some(Change::Purged(key, rows)) => {
                    self.branches.insert(Arc::clone(&key), rows);
                    self.oldest.push_front(key);
                }
                None => return,
            }
        }
    }

    fn take_row_back(&mut self, key: &Key, operation: Operation) {
        let Some(rows) = self.branches.get_mut(key) else { return };
        rows.retain(|row| row.operation != operation);
        if rows.is_empty() {
            self.branches.remove(key);
            // The last one, or nearly: purging may have moved a few behind it.
            if let Some(place) = self.oldest.iter().rposition(|known| known == key) {
                self.oldest.remove(place);
            }
        }
    }

    /// A row as it stands in a log, in place of an older one.
    #[cfg(feature = "kafka")]
    pub(super) fn restore_row(&mut self, key: &BranchKey<'_>, row: Row) {
        write_key(key, &mut self.key);
        if let Some(rows) = self.branches.get_mut(self.key.as_slice()) {
            rows.retain(|known| known.operation != row.operation);
            rows.push(row);
            return;
        }
        let shared: Key = self.key.as_slice().into();
        self.branches.insert(Arc::clone(&shared), vec![row]);
        self.oldest.push_back(shared);
    }

    /// A row that a log no longer has.
    #[cfg(feature = "kafka")]
    pub(super) fn forget_row(&mut self, key: &BranchKey<'_>, operation: Operation) {
        write_key(key, &mut self.key);
        let Some(rows) = self.branches.get_mut(self.key.as_slice()) else { return };
        rows.retain(|known| known.operation != operation);
        if rows.is_empty() {
            self.branches.remove(self.key.as_slice());
        }
    }

    /// The log has been read.
    #[cfg(feature = "kafka")]
    pub(super) fn restored(&mut self) {
        self.oldest.retain(|key| self.branches.contains_key(key));
        // As purging would have it: those in doubt are not in the way of the others.
        let (in_doubt, others) = self.oldest.drain(..).partition(|key| self.votes.contains_key(key));
        (self.oldest, self.changes) = (others, Vec::new());
        self.oldest.extend::<VecDeque<Key>>(in_doubt);
    }

    /// A vote as it stands in a log, or none.
    #[cfg(feature = "kafka")]
    pub(super) fn restore_vote(&mut self, key: &BranchKey<'_>, vote: Option<Vote>) {
        write_key(key, &mut self.key);
        let shared: Key = self.key.as_slice().into();
        match vote {
            Some(vote) => self.votes.insert(shared, InDoubt { branch: key.into(), vote }),
            None => self.votes.remove(&shared),
        };
    }

    /// Looks at the oldest few branches and lets go what is behind the horizon.
    fn purge(&mut self) {
        for _ in 0..PURGED_PER_COMMAND {
            let Some(key) = self.oldest.front() else { return };
            let rows = self.rows_of(key);
            let horizon = self.horizons.get(&home_of(key)).copied().unwrap_or_default();
            let is_behind = rows.iter().all(|row| row.issued < horizon);
            let is_in_doubt = barrier::in_doubt(rows);
            if !is_behind && !is_in_doubt && self.branches.len() < self.branches_max {
                return;
            }
            let Some(key) = self.oldest.pop_front() else { return };
            if is_behind && !is_in_doubt {
                if let Some(rows) = self.branches.remove(&key) {
                    self.changes.push(Change::Purged(key, rows));
                }
            } else {
                self.oldest.push_back(key);
            }
        }
    }
}

fn behind(branch: Option<&Branch>) -> Bound<Key> {
    branch.map_or(Bound::Unbounded, |branch| {
        let mut key = Vec::new();
        write_key(&branch.key(), &mut key);
        Bound::Excluded(Key::from(key))
    })
}

const INSTANCE_BYTES: usize = 16;
const PARTITION_BYTES: usize = 4;

/// Instance, home, offset of birth, and the names behind it.
fn write_key(key: &BranchKey<'_>, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(key.instance.as_bytes());
    bytes.extend_from_slice(&key.birth.partition.0.to_be_bytes());
    bytes.extend_from_slice(&key.birth.offset.to_be_bytes());
    for name in [key.subject.as_str(), key.step, key.branch] {
        // The length first: step and branch of a foreign coordinator may contain anything.
        bytes.extend_from_slice(&name.len().to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
}

fn home_of(key: &[u8]) -> Home {
    let (instance, rest) = key.split_at(INSTANCE_BYTES);
    let (partition, _) = rest.split_at(PARTITION_BYTES);
    match (instance.try_into(), partition.try_into()) {
        (Ok(instance), Ok(partition)) => {
            Home { instance: Uuid::from_bytes(instance), partition: Partition(i32::from_be_bytes(partition)) }
        }
        _ => unreachable!("a key begins with instance and partition: {} bytes", key.len()),
    }
}

/// The branch of a key.
#[cfg(feature = "kafka")]
pub(super) fn branch_of(key: &[u8]) -> Branch {
    const OFFSET_BYTES: usize = 8;
    const LENGTH_BYTES: usize = size_of::<usize>();
    let home = home_of(key);
    let (offset, mut rest) = key[INSTANCE_BYTES + PARTITION_BYTES..].split_at(OFFSET_BYTES);
    let mut name = || {
        let (length, text) = rest.split_at(LENGTH_BYTES);
        let length = length.try_into().map_or(0, usize::from_be_bytes);
        let (name, behind) = text.split_at(length);
        rest = behind;
        std::str::from_utf8(name).unwrap_or_default()
    };
    let (subject, step, branch) = (name(), name(), name());
    match (offset.try_into(), subject.parse()) {
        (Ok(offset), Ok(subject)) => Branch {
            instance: home.instance,
            subject,
            birth: Birth { partition: home.partition, offset: i64::from_be_bytes(offset) },
            step: step.into(),
            branch: branch.into(),
        },
        _ => unreachable!("a key was written from a branch: {} bytes", key.len()),
    }
}

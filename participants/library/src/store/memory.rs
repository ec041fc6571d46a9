//! A store in memory: for demos, tests and the simulator. A killed process loses it, and with it promise 2.
//!
//! Business state is made of [`Table`]s and [`Cell`]s. They write the old value of whatever changes into an undo list,
//! so that a failed effect is rolled back at the cost of the effect, not of the state. A savepoint forgets the
//! undo list: in memory, what a command has done and remembered is final when the next one begins.
//!
//! The memory of operations is bounded by count. The oldest branches go first, only when all they know was issued
//! before the horizon of their home, and never while they are in doubt. When it is full, new branches are answered
//! `error`; nothing is forgotten silently. A vote costs its `prepare` command besides, until it is decided.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::Operation;

use super::{LocalTransaction, Store, StoreFault};
use crate::barrier::{self, Branch, BranchKey, Home, Row};
use crate::doubt::{InDoubt, Vote};
use crate::heuristic::Heuristic;

/// Branches remembered unless told otherwise: about 400 bytes each with a small result, so less than a gigabyte.
pub const BRANCHES_MAX_DEFAULT: usize = 2_000_000;
/// Branches looked at for purging with each command: more than one, so that purging overtakes inserting.
const PURGED_PER_COMMAND: usize = 4;

/// Something that can take back what was changed in it.
pub trait Undo: Send {
    /// Keeps what was changed.
    fn keep(&mut self);
    /// Takes back what was changed since the last `keep`.
    fn undo(&mut self);
}

/// Business state: everything in it that changes.
pub trait State: Send + 'static {
    /// Shows each part to `visit`. A part that is left out is not rolled back.
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo));
}

/// A keyed table.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    rows: HashMap<K, V>,
    before: Vec<(K, Option<V>)>,
}

impl<K: Eq + Hash + Clone, V> Table<K, V> {
    /// The row of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    /// Inserts or replaces a row.
    pub fn put(&mut self, key: K, row: V) {
        let old = self.rows.insert(key.clone(), row);
        self.before.push((key, old));
    }

    /// Removes a row, if there is one.
    pub fn remove(&mut self, key: &K) {
        if let Some(old) = self.rows.remove(key) {
            self.before.push((key.clone(), Some(old)));
        }
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::new(), before: Vec::new() }
    }
}

impl<K: Eq + Hash + Clone, V> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        Self { rows: rows.into_iter().collect(), before: Vec::new() }
    }
}

impl<K: Eq + Hash + Clone + Send, V: Send> Undo for Table<K, V> {
    fn keep(&mut self) {
        self.before.clear();
    }

    fn undo(&mut self) {
        while let Some((key, old)) = self.before.pop() {
            match old {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl<K: Eq + Hash + Clone + Send + 'static, V: Send + 'static> State for Table<K, V> {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(self);
    }
}

/// A single small value.
#[derive(Debug, Clone, Default)]
pub struct Cell<T> {
    value: T,
    before: Option<T>,
}

impl<T: Clone> Cell<T> {
    /// With this value.
    pub fn new(value: T) -> Self {
        Self { value, before: None }
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The value, to be changed.
    pub fn change(&mut self) -> &mut T {
        self.before.get_or_insert_with(|| self.value.clone());
        &mut self.value
    }
}

impl<T: Clone + Send> Undo for Cell<T> {
    fn keep(&mut self) {
        self.before = None;
    }

    fn undo(&mut self) {
        if let Some(old) = self.before.take() {
            self.value = old;
        }
    }
}

/// The store. Clones share one state.
pub struct MemoryStore<S> {
    shared: Arc<Mutex<Content<S>>>,
}

struct Content<S> {
    state: S,
    branches: HashMap<Arc<[u8]>, Vec<Row>>,
    branches_max: usize,
    /// Branches in the order in which they came, which is nearly the order in which they may be purged.
    oldest: VecDeque<Arc<[u8]>>,
    horizons: BTreeMap<Home, Time>,
    /// Of branches in doubt.
    votes: BTreeMap<Arc<[u8]>, InDoubt>,
    /// Decisions by hand, as many as operators have made.
    heuristics: BTreeMap<Arc<[u8]>, (Branch, Heuristic)>,
}

impl<S: State> MemoryStore<S> {
    /// A store that remembers [`BRANCHES_MAX_DEFAULT`] branches.
    pub fn new(state: S) -> Self {
        Self::with_branches_max(state, BRANCHES_MAX_DEFAULT)
    }

    /// A store that remembers `branches_max` branches.
    pub fn with_branches_max(state: S, branches_max: usize) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Content {
                state,
                branches: HashMap::new(),
                branches_max,
                oldest: VecDeque::new(),
                horizons: BTreeMap::new(),
                votes: BTreeMap::new(),
                heuristics: BTreeMap::new(),
            })),
        }
    }

    /// Looks at the state between two local transactions.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.content().state)
    }

    /// How many branches are remembered.
    pub fn branches(&self) -> usize {
        self.content().branches.len()
    }

    fn content(&self) -> MutexGuard<'_, Content<S>> {
        // A local transaction that unwinds takes back what it left half done, so the content is always whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for MemoryStore<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: State> Store for MemoryStore<S> {
    type Session = ();
    type Business<'t> = S;
    type Transaction<'t> = MemoryTransaction<'t, S>;

    fn session(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn begin<'t>(&'t self, (): &'t mut ()) -> Result<MemoryTransaction<'t, S>, StoreFault> {
        Ok(MemoryTransaction { content: self.content(), key: Vec::new(), changes: Vec::new() })
    }

    fn in_doubt(
        &self,
        (): &mut (),
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<InDoubt>, StoreFault> {
        let content = self.content();
        let behind = content.votes.range((behind(after), Bound::Unbounded));
        Ok(behind.take(limit).map(|(_, found)| found.clone()).collect())
    }

    fn heuristics(
        &self,
        (): &mut (),
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
        let content = self.content();
        let behind = content.heuristics.range((behind(after), Bound::Unbounded));
        Ok(behind.take(limit).map(|(_, found)| found.clone()).collect())
    }
}

fn behind(branch: Option<&Branch>) -> Bound<Arc<[u8]>> {
    branch.map_or(Bound::Unbounded, |branch| {
        let mut key = Vec::new();
        write_key(&branch.key(), &mut key);
        Bound::Excluded(Arc::from(key))
    })
}

/// An open local transaction: the lock on everything.
pub struct MemoryTransaction<'t, S: State> {
    content: MutexGuard<'t, Content<S>>,
    /// The last key written as bytes, kept for its buffer.
    key: Vec<u8>,
    /// What the memory of operations has gained and lost since the savepoint.
    changes: Vec<Change>,
}

/// What a rollback takes back.
enum Change {
    /// A new branch, with its first row.
    Branch(Arc<[u8]>),
    /// One more row of a branch.
    Row(Arc<[u8]>),
    /// A vote in place of what was there.
    Vote(Arc<[u8]>, Option<InDoubt>),
    /// A decision by hand in place of what was there.
    Heuristic(Arc<[u8]>, Option<(Branch, Heuristic)>),
}

impl<S: State> LocalTransaction for MemoryTransaction<'_, S> {
    type Business = S;

    fn horizon(&mut self, home: Home, watermark: Time) -> Result<Time, StoreFault> {
        let horizon = self.content.horizons.entry(home).or_default();
        *horizon = watermark.max(*horizon);
        Ok(*horizon)
    }

    fn rows(&mut self, key: &BranchKey<'_>) -> Result<&[Row], StoreFault> {
        write_key(key, &mut self.key);
        Ok(self.content.branches.get(self.key.as_slice()).map_or(&[], Vec::as_slice))
    }

    fn business(&mut self) -> &mut S {
        &mut self.content.state
    }

    fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault> {
        write_key(key, &mut self.key);
        let content = &mut *self.content;
        if let Some((shared, _)) = content.branches.get_key_value(self.key.as_slice()) {
            let shared = Arc::clone(shared);
            let rows = content.branches.entry(Arc::clone(&shared)).or_default();
            if rows.iter().any(|known| known.operation == row.operation) {
                return Err(StoreFault::Conflict);
            }
            let is_decision = matches!(row.operation, Operation::Commit | Operation::Abort);
            rows.push(row);
            self.changes.push(Change::Row(Arc::clone(&shared)));
            if is_decision && let Some(vote) = content.votes.remove(&shared) {
                self.changes.push(Change::Vote(shared, Some(vote)));
            }
            return Ok(());
        }
        content.purge();
        if content.branches.len() >= content.branches_max {
            return Err(StoreFault::Full { branches_max: content.branches_max });
        }
        let shared: Arc<[u8]> = self.key.as_slice().into();
        content.branches.insert(Arc::clone(&shared), vec![row]);
        content.oldest.push_back(Arc::clone(&shared));
        self.changes.push(Change::Branch(shared));
        Ok(())
    }

    fn keep_vote(&mut self, key: &BranchKey<'_>, vote: Vote) -> Result<(), StoreFault> {
        write_key(key, &mut self.key);
        let shared: Arc<[u8]> = self.key.as_slice().into();
        let before = self.content.votes.insert(Arc::clone(&shared), InDoubt { branch: key.into(), vote });
        self.changes.push(Change::Vote(shared, before));
        Ok(())
    }

    fn vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault> {
        write_key(key, &mut self.key);
        Ok(self.content.votes.get(self.key.as_slice()).map(|found| found.vote.clone()))
    }

    fn heuristic(&mut self, key: &BranchKey<'_>) -> Result<Option<Heuristic>, StoreFault> {
        write_key(key, &mut self.key);
        Ok(self.content.heuristics.get(self.key.as_slice()).map(|(_, kept)| kept.clone()))
    }

    fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: &Heuristic) -> Result<(), StoreFault> {
        write_key(key, &mut self.key);
        let shared: Arc<[u8]> = self.key.as_slice().into();
        let kept = (Branch::from(key), heuristic.clone());
        let before = self.content.heuristics.insert(Arc::clone(&shared), kept);
        self.changes.push(Change::Heuristic(shared, before));
        Ok(())
    }

    fn savepoint(&mut self) -> Result<(), StoreFault> {
        self.changes.clear();
        self.content.state.parts(&mut |part| part.keep());
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), StoreFault> {
        self.take_back();
        Ok(())
    }

    fn commit(mut self) -> Result<(), StoreFault> {
        self.savepoint()
    }
}

impl<S: State> MemoryTransaction<'_, S> {
    fn take_back(&mut self) {
        let content = &mut *self.content;
        content.state.parts(&mut |part| part.undo());
        while let Some(change) = self.changes.pop() {
            match change {
                Change::Branch(key) => {
                    content.branches.remove(&key);
                    content.oldest.pop_back();
                }
                Change::Row(key) => {
                    content.branches.entry(key).and_modify(|rows| {
                        rows.pop();
                    });
                }
                Change::Vote(key, Some(before)) => {
                    content.votes.insert(key, before);
                }
                Change::Vote(key, None) => {
                    content.votes.remove(&key);
                }
                Change::Heuristic(key, Some(before)) => {
                    content.heuristics.insert(key, before);
                }
                Change::Heuristic(key, None) => {
                    content.heuristics.remove(&key);
                }
            }
        }
    }
}

impl<S: State> Drop for MemoryTransaction<'_, S> {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl<S> Content<S> {
    /// Looks at the oldest few branches and lets go what is behind the horizon.
    fn purge(&mut self) {
        for _ in 0..PURGED_PER_COMMAND {
            let Some(key) = self.oldest.front() else { return };
            let rows = self.branches.get(key).map_or(&[][..], Vec::as_slice);
            let horizon = self.horizons.get(&home_of(key)).copied().unwrap_or_default();
            let is_behind = rows.iter().all(|row| row.issued < horizon);
            let is_in_doubt = barrier::in_doubt(rows);
            if !is_behind && !is_in_doubt && self.branches.len() < self.branches_max {
                return;
            }
            let Some(key) = self.oldest.pop_front() else { return };
            if is_behind && !is_in_doubt {
                self.branches.remove(&key);
            } else {
                self.oldest.push_back(key);
            }
        }
    }
}

const INSTANCE_BYTES: usize = 16;
const PARTITION_BYTES: usize = 4;

/// Instance, home, offset of birth, and the names behind it, which contain no byte 0.
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
        (Ok(instance), Ok(partition)) => Home {
            instance: uuid::Uuid::from_bytes(instance),
            partition: sagamore_schemas::ids::Partition(i32::from_be_bytes(partition)),
        },
        _ => unreachable!("a key begins with instance and partition: {} bytes", key.len()),
    }
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::ids::TransactionId;
    use sagamore_schemas::wire::Payload;
    use uuid::Uuid;

    use super::*;
    use crate::barrier::Stored;

    type Accounts = Table<&'static str, i64>;

    fn in_branch(subject: &str, work: impl FnOnce(&BranchKey<'_>)) {
        let subject: TransactionId = subject.parse().unwrap();
        let birth = "0-1".parse().unwrap();
        work(&BranchKey { instance: Uuid::nil(), subject: &subject, birth, step: "s", branch: "b" });
    }

    fn done(operation: Operation, issued_ms: i64) -> Row {
        Row { operation, issued: Time::from_epoch_ms(issued_ms), answer: Stored::Done(Payload::Absent) }
    }

    /// One command of its own: inserts `row` behind `watermark_ms`.
    fn remember(
        store: &MemoryStore<Accounts>,
        subject: &str,
        row: Row,
        watermark_ms: i64,
    ) -> Result<(), StoreFault> {
        let mut result = Ok(());
        in_branch(subject, |key| {
            let mut session = ();
            let mut tx = store.begin(&mut session).unwrap();
            tx.savepoint().unwrap();
            tx.horizon(key.home(), Time::from_epoch_ms(watermark_ms)).unwrap();
            result = tx.insert(key, row);
            if result.is_err() {
                tx.roll_back().unwrap();
            }
            tx.commit().unwrap();
        });
        result
    }

    fn count(store: &MemoryStore<Accounts>, subject: &str) -> usize {
        let mut count = 0;
        in_branch(subject, |key| count = store.begin(&mut ()).unwrap().rows(key).unwrap().len());
        count
    }

    #[test]
    fn a_failed_command_leaves_neither_effect_nor_row() {
        let store = MemoryStore::new(Accounts::from_iter([("a", 1), ("b", 2)]));
        in_branch("t", |key| {
            let mut session = ();
            let mut tx = store.begin(&mut session).unwrap();
            tx.savepoint().unwrap();
            tx.business().put("a", 10);
            tx.insert(key, done(Operation::Execute, 1)).unwrap();
            tx.savepoint().unwrap();
            tx.business().put("a", 20);
            tx.business().put("a", 30);
            tx.business().put("c", 3);
            tx.business().remove(&"b");
            tx.insert(key, done(Operation::Compensate, 1)).unwrap();
            tx.roll_back().unwrap();
            tx.commit().unwrap();
        });
        store.read(|accounts| {
            assert_eq!(
                (accounts.get(&"a"), accounts.get(&"b"), accounts.get(&"c")),
                (Some(&10), Some(&2), None)
            );
        });
        assert_eq!(count(&store, "t"), 1, "the first command stays");
    }

    #[test]
    fn a_row_is_unique() {
        let store = MemoryStore::new(Accounts::default());
        assert_eq!(remember(&store, "t", done(Operation::Execute, 1), 0), Ok(()));
        assert_eq!(remember(&store, "t", done(Operation::Execute, 1), 0), Err(StoreFault::Conflict));
        assert_eq!(remember(&store, "t", done(Operation::Compensate, 2), 0), Ok(()));
        assert_eq!((count(&store, "t"), store.branches()), (2, 1));
    }

    #[test]
    fn what_is_behind_the_watermark_goes_and_the_rest_is_never_forgotten() {
        let store = MemoryStore::with_branches_max(Accounts::default(), 3);
        for subject in ["a", "b", "c"] {
            remember(&store, subject, done(Operation::Execute, 10), 0).unwrap();
        }
        let full = Err(StoreFault::Full { branches_max: 3 });
        assert_eq!(remember(&store, "d", done(Operation::Execute, 20), 10), full, "10 is not before 10");
        assert_eq!(remember(&store, "a", done(Operation::Compensate, 20), 10), Ok(()), "a known branch fits");
        assert_eq!(remember(&store, "d", done(Operation::Execute, 20), 11), Ok(()));
        assert_eq!(count(&store, "a"), 2, "its compensation was issued later");
        assert_eq!((count(&store, "b"), count(&store, "c"), store.branches()), (0, 0, 2));
    }

    #[test]
    fn what_is_in_doubt_stays() {
        let store = MemoryStore::with_branches_max(Accounts::default(), 2);
        remember(&store, "prepared", done(Operation::Prepare, 1), 0).unwrap();
        remember(&store, "executed", done(Operation::Execute, 1), 0).unwrap();
        for turn in 0..10 {
            remember(&store, &format!("next-{turn}"), done(Operation::Execute, turn), 100).unwrap();
        }
        assert_eq!(count(&store, "prepared"), 1);
        assert_eq!(count(&store, "executed"), 0);
    }
}

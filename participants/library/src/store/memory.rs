//! A store in memory: for demos, tests and the simulator. A killed process loses it, and with it promise 2.
//!
//! Business state is made of [`Table`]s and [`Cell`]s. They write the old value of whatever changes into an undo list,
//! so that a failed effect is rolled back at the cost of the effect, not of the state. A savepoint forgets the
//! undo list: in memory, what a command has done and remembered is final when the next one begins.
//!
//! The memory of operations is bounded by count. When it is full, new branches are answered `error`. A vote costs its
//! `prepare` command besides, until it is decided.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagamore_schemas::ids::Time;

use super::operations::Operations;
use super::{LocalTransaction, Store, StoreFault};
use crate::barrier::{Branch, BranchKey, Home, Row};
use crate::doubt::{InDoubt, Vote};
use crate::heuristic::Heuristic;

/// Branches remembered unless told otherwise: about 400 bytes each with a small result, so less than a gigabyte.
pub const BRANCHES_MAX_DEFAULT: usize = 2_000_000;

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
    operations: Operations,
}

impl<S: State> MemoryStore<S> {
    /// A store that remembers [`BRANCHES_MAX_DEFAULT`] branches.
    pub fn new(state: S) -> Self {
        Self::with_branches_max(state, BRANCHES_MAX_DEFAULT)
    }

    /// A store that remembers `branches_max` branches.
    pub fn with_branches_max(state: S, branches_max: usize) -> Self {
        Self { shared: Arc::new(Mutex::new(Content { state, operations: Operations::new(branches_max) })) }
    }

    /// Looks at the state between two local transactions.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.content().state)
    }

    /// How many branches are remembered.
    pub fn branches(&self) -> usize {
        self.content().operations.len()
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
        Ok(MemoryTransaction { content: self.content() })
    }

    fn in_doubt(
        &self,
        (): &mut (),
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<InDoubt>, StoreFault> {
        Ok(self.content().operations.in_doubt(after, limit))
    }

    fn heuristics(
        &self,
        (): &mut (),
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
        Ok(self.content().operations.heuristics(after, limit))
    }
}

/// An open local transaction: the lock on everything.
pub struct MemoryTransaction<'t, S: State> {
    content: MutexGuard<'t, Content<S>>,
}

impl<S: State> LocalTransaction for MemoryTransaction<'_, S> {
    type Business = S;

    fn horizon(&mut self, home: Home, watermark: Time) -> Result<Time, StoreFault> {
        Ok(self.content.operations.horizon(home, watermark))
    }

    fn rows(&mut self, key: &BranchKey<'_>) -> Result<&[Row], StoreFault> {
        Ok(self.content.operations.rows(key))
    }

    fn business(&mut self) -> &mut S {
        &mut self.content.state
    }

    fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault> {
        self.content.operations.insert(key, row)
    }

    fn keep_vote(&mut self, key: &BranchKey<'_>, vote: Vote) -> Result<(), StoreFault> {
        self.content.operations.keep_vote(key, vote);
        Ok(())
    }

    fn vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault> {
        Ok(self.content.operations.vote(key))
    }

    fn heuristic(&mut self, key: &BranchKey<'_>) -> Result<Option<Heuristic>, StoreFault> {
        Ok(self.content.operations.heuristic(key))
    }

    fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: &Heuristic) -> Result<(), StoreFault> {
        self.content.operations.keep_heuristic(key, heuristic.clone());
        Ok(())
    }

    fn savepoint(&mut self) -> Result<(), StoreFault> {
        self.content.operations.keep();
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
        self.content.operations.undo_to(0);
        self.content.state.parts(&mut |part| part.undo());
    }
}

impl<S: State> Drop for MemoryTransaction<'_, S> {
    fn drop(&mut self) {
        self.take_back();
    }
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::ids::TransactionId;
    use sagamore_schemas::wire::{Operation, Payload};
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

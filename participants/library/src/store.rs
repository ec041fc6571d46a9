//! Where a participant keeps its effects and, in the same local transaction, the operations it has answered.
//!
//! ```text
//!  Store ──session──▶ Session ──begin──▶ LocalTransaction ──business──▶ what the effect is written with
//!                     (one a worker)          │
//!                                             ├─ rows, insert      the barrier's memory, one row per operation
//!                                             ├─ keep_vote, vote   what a branch in doubt asks with, and is decided with
//!                                             ├─ keep_heuristic    who has decided it by hand, and what came of that
//!                                             ├─ savepoint, roll_back   one command fails alone
//!                                             └─ commit            then, and only then, replies leave
//! ```
//! One local transaction holds as many commands as were waiting (group commit); each begins with a savepoint.
//! Beside it stand positions: how far the command topic has been answered with the knowledge of this store. One that is
//! behind what Kafka has of the group is a restored copy.
//!
//! [`memory`] forgets with its process; `sqlite` (a feature of that name) keeps everything in one file. The crate
//! `sagamore-participant-postgres` has a store in PostgreSQL, and XA.

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
mod operations;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::Operation;

use std::collections::BTreeMap;

use crate::barrier::{Branch, BranchKey, Home, Row};
use crate::doubt::{InDoubt, Vote};
use crate::heuristic::Heuristic;

/// A store. It is shared by the workers of a runtime; what belongs to one worker is its session.
pub trait Store: Send + Sync + 'static {
    /// One worker's own part, such as a connection; made anew after a failed `begin` or `commit`.
    type Session: Send;
    /// What business code gets: the open transaction of a database, or the state in memory.
    type Business<'t>
    where
        Self: 't;
    /// An open local transaction. Dropped without a commit, it is rolled back.
    type Transaction<'t>: LocalTransaction<Business = Self::Business<'t>>
    where
        Self: 't;

    /// Connects.
    fn session(&self) -> Result<Self::Session, StoreFault>;

    /// Whether a command of this operation must have a local transaction of its own.
    fn is_alone(&self, operation: Operation) -> bool {
        let _ = operation;
        false
    }

    /// Opens a local transaction.
    fn begin<'t>(&'t self, session: &'t mut Self::Session) -> Result<Self::Transaction<'t>, StoreFault>;

    /// The next branches with a vote and no decision, in an order of the store's own; the first ones when `after` is
    /// `None`. It waits for no open local transaction that it can do without.
    fn in_doubt(
        &self,
        session: &mut Self::Session,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<InDoubt>, StoreFault>;

    /// The next decisions by hand, in an order of the store's own; the first ones when `after` is `None`.
    fn heuristics(
        &self,
        session: &mut Self::Session,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
        let _ = (session, after, limit);
        Ok(Vec::new())
    }

    /// Whether it keeps positions, and so can be known for a restored copy. One that ends with its process has no copies.
    const KEEPS_POSITIONS: bool = false;

    /// By partition of a command topic: every command below it was answered with the knowledge of this store.
    fn positions(&self, session: &mut Self::Session, topic: &str) -> Result<BTreeMap<i32, i64>, StoreFault> {
        let _ = (session, topic);
        Ok(BTreeMap::new())
    }

    /// Raises positions, and makes that durable, in a local transaction of its own. A higher one stays.
    fn keep_positions(
        &self,
        session: &mut Self::Session,
        topic: &str,
        positions: &[Position],
    ) -> Result<(), StoreFault> {
        let _ = (session, topic, positions);
        Ok(())
    }

    /// Forgets the position of a partition: its offsets begin anew.
    fn forget_position(
        &self,
        session: &mut Self::Session,
        topic: &str,
        partition: i32,
    ) -> Result<(), StoreFault> {
        let _ = (session, topic, partition);
        Ok(())
    }
}

/// Where a partition of a command topic is to be read from next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which one.
    pub partition: i32,
    /// Everything below it is done.
    pub offset: i64,
}

/// The library's view of an open local transaction.
pub trait LocalTransaction {
    /// What business code gets.
    type Business;

    /// These branches will be asked for. A store may fetch their rows together, each with the horizon of its home as of
    /// the same moment; a branch that it knows already costs nothing.
    fn foresee(&mut self, keys: &[BranchKey<'_>]) -> Result<(), StoreFault> {
        let _ = keys;
        Ok(())
    }

    /// Raises the horizon of a home to `watermark`, if that is later, and returns the horizon. What the store has
    /// purged of that home was issued before it, also after a restart.
    fn horizon(&mut self, home: Home, watermark: Time) -> Result<Time, StoreFault>;

    /// All rows of a branch.
    fn rows(&mut self, key: &BranchKey<'_>) -> Result<&[Row], StoreFault>;

    /// What business code works on.
    fn business(&mut self) -> &mut Self::Business;

    /// Adds a row. Branch and operation together are unique: when someone else was quicker, waits for them and
    /// returns [`StoreFault::Conflict`]; the command is then rolled back and decided again.
    fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault>;

    /// Keeps the vote of a branch beside its `prepare`, until the row of its `commit` or `abort` is inserted.
    fn keep_vote(&mut self, key: &BranchKey<'_>, vote: Vote) -> Result<(), StoreFault>;

    /// The vote of a branch in doubt.
    fn vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault>;

    /// What an operator has decided about a branch by hand.
    fn heuristic(&mut self, key: &BranchKey<'_>) -> Result<Option<Heuristic>, StoreFault> {
        let _ = key;
        Ok(None)
    }

    /// Keeps that, in place of what was kept of this branch before. It comes before the row of the operation; a store that
    /// ends something outside the local transaction for that row makes this durable first.
    fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: &Heuristic) -> Result<(), StoreFault> {
        let _ = (key, heuristic);
        Err(StoreFault::Unavailable("this store keeps no decisions by hand, and so carries out none".into()))
    }

    /// Begins a command: [`LocalTransaction::roll_back`] returns to here.
    fn savepoint(&mut self) -> Result<(), StoreFault>;

    /// Takes back rows and effects since the last savepoint, which stays.
    fn roll_back(&mut self) -> Result<(), StoreFault>;

    /// Makes everything since `begin` durable.
    fn commit(self) -> Result<(), StoreFault>;
}

/// Why a store could not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// Another one was quicker, or holds what this needs: decide again. From anything but `insert`: in another local
    /// transaction.
    #[error("another instance answers this operation at the same time")]
    Conflict,
    /// There is no session: nothing has been tried, and nothing else can be.
    #[error("the store cannot be reached: {0}")]
    Away(String),
    /// The memory of operations is full, and nothing in it may be purged yet.
    #[error("the memory of operations is full: {branches_max} branches, none of them behind the watermark")]
    Full {
        /// The bound.
        branches_max: usize,
    },
    /// It has forgotten commands that were answered with its knowledge: nothing more may be answered from it.
    #[error("the store has forgotten what it has answered")]
    Forgotten,
    /// Anything else: away, out of space, a failed statement.
    #[error("the store failed: {0}")]
    Unavailable(String),
}

//! Whether the store remembers what it has answered: one that was restored from an old copy does not.
//!
//! ```text
//!  replies delivered up to offset n  ──▶  n stands in the store  ──▶  n is committed to the group
//! ```
//! So what the group has committed is never ahead of the store, unless the store is an older copy, an empty one or another
//! one: then it would do again, or refuse, what has been answered. Whoever opens a session, and whoever is given a
//! partition, compares before anything is answered. The other way round is no fault: offsets of a topic that was made anew
//! begin anew, and so does the position.
//!
//! Deliberately absent: repair. That is an operator's choice: [`crate::restore`].

use std::fmt;
use std::sync::Arc;

use super::progress::Floors;
use super::replies::Shared;
use crate::code::Code;
use crate::store::{Position, Store, StoreFault};

/// What a store has forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The command topic.
    pub topic: Box<str>,
    /// Its partition.
    pub partition: i32,
    /// Every command below it was answered: the group has committed so.
    pub committed: i64,
    /// Every command below it was answered, as far as the store knows.
    pub known: i64,
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, committed, known } = self;
        let code = Code::StoreForgotten;
        write!(
            f,
            "{code}: the store has forgotten commands that were answered: of {topic}/{partition} the group has committed \
             {committed}, the store knows of {known}. It is a restored copy, an empty one or not this participant's. Nothing \
             more is taken. When every instance has ended: `sagamore participant rewind` has the {} commands taken again, \
             `sagamore participant accept` leaves them forgotten",
            committed - known
        )
    }
}

/// Compares. The floors are older than the look into the store.
pub(super) fn verify<S: Store>(
    store: &S,
    session: &mut S::Session,
    shared: &Shared,
    topic: &str,
    floors: &Floors,
) -> Result<(), StoreFault> {
    if floors.positions.is_empty() {
        return Ok(());
    }
    let known = store.positions(session, topic)?;
    for Position { partition, offset: committed } in &floors.positions {
        let known = known.get(partition).copied().unwrap_or(0);
        if known < *committed {
            shared.forget(Forgotten {
                topic: topic.into(),
                partition: *partition,
                committed: *committed,
                known,
            });
            return Err(StoreFault::Forgotten);
        }
    }
    Ok(())
}

/// Keeps positions, before they are committed to the group. A session of its own, used by the polling thread only.
pub(super) struct Keeper<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) session: Option<S::Session>,
    pub(super) shared: Arc<Shared>,
    pub(super) topic: Arc<str>,
}

impl<S: Store> Keeper<S> {
    /// Afterwards they may be committed. With none it only compares.
    pub(super) fn keep(&mut self, positions: &[Position]) -> Result<(), StoreFault> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.store.session()?,
        };
        // Each time: a table that is restored under a running process closes no connection.
        verify(&*self.store, &mut session, &self.shared, &self.topic, &self.shared.progress.floors())?;
        if !positions.is_empty() {
            for partition in self.shared.progress.begun_anew() {
                self.store.forget_position(&mut session, &self.topic, partition)?;
            }
            self.store.keep_positions(&mut session, &self.topic, positions)?;
            self.shared.progress.raise_floors(positions);
        }
        self.session = Some(session);
        Ok(())
    }
}

/// A [`Keeper`] that polling thread and rebalances share.
pub(super) type Keep = dyn FnMut(&[Position]) -> Result<(), StoreFault> + Send;

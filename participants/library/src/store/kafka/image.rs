//! What stands in memory p and table p, held in the process; and how it is made from them.

use std::collections::HashMap;

use super::batch::{Batch, Destination, read_done};
use super::records::{self, About, BARRIER_KEY, BATCH_KEY, DONE_KEY};
use super::{Bounds, Ledger};
use crate::doubt::Vote;
use crate::heuristic::Heuristic;
use crate::store::operations::Operations;

type Value = Box<[u8]>;

/// The rows of the table, each change undoable.
pub(super) struct Rows {
    values: HashMap<Box<[u8]>, Value>,
    bytes: usize,
    bytes_max: usize,
    /// Keys, with what stood there before, since the last `keep`.
    changes: Vec<(Box<[u8]>, Option<Value>)>,
}

impl Rows {
    fn new(bytes_max: usize) -> Self {
        Self { values: HashMap::new(), bytes: 0, bytes_max, changes: Vec::new() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(AsRef::as_ref)
    }

    /// Whether there is room for a value under this key.
    pub(super) fn has_room(&self, key: &[u8], value_bytes: usize) -> bool {
        let before = self.get(key).map_or(0, |value| key.len() + value.len());
        let after = key.len() + value_bytes;
        after <= before || self.bytes - before + after <= self.bytes_max
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Puts a value in place of what is there, or nothing.
    pub(super) fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let before = self.replace(key, value.map(Into::into));
        self.changes.push((key.into(), before));
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &[u8]> {
        self.changes.iter().map(|(key, _)| key.as_ref())
    }

    pub(super) fn mark(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn keep(&mut self) {
        self.changes.clear();
    }

    pub(super) fn undo_to(&mut self, mark: usize) {
        for (key, before) in self.changes.split_off(mark).into_iter().rev() {
            self.replace(&key, before);
        }
    }

    fn replace(&mut self, key: &[u8], value: Option<Value>) -> Option<Value> {
        self.bytes += value.as_ref().map_or(0, |value| key.len() + value.len());
        let before = match value {
            Some(value) => self.values.insert(key.into(), value),
            None => self.values.remove(key),
        };
        self.bytes -= before.as_ref().map_or(0, |value| key.len() + value.len());
        before
    }
}

pub(super) struct Image {
    pub rows: Rows,
    pub operations: Operations,
    pub ledger: Ledger,
}

/// What a takeover finds, record by record.
pub struct Found {
    rows: Rows,
    operations: Operations,
    batch: Option<Batch>,
    done: Option<(u64, Option<i64>)>,
}

/// Something stands in the topics that this library does not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// A record of the memory.
    #[error(
        "the memory has a record that cannot be read, with the key {key}: it is another's, or of a newer library"
    )]
    Memory {
        /// Its key, as text.
        key: String,
    },
    /// The last batch.
    #[error("the memory has a batch that cannot be read")]
    Batch,
    /// A batch is missing.
    #[error(
        "the memory says that batch {done} is done, and the last one it has is {last}: records are missing"
    )]
    Missing {
        /// Said to be done.
        done: u64,
        /// The last one there is.
        last: u64,
    },
}

impl Found {
    pub(super) fn new(Bounds { branches_max, table_bytes_max }: Bounds) -> Self {
        Self {
            rows: Rows::new(table_bytes_max),
            operations: Operations::new(branches_max),
            batch: None,
            done: None,
        }
    }

    /// The next record of the memory.
    pub fn on_memory(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Damaged> {
        match key {
            BARRIER_KEY => Some(()),
            BATCH_KEY => {
                self.batch = value.map(Batch::from_bytes).transpose()?;
                Some(())
            }
            DONE_KEY => {
                self.done = value.and_then(read_done);
                self.done.map(|_| ())
            }
            _ => self.on_operation(key, value),
        }
        .ok_or_else(|| Damaged::Memory { key: String::from_utf8_lossy(key).into_owned() })
    }

    fn on_operation(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<()> {
        match (records::read_key(key)?, value) {
            (About::Row(branch, operation), Some(value)) => {
                let row = records::read_row(operation, value)?;
                self.operations.restore_row(&branch.key(), row);
            }
            (About::Row(branch, operation), None) => self.operations.forget_row(&branch.key(), operation),
            (About::Vote(branch), value) => {
                self.operations.restore_vote(&branch.key(), value.map(Vote::from_bytes));
            }
            (About::Heuristic(branch), value) => {
                let read = |value| Heuristic::from_json(std::str::from_utf8(value).ok()?).ok();
                let kept = match value {
                    Some(value) => Some(read(value)?),
                    None => None,
                };
                self.operations.restore_heuristic(&branch.key(), kept);
            }
            (About::Horizon(home), Some(value)) => {
                self.operations.horizon(home, records::read_time(value)?);
            }
            (About::Horizon(_), None) => {}
        }
        Some(())
    }

    /// The next record of the table.
    pub fn on_table(&mut self, key: &[u8], value: Option<&[u8]>) {
        if key != BARRIER_KEY {
            self.rows.replace(key, value.map(Into::into));
        }
    }

    /// What is held from now on; and the batch of which only a part may have been committed, to be written again.
    pub(super) fn finish(mut self) -> Result<(Image, Option<Batch>), Damaged> {
        let (done, mut position) = self.done.unwrap_or_default();
        let last = self.batch.as_ref().map_or(0, |batch| batch.number);
        if done > last {
            return Err(Damaged::Missing { done, last });
        }
        let unfinished = self.batch.take().filter(|batch| batch.number > done);
        if let Some(batch) = &unfinished {
            for output in &batch.outputs {
                match output.to {
                    Destination::Memory => self.on_memory(&output.key, output.value.as_deref())?,
                    Destination::Table => self.on_table(&output.key, output.value.as_deref()),
                    Destination::Replies | Destination::Topic(_) => {}
                }
            }
            position = batch.position.or(position);
        }
        self.operations.restored();
        let ledger = Ledger { batch: last, position, is_broken: false };
        Ok((Image { rows: self.rows, operations: self.operations, ledger }, unfinished))
    }
}

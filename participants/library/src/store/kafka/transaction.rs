//! An open local transaction on the image of a partition, and what business code sees of it.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::home::partition_of;
use sagamore_schemas::ids::Time;
use sagamore_schemas::topics::RECORD_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch::{Batch, Destination, Output};
use super::image::Rows;
use super::records::{heuristic_key, horizon_key, row_key, vote_key, write_row, write_time};
use super::{Ledger, Log, LogFault, Session, Territory};
use crate::barrier::{BranchKey, Home, Row};
use crate::doubt::Vote;
use crate::heuristic::Heuristic;
use crate::participant::Fault;
use crate::store::operations::{Change, Key, Operations, branch_of};
use crate::store::{LocalTransaction, StoreFault};

/// What one command may write and emit, in bytes of keys and values: what no Kafka transaction could carry is told to the
/// command that asks for it, and to no other.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;

/// The open local transaction, for business code: rows of the participant's table, and records for other topics.
///
/// Rows are found where their key puts them: a row belongs to the partition of its key, or of what stands before the first
/// `/` in it, as the Java client computes it. Commands are there by the `key` of their branch. So with `key:
/// "${input.show}"` in the definition, commands for the show `hamlet` may read and write `hamlet` and `hamlet/A1`, and
/// nobody else can have another row of that name. Any other key is a fault.
pub struct Tx<'t> {
    rows: &'t mut Rows,
    emitted: Vec<Output>,
    territory: &'t Territory,
    /// Written by this command.
    bytes: usize,
    /// Written by all commands.
    written: usize,
    /// Before this command.
    rows_mark: usize,
    emitted_mark: usize,
}

impl Tx<'_> {
    /// Whether this command may read and write the row of a key.
    pub fn is_here(&self, key: &[u8]) -> bool {
        self.must_be_here(key).is_ok()
    }

    /// The row of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        self.must_be_here(key)?;
        Ok(self.rows.get(key))
    }

    /// Inserts or replaces a row.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.must_be_here(key)?;
        self.must_fit(key, value)?;
        if !self.rows.has_room(key, value.len()) {
            let bytes_max = self.rows.bytes_max();
            return Err(Fault::new(format!("the table is full: {bytes_max} bytes in this partition")));
        }
        self.rows.set(key, Some(value));
        Ok(())
    }

    /// Removes a row, if there is one.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), Fault> {
        self.must_be_here(key)?;
        if self.rows.get(key).is_some() {
            self.rows.set(key, None);
        }
        Ok(())
    }

    /// The row of a key as a value.
    pub fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Fault> {
        Ok(self.get(key.as_bytes())?.map(serde_json::from_slice).transpose()?)
    }

    /// Inserts or replaces a row, as JSON.
    pub fn write(&mut self, key: &str, value: &impl Serialize) -> Result<(), Fault> {
        self.put(key.as_bytes(), &serde_json::to_vec(value)?)
    }

    /// One more record for another topic, committed together with the rows; in the partition of its key. None of
    /// Sagamore's own topics: they take no records of Kafka transactions.
    pub fn emit(&mut self, topic: &str, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        if topic.starts_with(&self.territory.reserved) {
            return Err(Fault::new(format!("{topic} is Sagamore's own: nothing is emitted there")));
        }
        self.must_fit(key, value)?;
        self.emitted.push(Output {
            to: Destination::Topic(topic.into()),
            key: key.to_vec(),
            value: Some(value.to_vec()),
        });
        Ok(())
    }

    fn must_be_here(&self, key: &[u8]) -> Result<(), Fault> {
        let Territory { partition, partitions, .. } = *self.territory;
        let text = || String::from_utf8_lossy(key).into_owned();
        let scope = key.split(|byte| *byte == b'/').next().unwrap_or_default();
        if scope.is_empty() || scope.contains(&0) {
            return Err(Fault::new(format!("no key of a row: {}", text())));
        }
        if partition_of(scope, partitions).0 != partition {
            return Err(Fault::new(format!(
                "the row {} is not in the partition of this command ({partition} of {partitions}): the `key` of the step \
                 must be what the row's key begins with, up to its first `/`",
                text()
            )));
        }
        Ok(())
    }

    fn must_fit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.bytes += key.len() + value.len();
        self.written += key.len() + value.len();
        if self.bytes > COMMAND_BYTES_MAX {
            return Err(Fault::new(format!("one command may write {COMMAND_BYTES_MAX} bytes, not more")));
        }
        Ok(())
    }
}

/// An open local transaction. It has no part in Kafka until it is written.
pub struct Transaction<'t> {
    tx: Tx<'t>,
    operations: &'t mut Operations,
    operations_mark: usize,
    raised: BTreeMap<Home, Time>,
    replies: Vec<Output>,
    position: Option<i64>,
    ledger: &'t mut Ledger,
    log: &'t mut dyn Log,
    /// Answers, votes and replies, in bytes.
    remembered: usize,
    is_over: bool,
}

impl<'t> Transaction<'t> {
    pub(super) fn new(session: &'t mut Session) -> Self {
        let Session { rows, operations, ledger, territory, log } = session;
        let tx =
            Tx { rows, emitted: Vec::new(), territory, bytes: 0, written: 0, rows_mark: 0, emitted_mark: 0 };
        Self {
            tx,
            operations,
            operations_mark: 0,
            raised: BTreeMap::new(),
            replies: Vec::new(),
            position: None,
            ledger,
            log: log.as_mut(),
            remembered: 0,
            is_over: false,
        }
    }

    /// Adds a reply, with where it is to be forwarded.
    pub fn reply(&mut self, replyto: &str, subject: &str, value: Vec<u8>) {
        let key = format!("{replyto} {subject}").into_bytes();
        self.remembered += value.len();
        self.replies.push(Output { to: Destination::Replies, key, value: Some(value) });
    }

    /// All commands below this offset are in this local transaction, or in one before it.
    pub fn taken_to(&mut self, offset: i64) {
        self.position = Some(offset);
    }

    /// About how much would be written, in bytes.
    pub fn bytes(&self) -> usize {
        self.tx.written + self.remembered
    }

    /// Writes everything. After an error the session is of no more use.
    pub fn write(mut self) -> Result<(), LogFault> {
        self.is_over = true;
        let outputs = self.outputs();
        if outputs.is_empty() && self.position.is_none() {
            return Ok(());
        }
        let position = self.position.or(self.ledger.position);
        let batch = Batch { number: self.ledger.batch + 1, position, outputs };
        self.ledger.is_broken = true;
        self.log.write(&batch)?;
        *self.ledger = Ledger { batch: batch.number, position, is_broken: false };
        self.operations.keep();
        self.tx.rows.keep();
        Ok(())
    }

    /// What has changed, as it is in the end, each key once.
    fn outputs(&mut self) -> Vec<Output> {
        let memory = |key, value| Output { to: Destination::Memory, key, value };
        let (mut operations, mut votes, mut heuristics) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for change in self.operations.changes() {
            match change {
                Change::Row(key, operation) => {
                    operations.insert((Key::clone(key), *operation));
                }
                Change::Vote(key, _) => {
                    votes.insert(Key::clone(key));
                }
                Change::Heuristic(key, _) => {
                    heuristics.insert(Key::clone(key));
                }
                Change::Purged(key, rows) => {
                    operations.extend(rows.iter().map(|row| (Key::clone(key), row.operation)));
                }
            }
        }
        let mut outputs = Vec::new();
        for (key, operation) in operations {
            let row = self.operations.rows_of(&key).iter().find(|row| row.operation == operation);
            outputs.push(memory(row_key(&branch_of(&key), operation), row.map(write_row)));
        }
        for key in votes {
            let vote = self.operations.vote_of(&key).map(|vote| vote.as_bytes().to_vec());
            outputs.push(memory(vote_key(&branch_of(&key)), vote));
        }
        for key in heuristics {
            let kept = self.operations.heuristic_of(&key).and_then(|kept| kept.to_json().ok());
            outputs.push(memory(heuristic_key(&branch_of(&key)), kept.map(String::into_bytes)));
        }
        let raised = std::mem::take(&mut self.raised);
        outputs.extend(
            raised.into_iter().map(|(home, horizon)| memory(horizon_key(home), Some(write_time(horizon)))),
        );
        let mut keys: Vec<&[u8]> = self.tx.rows.changes().collect();
        keys.sort_unstable();
        keys.dedup();
        outputs.extend(keys.into_iter().map(|key| Output {
            to: Destination::Table,
            key: key.to_vec(),
            value: self.tx.rows.get(key).map(<[u8]>::to_vec),
        }));
        outputs.append(&mut self.tx.emitted);
        outputs.append(&mut self.replies);
        outputs
    }
}

impl<'t> LocalTransaction for Transaction<'t> {
    type Business = Tx<'t>;

    fn horizon(&mut self, home: Home, watermark: Time) -> Result<Time, StoreFault> {
        let before = self.operations.horizon(home, Time::default());
        let horizon = self.operations.horizon(home, watermark);
        if horizon > before {
            self.raised.insert(home, horizon);
        }
        Ok(horizon)
    }

    fn rows(&mut self, key: &BranchKey<'_>) -> Result<&[Row], StoreFault> {
        Ok(self.operations.rows(key))
    }

    fn business(&mut self) -> &mut Tx<'t> {
        &mut self.tx
    }

    fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault> {
        let bytes = write_row(&row).len();
        must_be_a_record("the answer", bytes)?;
        self.remembered += bytes;
        self.operations.insert(key, row)
    }

    fn keep_vote(&mut self, key: &BranchKey<'_>, vote: Vote) -> Result<(), StoreFault> {
        must_be_a_record("the vote", vote.as_bytes().len())?;
        self.remembered += vote.as_bytes().len();
        self.operations.keep_vote(key, vote);
        Ok(())
    }

    fn vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault> {
        Ok(self.operations.vote(key))
    }

    fn heuristic(&mut self, key: &BranchKey<'_>) -> Result<Option<Heuristic>, StoreFault> {
        Ok(self.operations.heuristic(key))
    }

    fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: &Heuristic) -> Result<(), StoreFault> {
        let bytes = heuristic.to_json()?.len();
        must_be_a_record("the decision by hand", bytes)?;
        self.remembered += bytes;
        self.operations.keep_heuristic(key, heuristic.clone());
        Ok(())
    }

    fn savepoint(&mut self) -> Result<(), StoreFault> {
        self.operations_mark = self.operations.changes().len();
        self.tx.rows_mark = self.tx.rows.mark();
        self.tx.emitted_mark = self.tx.emitted.len();
        self.tx.bytes = 0;
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), StoreFault> {
        self.operations.undo_to(self.operations_mark);
        self.tx.rows.undo_to(self.tx.rows_mark);
        self.tx.emitted.truncate(self.tx.emitted_mark);
        self.tx.bytes = 0;
        Ok(())
    }

    fn commit(self) -> Result<(), StoreFault> {
        self.write().map_err(|fault| StoreFault::Unavailable(fault.to_string()))
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.operations.undo_to(0);
            self.tx.rows.undo_to(0);
        }
    }
}

/// What is larger than a record may be is told to its command, before it is everybody's.
fn must_be_a_record(what: &str, bytes: usize) -> Result<(), StoreFault> {
    let bytes_max = usize::try_from(RECORD_BYTES_MAX).unwrap_or(usize::MAX) - KEY_BYTES;
    if bytes > bytes_max {
        return Err(StoreFault::Unavailable(format!(
            "{what} has {bytes} bytes, a record {bytes_max} at most"
        )));
    }
    Ok(())
}

/// Key and framing of a record, generously.
const KEY_BYTES: usize = 16 * 1024;

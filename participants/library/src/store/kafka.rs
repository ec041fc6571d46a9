//! A store whose local transaction is a Kafka transaction: for participants whose effect is a record.
//!
//! ```text
//!   memory of p, table of p ──read to the own barrier──▶ image, held in the process
//!                                                         │ begin … commands, each behind a savepoint … commit
//!        ┌───────────────── one Kafka transaction ────────▼───────────────────────┐
//!        │ 1. batch N, whole, as one record of memory p                            │
//!        │ 2. rows ▶ memory p   table ▶ table p   replies ▶ replies p   emitted ▶ … │
//!        │ 3. N is done ▶ memory p                                                 │
//!        └─────────────────────────────────────────────────────────────────────────┘
//! ```
//! A store is one partition of the participant's topics; its session is the ownership of that partition. Each step is
//! acknowledged before the next one begins. That matters only when Kafka commits a part of a Kafka transaction, which it
//! does when a repeated `EndTxn` of the one before arrives late (librdkafka has no KIP-890). A part without the first record
//! is nothing. A part with it is completed by the next owner before he does anything else: he writes all of batch N again
//! and that it is done. So table and memory never disagree for longer than a takeover, and no command is done twice. What
//! was emitted may then stand twice in its topic, with the same `sagamore-id`.
//!
//! How far the commands have been taken stands in the record that says done, not in the group: one thing less that could
//! be committed without the rest.
//!
//! Deliberately absent: Kafka. [`Place`] and [`Log`] are what is needed of it; `runtime::kafka_only` has it, and [`rehearsal`]
//! is the same in memory, for tests of business code and of every way to fail in the middle.

mod batch;
mod image;
mod records;
pub mod rehearsal;
mod transaction;

pub use batch::{Batch, Destination, Record};
pub use image::{Damaged, Found};
pub use records::BARRIER_KEY;
pub use transaction::{COMMAND_BYTES_MAX, Transaction, Tx};

use super::operations::Operations;
use super::{Store, StoreFault};
use crate::barrier::Branch;
use crate::doubt::InDoubt;
use crate::heuristic::Heuristic;
use image::{Image, Rows};

/// Branches remembered in each partition unless told otherwise: at about 400 bytes, and as much again in the topic.
pub const BRANCHES_MAX_DEFAULT: usize = 500_000;
/// Keys and values of the table that each partition holds in memory unless told otherwise.
pub const TABLE_BYTES_MAX_DEFAULT: usize = 256 * 1024 * 1024;

/// How much of a partition is held in memory. Whoever takes over a partition with more holds all of it, and adds nothing.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Branches whose operations are remembered.
    pub branches_max: usize,
    /// Bytes of keys and values in the table.
    pub table_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { branches_max: BRANCHES_MAX_DEFAULT, table_bytes_max: TABLE_BYTES_MAX_DEFAULT }
    }
}

/// Which partition of how many, and whose: what decides which rows may stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Territory {
    /// Which one.
    pub partition: i32,
    /// Of how many.
    pub partitions: i32,
    /// Topics that begin like this are Sagamore's own: nothing is emitted there.
    pub reserved: String,
}

/// Where a partition of the topics is.
pub trait Place: Send + Sync + 'static {
    /// Which one.
    fn territory(&self) -> &Territory;

    /// Ends the former owner and shows `found` everything committed, memory and table, in the order of each.
    fn take_over(&self, found: &mut Found) -> Result<Box<dyn Log>, LogFault>;
}

/// What an owner writes with.
pub trait Log: Send {
    /// Writes the records of a batch in its steps, all or nothing. After an error nothing is known: take over again.
    fn write(&mut self, batch: &Batch) -> Result<(), LogFault>;
}

/// Why a log did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// A record that no topic takes, now or later: it is nobody's but its command's.
    #[error("{0}")]
    Refused(String),
    /// Somebody else is the owner.
    #[error("another process has taken this partition over")]
    Fenced,
    /// What stands there cannot be what this library has written. Nothing is done until a person has looked.
    #[error("{0}")]
    Halted(String),
    /// Anything else: nothing is known.
    #[error("{0}")]
    Indefinite(String),
}

impl From<Damaged> for LogFault {
    fn from(damaged: Damaged) -> Self {
        Self::Halted(damaged.to_string())
    }
}

/// One partition as a store.
pub struct KafkaStore {
    place: Box<dyn Place>,
    bounds: Bounds,
}

/// The ownership of a partition, with all it holds.
pub struct Session {
    rows: Rows,
    operations: Operations,
    ledger: Ledger,
    territory: Territory,
    log: Box<dyn Log>,
}

/// Where the owner is.
#[derive(Debug, Default)]
struct Ledger {
    /// The last batch that is done.
    batch: u64,
    /// The next command.
    position: Option<i64>,
    /// A batch has failed: what is held is not what stands in the topics.
    is_broken: bool,
}

impl KafkaStore {
    /// Of the partition at `place`.
    pub fn new(place: impl Place, bounds: Bounds) -> Self {
        Self { place: Box::new(place), bounds }
    }

    /// Takes the partition over; completes what a former owner may have left half committed.
    pub fn take_over(&self) -> Result<Session, LogFault> {
        let mut found = Found::new(self.bounds);
        let mut log = self.place.take_over(&mut found)?;
        let (Image { rows, operations, ledger }, unfinished) = found.finish()?;
        if let Some(batch) = unfinished {
            log.write(&batch)?;
        }
        Ok(Session { rows, operations, ledger, territory: self.place.territory().clone(), log })
    }
}

impl Session {
    /// The offset of the next command, if any has been taken yet.
    pub fn position(&self) -> Option<i64> {
        self.ledger.position
    }

    /// How many branches are remembered.
    pub fn branches(&self) -> usize {
        self.operations.len()
    }

    /// A row of the table.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(key)
    }
}

impl Store for KafkaStore {
    type Session = Session;
    type Business<'t> = Tx<'t>;
    type Transaction<'t> = Transaction<'t>;

    fn session(&self) -> Result<Session, StoreFault> {
        self.take_over().map_err(|fault| StoreFault::Away(fault.to_string()))
    }

    fn begin<'t>(&'t self, session: &'t mut Session) -> Result<Transaction<'t>, StoreFault> {
        if session.ledger.is_broken {
            return Err(StoreFault::Away("the last Kafka transaction failed; take over again".into()));
        }
        Ok(Transaction::new(session))
    }

    fn in_doubt(
        &self,
        session: &mut Session,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<InDoubt>, StoreFault> {
        Ok(session.operations.in_doubt(after, limit))
    }

    fn heuristics(
        &self,
        session: &mut Session,
        after: Option<&Branch>,
        limit: usize,
    ) -> Result<Vec<(Branch, Heuristic)>, StoreFault> {
        Ok(session.operations.heuristics(after, limit))
    }
}

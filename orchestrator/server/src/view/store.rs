//! What the feed writes: a batch of the journal and its place in it, in one local transaction.
//!
//! ```text
//!  take    entry ─▶ the transaction's row, from the batch or the file ─▶ its story goes on
//!  commit  rows, open branches, positions: all of them or none
//! ```
//! So after a crash the feed goes on behind the last batch that was committed, and nothing is missing or twice. In a crowd
//! open transactions are held back for a while: most end meanwhile, and are written once. The position stays before the
//! first entry of theirs; what is read again after a crash is known by the last entry that each row names.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use sagamore_decider::definition::check::compile;
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::{Birth, Partition, Span, Time, TransactionId};
use sagamore_schemas::log::EntryRef;
use sagamore_schemas::wire::OutcomeKind;
use uuid::Uuid;

use super::life::{Life, Story};
use super::status::Status;
use super::{ViewError, schema};

/// Offsets below this fit beside their partition in one integer: enough for 4 million records a second, a year long.
const OFFSET_BITS: u32 = 47;
/// Open transactions that are held back at most: some tens of megabytes.
pub(super) const HELD_MAX: usize = 10_000;
/// Rows that are forgotten at a time: the feed goes on in between.
const FORGOTTEN_AT_ONCE: i64 = 2_000;

/// The columns of a transaction, as [`life_of`] reads them.
pub(super) const COLUMNS: &str = "t.birth, t.id, t.status, t.name, t.version, t.revision, t.started_ms, t.updated_ms, \
     t.reason, t.last_offset, t.last_sequence, t.story";

/// The view's file, for its one writer.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// The newest birth of each partition in the file: what was born later need not be looked for.
    newest: BTreeMap<i32, i64>,
}

/// Entries that are committed together, and transactions that are held back.
#[derive(Debug, Default)]
pub struct Batch {
    lives: HashMap<i64, Held>,
    /// Of each partition where what has been read ends, and when that was written.
    positions: BTreeMap<i32, (i64, Time)>,
    entries: usize,
}

/// Where the file stands in a partition of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Everything before this offset is in it.
    pub next: i64,
    /// When that was written.
    pub at: Time,
    /// Whether more has been read, and is held back.
    pub is_behind: bool,
}

#[derive(Debug)]
struct Held {
    life: Life,
    /// Its first entry that is not in the file: where it stands in the journal, and when it was written.
    first: (i64, Time),
    since: Instant,
    /// Where its last entry stands in the journal.
    journal_offset: i64,
    /// Whether the file has it, with open branches perhaps.
    is_stored: bool,
}

impl Batch {
    /// How many entries have been taken since the last commit.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Whether something is held back.
    pub fn is_holding(&self) -> bool {
        !self.lives.is_empty()
    }

    /// Where the file stands in each partition when only what is held back is not in it.
    pub fn standing(&self) -> BTreeMap<i32, Standing> {
        let read = self.positions.iter();
        let mut standing: BTreeMap<i32, Standing> = read
            .map(|(partition, (next, at))| (*partition, Standing { next: *next, at: *at, is_behind: false }))
            .collect();
        for held in self.lives.values() {
            let (offset, at) = held.first;
            if let Some(known) = standing.get_mut(&held.life.birth.partition.0) {
                *known = Standing { next: known.next.min(offset), at: known.at.min(at), is_behind: true };
            }
        }
        standing
    }

    /// A journal record has been taken, written at `at`.
    pub fn passed(&mut self, partition: i32, offset: i64, at: Time) {
        self.positions.insert(partition, (offset + 1, at));
    }
}

impl Store {
    /// Opens the file, or makes it anew when it is not of this instance and schema.
    pub fn open(file: &Path, instance: Uuid) -> Result<Self, ViewError> {
        Ok(Self { connection: schema::open(file, instance)?, newest: BTreeMap::new() })
    }

    /// The next offset of each partition of the journal.
    pub fn positions(&self) -> Result<BTreeMap<i32, i64>, ViewError> {
        let mut statement = self.connection.prepare("SELECT home, next_offset FROM positions")?;
        let positions = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(positions.collect::<Result<_, _>>()?)
    }

    /// Takes an entry that stands at `offset` of the journal, and gives back the transaction as it is then; none when
    /// it is about no transaction, or had been taken before.
    pub fn take<'b>(
        &mut self,
        batch: &'b mut Batch,
        partition: i32,
        offset: i64,
        entry: &EntryRef<'_>,
    ) -> Result<Option<&'b Life>, ViewError> {
        batch.entries += 1;
        let Some(id) = &entry.transaction else { return Ok(None) };
        let birth = match (entry.birth, entry.outcome) {
            (Some(birth), _) => birth,
            // A start that was refused has no life: its own place is what tells it from others.
            (None, Some(OutcomeKind::Refused)) => {
                Birth { partition: Partition(partition), offset: entry.offset }
            }
            (None, _) => return Ok(None),
        };
        let key = key(birth);
        let held = match batch.lives.entry(key) {
            std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let stored = if key > self.newest(birth.partition.0)? { None } else { self.load(key)? };
                let is_stored = stored.is_some();
                let life = match stored {
                    Some(life) => life,
                    // What is no id, no fold has written.
                    None => match id.parse::<TransactionId>() {
                        Ok(id) => Life::new(birth, id, entry),
                        Err(_) => return Ok(None),
                    },
                };
                let (first, since) = ((offset, entry.at), Instant::now());
                vacant.insert(Held { life, first, since, journal_offset: offset, is_stored })
            }
        };
        if !held.life.apply(entry) {
            return Ok(None);
        }
        held.journal_offset = offset;
        Ok(Some(&held.life))
    }

    /// Writes a batch, and that it has been read. What is open and has not been held for so long stays in the batch.
    pub fn commit(&mut self, batch: &mut Batch, hold: Option<Duration>) -> Result<(), ViewError> {
        let now = Instant::now();
        let is_held = |held: &Held, hold: Option<Duration>| {
            held.life.end.is_none() && hold.is_some_and(|hold| now.duration_since(held.since) < hold)
        };
        let hold =
            hold.filter(|_| batch.lives.values().filter(|held| is_held(held, hold)).count() <= HELD_MAX);
        let transaction = self.connection.transaction()?;
        let mut written: Vec<(i64, Held)> = batch.lives.extract_if(|_, held| !is_held(held, hold)).collect();
        // In the order of the table, so that rows are appended.
        written.sort_unstable_by_key(|(key, _)| *key);
        for (key, held) in &written {
            put(&transaction, *key, held)?;
            let newest = self.newest.entry(held.life.birth.partition.0).or_insert(*key);
            *newest = (*newest).max(*key);
        }
        for (partition, Standing { next, at, .. }) in batch.standing() {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO positions (home, next_offset, at_ms) VALUES (?1, ?2, ?3)",
                )?
                .execute((partition, next, at.epoch_ms()))?;
        }
        transaction.commit()?;
        batch.entries = 0;
        Ok(())
    }

    /// Where reading begins when nothing of a partition has been read, or what comes next is no longer there.
    pub fn place(&mut self, partition: i32, next: i64) -> Result<(), ViewError> {
        self.connection.execute(
            "INSERT INTO positions (home, next_offset, at_ms) VALUES (?1, ?2, 0)
             ON CONFLICT (home) DO UPDATE SET next_offset = excluded.next_offset",
            (partition, next),
        )?;
        Ok(())
    }

    /// Makes known who does what in a definition. The first of a name and version stands, as everywhere.
    pub fn define(&mut self, json: &str) -> Result<(), ViewError> {
        // What is none, no shard takes either.
        let Ok(plan) = Definition::from_json(json).map(|definition| compile(&definition)) else {
            return Ok(());
        };
        let Ok(plan) = plan else { return Ok(()) };
        let transaction = self.connection.transaction()?;
        let (name, version) = (plan.name.as_str(), plan.version);
        let deadline_ms = i64::try_from(plan.deadline.as_ms()).unwrap_or(i64::MAX);
        let is_new = transaction.execute(
            "INSERT OR IGNORE INTO definitions (name, version, deadline_ms) VALUES (?1, ?2, ?3)",
            (name, version, deadline_ms),
        )?;
        if is_new == 1 {
            for (place, index) in plan.branch_indexes().enumerate() {
                let (step, branch) = plan.branch(index);
                let own = if step.is_group { branch.name.as_str() } else { "" };
                transaction.execute(
                    "INSERT INTO definition_branches (name, version, place, step, branch, participant, kind)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        name,
                        version,
                        i64::try_from(place).unwrap_or(i64::MAX),
                        step.name.as_str(),
                        own,
                        branch.by.to_string(),
                        format!("{:?}", step.kind).to_lowercase()
                    ],
                )?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Deletes ended transactions whose last entry the journal no longer has; says how many, at most a few thousand.
    /// Open ones stay: they are still somebody's.
    pub fn forget(&mut self, partition: i32, low: i64) -> Result<usize, ViewError> {
        let ended = Status::Committed.code();
        let gone = self.connection.execute(
            "DELETE FROM transactions WHERE birth IN (
                 SELECT birth FROM transactions WHERE home = ?1 AND journal_offset < ?2 AND status >= ?3 LIMIT ?4)",
            (partition, low, ended, FORGOTTEN_AT_ONCE),
        )?;
        Ok(gone)
    }

    fn newest(&mut self, partition: i32) -> Result<i64, ViewError> {
        if let Some(newest) = self.newest.get(&partition) {
            return Ok(*newest);
        }
        let begin = key(Birth { partition: Partition(partition), offset: 0 });
        let end = begin + (1 << OFFSET_BITS);
        let newest = self.connection.query_row(
            "SELECT coalesce(max(birth), -1) FROM transactions WHERE birth >= ?1 AND birth < ?2",
            (begin, end),
            |row| row.get(0),
        )?;
        self.newest.insert(partition, newest);
        Ok(newest)
    }

    fn load(&self, key: i64) -> Result<Option<Life>, ViewError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM transactions t WHERE t.birth = ?1"))?;
        Ok(statement.query_row([key], life_of).optional()?)
    }
}

fn put(transaction: &Transaction<'_>, key: i64, held: &Held) -> Result<(), ViewError> {
    let life = &held.life;
    let story = serde_json::to_string(&life.story).map_err(|error| ViewError::Written(error.to_string()))?;
    let (name, version) = match &life.definition {
        Some((name, version)) => (Some(name), Some(version)),
        None => (None, None),
    };
    if held.is_stored {
        transaction.prepare_cached("DELETE FROM open_branches WHERE birth = ?1")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM transactions WHERE birth = ?1")?.execute([key])?;
    }
    // Not `OR REPLACE`: SQLite would write down each page it changes, to take a part of a statement back.
    transaction
        .prepare_cached(
            "INSERT INTO transactions (birth, home, id, status, name, version, revision, started_ms,
                 updated_ms, reason, error, last_offset, last_sequence, journal_offset, story)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            key,
            life.birth.partition.0,
            life.id.as_str(),
            life.status().code(),
            name,
            version,
            i64::try_from(life.revision).unwrap_or(i64::MAX),
            life.started.epoch_ms(),
            life.updated.epoch_ms(),
            life.reason,
            life.error(),
            life.last.0,
            life.last.1,
            held.journal_offset,
            story,
        ])?;
    for branch in life.open_branches() {
        transaction
            .prepare_cached(
                "INSERT INTO open_branches
                     (birth, step, branch, phase, operation, attempt, error, was_refused, since_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                key,
                branch.step,
                branch.branch.as_deref().unwrap_or_default(),
                branch.phase,
                branch.operation.as_deref().unwrap_or_default(),
                branch.attempt.unwrap_or_default(),
                branch.reason.as_ref().map(|_| branch.error()),
                branch.was_refused,
                branch.since.epoch_ms(),
            ])?;
    }
    Ok(())
}

/// A birth as one integer, in the order of births within a partition.
pub(super) fn key(birth: Birth) -> i64 {
    i64::from(birth.partition.0) << OFFSET_BITS | birth.offset & ((1 << OFFSET_BITS) - 1)
}

fn birth_of(key: i64) -> Birth {
    let partition = i32::try_from(key >> OFFSET_BITS).unwrap_or_default();
    Birth { partition: Partition(partition), offset: key & ((1 << OFFSET_BITS) - 1) }
}

/// A row of [`COLUMNS`].
pub(super) fn life_of(row: &Row<'_>) -> rusqlite::Result<Life> {
    let wrong = |column: usize, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let id: String = row.get(1)?;
    let story: Story =
        serde_json::from_str(row.get_ref(11)?.as_str()?).map_err(|error| wrong(11, error.into()))?;
    let name: Option<String> = row.get(3)?;
    let version: Option<u32> = row.get(4)?;
    let end = match Status::of_code(row.get(2)?) {
        Some(Status::Committed) => Some(OutcomeKind::Committed),
        Some(Status::Compensated) => Some(OutcomeKind::Compensated),
        Some(Status::Aborted) => Some(OutcomeKind::Aborted),
        Some(Status::Refused) => Some(OutcomeKind::Refused),
        Some(Status::Running | Status::Paused | Status::Committing | Status::RollingBack | Status::Stuck) => {
            None
        }
        None => return Err(rusqlite::Error::IntegralValueOutOfRange(2, row.get(2)?)),
    };
    Ok(Life {
        birth: birth_of(row.get(0)?),
        id: id.parse().map_err(|error: sagamore_schemas::ids::IdError| wrong(1, error.into()))?,
        definition: name.zip(version),
        revision: u64::try_from(row.get::<_, i64>(5)?).unwrap_or_default(),
        started: Time::from_epoch_ms(row.get(6)?),
        updated: Time::from_epoch_ms(row.get(7)?),
        reason: row.get(8)?,
        last: (row.get(9)?, row.get(10)?),
        end,
        story,
    })
}

/// The deadline of a definition.
pub(super) fn deadline(connection: &Connection, name: &str, version: u32) -> Result<Option<Span>, ViewError> {
    let mut statement =
        connection.prepare_cached("SELECT deadline_ms FROM definitions WHERE name = ?1 AND version = ?2")?;
    let ms: Option<i64> = statement.query_row((name, version), |row| row.get(0)).optional()?;
    Ok(ms.map(|ms| Span::from_ms(u64::try_from(ms).unwrap_or_default())))
}

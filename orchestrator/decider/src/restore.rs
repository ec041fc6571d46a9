//! Takeover: from the records of a state partition to the shard as of the last checkpoint.
//!
//! Per key counts the newest record that is true as of the last `\0checkpoint` or before; what is true as of a later
//! offset belongs to a checkpoint that never completed, and is ignored. The count and the XOR in the checkpoint prove
//! that nothing is missing.
//!
//! **What is written again.** The cleaner knows nothing of "as of": an ignored record is the newest of its key, and once
//! it is older than `min.compaction.lag.ms` it costs the one that counts. So the new owner writes what counts behind it,
//! before he does anything else: the very same record, with the same "as of". That changes neither what counts, nor
//! count and XOR, so it needs no `\0checkpoint` of its own, and any part of it may be committed. Where nothing counts it
//! is a tombstone, which takes nothing with it.

use std::collections::BTreeMap;

use sagamore_schemas::log::{
    AS_OF, AppliedRecord, BARRIER_KEY, CHECKPOINT_KEY, CheckpointRecord, DEFINITION_KEY_PREFIX,
    FINISHED_KEY_PREFIX, OWED_KEY_PREFIX,
};
use sagamore_schemas::topics::INSTANCE_KEY;

use crate::checkpoint::{StateRecord, read_owed};
use crate::identity::Identity;
use crate::journal::Journal;
use crate::output::Output;
use crate::planted::{self, Defect};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::stored::{Key, Stored};
use crate::transaction::Transaction;

/// Why a shard cannot be restored. It halts: none of these heals by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record that cannot be read.
    #[error("state record {key:?} is damaged: {cause}")]
    Damaged {
        /// Its key, printable.
        key: String,
        /// What is wrong.
        cause: String,
    },
    /// Count or XOR of the stored keys differ from what the checkpoint says.
    #[error(
        "the state holds {found} keys where the checkpoint says {expected}, or other versions of them: a record is missing or foreign"
    )]
    Incomplete {
        /// Keys found.
        found: u64,
        /// Keys the checkpoint counts.
        expected: u64,
    },
    /// The state belongs to another installation, shard or partition count.
    #[error("the state belongs to {found}, this shard is {expected}")]
    Foreign {
        /// What the checkpoint says.
        found: String,
        /// What we are.
        expected: String,
    },
    /// A level this binary does not know.
    #[error("the shard is at level {level}, this binary knows {known} at most: run the newer one")]
    Level {
        /// The shard's.
        level: u32,
        /// Ours.
        known: u32,
    },
}

/// A shard as of its last checkpoint.
#[derive(Debug)]
pub struct Restored {
    /// The shard; its next offset is where the inbox is to be read from.
    pub shard: Shard,
    /// Outputs that were owed.
    pub owed: Vec<Output>,
    /// The last input it holds, to be compared with the inbox. `None`: there was no checkpoint yet, which is legal only
    /// while the inbox begins at offset 0.
    pub applied: Option<AppliedRecord>,
}

/// Takes the records of a state partition in their order, up to the new owner's own barrier.
#[derive(Debug, Default)]
pub struct StateReader {
    versions: BTreeMap<Key, Vec<Version>>,
    checkpoint: Option<CheckpointRecord>,
    /// The last `\0checkpoint`, when it cannot be read.
    damaged: Option<RestoreError>,
}

#[derive(Debug)]
struct Version {
    as_of: i64,
    value: Option<Vec<u8>>,
    /// It does not say as of when it is true.
    damaged: Option<RestoreError>,
}

impl StateReader {
    /// Takes one record. `as_of` is the value of the header [`AS_OF`]. One that cannot be read is told of by [`Self::prove`],
    /// unless its key is written again behind it: so a state can be rebuilt.
    pub fn read(&mut self, key: &[u8], as_of: Option<&[u8]>, value: Option<&[u8]>) {
        if key == BARRIER_KEY || key == INSTANCE_KEY {
            return;
        }
        if key == CHECKPOINT_KEY {
            match serde_json::from_slice(value.unwrap_or_default()) {
                Ok(head) => (self.checkpoint, self.damaged) = (Some(head), None),
                Err(error) => self.damaged = Some(damaged(key, error)),
            }
            return;
        }
        let version = match as_of.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()) {
            Some(as_of) => Version { as_of, value: value.map(<[u8]>::to_vec), damaged: None },
            None => Version {
                as_of: i64::MIN,
                value: None,
                damaged: Some(damaged(key, format!("header {AS_OF} is missing or no offset"))),
            },
        };
        let x = self.horizon();
        let versions = self.versions.entry(key.to_vec()).or_default();
        versions.push(version);
        keep_what_may_count(versions, x);
    }

    /// X: what is true as of a later offset does not count.
    fn horizon(&self) -> i64 {
        if planted::is(Defect::NewestVersion) {
            return i64::MAX;
        }
        self.checkpoint.as_ref().map_or(0, |head| head.next_offset)
    }

    /// Proves that the state is all there is as of the last checkpoint.
    pub fn prove(self, identity: &Identity) -> Result<Proved, RestoreError> {
        if let Some(error) = self.damaged {
            return Err(error);
        }
        let x = self.horizon();
        let mut again = Vec::new();
        let mut chosen: BTreeMap<Key, Version> = BTreeMap::new();
        for (key, mut versions) in self.versions {
            keep_what_may_count(&mut versions, x);
            let is_ignored = versions.last().is_some_and(|version| version.as_of > x);
            let counts = versions.into_iter().next().filter(|version| version.as_of <= x);
            if let Some(error) = counts.as_ref().and_then(|version| version.damaged.clone()) {
                return Err(error);
            }
            let counts = counts.filter(|version| version.value.is_some());
            if is_ignored && !planted::is(Defect::IgnoredNotRewritten) {
                let as_of = counts.as_ref().map_or(x, |version| version.as_of);
                let value = counts.as_ref().and_then(|version| version.value.clone());
                again.push(StateRecord { key: key.clone(), as_of, value });
            }
            if let Some(version) = counts {
                chosen.insert(key, version);
            }
        }
        let mut stored = Stored::default();
        for (key, version) in &chosen {
            stored.put(key.clone(), version.as_of, version.value.as_ref().is_some_and(Vec::is_empty));
        }
        match &self.checkpoint {
            Some(head) => compare(head, identity, &stored)?,
            None if stored.count() == 0 => {}
            None => return Err(RestoreError::Incomplete { found: stored.count(), expected: 0 }),
        }
        Ok(Proved { chosen, stored, head: self.checkpoint, again })
    }

    /// The shard, whatever is to be written again.
    pub fn finish(self, identity: Identity) -> Result<Restored, RestoreError> {
        self.prove(&identity)?.restore(identity)
    }
}

/// A state that is all there is as of its last checkpoint.
#[derive(Debug, Default)]
pub struct Proved {
    chosen: BTreeMap<Key, Version>,
    stored: Stored,
    head: Option<CheckpointRecord>,
    again: Vec<StateRecord>,
}

impl Proved {
    /// Records that count and stand before ignored ones: they are to be written again before anything is applied.
    pub fn again(&self) -> &[StateRecord] {
        &self.again
    }

    /// The last checkpoint, and each record that counts at it; `None` before the first.
    pub fn into_records(self) -> Option<(CheckpointRecord, impl Iterator<Item = StateRecord>)> {
        let record = |(key, Version { as_of, value, damaged: _ })| StateRecord { key, as_of, value };
        Some((self.head?, self.chosen.into_iter().map(record)))
    }

    /// Builds the shard.
    pub fn restore(self, identity: Identity) -> Result<Restored, RestoreError> {
        let Self { chosen, mut stored, head, again: _ } = self;
        let mut shard = Shard::new(identity);
        let applied = head.map(|head| adopt(&mut shard, &mut stored, head)).transpose()?.flatten();
        let owed = load(&mut shard, &mut stored, chosen)?;
        shard.stored = stored;
        Ok(Restored { shard, owed, applied })
    }
}

/// Of the versions as of X or before only the newest can count. Later ones that stand behind it may count yet, or are
/// ignored; what stands before it never counts again, for X never falls.
fn keep_what_may_count(versions: &mut Vec<Version>, x: i64) {
    if let Some(newest) = versions.iter().rposition(|version| version.as_of <= x) {
        versions.drain(..newest);
    }
}

fn compare(head: &CheckpointRecord, identity: &Identity, stored: &Stored) -> Result<(), RestoreError> {
    let place = |instance, partition, partitions| {
        format!("partition {partition} of {partitions} of instance {instance}")
    };
    let found = place(head.instance, head.partition, head.partitions);
    let expected = place(identity.instance, identity.partition, identity.partitions);
    if found != expected {
        return Err(RestoreError::Foreign { found, expected });
    }
    let differs = head.stored_count != stored.count() || head.stored_xor != stored.xor();
    if differs && !planted::is(Defect::StateNotCounted) && !planted::is(Defect::NewestVersion) {
        return Err(RestoreError::Incomplete { found: stored.count(), expected: head.stored_count });
    }
    Ok(())
}

fn adopt(
    shard: &mut Shard,
    stored: &mut Stored,
    head: CheckpointRecord,
) -> Result<Option<AppliedRecord>, RestoreError> {
    let known = planted::level_max();
    if head.level > known {
        return Err(RestoreError::Level { level: head.level, known });
    }
    let settings: Settings =
        serde_json::from_str(head.settings.0.get()).map_err(|error| damaged(CHECKPOINT_KEY, error))?;
    shard.settings = settings;
    shard.level = head.level;
    shard.clock = head.clock;
    shard.issued_after = head.issued_after;
    shard.next_offset = head.next_offset;
    shard.journal = Journal::at(head.chain);
    shard.definitions.continue_at(head.definitions_offset);
    shard.restored.clone_from(&head.applied);
    stored.finished_next = head.finished_next;
    Ok(head.applied)
}

fn load(
    shard: &mut Shard,
    stored: &mut Stored,
    chosen: BTreeMap<Key, Version>,
) -> Result<Vec<Output>, RestoreError> {
    let mut owed = Vec::new();
    // Definitions first: "\0definition/" sorts before every transaction id.
    for (key, version) in chosen {
        let Some(value) = version.value.filter(|value| !value.is_empty()) else { continue };
        let name = std::str::from_utf8(&key).map_err(|error| damaged(&key, error))?;
        if name.starts_with(DEFINITION_KEY_PREFIX) {
            let json = std::str::from_utf8(&value).map_err(|error| damaged(&key, error))?;
            shard.definitions.load(json).map_err(|cause| damaged(&key, cause))?;
        } else if let Some(number) = name.strip_prefix(FINISHED_KEY_PREFIX) {
            let number = number.parse().map_err(|error| damaged(&key, error))?;
            let youngest_s =
                shard.finished.load(&value).ok_or_else(|| damaged(&key, "not packed endings"))?;
            stored.finished.insert(number, youngest_s);
        } else if name.starts_with(OWED_KEY_PREFIX) {
            owed.extend(read_owed(&value).map_err(|cause| damaged(&key, cause))?);
            stored.owed_records += 1;
        } else {
            let transaction = serde_json::from_slice(&value).map_err(|error| damaged(&key, error))?;
            resume(shard, transaction).map_err(|cause| damaged(&key, cause))?;
        }
    }
    shard.finished.expire(shard.issued_after);
    Ok(owed)
}

fn resume(shard: &mut Shard, transaction: Transaction) -> Result<(), String> {
    let known = shard.definitions.iter().find(|(id, _, _)| **id == transaction.definition);
    let Some((_, plan, _)) = known else {
        return Err(format!("definition {} is missing", transaction.definition));
    };
    if plan.branch_count() != transaction.branches.len() {
        return Err(format!(
            "{} branches where {} has {}",
            transaction.branches.len(),
            transaction.definition,
            plan.branch_count()
        ));
    }
    let birth_offset = transaction.birth.offset;
    for index in plan.branch_indexes() {
        if let Some(timer) = transaction.timer(index) {
            shard.timers.arm(timer);
        }
    }
    if transaction.has_way_back(plan) {
        shard.timers.arm(crate::turn::deadline_timer(&transaction));
    }
    shard.open_bytes += transaction.payload_bytes() as u64;
    shard.births.insert(transaction.id.clone(), birth_offset);
    shard.open.insert(birth_offset, Box::new(transaction));
    Ok(())
}

fn damaged<C: std::fmt::Display>(key: &[u8], cause: C) -> RestoreError {
    let key = String::from_utf8_lossy(key).escape_debug().to_string();
    RestoreError::Damaged { key, cause: format!("{cause}") }
}

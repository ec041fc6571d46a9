//! Rebuild: the state of a shard anew, from its inbox, when what the state topic holds cannot be proved any more.
//!
//! The inbox is folded again up to X, what the last checkpoint has folded in, so that nothing is applied twice or sent
//! twice that was acknowledged. On the way checkpoints are made that nobody writes; what they would have left in the topic
//! is written as one, with a tombstone for every other key that is there. Whoever takes over then proves it like any other.
//! A part of it that is committed alone proves nothing, and is rebuilt once more.

use std::collections::BTreeMap;

use sagamore_schemas::log::{BARRIER_KEY, CHECKPOINT_KEY, CheckpointRecord};
use sagamore_schemas::topics::INSTANCE_KEY;

use crate::checkpoint::{Checkpoint, StateRecord};
use crate::output::Output;
use crate::shard::Shard;

/// What a state topic would hold, checkpoint by checkpoint.
#[derive(Debug, Default)]
pub struct StateImage(BTreeMap<Vec<u8>, StateRecord>);

impl StateImage {
    /// The state of one more checkpoint.
    pub fn write(&mut self, records: impl IntoIterator<Item = StateRecord>) {
        for record in records {
            if record.value.is_some() {
                self.0.insert(record.key.clone(), record);
            } else {
                self.0.remove(&record.key);
            }
        }
    }

    /// One checkpoint that is all of it, as of where `shard` is. `present` are the keys that stand in the topic, `owed`
    /// are outputs before X that are in no topic. Nothing of it goes to the journal, which has it.
    pub fn finish<'k>(
        mut self,
        shard: &mut Shard,
        present: impl IntoIterator<Item = &'k Vec<u8>>,
        owed: &[&Output],
    ) -> Checkpoint {
        let as_of = shard.next_offset();
        let Some(draft) = shard.draft(as_of - 1) else { unreachable!("a draft since the offset before") };
        let Checkpoint { next_offset, state, last, journal: _ } = shard.complete(draft, owed);
        self.write(state);
        let no_more = |key: &&Vec<u8>| !self.0.contains_key(*key) && !is_apart(key);
        let tombstones = present.into_iter().filter(no_more);
        let tombstones: Vec<_> =
            tombstones.map(|key| StateRecord { key: key.clone(), as_of, value: None }).collect();
        let state = self.0.into_values().chain(tombstones).collect();
        Checkpoint { next_offset, state, last, journal: Vec::new() }
    }
}

/// What no checkpoint writes among its keys.
fn is_apart(key: &[u8]) -> bool {
    [BARRIER_KEY, CHECKPOINT_KEY, INSTANCE_KEY].contains(&key)
}

/// In what the fold says something else than the last checkpoint did; `None`: it says the same.
pub fn contradiction(before: &CheckpointRecord, after: &Checkpoint) -> Option<&'static str> {
    let value = after.last.value.as_deref().unwrap_or_default();
    let Ok(after) = serde_json::from_slice::<CheckpointRecord>(value) else {
        unreachable!("a checkpoint is JSON")
    };
    let pairs = [
        ("the offset", before.next_offset == after.next_offset),
        ("the last input", before.applied == after.applied),
        ("the clock", before.clock == after.clock),
        ("the oldest start", before.issued_after == after.issued_after),
        ("the level", before.level == after.level),
        ("the settings", before.settings == after.settings),
        ("the journal's chain", before.chain == after.chain),
        ("the definitions", before.definitions_offset == after.definitions_offset),
    ];
    pairs.into_iter().find(|(_, is_same)| !is_same).map(|(name, _)| name)
}

//! The one hole that is known: of a checkpoint only a part was committed, and from then on nobody takes the shard over for
//! longer than the compaction lag, as when every server is away. Then the cleaner takes versions that the last whole
//! checkpoint needs, and every takeover halts the shard (SAG-001), as rule 2 of the design says for a state that is not
//! what was counted. Whoever does take over covers the part first of all, whatever he halts at afterwards.
//!
//! Such a halt is accepted with its evidence, and told; without the evidence, or after a takeover, it is a violation.

use std::collections::BTreeMap;

use sagamore_schemas::log::{CHECKPOINT_KEY, CheckpointRecord};

use crate::kafka::{Entry, Place};
use crate::trouble::COMPACTION_LAG_MS;
use crate::world::{T0_MS, World};

/// What the cleaner took although the last whole checkpoint needs it.
#[derive(Debug, Clone)]
pub(crate) struct Hole {
    /// X of that checkpoint.
    next_offset: i64,
    evidence: String,
}

impl World {
    /// The last whole checkpoint of a shard: where its last record stands, and what it says.
    pub(crate) fn last_checkpoint(&self, partition: i32) -> Option<(i64, CheckpointRecord)> {
        let (entries, _) = self.kafka.read_committed(Place::State(partition), 0, i64::MAX);
        let last = entries.iter().rfind(|entry| entry.record.key.as_deref() == Some(CHECKPOINT_KEY))?;
        Some((last.offset, serde_json::from_slice(last.record.value.as_deref()?).ok()?))
    }

    /// A takeover that began then has left nothing hidden in the state.
    pub(crate) fn is_covered(&mut self, partition: i32, begun: i64) {
        let covered = self.covered.entry(partition).or_insert(begun);
        *covered = begun.max(*covered);
    }

    /// Whether what the cleaner took was still needed, and superseded only by a part of a checkpoint that came after the
    /// last whole one and after the last takeover, and is older than the lag.
    pub(crate) fn look_for_a_hole(&mut self, partition: i32, gone: &[Entry]) {
        let Some((at, head)) = self.last_checkpoint(partition) else { return };
        let (there, _) = self.kafka.read_committed(Place::State(partition), 0, i64::MAX);
        let is_needed = |entry: &&Entry| entry.record.as_of.is_some_and(|as_of| as_of <= head.next_offset);
        let mut needed: BTreeMap<_, &Entry> = BTreeMap::new();
        for entry in gone.iter().rev().chain(&there).filter(is_needed) {
            needed
                .entry(&entry.record.key)
                .and_modify(|newest| {
                    if newest.offset < entry.offset {
                        *newest = entry;
                    }
                })
                .or_insert(entry);
        }
        let covered = self.covered.get(&partition).copied().unwrap_or(i64::MIN);
        for lost in needed.into_values() {
            if lost.record.value.is_none() || there.iter().any(|entry| entry.offset == lost.offset) {
                continue;
            }
            let by = there.iter().chain(gone).find(|entry| {
                entry.record.key == lost.record.key
                    && entry.offset > at
                    && entry.record.as_of.is_some_and(|as_of| as_of > head.next_offset)
                    && entry.timestamp >= covered
                    && self.now - entry.timestamp >= COMPACTION_LAG_MS
            });
            let Some(by) = by else { continue };
            let evidence = format!(
                "shard {partition}: the last whole checkpoint is as of {}; of one as of {} a part was written at \
                 {} ms and committed, and nobody has taken over since; {} ms later the cleaner took {:?} as of {}",
                head.next_offset,
                by.record.as_of.unwrap_or_default(),
                by.timestamp - T0_MS,
                self.now - by.timestamp,
                String::from_utf8_lossy(lost.record.key.as_deref().unwrap_or_default()),
                lost.record.as_of.unwrap_or_default(),
            );
            self.tell(|| format!("a hole: {evidence}"));
            self.holes.insert(partition, Hole { next_offset: head.next_offset, evidence });
            return;
        }
    }

    /// Why the state of a shard cannot be what its last whole checkpoint counted, if that is known.
    pub(crate) fn hole(&self, partition: i32) -> Option<&str> {
        let hole = self.holes.get(&partition)?;
        let (_, head) = self.last_checkpoint(partition)?;
        (head.next_offset == hole.next_offset).then_some(hole.evidence.as_str())
    }
}

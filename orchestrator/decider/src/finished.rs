//! The memory of ended transactions: a second start with the same id is told the same outcome.
//!
//! In the log an ending takes [`PACKED_BYTES`] bytes, several thousand to a record.

use std::collections::BTreeMap;

use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::log::Digest128;
use sagamore_schemas::wire::OutcomeKind;

use crate::planted::{self, Defect};

/// Bytes of one ending in the log.
pub const PACKED_BYTES: usize = 48;
/// Endings in one record: 4,096 x 48 bytes stay far below the largest record.
pub const PACKED_RECORD_MAX: usize = 4096;

/// How a transaction ended, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Inbox offset of its start.
    pub birth_offset: i64,
    /// Hash of what it was started with: definition name and data.
    pub fingerprint: u64,
    /// The version it was pinned to.
    pub version: u32,
    /// How it ended: never `refused` or `stuck`.
    pub outcome: OutcomeKind,
    /// Count of inputs applied.
    pub revision: u32,
    /// What its window counts from, in seconds since the epoch: its end, or its `time` if that is later.
    pub since_s: u32,
}

/// The endings of one shard.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    endings: BTreeMap<Digest128, Ending>,
    /// By their `since_s`. What was remembered anew may still stand under an earlier one.
    by_age: BTreeMap<u32, Vec<Digest128>>,
    /// Endings since the last checkpoint, in the order of the log.
    unstored: Vec<Digest128>,
}

impl Finished {
    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.endings.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.endings.is_empty()
    }

    /// Whether the same is remembered.
    pub fn is_same(&self, other: &Self) -> bool {
        self.endings == other.endings
    }

    /// What is remembered of `id`.
    pub fn get(&self, id: &TransactionId) -> Option<&Ending> {
        self.endings.get(&id_hash(id))
    }

    /// Remembers an ending.
    pub fn insert(&mut self, id: &TransactionId, ending: Ending) {
        let hash = id_hash(id);
        self.put(hash, ending);
        self.unstored.push(hash);
    }

    fn put(&mut self, hash: Digest128, ending: Ending) {
        self.endings.insert(hash, ending);
        self.by_age.entry(ending.since_s).or_default().push(hash);
    }

    /// Forgets what ended before `issued_after`: whatever starts it again was issued even earlier, and is refused.
    ///
    /// One number decides both, and it never falls, so that no change of the window opens a gap between them.
    pub fn expire(&mut self, issued_after: Time) {
        while let Some(oldest) = self.by_age.first_entry()
            && has_expired(*oldest.key(), issued_after)
        {
            let (since_s, hashes) = oldest.remove_entry();
            for hash in hashes {
                if self.endings.get(&hash).is_some_and(|ending| ending.since_s == since_s) {
                    self.endings.remove(&hash);
                }
            }
        }
    }

    /// Takes what is not yet in the log, packed: record by record, each with the `since_s` of the youngest in it.
    pub fn take_unstored(&mut self) -> Vec<(Vec<u8>, u32)> {
        let mut unstored = std::mem::take(&mut self.unstored);
        if planted::is(Defect::EndingNotStored) {
            unstored.clear();
        }
        let packed = unstored.chunks(PACKED_RECORD_MAX).map(|chunk| {
            let known = chunk.iter().filter_map(|hash| Some((hash, self.endings.get(hash)?)));
            let mut bytes = Vec::with_capacity(chunk.len() * PACKED_BYTES);
            let mut youngest_s = 0;
            for (hash, ending) in known {
                pack(&mut bytes, *hash, ending);
                youngest_s = youngest_s.max(ending.since_s);
            }
            (bytes, youngest_s)
        });
        packed.filter(|(bytes, _)| !bytes.is_empty()).collect()
    }

    /// Loads one packed record; returns the `since_s` of the youngest in it, or `None` if it is damaged.
    ///
    /// Records come in any order: of two lives of one id the later counts.
    pub fn load(&mut self, packed: &[u8]) -> Option<u32> {
        let (records, rest) = packed.as_chunks::<PACKED_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let mut youngest_s = 0;
        for record in records {
            let (hash, ending) = unpack(record)?;
            youngest_s = youngest_s.max(ending.since_s);
            if self.endings.get(&hash).is_none_or(|known| known.birth_offset <= ending.birth_offset) {
                self.put(hash, ending);
            }
        }
        Some(youngest_s)
    }
}

/// Whether what ended, or was issued, at `since_s` is forgotten.
pub fn has_expired(since_s: u32, issued_after: Time) -> bool {
    i64::from(since_s) * 1000 < issued_after.epoch_ms()
}

/// Whole seconds since the epoch.
pub fn seconds(time: Time) -> u32 {
    u32::try_from(time.epoch_ms() / 1000).unwrap_or(u32::MAX)
}

fn id_hash(id: &TransactionId) -> Digest128 {
    Digest128::of(id.as_str().as_bytes())
}

// hash 16, birth 8, fingerprint 8, version 4, revision 4, since 4, outcome 1, zero 3
fn pack(bytes: &mut Vec<u8>, hash: Digest128, ending: &Ending) {
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(&ending.birth_offset.to_be_bytes());
    bytes.extend_from_slice(&ending.fingerprint.to_be_bytes());
    bytes.extend_from_slice(&ending.version.to_be_bytes());
    bytes.extend_from_slice(&ending.revision.to_be_bytes());
    bytes.extend_from_slice(&ending.since_s.to_be_bytes());
    bytes.push(match ending.outcome {
        OutcomeKind::Committed => 1,
        OutcomeKind::Compensated => 2,
        OutcomeKind::Aborted => 3,
        OutcomeKind::Refused | OutcomeKind::Stuck => unreachable!("{} is no ending", ending.outcome),
    });
    bytes.extend_from_slice(&[0; 3]);
}

fn unpack(record: &[u8; PACKED_BYTES]) -> Option<(Digest128, Ending)> {
    fn field<const N: usize>(record: &[u8; PACKED_BYTES], at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&record[at..at + N]);
        bytes
    }
    let outcome = match record[44] {
        1 => OutcomeKind::Committed,
        2 => OutcomeKind::Compensated,
        3 => OutcomeKind::Aborted,
        _ => return None,
    };
    let ending = Ending {
        birth_offset: i64::from_be_bytes(field(record, 16)),
        fingerprint: u64::from_be_bytes(field(record, 24)),
        version: u32::from_be_bytes(field(record, 32)),
        revision: u32::from_be_bytes(field(record, 36)),
        since_s: u32::from_be_bytes(field(record, 40)),
        outcome,
    };
    Some((Digest128(field(record, 0)), ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_survive_the_log_and_expire_by_the_logs_clock() {
        let mut finished = Finished::default();
        let ending = Ending {
            birth_offset: 88_121,
            fingerprint: u64::MAX - 3,
            version: 3,
            outcome: OutcomeKind::Compensated,
            revision: 9,
            since_s: 100,
        };
        let ids: Vec<TransactionId> = (0..5000).map(|n| format!("order-{n}").parse().unwrap()).collect();
        for id in &ids {
            finished.insert(id, ending);
        }
        let packed = finished.take_unstored();
        assert_eq!(packed.len(), 2);
        assert!(finished.take_unstored().is_empty());
        let mut loaded = Finished::default();
        for (bytes, youngest_s) in &packed {
            assert_eq!(loaded.load(bytes), Some(*youngest_s));
        }
        assert!(ids.iter().all(|id| loaded.get(id) == Some(&ending)));
        loaded.expire(Time::from_epoch_ms(100_000));
        assert_eq!(loaded.len(), 5000);
        loaded.expire(Time::from_epoch_ms(100_001));
        assert!(loaded.is_empty());
        assert_eq!(loaded.load(&[1, 2, 3]), None);
    }

    #[test]
    fn of_two_lives_the_later_is_remembered_in_whatever_order_they_are_loaded() {
        let id: TransactionId = "order-1".parse().unwrap();
        let packed = |birth_offset| {
            let mut finished = Finished::default();
            let outcome = OutcomeKind::Committed;
            let ending =
                Ending { birth_offset, fingerprint: 0, version: 1, outcome, revision: 1, since_s: 1 };
            finished.insert(&id, ending);
            finished.take_unstored().remove(0).0
        };
        for births in [[1, 2], [2, 1]] {
            let mut loaded = Finished::default();
            for birth in births {
                assert!(loaded.load(&packed(birth)).is_some());
            }
            assert_eq!(loaded.get(&id).map(|ending| ending.birth_offset), Some(2));
        }
    }
}

//! The memory of ended transactions: a second start with the same id is told the same outcome.
//!
//! In the log an ending takes [`PACKED_BYTES`] bytes, several thousand to a record.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::log::Digest128;
use sagamore_schemas::wire::OutcomeKind;

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
    /// Until when it is remembered, in seconds since the epoch.
    pub until_s: u32,
}

/// The endings of one shard.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    endings: BTreeMap<Digest128, Ending>,
    by_expiry: BTreeSet<(u32, Digest128)>,
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
        if let Some(before) = self.endings.insert(hash, ending) {
            self.by_expiry.remove(&(before.until_s, hash));
        }
        self.by_expiry.insert((ending.until_s, hash));
    }

    /// Forgets what has expired by `clock`.
    pub fn expire(&mut self, clock: Time) {
        let now_s = seconds(clock);
        while let Some((until_s, hash)) =
            self.by_expiry.first().copied().filter(|(until_s, _)| *until_s < now_s)
        {
            self.by_expiry.remove(&(until_s, hash));
            self.endings.remove(&hash);
        }
    }

    /// Takes what is not yet in the log, packed: record by record, each with the second in which all of it has expired.
    pub fn take_unstored(&mut self) -> Vec<(Vec<u8>, u32)> {
        let unstored = std::mem::take(&mut self.unstored);
        let packed = unstored.chunks(PACKED_RECORD_MAX).map(|chunk| {
            let known = chunk.iter().filter_map(|hash| Some((hash, self.endings.get(hash)?)));
            let mut bytes = Vec::with_capacity(chunk.len() * PACKED_BYTES);
            let mut until_s = 0;
            for (hash, ending) in known {
                pack(&mut bytes, *hash, ending);
                until_s = until_s.max(ending.until_s);
            }
            (bytes, until_s)
        });
        packed.filter(|(bytes, _)| !bytes.is_empty()).collect()
    }

    /// Loads one packed record; returns the second in which all of it has expired, or `None` if it is damaged.
    pub fn load(&mut self, packed: &[u8]) -> Option<u32> {
        let (records, rest) = packed.as_chunks::<PACKED_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let mut latest = 0;
        for record in records {
            let (hash, ending) = unpack(record)?;
            latest = latest.max(ending.until_s);
            self.put(hash, ending);
        }
        Some(latest)
    }
}

/// Whole seconds since the epoch.
pub fn seconds(time: Time) -> u32 {
    u32::try_from(time.epoch_ms() / 1000).unwrap_or(u32::MAX)
}

fn id_hash(id: &TransactionId) -> Digest128 {
    Digest128::of(id.as_str().as_bytes())
}

// hash 16, birth 8, fingerprint 8, version 4, revision 4, until 4, outcome 1, zero 3
fn pack(bytes: &mut Vec<u8>, hash: Digest128, ending: &Ending) {
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(&ending.birth_offset.to_be_bytes());
    bytes.extend_from_slice(&ending.fingerprint.to_be_bytes());
    bytes.extend_from_slice(&ending.version.to_be_bytes());
    bytes.extend_from_slice(&ending.revision.to_be_bytes());
    bytes.extend_from_slice(&ending.until_s.to_be_bytes());
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
        until_s: u32::from_be_bytes(field(record, 40)),
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
            until_s: 100,
        };
        let ids: Vec<TransactionId> = (0..5000).map(|n| format!("order-{n}").parse().unwrap()).collect();
        for id in &ids {
            finished.insert(id, ending);
        }
        let packed = finished.take_unstored();
        assert_eq!(packed.len(), 2);
        assert!(finished.take_unstored().is_empty());
        let mut loaded = Finished::default();
        for (bytes, until_s) in &packed {
            assert_eq!(loaded.load(bytes), Some(*until_s));
        }
        assert!(ids.iter().all(|id| loaded.get(id) == Some(&ending)));
        loaded.expire(Time::from_epoch_ms(100_999));
        assert_eq!(loaded.len(), 5000);
        loaded.expire(Time::from_epoch_ms(101_000));
        assert!(loaded.is_empty());
        assert_eq!(loaded.load(&[1, 2, 3]), None);
    }
}

//! What stands in the state topic at the last checkpoint: the bookkeeping by which a takeover proves that it has read
//! everything.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::log::{Digest128, stored_hash};

/// Key of a state record.
pub(crate) type Key = Vec<u8>;

/// Keys in the state topic, and the XOR over them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    keys: BTreeMap<Key, Place>,
    xor: Digest128,
    /// Keys that are stored as ended and wait for their tombstone.
    ended: BTreeSet<Key>,
    /// Number of the next record of packed endings.
    pub(crate) finished_next: u64,
    /// Records of packed endings, with the `since_s` of the youngest in each.
    pub(crate) finished: BTreeMap<u64, u32>,
    /// Records of owed outputs in the last checkpoint.
    pub(crate) owed_records: u32,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    as_of: i64,
    ended: bool,
}

impl Stored {
    pub(crate) fn count(&self) -> u64 {
        self.keys.len() as u64
    }

    pub(crate) fn xor(&self) -> Digest128 {
        self.xor
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// The key now stands there with a value, or as ended.
    pub(crate) fn put(&mut self, key: Key, as_of: i64, ended: bool) {
        self.toggle(&key);
        if ended {
            self.ended.insert(key.clone());
        } else {
            self.ended.remove(&key);
        }
        self.xor.toggle(stored_hash(&key, as_of));
        self.keys.insert(key, Place { as_of, ended });
    }

    /// Takes the keys stored as ended: their tombstones are written now.
    pub(crate) fn take_ended(&mut self) -> Vec<Key> {
        let ended: Vec<Key> = std::mem::take(&mut self.ended).into_iter().collect();
        for key in &ended {
            self.toggle(key);
            let place = self.keys.remove(key);
            assert!(place.is_some_and(|place| place.ended), "SAG-INV-6 a tombstone follows an ended record");
        }
        ended
    }

    fn toggle(&mut self, key: &[u8]) {
        if let Some(place) = self.keys.get(key) {
            self.xor.toggle(stored_hash(key, place.as_of));
        }
    }
}

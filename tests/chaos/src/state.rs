//! The state topic as a takeover must read it: per key the newest version that is true at the last checkpoint or
//! before; their count and their XOR are what that checkpoint says.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::journal::hexadecimal;

const CHECKPOINT: &[u8] = b"\0checkpoint";

/// Versions of every key, by partition.
#[derive(Debug, Default)]
pub struct State {
    versions: BTreeMap<i32, BTreeMap<Vec<u8>, Vec<Version>>>,
    checkpoints: BTreeMap<i32, Vec<Value>>,
}

#[derive(Debug, Clone)]
struct Version {
    as_of: i64,
    /// None: a tombstone.
    value: Option<Vec<u8>>,
}

/// What the last checkpoint of a shard holds.
#[derive(Debug)]
pub struct Last {
    /// The shard.
    pub partition: i32,
    /// Everything below is folded in.
    pub next_offset: i64,
    /// The last link of the journal.
    pub chain: String,
    /// Transactions that are open.
    pub open: Vec<String>,
    /// What does not fit.
    pub wrong: Vec<String>,
}

impl State {
    /// Takes one record.
    pub fn take(&mut self, partition: i32, key: &[u8], value: Option<&[u8]>, as_of: Option<i64>) {
        if key == CHECKPOINT {
            let document = serde_json::from_slice(value.unwrap_or_default()).unwrap_or_default();
            self.checkpoints.entry(partition).or_default().push(document);
        } else if let Some(as_of) = as_of {
            let versions = self.versions.entry(partition).or_default().entry(key.to_vec()).or_default();
            versions.push(Version { as_of, value: value.map(<[u8]>::to_vec) });
            // What lies under it is not asked for once a later checkpoint counts; a few are kept for a cut one.
            if versions.len() > 8 {
                versions.remove(0);
            }
        }
    }

    /// How many checkpoints were seen.
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.values().map(Vec::len).sum()
    }

    /// The last of each shard.
    pub fn last(&self) -> Vec<Last> {
        self.checkpoints.iter().map(|(partition, all)| self.last_of(*partition, all)).collect()
    }

    fn last_of(&self, partition: i32, checkpoints: &[Value]) -> Last {
        let empty = Value::Null;
        let last = checkpoints.last().unwrap_or(&empty);
        let next_offset = last["next_offset"].as_i64().unwrap_or(-1);
        let mut wrong = Vec::new();
        let falls = checkpoints
            .windows(2)
            .find(|pair| pair[1]["next_offset"].as_i64() < pair[0]["next_offset"].as_i64());
        if let Some(pair) = falls {
            wrong.push(format!("checkpoint {} follows {}", pair[1]["next_offset"], pair[0]["next_offset"]));
        }
        let (mut count, mut xor, mut open) = (0_u64, [0_u8; 16], Vec::new());
        for (key, versions) in self.versions.get(&partition).into_iter().flatten() {
            let Some(newest) = versions.iter().rev().find(|version| version.as_of <= next_offset) else {
                continue;
            };
            let Some(value) = &newest.value else { continue };
            count += 1;
            let hash = Sha256::new().chain_update(newest.as_of.to_be_bytes()).chain_update(key).finalize();
            for (mine, other) in xor.iter_mut().zip(hash) {
                *mine ^= other;
            }
            if !value.is_empty() && key.first() != Some(&0) {
                open.push(String::from_utf8_lossy(key).into_owned());
            }
        }
        let told = (last["stored_count"].as_u64(), last["stored_xor"].as_str());
        if told != (Some(count), Some(hexadecimal(&xor).as_str())) {
            let found = hexadecimal(&xor);
            wrong.push(format!("state {partition} says {told:?}, and holds {count} keys, {found}"));
        }
        let chain = last["chain"]["hash"].as_str().unwrap_or_default().to_owned();
        Last { partition, next_offset, chain, open, wrong }
    }
}

//! What a checkpoint writes: everything touched since the last one, as of one inbox offset X.
//!
//! Safe when only a prefix of it is committed (section 6, rule 2 of the design): every record says as of which offset it
//! is true, the record `\0checkpoint` comes last, an ended key is first stored as ended and made a tombstone by a later
//! checkpoint only.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use sagamore_schemas::log::{
    AppliedRecord, CHECKPOINT_KEY, CheckpointRecord, DEFINITION_KEY_PREFIX, Digest128, FINISHED_KEY_PREFIX,
    OWED_KEY_PREFIX, RawText, record_hash,
};

use crate::finished::has_expired;
use crate::output::{Destination, Output};
use crate::planted::{self, Defect};
use crate::shard::{LastRecord, Shard};
use crate::stored::{Key, Stored};

/// Owed outputs in one state record, in bytes before encoding: far below the largest record.
const OWED_RECORD_BYTES_MAX: usize = 512 * 1024;

/// One record of the state topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRecord {
    /// Its key.
    pub key: Vec<u8>,
    /// Its header.
    pub as_of: i64,
    /// Its value: empty for "ended", `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Everything one Kafka transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything below this inbox offset is folded in.
    pub next_offset: i64,
    /// Records of the state topic; the order among them does not matter.
    pub state: Vec<StateRecord>,
    /// `\0checkpoint`: [`Checkpoint::parts`] says when it is sent.
    pub last: StateRecord,
    /// Key and value of the journal's records.
    pub journal: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Records of a checkpoint that are sent together.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Key and value of records of the journal.
    pub journal: &'a [(Vec<u8>, Vec<u8>)],
    /// Records of the state.
    pub state: &'a [StateRecord],
}

impl Checkpoint {
    /// Its parts in their order, all in one Kafka transaction: each is sent when every record of the one before is
    /// acknowledged, and the Kafka transaction is committed when every record of the last is.
    pub fn parts(&self) -> [Part<'_>; 2] {
        let all = Part { journal: &self.journal, state: &self.state };
        let last = Part { journal: &[], state: std::slice::from_ref(&self.last) };
        if planted::is(Defect::CheckpointRecordFirst) { [last, all] } else { [all, last] }
    }
}

/// A checkpoint that still waits for the acknowledgement of outputs.
#[derive(Debug, Clone)]
pub struct Draft {
    state: Vec<StateRecord>,
    head: CheckpointRecord,
    journal: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Shard {
    /// Begins a checkpoint as of now. `None` when nothing was applied since the last one.
    ///
    /// What it takes is gone from the shard's list of things to store: a checkpoint that fails means that the shard is
    /// dropped and taken over again.
    pub fn draft(&mut self, since_offset: i64) -> Option<Draft> {
        let as_of = self.next_offset;
        if as_of <= since_offset {
            return None;
        }
        let mut records: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        records.extend(self.stored.take_ended().into_iter().map(|key| (key, None)));
        let mut put = |stored: &mut Stored, key: Key, value: Vec<u8>| {
            stored.put(key.clone(), as_of, value.is_empty());
            records.insert(key, Some(value));
        };

        for birth_offset in std::mem::take(&mut self.touched) {
            if let Some(transaction) = self.open.get(&birth_offset) {
                put(&mut self.stored, transaction.id.as_str().into(), json(transaction));
            }
        }
        for id in std::mem::take(&mut self.ended) {
            let key = id.as_str().as_bytes();
            // Another life of it may be open, or may have had an end that stands there already.
            if !self.births.contains_key(&id) && self.stored.contains(key) {
                put(&mut self.stored, key.into(), Vec::new());
            }
        }
        for (id, definition) in self.definitions.take_unstored() {
            put(
                &mut self.stored,
                format!("{DEFINITION_KEY_PREFIX}{id}").into_bytes(),
                definition.as_bytes().to_vec(),
            );
        }
        for (packed, youngest_s) in self.finished.take_unstored() {
            let number = self.stored.finished_next;
            self.stored.finished_next += 1;
            self.stored.finished.insert(number, youngest_s);
            put(&mut self.stored, finished_key(number), packed);
        }
        let issued_after = self.issued_after;
        let expired = |(_, youngest_s): &(&u64, &u32)| has_expired(**youngest_s, issued_after);
        let expired: Vec<u64> =
            self.stored.finished.iter().filter(expired).map(|(number, _)| *number).collect();
        for number in expired {
            self.stored.finished.remove(&number);
            put(&mut self.stored, finished_key(number), Vec::new());
        }
        let state = records.into_iter().map(|(key, value)| StateRecord { key, as_of, value }).collect();
        Some(Draft { state, head: self.head(), journal: self.journal.take_unstored() })
    }

    /// Completes a draft: all outputs of its inputs are acknowledged but those that are `owed`.
    pub fn complete(&mut self, draft: Draft, owed: &[&Output]) -> Checkpoint {
        let Draft { mut state, mut head, journal } = draft;
        let as_of = head.next_offset;
        let owed = if planted::is(Defect::OwedForgotten) { &[] } else { owed };
        let records = owed_records(owed);
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let no_more = (count..self.stored.owed_records).map(|number| (number, Vec::new()));
        for (number, value) in (0..).zip(records).chain(no_more) {
            let key = owed_key(number);
            self.stored.put(key.clone(), as_of, value.is_empty());
            state.retain(|record| record.key != key);
            state.push(StateRecord { key, as_of, value: Some(value) });
        }
        self.stored.owed_records = count;
        head.stored_count = self.stored.count();
        head.stored_xor = self.stored.xor();
        head.owed = u32::try_from(owed.len()).unwrap_or(u32::MAX);
        let last = StateRecord { key: CHECKPOINT_KEY.to_vec(), as_of, value: Some(json(&head)) };
        Checkpoint { next_offset: as_of, state, last, journal }
    }

    fn head(&self) -> CheckpointRecord {
        let settings = RawValue::from_string(serde_json::to_string(&self.settings).unwrap_or_default());
        let Ok(settings) = settings else { unreachable!("settings are JSON") };
        CheckpointRecord {
            instance: self.identity.instance,
            partition: self.identity.partition,
            partitions: self.identity.partitions,
            next_offset: self.next_offset,
            applied: self.applied(),
            clock: self.clock,
            issued_after: self.issued_after,
            level: self.level,
            settings: RawText(settings),
            chain: self.journal.head().clone(),
            definitions_offset: self.definitions.last_offset(),
            finished_next: self.stored.finished_next,
            finished_purged: self.stored.finished.keys().next().copied().unwrap_or(self.stored.finished_next),
            stored_count: 0,
            stored_xor: Digest128::default(),
            owed: 0,
        }
    }
}

impl Shard {
    fn applied(&self) -> Option<AppliedRecord> {
        let Some(LastRecord { offset, timestamp_ms, key, value }) = &self.last else {
            return self.restored.clone();
        };
        let hash = record_hash(key.as_deref(), value.as_deref(), *timestamp_ms);
        Some(AppliedRecord { offset: *offset, hash })
    }
}

fn finished_key(number: u64) -> Key {
    format!("{FINISHED_KEY_PREFIX}{number}").into_bytes()
}

fn owed_key(number: u32) -> Key {
    format!("{OWED_KEY_PREFIX}{number}").into_bytes()
}

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("the state holds nothing that JSON cannot: {error}"),
    }
}

#[derive(Serialize, Deserialize)]
struct StoredOutput {
    destination: Destination,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

fn owed_records(owed: &[&Output]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut batch: Vec<StoredOutput> = Vec::new();
    let mut bytes = 0;
    for output in owed {
        if !batch.is_empty() && bytes + output.size_bytes() > OWED_RECORD_BYTES_MAX {
            records.push(json(&std::mem::take(&mut batch)));
            bytes = 0;
        }
        bytes += output.size_bytes();
        batch.push(StoredOutput {
            destination: output.destination.clone(),
            key: output.key.as_deref().map(|key| BASE64.encode(key)),
            value: output.value.as_deref().map(|value| BASE64.encode(value)),
            headers: output
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), BASE64.encode(value)))
                .collect(),
        });
    }
    if !batch.is_empty() {
        records.push(json(&batch));
    }
    records
}

/// Reads one record of owed outputs.
pub(crate) fn read_owed(value: &[u8]) -> Result<Vec<Output>, String> {
    let stored: Vec<StoredOutput> = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let bytes = |text: String| BASE64.decode(text).map_err(|error| error.to_string());
    stored
        .into_iter()
        .map(|output| {
            Ok(Output {
                destination: output.destination,
                key: output.key.map(bytes).transpose()?,
                value: output.value.map(bytes).transpose()?,
                headers: output
                    .headers
                    .into_iter()
                    .map(|(name, value)| Ok::<_, String>((name, bytes(value)?)))
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

//! Snapshots: the whole fold of a shard at X, as one body of bytes, and back.
//!
//! A snapshot is what a takeover would restore the shard from at X: the chosen records of the state with their `\0checkpoint`.
//! Whoever begins at one goes through the same [`StateReader`] with the same proof, so there is one way back to a shard. It is
//! a cache, never the truth: the fold of the inbox up to X says the same, and [`difference`] tells whether it does.
//! How a body is laid out: `sagamore_schemas::snapshot`.

use sagamore_schemas::ids::Time;
use sagamore_schemas::log::CHECKPOINT_KEY;

use crate::checkpoint::{StateRecord, json};
use crate::identity::Identity;
use crate::restore::{Proved, RestoreError, Restored, StateReader};
use crate::shard::Shard;

const LENGTH_SIZE: usize = size_of::<u32>();
const AS_OF_SIZE: usize = size_of::<i64>();
const HEAD_SIZE: usize = 2 * LENGTH_SIZE + AS_OF_SIZE;

/// A snapshot as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// X: everything below this inbox offset is folded in.
    pub next_offset: i64,
    /// The fold's clock there.
    pub clock: Time,
    /// How many records it has.
    pub records: usize,
    /// What is cut into pieces.
    pub bytes: Vec<u8>,
}

/// Why a body is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It ends in the middle of a record.
    #[error("its body breaks off at byte {at} of {size}")]
    Broken {
        /// Where the record begins.
        at: usize,
        /// How long the body is.
        size: usize,
    },
    /// No takeover would take it.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// The body of what has been proved; `None` before the first checkpoint.
pub fn encode(proved: Proved) -> Option<Body> {
    let (head, chosen) = proved.into_records()?;
    let mut bytes = Vec::new();
    frame(&mut bytes, CHECKPOINT_KEY, head.next_offset, &json(&head));
    let mut records = 1;
    for StateRecord { key, as_of, value } in chosen {
        frame(&mut bytes, &key, as_of, value.as_deref().unwrap_or_default());
        records += 1;
    }
    Some(Body { next_offset: head.next_offset, clock: head.clock, records, bytes })
}

fn frame(bytes: &mut Vec<u8>, key: &[u8], as_of: i64, value: &[u8]) {
    for part in [key, value] {
        let Ok(length) = u32::try_from(part.len()) else { unreachable!("a record of Kafka is smaller") };
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(as_of.to_be_bytes());
    bytes.extend(key);
    bytes.extend(value);
}

/// The records of a body, `\0checkpoint` among them.
pub fn decode(body: &[u8]) -> Result<Vec<StateRecord>, SnapshotError> {
    let mut records = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let broken = SnapshotError::Broken { at: body.len() - rest.len(), size: body.len() };
        let (record, behind) = take(rest).ok_or(broken)?;
        records.push(record);
        rest = behind;
    }
    Ok(records)
}

fn take(bytes: &[u8]) -> Option<(StateRecord, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_SIZE>()?;
    let length = |at: usize| -> Option<usize> {
        let bytes: [u8; LENGTH_SIZE] = head[at..at + LENGTH_SIZE].try_into().ok()?;
        u32::from_be_bytes(bytes).try_into().ok()
    };
    let as_of: [u8; AS_OF_SIZE] = head[2 * LENGTH_SIZE..].try_into().ok()?;
    let (key, rest) = rest.split_at_checked(length(0)?)?;
    let (value, rest) = rest.split_at_checked(length(LENGTH_SIZE)?)?;
    let as_of = i64::from_be_bytes(as_of);
    Some((StateRecord { key: key.to_vec(), as_of, value: Some(value.to_vec()) }, rest))
}

/// The shard, proved as a takeover proves it.
pub fn restore(records: &[StateRecord], identity: Identity) -> Result<Restored, RestoreError> {
    let mut reader = StateReader::default();
    for StateRecord { key, as_of, value } in records {
        let as_of = as_of.to_string();
        reader.read(key, Some(as_of.as_bytes()), value.as_deref());
    }
    reader.finish(identity)
}

/// In what a shard that was folded and one from a snapshot at the same offset differ; `None`: in nothing.
pub fn difference(folded: &Shard, restored: &Shard) -> Option<String> {
    let pairs = [
        ("the offset", folded.next_offset == restored.next_offset),
        ("the clock", folded.clock == restored.clock),
        ("the oldest start", folded.issued_after == restored.issued_after),
        ("the level", folded.level == restored.level),
        ("the settings", folded.settings == restored.settings),
        ("the journal's chain", folded.journal.head() == restored.journal.head()),
        ("the definitions", definitions(folded).eq(definitions(restored))),
        ("what is remembered of ended transactions", folded.finished.is_same(&restored.finished)),
    ];
    if let Some((name, _)) = pairs.into_iter().find(|(_, is_same)| !is_same) {
        return Some(name.to_owned());
    }
    let births = folded.open.keys().chain(restored.open.keys());
    let different = births.copied().find(|birth| {
        let [one, other] = [folded, restored].map(|shard| shard.open.get(birth).map(json));
        one != other
    });
    let Some(different) = different else {
        return (folded.timers != restored.timers).then(|| "the timers".to_owned());
    };
    let open = folded.open.get(&different).or_else(|| restored.open.get(&different))?;
    Some(format!("transaction {}", open.id))
}

fn definitions(shard: &Shard) -> impl Iterator<Item = (i64, &str)> {
    let last = shard.definitions.last_offset();
    shard.definitions.iter().map(move |(_, _, json)| (last, json))
}

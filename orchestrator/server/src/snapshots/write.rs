//! Writing one: the state as it is proved at its newest checkpoint, cut into pieces.

use std::time::Instant;

use rdkafka::message::{Headers, Message};
use sagamore_decider::identity::Identity;
use sagamore_decider::restore::{RestoreError, StateReader};
use sagamore_decider::snapshot::{Body, encode};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::AS_OF;
use sagamore_schemas::snapshot::{PART, SnapshotPart, body_digest, pieces};
use sagamore_schemas::topics::Topic;
use serde::Serialize;
use uuid::Uuid;

use super::SnapshotError;
use crate::audit::{Stretch, read, stretches};
use crate::site::{NewRecord, Site};

/// Pieces that are on their way at a time: what a producer holds of a large one.
const PIECES_AT_ONCE: usize = 16;
/// How often a state that does not prove itself is read once more: while it was read, the cleaner may have come by.
const ATTEMPTS: u32 = 3;

/// A snapshot that was written.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// The shard.
    pub partition: i32,
    /// X: everything below this inbox offset is folded in.
    pub next_offset: i64,
    /// The fold's clock there.
    pub clock: Time,
    /// Records of the state.
    pub records: usize,
    /// Its size, before compression.
    pub bytes: usize,
    /// How many records it takes in the topic.
    pub pieces: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Writes one of the shard that is `identity`, while `goes_on` says so.
pub fn write(site: &Site, identity: &Identity, goes_on: &dyn Fn() -> bool) -> Result<Written, SnapshotError> {
    let begun = Instant::now();
    let partition = identity.partition.0;
    let body = proved(site, identity, goes_on)?.ok_or(SnapshotError::NoCheckpoint(partition))?;
    let pieces: Vec<&[u8]> = pieces(&body.bytes).collect();
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let mut part = SnapshotPart {
        id: Uuid::new_v4(),
        instance: identity.instance,
        partition: identity.partition,
        next_offset: body.next_offset,
        clock: body.clock,
        number: 0,
        count,
        digest: body_digest(&body.bytes),
    };
    let topic = site.topic(Topic::Snapshots);
    site.partitions(Topic::Snapshots)?;
    let writer = site.snapshot_writer()?;
    for batch in pieces.chunks(PIECES_AT_ONCE) {
        if !goes_on() {
            return Err(SnapshotError::GivenUp);
        }
        let mut records = Vec::with_capacity(batch.len());
        for piece in batch {
            part.number += 1;
            let Ok(header) = serde_json::to_vec(&part) else { unreachable!("a part is JSON") };
            let mut record = NewRecord::plain(partition, Some(part.key()), piece.to_vec());
            record.headers.push((PART.to_owned(), header));
            records.push(record);
        }
        writer.write_to(&topic, &records)?;
    }
    Ok(Written {
        partition,
        next_offset: body.next_offset,
        clock: body.clock,
        records: body.records,
        bytes: body.bytes.len(),
        pieces: count,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn proved(
    site: &Site,
    identity: &Identity,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Body>, SnapshotError> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        match read_state(site, identity, goes_on)?.prove(identity) {
            Ok(proved) => return Ok(encode(proved)),
            Err(RestoreError::Incomplete { .. }) if attempts > 0 => {}
            Err(cause) => return Err(SnapshotError::Unproved { partition: identity.partition.0, cause }),
        }
    }
}

fn read_state(
    site: &Site,
    identity: &Identity,
    goes_on: &dyn Fn() -> bool,
) -> Result<StateReader, SnapshotError> {
    let stretch = stretch(site, Topic::State, identity.partition.0)?;
    let mut reader = StateReader::default();
    let mut is_wanted = true;
    read(site, &stretch, Isolation::ReadCommitted, |message| {
        let as_of = message.headers().and_then(|headers| headers.iter().find(|header| header.key == AS_OF));
        let as_of = as_of.and_then(|header| header.value);
        reader.read(message.key().unwrap_or_default(), as_of, message.payload());
        is_wanted = goes_on();
        is_wanted
    })?;
    if is_wanted { Ok(reader) } else { Err(SnapshotError::GivenUp) }
}

/// One partition of one of the topics.
fn stretch(site: &Site, topic: Topic, partition: i32) -> Result<Stretch, SnapshotError> {
    let name = site.topic(topic);
    let all = stretches(site, |topic| topic == name)?;
    let found = all.into_iter().find(|stretch| stretch.partition == partition);
    found.ok_or(SnapshotError::NoShard(partition))
}

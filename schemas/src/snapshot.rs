//! What stands in `<prefix>.snapshots`: the whole state of a shard at an inbox offset, in pieces.
//!
//! ```text
//!  snapshots k:  <shard>/<offset> ─ header [`PART`]: a [`SnapshotPart`]; value: that piece of the body
//! ```
//! The body is one stream of frames, cut wherever a piece is full: `\0checkpoint` first, then each record of the state as a
//! takeover would choose it at that checkpoint. A frame is the length of its key, the length of its value, both four bytes,
//! "as of" in eight bytes, all big-endian, then key and value. Pieces of several snapshots may stand mixed in the topic: `id`
//! tells them apart. One that lacks a piece is torn, its writer was killed; one whose digest is wrong is damaged.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ids::{Partition, Time};
use crate::log::Digest256;

/// Header of each piece.
pub const PART: &str = "part";
/// The largest piece of a body: far below the largest record, and few enough of them.
pub const PART_BYTES_MAX: usize = 512 * 1024;

/// Which piece of which snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Different for every snapshot that is written.
    pub id: Uuid,
    /// The installation.
    pub instance: Uuid,
    /// The shard.
    pub partition: Partition,
    /// Everything below this inbox offset is folded in.
    pub next_offset: i64,
    /// The fold's clock there.
    pub clock: Time,
    /// Which piece, from 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// SHA-256 of the whole body.
    pub digest: Digest256,
}

impl SnapshotPart {
    /// The key of its record.
    pub fn key(&self) -> String {
        format!("{}/{}", self.partition.0, self.next_offset)
    }
}

/// A body in pieces.
pub fn pieces(body: &[u8]) -> impl ExactSizeIterator<Item = &[u8]> {
    body.chunks(PART_BYTES_MAX)
}

/// What a body is called by.
pub fn body_digest(body: &[u8]) -> Digest256 {
    Digest256(Sha256::digest(body).into())
}

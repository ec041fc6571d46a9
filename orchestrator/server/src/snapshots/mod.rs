//! Snapshots: where a fold may begin instead of at the beginning of its inbox.
//!
//! ```text
//!  state k ──read to its end, proved at its newest \0checkpoint──▶ body ──cut──▶ snapshots k      (write)
//!  snapshots k ──whole, digest right, proved again, same inbox──▶ shard as of X ──▶ fold on        (find)
//! ```
//! **Made of the state, not of a fold.** What a takeover needs stands in the state topic already; count and XOR of its
//! checkpoint prove that all of it was read. So a snapshot needs neither the lane, which goes on undisturbed, nor the inbox, nor
//! the reply-token secret; anybody can write one, at any time, also while no server runs, and two who do it at once only write
//! two. No barrier is written, because nobody is fenced: what is proved at an older checkpoint is as good a snapshot.
//!
//! A snapshot is a cache, never the truth: whoever folds past one can hold the fold against it.

mod find;
mod hourly;
mod write;

use sagamore_decider::restore::RestoreError;
use sagamore_decider::snapshot;
use serde::Serialize;

pub(crate) use find::{Found, Snapshot, Snapshots};
pub(crate) use hourly::Hourly;
pub use write::{Written, write};

use crate::site::SiteError;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The topics cannot be read or written.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// There is no such shard.
    #[error("the inbox has no partition {0}")]
    NoShard(i32),
    /// There is nothing to write yet.
    #[error("shard {0} has no checkpoint yet: what it has folded begins at the beginning of its inbox")]
    NoCheckpoint(i32),
    /// It would not be taken over either.
    #[error("the state of shard {partition} does not prove itself: {cause}")]
    Unproved {
        /// The shard.
        partition: i32,
        /// Why.
        cause: RestoreError,
    },
    /// Nobody wants it any more.
    #[error("it was given up")]
    GivenUp,
}

/// A snapshot that is passed over, and why.
#[derive(Debug, Clone, Serialize)]
pub struct PassedOver {
    /// X: what it would have folded in.
    pub next_offset: i64,
    /// Where its last piece stands.
    pub place: String,
    /// Why.
    pub cause: String,
}

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Its writer was killed, or is still at it, or it is half forgotten.
    #[error("{found} of {count} pieces are there")]
    Torn {
        /// Pieces found.
        found: usize,
        /// Pieces it has.
        count: u32,
    },
    /// Not what was written.
    #[error("the digest of its body is not what its pieces say")]
    Digest,
    /// Made of another checkpoint than its pieces say.
    #[error("its body is of another offset or clock than its pieces say")]
    Mislabelled,
    /// Not what a shard can be made of.
    #[error(transparent)]
    Body(#[from] snapshot::SnapshotError),
    /// Another inbox.
    #[error("the inbox holds another record before offset {0} than the one it has folded in")]
    OtherInbox(i64),
}

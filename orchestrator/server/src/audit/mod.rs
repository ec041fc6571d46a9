//! Audit: folds the inbox again, with outputs suppressed, and compares what the fold says with what stands in the topics.
//!
//! ```text
//!  inbox k ──▶ Replay (the very fold) ──▶ entries of the journal, by (offset, sequence) ─┐
//!                                    └──▶ outputs, by content and by id ─────────────────┤
//!  journal k, commands.*, outcomes, dead-letters, inbox ──────────────▶ found ──────────┴─▶ Report
//! ```
//! | a record or an entry is | when |
//! |---|---|
//! | identical | the fold says it, byte for byte; an entry's text is what its chain covers |
//! | repeated | it is identical, and was there before: outputs and parts of checkpoints may come twice |
//! | missing | the fold says it, its cause is in a checkpoint, and it is nowhere |
//! | different | the fold says something else under its name: (offset, sequence) or id |
//! | extra | the fold says nothing of that name |
//! | under way | the fold says it, and no checkpoint has its cause yet |
//! | not retained | it would be missing, and the topic no longer reaches back so far; or it is there, and the fold begins behind it |
//!
//! It joins no group and writes nothing, on a live cluster as well. A fold begins where the inbox begins, or at a snapshot:
//! at the newest one before what was asked for, or at the oldest one, when the inbox was trimmed. Snapshots that are passed
//! are compared as well, transaction by transaction: they are of a checkpoint, and the fold says the same there. Memory: 44
//! bytes for each entry of the journal, 64 for each output.
//!
//! Deliberately absent: rules of its own. Whatever a fold may say, `sagamore_decider` says.

mod compare;
mod fold;
mod proofs;
mod replay;
mod sent;
mod signed;
mod state;
mod topics;
mod verify;

pub mod export;
pub mod trace;
pub mod what_if;

pub(crate) use compare::{Entries, Outputs};
pub use compare::{Finding, Kind, Tally};
pub use fold::{AuditError, Began, Folding, Progress};
pub(crate) use fold::{Begin, Folder, Origin};
pub use replay::ReplayError;
pub(crate) use replay::{ReplayedShard, Wanted};
pub(crate) use sent::sent;
pub use signed::{KeyError, SignedHead, read_signed, sign};
pub use state::{Believed, Moment, Question, state};
pub(crate) use topics::{Stretch, read, stretches};
pub use verify::{Report, ShardReport, Span, verify};

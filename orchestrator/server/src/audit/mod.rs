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
//! | not retained | it would be missing, and the topic no longer reaches back so far |
//!
//! It joins no group and writes nothing, on a live cluster as well. A fold begins where the inbox begins, so it must still
//! be there from offset 0 on. Memory: 44 bytes for each entry of the journal, 64 for each output.
//!
//! Deliberately absent: rules of its own. Whatever a fold may say, `sagamore_decider` says.

mod compare;
mod fold;
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
pub(crate) use fold::Folder;
pub use fold::{AuditError, Progress};
pub use replay::ReplayError;
pub(crate) use replay::{Entered, Wanted};
pub(crate) use sent::sent;
pub use signed::{KeyError, SignedHead, read_signed, sign};
pub use state::{Believed, Moment, Question, state};
pub(crate) use topics::{Stretch, read, stretches};
pub use verify::{Report, ShardReport, Span, verify};

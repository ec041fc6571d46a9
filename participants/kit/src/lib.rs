//! Plays coordinator against somebody's participant, in any language, and says which rule it breaks.
//!
//! ```text
//!   check ──▶ topics ──▶ start ──▶ probe ──▶ side by side ──▶ kills ──▶ garbage ──▶ Report
//!                          │                     │              │         │
//!   the participant ◀──────┴──── commands ◀──────┴──────────────┴─────────┘
//!          └──── replies, inquiries ──▶ inbox, read as the coordinator reads it
//! ```
//! What is promised stands in [`catalogue`], row by row, with the rule of participants/README.md it follows from. Effects
//! are seen through a command of the participant's author; without one, answers alone are judged, and rows that are about
//! effects are skipped. Garbage comes last: what it stops would stop everything else.
//!
//! Deliberately absent: the participant library and the decider. A participant knows the wire and nothing else, and so
//! does what checks it.

mod bench;
mod branch;
pub mod catalogue;
mod checks;
mod desk;
mod error;
mod inbox;
mod observe;
mod process;
mod report;
mod run;
mod settings;

pub use error::CheckError;
pub use report::{Judged, Report, Verdict};
pub use run::{Progress, check};
pub use settings::{
    Interrupt, Protocols, ProtocolsError, Selection, SelectionError, Settings, Template, TemplateError,
};

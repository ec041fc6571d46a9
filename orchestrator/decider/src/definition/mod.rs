//! Definitions: from a document to the plan that the fold runs on.
//!
//! ```text
//! text (YAML, JSON) --source--> Definition + places --check--> Plan --> the fold
//! `definitions` topic: canonical JSON --> Definition --check--> Plan --> the fold
//! Rust --build--> Definition --check--> Plan
//! ```
//!
//! [`check::compile`] is the only way to a [`plan::Plan`], so what runs has been checked, whoever wrote the record.
//! `source` (feature `source`) is for the people's side: it finds line and column of every problem.
//!
//! Deliberately absent: versions and which of them a start means (the fold's), files and printing (the CLI's).

pub mod build;
pub mod check;
pub mod condition;
pub mod plan;
#[cfg(feature = "source")]
pub mod source;
pub mod template;

//! From a checked definition to one that every shard has.
//!
//! ```text
//!   command topics ──▶ read `definitions` ──▶ same: nothing to write     other: conflict
//!                          └─ none ──▶ write ──▶ read again: was somebody quicker? ──▶ wait for the shards
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use sagamore_decider::definition::check::Problem;
use sagamore_decider::definition::plan::Plan;
use sagamore_kafka::topics::{Change, Layout, TopicsError, ensure_command_topics};
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::Topic;
use serde::Serialize;

use super::catalogue::{Catalogue, Entry};
use super::children::judge;
use super::{NewRecord, Site, SiteError};

/// Which command topics are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandTopics {
    /// With so many copies, or as many as the inbox has.
    Create(Option<NonZeroU16>),
    /// None: the embedded broker cannot be asked, and makes its topics by itself.
    LeaveAlone,
}

/// Why a definition is not applied, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Under its name and version stands something else.
    #[error(
        "{id} has been applied with other content, and a version never changes: raise `version` to {next}, or look at \
         the difference with `sagamore define diff {id} FILE`"
    )]
    Conflict {
        /// `name@version`.
        id: String,
        /// The least version that is free.
        next: u32,
    },
    /// What it names is not there, or is no child for it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Children(Vec<Problem>),
    /// It was written, and is not there.
    #[error("{id} was written at {written:?} and is not there")]
    Lost {
        /// `name@version`.
        id: String,
        /// Where it was written.
        written: Vec<i64>,
    },
    /// Kafka cannot be read or written.
    #[error(transparent)]
    Site(#[from] SiteError),
}

impl From<TopicsError> for ApplyError {
    fn from(error: TopicsError) -> Self {
        Self::Site(error.into())
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Applied {
    /// `name@version`.
    pub definition: String,
    /// Its place among all definitions.
    pub offset: i64,
    /// Whether it had been there, with the same content.
    pub was_there: bool,
    /// Whether every shard is known to have it.
    pub complete: bool,
    /// Command topics that were created or altered.
    pub topics: Vec<Change>,
    /// Partitions whose shards have not said in time that they have it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub lacking: BTreeSet<i32>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { definition, was_there, complete, .. } = self;
        let applied = if *was_there { "already applied" } else { "applied" };
        let complete = if *complete { "every shard has it" } else { "not waited for the shards" };
        write!(f, "{definition} {applied}, {complete}")
    }
}

/// Creates the command topics, writes the definition, waits for the shards; a wait of zero does not.
pub fn apply(
    site: &Site,
    definition: &Definition,
    plan: &Plan,
    topics: CommandTopics,
    wait: Duration,
) -> Result<Applied, ApplyError> {
    let partitions = site.instance()?.partitions;
    let known = placed(site, definition, plan)?;
    let topics = match topics {
        CommandTopics::LeaveAlone => Vec::new(),
        CommandTopics::Create(replication) => {
            let replication = match replication {
                Some(replication) => replication,
                None => site.replication()?,
            };
            let layout = Layout { prefix: site.prefix.clone(), partitions, replication };
            let participants: Vec<Name> = plan.participants().into_iter().cloned().collect();
            ensure_command_topics(&site.settings, &layout, &participants)?
        }
    };
    let (offset, was_there) = match known {
        Some(offset) => (offset, true),
        None => (write(site, definition)?, false),
    };
    let is_waited_for = !wait.is_zero();
    let lacking = if is_waited_for { site.wait_for_definition(offset, wait)? } else { BTreeSet::new() };
    let complete = is_waited_for && lacking.is_empty();
    Ok(Applied { definition: id_of(definition), offset, was_there, complete, topics, lacking })
}

/// Writes the definition unless it is there; returns the offset that holds.
pub fn ensure(site: &Site, definition: &Definition) -> Result<i64, ApplyError> {
    match known(site, definition)? {
        Some(offset) => Ok(offset),
        None => write(site, definition),
    }
}

fn write(site: &Site, definition: &Definition) -> Result<i64, ApplyError> {
    let record = NewRecord::plain(0, Some(id_of(definition)), definition.to_canonical_json().into_bytes());
    let written = site.write(Topic::Definitions, &[record])?;
    // Two may have applied at once: the first record holds.
    known(site, definition)?.ok_or_else(|| ApplyError::Lost { id: id_of(definition), written })
}

/// Where it stands already, or nothing if it may be written: what it names is there.
fn placed(site: &Site, definition: &Definition, plan: &Plan) -> Result<Option<i64>, ApplyError> {
    let catalogue = Catalogue::read(site)?;
    let known = same(&catalogue, definition)?;
    let problems = match known {
        Some(_) => Vec::new(),
        None => judge(plan, |id| catalogue.definition(id).cloned()),
    };
    if problems.is_empty() { Ok(known) } else { Err(ApplyError::Children(problems)) }
}

/// Where it stands already; an error if something else stands there.
fn known(site: &Site, definition: &Definition) -> Result<Option<i64>, ApplyError> {
    same(&Catalogue::read(site)?, definition)
}

fn same(catalogue: &Catalogue, definition: &Definition) -> Result<Option<i64>, ApplyError> {
    let Some(entry) = catalogue.same_id(definition) else { return Ok(None) };
    if entry.definition.to_canonical_json() == definition.to_canonical_json() {
        return Ok(Some(entry.offset));
    }
    Err(conflict(entry, definition, catalogue.entries()))
}

fn conflict<'a>(
    present: &Entry,
    definition: &Definition,
    entries: impl Iterator<Item = &'a Entry>,
) -> ApplyError {
    let same_name = entries.filter(|entry| entry.definition.name == definition.name);
    let highest = same_name.map(|entry| entry.definition.version).max().unwrap_or(definition.version);
    ApplyError::Conflict { id: present.id(), next: highest.saturating_add(1) }
}

/// `name@version`.
pub fn id_of(definition: &Definition) -> String {
    format!("{}@{}", definition.name, definition.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_says_what_to_do() {
        let definition = |version: u32, participant: &str| {
            let text = format!(
                r#"{{"name":"order","version":{version},"steps":[{{"name":"s","participant":"{participant}"}}]}}"#
            );
            Definition::from_json(&text).unwrap()
        };
        let entries = [
            Entry { offset: 0, definition: definition(1, "p") },
            Entry { offset: 1, definition: definition(4, "p") },
        ];
        let failure = conflict(&entries[0], &definition(1, "q"), entries.iter());
        assert_eq!(
            failure.to_string(),
            "order@1 has been applied with other content, and a version never changes: raise `version` to 5, or look \
             at the difference with `sagamore define diff order@1 FILE`"
        );
    }
}

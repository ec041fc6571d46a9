//! From a checked definition to one that every shard has.
//!
//! ```text
//!   command topics ──▶ read `definitions` ──▶ same: nothing to write     other: conflict
//!                          └─ none ──▶ write ──▶ read again: was somebody quicker? ──▶ wait for the shards
//! ```

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use sagamore_decider::definition::plan::Plan;
use sagamore_kafka::topics::{Change, Layout, ensure_command_topics};
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::Span;
use sagamore_schemas::topics::Topic;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::kafka::{NewRecord, Site};
use super::catalogue::{Catalogue, Entry};
use super::{id_of, participants};

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
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { definition, was_there, complete, .. } = self;
        let applied = if *was_there { "already applied" } else { "applied" };
        let complete = if *complete { "every shard has it" } else { "not waited for the shards" };
        write!(f, "{definition} {applied}, {complete}")
    }
}

/// Creates the command topics, writes the definition, waits for the shards.
pub fn apply(
    site: &Site,
    definition: &Definition,
    plan: &Plan,
    replication: Option<NonZeroU16>,
    wait: Span,
) -> Result<Applied, Failure> {
    let partitions = site.instance()?.partitions;
    let known = known(site, definition)?;
    let replication = match replication {
        Some(replication) => replication,
        None => site.replication()?,
    };
    let layout = Layout { prefix: site.prefix.clone(), partitions, replication };
    let topics = ensure_command_topics(&site.settings, &layout, &participants(plan))?;
    let (offset, was_there) = match known {
        Some(offset) => (offset, true),
        None => (write(site, definition)?, false),
    };
    let is_waited_for = wait.as_ms() > 0;
    if is_waited_for {
        wait_for_shards(site, &id_of(definition), offset, Duration::from_millis(wait.as_ms()))?;
    }
    Ok(Applied { definition: id_of(definition), offset, was_there, complete: is_waited_for, topics })
}

/// Writes the definition unless it is there; returns the offset that holds.
pub fn ensure(site: &Site, definition: &Definition) -> Result<i64, Failure> {
    match known(site, definition)? {
        Some(offset) => Ok(offset),
        None => write(site, definition),
    }
}

fn write(site: &Site, definition: &Definition) -> Result<i64, Failure> {
    let record = NewRecord {
        partition: 0,
        key: Some(id_of(definition)),
        value: definition.to_canonical_json().into_bytes(),
        is_event: false,
    };
    let written = site.write(Topic::Definitions, &[record])?;
    // Two may have applied at once: the first record holds.
    known(site, definition)?.ok_or_else(|| {
        let message = format!("{} was written at {written:?} and is not there", id_of(definition));
        Failure::new(Exit::Unexpected, message)
    })
}

/// Where it stands already; an error if something else stands there.
fn known(site: &Site, definition: &Definition) -> Result<Option<i64>, Failure> {
    let catalogue = Catalogue::read(site)?;
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
) -> Failure {
    let same_name = entries.filter(|entry| entry.definition.name == definition.name);
    let highest = same_name.map(|entry| entry.definition.version).max().unwrap_or(definition.version);
    let id = present.id();
    let message = format!(
        "{id} has been applied with other content, and a version never changes: raise `version` to {}, or look at \
         the difference with `sagamore define diff {id} FILE`",
        highest.saturating_add(1)
    );
    Failure::new(Exit::Conflict, message)
}

fn wait_for_shards(site: &Site, id: &str, offset: i64, wait: Duration) -> Result<(), Failure> {
    let lacking = site.wait_for_definition(offset, wait)?;
    if lacking.is_empty() {
        return Ok(());
    }
    let partitions: Vec<_> = lacking.iter().map(ToString::to_string).collect();
    let message = format!(
        "{id} is written and will be taken over, but the {} of partition {} {} not said so within {} s; is a server \
         running (`sagamore server --kafka {}`), or has that shard halted? Apply again to wait longer",
        if lacking.len() == 1 { "shard" } else { "shards" },
        partitions.join(", "),
        if lacking.len() == 1 { "has" } else { "have" },
        wait.as_secs_f32(),
        site.settings.bootstrap(),
    );
    Err(Failure::new(Exit::Timeout, message))
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
        assert_eq!(failure.exit, Exit::Conflict);
        assert_eq!(
            failure.message,
            "order@1 has been applied with other content, and a version never changes: raise `version` to 5, or look \
             at the difference with `sagamore define diff order@1 FILE`"
        );
    }
}

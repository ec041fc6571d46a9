//! What has just changed, for whoever listens: one for each entry of the journal, after the view has it.

use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{ChangeRef, Decision, EntryRef};
use sagamore_schemas::wire::OutcomeKind;
use serde::Serialize;

use super::life::Life;
use super::query::Filter;
use super::status::Status;

/// An input of a transaction, and where the transaction stands after it.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Which one.
    pub id: String,
    /// Which life of it.
    pub birth: String,
    /// Count of inputs applied.
    pub revision: u64,
    /// When, by the log's clock.
    pub at: Time,
    /// What kind of input.
    pub input: String,
    /// Where the transaction stands.
    pub status: &'static str,
    /// `name@version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// About which step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of which branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, for a verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Steps that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeRef<'static>>,
    /// The decision, if this input made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The outcome, if it was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeKind>,
    /// Partition and offset of the journal, and the number of the entry in its record.
    #[serde(skip)]
    pub place: (i32, i64, u32),
    /// For filters: what a list would look at.
    #[serde(skip)]
    facts: Facts,
}

#[derive(Debug, Clone)]
struct Facts {
    status: Status,
    definition: Option<(String, u32)>,
    steps: Vec<String>,
    error: Option<String>,
}

impl Change {
    /// From the entry, and the transaction as it is after it.
    pub fn new(life: &Life, entry: &EntryRef<'_>, place: (i32, i64, u32)) -> Self {
        let status = life.status();
        let own = entry.step.iter().map(|step| step.clone().into_owned());
        let changed = entry.changes.iter().map(|change| change.step.clone().into_owned());
        Self {
            id: life.id.to_string(),
            birth: life.birth.to_string(),
            revision: life.revision,
            at: entry.at,
            input: entry.input.to_string(),
            status: status.as_str(),
            definition: life.definition.as_ref().map(|(name, version)| format!("{name}@{version}")),
            step: entry.step.as_ref().map(ToString::to_string),
            branch: entry.branch.as_ref().map(ToString::to_string),
            answer: entry.answer.map(sagamore_schemas::wire::Answer::as_str),
            reason: entry.reason.as_ref().map(ToString::to_string),
            actor: entry.actor.as_ref().map(ToString::to_string),
            changes: entry.changes.iter().map(ChangeRef::to_static).collect(),
            decision: entry.decision,
            outcome: entry.outcome,
            place,
            facts: Facts {
                status,
                definition: life.definition.clone(),
                steps: own.chain(changed).collect(),
                error: life.error(),
            },
        }
    }

    /// Whether it is one of those. A step counts when the input is about it or has changed it. Age and participants are
    /// no questions of what has just changed.
    pub fn is_of(&self, filter: &Filter) -> bool {
        let Facts { status, definition, steps, error } = &self.facts;
        let is_defined = |(name, version): &(String, Option<u32>)| {
            definition
                .as_ref()
                .is_some_and(|own| own.0 == *name && version.is_none_or(|version| version == own.1))
        };
        filter.statuses.contains(status)
            && filter.definition.as_ref().is_none_or(is_defined)
            && filter.step.as_ref().is_none_or(|step| steps.contains(step))
            && filter.error.as_ref().is_none_or(|wanted| error.as_ref() == Some(wanted))
            && filter.id_prefix.as_ref().is_none_or(|prefix| self.id.starts_with(prefix))
    }
}

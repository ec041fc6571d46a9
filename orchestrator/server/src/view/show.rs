//! A transaction as the API tells it: the same names as the owner's own view, so that whoever reads one reads the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use sagamore_schemas::ids::{Span, Time};
use serde::Serialize;

use super::ViewError;
use super::life::{Attempt, BranchStory, Life, Note};
use super::store::deadline;

/// One transaction, open or ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The id.
    pub id: String,
    /// Where it stands.
    pub status: &'static str,
    /// Which life of the id; of a refused start, its place.
    pub birth: String,
    /// Count of inputs applied.
    pub revision: u64,
    /// `name@version`; unknown when the journal begins after its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// When its start was applied, by the log's clock.
    pub started: Time,
    /// When its last input was.
    pub updated: Time,
    /// When its deadline falls; until it is decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Why it turned back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose child it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of what kind its error is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its branches, in the order of the definition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ShownBranch>,
    /// What people have decided about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<ShownNote>,
}

/// One branch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownBranch {
    /// Its step.
    pub step: String,
    /// Its own name, when the step has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    /// Where it stands.
    pub phase: String,
    /// What is being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What was last said against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it stands there; none when nothing has come to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What was asked, and what came of it; of one transaction only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<ShownAttempt>,
    /// Attempts between the first and the newest that are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<u32>,
}

/// One command, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownAttempt {
    /// What was asked.
    pub operation: String,
    /// The how manieth time.
    pub attempt: u32,
    /// When.
    pub asked: Time,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// What came of it; none while nothing has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came_to: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a person has decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownNote {
    /// When.
    pub at: Time,
    /// The verb.
    pub verb: String,
    /// Who.
    pub actor: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// About which step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// What definitions say, looked up once for an answer.
#[derive(Debug)]
pub(super) struct Plans<'c> {
    connection: &'c Connection,
    known: BTreeMap<(String, u32), Arc<PlanFacts>>,
}

#[derive(Debug, Default)]
struct PlanFacts {
    deadline: Option<Span>,
    /// Step, branch, participant, in the order of the definition.
    branches: Vec<(String, Option<String>, String)>,
}

impl<'c> Plans<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, known: BTreeMap::new() }
    }

    /// The transaction; with everything that has happened, or as a list shows it.
    pub(super) fn show(&mut self, life: &Life, in_full: bool) -> Result<Shown, ViewError> {
        let facts = self.facts(life)?;
        let status = life.status();
        let is_undecided = status.is_open() && life.story.decision.is_none();
        Ok(Shown {
            id: life.id.to_string(),
            status: status.as_str(),
            birth: life.birth.to_string(),
            revision: life.revision,
            definition: life.definition.as_ref().map(|(name, version)| format!("{name}@{version}")),
            started: life.started,
            updated: life.updated,
            deadline: facts.deadline.filter(|_| is_undecided).map(|span| life.started.after(span)),
            reason: life.reason.clone(),
            parent: life.story.parent.clone(),
            error: life.error(),
            steps: steps(life, &facts, in_full),
            decisions: if in_full { life.story.notes.iter().map(note).collect() } else { Vec::new() },
        })
    }

    fn facts(&mut self, life: &Life) -> Result<Arc<PlanFacts>, ViewError> {
        let Some(definition) = &life.definition else { return Ok(Arc::default()) };
        if let Some(known) = self.known.get(definition) {
            return Ok(Arc::clone(known));
        }
        let (name, version) = definition;
        let mut statement = self.connection.prepare_cached(
            "SELECT step, branch, participant FROM definition_branches WHERE name = ?1 AND version = ?2 ORDER BY place",
        )?;
        let branches = statement.query_map((name, version), |row| {
            let branch: String = row.get(1)?;
            Ok((row.get(0)?, Some(branch).filter(|branch| !branch.is_empty()), row.get(2)?))
        })?;
        let branches = branches.collect::<Result<_, _>>()?;
        let facts = Arc::new(PlanFacts { deadline: deadline(self.connection, name, *version)?, branches });
        self.known.insert(definition.clone(), Arc::clone(&facts));
        Ok(facts)
    }
}

/// Those of the definition in its order; what has not been heard of waits. Without the definition, as they were heard of.
fn steps(life: &Life, facts: &PlanFacts, in_full: bool) -> Vec<ShownBranch> {
    if life.status() == super::status::Status::Refused {
        return Vec::new();
    }
    let heard = &life.story.branches;
    if facts.branches.is_empty() {
        return heard.iter().map(|branch| branch_of(branch, None, in_full)).collect();
    }
    let shown = facts.branches.iter().map(|(step, branch, participant)| {
        match heard.iter().find(|heard| heard.step == *step && heard.branch == *branch) {
            Some(heard) => branch_of(heard, Some(participant), in_full),
            None => ShownBranch {
                step: step.clone(),
                branch: branch.clone(),
                participant: Some(participant.clone()),
                phase: "waiting".to_owned(),
                operation: None,
                attempt: None,
                reason: None,
                since: None,
                attempts: Vec::new(),
                omitted: None,
            },
        }
    });
    shown.collect()
}

fn branch_of(branch: &BranchStory, participant: Option<&String>, in_full: bool) -> ShownBranch {
    ShownBranch {
        step: branch.step.clone(),
        branch: branch.branch.clone(),
        participant: participant.cloned(),
        phase: branch.phase.clone(),
        operation: branch.operation.clone(),
        attempt: branch.attempt,
        reason: branch.reason.clone(),
        since: Some(branch.since),
        attempts: if in_full { branch.attempts.iter().map(attempt).collect() } else { Vec::new() },
        omitted: Some(branch.omitted).filter(|omitted| in_full && *omitted > 0),
    }
}

fn attempt(attempt: &Attempt) -> ShownAttempt {
    ShownAttempt {
        operation: attempt.operation.clone(),
        attempt: attempt.number,
        asked: attempt.asked,
        took_ms: attempt.over.map(|over| over.since(attempt.asked).as_ms()),
        came_to: attempt.came_to.clone(),
        reason: attempt.reason.clone(),
    }
}

fn note(note: &Note) -> ShownNote {
    ShownNote {
        at: note.at,
        verb: note.verb.clone(),
        actor: note.actor.clone(),
        reason: note.reason.clone(),
        step: note.step.clone(),
    }
}

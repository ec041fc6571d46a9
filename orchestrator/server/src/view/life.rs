//! One transaction as the journal tells it, entry after entry. Pure.
//!
//! ```text
//! entry ─▶ of step S: what came to its attempt (ok, refused, error, timeout, undeliverable)
//!       ─▶ changes: the new phase of each branch, a new attempt with each `asked`
//!       ─▶ decision, outcome: the status
//! ```
//! An entry at or below the last one that was seen is a repeat and changes nothing: a takeover may commit a prefix
//! twice. Reasons that the fold gives in words of its own (a timeout, an input that cannot be mapped) do not stand in the
//! journal; they are said here again, in the same words where it is possible.
//!
//! Deliberately absent: payloads, which stand in the journal by hash only; the caller's own `time` of the start.

use std::borrow::Cow;

use sagamore_schemas::ids::{Birth, Time, TransactionId};
use sagamore_schemas::log::{ChangeRef, Decision, EntryRef};
use sagamore_schemas::wire::{Answer, OutcomeKind};
use serde::{Deserialize, Serialize};

use super::status::Status;

/// Attempts of a branch that are kept: the first few, and the newest.
const ATTEMPTS_KEPT: usize = 12;
/// Of which so many are the first.
const ATTEMPTS_FIRST: usize = 3;
/// What people have decided about one transaction: the newest.
const NOTES_KEPT: usize = 16;
/// Characters of an error's class: it is what groups are made of.
const CLASS_CHARS: usize = 64;

/// A transaction, open or ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Which one.
    pub birth: Birth,
    /// The caller's key.
    pub id: TransactionId,
    /// Name and version of its definition; unknown when the journal begins later.
    pub definition: Option<(String, u32)>,
    /// Count of inputs applied.
    pub revision: u64,
    /// When its start was applied, by the log's clock.
    pub started: Time,
    /// When its last input was.
    pub updated: Time,
    /// Why it turned back, or why its start was refused.
    pub reason: Option<String>,
    /// Offset and sequence of its last entry.
    pub last: (i64, u32),
    /// How it ended.
    pub end: Option<OutcomeKind>,
    /// What has happened to it.
    pub story: Story,
}

/// What has happened. It stands in the view's file with names of one letter, and times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The one decision.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Whether a person holds it, as long as there is no decision.
    #[serde(rename = "h", default, skip_serializing_if = "is_false")]
    pub is_paused: bool,
    /// Whose child it is.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of what kind the error is that turned it back.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its branches, in the order in which they were first heard of.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<BranchStory>,
    /// What people have decided.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// A branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BranchStory {
    /// Its step.
    #[serde(rename = "s")]
    pub step: String,
    /// Its own name, when the step has several.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Where it stands, one word.
    #[serde(rename = "p")]
    pub phase: String,
    /// What is being asked of it.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The latest attempt.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Since when it stands there.
    #[serde(rename = "t", with = "epoch_ms")]
    pub since: Time,
    /// What was last said against it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether that was a business no.
    #[serde(rename = "f", default, skip_serializing_if = "is_false")]
    pub was_refused: bool,
    /// What was asked.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Attempts between the first and the newest that are not kept.
    #[serde(rename = "x", default, skip_serializing_if = "is_zero")]
    pub omitted: u32,
}

/// One command, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was asked.
    #[serde(rename = "o")]
    pub operation: String,
    /// The how manieth time.
    #[serde(rename = "a")]
    pub number: u32,
    /// When.
    #[serde(rename = "t", with = "epoch_ms")]
    pub asked: Time,
    /// When it was over.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none", with = "epoch_ms_or_none")]
    pub over: Option<Time>,
    /// `ok`, `refused`, `error`, `timeout`, `undeliverable`, or `given-up` when nobody waits for it any more.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub came_to: Option<String>,
    /// Why.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a person has decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    #[serde(rename = "t", with = "epoch_ms")]
    pub at: Time,
    /// The verb.
    #[serde(rename = "v")]
    pub verb: String,
    /// Who.
    #[serde(rename = "w")]
    pub actor: String,
    /// Why.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which step it was about.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl Life {
    /// The transaction of an entry that is the first one seen of it.
    pub fn new(birth: Birth, id: TransactionId, entry: &EntryRef<'_>) -> Self {
        let definition = entry.definition.as_deref().and_then(|label| label.split_once('@'));
        let definition =
            definition.and_then(|(name, version)| Some((name.to_owned(), version.parse().ok()?)));
        Self {
            birth,
            id,
            definition,
            revision: 0,
            started: entry.at,
            updated: entry.at,
            reason: None,
            last: (-1, 0),
            end: None,
            story: Story::default(),
        }
    }

    /// Takes an entry; `false` when it had been taken before.
    pub fn apply(&mut self, entry: &EntryRef<'_>) -> bool {
        let place = (entry.offset, entry.sequence);
        if place <= self.last {
            return false;
        }
        self.last = place;
        self.updated = entry.at;
        self.revision = entry.revision.unwrap_or(self.revision);
        if let Some(actor) = &entry.actor {
            self.note(entry, actor);
        }
        match &*entry.input {
            "pause" => self.story.is_paused = true,
            "resume" => self.story.is_paused = false,
            _ => {}
        }
        if let Some(branch) = self.branch_of(entry) {
            branch.hear(entry);
        }
        for change in &entry.changes {
            self.change(entry, change);
        }
        if let Some(decision) = entry.decision {
            self.story.decision = Some(decision);
            if decision == Decision::Rollback {
                let (reason, error) = self.why_back(entry);
                (self.reason, self.story.error) = (Some(reason), Some(class_of(&error)));
            }
        }
        match entry.outcome {
            Some(OutcomeKind::Refused) => {
                let reason = entry.reason.as_deref().unwrap_or_default().to_owned();
                self.story.error = Some(class_of(&reason));
                (self.reason, self.end) = (Some(reason), Some(OutcomeKind::Refused));
            }
            Some(end @ (OutcomeKind::Committed | OutcomeKind::Compensated | OutcomeKind::Aborted)) => {
                self.end = Some(end);
            }
            Some(OutcomeKind::Stuck) | None => {}
        }
        true
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        Status::of(self.end, self.stuck().next().is_some(), self.story.decision, self.story.is_paused)
    }

    /// Of what kind its error is: of what is stuck, or of what turned it back.
    pub fn error(&self) -> Option<String> {
        let stuck = self.stuck().next().map(BranchStory::error);
        if self.status() == Status::Stuck { stuck } else { self.story.error.clone() }
    }

    /// Its branches of which something is being asked.
    pub fn open_branches(&self) -> impl Iterator<Item = &BranchStory> {
        let is_open = self.status().is_open();
        self.story.branches.iter().filter(move |branch| is_open && branch.is_called())
    }

    fn stuck(&self) -> impl Iterator<Item = &BranchStory> {
        self.story.branches.iter().filter(|branch| branch.phase == "stuck")
    }

    fn note(&mut self, entry: &EntryRef<'_>, actor: &str) {
        // What a parent says is no person's wish; that it is the parent is kept.
        if matches!(&*entry.input, "begin" | "call-off" | "forget") {
            let parent = actor.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            self.story.parent = self.story.parent.take().or(parent);
            return;
        }
        let step = entry.step.as_ref().map(|step| called(step, entry.branch.as_deref()));
        let note = Note {
            at: entry.at,
            verb: entry.input.to_string(),
            actor: actor.to_owned(),
            reason: own(entry.reason.as_ref()),
            step,
        };
        self.story.notes.push(note);
        if self.story.notes.len() > NOTES_KEPT {
            self.story.notes.remove(0);
        }
    }

    fn branch_of(&mut self, entry: &EntryRef<'_>) -> Option<&mut BranchStory> {
        let (step, branch) = (entry.step.as_ref()?, entry.branch.as_ref());
        self.story
            .branches
            .iter_mut()
            .find(|known| known.step == *step && known.branch.as_deref() == branch.map(|branch| &**branch))
    }

    fn change(&mut self, entry: &EntryRef<'_>, change: &ChangeRef<'_>) {
        let name = change.branch.as_deref();
        let known = self
            .story
            .branches
            .iter()
            .position(|known| known.step == change.step && known.branch.as_deref() == name);
        let place = known.unwrap_or_else(|| {
            self.story.branches.push(BranchStory::new(change, entry.at));
            self.story.branches.len() - 1
        });
        let is_own = entry.step.as_ref() == Some(&change.step) && entry.branch == change.branch;
        self.story.branches[place].enter(&change.phase, entry, is_own);
    }

    /// Why it turned back, and the part of it that says of what kind the error is.
    fn why_back(&self, entry: &EntryRef<'_>) -> (String, String) {
        let own = entry.step.as_ref().map(|step| (step, entry.branch.as_ref()));
        // A step that was to come next, and could not be asked.
        let unasked = entry
            .changes
            .iter()
            .find(|change| change.phase == "refused" && own != Some((&change.step, change.branch.as_ref())));
        if let Some(change) = unasked {
            let name = called(&change.step, change.branch.as_deref());
            return (format!("{name}: {UNMAPPED}"), UNMAPPED.to_owned());
        }
        let said = entry.reason.as_deref();
        let Some((step, branch)) = own else {
            let why = match &*entry.input {
                "timer" => "deadline".to_owned(),
                "cancel" => format!("cancelled: {}", said.unwrap_or_default()),
                "call-off" => "cancelled: its parent turned back".to_owned(),
                input => said.unwrap_or(input).to_owned(),
            };
            return (why.clone(), why);
        };
        let name = called(step, branch.map(|branch| &**branch));
        let known = self.story.branches.iter().find(|known| known.called() == name);
        let tried = known.and_then(|known| known.attempts.last()).map_or(1, |last| last.number);
        let silent =
            |last: &str| (format!("{name}: no answer after {tried} attempts, last: {last}"), last.to_owned());
        match (entry.answer, &*entry.input) {
            (Some(Answer::Refused), _) => {
                let said = said.unwrap_or("refused");
                (format!("{name}: {said}"), said.to_owned())
            }
            (Some(Answer::Error | Answer::Pending), _) => silent(said.unwrap_or("error")),
            (Some(Answer::Ok), _) => (format!("{name}: {TOO_LARGE}"), TOO_LARGE.to_owned()),
            (None, "timer") => silent("timeout"),
            (None, _) => silent(said.unwrap_or("undeliverable")),
        }
    }
}

/// In place of the fold's own words, which the journal has not.
const UNMAPPED: &str = "its input cannot be mapped";
/// As the fold says it.
const TOO_LARGE: &str = "the result does not fit in the transaction";

impl BranchStory {
    fn new(change: &ChangeRef<'_>, at: Time) -> Self {
        Self {
            step: change.step.to_string(),
            branch: own(change.branch.as_ref()),
            phase: String::new(),
            operation: None,
            attempt: None,
            since: at,
            reason: None,
            was_refused: false,
            attempts: Vec::new(),
            omitted: 0,
        }
    }

    /// The step, and in a group the branch.
    pub fn called(&self) -> String {
        called(&self.step, self.branch.as_deref())
    }

    /// Of what kind its error is.
    pub fn error(&self) -> String {
        class_of(self.reason.as_deref().unwrap_or("no answer"))
    }

    /// Whether something is being asked of it, or would be if it were not stuck.
    fn is_called(&self) -> bool {
        matches!(self.phase.as_str(), "asked" | "pausing" | "stuck")
    }

    /// An input about it.
    fn hear(&mut self, entry: &EntryRef<'_>) {
        let is_asked = self.phase == "asked";
        let (came_to, reason) = match (entry.answer, &*entry.input) {
            (Some(Answer::Pending), _) | (_, "resolve") => return,
            (Some(answer), _) => (answer.as_str(), own(entry.reason.as_ref())),
            (None, "timer") if is_asked => ("timeout", None),
            (None, "undeliverable") => ("undeliverable", own(entry.reason.as_ref())),
            (None, _) => return,
        };
        let open = self.attempts.iter_mut().rev().find(|attempt| attempt.over.is_none());
        if let Some(open) = open {
            (open.over, open.came_to, open.reason) = (Some(entry.at), Some(came_to.to_owned()), reason);
        }
    }

    fn enter(&mut self, phase: &str, entry: &EntryRef<'_>, is_own: bool) {
        let mut words = phase.split(' ');
        let word = words.next().unwrap_or_default();
        let operation = words.next().map(str::to_owned);
        let attempt = words.next().and_then(|number| number.parse().ok());
        if (word, &operation, attempt) != (self.phase.as_str(), &self.operation, self.attempt) {
            self.since = entry.at;
        }
        word.clone_into(&mut self.phase);
        (self.operation, self.attempt) = (operation, attempt);
        match word {
            "asked" => self.ask(entry.at),
            "pausing" | "stuck" | "refused" | "unknown" => self.object(word, entry, is_own),
            _ => self.close(entry.at),
        }
    }

    fn ask(&mut self, at: Time) {
        let (Some(operation), Some(attempt)) = (self.operation.clone(), self.attempt) else { return };
        let last = self.attempts.last();
        // `pending`: the same attempt has more time.
        if last.is_some_and(|last| {
            last.over.is_none() && (&last.operation, last.number) == (&operation, attempt)
        }) {
            return;
        }
        self.close(at);
        self.attempts.push(Attempt {
            operation,
            number: attempt,
            asked: at,
            over: None,
            came_to: None,
            reason: None,
        });
        if self.attempts.len() > ATTEMPTS_KEPT {
            self.attempts.remove(ATTEMPTS_FIRST);
            self.omitted += 1;
        }
    }

    /// What is said against it.
    fn object(&mut self, word: &str, entry: &EntryRef<'_>, is_own: bool) {
        self.close(entry.at);
        let said = entry.reason.as_deref();
        let (reason, was_refused) = match (entry.answer, &*entry.input) {
            (Some(Answer::Refused), _) if is_own => (Some(said.unwrap_or("refused")), true),
            (Some(Answer::Ok), _) if is_own => (Some(TOO_LARGE), false),
            (Some(Answer::Error | Answer::Pending), _) if is_own => (Some(said.unwrap_or("error")), false),
            (None, "timer") if is_own => (Some("timeout"), false),
            (None, "undeliverable") if is_own => (Some(said.unwrap_or("undeliverable")), false),
            // Nobody was asked: the text of what is wrong is the fold's, and not in the journal.
            _ if matches!(word, "stuck" | "refused") => (Some(UNMAPPED), false),
            _ => return,
        };
        (self.reason, self.was_refused) = (reason.map(str::to_owned), was_refused);
    }

    /// Nobody waits for what is out.
    fn close(&mut self, at: Time) {
        if let Some(open) = self.attempts.last_mut().filter(|attempt| attempt.over.is_none()) {
            (open.over, open.came_to) = (Some(at), Some("given-up".to_owned()));
        }
    }
}

fn own(text: Option<&Cow<'_, str>>) -> Option<String> {
    text.map(ToString::to_string)
}

fn called(step: &str, branch: Option<&str>) -> String {
    branch.map_or_else(|| step.to_owned(), |branch| format!("{step}/{branch}"))
}

/// The first words of a reason are what it is; what follows a colon is whom it is about.
pub fn class_of(reason: &str) -> String {
    reason.split(':').next().unwrap_or_default().trim().chars().take(CLASS_CHARS).collect()
}

/// A time as a number: half as long as its text.
mod epoch_ms {
    use super::{Deserialize, Time};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: serde::Serializer>(time: &Time, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(time.epoch_ms())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        i64::deserialize(from).map(Time::from_epoch_ms)
    }
}

mod epoch_ms_or_none {
    use super::{Deserialize, Serialize, Time};

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: serde::Serializer>(time: &Option<Time>, to: S) -> Result<S::Ok, S::Error> {
        time.map(Time::epoch_ms).serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
        Option::<i64>::deserialize(from).map(|ms| ms.map(Time::from_epoch_ms))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

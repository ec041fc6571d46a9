//! The home of a child: what becomes of what its parent says.
//!
//! | the child is | begin | call off | forget |
//! |---|---|---|---|
//! | another's home, or another instance's | dead letter | dead letter | dead letter |
//! | open | `pending` | turned back if there is a way back; `pending` until it ends | |
//! | ended, not forgotten | its end again | its end again | remembered like any ended transaction |
//! | a transaction that is not this parent's, open or remembered with other input | `refused`: conflict | `ok`: no child began, nor will | |
//! | remembered: committed | | | |
//! | remembered: undone, or never to begin | | `ok` | |
//! | unknown | the rules of a start; see below | never to begin, `ok` | |
//!
//! The rules of a start, told as a reply: too-old, too-early, unknown-definition and overloaded are `error`, for the next
//! attempt may find it otherwise (each generation of children has as
//! much room again as starts have); too-large and missing-input are `refused`, and the child is never to begin.
//!
//! "Its end" is a reply to the parent's branch: `ok` with the outcome's data when the child has committed, else `refused`.
//! An ended child stays as it is, and counts as open, until its parent has heard of it: so no answer is lost, and none
//! is given from a memory that has begun to forget. "Never to begin" is remembered like an ended transaction: a begin
//! that comes later was issued earlier, and is too old when that memory ends.

use std::borrow::Cow;

use sagamore_schemas::ids::Span;
use sagamore_schemas::log::{Digest256, JournalEntry};
use sagamore_schemas::wire::{Address, Answer, ChildRequest, ChildWish, OutcomeKind, PayloadRef, Reply};

use crate::definition::check::NESTING_MAX;
use crate::finished::{Ending, seconds};
use crate::outcome::results;
use crate::output::{Destination, Notice, Output, Record};
use crate::planted::{self, Defect};
use crate::protocol::decision;
use crate::shard::{Shard, fingerprint_of};
use crate::start::{Newborn, Refusal};
use crate::transaction::{Parent, Phase, Transaction};
use crate::turn::Heeded;

/// What stands for the hash of the input of a child that is never to begin.
const NEVER_BEGUN: u64 = 0;
/// Why a child is not begun under an id that somebody else has used.
const REASON_TAKEN: &str = "conflict: the child's id is taken by another transaction";
/// `source` of what one shard says to another.
const COORDINATOR: &str = "/sagamore";

impl Shard {
    pub(crate) fn on_child(
        &mut self,
        mut entry: JournalEntry,
        record: &Record<'_>,
        said: &ChildRequest<'_>,
        outputs: &mut Vec<Output>,
    ) -> Notice {
        if said.instance != self.identity.instance {
            return self.set_aside(record, "a child of another instance", outputs);
        }
        if !self.is_home(&said.subject) {
            return self.set_aside(record, "another inbox partition is this child's home", outputs);
        }
        let parent = &said.parent;
        entry.actor = Some(format!("{}/{}", parent.subject, parent.step));
        let open = self.births.get(&said.subject).copied();
        match (open.and_then(|offset| self.open.get(&offset)), open) {
            (Some(child), Some(birth_offset)) => {
                let is_ours = child.parent.as_ref().is_some_and(|known| known.is(parent));
                let (phase, birth) = (child.phase, child.birth);
                match (said.wish, phase) {
                    (ChildWish::Begin, _) if !is_ours => {
                        self.answer(parent, Answer::Refused, Some(REASON_TAKEN), PayloadRef::Absent, outputs);
                    }
                    (ChildWish::CallOff, _) if !is_ours => {
                        self.answer(parent, Answer::Ok, None, PayloadRef::Absent, outputs);
                    }
                    (ChildWish::Forget, _) if !is_ours => {}
                    (ChildWish::Forget, Phase::Ended(outcome)) => {
                        entry.transaction = Some(said.subject.clone());
                        entry.birth = Some(birth);
                        self.journal.append(entry);
                        self.bury(birth_offset, outcome);
                    }
                    (ChildWish::Forget, _) => {}
                    (ChildWish::Begin | ChildWish::CallOff, Phase::Ended(outcome)) => {
                        self.tell_parent(child, outcome, outputs);
                    }
                    (ChildWish::CallOff, _) => self.call_off(birth_offset, entry, parent, outputs),
                    (ChildWish::Begin, _) => {
                        self.answer(parent, Answer::Pending, None, PayloadRef::Absent, outputs);
                    }
                }
            }
            _ => self.on_child_not_open(entry, said, outputs),
        }
        Notice::None
    }

    fn on_child_not_open(
        &mut self,
        mut entry: JournalEntry,
        said: &ChildRequest<'_>,
        outputs: &mut Vec<Output>,
    ) {
        let parent = &said.parent;
        let again = said.wish == ChildWish::Begin && planted::is(Defect::ChildBegunAgain);
        let known = self.finished.get(&said.subject).filter(|_| !again);
        let remembered = known.map(|ending| ending.outcome);
        let asked = || fingerprint_of(said.definition.name.as_str(), Digest256(said.data.sha256()));
        let is_ours = |ending: &Ending| ending.fingerprint == NEVER_BEGUN || ending.fingerprint == asked();
        match (said.wish, remembered) {
            (ChildWish::Begin, Some(_)) if !known.is_some_and(is_ours) => {
                self.answer(parent, Answer::Refused, Some(REASON_TAKEN), PayloadRef::Absent, outputs);
            }
            (ChildWish::Forget, _)
            | (ChildWish::Begin, Some(_))
            | (ChildWish::CallOff, Some(OutcomeKind::Committed)) => {}
            (ChildWish::CallOff, known) => {
                if known.is_none() && !planted::is(Defect::CallOffForgotten) {
                    entry.transaction = Some(said.subject.clone());
                    entry.outcome = Some(OutcomeKind::Aborted);
                    self.never_begin(entry, said);
                }
                self.answer(parent, Answer::Ok, None, PayloadRef::Absent, outputs);
            }
            (ChildWish::Begin, None) => match self.place_for_child(said) {
                Ok(newborn) => {
                    let child = self.born(entry.offset, newborn);
                    self.open_transaction(entry, child, outputs);
                }
                Err(refusal) => {
                    let reason = refusal.to_string();
                    let answer = if refusal.is_lasting() { Answer::Refused } else { Answer::Error };
                    if refusal.is_lasting() {
                        entry.transaction = Some(said.subject.clone());
                        entry.definition = Some(said.definition.to_string());
                        entry.reason = Some(reason.clone());
                        entry.outcome = Some(OutcomeKind::Refused);
                        self.never_begin(entry, said);
                    }
                    self.answer(parent, answer, Some(&reason), PayloadRef::Absent, outputs);
                }
            },
        }
    }

    fn place_for_child<'a>(&self, said: &'a ChildRequest<'a>) -> Result<Newborn<'a>, Refusal> {
        self.is_timely(said.issued)
            .or_else(|old| if planted::is(Defect::OldChildBegins) { Ok(()) } else { Err(old) })?;
        // Each generation has room that the one above it cannot take: the youngest never waits for those that wait for it.
        let depth = said.depth.min(NESTING_MAX);
        let definition = self.place_for(&said.definition.clone().into(), &said.data, u64::from(depth) + 1)?;
        let parent = Parent::at(&said.parent, depth);
        Ok(Newborn {
            id: said.subject.clone(),
            time: said.issued,
            definition,
            parent: Some(Box::new(parent)),
            traceparent: said.traceparent.as_deref(),
            data: &said.data,
        })
    }

    fn call_off(
        &mut self,
        birth_offset: i64,
        entry: JournalEntry,
        parent: &Address<'_>,
        outputs: &mut Vec<Output>,
    ) {
        self.turn(birth_offset, entry, outputs, |turn, transaction| {
            match decision::on_cancel(turn, transaction, "its parent turned back") {
                Ok(()) => Heeded::Yes,
                Err(_) => Heeded::No,
            }
        });
        let has_ended =
            self.open.get(&birth_offset).is_none_or(|child| matches!(child.phase, Phase::Ended(_)));
        if !has_ended {
            self.answer(parent, Answer::Pending, None, PayloadRef::Absent, outputs);
        }
    }

    fn never_begin(&mut self, entry: JournalEntry, said: &ChildRequest<'_>) {
        let ending = Ending {
            birth_offset: entry.offset,
            fingerprint: NEVER_BEGUN,
            version: said.definition.version,
            outcome: OutcomeKind::Aborted,
            revision: 0,
            since_s: seconds(self.clock.max(said.issued).after(Span::from_ms(999))),
        };
        self.finished.insert(&said.subject, ending);
        self.journal.append(entry);
    }

    /// Tells the parent of a child how it has ended.
    pub(crate) fn tell_parent(&self, child: &Transaction, outcome: OutcomeKind, outputs: &mut Vec<Output>) {
        let Some(parent) = &child.parent else { return };
        let address = parent.address();
        if outcome == OutcomeKind::Committed {
            let data = results(child, &self.definitions.plan(&child.definition));
            self.answer(&address, Answer::Ok, None, data.as_ref(), outputs);
        } else {
            let reason = reason_of(child, outcome);
            self.answer(&address, Answer::Refused, Some(&reason), PayloadRef::Absent, outputs);
        }
    }

    fn answer(
        &self,
        parent: &Address<'_>,
        outcome: Answer,
        reason: Option<&str>,
        data: PayloadRef<'_>,
        outputs: &mut Vec<Output>,
    ) {
        let token =
            if self.settings.reply_token.is_some() { self.identity.reply_token(parent) } else { None };
        let reply = Reply {
            address: parent.clone(),
            instance: self.identity.instance,
            source: Cow::Borrowed(COORDINATOR),
            outcome,
            reason: reason.map(Cow::Borrowed),
            replytoken: token.map(Cow::Owned),
            data,
        };
        outputs.push(Output {
            destination: Destination::Inbox(parent.birth.partition),
            key: Some(parent.subject.as_str().as_bytes().to_vec()),
            value: Some(reply.to_json()),
            headers: Vec::new(),
        });
    }
}

fn reason_of(child: &Transaction, outcome: OutcomeKind) -> String {
    let reason = child.reason.as_deref().unwrap_or_default();
    format!("{} {outcome}: {reason}", child.id)
}

//! What if: recorded transactions, played again under another definition.
//!
//! ```text
//!  inbox k ──▶ the fold, as it was ──▶ Recorder: start, each answer with its delay, verbs
//!                                          │ when it has ended
//!                                          ▼
//!              a fold of its own ◀── Player: the same start, the same answers, under the other definition
//! ```
//! An answer belongs to (step, branch, operation, attempt): what a participant said then, it says again after the same
//! delay. Attempts beyond the last that was recorded are answered like that one; `prepare` like a recorded `execute`, and
//! the other way round. What was never asked then is assumed to go well, and counted: a verdict with assumptions is only as
//! good as they are. Starts that were refused, children and what is still open are left out.

mod play;
mod record;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sagamore_decider::definition::plan::Plan;
use sagamore_decider::identity::ReplySecret;
use sagamore_decider::output::{Output, Record};
use sagamore_schemas::wire::{DefinitionRef, OutcomeKind};
use serde::Serialize;

use super::Span;
use super::fold::{AuditError, Folder, Progress};
use super::replay::{ReplayError, Wanted};
use super::topics::{Stretch, in_parallel};
use crate::site::Site;
use play::{Played, Player};
use record::{Recorded, Recorder};

/// Transactions that are told one by one; the others are counted.
const TOLD_MAX: usize = 100;

/// Which transactions are played again, and how.
#[derive(Debug)]
pub struct Supposition {
    /// The other definition, as canonical JSON.
    pub definition: String,
    /// As a plan.
    pub plan: Plan,
    /// Those of this definition; with a version, of that one.
    pub instead_of: DefinitionRef,
    /// Those that were started then.
    pub span: Span,
}

/// What would have been.
#[derive(Debug, Default, Serialize)]
pub struct WhatIf {
    /// Transactions that had ended, or were stuck, and were played again.
    pub played: u64,
    /// Those that would have ended the same.
    pub same: u64,
    /// Those that would have ended otherwise.
    pub different: u64,
    /// Those of the different and the same for which something had to be assumed.
    pub with_assumptions: u64,
    /// Those that are still open, and were not played.
    pub open: u64,
    /// How many would have changed, from what to what.
    pub changes: Vec<Change>,
    /// What was assumed to go well, and how often.
    pub assumed: BTreeMap<String, u64>,
    /// The first of those that are different.
    pub transactions: Vec<Changed>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A kind of change.
#[derive(Debug, Serialize)]
pub struct Change {
    /// How they ended.
    pub was: OutcomeKind,
    /// How they would have ended.
    pub would_be: OutcomeKind,
    /// How many.
    pub count: u64,
}

/// A transaction that would have ended otherwise.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// Its id.
    pub id: String,
    /// Which life of it.
    pub birth: String,
    /// How it ended.
    pub was: OutcomeKind,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How it would have ended.
    pub would_be: OutcomeKind,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_be_reason: Option<String>,
    /// Whether something had to be assumed.
    pub with_assumptions: bool,
}

/// Plays all of them again.
pub fn what_if(
    site: &Site,
    secret: Option<&ReplySecret>,
    supposition: &Supposition,
    threads: usize,
    progress: Progress<'_>,
) -> Result<WhatIf, AuditError> {
    let begun = Instant::now();
    let folder = Folder::new(site, secret, progress)?;
    let inbox = folder.inbox()?;
    let total = inbox.iter().map(Stretch::span).sum();
    let result = Mutex::new((WhatIf::default(), BTreeMap::new()));
    in_parallel(&inbox, threads, |stretch| {
        let stage = Player::new(&supposition.definition, &supposition.plan);
        let mut recorder = Recorder::new(supposition.instead_of.clone(), supposition.span);
        let mut play = |recorded: Recorded| {
            let played = stage.play(&recorded);
            let (what_if, changes) = &mut *result.lock().unwrap_or_else(PoisonError::into_inner);
            what_if.add(recorded, played, changes);
        };
        let mut see =
            |record: &Record<'_>, outputs: &[Output]| recorder.see(record, outputs).for_each(&mut play);
        let fold = folder.fold_once(stretch, None, BTreeMap::new(), Wanted::default(), total, &mut see);
        match fold {
            // What was recorded up to there stands; a fold that has stopped tells no more.
            Ok(_) | Err(AuditError::Replay(ReplayError::Panic { .. } | ReplayError::Level { .. })) => {}
            Err(error) => return Err(error),
        }
        let open = recorder.finish().filter_map(|recorded| {
            let is_stuck = recorded.outcome.is_some();
            if is_stuck {
                play(recorded);
            }
            (!is_stuck).then_some(())
        });
        let open = open.count();
        let (what_if, _) = &mut *result.lock().unwrap_or_else(PoisonError::into_inner);
        what_if.open += open as u64;
        Ok(())
    })?;
    let (mut what_if, changes) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
    let change = |((was, would_be), count)| Change { was, would_be, count };
    what_if.changes = changes.into_iter().map(change).collect();
    what_if.transactions.sort_by(|a, b| (&a.id, &a.birth).cmp(&(&b.id, &b.birth)));
    what_if.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(what_if)
}

type Changes = BTreeMap<(OutcomeKind, OutcomeKind), u64>;

impl WhatIf {
    fn add(&mut self, recorded: Recorded, played: Played, changes: &mut Changes) {
        let Some((was, reason)) = recorded.outcome else { return };
        let Played { outcome: would_be, reason: would_be_reason, assumed } = played;
        self.played += 1;
        let with_assumptions = !assumed.is_empty();
        self.with_assumptions += u64::from(with_assumptions);
        for what in assumed {
            *self.assumed.entry(what).or_default() += 1;
        }
        if was == would_be {
            self.same += 1;
            return;
        }
        self.different += 1;
        *changes.entry((was, would_be)).or_default() += 1;
        if self.transactions.len() < TOLD_MAX {
            let (id, birth) = (recorded.id.to_string(), recorded.birth);
            self.transactions.push(Changed {
                id,
                birth,
                was,
                reason,
                would_be,
                would_be_reason,
                with_assumptions,
            });
        }
    }
}

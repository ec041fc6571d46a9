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
use std::time::Instant;

use sagamore_decider::definition::plan::Plan;
use sagamore_decider::output::{Output, Record};
use sagamore_schemas::wire::{DefinitionRef, OutcomeKind};
use serde::Serialize;

use super::Span;
use super::fold::{Attempted, AuditError, Began, Begin, Folder, Folding};
use super::replay::Wanted;
use super::topics::{Stretch, in_parallel};
use crate::site::Site;
use crate::snapshots::Found;
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
    /// Where the folds began: what was started before was not played.
    pub began: Vec<Began>,
    /// Folds that have stopped, and why: what comes behind was not played.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<String>,
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
pub fn what_if(site: &Site, supposition: &Supposition, how: Folding<'_>) -> Result<WhatIf, AuditError> {
    let begun = Instant::now();
    let folder = Folder::new(site, how)?;
    let inbox = folder.inbox()?;
    let total = inbox.iter().map(Stretch::span).sum();
    let from = supposition.span.from;
    let is_before = |found: &Found| from.is_some_and(|from| found.part.clock <= from);
    let first = if from.is_some() { Begin::Late(&is_before) } else { Begin::Whole };
    let parts = in_parallel(&inbox, how.threads, |stretch| {
        let origin = folder.origin(stretch, &first)?;
        let attempted = folder.over_skips(&origin, |origin, skips| {
            let stage = Player::new(&supposition.definition, &supposition.plan);
            let mut recorder = Recorder::new(supposition.instead_of.clone(), supposition.span);
            let mut part = Part::default();
            let mut see = |record: &Record<'_>, outputs: &[Output]| {
                recorder.see(record, outputs).for_each(|recorded| part.play(&stage, recorded));
            };
            folder.fold_once(origin, None, skips.clone(), Wanted::default(), total, &mut see)?;
            recorder.finish().for_each(|recorded| part.play(&stage, recorded));
            Ok(part)
        })?;
        Ok::<_, AuditError>((origin.began(), attempted))
    })?;
    let mut all = Part::default();
    for (began, Attempted { made, stopped, .. }) in parts {
        all.merge(made);
        all.what_if.began.push(began);
        all.what_if.stopped.extend(stopped);
    }
    let Part { mut what_if, changes } = all;
    let change = |((was, would_be), count)| Change { was, would_be, count };
    what_if.changes = changes.into_iter().map(change).collect();
    what_if.began.sort_by_key(|began| began.partition);
    what_if.transactions.sort_by(|a, b| (&a.id, &a.birth).cmp(&(&b.id, &b.birth)));
    what_if.transactions.truncate(TOLD_MAX);
    what_if.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(what_if)
}

/// What came of one shard's transactions.
#[derive(Default)]
struct Part {
    what_if: WhatIf,
    changes: BTreeMap<(OutcomeKind, OutcomeKind), u64>,
}

impl Part {
    fn merge(&mut self, other: Self) {
        let Self { what_if, changes } = other;
        self.what_if.played += what_if.played;
        self.what_if.same += what_if.same;
        self.what_if.different += what_if.different;
        self.what_if.with_assumptions += what_if.with_assumptions;
        self.what_if.open += what_if.open;
        self.what_if.transactions.extend(what_if.transactions);
        for (what, count) in what_if.assumed {
            *self.what_if.assumed.entry(what).or_default() += count;
        }
        for (change, count) in changes {
            *self.changes.entry(change).or_default() += count;
        }
    }

    /// One more, unless it is still open.
    fn play(&mut self, stage: &Player<'_>, recorded: Recorded) {
        let Self { what_if, changes } = self;
        let Some((was, reason)) = recorded.outcome.clone() else {
            what_if.open += 1;
            return;
        };
        let Played { outcome: would_be, reason: would_be_reason, assumed } = stage.play(&recorded);
        what_if.played += 1;
        let with_assumptions = !assumed.is_empty();
        what_if.with_assumptions += u64::from(with_assumptions);
        for what in assumed {
            *what_if.assumed.entry(what).or_default() += 1;
        }
        if was == would_be {
            what_if.same += 1;
            return;
        }
        what_if.different += 1;
        *changes.entry((was, would_be)).or_default() += 1;
        if what_if.transactions.len() < TOLD_MAX {
            let (id, birth) = (recorded.id.to_string(), recorded.birth);
            what_if.transactions.push(Changed {
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

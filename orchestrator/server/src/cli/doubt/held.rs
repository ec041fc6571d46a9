//! `in-doubt` and `heuristics`: what is held, and what was decided by hand.

use std::time::Duration;

use clap::Args;
use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::Vote;
use sagamore_participant::heuristic::{ByHand, Heuristic, Standing};
use sagamore_participant::store::Store;
use sagamore_participant_postgres::{Hold, Locks};
use sagamore_schemas::ids::{Span, Time};
use serde::Serialize;

use super::{Opened, PORTION, StoreArgs, failure, in_words};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::{self, Printer};
use crate::clock;

/// Votes in rows that are shown; a participant with more has another problem.
const SHOWN: usize = 10_000;

/// Where, and how long is too long.
#[derive(Debug, Args)]
pub struct InDoubtArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// End with exit code 10 when something has been held for longer.
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
}

/// Where, and which.
#[derive(Debug, Args)]
pub struct HeuristicsArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only those against which the coordinator has decided, and that nobody has repaired.
    #[arg(long)]
    mixed: bool,
}

#[derive(Debug, Serialize)]
struct HeldLine {
    transaction: Option<String>,
    birth: Option<String>,
    step: Option<String>,
    branch: Option<String>,
    definition: Option<String>,
    instance: Option<String>,
    #[serde(skip)]
    age: Duration,
    age_seconds: u64,
    /// `rows` of the business, or a `prepared` transaction.
    held: &'static str,
    gid: Option<String>,
    owner: Option<String>,
    locks: u64,
    relations: Vec<String>,
    waiters: Vec<Waits>,
}

#[derive(Debug, Serialize)]
struct Waits {
    pid: i32,
    user: String,
    application: String,
    age_seconds: u64,
}

/// `participant in-doubt`.
pub(super) fn in_doubt(args: &InDoubtArgs, printer: Printer) -> Outcome {
    let holds = match args.store.opened()? {
        Opened::Postgres(store) => store.held(SHOWN + 1).map_err(|fault| failure(&fault))?,
        Opened::Sqlite(store) => {
            let mut session = store.session().map_err(|fault| failure(&fault))?;
            let found = store.in_doubt(&mut session, None, SHOWN + 1).map_err(|fault| failure(&fault))?;
            let hold = |one: sagamore_participant::doubt::InDoubt| Hold {
                branch: Some(one.branch),
                vote: Some(one.vote),
                locks: None,
            };
            found.into_iter().map(hold).collect()
        }
    };
    if holds.len() > SHOWN {
        eprintln!("(more than {SHOWN} branches: not all are shown)");
    }
    let now = clock::now();
    let mut held: Vec<HeldLine> = holds.into_iter().map(|hold| shown(hold, now)).collect();
    held.sort_by_key(|one| std::cmp::Reverse(one.age));
    printer.list(&held, || table(&held))?;
    let is_old =
        |one: &HeldLine| args.older_than.is_some_and(|limit| one.age > Duration::from_millis(limit.as_ms()));
    Ok(if held.iter().any(is_old) { Exit::CheckNegative } else { Exit::Done })
}

fn shown(Hold { branch, vote, locks }: Hold, now: Time) -> HeldLine {
    let prepare = vote.as_ref().and_then(|vote: &Vote| vote.prepare().ok());
    let since_vote = prepare.as_ref().map(|prepare| Duration::from_millis(now.since(prepare.issued).as_ms()));
    let age = locks.as_ref().map(|locks| locks.age).max(since_vote).unwrap_or_default();
    let definition = prepare.map(|prepare| prepare.definition.into_owned());
    let is_prepared = locks.is_some();
    let name = |part: fn(&Branch) -> String| branch.as_ref().map(part);
    let (transaction, birth) = (name(|of| of.subject.to_string()), name(|of| of.birth.to_string()));
    let (step, instance) = (name(|of| of.step.to_string()), name(|of| of.instance.to_string()));
    let branch = name(|of| of.branch.to_string());
    let (gid, owner, count, relations, waiters) = match locks {
        Some(Locks { gid, owner, count, relations, waiters, age: _ }) => {
            (Some(gid), Some(owner), count, relations, waiters)
        }
        None => (None, None, 0, Vec::new(), Vec::new()),
    };
    HeldLine {
        transaction,
        birth,
        step,
        branch,
        definition,
        instance,
        age,
        age_seconds: age.as_secs(),
        held: if is_prepared { "prepared" } else { "rows" },
        gid,
        owner,
        locks: count,
        relations,
        waiters: waiters
            .into_iter()
            .map(|waiter| Waits {
                pid: waiter.pid,
                user: waiter.user,
                application: waiter.application,
                age_seconds: waiter.age.as_secs(),
            })
            .collect(),
    }
}

fn table(held: &[HeldLine]) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "?".to_owned());
    output::table(
        [
            "transaction",
            "birth",
            "step",
            "branch",
            "definition",
            "age",
            "held",
            "owner",
            "locks",
            "tables",
            "waits",
        ],
        held.iter().map(|one| {
            let waits = one.waiters.iter().map(|waiter| waiter.pid.to_string()).collect::<Vec<_>>().join(",");
            let held = match &one.gid {
                Some(gid) => format!("prepared {gid}"),
                None => one.held.to_owned(),
            };
            [
                text(&one.transaction),
                text(&one.birth),
                text(&one.step),
                text(&one.branch),
                text(&one.definition),
                in_words(one.age),
                held,
                one.owner.clone().unwrap_or_default(),
                one.locks.to_string(),
                one.relations.join(","),
                waits,
            ]
        }),
    )
}

#[derive(Debug, Serialize)]
struct DecisionLine {
    transaction: String,
    birth: String,
    step: String,
    branch: String,
    decision: &'static str,
    standing: Standing,
    decided: ByHand,
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<ByHand>,
}

/// `participant heuristics`.
pub(super) fn heuristics(args: &HeuristicsArgs, printer: Printer) -> Outcome {
    let found = match args.store.opened()? {
        Opened::Postgres(store) => all(&store),
        Opened::Sqlite(store) => all(&store),
    }?;
    let mut decisions: Vec<DecisionLine> = found.into_iter().map(decision).collect();
    decisions.retain(|one| !args.mixed || one.standing == Standing::Mixed);
    printer.list(&decisions, || {
        output::table(
            ["transaction", "birth", "step", "branch", "decision", "standing", "actor", "time", "reason"],
            decisions.iter().map(|one| {
                let ByHand { actor, reason, time } = one.repaired.as_ref().unwrap_or(&one.decided);
                [
                    one.transaction.clone(),
                    one.birth.clone(),
                    one.step.clone(),
                    one.branch.clone(),
                    one.decision.to_owned(),
                    one.standing.as_str().to_owned(),
                    actor.to_string(),
                    time.to_string(),
                    reason.to_string(),
                ]
            }),
        )
    })?;
    let is_mixed = decisions.iter().any(|one| one.standing == Standing::Mixed);
    Ok(if is_mixed { Exit::CheckNegative } else { Exit::Done })
}

fn decision((branch, kept): (Branch, Heuristic)) -> DecisionLine {
    let Branch { instance: _, subject, birth, step, branch } = branch;
    DecisionLine {
        transaction: subject.to_string(),
        birth: birth.to_string(),
        step: step.into(),
        branch: branch.into(),
        decision: kept.operation.as_str(),
        standing: kept.standing,
        decided: kept.decided,
        repaired: kept.repaired,
    }
}

/// Every decision by hand: as many as operators have made.
pub(super) fn all<S: Store>(store: &S) -> Result<Vec<(Branch, Heuristic)>, Failure> {
    let mut session = store.session().map_err(|fault| failure(&fault))?;
    let mut all: Vec<(Branch, Heuristic)> = Vec::new();
    loop {
        let after = all.last().map(|(branch, _)| branch);
        let portion = store.heuristics(&mut session, after, PORTION).map_err(|fault| failure(&fault))?;
        let is_end = portion.len() < PORTION;
        all.extend(portion);
        if is_end {
            return Ok(all);
        }
    }
}

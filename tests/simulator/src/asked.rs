//! What the witness knows of a transaction from what it asked of its branches, and what it may ask of them.
//!
//! The same holds of every generated life of a shard in the decider's own `tests/fold/properties.rs`.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_decider::definition::plan::PlanStep;
use sagamore_decider::invariants::{self as inv, Invariant};
use sagamore_decider::transaction::{BranchPhase, Parent, Phase};
use sagamore_schemas::definition::{Protocol, StepKind};
use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::{Answer, Command, Decided, Input, Operation, OutcomeKind, Reply, Verdict};

use crate::family::Asks;
use crate::witness::Fold;

/// One transaction, from outside. Branches by [`branch_name`].
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Its id.
    pub subject: String,
    /// Name of its definition.
    pub definition: String,
    /// What it has decided.
    pub decision: Option<Decision>,
    /// How it ended.
    pub ended: Option<OutcomeKind>,
    /// Told to be stuck, at some time.
    pub stuck: bool,
    /// Branches that refused, as far as the fold heeded it.
    pub refused: BTreeSet<String>,
    asked: BTreeMap<Operation, BTreeSet<String>>,
    /// Branches of which the log holds an `ok` to an operation.
    answered: BTreeMap<Operation, BTreeSet<String>>,
    attempts: BTreeMap<(String, Operation), u32>,
    /// Whose child it is.
    pub parent: Option<Parent>,
    /// What it has asked of children, by step.
    pub asks: BTreeMap<String, Asks>,
}

/// What a branch is called here, and with its birth before it in the ledgers.
pub fn branch_name(step: &str, branch: &str) -> String {
    format!("{step}/{branch}")
}

impl Seen {
    /// Branches that were asked to do something.
    pub fn begun(&self) -> BTreeSet<String> {
        self.all(Operation::Execute).union(&self.all(Operation::Prepare)).cloned().collect()
    }

    pub(crate) fn hears(&mut self, reply: &Reply<'_>) {
        if reply.outcome == Answer::Ok {
            let address = &reply.address;
            let name = branch_name(&address.step, &address.branch);
            self.answered.entry(address.operation).or_default().insert(name);
        }
    }

    /// Whether what was asked agrees with this end, and if not, what does not.
    pub(crate) fn ends(&self, outcome: OutcomeKind, input: Option<&Input<'_>>) -> Result<(), String> {
        let mut refused = self.refused.clone();
        // The refusal that ends it leaves no open transaction to look at.
        if let Some(Input::Reply(reply)) = input
            && reply.outcome == Answer::Refused
            && matches!(reply.address.operation, Operation::Execute | Operation::Prepare)
        {
            refused.insert(branch_name(&reply.address.step, &reply.address.branch));
        }
        let (committed, aborted) = (self.all(Operation::Commit), self.all(Operation::Abort));
        let without = |all: BTreeSet<String>| -> BTreeSet<String> { &all - &refused };
        let maybe_done = &without(self.all(Operation::Execute)) | &committed;
        let maybe_held = &without(self.all(Operation::Prepare)) - &committed;
        let compensated = self.all(Operation::Compensate);
        let holds = |holds: bool, text: &str| if holds { Ok(()) } else { Err(format!("{text}: {self:?}")) };
        match outcome {
            OutcomeKind::Committed => {
                holds(maybe_held.is_empty(), "something is held")?;
                holds(self.refused.is_empty(), "something was refused")?;
                holds(compensated.is_empty() && aborted.is_empty(), "something was undone")?;
                holds(self.decision != Some(Decision::Rollback), "it was to be rolled back")
            }
            OutcomeKind::Compensated | OutcomeKind::Aborted => {
                holds(maybe_done == compensated, "what may be done is undone, and nothing else")?;
                holds(maybe_held == aborted, "what may be held is let go, and nothing else")?;
                let undone = !compensated.is_empty() || self.asks.values().any(Asks::is_undone);
                // Whether what was called off had begun is known by its end only.
                let is_open = !undone && self.asks.values().any(Asks::is_called_off);
                holds(is_open || (outcome == OutcomeKind::Aborted) != undone, "the other word")?;
                holds(self.decision != Some(Decision::Commit), "it was to be committed")
            }
            OutcomeKind::Refused | OutcomeKind::Stuck => holds(false, "that is no end"),
        }
    }

    fn all(&self, operation: Operation) -> BTreeSet<String> {
        self.asked.get(&operation).cloned().unwrap_or_default()
    }

    fn was_asked(&self, branch: &str, operation: Operation) -> bool {
        self.asked.get(&operation).is_some_and(|branches| branches.contains(branch))
    }

    fn has_answered(&self, branch: &str, operation: Operation) -> bool {
        self.answered.get(&operation).is_some_and(|branches| branches.contains(branch))
    }
}

type Broken = Vec<(&'static Invariant, String)>;

impl Fold {
    pub(crate) fn look_at_command(&mut self, command: &Command<'_>, broken: &mut Broken) {
        let address = &command.address;
        let oldest = self.shard.open_transactions().map(|transaction| transaction.born).min();
        if oldest.is_some_and(|born| command.watermark > born) {
            let text = format!("watermark {} while one born at {oldest:?} is open", command.watermark);
            broken.push((&inv::WATERMARK_WAITS, text));
        }
        let open = self.shard.open_transactions().find(|open| open.birth == address.birth);
        let planned = open.and_then(|open| {
            let (_, plan, _) = self.shard.definitions().iter().find(|(id, ..)| **id == open.definition)?;
            Some((open, plan, plan.steps.iter().find(|step| step.name.as_str() == address.step)?))
        });
        let Some((open, plan, step)) = planned else {
            let text = format!("{} of nothing that is open", address.command_id());
            return broken.push((&inv::ALONG_THE_GRAPH, text));
        };
        let own = branch_name(&address.step, &address.branch);
        let seen = self.born.entry(address.birth).or_default();
        let mut demand = |invariant: &'static Invariant, holds: bool, text: &str| {
            if !holds {
                let text = format!("{} of {}: {text}", address.command_id(), address.subject);
                broken.push((invariant, text));
            }
        };
        demand(&inv::ALONG_THE_GRAPH, open.phase != Phase::Paused, "asked while it is paused");
        let attempt = seen.attempts.entry((own.clone(), address.operation)).or_default();
        *attempt += 1;
        demand(&inv::ALONG_THE_GRAPH, address.attempt == *attempt, "attempts are counted one by one");
        let first = seen.asked.entry(address.operation).or_default().insert(own.clone());
        match address.operation {
            Operation::Execute | Operation::Prepare => {
                let mut graph = |holds, text: &str| demand(&inv::ALONG_THE_GRAPH, holds, text);
                let prepares = address.operation == Operation::Prepare;
                graph(step.protocol.is_some() == prepares, "that is not how its step begins");
                let over = [Operation::Compensate, Operation::Abort, Operation::Commit];
                graph(
                    !over.iter().any(|later| seen.was_asked(&own, *later)),
                    "asked again after it was over",
                );
                if step.kind == StepKind::Retriable {
                    graph(seen.decision != Some(Decision::Rollback), "runs after a commit only");
                } else {
                    graph(!first || seen.decision.is_none(), "first asked after the decision");
                }
            }
            Operation::Precommit | Operation::Commit => {
                let mut same = |holds, text: &str| demand(&inv::ONE_VERDICT, holds, text);
                let three = step.protocol == Some(Protocol::ThreePhase);
                let mut all = siblings(step);
                same(all.all(|name| seen.has_answered(&name, Operation::Prepare)), "before the last vote");
                same(siblings(step).all(|name| !seen.was_asked(&name, Operation::Abort)), "one is to abort");
                same(three || address.operation == Operation::Commit, "a precommit in two phases");
                if three && address.operation == Operation::Commit {
                    let mut all = siblings(step);
                    let ready = all.all(|name| seen.has_answered(&name, Operation::Precommit));
                    same(ready, "before the last precommit");
                }
                if step.kind != StepKind::Compensatable {
                    same(open.phase == Phase::Committing, "without the transaction");
                }
            }
            Operation::Abort => {
                let mut same = |holds, text: &str| demand(&inv::ONE_VERDICT, holds, text);
                same(open.phase == Phase::RollingBack, "aborted, and the transaction is not rolled back");
                same(seen.was_asked(&own, Operation::Prepare), "aborted, and never asked");
                same(
                    siblings(step).all(|name| !seen.was_asked(&name, Operation::Commit)),
                    "one is to commit",
                );
            }
            Operation::Compensate => {
                let mut graph = |holds, text: &str| demand(&inv::ALONG_THE_GRAPH, holds, text);
                let done = if step.protocol.is_some() { Operation::Commit } else { Operation::Execute };
                graph(step.kind == StepKind::Compensatable, "it cannot be undone");
                graph(open.phase == Phase::RollingBack, "undone, and the transaction is not rolled back");
                graph(seen.was_asked(&own, done), "undone, and never asked");
                graph(!seen.refused.contains(&own), "undone, and was refused");
            }
        }
        if first && matches!(address.operation, Operation::Compensate | Operation::Abort) {
            let settled = step.before.iter().all(|after| open.all_of(plan.step(*after), is_settled));
            demand(&inv::ALONG_THE_GRAPH, settled, "undone before what came after it");
        }
    }

    /// `commit` is said of what is told to commit, `abort` of what is never told to. What ended aborted has told nobody
    /// to commit.
    pub(crate) fn look_at_verdict(&mut self, verdict: &Verdict<'_>, broken: &mut Broken) {
        let inquiry = &verdict.inquiry;
        let name = branch_name(&inquiry.step, &inquiry.branch);
        let seen = self.born.entry(inquiry.birth).or_default();
        let committed = seen.was_asked(&name, Operation::Commit);
        let holds = match verdict.decision {
            Decided::Commit => committed,
            Decided::Abort => !committed && (seen.ended.is_some() || self.is_turning_back(verdict)),
            Decided::Undecided => !committed && seen.ended.is_none(),
            Decided::Forgotten => seen.ended.is_some(),
        };
        if !holds {
            let text = format!("{name} of {} is answered {}", inquiry.subject, verdict.decision.as_str());
            broken.push((&inv::ONE_VERDICT, text));
        }
    }

    fn is_turning_back(&self, verdict: &Verdict<'_>) -> bool {
        let mut all = self.shard.open_transactions();
        all.any(|open| open.birth == verdict.inquiry.birth && open.phase == Phase::RollingBack)
    }

    /// The row of an input that changed nothing.
    pub(crate) fn row_without_trace(&self, input: &Input<'_>) -> Option<&'static str> {
        let (birth, step) = match input {
            Input::Reply(reply) => (reply.address.birth, Some(&reply.address.step)),
            Input::Undeliverable(lost) => (lost.address.birth, Some(&lost.address.step)),
            Input::Timer(timer) => (timer.birth, timer.branch.as_ref().map(|(step, _)| step)),
            Input::Start(_)
            | Input::Inquiry(_)
            | Input::Child(_)
            | Input::Verb(_)
            | Input::Shard(_)
            | Input::Definition(_) => return None,
        };
        let open = self.shard.open_transactions().find(|open| open.birth == birth)?;
        let (_, plan, _) = self.shard.definitions().iter().find(|(id, ..)| **id == open.definition)?;
        let step = plan.steps.iter().find(|known| step.is_some_and(|step| known.name.as_str() == step))?;
        Some(match step.protocol {
            _ if step.is_child() => "C20",
            Some(_) => "P22",
            None => "S21",
        })
    }
}

fn siblings(step: &PlanStep) -> impl Iterator<Item = String> {
    step.branches.iter().map(|branch| branch_name(step.name.as_str(), branch.name.as_str()))
}

pub(crate) fn is_settled(phase: &BranchPhase) -> bool {
    matches!(
        phase,
        BranchPhase::Skipped
            | BranchPhase::Refused
            | BranchPhase::Undone
            | BranchPhase::Aborted
            | BranchPhase::Stuck(_)
    )
}

//! The failure model of a definition: how probable it is that a transaction commits, goes back or gets stuck, how many
//! commands it takes and how long, when each participant answers as a [`Model`] says.
//!
//! ```text
//! model ─▶ operation: one operation, asked until it is answered ──▶ forward: blocks, to the decision ─┐
//! plan ──▶ order: series and parallels of steps ────────────────────▶ settle: what follows it ────────┴─▶ Prediction
//! ```
//!
//! What happens is the coordinator's own: the rows of `decision`, `saga`, `two_phase` and `three_phase` in the decider.
//! What is assumed of the participants:
//!
//! - Attempts are independent of each other, and branches of each other. A participant that is down for a while breaks
//!   this: then retries help less than is said here.
//! - An attempt is answered `ok`, `refused`, `error` or not at all, with fixed probabilities; the first answer counts. It
//!   is all the same whether a refusal is drawn once or at each attempt, as long as silence does not depend on it.
//! - An answer takes a lognormal time (or always the same), from command to reply, Kafka and coordinator counted in. One
//!   that takes longer than the timeout is taken for lost. The coordinator would still take it while it asks (S4, P4), so
//!   this is on the safe side; how probable it is, is noted.
//! - `compensate`, `commit`, `precommit` and `abort` are not refused, `expired` is not answered, inputs can be mapped,
//!   results fit, every `when` is true, nobody cancels.
//!
//! What is exact, and what is numeric:
//!
//! | | by | source |
//! |---|---|---|
//! | n tries, n replicas | `1-(1-p)^n` | Bernoulli trials; W. Feller, "An Introduction to Probability Theory", I, chapter VI |
//! | all steps of a chain, all branches of a group | the product | independent events, ibid. chapter V |
//! | commands | sums of probabilities that the k-th attempt is made | linearity of the mean |
//! | times one after the other | convolution of point masses | numeric: masses and means exact, 0.3 % in time |
//! | the latest of several times | product of distribution functions | order statistics; the same |
//! | who is first to say no, and what is under way then | product with what is left of the others | competing risks; the same |
//! | a graph that is not made of series and parallels | stages | a bound: never faster than the definition |
//! | a rollback that meets a group which declares `compensate` between its votes and its commit | its `commit` begins anew | approximate in time only |
//! | a late yes that hastens an abort (P19) | left out | approximate in time only |
//!
//! Competing risks are read from point masses that have been merged, so the probabilities of all ends sum to 1 up to a
//! few parts in ten thousand of what does not commit.
//!
//! Deliberately absent: load. Nobody waits here because somebody else is served.

pub mod file;
pub mod journal;
pub mod model;
pub mod plot;

mod forward;
mod measure;
mod operation;
mod order;
mod settle;

use sagamore_decider::definition::plan::{Plan, PlanStep, Retry, StepIndex};
use sagamore_schemas::definition::{Protocol, StepKind};
use sagamore_schemas::ids::Span;
use serde::Serialize;

use forward::{Block, KEYS_MAX, Undo};
use measure::{Measure, ms};
use model::{ANSWERED_LEAST, Assumed, Model};
use operation::Asked;
use order::{Order, Ordered};
use settle::{Back, Settled};

/// Why there is no prediction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PredictError {
    /// A part of a flag that cannot be read.
    #[error(
        "`{0}`: p=, refused=, error= and undo= take a probability, latency= a duration such as 20ms or 20ms/80ms \
         (p50/p99), replicas= a number"
    )]
    Flag(String),
    /// The model speaks of a step that the definition does not have.
    #[error("the definition has no step `{0}`, and no branch that is called step/branch")]
    NoSuchStep(String),
    /// Numbers that cannot be.
    #[error("{0}: {1}")]
    Numbers(String, String),
    /// An operation that is tried without end would hardly ever be answered.
    #[error(
        "{0}: `{1}` is tried without end, and an attempt is answered in time with {2:.4} only; at least {ANSWERED_LEAST}"
    )]
    NeverAnswered(String, &'static str, f64),
    /// Parallel chains in parallel.
    #[error("steps that run beside each other can stand in {0} ways, {KEYS_MAX} at most can be told apart")]
    TooManyWays(usize),
}

/// What becomes of a transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Prediction {
    /// Probability that it ends as committed.
    pub committed: f64,
    /// That it ends as compensated.
    pub compensated: f64,
    /// That it ends as aborted.
    pub aborted: f64,
    /// That it gets stuck, on either way.
    pub stuck: f64,
    /// That the deadline turns it back.
    pub deadline_missed: f64,
    /// Commands on average, every attempt counted.
    pub commands: f64,
    /// From its start to the decision, on average.
    pub decision_ms: f64,
    /// From its start to its end, on average over those that end (stuck ones do not).
    pub end_ms: f64,
    /// Each branch by itself.
    pub branches: Vec<BranchPrediction>,
    /// What has been left out or replaced by a bound.
    pub notes: Vec<String>,
    /// The way to the decision, or to the asking of a pivot, if there were no deadline.
    #[serde(skip)]
    in_time: Measure,
    /// What must go well after that.
    #[serde(skip)]
    afterwards: f64,
}

/// The forward operation of one branch: what was assumed, and what comes of it when it is asked.
#[derive(Debug, Clone, Serialize)]
pub struct BranchPrediction {
    /// Its name, `step/branch` in a group.
    pub name: String,
    /// What it is to the decision.
    pub kind: StepKind,
    /// What was assumed.
    #[serde(flatten)]
    pub assumed: Assumed,
    /// Attempts at most; `None`: without end.
    pub attempts: Option<u32>,
    /// Probability that it is answered `ok` in the end.
    pub done: f64,
    /// That it is answered `refused` in the end.
    pub no: f64,
    /// That no try is left.
    pub unknown: f64,
    /// Commands on average.
    pub commands: f64,
    /// Until it is answered or no try is left, on average.
    pub mean_ms: f64,
}

impl Prediction {
    /// Probability that it ends as committed, if its deadline were this one.
    pub fn committed_by(&self, deadline: Span) -> f64 {
        self.in_time.until(ms(deadline)) * self.afterwards
    }

    /// The least deadline by which it commits with this probability; `None`: none does.
    pub fn deadline_for(&self, want: f64) -> Option<Span> {
        let is_enough = |at_ms: u64| self.committed_by(Span::from_ms(at_ms)) >= want;
        let (mut below, mut enough) = (0, Span::MAX.as_ms());
        if !is_enough(enough) {
            return None;
        }
        while below < enough {
            let middle = below.midpoint(enough);
            if is_enough(middle) { enough = middle } else { below = middle + 1 }
        }
        Some(Span::from_ms(enough))
    }
}

/// The same definition with another number of attempts wherever these are bounded.
#[must_use]
pub fn with_attempts(plan: &Plan, attempts: u32) -> Plan {
    let mut plan = plan.clone();
    let bounded = plan.steps.iter_mut().filter(|step| step.retry.attempts != Retry::UNBOUNDED);
    bounded.for_each(|step| step.retry.attempts = attempts);
    plan
}

/// What becomes of the transactions of a definition.
pub fn predict(plan: &Plan, model: &Model) -> Result<Prediction, PredictError> {
    let assumed = model.assumed(plan)?;
    answered_at_all(plan, &assumed)?;
    let (steps, Ordered { order, has_stages }) = before_the_decision(plan);
    let block = block_of(plan, &assumed, &steps, &order)?;
    let (ahead, ahead_has_stages) = settle::ahead(plan, &assumed);
    let mut notes = notes(plan, &assumed);
    if has_stages || ahead_has_stages {
        notes.push(
            "the steps are not made of series and parallels: reckoned in stages, never too fast".into(),
        );
    }
    let back = Back::new(plan, &assumed, &steps, &order);
    let sum = Sum::of(plan, &assumed, &block, &ahead, &back);
    let pivot_ok = executed_pivot(plan, &assumed).map_or(1.0, |asked| asked.ok.mass());
    let ended = sum.committed + sum.compensated + sum.aborted;
    Ok(Prediction {
        committed: sum.committed,
        compensated: sum.compensated,
        aborted: sum.aborted,
        stuck: sum.stuck,
        deadline_missed: sum.deadline_missed,
        commands: sum.commands,
        decision_ms: sum.decision_moment,
        end_ms: if ended > 0.0 { sum.end_moment / ended } else { 0.0 },
        branches: branches(plan, &assumed),
        notes,
        in_time: block.ok,
        afterwards: pivot_ok * ahead.ok,
    })
}

/// A pivot that is executed: no deadline any more, tried until it is answered.
fn executed_pivot(plan: &Plan, assumed: &[Assumed]) -> Option<Asked> {
    let step = plan.step(plan.pivot()?);
    let forward = assumed[usize::from(step.first_branch.0)].forward();
    step.protocol.is_none().then(|| Asked::of(&forward, step.timeout, step.retry, Retry::UNBOUNDED))
}

/// What the deadline can turn back, in its order.
fn before_the_decision(plan: &Plan) -> (Vec<StepIndex>, Ordered) {
    let is_before = |step: &PlanStep| match step.kind {
        StepKind::Compensatable | StepKind::Reserved => true,
        StepKind::Pivot => step.protocol.is_some(),
        StepKind::Retriable => false,
    };
    let steps: Vec<StepIndex> =
        plan.indexed().filter(|(_, step)| is_before(step)).map(|(index, _)| index).collect();
    let position = |index: &StepIndex| steps.iter().position(|one| one == index);
    let after = steps.iter().map(|index| plan.step(*index).after.iter().filter_map(position).collect());
    let after: Vec<Vec<usize>> = after.collect();
    let ordered = Order::of(steps.len(), &after);
    (steps, ordered)
}

fn block_of(
    plan: &Plan,
    assumed: &[Assumed],
    steps: &[StepIndex],
    order: &Order,
) -> Result<Block, PredictError> {
    let part = |part: &Order| block_of(plan, assumed, steps, part);
    match order {
        Order::One(one) => step_block(plan.step(steps[*one]), assumed),
        Order::Series(parts) => {
            let blocks = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            Ok(blocks.into_iter().reduce(|all, next| all.then(&next)).unwrap_or_else(Block::nothing))
        }
        Order::Parallel(parts) => beside(parts.iter().map(part).collect::<Result<Vec<_>, _>>()?),
    }
}

fn beside(blocks: Vec<Block>) -> Result<Block, PredictError> {
    let mut blocks = blocks.into_iter();
    let Some(first) = blocks.next() else { return Ok(Block::nothing()) };
    blocks.try_fold(first, |all, next| all.beside(&next))
}

fn step_block(step: &PlanStep, assumed: &[Assumed]) -> Result<Block, PredictError> {
    let of = |index: sagamore_decider::definition::plan::BranchIndex| &assumed[usize::from(index.0)];
    let undo = if step.protocol.is_some() { Undo::Abort } else { Undo::Compensate };
    let forward = step.indexes().map(|index| {
        let asked = Asked::of(&of(index).forward(), step.timeout, step.retry, step.retry.attempts);
        Block::operation(index, asked, undo, undo)
    });
    let mut all = beside(forward.collect())?;
    let Some(protocol) = step.protocol.filter(|_| step.kind == StepKind::Compensatable) else {
        return Ok(all);
    };
    // Its votes are its own decision: what has been asked from here on goes on, whatever the transaction decides.
    let phase = |begun: Undo, done: Undo, commands: f64| {
        let operations = step.indexes().map(|index| {
            let mut asked = Asked::of(&of(index).decided(), step.timeout, step.retry, Retry::UNBOUNDED);
            asked.commands = Measure::at(0.0, commands * asked.commands.mass());
            Block::operation(index, asked, begun, done)
        });
        beside(operations.collect())
    };
    all.done.clear();
    match protocol {
        Protocol::TwoPhase => Ok(all.then(&phase(Undo::CommitFirst, Undo::Compensate, 1.0)?)),
        Protocol::ThreePhase => {
            let mut precommit = phase(Undo::PrecommitFirst, Undo::PrecommitFirst, 2.0)?;
            precommit.done.clear();
            Ok(all.then(&precommit).then(&phase(Undo::CommitFirst, Undo::Compensate, 0.0)?))
        }
    }
}

/// Probabilities and moments on the way.
#[derive(Default)]
struct Sum {
    committed: f64,
    compensated: f64,
    aborted: f64,
    stuck: f64,
    deadline_missed: f64,
    commands: f64,
    decision_moment: f64,
    end_moment: f64,
}

impl Sum {
    fn of(plan: &Plan, assumed: &[Assumed], block: &Block, ahead: &Settled, back: &Back<'_>) -> Self {
        let mut sum = Self::default();
        let deadline_ms = ms(plan.deadline);
        let in_time = block.ok.cut(deadline_ms);
        sum.commands = block.commands.until(deadline_ms);
        let mut committing = in_time.clone();
        if let Some(pivot) = executed_pivot(plan, assumed) {
            committing = in_time.then(&pivot.ok);
            sum.commands += in_time.mass() * pivot.commands.mass();
            sum.roll_back(&in_time.then(&pivot.refused), &block.done, back);
        }
        sum.commands += committing.mass() * ahead.commands;
        sum.decision_moment += committing.moment();
        sum.committed = committing.mass() * ahead.ok;
        sum.stuck += committing.mass() * (1.0 - ahead.ok);
        sum.end_moment += (committing.moment() + committing.mass() * ahead.time.mean()) * ahead.ok;
        for (key, when) in &block.no {
            sum.roll_back(&when.cut(deadline_ms), key, back);
        }
        for (key, stay) in &block.live {
            let missed = stay.until(deadline_ms);
            sum.deadline_missed += missed;
            sum.roll_back(&Measure::at(deadline_ms, missed), key, back);
        }
        sum
    }

    fn roll_back(&mut self, when: &Measure, key: &forward::Key, back: &Back<'_>) {
        if when.mass() <= 0.0 {
            return;
        }
        let ok = back.ok(key);
        self.decision_moment += when.moment();
        self.commands += when.mass() * back.commands(key);
        self.stuck += when.mass() * (1.0 - ok);
        self.end_moment += (when.moment() + when.mass() * back.mean_ms(key)) * ok;
        if Back::is_undone(key) {
            self.compensated += when.mass() * ok;
        } else {
            self.aborted += when.mass() * ok;
        }
    }
}

/// What is tried without end must be answered some time.
fn answered_at_all(plan: &Plan, assumed: &[Assumed]) -> Result<(), PredictError> {
    for index in plan.branch_indexes() {
        let (step, _) = plan.branch(index);
        let (forward, decided) =
            (assumed[usize::from(index.0)].forward(), assumed[usize::from(index.0)].decided());
        let in_time = |answers: &model::Answers| {
            answers.latency.until(ms(step.timeout)) * (answers.ok + answers.refused)
        };
        let (operation, answered) = match (step.protocol, step.kind) {
            (None, StepKind::Pivot | StepKind::Retriable) => ("execute", in_time(&forward)),
            (None, StepKind::Compensatable | StepKind::Reserved) => continue,
            (Some(_), _) => ("commit", in_time(&decided)),
        };
        if answered < ANSWERED_LEAST {
            return Err(PredictError::NeverAnswered(model::names(plan, index).1, operation, answered));
        }
    }
    Ok(())
}

fn branches(plan: &Plan, assumed: &[Assumed]) -> Vec<BranchPrediction> {
    let branch = |index: sagamore_decider::definition::plan::BranchIndex| {
        let (step, _) = plan.branch(index);
        let assumed = assumed[usize::from(index.0)];
        let asked = Asked::of(&assumed.forward(), step.timeout, step.retry, step.retry.attempts);
        BranchPrediction {
            name: model::names(plan, index).1,
            kind: step.kind,
            assumed,
            attempts: Some(step.retry.attempts).filter(|attempts| *attempts != Retry::UNBOUNDED),
            done: asked.ok.mass(),
            no: asked.refused.mass(),
            unknown: asked.unknown.mass(),
            commands: asked.commands.mass(),
            mean_ms: asked.ok.plus(&asked.refused).plus(&asked.unknown).mean(),
        }
    };
    plan.branch_indexes().map(branch).collect()
}

fn notes(plan: &Plan, assumed: &[Assumed]) -> Vec<String> {
    /// What is less probable than this is not worth a line.
    const WORTH_NOTING: f64 = 1e-6;
    let mut notes = Vec::new();
    for index in plan.branch_indexes() {
        let (step, _) = plan.branch(index);
        let latency = assumed[usize::from(index.0)].forward().latency;
        let late = 1.0 - latency.until(ms(step.timeout));
        if late > WORTH_NOTING {
            let name = model::names(plan, index).1;
            notes.push(format!(
                "{name}: {:.4} % of the answers take longer than its timeout, {}; they are taken for lost",
                late * 100.0,
                step.timeout
            ));
        }
    }
    for step in plan.steps.iter().filter(|step| step.when.is_some()) {
        notes.push(format!("{}: its `when` is taken to be true", step.name));
    }
    notes
}

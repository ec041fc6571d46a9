//! What follows the decision: on the way back `compensate` and `abort`, after commit `commit` and the retriable steps.

use std::collections::BTreeMap;

use sagamore_decider::definition::plan::{BranchIndex, Plan, PlanStep, Retry, StepIndex};
use sagamore_schemas::definition::{Protocol, StepKind};

use super::forward::{Key, Undo};
use super::measure::Measure;
use super::model::Assumed;
use super::operation::Asked;
use super::order::{Order, Ordered};

/// Something that is done after the decision.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Probability that it gets done; else it is stuck.
    pub ok: f64,
    /// How long that takes, given that it gets done.
    pub time: Measure,
    /// Commands on average, either way.
    pub commands: f64,
}

impl Settled {
    fn of(asked: &Asked) -> Self {
        let ok = asked.ok.mass();
        let time = if ok > 0.0 { asked.ok.scaled(1.0 / ok) } else { Measure::now() };
        Self { ok, time, commands: asked.commands.mass() }
    }
}

/// An operation that has been decided and is tried without end.
pub fn without_end(step: &PlanStep, assumed: &Assumed) -> Settled {
    Settled::of(&Asked::of(&assumed.decided(), step.timeout, step.retry, Retry::UNBOUNDED))
}

/// The way back.
pub struct Back<'a> {
    plan: &'a Plan,
    /// The steps that can be undone, and their order.
    steps: &'a [StepIndex],
    order: &'a Order,
    operations: BTreeMap<(BranchIndex, Undo), Settled>,
}

impl<'a> Back<'a> {
    /// Of `steps` in `order`.
    pub fn new(plan: &'a Plan, assumed: &[Assumed], steps: &'a [StepIndex], order: &'a Order) -> Self {
        let mut operations = BTreeMap::new();
        for step in steps.iter().map(|index| plan.step(*index)) {
            for index in step.indexes() {
                let assumed = &assumed[usize::from(index.0)];
                let bounded = Asked::of(&assumed.decided(), step.timeout, step.retry, step.retry.attempts);
                let compensate = Settled::of(&bounded);
                if step.protocol.is_some() {
                    let abort = without_end(step, assumed);
                    // Abort and commit are asked alike. How many commits there are is counted where they are asked.
                    let after = |first: &Measure| Settled {
                        time: first.then(&compensate.time),
                        ..compensate.clone()
                    };
                    let committed = after(&abort.time);
                    operations.insert((index, Undo::PrecommitFirst), after(&committed.time));
                    operations.insert((index, Undo::CommitFirst), committed);
                    operations.insert((index, Undo::Abort), abort);
                }
                operations.insert((index, Undo::Compensate), compensate);
            }
        }
        Self { plan, steps, order, operations }
    }

    /// Probability that nothing of it gets stuck.
    pub fn ok(&self, key: &Key) -> f64 {
        key.iter().map(|undo| self.operations[undo].ok).product()
    }

    /// Commands on average.
    pub fn commands(&self, key: &Key) -> f64 {
        key.iter().map(|undo| self.operations[undo].commands).sum()
    }

    /// Mean time until all is undone, given that nothing gets stuck.
    pub fn mean_ms(&self, key: &Key) -> f64 {
        self.mean_of(self.order, key)
    }

    /// Whether something had been done: `compensated`, not `aborted`.
    pub fn is_undone(key: &Key) -> bool {
        key.iter().any(|(_, undo)| match undo {
            Undo::Compensate | Undo::CommitFirst | Undo::PrecommitFirst => true,
            Undo::Abort => false,
        })
    }

    fn mean_of(&self, order: &Order, key: &Key) -> f64 {
        match order {
            Order::Series(parts) => parts.iter().map(|part| self.mean_of(part, key)).sum(),
            Order::Parallel(parts) => {
                let touched: Vec<&Order> = parts.iter().filter(|part| self.touches(part, key)).collect();
                match touched[..] {
                    [] => 0.0,
                    [one] => self.mean_of(one, key),
                    _ => self.time_of(order, key).mean(),
                }
            }
            Order::One(_) => self.time_of(order, key).mean(),
        }
    }

    fn touches(&self, order: &Order, key: &Key) -> bool {
        match order {
            Order::One(one) => self.undone_of(*one, key).next().is_some(),
            Order::Series(parts) | Order::Parallel(parts) => parts.iter().any(|part| self.touches(part, key)),
        }
    }

    fn time_of(&self, order: &Order, key: &Key) -> Measure {
        match order {
            Order::One(one) => {
                let times = self.undone_of(*one, key).map(|undo| &self.operations[undo].time);
                times.fold(Measure::now(), |all, time| all.later(time))
            }
            Order::Series(parts) => {
                parts.iter().fold(Measure::now(), |all, part| all.then(&self.time_of(part, key)))
            }
            Order::Parallel(parts) => {
                parts.iter().fold(Measure::now(), |all, part| all.later(&self.time_of(part, key)))
            }
        }
    }

    fn undone_of<'b>(
        &self,
        one: usize,
        key: &'b Key,
    ) -> impl Iterator<Item = &'b (BranchIndex, Undo)> + use<'b> {
        let step = self.plan.step(self.steps[one]);
        let last = step.indexes().next_back().unwrap_or(step.first_branch);
        key.range((step.first_branch, Undo::Compensate)..=(last, Undo::PrecommitFirst))
    }
}

/// What is left to do after the decision to commit.
pub fn ahead(plan: &Plan, assumed: &[Assumed]) -> (Settled, bool) {
    let is_ahead = |step: &PlanStep| match step.kind {
        StepKind::Retriable => true,
        StepKind::Pivot | StepKind::Reserved => step.protocol.is_some(),
        StepKind::Compensatable => false,
    };
    let steps: Vec<(StepIndex, &PlanStep)> = plan.indexed().filter(|(_, step)| is_ahead(step)).collect();
    // What is committed now does not wait: its turn has come with the decision.
    let after = |step: &PlanStep| match step.kind {
        StepKind::Retriable => {
            step.after.iter().filter_map(|at| steps.iter().position(|(index, _)| index == at)).collect()
        }
        StepKind::Pivot | StepKind::Reserved | StepKind::Compensatable => Vec::new(),
    };
    let after: Vec<Vec<usize>> = steps.iter().map(|(_, step)| after(step)).collect();
    let nodes: Vec<Settled> = steps.iter().map(|(_, step)| node(step, assumed)).collect();
    let Ordered { order, has_stages } = Order::of(steps.len(), &after);
    let commands = nodes.iter().enumerate().map(|(one, node)| {
        let before = (0..nodes.len()).filter(|&other| reaches(&after, one, other));
        node.commands * before.map(|other| nodes[other].ok).product::<f64>()
    });
    let settled = Settled {
        ok: nodes.iter().map(|node| node.ok).product(),
        time: time(&order, &nodes),
        commands: commands.sum(),
    };
    (settled, has_stages)
}

fn reaches(after: &[Vec<usize>], from: usize, to: usize) -> bool {
    let mut seen = vec![false; after.len()];
    let mut next = after[from].clone();
    while let Some(one) = next.pop() {
        if !std::mem::replace(&mut seen[one], true) {
            next.extend(&after[one]);
        }
    }
    seen[to]
}

fn node(step: &PlanStep, assumed: &[Assumed]) -> Settled {
    let of = |index: BranchIndex| &assumed[usize::from(index.0)];
    let Some(protocol) = step.protocol else {
        let forward = of(step.first_branch).forward();
        return Settled::of(&Asked::of(&forward, step.timeout, step.retry, Retry::UNBOUNDED));
    };
    let mut all = Settled { ok: 1.0, time: Measure::now(), commands: 0.0 };
    for index in step.indexes() {
        let one = without_end(step, of(index));
        all.time = all.time.later(&one.time);
        all.commands += one.commands;
    }
    match protocol {
        Protocol::TwoPhase => all,
        // Precommit and commit are asked alike.
        Protocol::ThreePhase => {
            Settled { time: all.time.then(&all.time), commands: 2.0 * all.commands, ..all }
        }
    }
}

fn time(order: &Order, nodes: &[Settled]) -> Measure {
    match order {
        Order::One(one) => nodes[*one].time.clone(),
        Order::Series(parts) => parts.iter().fold(Measure::now(), |all, part| all.then(&time(part, nodes))),
        Order::Parallel(parts) => {
            parts.iter().fold(Measure::now(), |all, part| all.later(&time(part, nodes)))
        }
    }
}

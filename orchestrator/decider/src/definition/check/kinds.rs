//! One point of no return: what comes before it and what comes after.

use sagamore_schemas::definition::{CommitPlace, Definition, Step, StepKind};

use super::Check;
use super::graph::Graph;
use super::problem::ProblemCode;

/// What a step is to the transaction's decision.
pub(super) fn role(step: &Step) -> StepKind {
    let Some(branches) = &step.branches else { return step.kind };
    match step.commit.unwrap_or(CommitPlace::InPlace) {
        CommitPlace::AtEnd => StepKind::Reserved,
        CommitPlace::InPlace if branches.iter().all(|branch| branch.compensate) => StepKind::Compensatable,
        CommitPlace::InPlace => StepKind::Pivot,
    }
}

fn described(step: &Step) -> String {
    match (role(step), step.branches.is_some()) {
        (kind, false) => format!("is {kind}"),
        (StepKind::Reserved, true) => "is a group that commits at the end".to_owned(),
        (StepKind::Pivot, true) => "is a group that commits in its place".to_owned(),
        (kind, true) => format!("is a {kind} group"),
    }
}

impl Check {
    pub(super) fn kinds(&mut self, definition: &Definition, graph: &Graph) {
        let steps = &definition.steps;
        let pivots: Vec<usize> = (0..steps.len()).filter(|&at| role(&steps[at]) == StepKind::Pivot).collect();
        for &second in pivots.iter().skip(1) {
            let (step, first) = (&steps[second], &steps[pivots[0]].name);
            if step.branches.is_some() {
                self.add(
                    ProblemCode::SecondPivot,
                    format!("steps[{second}]"),
                    format!("`{}` commits in its place: a second point of no return, after `{first}`", step.name),
                    "there is one: write `commit: at-end`, or `compensate: true` on branches that can be undone",
                );
            } else {
                self.add(
                    ProblemCode::SecondPivot,
                    format!("steps[{second}].kind"),
                    format!("`{}` is a second pivot, after `{first}`", step.name),
                    "there is one point of no return: make this step compensatable before it, or retriable after it",
                );
            }
        }
        let Some(ancestors) = &graph.ancestors else { return };
        for (position, step) in steps.iter().enumerate().filter(|(_, step)| role(step) != StepKind::Retriable)
        {
            let retriable = (0..steps.len())
                .find(|&at| role(&steps[at]) == StepKind::Retriable && ancestors.has(position, at));
            if let Some(retriable) = retriable {
                self.add(
                    ProblemCode::AfterRetriable,
                    format!("steps[{position}]"),
                    format!(
                        "`{}` {} and comes after the retriable step `{}`, which runs after the decision",
                        step.name,
                        described(step),
                        steps[retriable].name
                    ),
                    after_help(step),
                );
            }
            let Some(&pivot) = pivots.first() else { continue };
            if role(step) != StepKind::Pivot && !ancestors.has(pivot, position) {
                let relation = if ancestors.has(position, pivot) { "comes after" } else { "runs beside" };
                self.add(
                    ProblemCode::NotBeforePivot,
                    format!("steps[{position}]"),
                    format!(
                        "`{}` {} and {relation} the pivot `{}`, so it could still say no after the decision",
                        step.name,
                        described(step),
                        steps[pivot].name
                    ),
                    before_help(step),
                );
            }
        }
    }
}

fn after_help(step: &Step) -> &'static str {
    if step.branches.is_some() { "put it before" } else { "put it before, or make it retriable" }
}

fn before_help(step: &Step) -> &'static str {
    if step.branches.is_some() {
        "let the pivot wait for it (`after`)"
    } else {
        "let the pivot wait for it (`after`), or make it retriable"
    }
}

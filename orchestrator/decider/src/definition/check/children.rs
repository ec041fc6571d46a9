//! What a definition says of others: they are known, each can be undone where it may have to be, and gets what it reads.

use std::collections::BTreeSet;

use super::NESTING_MAX;
use super::problem::{Problem, ProblemCode};
use crate::definition::plan::{Plan, PlanStep};
use crate::transaction::DefinitionId;
use sagamore_schemas::definition::StepKind;

/// Judges what `plan` names by what is `known`: the definitions that were applied before it. So none can come to begin
/// itself: what it names stands before it, and never changes.
///
/// ```
/// use sagamore_decider::definition::build::{definition, step};
/// use sagamore_decider::definition::check::children;
///
/// let (_, refund) = definition("refund", 2).step(step("pay").participant("bank")).build().unwrap();
/// let (_, order) = definition("return", 1).step(step("refund").child("refund@2")).build().unwrap();
/// let known = |id: &_| (*id == "refund@2".parse().unwrap()).then_some(&refund);
/// let problems = children(&order, known);
/// assert_eq!(
///     problems[0].to_string(),
///     "steps[0].definition: refund@2 cannot be undone, and `refund` may have to be (no-way-back); \
///      give refund a version with `compensated_by`, or make the step the pivot or retriable",
/// );
/// ```
pub fn children<'a>(plan: &Plan, known: impl Fn(&DefinitionId) -> Option<&'a Plan>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = too_deep(plan, &known).into_iter().collect();
    for (index, named) in plan.children() {
        let step = index.map(|index| plan.step(index));
        let path = index.map_or("compensated_by".to_owned(), |index| format!("steps[{index}].definition"));
        let Some(child) = known(named) else {
            problems.push(Problem {
                code: ProblemCode::UnknownDefinition,
                path,
                message: format!("there is no {named}"),
                help: "apply it first: a definition names what stands before it".to_owned(),
            });
            continue;
        };
        let Some(step) = step else { continue };
        if step.kind == StepKind::Compensatable && child.compensated_by.is_none() {
            problems.push(Problem {
                code: ProblemCode::NoWayBack,
                path: path.clone(),
                message: format!("{named} cannot be undone, and `{}` may have to be", step.name),
                help: format!(
                    "give {} a version with `compensated_by`, or make the step the pivot or retriable",
                    named.name
                ),
            });
        }
        problems.extend(missing(step, child, named, &path));
    }
    problems
}

fn too_deep<'a>(plan: &Plan, known: &impl Fn(&DefinitionId) -> Option<&'a Plan>) -> Option<Problem> {
    let named = |plan: &Plan| plan.children().map(|(_, id)| id.clone()).collect::<BTreeSet<_>>();
    let mut generation = named(plan);
    for _ in 0..NESTING_MAX {
        generation = generation.iter().filter_map(known).flat_map(named).collect();
    }
    let deepest = generation.first()?;
    Some(Problem {
        code: ProblemCode::TooDeep,
        path: "steps".to_owned(),
        message: format!("more than {NESTING_MAX} definitions begin each other in a row, down to {deepest}"),
        help: "do in one definition what several only pass on".to_owned(),
    })
}

/// What the child reads and the step's own `input` does not have.
fn missing(step: &PlanStep, child: &Plan, named: &DefinitionId, path: &str) -> Option<Problem> {
    let template = step.branches.first()?.input.as_ref()?;
    let missing: Vec<String> = child
        .input_paths()
        .into_iter()
        .filter(|path| !template.may_have(path))
        .map(ToString::to_string)
        .collect();
    (!missing.is_empty()).then(|| Problem {
        code: ProblemCode::MissingInput,
        path: path.replace(".definition", ".input"),
        message: format!(
            "{named} reads {}, which is not in the input of `{}`",
            missing.join(", "),
            step.name
        ),
        help: "add it to the input".to_owned(),
    })
}

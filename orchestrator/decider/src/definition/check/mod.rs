//! The check of a definition, and the only way from a document to a [`Plan`].
//!
//! Every problem is found in one go: a rule that cannot be judged because of another problem (ancestors in a graph with
//! a cycle) says nothing rather than something wrong. A problem names its place as a path in the document, such as
//! `steps[2].retry.attempts`; `source` turns it into line and column.
//!
//! ```text
//! shapes    fields of a step that go together        numbers   bounds
//! graph     names, cycles, fan-out                   kinds     one point of no return, and what comes before and after it
//! inputs    `${…}` that exists on every path         deadline  the worst case against it (a warning)
//! children  the other definitions it names
//! ```

mod children;
mod deadline;
mod graph;
mod inputs;
mod kinds;
mod numbers;
mod problem;
mod shapes;
mod words;

use sagamore_schemas::definition::{Definition, Protocol, Step, StepKind, defaults};
use sagamore_schemas::ids::Span;

pub use self::children::children;
use self::deadline::deadline_warning;
use self::graph::Graph;
use self::inputs::first_branches;
use self::kinds::role;
pub use self::problem::{Problem, ProblemCode};
#[cfg(feature = "source")]
pub(super) use self::words::nearest;
use super::condition::Condition;
use super::plan::{BranchIndex, Plan, PlanBranch, PlanStep, Retry, StepIndex};

/// Most attempts of one operation: more is a retriable step in disguise.
pub const ATTEMPTS_MAX: u32 = 1000;
/// Largest growth of the pause between attempts: above it the second pause is the longest one.
pub const FACTOR_MAX: u32 = 10;
/// Most steps that wait for one step, and most that one step waits for: one reply starts at most so many commands.
pub const FAN_OUT_MAX: usize = 64;
/// Most generations below a definition: children, their children, and what undoes them.
pub const NESTING_MAX: u32 = 16;
/// Most branches of a definition, those of groups counted one by one: each has its place in the state record.
pub const BRANCHES_MAX: usize = 500;

///
/// ```
/// use sagamore_decider::definition::check::compile;
/// use sagamore_schemas::definition::Definition;
/// let definition = Definition::from_json(
///     r#"{"name":"order","version":1,"steps":[
///         {"name":"reserve","participant":"inventory"},
///         {"name":"ship","participant":"shipping","kind":"retriable","after":["reserv"]}]}"#,
/// ).unwrap();
/// let problems = compile(&definition).unwrap_err();
/// assert_eq!(
///     problems[0].to_string(),
///     "steps[1].after[0]: there is no step `reserv` (unknown-step); did you mean `reserve`?",
/// );
/// ```
pub fn compile(definition: &Definition) -> Result<Plan, Vec<Problem>> {
    let mut check = Check { problems: Vec::new() };
    check.shapes(definition);
    check.numbers(definition);
    let names = check.step_names(definition);
    let Some(graph) = check.graph(definition, &names) else { return Err(check.sorted()) };
    check.kinds(definition, &graph);
    let inputs = check.inputs(definition, &names, &graph);
    if !check.problems.is_empty() {
        return Err(check.sorted());
    }
    Ok(assembled(definition, &graph, inputs))
}

/// What is allowed and probably not meant.
pub fn warnings(plan: &Plan) -> Vec<Problem> {
    deadline_warning(plan).into_iter().chain(unilateral_warnings(plan)).collect()
}

fn unilateral_warnings(plan: &Plan) -> impl Iterator<Item = Problem> {
    plan.indexed().filter_map(|(index, step)| {
        let after = step.unilateral_after?;
        Some(Problem {
            code: ProblemCode::Unilateral,
            path: format!("steps[{index}].termination"),
            message: format!(
                "the branches of `{}` decide by themselves after {after}: one message or process slower than that, once, \
                 and some have committed while others have aborted",
                step.name
            ),
            help: "take `termination` away: a branch in doubt then asks, and is answered from the log".to_owned(),
        })
    })
}

struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn add(
        &mut self,
        code: ProblemCode,
        path: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(Problem { code, path: path.into(), message: message.into(), help: help.into() });
    }

    /// In the order of the document's steps; what concerns the whole comes first.
    fn sorted(mut self) -> Vec<Problem> {
        let position = |problem: &Problem| {
            let (step, _) = problem.path.strip_prefix("steps[")?.split_once(']')?;
            step.parse::<usize>().ok()
        };
        self.problems.sort_by_cached_key(position);
        self.problems
    }
}

type Parts<'a> = (&'a Step, (Option<Condition>, Vec<PlanBranch>));

fn assembled(
    definition: &Definition,
    graph: &Graph,
    inputs: Vec<(Option<Condition>, Vec<PlanBranch>)>,
) -> Plan {
    let indexes = |list: &[usize]| list.iter().map(|&position| StepIndex::from_position(position)).collect();
    let first_branches = first_branches(definition);
    let step = |(position, (step, (when, branches))): (usize, Parts<'_>)| PlanStep {
        name: step.name.clone(),
        kind: role(step),
        protocol: step.protocol.or((step.kind == StepKind::Reserved).then_some(Protocol::TwoPhase)),
        unilateral_after: step.termination.and(step.assumes_synchrony_ms).map(|ms| Span::from_ms(ms.into())),
        when,
        is_group: step.branches.is_some(),
        branches,
        first_branch: BranchIndex::from_position(first_branches[position]),
        after: indexes(&graph.after[position]),
        before: indexes(&graph.before[position]),
        timeout: step.timeout.unwrap_or(defaults::TIMEOUT),
        retry: retry_of(step),
    };
    let steps: Vec<PlanStep> = definition.steps.iter().zip(inputs).enumerate().map(step).collect();
    Plan::new(
        definition.name.clone(),
        definition.version,
        definition.deadline.unwrap_or(defaults::DEADLINE),
        definition.compensated_by.clone(),
        steps,
    )
}

fn retry_of(step: &Step) -> Retry {
    let retry = step.retry.clone().unwrap_or_default();
    let attempts = match step.kind {
        _ if step.definition.is_some() => Retry::UNBOUNDED,
        StepKind::Pivot | StepKind::Retriable => Retry::UNBOUNDED,
        StepKind::Compensatable | StepKind::Reserved => retry.attempts.unwrap_or(defaults::ATTEMPTS),
    };
    Retry {
        attempts,
        backoff: retry.backoff.unwrap_or(defaults::BACKOFF),
        factor: retry.factor.unwrap_or(defaults::FACTOR),
        max: retry.max.unwrap_or(defaults::BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests;

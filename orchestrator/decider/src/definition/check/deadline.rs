//! The warning about a deadline that can fall before the last attempt, with its arithmetic.

use std::collections::BTreeMap;

use sagamore_schemas::definition::StepKind;

use super::problem::{Problem, ProblemCode};
use crate::definition::plan::{Plan, PlanStep, Retry, StepIndex};

/// The longest way to the decision, every attempt timing out, against the deadline. A pivot that is executed is not
/// counted: once it is asked, the deadline is refused. Nor is the `commit` of a group in its place: it has no bound.
pub(super) fn deadline_warning(plan: &Plan) -> Option<Problem> {
    // By position: milliseconds until the step has succeeded, and the step before it on that way.
    let mut ends: BTreeMap<StepIndex, (u64, Option<StepIndex>)> = BTreeMap::new();
    let counts = |step: &PlanStep| match step.kind {
        StepKind::Compensatable | StepKind::Reserved => true,
        StepKind::Pivot => step.protocol.is_some(),
        StepKind::Retriable => false,
    };
    // Steps may stand before those they wait for; as many rounds as steps are enough, and a sorted file needs two.
    loop {
        let mut has_grown = false;
        for (index, step) in plan.indexed().filter(|(_, step)| counts(step)) {
            let earlier = step.after.iter().filter_map(|at| Some((ends.get(at)?.0, *at))).max();
            let (begin, from) = earlier.map_or((0, None), |(end, at)| (end, Some(at)));
            let end = begin.saturating_add(worst_case_ms(step));
            has_grown |= ends.insert(index, (end, from)) != Some((end, from));
        }
        if !has_grown {
            break;
        }
    }
    let (&last, &(worst_ms, _)) = ends.iter().max_by_key(|(_, (end, _))| *end)?;
    if worst_ms <= plan.deadline.as_ms() {
        return None;
    }
    let mut way = vec![last];
    while let Some(from) = ends[&way[way.len() - 1]].1 {
        way.push(from);
    }
    Some(Problem {
        code: ProblemCode::DeadlineTooShort,
        path: "deadline".to_owned(),
        message: format!(
            "the worst case, {}, is longer than the deadline, {}: {}",
            human(worst_ms),
            human(plan.deadline.as_ms()),
            arithmetic(plan, &way)
        ),
        help:
            "raise `deadline`, or lower `timeout` or `retry.attempts`; else the last attempts are never made"
                .to_owned(),
    })
}

/// A child is not counted: it has a deadline of its own.
fn worst_case_ms(step: &PlanStep) -> u64 {
    if step.is_child() {
        return 0;
    }
    let attempts_ms = step.timeout.as_ms().saturating_mul(step.retry.attempts.into());
    attempts_ms.saturating_add(pauses_ms(step.retry))
}

fn pauses_ms(retry: Retry) -> u64 {
    (1..retry.attempts).map(|attempt| retry.delay(attempt).as_ms()).sum()
}

/// `reserve 5 x 5s + 1.5s of pauses = 26.5s; …`, from the first step to the last.
fn arithmetic(plan: &Plan, way_back: &[StepIndex]) -> String {
    const SHOWN: usize = 6;
    let part = |&index: &StepIndex| {
        let PlanStep { name, timeout, retry, .. } = plan.step(index);
        if retry.attempts == Retry::UNBOUNDED {
            return format!("{name}, a child, is not counted");
        }
        let (pauses, total) = (human(pauses_ms(*retry)), human(worst_case_ms(plan.step(index))));
        format!("{name} {} x {} + {pauses} of pauses = {total}", retry.attempts, human(timeout.as_ms()))
    };
    let mut parts: Vec<String> = way_back.iter().rev().take(SHOWN).map(part).collect();
    if way_back.len() > SHOWN {
        parts.push(format!("and {} more steps", way_back.len() - SHOWN));
    }
    parts.join("; ")
}

/// Milliseconds as a person writes them: `1m 1.5s`.
fn human(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, size) in units {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if rest > 0 || parts.is_empty() {
        let fraction = format!("{:03}", rest % 1000);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        parts.push(format!("{}{point}{fraction}s", rest / 1000));
    }
    parts.join(" ")
}

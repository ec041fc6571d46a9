//! Definitions that start others, two levels deep at most: applied with the children first, and what undoes them before these.

use fastrand::Rng;

use super::{Draft, Kind, Shape, limits, mixed, name_of, single};

/// What undoes a child: never started by itself.
const UNDOING: &str = "put-back";
/// What may be a child of an order.
const NAMED: [&str; 3] = ["errand@1", "errand@1", "journey@1"];

/// Definitions in the order in which they are applied, as JSON.
pub fn children(rng: &mut Rng) -> Vec<String> {
    let put_back = undoing(rng);
    let put_back_by_another = undoing_by_another(rng);
    let (errand, journey) = (small(rng, &[]), small(rng, &["errand@1"]));
    let undo = [1, 2][rng.usize(0..2)];
    let mut all = vec![
        definition(rng, UNDOING, 1, None, &put_back),
        definition(rng, UNDOING, 2, None, &put_back_by_another),
        definition(rng, "errand", 1, Some(1), &errand),
        definition(rng, "journey", 1, Some(undo), &journey),
    ];
    for name in ["whole-0", "whole-1"] {
        let steps = mixed(rng, &NAMED);
        all.push(definition(rng, name, 1, None, &steps));
    }
    all
}

/// What orders are for: one that starts others more often than the others.
pub(super) fn names(definitions: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for json in definitions {
        let name = name_of(json);
        if !name.starts_with(UNDOING) {
            let times = if name.starts_with("whole") { 3 } else { 1 };
            names.extend(std::iter::repeat_n(name, times));
        }
    }
    names
}

fn definition(rng: &mut Rng, name: &str, version: u32, undo: Option<u32>, steps: &[String]) -> String {
    let plain = super::definition(rng, name, version, steps);
    match undo {
        Some(undo) => plain.replacen('{', &format!(r#"{{"compensated_by":"{UNDOING}@{undo}","#), 1),
        None => plain,
    }
}

/// The same shape, or a step of its kind that starts one of the definitions in `named`.
pub(super) fn or_child(rng: &mut Rng, shape: Shape, named: &[&'static str]) -> Shape {
    match shape {
        Shape::Single(kind) if kind != Kind::Reserved && !named.is_empty() && rng.bool() => {
            Shape::Child(kind, named[rng.usize(0..named.len())])
        }
        shape => shape,
    }
}

/// A step that starts a definition. Without `input` the child gets what its parent got.
pub(super) fn child(
    rng: &mut Rng,
    name: &str,
    kind: Kind,
    named: &str,
    after: &[&Draft],
    when: Option<&str>,
) -> Draft {
    let mapped = super::input(rng, after, when);
    let input = match mapped.strip_prefix(r#"{"delta":3,"#) {
        Some(rest) => format!(r#","input":{{"n":"${{input.n}}","who":"${{input.who}}",{rest}"#),
        None if rng.bool() => r#","input":{"n":"${input.n}","who":"${input.who}"}"#.to_owned(),
        None => String::new(),
    };
    starting(rng, name, kind, named, &input)
}

fn starting(rng: &mut Rng, name: &str, kind: Kind, named: &str, input: &str) -> Draft {
    Draft {
        name: name.to_owned(),
        after: None,
        when: None,
        shape: format!(r#""definition":"{named}","kind":"{}"{input}"#, kind.word()),
        limits: limits(rng, false),
        result: format!("steps.{name}.steps.s0"),
    }
}

/// One or two steps that can be undone, perhaps a point of no return, perhaps something after it.
fn small(rng: &mut Rng, named: &[&'static str]) -> Vec<String> {
    let mut kinds = vec![Kind::Compensatable];
    if rng.bool() {
        kinds.push(Kind::Compensatable);
    }
    kinds.extend([None, Some(Kind::Pivot), Some(Kind::Retriable)][rng.usize(0..3)]);
    let mut drafts: Vec<Draft> = Vec::new();
    for kind in kinds {
        // Whoever maps a result of it names its first step.
        let shape = Shape::Single(kind);
        let shape = if drafts.is_empty() { shape } else { or_child(rng, shape, named) };
        let after = (0..drafts.len()).collect();
        let next = super::draft(rng, &drafts, shape, after);
        drafts.push(next);
    }
    drafts.iter().map(Draft::json).collect()
}

/// What undoes a child is told its input and its result; the result is not there when it was too large.
fn undoing(rng: &mut Rng) -> Vec<String> {
    let input = if rng.u8(0..12) == 0 {
        r#"{"delta":2,"from":"${input.result.steps.s0.made}"}"#
    } else {
        r#"{"delta":2,"who":"${input.input.who}"}"#
    };
    let first = single(rng, "s0", Kind::Compensatable, input);
    let rest = [None, Some(Kind::Pivot), Some(Kind::Retriable)][rng.usize(0..3)];
    let rest = rest.map(|kind| single(rng, "s1", kind, r#"{"delta":2}"#));
    std::iter::once(first).chain(rest).map(|draft| draft.json()).collect()
}

fn undoing_by_another(rng: &mut Rng) -> Vec<String> {
    let first = single(rng, "s0", Kind::Compensatable, r#"{"delta":2,"who":"${input.input.who}"}"#);
    let kind = [Kind::Pivot, Kind::Retriable][rng.usize(0..2)];
    let input = r#","input":{"input":{"who":"${input.input.who}"},"result":"${input.result}"}"#;
    let last = starting(rng, "c1", kind, "put-back@1", input);
    vec![first.json(), last.json()]
}

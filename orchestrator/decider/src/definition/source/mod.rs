//! The text of a definition (YAML; JSON is YAML here), with line and column of everything in it.
//!
//! ```text
//! text --saphyr-parser--> events --> Node, a tree with places --> JSON text --serde--> Definition --> check
//!                                      ^                                      |
//!                                      +--- the faulty part is replaced <-----+ until the shape is right
//! ```
//!
//! The type in `schemas` is the only description of the shape: serde tells one fault at a time, so each is noted, its
//! place is filled with something harmless, and the document is read again. Then the check runs too, and what it says
//! of filled places is dropped. Scalars keep their text, so numbers keep every digit.
//!
//! Deliberately absent, and refused: anchors and aliases (a text of 64 KiB stays one of 64 KiB), tags, several documents
//! in a file, keys that are not text, numbers that are not JSON's (`007`, `0x1F`, `.5`).

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::definition::Definition;

mod shape;
mod tree;

use self::shape::Shape;
use self::tree::Reader;
use super::check::{Problem, ProblemCode, compile, warnings};
use super::plan::Plan;

/// Deepest nesting of a text; the tree is walked by recursion. An `input` has a bound of its own below it.
pub const TEXT_DEPTH_MAX: usize = 32;
/// Most faults of shape told of one text: each costs one more reading.
pub const SHAPE_FAULTS_MAX: usize = 50;

/// What a text turned out to be.
#[derive(Debug)]
pub struct Checked {
    /// The text with its places, to print problems.
    pub source: Source,
    /// The definition and its plan, or every problem.
    pub result: Result<(Definition, Plan), Vec<Problem>>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
}

/// A text, and where everything stands in it.
#[derive(Debug)]
pub struct Source {
    text: String,
    places: BTreeMap<String, Places>,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters, on this line; at least 1.
    pub length: usize,
}

/// Whether a problem is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The definition is refused.
    Error,
    /// It is accepted.
    Warning,
}

#[derive(Debug, Clone, Copy)]
struct Places {
    /// The key, of a field.
    key: Option<Place>,
    value: Place,
    is_scalar: bool,
}

/// Reads and checks a text.
///
/// ```
/// use sagamore_decider::definition::source::{Severity, read};
/// let checked = read("name: order\nversion: 1\nsteps:\n  - name: reserve\n    participants: inventory\n");
/// let problems = checked.result.unwrap_err();
/// assert_eq!(checked.source.report("order.yaml", Severity::Error, &problems[0]), "\
/// error[unknown-field]: there is no field `participants` here
///  --> order.yaml:5:5
///   |
/// 5 |     participants: inventory
///   |     ^^^^^^^^^^^^
///   = help: did you mean `participant`?
/// ");
/// ```
pub fn read(text: &str) -> Checked {
    let mut reader = Reader { places: BTreeMap::new(), problems: Vec::new(), depth: 0 };
    let tree = reader.tree(text);
    let mut shape = Shape { problems: reader.problems, filled: BTreeSet::new() };
    let definition = tree.and_then(|tree| shape.definition(tree));
    let source = Source { text: text.to_owned(), places: reader.places };
    let compiled = definition.as_ref().map(compile);
    let mut problems = match &compiled {
        None | Some(Ok(_)) => shape.problems,
        Some(Err(found)) => shape.with(found),
    };
    problems.sort_by_cached_key(|problem| source.place(problem));
    let result = match (definition, compiled) {
        (Some(definition), Some(Ok(plan))) if problems.is_empty() => Ok((definition, plan)),
        _ => Err(problems),
    };
    let warnings = result.as_ref().map(|(_, plan)| warnings(plan)).unwrap_or_default();
    Checked { source, result, warnings }
}

impl Source {
    /// Where a problem stands: its path, or what is there of it.
    pub fn place(&self, problem: &Problem) -> Place {
        let mut path = problem.path.as_str();
        let places = loop {
            if let Some(places) = self.places.get(path) {
                break places;
            }
            let Some(end) = path.rfind(['.', '[']) else {
                break self.places.get("").unwrap_or(&Places::START);
            };
            path = &path[..end];
        };
        let is_about_key = match problem.code {
            ProblemCode::UnknownField | ProblemCode::DuplicateKey => true,
            _ => !places.is_scalar,
        };
        places.key.filter(|_| is_about_key).unwrap_or(places.value)
    }

    /// The problem with its line, as rustc prints it.
    pub fn report(&self, file: &str, severity: Severity, problem: &Problem) -> String {
        let Place { line, column, length } = self.place(problem);
        let level = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let margin = " ".repeat(line.to_string().len());
        let (shown, indent) = self.excerpt(line, column);
        let marks =
            "^".repeat(length.min(shown.chars().count().saturating_sub(indent.chars().count())).max(1));
        format!(
            "{level}[{}]: {}\n{margin}--> {file}:{line}:{column}\n{margin} |\n{line} | {shown}\n{margin} | {indent}{marks}\n{margin} = help: {}\n",
            problem.code, problem.message, problem.help
        )
    }

    /// The line, or the part of it around the column, and what stands before the marks.
    fn excerpt(&self, line: usize, column: usize) -> (String, String) {
        const BEFORE: usize = 60;
        const SHOWN: usize = 110;
        let line = self.text.lines().nth(line - 1).unwrap_or_default();
        let first = (column - 1).saturating_sub(BEFORE);
        let printable = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        let shown: String = line.chars().map(printable).skip(first).take(SHOWN).collect();
        let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
        let indent = shown.chars().take(column - 1 - first).map(blank).collect();
        (shown.trim_end().to_owned(), indent)
    }
}

impl Places {
    const START: Self = Self { key: None, value: Place { line: 1, column: 1, length: 1 }, is_scalar: true };
}

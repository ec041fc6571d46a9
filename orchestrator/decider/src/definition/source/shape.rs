//! From a tree to the type: the faulty part is noted and replaced until the shape is right.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sagamore_schemas::definition::Definition;
use serde_path_to_error::Segment;

use super::SHAPE_FAULTS_MAX;
use super::tree::{Node, field_path};
use crate::definition::check::{Problem, ProblemCode, nearest};

/// From a tree to the type, one fault after the other.
pub(super) struct Shape {
    pub problems: Vec<Problem>,
    /// Paths whose content is no longer what was written.
    pub filled: BTreeSet<String>,
}

impl Shape {
    pub fn definition(&mut self, mut tree: Node) -> Option<Definition> {
        self.empty_fields(&mut tree);
        for faults in 0..=SHAPE_FAULTS_MAX {
            let mut json = String::new();
            tree.write_json(&mut json);
            let error = match serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&json))
            {
                Ok(definition) => return Some(definition),
                Err(error) if faults < SHAPE_FAULTS_MAX => error,
                Err(_) => break,
            };
            let segments: Vec<Segment> = error.path().iter().cloned().collect();
            self.mend(&mut tree, &segments, &error.inner().to_string())?;
        }
        self.note(ProblemCode::Unreadable, "", format!("more than {SHAPE_FAULTS_MAX} faults"), "mend these");
        None
    }

    fn note(&mut self, code: ProblemCode, path: &str, message: impl Into<String>, help: impl Into<String>) {
        // What follows from a fault that has been told (an alias, say) is not told again.
        let is_consequence =
            code == ProblemCode::BadValue && self.problems.iter().any(|known| known.path == path);
        if is_consequence {
            return;
        }
        self.problems.push(Problem {
            code,
            path: path.to_owned(),
            message: message.into(),
            help: help.into(),
        });
    }

    /// The problems of the check beside those of the shape, without what is about filled places.
    pub fn with(mut self, found: &[Problem]) -> Vec<Problem> {
        let concerns_graph = |path: &String| {
            let last = path.rsplit('.').next().unwrap_or_default();
            last.ends_with(']')
                || matches!(
                    last,
                    "after" | "kind" | "name" | "steps" | "branches" | "commit" | "compensate" | "protocol"
                )
        };
        let is_graph_known = !self.filled.iter().any(concerns_graph);
        let is_sound = |problem: &&Problem| match problem.code {
            ProblemCode::UnknownStep
            | ProblemCode::DuplicateStep
            | ProblemCode::DuplicateAfter
            | ProblemCode::Cycle
            | ProblemCode::FanOut
            | ProblemCode::DuplicateBranch
            | ProblemCode::UnknownBranch
            | ProblemCode::Contradiction
            | ProblemCode::SecondPivot
            | ProblemCode::NotBeforePivot
            | ProblemCode::AfterRetriable
            | ProblemCode::FiniteAttempts
            | ProblemCode::MayBeSkipped
            | ProblemCode::NotAnAncestor => is_graph_known,
            ProblemCode::Unreadable
            | ProblemCode::UnknownDefinition
            | ProblemCode::NoWayBack
            | ProblemCode::TooDeep
            | ProblemCode::MissingInput
            | ProblemCode::DuplicateKey
            | ProblemCode::UnknownField
            | ProblemCode::MissingField
            | ProblemCode::BadValue
            | ProblemCode::OutOfBounds
            | ProblemCode::StepCount
            | ProblemCode::BadTemplate
            | ProblemCode::BadCondition
            | ProblemCode::Unilateral
            | ProblemCode::DeadlineTooShort => true,
        };
        let is_filled = |problem: &&Problem| {
            let is_misspelt =
                problem.code == ProblemCode::MissingField && self.is_misspelt(&problem.path, "participant");
            is_misspelt || self.filled.contains(&problem.path)
        };
        let kept: Vec<Problem> = found.iter().filter(|p| is_sound(p) && !is_filled(p)).cloned().collect();
        self.problems.extend(kept);
        self.problems
    }

    /// Whether an unknown field of the same mapping was probably meant to be this one.
    fn is_misspelt(&self, path: &str, field: &str) -> bool {
        let meant = meant(field, &[field]);
        let stands_there =
            |known: &Problem| known.path.rsplit_once('.').map_or("", |(parent, _)| parent) == path;
        let mut unknown = self.problems.iter().filter(|known| known.code == ProblemCode::UnknownField);
        unknown.any(|known| stands_there(known) && known.help == meant)
    }

    /// A field without a value would read as left out, which `after:` is not meant to be.
    fn empty_fields(&mut self, tree: &mut Node) {
        self.empty_fields_of(tree, "");
        let Some(Node::Array(steps)) = tree.child(&Segment::Map { key: "steps".to_owned() }) else { return };
        for (position, step) in steps.iter_mut().enumerate() {
            let path = format!("steps[{position}]");
            self.empty_fields_of(step, &path);
            if let Some(retry) = step.child(&Segment::Map { key: "retry".to_owned() }) {
                self.empty_fields_of(retry, &format!("{path}.retry"));
            }
        }
    }

    fn empty_fields_of(&mut self, node: &mut Node, path: &str) {
        let Node::Object(fields) = node else { return };
        fields.retain(|(key, value)| {
            let is_empty = key != "input" && matches!(value, Node::Scalar(json) if json == "null");
            if is_empty {
                let help = if key == "after" {
                    "write `after: []` for a step that waits for none, or remove it to wait for the one before"
                } else {
                    "write a value, or remove the field"
                };
                let path = field_path(path, key);
                // Unknown ones are told as such below.
                self.note(ProblemCode::BadValue, &path, format!("`{key}` has no value"), help);
                self.filled.insert(path);
            }
            !is_empty
        });
    }

    /// Notes the fault and fills its place. `None` when nothing can be put there.
    fn mend(&mut self, tree: &mut Node, segments: &[Segment], message: &str) -> Option<()> {
        // serde_json adds a place in a text that nobody has seen.
        let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
        let path = path_of(segments);
        if let Some(field) = message.strip_prefix("missing field ").map(|field| field.trim_matches('`')) {
            let field_path = field_path(&path, field);
            if self.filled.insert(field_path.clone()) && !self.is_misspelt(&path, field) {
                let help = format!("add `{field}: …`");
                self.note(ProblemCode::MissingField, &path, format!("there is no `{field}` here"), help);
            }
            let node = segments.iter().try_fold(tree, |node, segment| node.child(segment))?;
            let Node::Object(fields) = node else { return None };
            fields.push((field.to_owned(), filling(&field_path)?));
            return Some(());
        }
        let (last, parents) = segments.split_last().or_else(|| {
            self.note(ProblemCode::BadValue, "", message, "write `name`, `version` and `steps`");
            None
        })?;
        let (code, message, help) = told(message, &path);
        self.note(code, &path, message, help);
        self.filled.insert(path.clone());
        let parent = parents.iter().try_fold(tree, |node, segment| node.child(segment))?;
        let filling = filling(&path).filter(|_| code != ProblemCode::UnknownField);
        match (parent, last, filling) {
            (parent, last, Some(filling)) => *parent.child(last)? = filling,
            (Node::Object(fields), Segment::Map { key }, None) => fields.retain(|(name, _)| *name != *key),
            _ => return None,
        }
        Some(())
    }
}

fn path_of(segments: &[Segment]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        match segment {
            Segment::Seq { index } => _ = write!(path, "[{index}]"),
            Segment::Map { key } => path = field_path(&path, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
        path
    })
}

/// Something harmless for what has to be there, and is not or is wrong.
fn filling(path: &str) -> Option<Node> {
    let last = path.rsplit('.').next().unwrap_or_default();
    let name =
        || Node::text(&format!("unnamed-{}", path.matches(|c: char| c.is_ascii_digit()).collect::<String>()));
    let field = |key: &str, node| (key.to_owned(), node);
    match last.split('[').next().unwrap_or_default() {
        "version" => Some(Node::Scalar("1".to_owned())),
        "name" | "participant" => Some(name()),
        "after" if last.ends_with(']') => Some(name()),
        "steps" if last.ends_with(']') => {
            Some(Node::Object(vec![field("name", name()), field("participant", name())]))
        }
        "steps" => Some(Node::Array(Vec::new())),
        "branches" if last.ends_with(']') => Some(Node::Object(vec![field("participant", name())])),
        _ => None,
    }
}

/// What serde says, for a person.
fn told(message: &str, path: &str) -> (ProblemCode, String, String) {
    let known: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        let (field, known) = known.split_first().map_or(("", &[][..]), |(field, known)| (*field, known));
        return (ProblemCode::UnknownField, format!("there is no field `{field}` here"), meant(field, known));
    }
    if message.starts_with("unknown variant") {
        let (value, known) = known.split_first().map_or(("", &[][..]), |(value, known)| (*value, known));
        return (ProblemCode::BadValue, format!("`{value}` is not known here"), meant(value, known));
    }
    let help = match path.rsplit('.').next().unwrap_or_default() {
        "deadline" | "timeout" | "backoff" | "max" => "write an integer and ms, s, m, h or d, such as 30s",
        "version" | "attempts" | "factor" => "write a whole number, without quotes",
        "definition" | "compensated_by" => "write name@version, such as refund@2",
        "name" | "participant" => "write 1-32 characters of a-z, 0-9 and -",
        last if last.starts_with("after") => "write a list of step names, such as [reserve, pay]",
        "input" => "let the participant build what is so deep",
        _ => "definition.schema.json describes every field",
    };
    (ProblemCode::BadValue, message.to_owned(), help.to_owned())
}

fn meant(given: &str, known: &[&str]) -> String {
    match nearest(given, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.join(", ")),
    }
}

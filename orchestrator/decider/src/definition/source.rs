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

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sagamore_schemas::definition::{DEFINITION_MAX_BYTES, Definition};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_path_to_error::Segment;

use super::check::{Problem, ProblemCode, compile, nearest, warnings};
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

/// A part of the text.
#[derive(Debug)]
enum Node {
    /// JSON text.
    Scalar(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// From events to a tree. Faults that leave the rest readable are noted; the others end the reading.
struct Reader {
    places: BTreeMap<String, Places>,
    problems: Vec<Problem>,
    depth: usize,
}

/// The reading cannot go on; the problem has been noted.
struct Unreadable;

type Events<'a> = Parser<'a, StrInput<'a>>;

impl Reader {
    fn tree(&mut self, text: &str) -> Option<Node> {
        if text.len() > DEFINITION_MAX_BYTES {
            let message = format!("the text has {} bytes", text.len());
            self.note(
                ProblemCode::Unreadable,
                "",
                message,
                format!("keep it within {DEFINITION_MAX_BYTES} bytes"),
            );
            return None;
        }
        let text = with_yaml_escapes(text);
        let mut events = Parser::new_from_str(&text);
        let mut tree = None;
        loop {
            let (event, span) = self.next(&mut events).ok()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if tree.is_some() => {
                    self.places
                        .insert(String::new(), Places { key: None, value: place(span), is_scalar: true });
                    let help = "write one definition per file";
                    self.note(ProblemCode::Unreadable, "", "a second document begins here", help);
                    return None;
                }
                event => tree = Some(self.node(&mut events, event, span, "", None).ok()?),
            }
        }
        if tree.is_none() {
            self.note(
                ProblemCode::Unreadable,
                "",
                "there is nothing here",
                "write `name`, `version` and `steps`",
            );
        }
        tree
    }

    fn next<'a>(&mut self, events: &mut Events<'a>) -> Result<(Event<'a>, Span), Unreadable> {
        match events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.scan_error(&error)),
            None => unreachable!("the parser ends with StreamEnd, and nothing is asked of it after that"),
        }
    }

    fn scan_error(&mut self, error: &ScanError) -> Unreadable {
        let value = place(Span::empty(*error.marker()));
        // What cannot be read has no path: the place of the whole document is where reading stopped.
        self.places.insert(String::new(), Places { key: None, value, is_scalar: true });
        let help = "mend the YAML here or just above; a text with `: `, `#` or a leading `*`, `&`, `[` or `{` needs quotes";
        self.note(ProblemCode::Unreadable, "", format!("not YAML: {}", error.info()), help);
        Unreadable
    }

    fn note(&mut self, code: ProblemCode, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem {
            code,
            path: path.to_owned(),
            message: message.into(),
            help: help.into(),
        });
    }

    fn node(
        &mut self,
        events: &mut Events<'_>,
        event: Event<'_>,
        span: Span,
        path: &str,
        key: Option<Place>,
    ) -> Result<Node, Unreadable> {
        // A scalar that is not there may be placed lines below its key.
        let is_scalar = matches!(event, Event::Scalar(..) | Event::Alias(_)) && !span.is_empty();
        let length = if is_scalar { place(span).length } else { usize::MAX };
        self.places
            .insert(path.to_owned(), Places { key, value: Place { length, ..place(span) }, is_scalar });
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            _ => (0, false),
        };
        if anchor != 0 || matches!(event, Event::Alias(_)) {
            let help = "write the value out where it is used";
            self.note(ProblemCode::Unreadable, path, "anchors and aliases are not read", help);
        }
        if tag {
            self.note(
                ProblemCode::Unreadable,
                path,
                "tags are not read",
                "remove the tag, and quote what is text",
            );
        }
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Ok(Node::Scalar(self.plain(&text, path))),
            Event::Scalar(text, ..) => Ok(Node::text(&text)),
            Event::SequenceStart(..) => self.array(events, path),
            Event::MappingStart(..) => self.object(events, path),
            // An alias, noted above.
            _ => Ok(Node::Scalar("null".to_owned())),
        }
    }

    fn array(&mut self, events: &mut Events<'_>, path: &str) -> Result<Node, Unreadable> {
        self.deeper(path)?;
        let mut elements = Vec::new();
        loop {
            let (event, span) = self.next(events)?;
            if event == Event::SequenceEnd {
                self.depth -= 1;
                return Ok(Node::Array(elements));
            }
            let path = format!("{path}[{}]", elements.len());
            elements.push(self.node(events, event, span, &path, None)?);
        }
    }

    fn object(&mut self, events: &mut Events<'_>, path: &str) -> Result<Node, Unreadable> {
        self.deeper(path)?;
        let mut fields: Vec<(String, Node)> = Vec::new();
        let mut seen = BTreeSet::new();
        loop {
            let (event, key_span) = self.next(events)?;
            let key = match event {
                Event::MappingEnd => {
                    self.depth -= 1;
                    return Ok(Node::Object(fields));
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    self.note(
                        ProblemCode::Unreadable,
                        path,
                        "a key that is not text",
                        "write a plain word before the `:`",
                    );
                    return Err(Unreadable);
                }
            };
            let path = field_path(path, &key);
            let (event, span) = self.next(events)?;
            if seen.insert(key.clone()) {
                let node = self.node(events, event, span, &path, Some(place(key_span)))?;
                fields.push((key, node));
            } else {
                let first = self.places.get(&path).and_then(|places| places.key).map_or(0, |key| key.line);
                // The second one is read for its faults only, under a path of its own.
                let path = format!("{path}.<again:{}>", key_span.start.index());
                self.node(events, event, span, &path, Some(place(key_span)))?;
                let message = format!("`{key}` stands on line {first} already");
                self.note(ProblemCode::DuplicateKey, &path, message, "keep one of them");
            }
        }
    }

    fn deeper(&mut self, path: &str) -> Result<(), Unreadable> {
        self.depth += 1;
        if self.depth <= TEXT_DEPTH_MAX {
            return Ok(());
        }
        let message = format!("nested deeper than {TEXT_DEPTH_MAX} levels");
        self.note(ProblemCode::Unreadable, path, message, "let the participant build what is so deep");
        Err(Unreadable)
    }

    /// JSON text of a scalar without quotes, by the core schema of YAML 1.2.
    fn plain(&mut self, text: &str, path: &str) -> String {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => "null".to_owned(),
            "true" | "True" | "TRUE" => "true".to_owned(),
            "false" | "False" | "FALSE" => "false".to_owned(),
            _ if is_json_number(text) => text.to_owned(),
            _ if is_yaml_number(text) => {
                let message = format!("`{text}` is a number in YAML and not in JSON");
                self.note(
                    ProblemCode::BadValue,
                    path,
                    message,
                    "quote it when it is text, else write it as JSON does",
                );
                "0".to_owned()
            }
            _ => quoted(text),
        }
    }
}

/// JSON writes a character beyond the basic plane as two escapes, `\ud83d\ude00`, YAML as one, `\U0001F600`. What stands
/// after it on the same line is then told two columns too far left.
fn with_yaml_escapes(text: &str) -> Cow<'_, str> {
    let is_json = || serde_json::from_str::<IgnoredAny>(text).is_ok();
    if !text.contains("\\ud") && !text.contains("\\uD") || !is_json() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(backslash) = rest.find('\\') {
        let (before, escape) = rest.split_at(backslash);
        out.push_str(before);
        let pair =
            escape.get(..12).and_then(|pair| serde_json::from_str::<String>(&format!("\"{pair}\"")).ok());
        let pair = pair.and_then(|pair| pair.chars().next()).filter(|first| *first > '\u{ffff}');
        // A backslash and what it escapes stay together: `\\` must not begin another escape.
        let escaped = escape.split_at(if pair.is_some() { 12 } else { 2 });
        match pair {
            Some(character) => _ = write!(out, "\\U{:08X}", u32::from(character)),
            None => out.push_str(escaped.0),
        }
        rest = escaped.1;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn place(span: Span) -> Place {
    let (start, end) = (span.start, span.end);
    // A place that spans lines is marked to the end of its first one.
    let length = if start.line() == end.line() { end.col() - start.col() } else { usize::MAX };
    Place { line: start.line().max(1), column: start.col() + 1, length: length.max(1) }
}

fn field_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn is_json_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

fn is_yaml_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, 8);
    }
    let is_special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    let is_decimal =
        unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    is_special || is_decimal
}

fn quoted(text: &str) -> String {
    match serde_json::to_string(text) {
        Ok(json) => json,
        Err(error) => unreachable!("every text can be quoted: {error}"),
    }
}

impl Node {
    fn text(text: &str) -> Self {
        Self::Scalar(quoted(text))
    }

    fn write_json(&self, out: &mut String) {
        match self {
            Self::Scalar(json) => out.push_str(json),
            Self::Array(elements) => {
                out.push('[');
                for (position, element) in elements.iter().enumerate() {
                    out.push_str(if position == 0 { "" } else { "," });
                    element.write_json(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (position, (key, value)) in fields.iter().enumerate() {
                    out.push_str(if position == 0 { "" } else { "," });
                    out.push_str(&quoted(key));
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }

    fn child(&mut self, segment: &Segment) -> Option<&mut Self> {
        match (self, segment) {
            (Self::Array(elements), Segment::Seq { index }) => elements.get_mut(*index),
            (Self::Object(fields), Segment::Map { key }) => {
                fields.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// From a tree to the type, one fault after the other.
struct Shape {
    problems: Vec<Problem>,
    /// Paths whose content is no longer what was written.
    filled: BTreeSet<String>,
}

impl Shape {
    fn definition(&mut self, mut tree: Node) -> Option<Definition> {
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
    fn with(mut self, found: &[Problem]) -> Vec<Problem> {
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
            (Node::Object(fields), Segment::Map { key }, None) => fields.retain(|(name, _)| name != key),
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

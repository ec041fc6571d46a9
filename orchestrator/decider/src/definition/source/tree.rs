//! From YAML events to a tree whose every part has its place in the text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sagamore_schemas::definition::DEFINITION_MAX_BYTES;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_path_to_error::Segment;

use super::{Place, Places, TEXT_DEPTH_MAX};
use crate::definition::check::{Problem, ProblemCode};

/// A part of the text.
#[derive(Debug)]
pub(super) enum Node {
    /// JSON text.
    Scalar(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// From events to a tree. Faults that leave the rest readable are noted; the others end the reading.
pub(super) struct Reader {
    pub places: BTreeMap<String, Places>,
    pub problems: Vec<Problem>,
    pub depth: usize,
}

/// The reading cannot go on; the problem has been noted.
struct Unreadable;

type Events<'a> = Parser<'a, StrInput<'a>>;

impl Reader {
    pub fn tree(&mut self, text: &str) -> Option<Node> {
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

pub(super) fn field_path(path: &str, key: &str) -> String {
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
    pub fn text(text: &str) -> Self {
        Self::Scalar(quoted(text))
    }

    pub fn write_json(&self, out: &mut String) {
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

    pub fn child(&mut self, segment: &Segment) -> Option<&mut Self> {
        match (self, segment) {
            (Self::Array(elements), Segment::Seq { index }) => elements.get_mut(*index),
            (Self::Object(fields), Segment::Map { key }) => {
                fields.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

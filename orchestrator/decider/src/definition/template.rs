//! Templates: JSON in which strings may hold paths to values of the transaction.
//!
//! - `"${input.total}"`, a string that is one path, becomes the value itself: its JSON text is copied byte for byte, so a
//!   number keeps every digit.
//! - `"order ${transaction.id}: ${input.total}"` is text: strings lose their quotes, numbers, booleans and null stand as
//!   they are written, objects and arrays as JSON without spaces.
//! - `$${` stands for `${`; any other `$` for itself.
//! - A path is `input`, `steps.<name>` (under a protocol `steps.<name>.<branch>`) or `transaction.id`, then keys or
//!   array indexes after dots. A key that holds a
//!   dot or a brace cannot be named: take the object around it. Of equal keys in one object the last counts.
//!
//! Deliberately absent: functions, defaults for missing values, conditions. Values are never parsed into a tree; a
//! lookup walks the raw text and stops at what it seeks.

use std::borrow::Cow;
use std::fmt;

use sagamore_schemas::definition::ExactJson;
use sagamore_schemas::ids::{Name, TransactionId};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::plan::BranchIndex;

/// Largest rendered input, in bytes: with its envelope a command stays well below Kafka's default of 1 MiB.
pub const RENDERED_MAX_BYTES: usize = 256 * 1024;
/// Largest rendered key, in bytes: it is compared, hashed and logged, and names a thing.
pub const KEY_MAX_BYTES: usize = 1024;
/// Most paths in one template: each walks the data once.
pub const PATHS_MAX: usize = 256;
/// Most keys and indexes in one path.
pub const PATH_SEGMENTS_MAX: usize = 16;

/// A compiled `input` or `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// JSON text.
    Literal(Box<str>),
    /// A string that is one path.
    Value(Path),
    /// A string with paths in it.
    Text(Vec<Piece>),
    Array(Vec<Node>),
    /// Keys as quoted JSON.
    Object(Vec<(Box<str>, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Path(Path),
}

/// A path to a value of the transaction. Prints as it is written: `${input.total}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    root: Root,
    segments: Vec<Box<str>>,
}

/// Where a path begins, in templates and in conditions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    Input,
    Result(ResultPath),
    TransactionId,
}

impl Root {
    pub fn is_input(&self) -> bool {
        *self == Self::Input
    }

    pub fn branch(&self) -> Option<BranchIndex> {
        match self {
            Self::Result(path) => Some(path.index),
            Self::Input | Self::TransactionId => None,
        }
    }
}

/// The result of a branch, and how it is written: the branch's own name is left out where it is alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResultPath {
    /// Whose result.
    pub index: BranchIndex,
    /// Its step.
    pub step: Name,
    /// Its name, for a step under a protocol.
    pub branch: Option<Name>,
}

/// The values that a template can name.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `${transaction.id}`
    pub transaction: &'a TransactionId,
    /// `${input.…}`: the data of the start.
    pub input: Option<&'a RawValue>,
    /// `${steps.<name>.…}`: the result of a branch.
    pub result: &'a dyn Fn(BranchIndex) -> Option<&'a RawValue>,
}

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The path leads nowhere.
    #[error("{0} does not exist")]
    Missing(String),
    /// The text around the path holds escapes that are no characters (half a surrogate pair).
    #[error("{0} is not readable text")]
    Unreadable(String),
    /// The result has more bytes than it may.
    #[error("the result is larger than {max_bytes} bytes")]
    TooLarge {
        /// [`RENDERED_MAX_BYTES`] or [`KEY_MAX_BYTES`].
        max_bytes: usize,
    },
}

/// What is wrong with a template, and where in its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault<E> {
    /// Relative to the template, such as `.lines[2].sku`; empty for the template itself.
    pub at: String,
    /// What is wrong there.
    pub cause: TemplateError<E>,
}

/// What is wrong with a template. `E` is what the caller says of a step that cannot be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError<E> {
    /// `${` without `}`.
    Unclosed,
    /// An empty path, or one with an empty, a strange or one segment too many.
    Malformed(String),
    /// A path that begins with something else than `input`, `steps.<name>` or `transaction.id`.
    UnknownRoot(String),
    /// More than [`PATHS_MAX`] paths.
    TooManyPaths,
    /// The step cannot be named here.
    Step(E),
}

/// Finds a result by the name of the step and what follows it in the path, or says why it cannot be named here.
pub type StepResolver<'a, E> = dyn Fn(&str, Option<&str>) -> Result<ResultPath, E> + 'a;

impl Template {
    /// Compiles a document; all its faults are returned.
    pub fn compile<E>(
        document: &ExactJson,
        resolve: &StepResolver<'_, E>,
    ) -> Result<Self, Vec<TemplateFault<E>>> {
        let mut compiler = Compiler { resolve, at: String::new(), paths: 0, faults: Vec::new() };
        let node = compiler.node(document);
        if compiler.paths > PATHS_MAX {
            compiler.faults.push(TemplateFault { at: String::new(), cause: TemplateError::TooManyPaths });
        }
        if compiler.faults.is_empty() { Ok(Self(node)) } else { Err(compiler.faults) }
    }

    /// The JSON text of the document with its paths replaced.
    pub fn render(&self, scope: &Scope<'_>) -> Result<String, RenderError> {
        let mut out = Output { text: String::new(), max_bytes: RENDERED_MAX_BYTES };
        self.0.render(scope, &mut out)?;
        Ok(out.text)
    }

    /// The same as text, for a record's key: a string loses its quotes.
    pub fn render_text(&self, scope: &Scope<'_>) -> Result<String, RenderError> {
        let mut out = Output { text: String::new(), max_bytes: KEY_MAX_BYTES };
        match &self.0 {
            Node::Value(path) => path.render_text(scope, &mut out)?,
            Node::Text(pieces) => render_pieces(pieces, scope, &mut out)?,
            Node::Literal(json) => out.push(&text_of(json).unwrap_or(Cow::Borrowed(json)))?,
            node @ (Node::Array(_) | Node::Object(_)) => node.render(scope, &mut out)?,
        }
        Ok(out.text)
    }

    /// Every path in the template, in its order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let mut paths = Vec::new();
        self.0.collect_paths(&mut paths);
        paths.into_iter()
    }
}

impl Template {
    /// Whether what it renders can have a value where `path` leads: `false` only when it cannot.
    pub(super) fn may_have(&self, path: &Path) -> bool {
        let mut node = &self.0;
        for segment in &path.segments {
            let found = match node {
                Node::Value(_) => return true,
                Node::Literal(json) => return json.starts_with(['{', '[']),
                Node::Text(_) => None,
                Node::Array(elements) => segment.parse().ok().and_then(|at: usize| elements.get(at)),
                Node::Object(fields) => {
                    fields.iter().rfind(|(key, _)| **key == *quoted(segment)).map(|(_, value)| value)
                }
            };
            let Some(found) = found else { return false };
            node = found;
        }
        true
    }
}

struct Output {
    text: String,
    max_bytes: usize,
}

impl Output {
    fn push(&mut self, text: &str) -> Result<(), RenderError> {
        if self.text.len() + text.len() > self.max_bytes {
            return Err(RenderError::TooLarge { max_bytes: self.max_bytes });
        }
        self.text.push_str(text);
        Ok(())
    }
}

impl Node {
    fn render(&self, scope: &Scope<'_>, out: &mut Output) -> Result<(), RenderError> {
        match self {
            Self::Literal(json) => out.push(json),
            Self::Value(path) => path.render_json(scope, out),
            Self::Text(pieces) => {
                let mut text = Output { text: String::new(), max_bytes: out.max_bytes };
                render_pieces(pieces, scope, &mut text)?;
                out.push(&quoted(&text.text))
            }
            Self::Array(elements) => {
                out.push("[")?;
                for (position, element) in elements.iter().enumerate() {
                    out.push(if position == 0 { "" } else { "," })?;
                    element.render(scope, out)?;
                }
                out.push("]")
            }
            Self::Object(fields) => {
                out.push("{")?;
                for (position, (key, value)) in fields.iter().enumerate() {
                    out.push(if position == 0 { "" } else { "," })?;
                    out.push(key)?;
                    out.push(":")?;
                    value.render(scope, out)?;
                }
                out.push("}")
            }
        }
    }

    fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a Path>) {
        match self {
            Self::Literal(_) => {}
            Self::Value(path) => paths.push(path),
            Self::Text(pieces) => paths.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Literal(_) => None,
                Piece::Path(path) => Some(path),
            })),
            Self::Array(elements) => elements.iter().for_each(|element| element.collect_paths(paths)),
            Self::Object(fields) => fields.iter().for_each(|(_, value)| value.collect_paths(paths)),
        }
    }
}

fn render_pieces(pieces: &[Piece], scope: &Scope<'_>, out: &mut Output) -> Result<(), RenderError> {
    for piece in pieces {
        match piece {
            Piece::Literal(text) => out.push(text)?,
            Piece::Path(path) => path.render_text(scope, out)?,
        }
    }
    Ok(())
}

impl Path {
    /// Whether it is `${input}` or begins with `${input.`.
    pub fn is_input(&self) -> bool {
        self.root.is_input()
    }

    /// The branch whose result it reads.
    pub fn branch(&self) -> Option<BranchIndex> {
        self.root.branch()
    }

    /// Whether the segments lead to a value in `value`, the value of the path's root.
    pub fn exists_in(&self, value: Option<&RawValue>) -> bool {
        value.is_some_and(|value| self.walk(value.get()).is_some())
    }

    fn render_json(&self, scope: &Scope<'_>, out: &mut Output) -> Result<(), RenderError> {
        match &self.root {
            Root::TransactionId => out.push(&quoted(scope.transaction.as_str())),
            Root::Input => out.push(self.find(scope.input)?),
            Root::Result(path) => out.push(self.find((scope.result)(path.index))?),
        }
    }

    fn render_text(&self, scope: &Scope<'_>, out: &mut Output) -> Result<(), RenderError> {
        let json = match &self.root {
            Root::TransactionId => return out.push(scope.transaction.as_str()),
            Root::Input => self.find(scope.input)?,
            Root::Result(path) => self.find((scope.result)(path.index))?,
        };
        out.push(&text_of(json).ok_or_else(|| RenderError::Unreadable(self.to_string()))?)
    }

    fn find<'a>(&self, value: Option<&'a RawValue>) -> Result<&'a str, RenderError> {
        value.and_then(|value| self.walk(value.get())).ok_or_else(|| RenderError::Missing(self.to_string()))
    }

    fn walk<'a>(&self, json: &'a str) -> Option<&'a str> {
        self.segments.iter().try_fold(json, |json, segment| {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            match json.as_bytes().first()? {
                b'{' => deserializer.deserialize_map(FieldOf(segment)).ok()?,
                b'[' => deserializer.deserialize_seq(ElementOf(index_of(segment)?)).ok()?,
                _ => None,
            }
        })
    }
}

/// `0`, `1`, `2`, …; no sign, no leading zeros.
fn index_of(segment: &str) -> Option<usize> {
    let index: usize = segment.parse().ok()?;
    (index.to_string() == segment).then_some(index)
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Input => f.write_str("${input")?,
            Root::Result(ResultPath { step, branch: None, .. }) => write!(f, "${{steps.{step}")?,
            Root::Result(ResultPath { step, branch: Some(branch), .. }) => {
                write!(f, "${{steps.{step}.{branch}")?;
            }
            Root::TransactionId => f.write_str("${transaction.id")?,
        }
        for segment in &self.segments {
            write!(f, ".{segment}")?;
        }
        f.write_str("}")
    }
}

/// The value of one key of an object, as raw text.
struct FieldOf<'k>(&'k str);

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_sought) = map.next_key_seed(KeyIs(self.0))? {
            if is_sought {
                found = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a key is the sought one.
struct KeyIs<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// One element of an array, as raw text.
struct ElementOf(usize);

impl<'de> Visitor<'de> for ElementOf {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = elements.next_element::<&RawValue>()?.map(RawValue::get);
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// A JSON text inside a longer text. `None` when a string holds an escape that is no character.
fn text_of(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => String::deserialize(&mut serde_json::Deserializer::from_str(json)).ok().map(Cow::Owned),
        b'{' | b'[' => Some(Cow::Owned(without_spaces(json))),
        _ => Some(Cow::Borrowed(json)),
    }
}

/// Valid JSON without the spaces between its tokens.
fn without_spaces(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let is_space = !in_string && c.is_ascii_whitespace();
        if *c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && *c == '\\' && !escaped;
        !is_space
    };
    json.chars().filter(keep).collect()
}

fn quoted(text: &str) -> String {
    match serde_json::to_string(text) {
        Ok(json) => json,
        Err(error) => unreachable!("every text can be quoted: {error}"),
    }
}

struct Compiler<'a, E> {
    resolve: &'a StepResolver<'a, E>,
    at: String,
    paths: usize,
    faults: Vec<TemplateFault<E>>,
}

impl<E> Compiler<'_, E> {
    fn node(&mut self, document: &ExactJson) -> Node {
        match document {
            ExactJson::Null | ExactJson::Bool(_) | ExactJson::Number(_) => {
                Node::Literal(document.to_string().into())
            }
            ExactJson::Text(text) => self.text(text),
            ExactJson::Array(elements) => {
                let element = |(index, element)| self.inside(&format!("[{index}]"), element);
                Node::Array(elements.iter().enumerate().map(element).collect())
            }
            ExactJson::Object(fields) => {
                let field =
                    |(key, value): (&String, _)| (quoted(key).into(), self.inside(&format!(".{key}"), value));
                Node::Object(fields.iter().map(field).collect())
            }
        }
    }

    fn inside(&mut self, segment: &str, document: &ExactJson) -> Node {
        let outer = self.at.len();
        self.at.push_str(segment);
        let node = self.node(document);
        self.at.truncate(outer);
        node
    }

    fn text(&mut self, text: &str) -> Node {
        let mut pieces = self.pieces(text);
        match (pieces.pop(), pieces.is_empty()) {
            (None, _) => Node::Literal("\"\"".into()),
            (Some(Piece::Path(path)), true) => Node::Value(path),
            (Some(Piece::Literal(text)), true) => Node::Literal(quoted(&text).into()),
            (Some(last), false) => {
                pieces.push(last);
                Node::Text(pieces)
            }
        }
    }

    /// The text cut at its paths; a faulty one is noted and left out.
    fn pieces(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            literal.push_str(&rest[..dollar]);
            rest = &rest[dollar..];
            if let Some(after) = rest.strip_prefix("$${") {
                literal.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let Some((path, after)) = after.split_once('}') else {
                    self.fault(TemplateError::Unclosed);
                    return pieces;
                };
                match self.path(path) {
                    Ok(path) => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                        }
                        pieces.push(Piece::Path(path));
                    }
                    Err(cause) => self.fault(cause),
                }
                rest = after;
            } else {
                literal.push('$');
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        pieces
    }

    fn fault(&mut self, cause: TemplateError<E>) {
        self.faults.push(TemplateFault { at: self.at.clone(), cause });
    }

    fn path(&mut self, text: &str) -> Result<Path, TemplateError<E>> {
        self.paths += 1;
        let segments: Vec<&str> = text.split('.').collect();
        let is_strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '$' | '{' | '[' | ']');
        if segments.iter().any(|segment| segment.is_empty() || segment.contains(is_strange)) {
            return Err(TemplateError::Malformed(text.to_owned()));
        }
        let (root, rest) = match segments.as_slice() {
            ["input", rest @ ..] => (Root::Input, rest),
            ["transaction", "id"] => (Root::TransactionId, &[][..]),
            ["steps", name, rest @ ..] => {
                let found = (self.resolve)(name, rest.first().copied()).map_err(TemplateError::Step)?;
                let named = usize::from(found.branch.is_some()).min(rest.len());
                (Root::Result(found), &rest[named..])
            }
            _ => return Err(TemplateError::UnknownRoot(text.to_owned())),
        };
        if rest.len() > PATH_SEGMENTS_MAX {
            return Err(TemplateError::Malformed(text.to_owned()));
        }
        Ok(Path { root, segments: rest.iter().map(|&segment| segment.into()).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const INPUT: &str = r#"{"n": 1.10, "big":12345678901234567890.000, "s":"a \"b\" \u00e9", "half":"\ud800", "no":null,
        "o" : { "k" : [ 1 , {"x":"} ]"} ] }, "twice":1, "twice":2, "sp ace":3, "0":"zero", "\u006bey":4}"#;

    fn compiled(template: &str) -> Template {
        let document: ExactJson = serde_json::from_str(template).unwrap();
        let branches: BTreeMap<&str, BranchIndex> =
            [("reserve", BranchIndex(0)), ("charge", BranchIndex(1))].into();
        let resolve = |step: &str, _: Option<&str>| {
            let index = *branches.get(step).ok_or(())?;
            Ok::<_, ()>(ResultPath { index, step: step.parse().unwrap(), branch: None })
        };
        Template::compile(&document, &resolve).unwrap_or_else(|faults| panic!("{template}: {faults:?}"))
    }

    fn with_scope<T>(input: &str, then: impl FnOnce(&Scope<'_>) -> T) -> T {
        let input: &RawValue = serde_json::from_str(input).unwrap();
        let reserved: &RawValue = serde_json::from_str(r#"{"id":"r-9"}"#).unwrap();
        let result = |branch: BranchIndex| (branch == BranchIndex(0)).then_some(reserved);
        then(&Scope { transaction: &"order-1".parse().unwrap(), input: Some(input), result: &result })
    }

    fn rendered(template: &str) -> String {
        with_scope(INPUT, |scope| compiled(template).render(scope)).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn what_a_template_becomes() {
        let check = |given: &str, then: &str| assert_eq!(rendered(given), then, "{given}");
        check(r#"{"a":[1.50,true,null,"x",{}]}"#, r#"{"a":[1.50,true,null,"x",{}]}"#);
        check(r#""""#, r#""""#);
        check(r#""${input.n}""#, "1.10");
        check(r#"["${input.big}","${input.s}"]"#, r#"[12345678901234567890.000,"a \"b\" \u00e9"]"#);
        check(r#""${input.o}""#, r#"{ "k" : [ 1 , {"x":"} ]"} ] }"#);
        check(r#""${input.o.k.1.x}""#, r#""} ]""#);
        check(r#""${input.0}""#, r#""zero""#);
        check(r#""${input.key}""#, "4");
        check(r#""${input.twice}""#, "2");
        check(r#""${input.half}""#, r#""\ud800""#);
        check(r#""${transaction.id}""#, r#""order-1""#);
        check(r#"{"${input.n}":"${steps.reserve.id}"}"#, r#"{"${input.n}":"r-9"}"#);
        check(r#"" ${input.n} ""#, r#"" 1.10 ""#);
        check(
            r#""<${input.s}|${input.no}|${input.o}>""#,
            r#""<a \"b\" é|null|{\"k\":[1,{\"x\":\"} ]\"}]}>""#,
        );
        check(r#""$ $$ $${input.n} $$${input.n}${input.n}""#, r#""$ $$ ${input.n} $${input.n}1.10""#);
    }

    #[test]
    fn what_has_no_value() {
        let check = |given: &str, then: &str| assert_eq!(rendered(given), then, "{given}");
        check(r#""${input.absent}""#, "${input.absent} does not exist");
        check(r#""${input.n.x}""#, "${input.n.x} does not exist");
        check(r#""${input.o.k.2}""#, "${input.o.k.2} does not exist");
        check(r#""${input.o.k.01}""#, "${input.o.k.01} does not exist");
        check(r#"{"a":"x ${steps.charge.id}"}"#, "${steps.charge.id} does not exist");
        check(r#""x ${input.half}""#, "${input.half} is not readable text");
        let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(RENDERED_MAX_BYTES));
        let render = |template| with_scope(&long, |scope| compiled(template).render(scope));
        assert_eq!(render(r#""${input.x}""#), Err(RenderError::TooLarge { max_bytes: RENDERED_MAX_BYTES }));
    }

    #[test]
    fn a_key_is_text() {
        let check = |given: &str, then: &str| {
            let key = with_scope(INPUT, |scope| compiled(given).render_text(scope));
            assert_eq!(key.unwrap_or_else(|error| error.to_string()), then, "{given}");
        };
        check(r#""plain \"x\"""#, r#"plain "x""#);
        check(r#""${steps.reserve.id}""#, "r-9");
        check(r#""${input.n}/${transaction.id}""#, "1.10/order-1");
        check(&format!(r#""{}""#, "x".repeat(1025)), "the result is larger than 1024 bytes");
    }

    fn json() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,30})([.][0-9]{1,30})?([eE][+-]?[0-9]{1,3})?";
        let text = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        let leaf = prop_oneof![number, text, Just("true".to_owned()), Just("null".to_owned())];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let fields = proptest::collection::vec(("[a-z\"\\\\ ]{0,3}", inner.clone()), 0..4);
            let object = fields.prop_map(|fields| {
                let field = |(key, value): &(String, String)| format!("{} : {value}", quoted(key));
                format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(" ,"))
            });
            let array =
                proptest::collection::vec(inner, 0..4).prop_map(|all| format!("[{}\t]", all.join(" , ")));
            prop_oneof![object, array]
        })
    }

    proptest! {
        #[test]
        fn a_path_yields_the_exact_text(value in json(), other in json()) {
            let input = format!(r#"{{"a":{other},"b":[{other}, {{"c" : {value} }}],"d":{other}}}"#);
            let template = compiled(r#"["${input.b.1.c}"]"#);
            let text = with_scope(&input, |scope| template.render(scope)).unwrap();
            prop_assert_eq!(text, format!("[{value}]"));
        }

        #[test]
        fn what_is_rendered_is_json(value in json()) {
            let template = compiled(r#"{"x":"<${input}> ${input}","y":"${input}"}"#);
            let text = with_scope(&value, |scope| template.render(scope)).unwrap();
            let parsed: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parsed["y"].get(), value);
        }

        #[test]
        fn a_literal_stays_what_it_is(value in json()) {
            let document: ExactJson = serde_json::from_str(&value).unwrap();
            prop_assume!(!document.to_string().contains("${"));
            let resolve = |_: &str, _: Option<&str>| Err(());
            let template = Template::compile(&document, &resolve).unwrap();
            let text = with_scope("null", |scope| template.render(scope)).unwrap();
            prop_assert_eq!(text, document.to_string());
        }
    }
}

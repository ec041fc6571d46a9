//! Conditions: `when: <CEL expression>` on a step, which is skipped when the expression is false.
//!
//! ```text
//! text ──bounds──▶ cel's parser ──▶ its tree ──compile──▶ Node ──evaluate(Scope)──▶ true | false | EvaluationError
//! ```
//! The grammar is CEL's, read by the `cel` crate. The evaluation is ours, because that crate's own cannot stand in a fold:
//! it keeps objects in hash maps and prints them, whole payloads included, into its errors; it compares an integer with a
//! decimal by rounding the integer; and nothing bounds its work. Wherever CEL has an answer, this has the same one.
//!
//! - Names: `input.…`, `steps.<name>.…` (of a group `steps.<name>.<branch>.…`), `transaction.id`. In CEL `-` is minus, so a step with one in its name is written
//!   `steps["reserve-stock"].id`. Data is walked as raw JSON; only what is read is converted.
//! - `has(steps.ship.id)` is true when every part of the path exists, `has(steps.ship)` when the step has a result
//!   (``has(steps.`reserve-stock`)`` for a name with `-`). Reading what does not exist is an error.
//! - Numbers: JSON without point and exponent is an integer, exact from -2^63 to 2^64-1 (CEL's `int` and `uint` are one
//!   kind here); anything else is the nearest 64-bit decimal. Outside of that is an error, never rounded. Integers and
//!   decimals compare exactly. Arithmetic may mix them, which CEL refuses: `100` and `100.50` are amounts alike. An integer
//!   that a decimal cannot hold exactly is then an error. No decimal is infinite, not a number, or minus zero.
//! - `all`, `exists` and `exists_one` work on lists only, and not inside each other: the work stays linear in the data.
//! - As in CEL, `false && error` is false and `true || error` is true, on either side.
//!
//! Deliberately absent: `map` and `filter` (a condition builds nothing), regular expressions (unbounded work), times and
//! durations (no clock), bytes, map literals, comments, raw and triple-quoted texts (each has a simpler form),
//! user-defined functions.

mod compile;
mod evaluate;
mod syntax;
mod value;

use std::fmt;

use super::plan::BranchIndex;
use super::template::{ResultPath, Root, Scope, StepResolver};
use evaluate::Evaluation;
use value::Value;

/// Longest condition, in bytes: what is longer is business logic, and belongs to a participant.
pub const TEXT_MAX_BYTES: usize = 1024;
/// Most words, texts and punctuation marks: bounds the nodes of the tree and the stack of the parser, which goes down one
/// level for each operator of a chain.
pub const TOKENS_MAX: usize = 256;
/// Most brackets inside each other: each takes the parser some twenty frames of stack.
pub const NESTING_MAX: usize = 16;
/// Deepest tree of operators and calls (a path is one node, `&&` and `||` chains are balanced): bounds the stack of every
/// evaluation.
pub const DEPTH_MAX: usize = 16;
/// Deepest data that `==` and `in` look into: bounds their stack.
pub const COMPARED_DEPTH_MAX: usize = 32;
/// Most work of one evaluation: reading or making a byte costs 1, evaluating a node [`NODE_WORK`]. Enough to read the
/// largest start eight times, or to ask ten questions about each of 50,000 lines; some 35 ms of the shard.
pub const WORK_MAX: usize = 8 * 1024 * 1024;
/// Work of one node, in bytes read.
pub const NODE_WORK: usize = 16;

/// A compiled condition. Prints as it was written.
#[derive(Debug, Clone)]
pub struct Condition {
    text: Box<str>,
    root: Node,
    paths: Vec<Path>,
}

/// A path that a condition reads. Prints as it may be written: `steps["reserve-stock"].lines[0].id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    root: Root,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Key(Box<str>),
    Element(usize),
}

#[derive(Debug, Clone)]
enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Decimal(f64),
    Text(Box<str>),
    List(Vec<Node>),
    /// A path, by its position.
    Read(usize),
    /// Whether the path leads somewhere.
    Exists(usize),
    /// The element that a quantifier looks at.
    Element,
    Select(Box<Node>, Box<str>),
    /// Whether the field exists.
    Has(Box<Node>, Box<str>),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    Binary(Operator, Box<[Node; 2]>),
    Call(Function, Box<[Node]>),
    /// The list, and what is asked of its elements.
    Quantified(Quantifier, Box<[Node; 2]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Int,
    Uint,
    Double,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

/// What is wrong with a condition, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionFault<E> {
    /// In bytes from the beginning of the text; on a character's border, at most its length.
    pub at: usize,
    /// What is wrong there.
    pub cause: ConditionError<E>,
}

/// What is wrong with a condition. `E` is what the caller says of a step that cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError<E> {
    /// See [`TEXT_MAX_BYTES`].
    #[error("a condition has at most {TEXT_MAX_BYTES} bytes")]
    TooLong,
    /// See [`TOKENS_MAX`].
    #[error("a condition has at most {TOKENS_MAX} words, texts and punctuation marks")]
    TooManyTokens,
    /// See [`NESTING_MAX`].
    #[error("at most {NESTING_MAX} brackets stand inside each other")]
    TooManyBrackets,
    /// See [`DEPTH_MAX`].
    #[error("the condition is deeper than {DEPTH_MAX} operators and calls inside each other")]
    TooDeep,
    /// More keys and indexes than [`PATH_SEGMENTS_MAX`](super::template::PATH_SEGMENTS_MAX).
    #[error("the path has too many keys and indexes")]
    PathTooLong,
    /// Not CEL.
    #[error("{0}")]
    Syntax(String),
    /// `steps.reserve-stock`, which is a subtraction.
    #[error("`-` is minus here: write steps[\"{0}\"] for the step, or spaces around `-` to subtract")]
    Hyphen(String),
    /// Neither `input`, `steps` nor `transaction`, nor the name that a quantifier gives to an element.
    #[error("`{0}` is unknown: a condition reads input.…, steps.<name>.… and transaction.id")]
    UnknownName(String),
    /// `steps` alone or with an index that is computed.
    #[error("the step must be named: steps.<name> or steps[\"<name>\"]")]
    StepNotNamed,
    /// CEL that is not available in conditions.
    #[error("{what} cannot be used in a condition: {help}")]
    Unavailable {
        /// As it is written.
        what: String,
        /// What to do instead.
        help: &'static str,
    },
    /// A number, a text or a list, whatever the data is.
    #[error("the expression is neither true nor false: compare it with something")]
    NotACondition,
    /// The step cannot be named here.
    #[error("{0}")]
    Step(E),
}

/// Why a condition has no answer. Tells kinds and paths, never data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The path leads nowhere.
    #[error("{0} does not exist")]
    Missing(String),
    /// A computed index or a field of an element leads nowhere.
    #[error("{0} does not exist in the {1}")]
    NotFound(&'static str, &'static str),
    /// An operator or function that does not work on such values.
    #[error("{what} does not work on {found}")]
    Kinds {
        /// As it is written.
        what: &'static str,
        /// Their kinds.
        found: String,
    },
    /// The text or number means no such value.
    #[error("{0} cannot convert {1} like this")]
    NotConvertible(&'static str, &'static str),
    /// An integer below -2^63 or above 2^64-1.
    #[error("an integer has more than 64 bits")]
    IntegerTooLarge,
    /// A decimal beyond 1.8e308.
    #[error("a decimal is too large")]
    DecimalTooLarge,
    /// An integer meets a decimal and would be rounded.
    #[error("an integer is too large to be computed with as a decimal")]
    Inexact,
    /// `/` or `%` by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The text around holds escapes that are no characters (half a surrogate pair).
    #[error("the data holds text that is not readable")]
    Unreadable,
    /// See [`COMPARED_DEPTH_MAX`].
    #[error("the data is nested deeper than {COMPARED_DEPTH_MAX} levels: compare a part of it")]
    ComparedTooDeep,
    /// See [`WORK_MAX`].
    #[error("the condition reads more than it may: look at less of the data")]
    TooMuchWork,
    /// The condition as a whole is neither true nor false.
    #[error("the condition is {0}, and not true or false")]
    NotABool(&'static str),
}

impl Condition {
    /// Compiles a condition; the first fault is returned. `resolve` finds a step, or says why it cannot be named here.
    pub fn compile<E>(text: &str, resolve: &StepResolver<'_, E>) -> Result<Self, ConditionFault<E>> {
        let parsed = syntax::parse(text)?;
        let (root, paths) = compile::compile(&parsed, resolve)?;
        Ok(Self { text: text.into(), root, paths })
    }

    /// The answer for a transaction: the same in every process, for ever.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        match Evaluation::new(&self.paths, scope).node(&self.root)? {
            Value::Bool(answer) => Ok(answer),
            other => Err(EvaluationError::NotABool(other.kind())),
        }
    }

    /// Every path that it can read, each once, in the order of the text.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }
}

/// The text, and what its names were resolved to.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.paths == other.paths
    }
}

impl Eq for Condition {}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Path {
    /// Whether it is `input` or below.
    pub fn is_input(&self) -> bool {
        self.root.is_input()
    }

    /// The branch whose result it reads.
    pub fn branch(&self) -> Option<BranchIndex> {
        self.root.branch()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |f: &mut fmt::Formatter<'_>, key: &str| {
            if is_identifier(key) {
                write!(f, ".{key}")
            } else {
                write!(f, "[{}]", serde_json::Value::from(key))
            }
        };
        match &self.root {
            Root::Input => f.write_str("input")?,
            Root::Result(ResultPath { step, branch, .. }) => {
                f.write_str("steps")?;
                key(f, step.as_str())?;
                branch.iter().try_for_each(|branch| key(f, branch.as_str()))?;
            }
            Root::TransactionId => f.write_str("transaction.id")?,
        }
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Key(text) => key(f, text),
            Segment::Element(index) => write!(f, "[{index}]"),
        })
    }
}

fn is_identifier(text: &str) -> bool {
    !matches!(text, "in" | "true" | "false" | "null")
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests;

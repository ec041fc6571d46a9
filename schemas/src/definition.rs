//! The document of a definition: what stands in the `definitions` topic and, as YAML or JSON, in the author's file.
//!
//! Only the shape is decided here. Whether the steps make a transaction that can be carried to its end is the matter of
//! the check (`definition` in the decider), and so are the numbers that stand for what was left out: an absent field
//! stays absent, because the defaults belong to the level that folds.
//!
//! Deliberately absent: YAML. It is read into this shape by the decider's `source`; [`ExactJson`] is read from
//! `serde_json` only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use crate::ids::{IdError, Name, Span, shortened};

/// Longest text of a definition, in bytes, so that every shard can keep all of them in memory.
pub const DEFINITION_MAX_BYTES: usize = 64 * 1024;
/// Most steps of a definition: a plan is walked at every reply.
pub const STEPS_MAX: usize = 500;
/// Deepest nesting of an `input`: reading and rendering are recursive.
pub const INPUT_DEPTH_MAX: usize = 16;

/// What stands for a field that was left out, at the present level.
pub mod defaults {
    use crate::ids::Span;

    /// Start to decision.
    pub const DEADLINE: Span = Span::from_secs(15 * 60);
    /// One attempt of an operation.
    pub const TIMEOUT: Span = Span::from_secs(30);
    /// Attempts of an operation, the first one counted.
    pub const ATTEMPTS: u32 = 10;
    /// Pause after the first attempt.
    pub const BACKOFF: Span = Span::from_ms(100);
    /// How much longer each pause is than the one before.
    pub const FACTOR: u32 = 2;
    /// Longest pause.
    pub const BACKOFF_MAX: Span = Span::from_secs(30);
}

/// One version of one definition: prints as `order@3`.
///
/// ```
/// use sagamore_schemas::definition::DefinitionId;
/// let id: DefinitionId = "order@3".parse().unwrap();
/// assert_eq!((id.name.as_str(), id.version), ("order", 3));
/// assert!("order".parse::<DefinitionId>().is_err(), "a version belongs to it");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefinitionId {
    /// Name.
    pub name: Name,
    /// Version, from 1.
    pub version: u32,
}

impl fmt::Display for DefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl FromStr for DefinitionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Definition(shortened(text));
        let (name, version) = text.split_once('@').ok_or_else(wrong)?;
        let version = version.parse().ok().filter(|version| *version > 0).ok_or_else(wrong)?;
        Ok(Self { name: name.parse().map_err(|_| wrong())?, version })
    }
}

/// A [`DefinitionId`] as text, in documents.
mod as_text {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::DefinitionId;

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub fn serialize<S: Serializer>(id: &Option<DefinitionId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DefinitionId>, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Some).map_err(de::Error::custom)
    }
}

/// A transaction as data: a graph of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What starts refer to.
    #[cfg_attr(test, schemars(with = "schema::Name"))]
    pub name: Name,
    /// Immutable once applied: other content needs a higher version.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub version: u32,
    /// From the start to the decision; after it the transaction is compensated or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "schema::Span", extend("default" = "15m")))]
    pub deadline: Option<Span>,
    /// What undoes a committed transaction of this definition when it was a child, and its parent turns back. It is
    /// started with `{"input": …, "result": …}` of the child.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    #[cfg_attr(test, schemars(with = "schema::DefinitionId"))]
    pub compensated_by: Option<DefinitionId>,
    /// The steps. Each follows the one before it unless it says `after`.
    #[cfg_attr(test, schemars(length(min = 1, max = 500)))]
    pub steps: Vec<Step>,
}

/// One step: a branch, or several branches under an atomic commitment protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Unique in the definition; other steps refer to it.
    #[cfg_attr(test, schemars(with = "schema::Name"))]
    pub name: Name,
    /// The service that does the step, for a step of one branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "schema::Name"))]
    pub participant: Option<Name>,
    /// The definition that is started for the step, in place of a participant: a child transaction, whose outcome is
    /// the result of the step.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    #[cfg_attr(test, schemars(with = "schema::DefinitionId"))]
    pub definition: Option<DefinitionId>,
    /// How the branches commit together, for a step of several branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Protocol"))]
    pub protocol: Option<Protocol>,
    /// The branches of a step under `protocol`: one may be alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Vec<Branch>"))]
    pub branches: Option<Vec<Branch>>,
    /// When a step under `protocol` commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "CommitPlace", extend("default" = "in-place")))]
    pub commit: Option<CommitPlace>,
    /// The step is skipped when this expression (Common Expression Language) over `input`, `steps` and `transaction`
    /// is false when its turn has come; what can be skipped has a result for those only that ask with `when` as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub when: Option<String>,
    /// What becomes of the step when the transaction turns back. A step under `protocol` has none: `commit` and
    /// `compensate` say it.
    #[serde(default, skip_serializing_if = "StepKind::is_default")]
    #[cfg_attr(test, schemars(extend("default" = "compensatable")))]
    pub kind: StepKind,
    /// The steps this one waits for; left out, the one before it in the file; empty, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Vec<schema::Name>"))]
    pub after: Option<Vec<Name>>,
    /// The data of the command. `${input.…}`, `${steps.<name>.…}` and `${transaction.id}` are replaced by values; a
    /// string that is one such path keeps the type of the value; `$${` stands for `${`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub input: Option<ExactJson>,
    /// The key of the command's record, which orders it with others of the same key; left out, the transaction id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub key: Option<String>,
    /// What a branch in doubt may do by itself, for a step under `three-phase`; left out, nothing: it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Termination"))]
    pub termination: Option<Termination>,
    /// With `termination: unilateral`: within so many milliseconds every message is delivered and every process answers.
    /// If that is ever untrue, some branches commit and others abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "u32", range(min = 1)))]
    pub assumes_synchrony_ms: Option<u32>,
    /// How long one attempt may take before the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "schema::Span", extend("default" = "30s")))]
    pub timeout: Option<Span>,
    /// What follows an attempt that failed or took too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Retry"))]
    pub retry: Option<Retry>,
}

/// What becomes of a step when the transaction turns back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// `execute`, undone by `compensate`.
    #[default]
    Compensatable,
    /// The point of no return, at most one: asked until it answers, and only `refused` turns back.
    Pivot,
    /// After the decision: tried until it succeeds.
    Retriable,
    /// `prepare` in its place; `commit` or `abort` with the transaction's decision.
    Reserved,
}

impl StepKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compensatable => "compensatable",
            Self::Pivot => "pivot",
            Self::Retriable => "retriable",
            Self::Reserved => "reserved",
        })
    }
}

/// How the branches of a step commit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `prepare`, then `commit` or `abort`.
    TwoPhase,
    /// `prepare`, `precommit`, then `commit` or `abort`.
    ThreePhase,
}

/// What a branch in doubt may do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Termination {
    /// The timeout rule of Skeen's three-phase commit: a branch that has waited too long aborts when it is prepared, and
    /// commits when it is precommitted. Safe in a synchronous system only.
    Unilateral,
}

/// When a step under a protocol commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CommitPlace {
    /// At its place in the graph.
    InPlace,
    /// With the transaction's decision.
    AtEnd,
}

/// One participant's part of a step under a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// Unique in the step; left out, the participant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "schema::Name"))]
    pub name: Option<Name>,
    /// The service that does this part.
    #[cfg_attr(test, schemars(with = "schema::Name"))]
    pub participant: Name,
    /// As in a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub input: Option<ExactJson>,
    /// As in a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub key: Option<String>,
    /// What this branch has committed can be undone by `compensate`. If so for all branches, the step need not be the
    /// point of no return: others may follow it, and it is undone with them.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(test, schemars(extend("default" = false)))]
    pub compensate: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What follows an attempt that failed or took too long.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts, the first one counted. Not for a pivot or a retriable step: they are tried until they are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "u32", range(min = 1, max = 1000), extend("default" = 10)))]
    pub attempts: Option<u32>,
    /// Pause after the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "schema::Span", extend("default" = "100ms")))]
    pub backoff: Option<Span>,
    /// How much longer each pause is than the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "u32", range(min = 1, max = 10), extend("default" = 2)))]
    pub factor: Option<u32>,
    /// Longest pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "schema::Span", extend("default" = "30s")))]
    pub max: Option<Span>,
}

impl Definition {
    /// The one JSON text of this content: what stands in the `definitions` topic, and what is compared to find other
    /// content under the same version. Fields in the order of the type, object keys of `input` sorted, no spaces,
    /// numbers as written, spans in their largest whole unit; what was left out stays out.
    pub fn to_canonical_json(&self) -> String {
        match serde_json::to_string(self) {
            Ok(text) => text,
            Err(error) => unreachable!("a definition has no part that cannot be JSON: {error}"),
        }
    }

    /// Reads JSON text, canonical or not.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// A JSON value whose numbers are kept as they were written: money never passes through a binary fraction.
///
/// Object keys are sorted. Prints as compact JSON. Reads and writes through `serde_json` only.
///
/// ```
/// use sagamore_schemas::definition::ExactJson;
/// let value: ExactJson = serde_json::from_str(r#"{ "b": 0.10, "a": 12345678901234567890 }"#).unwrap();
/// assert_eq!(value.to_string(), r#"{"a":12345678901234567890,"b":0.10}"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExactJson {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// The text of a JSON number.
    Number(Box<str>),
    /// A string, without quotes and escapes.
    Text(String),
    /// `[…]`
    Array(Vec<ExactJson>),
    /// `{…}`
    Object(BTreeMap<String, ExactJson>),
}

impl ExactJson {
    /// Reads one level after the other, so that a number is seen as text and depth is bounded.
    fn from_raw(raw: &RawValue, levels_left: usize) -> Result<Self, String> {
        let text = raw.get();
        let wrong = |error: serde_json::Error| error.to_string();
        if text.starts_with(['{', '[']) && levels_left == 0 {
            return Err(format!("nested deeper than {INPUT_DEPTH_MAX} levels"));
        }
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).map_err(wrong)?;
                let field = |(key, value): (Cow<'_, str>, &RawValue)| {
                    Ok((key.into_owned(), Self::from_raw(value, levels_left - 1)?))
                };
                Self::Object(fields.into_iter().map(field).collect::<Result<_, String>>()?)
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
                let element = |value| Self::from_raw(value, levels_left - 1);
                Self::Array(elements.into_iter().map(element).collect::<Result<_, String>>()?)
            }
            Some(b'"') => Self::Text(serde_json::from_str(text).map_err(wrong)?),
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            _ => Self::Number(text.into()),
        })
    }
}

impl<'de> Deserialize<'de> for ExactJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_raw(&raw, INPUT_DEPTH_MAX).map_err(de::Error::custom)
    }
}

impl Serialize for ExactJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl fmt::Display for ExactJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write_quoted(f, text),
            Self::Array(elements) => {
                f.write_str("[")?;
                for (index, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (index, (key, value)) in fields.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    write_quoted(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod schema {
    //! What the ids look like in the JSON Schema.

    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    pub struct DefinitionId;
    pub struct Name;
    pub struct Span;

    impl JsonSchema for DefinitionId {
        fn schema_name() -> Cow<'static, str> {
            "DefinitionId".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "pattern": "^[a-z0-9-]{1,32}@[1-9][0-9]*$",
                "description": "One version of one definition: `name@version`.",
            })
        }
    }

    impl JsonSchema for Name {
        fn schema_name() -> Cow<'static, str> {
            "Name".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "pattern": "^[a-z0-9-]{1,32}$" })
        }
    }

    impl JsonSchema for Span {
        fn schema_name() -> Cow<'static, str> {
            "Duration".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "pattern": "^[0-9]+(ms|s|m|h|d)$",
                "description": "An integer and ms, s, m, h or d; at most 365d.",
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(given: &str) -> String {
        match Definition::from_json(given) {
            Ok(definition) => definition.to_canonical_json(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn one_content_has_one_text() {
        let check = |given: &str, then: &str| assert_eq!(canonical(given), then);
        check(
            r#"{ "version": 1, "name": "a", "steps": [ { "kind": "compensatable", "name": "s", "participant": "p",
                 "timeout": "60s", "input": { "b": 1.10, "a": [ 1e3, "\u0041", null ] } } ] }"#,
            r#"{"name":"a","version":1,"steps":[{"name":"s","participant":"p","input":{"a":[1e3,"A",null],"b":1.10},"timeout":"1m"}]}"#,
        );
        check(
            r#"{"name":"a","version":1,"steps":[{"name":"s","protocol":"two-phase","commit":"at-end","branches":[{"participant":"x"}]}]}"#,
            r#"{"name":"a","version":1,"steps":[{"name":"s","protocol":"two-phase","branches":[{"participant":"x"}],"commit":"at-end"}]}"#,
        );
    }

    #[test]
    fn another_shape_is_refused() {
        let check =
            |given: &str, then: &str| assert!(canonical(given).contains(then), "{}", canonical(given));
        check(r#"{"name":"a","version":1,"steps":[],"x":1}"#, "unknown field `x`");
        check(r#"{"name":"A","version":1,"steps":[]}"#, "name \"A\" must be");
        check(r#"{"name":"a","version":-1,"steps":[]}"#, "invalid value: integer `-1`");
        let deep = format!("{}{}", "[".repeat(17), "]".repeat(17));
        check(
            &format!(r#"{{"name":"a","version":1,"steps":[{{"name":"s","input":{deep}}}]}}"#),
            "nested deeper than 16",
        );
    }

    #[test]
    fn the_json_schema_is_that_of_the_type() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/definition.schema.json");
        let mut schema = schemars::schema_for!(Definition);
        schema.insert("$id".into(), "urn:sagamore:definition".into());
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, text, "run the test again with UPDATE_SCHEMA=1");
    }

    #[test]
    fn the_defaults_of_the_json_schema_are_those_of_the_level() {
        let schema = serde_json::to_value(schemars::schema_for!(Definition)).unwrap();
        let check = |pointer: &str, then: &str| {
            let default = &schema.pointer(pointer).unwrap()["default"];
            assert_eq!(
                default.as_str().map_or_else(|| default.to_string(), str::to_owned),
                then,
                "{pointer}"
            );
        };
        check("/properties/deadline", &defaults::DEADLINE.to_string());
        check("/$defs/Step/properties/timeout", &defaults::TIMEOUT.to_string());
        check("/$defs/Retry/properties/attempts", &defaults::ATTEMPTS.to_string());
        check("/$defs/Retry/properties/backoff", &defaults::BACKOFF.to_string());
        check("/$defs/Retry/properties/factor", &defaults::FACTOR.to_string());
        check("/$defs/Retry/properties/max", &defaults::BACKOFF_MAX.to_string());
        assert_eq!(schema.pointer("/properties/steps/maxItems"), Some(&STEPS_MAX.into()));
    }
}

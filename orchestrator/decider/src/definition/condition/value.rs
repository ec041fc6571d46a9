//! Values of conditions. What stands in the data stays JSON text until something asks for what is in it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::EvaluationError;

/// CEL's `int` and `uint` together.
const INTEGERS: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;

#[derive(Debug, Clone)]
pub(super) enum Value<'v> {
    Null,
    Bool(bool),
    /// Within [`INTEGERS`].
    Integer(i128),
    /// Finite, and not minus zero.
    Decimal(f64),
    Text(Cow<'v, str>),
    /// Of the condition itself.
    List(Vec<Value<'v>>),
    /// JSON text of an array.
    Array(&'v str),
    /// JSON text of an object.
    Object(&'v str),
}

impl<'v> Value<'v> {
    pub(super) fn from_json(json: &'v str) -> Result<Self, EvaluationError> {
        match json.as_bytes().first() {
            Some(b'n') => Ok(Self::Null),
            Some(b't') => Ok(Self::Bool(true)),
            Some(b'f') => Ok(Self::Bool(false)),
            Some(b'"') => text(json).map(Self::Text),
            Some(b'[') => Ok(Self::Array(json)),
            Some(b'{') => Ok(Self::Object(json)),
            _ => number(json),
        }
    }

    pub(super) fn integer(number: i128) -> Result<Self, EvaluationError> {
        INTEGERS.contains(&number).then_some(Self::Integer(number)).ok_or(EvaluationError::IntegerTooLarge)
    }

    pub(super) fn decimal(number: f64) -> Result<Self, EvaluationError> {
        if !number.is_finite() {
            return Err(EvaluationError::DecimalTooLarge);
        }
        Ok(Self::Decimal(number + 0.0))
    }

    /// As it stands in errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "an integer",
            Self::Decimal(_) => "a decimal",
            Self::Text(_) => "a text",
            Self::List(_) | Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// What a copy of it copies.
    pub(super) fn owned_bytes(&self) -> usize {
        match self {
            Self::Text(Cow::Owned(text)) => text.len(),
            Self::List(elements) => {
                elements.iter().map(|element| size_of::<Self>() + element.owned_bytes()).sum()
            }
            _ => 0,
        }
    }

    /// `None` for kinds without an order between them.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => Some(left.cmp(right)),
            (Self::Decimal(left), Self::Decimal(right)) => left.partial_cmp(right),
            (Self::Integer(left), Self::Decimal(right)) => Some(compare_exactly(*left, *right)),
            (Self::Decimal(left), Self::Integer(right)) => Some(compare_exactly(*right, *left).reverse()),
            (Self::Text(left), Self::Text(right)) => Some(left.cmp(right)),
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

fn number(json: &str) -> Result<Value<'static>, EvaluationError> {
    if json.contains(['.', 'e', 'E']) {
        return Value::decimal(json.parse().map_err(|_| EvaluationError::Unreadable)?);
    }
    Value::integer(json.parse().map_err(|_| EvaluationError::IntegerTooLarge)?)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the whole part is below 1e38 and has no fraction: it is exact"
)]
fn compare_exactly(integer: i128, decimal: f64) -> Ordering {
    if decimal.abs() >= 1e38 {
        return if decimal > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    let by_fraction = || 0.0.partial_cmp(&decimal.fract()).unwrap_or(Ordering::Equal);
    integer.cmp(&(decimal.trunc() as i128)).then_with(by_fraction)
}

/// An integer as a decimal, when that is the same number.
#[expect(clippy::cast_precision_loss, reason = "compared with where it came from")]
pub(super) fn exact_decimal(integer: i128) -> Result<f64, EvaluationError> {
    let decimal = integer as f64;
    let is_exact = compare_exactly(integer, decimal).is_eq();
    is_exact.then_some(decimal).ok_or(EvaluationError::Inexact)
}

/// The whole part, towards zero.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a decimal saturates, and then it is out of range"
)]
pub(super) fn whole_part(decimal: f64) -> i128 {
    decimal.trunc() as i128
}

fn text(json: &str) -> Result<Cow<'_, str>, EvaluationError> {
    match json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        _ => serde_json::from_str(json).map(Cow::Owned).map_err(|_| EvaluationError::Unreadable),
    }
}

/// The elements of an array, each as JSON text.
pub(super) fn elements(json: &str) -> Result<Vec<&RawValue>, EvaluationError> {
    serde_json::from_str(json).map_err(|_| EvaluationError::Unreadable)
}

/// One field of an object. Of equal keys the last counts.
pub(super) fn field<'v>(json: &'v str, key: &str) -> Result<Option<&'v str>, EvaluationError> {
    let mut found = None;
    each_field(json, |name, value| {
        if name == key {
            found = Some(value);
        }
    })?;
    Ok(found)
}

/// All fields of an object, by their keys.
pub(super) fn fields(json: &str) -> Result<BTreeMap<Cow<'_, str>, &str>, EvaluationError> {
    let mut found = BTreeMap::new();
    each_field(json, |name, value| {
        found.insert(name, value);
    })?;
    Ok(found)
}

fn each_field<'v>(json: &'v str, take: impl FnMut(Cow<'v, str>, &'v str)) -> Result<(), EvaluationError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(EachField(take)).map_err(|_| EvaluationError::Unreadable)
}

struct EachField<F>(F);

#[derive(Deserialize)]
struct Key<'v>(#[serde(borrow)] Cow<'v, str>);

impl<'v, F: FnMut(Cow<'v, str>, &'v str)> Visitor<'v> for EachField<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'v>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = map.next_key()? {
            let value: &'v RawValue = map.next_value()?;
            (self.0)(name, value.get());
        }
        Ok(())
    }
}

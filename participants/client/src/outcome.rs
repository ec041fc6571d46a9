//! How a transaction ended.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::http::Answer;

/// How a transaction ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Everything was done.
    Committed(Results),
    /// Something had been done, and was undone.
    Compensated {
        /// Why it turned back, when that was told.
        reason: Option<String>,
    },
    /// Nothing had been done.
    Aborted {
        /// Why it turned back, when that was told.
        reason: Option<String>,
    },
    /// It needs a person, and a final outcome follows: wait again.
    Stuck {
        /// What it is stuck on.
        reason: Option<String>,
    },
}

/// What the participants gave back.
#[derive(Debug, Clone)]
pub struct Results {
    told: Option<Box<RawValue>>,
    /// The step that participants stand in, where the caller named participants only.
    group: Option<&'static str>,
}

/// Why there is no such result.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// A server remembers how a transaction ended for as long as its settings say, its results for a minute: whoever asks
    /// later, or after that server was killed, is told the outcome only. They stand in the topic `outcomes`.
    #[error("the outcome was told without its results")]
    Untold,
    /// There is no such step or branch, or it gave nothing.
    #[error("{0} has no result")]
    NoSuch(String),
    /// It is something else.
    #[error("the result is not of that type: {0}")]
    OtherType(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Told {
    outcome: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct ByStep<'a> {
    #[serde(borrow)]
    steps: Fields<'a>,
}

type Fields<'a> = std::collections::BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue>;

impl Outcome {
    /// Whether everything was done.
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::Committed(_))
    }

    /// Why not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Committed(_) => None,
            Self::Compensated { reason } | Self::Aborted { reason } | Self::Stuck { reason } => {
                reason.as_deref()
            }
        }
    }

    pub(crate) fn read(answer: &Answer, group: Option<&'static str>) -> Result<Self, Error> {
        let unexpected = |what: String| Error::Unexpected(format!("{what} in {}", answer.told()));
        let told: Told = serde_json::from_str(&answer.body).map_err(|error| unexpected(error.to_string()))?;
        let reason = told.reason;
        match told.outcome.as_str() {
            "committed" => Ok(Self::Committed(Results { told: told.data, group })),
            "compensated" => Ok(Self::Compensated { reason }),
            "aborted" => Ok(Self::Aborted { reason }),
            "stuck" => Ok(Self::Stuck { reason }),
            other => Err(unexpected(format!("an outcome {other:?}"))),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Committed(_) => "committed",
            Self::Compensated { .. } => "compensated",
            Self::Aborted { .. } => "aborted",
            Self::Stuck { .. } => "stuck",
        };
        match self.reason() {
            Some(reason) => write!(f, "{word}: {reason}"),
            None => f.write_str(word),
        }
    }
}

impl Results {
    /// What a step gave back, a branch of a group (`pay/bank-a`), or a participant of
    /// [`Client::transaction`](crate::Client::transaction).
    pub fn of<T: DeserializeOwned>(&self, name: &str) -> Result<T, ResultError> {
        let no_such = || ResultError::NoSuch(name.to_owned());
        let told = self.told.as_ref().ok_or(ResultError::Untold)?;
        let ByStep { steps } = serde_json::from_str(told.get())?;
        let (step, branch) = match (self.group, name.split_once('/')) {
            (Some(group), _) => (group, Some(name)),
            (None, Some((step, branch))) => (step, Some(branch)),
            (None, None) => (name, None),
        };
        let of_step = *steps.get(step).ok_or_else(no_such)?;
        let Some(branch) = branch else { return Ok(serde_json::from_str(of_step.get())?) };
        let branches: Fields<'_> = serde_json::from_str(of_step.get())?;
        Ok(serde_json::from_str(branches.get(branch).ok_or_else(no_such)?.get())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(data: &str, group: Option<&'static str>) -> Results {
        let body = format!(r#"{{"id":"t","outcome":"committed","birth":"0-1","revision":2{data}}}"#);
        match Outcome::read(&Answer { status: 200, body }, group).unwrap() {
            Outcome::Committed(results) => results,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn results_are_found_by_name() {
        let data =
            r#","data":{"steps":{"charge":{"receipt":"r-9"},"all":{"bank-a":{"posting":1},"bank-b":2}}}"#;
        let results = committed(data, None);
        assert_eq!(results.of::<serde_json::Value>("charge").unwrap()["receipt"], "r-9");
        assert_eq!(results.of::<u32>("all/bank-b").unwrap(), 2);
        assert!(matches!(results.of::<u32>("ship"), Err(ResultError::NoSuch(_))));
        assert!(matches!(results.of::<u32>("all/bank-c"), Err(ResultError::NoSuch(_))));
        assert!(matches!(results.of::<u32>("charge"), Err(ResultError::OtherType(_))));
        assert_eq!(committed(data, Some("all")).of::<u32>("bank-b").unwrap(), 2);
        assert!(matches!(committed("", None).of::<u32>("charge"), Err(ResultError::Untold)));
    }

    #[test]
    fn outcomes_are_told() {
        let read = |body: &str| Outcome::read(&Answer { status: 200, body: body.to_owned() }, None);
        let told = |body| read(body).unwrap().to_string();
        assert_eq!(told(r#"{"outcome":"aborted","reason":"bank-b: no"}"#), "aborted: bank-b: no");
        assert_eq!(told(r#"{"outcome":"compensated"}"#), "compensated");
        assert_eq!(told(r#"{"outcome":"stuck","reason":"refund"}"#), "stuck: refund");
        assert!(matches!(read(r#"{"outcome":"lost"}"#), Err(Error::Unexpected(_))));
        assert!(matches!(read("<html>"), Err(Error::Unexpected(_))));
    }
}

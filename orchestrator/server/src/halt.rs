//! Reasons for which a shard, or a server, stops for an operator. Each code has its page in `deploy/runbook`.

use std::fmt;

use serde::Serialize;

/// A stable code of an error that an operator sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Code {
    /// The state topic lacks records or has foreign ones.
    #[serde(rename = "SAG-001")]
    StateIncomplete,
    /// The inbox does not hold the last applied record any more, or another one in its place.
    #[serde(rename = "SAG-002")]
    InboxTruncated,
    /// The shard is at a level that this binary does not know.
    #[serde(rename = "SAG-003")]
    LevelUnknown,
    /// `apply` panicked on a record.
    #[serde(rename = "SAG-004")]
    Panic,
    /// A record is far ahead of this machine's clock.
    #[serde(rename = "SAG-005")]
    ClockAhead,
    /// The reply-token secret is not the one the settings name.
    #[serde(rename = "SAG-006")]
    WrongSecret,
    /// The topics would break a promise.
    #[serde(rename = "SAG-007")]
    TopicsUnfit,
    /// No broker answers.
    #[serde(rename = "SAG-008")]
    Unreachable,
    /// The topics do not exist.
    #[serde(rename = "SAG-009")]
    NoTopics,
}

impl Code {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateIncomplete => "SAG-001",
            Self::InboxTruncated => "SAG-002",
            Self::LevelUnknown => "SAG-003",
            Self::Panic => "SAG-004",
            Self::ClockAhead => "SAG-005",
            Self::WrongSecret => "SAG-006",
            Self::TopicsUnfit => "SAG-007",
            Self::Unreachable => "SAG-008",
            Self::NoTopics => "SAG-009",
        }
    }

    /// Every code, for the test that looks for their pages.
    pub const ALL: [Self; 9] = [
        Self::StateIncomplete,
        Self::InboxTruncated,
        Self::LevelUnknown,
        Self::Panic,
        Self::ClockAhead,
        Self::WrongSecret,
        Self::TopicsUnfit,
        Self::Unreachable,
        Self::NoTopics,
    ];
}

/// Why a shard stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Halt {
    /// Which page of the runbook.
    pub code: Code,
    /// What was seen.
    pub reason: String,
    /// The record it stands at, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.reason)?;
        match self.offset {
            Some(offset) => write!(f, " (at inbox offset {offset})"),
            None => Ok(()),
        }
    }
}

/// What a panic that was caught says.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text").to_owned()
}

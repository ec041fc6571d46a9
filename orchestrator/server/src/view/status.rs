//! Where a transaction stands, as the view knows it.

use std::fmt;
use std::str::FromStr;

use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::OutcomeKind;

/// Open or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Going forward, not decided.
    Running,
    /// Not decided, and held by a person.
    Paused,
    /// Decided, going forward to the end.
    Committing,
    /// Going back.
    RollingBack,
    /// In need of a person.
    Stuck,
    /// Ended: done.
    Committed,
    /// Ended: something was undone.
    Compensated,
    /// Ended: nothing had been done.
    Aborted,
    /// A start that was refused.
    Refused,
}

impl Status {
    /// All of them, the open ones first.
    pub const ALL: [Self; 9] = [
        Self::Running,
        Self::Paused,
        Self::Committing,
        Self::RollingBack,
        Self::Stuck,
        Self::Committed,
        Self::Compensated,
        Self::Aborted,
        Self::Refused,
    ];
    /// Those that have not ended.
    pub const OPEN: [Self; 5] =
        [Self::Running, Self::Paused, Self::Committing, Self::RollingBack, Self::Stuck];

    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Committing => "committing",
            Self::RollingBack => "rolling-back",
            Self::Stuck => "stuck",
            Self::Committed => "committed",
            Self::Compensated => "compensated",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
        }
    }

    /// Whether something is still to come.
    pub fn is_open(self) -> bool {
        Self::OPEN.contains(&self)
    }

    /// As it stands in the view's file, what is open below what has ended: a change is a new schema.
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Paused => 1,
            Self::Committing => 2,
            Self::RollingBack => 3,
            Self::Stuck => 4,
            Self::Committed => 5,
            Self::Compensated => 6,
            Self::Aborted => 7,
            Self::Refused => 8,
        }
    }

    pub(super) fn of_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// From what has been decided and told, and whether a branch is stuck.
    pub(super) fn of(
        end: Option<OutcomeKind>,
        is_stuck: bool,
        decision: Option<Decision>,
        is_paused: bool,
    ) -> Self {
        match (end, decision) {
            (Some(OutcomeKind::Committed), _) => Self::Committed,
            (Some(OutcomeKind::Compensated), _) => Self::Compensated,
            (Some(OutcomeKind::Aborted), _) => Self::Aborted,
            (Some(OutcomeKind::Refused), _) => Self::Refused,
            (Some(OutcomeKind::Stuck) | None, _) if is_stuck => Self::Stuck,
            (Some(OutcomeKind::Stuck) | None, Some(Decision::Commit)) => Self::Committing,
            (Some(OutcomeKind::Stuck) | None, Some(Decision::Rollback)) => Self::RollingBack,
            (Some(OutcomeKind::Stuck) | None, None) if is_paused => Self::Paused,
            (Some(OutcomeKind::Stuck) | None, None) => Self::Running,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    /// The error says what comes near.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::as_str);
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            let near = nearest(text, names.into_iter());
            let near = near.map(|name| format!("did you mean {name}? ")).unwrap_or_default();
            format!("no transaction is ever {text:?}: {near}open, ended, all, or of {}", names.join(", "))
        })
    }
}

/// The name that was probably meant.
pub fn nearest<'n>(given: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    /// As clap asks for, which does the same for flags.
    const ALIKE: f64 = 0.7;
    let alike = names.map(|name| (strsim::jaro(given, name), name)).filter(|(alike, _)| *alike > ALIKE);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_come_back() {
        for status in Status::ALL {
            assert_eq!(Status::of_code(status.code()), Some(status));
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(status.is_open(), status.code() < Status::Committed.code(), "{status}");
        }
        assert!("stuk".parse::<Status>().unwrap_err().contains("did you mean stuck?"));
        assert!(!"xyz".parse::<Status>().unwrap_err().contains("mean"));
    }
}

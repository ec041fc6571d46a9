//! What a caller can do differently, one variant each.

use std::time::Duration;

use sagamore_decider::definition::check::Problem;
use sagamore_schemas::ids::IdError;

use crate::http::{AddressError, Answer, Silence};
use crate::start::Unanswered;

/// Why there is no transaction, or no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that cannot be one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An id, a name or a duration that cannot be one.
    #[error("{field}: {cause}")]
    Value {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        cause: IdError,
    },
    /// Data that cannot be JSON.
    #[error("it cannot be written as JSON: {0}")]
    Payload(#[from] serde_json::Error),
    /// A part that is missing.
    #[error("nothing is said of the {0}")]
    Missing(&'static str),
    /// The participants cannot be put together like this: what `sagamore define check` would say.
    #[error("no transaction can be made of this: {}", told(.0))]
    Shape(Vec<Problem>),
    /// This id was started with another definition or other data: it is another transaction's.
    #[error("{detail}")]
    Conflict {
        /// For people.
        detail: String,
    },
    /// The start was refused, or the wish: nothing has been done.
    #[error("{detail}")]
    Refused {
        /// One word: `unknown-definition`, `missing-input`, `too-old`, `too-large`, `wrong-state`, …
        reason: String,
        /// For people.
        detail: String,
    },
    /// The home shard takes no more transactions at the moment: nothing has been started. Later, with the same id.
    #[error("{detail}")]
    Overloaded {
        /// For people.
        detail: String,
    },
    /// No server listens: nothing has been started.
    #[error(transparent)]
    Unreachable(Silence),
    /// Not known in time. Never a failure: it may have been started, and goes on. Ask again, or start again with the same
    /// id and input.
    #[error("what became of it is not known after {waited:?}: {last}")]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// What was last heard.
        last: String,
    },
    /// Such a transaction is not known: it never was, or has ended and been forgotten.
    #[error("{id} is not known: it was never accepted, or has ended and been forgotten")]
    Forgotten {
        /// Which.
        id: String,
    },
    /// Something a server should not say.
    #[error("the server's answer is not understood: {0}")]
    Unexpected(String),
}

impl Error {
    /// What an answer says that is neither a success nor passing.
    pub(crate) fn of(answer: &Answer) -> Self {
        let problem = answer.problem();
        let detail = answer.told();
        let reason = problem.title.unwrap_or_default();
        match answer.status {
            409 if reason != "wrong-state" => Self::Conflict { detail },
            429 => Self::Overloaded { detail },
            400..500 => Self::Refused { reason, detail },
            _ => Self::Unexpected(detail),
        }
    }

    pub(crate) fn unanswered(unanswered: Unanswered, waited: Duration) -> Self {
        match unanswered {
            Unanswered::NobodyThere(silence) => Self::Unreachable(silence),
            Unanswered::Overloaded(answer) => Self::Overloaded { detail: answer.told() },
            Unanswered::Unknown(trouble) => Self::Timeout { waited, last: trouble.to_string() },
        }
    }
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

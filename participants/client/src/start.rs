//! A start, sent until it is answered: the same id and the same time each time, so that whatever happens on the way
//! there is one transaction.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sagamore_schemas::ids::{Span, Time, TransactionId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::http::{Answer, Patience, REQUEST_TIMEOUT, Servers, Silence};

/// How much longer than the wait itself its answer may take.
const ANSWER_SLACK: Duration = Duration::from_millis(500);
/// Longest wait of one request: proxies cut longer ones. The next one goes on.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// A start as it is sent. `time` is when it was first issued.
#[derive(Debug, Serialize)]
pub struct StartDocument<'a> {
    /// The caller's idempotency key.
    pub id: &'a TransactionId,
    /// `order` or `order@3`.
    pub definition: &'a str,
    /// Passed on byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<&'a RawValue>,
    /// The same on every retry.
    pub time: Time,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
}

/// What is wanted of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// That it is accepted.
    Accepted,
    /// That it has ended. Accepted before all patience was over, it is answered all the same.
    Ended,
}

/// What to do where nobody listens at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Say so, unless somebody has been there before: a person has the wrong address, or forgot the server.
    IsTold,
    /// Try on: a program outlives a server that restarts.
    IsWaitedFor,
}

/// A start that was not answered in time.
#[derive(Debug)]
pub enum Unanswered {
    /// Nobody has heard of it.
    NobodyThere(Silence),
    /// It was refused for now, each time.
    Overloaded(Answer),
    /// Whether it was accepted is not known.
    Unknown(Trouble),
}

/// What was last in the way.
#[derive(Debug)]
pub enum Trouble {
    /// An answer that may be another one a moment later.
    Answered(Answer),
    /// None.
    Silent(Silence),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => f.write_str(&answer.told()),
            Self::Silent(silence) => silence.fmt(f),
        }
    }
}

impl StartDocument<'_> {
    /// As it is sent.
    pub fn to_json(&self) -> String {
        match serde_json::to_string(self) {
            Ok(text) => text,
            Err(error) => unreachable!("a start has no part that cannot be JSON: {error}"),
        }
    }
}

/// Now, by this machine: the `time` of what is first issued now.
pub fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_epoch_ms(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// Sends a [`StartDocument`] until there is an answer that will not change by asking again.
pub async fn send(
    servers: &Servers,
    document: &str,
    until: Until,
    absence: Absence,
    patience: &mut Patience,
) -> Result<Answer, Unanswered> {
    let mut was_heard = false;
    let mut may_be_accepted = false;
    loop {
        let (path, timeout) = match until {
            Until::Ended => {
                let wait = patience.left().min(WAIT_MAX);
                let span = Span::from_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                (format!("/v1/transactions?wait={span}"), wait + ANSWER_SLACK)
            }
            Until::Accepted => {
                ("/v1/transactions".to_owned(), patience.left().max(ANSWER_SLACK).min(REQUEST_TIMEOUT))
            }
        };
        let trouble = match servers.post(&path, document, timeout).await {
            Ok(answer) if answer.may_pass() => {
                may_be_accepted |= answer.status != 429;
                Trouble::Answered(answer)
            }
            Ok(answer) if answer.status == 202 && until == Until::Ended && !patience.is_over() => {
                // It ended its wait before ours: the next one goes on.
                was_heard = true;
                may_be_accepted = true;
                patience.pause().await;
                continue;
            }
            Ok(answer) => return Ok(answer),
            Err(silence @ Silence::NobodyThere { .. }) if !was_heard && absence == Absence::IsTold => {
                return Err(Unanswered::NobodyThere(silence));
            }
            Err(silence @ Silence::NobodyThere { .. }) => Trouble::Silent(silence),
            Err(silence @ Silence::NoAnswer { .. }) => {
                may_be_accepted = true;
                Trouble::Silent(silence)
            }
        };
        was_heard |= !matches!(trouble, Trouble::Silent(Silence::NobodyThere { .. }));
        if patience.is_over() {
            return Err(match trouble {
                Trouble::Silent(silence) if !was_heard => Unanswered::NobodyThere(silence),
                Trouble::Answered(answer) if !may_be_accepted => Unanswered::Overloaded(answer),
                trouble => Unanswered::Unknown(trouble),
            });
        }
        tracing::warn!(%trouble, "a start is sent again");
        patience.pause().await;
    }
}

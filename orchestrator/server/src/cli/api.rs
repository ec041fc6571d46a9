//! The server's API, as a client of it: requests, and what their answers mean for the exit code.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;

use super::exit::{Exit, Failure};

/// How long a request without a wait of its own may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Debug, Clone, Args)]
pub struct ServerAddress {
    /// A server; any one answers for any transaction.
    #[arg(long = "server", value_name = "URL", default_value = "http://127.0.0.1:8088")]
    url: String,
}

/// Which server, for commands that can do without.
#[derive(Debug, Clone, Args)]
pub struct MaybeServerAddress {
    /// A server; without one, what only it knows is left out.
    #[arg(long = "server", value_name = "URL")]
    url: Option<String>,
}

impl MaybeServerAddress {
    /// The server, if one was named.
    pub fn given(&self) -> Option<ServerAddress> {
        self.url.clone().map(|url| ServerAddress { url })
    }
}

/// A server's API.
pub struct Api {
    url: String,
    client: Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: String,
}

/// Nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// Nobody listens there: the request was not heard.
    #[error("no server answers at {url}: {cause}")]
    NobodyThere {
        /// Where.
        url: String,
        /// What the system says.
        cause: String,
    },
    /// The connection broke or the answer took too long: the request may have been heard.
    #[error("the server at {url} did not answer: {cause}")]
    NoAnswer {
        /// Where.
        url: String,
        /// What the client says.
        cause: String,
    },
}

/// RFC 9457, as far as people read it.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

impl Api {
    /// A client for that server.
    pub fn new(address: &ServerAddress) -> Result<Self, Failure> {
        let url = address.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") {
            let message =
                format!("--server {url}: expected http://HOST:PORT (TLS belongs before the server)");
            return Err(Failure::usage(message));
        }
        let client = Client::builder().connect_timeout(REQUEST_TIMEOUT).no_proxy().build();
        Ok(Self { url, client: client.map_err(|error| Failure::new(Exit::Unexpected, error))? })
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Answer, Silence> {
        self.request(Method::GET, path, None, REQUEST_TIMEOUT).await
    }

    /// Writes; the answer may take as long as `timeout`.
    pub async fn post(&self, path: &str, body: String, timeout: Duration) -> Result<Answer, Silence> {
        self.request(Method::POST, path, Some(body), timeout).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<Answer, Silence> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).timeout(timeout);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| self.silence(&error))?;
        let status = response.status();
        let body = response.text().await.map_err(|error| self.silence(&error))?;
        Ok(Answer { status, body })
    }

    fn silence(&self, error: &reqwest::Error) -> Silence {
        let (url, cause) = (self.url.clone(), root_cause(error));
        if error.is_connect() || error.is_builder() {
            Silence::NobodyThere { url, cause }
        } else {
            Silence::NoAnswer { url, cause }
        }
    }
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        Self::new(Exit::Unreachable, silence)
    }
}

impl Answer {
    /// The body of an answer of the kind that was asked for.
    pub fn read<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Failure> {
        if !self.status.is_success() {
            return Err(self.failure());
        }
        serde_json::from_str(&self.body).map_err(|error| {
            Failure::new(Exit::Unexpected, format_args!("the server's answer is not understood: {error}"))
        })
    }

    /// Whether the same request may succeed a moment later.
    pub fn may_pass(&self) -> bool {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::BAD_GATEWAY
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        )
    }

    /// What an answer that is no success says.
    pub fn failure(&self) -> Failure {
        let problem: Problem = serde_json::from_str(&self.body).unwrap_or_default();
        let exit = match problem.title.as_deref() {
            Some(title @ ("unknown-definition" | "too-old")) => exit_of_refusal(title),
            _ => exit_of(self.status),
        };
        let said = match (problem.title, problem.detail) {
            (Some(title), Some(detail)) if detail.starts_with(&title) => detail,
            (Some(title), Some(detail)) => format!("{title}: {detail}"),
            (Some(text), None) | (None, Some(text)) => text,
            (None, None) => self.body.chars().take(200).collect(),
        };
        Failure::new(exit, format_args!("{said} (HTTP {})", self.status.as_u16()))
    }
}

/// What the word of a refused start means to a script.
pub fn exit_of_refusal(word: &str) -> Exit {
    match word {
        "unknown-definition" => Exit::NotFound,
        "overloaded" => Exit::Timeout,
        "missing-input" | "too-large" | "too-early" => Exit::Usage,
        _ => Exit::Conflict,
    }
}

/// What a status means to a script.
fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => Exit::Unreachable,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Exit::Timeout
        }
        status if status.is_client_error() => Exit::Usage,
        _ => Exit::Unexpected,
    }
}

/// The innermost error says what happened; the outer ones say where, which we know.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: body.to_owned() }
    }

    #[test]
    fn what_an_answer_means() {
        let check = |status, exit| assert_eq!(answer(status, "{}").failure().exit, exit, "{status}");
        check(400, Exit::Usage);
        check(401, Exit::NotAllowed);
        check(403, Exit::NotAllowed);
        check(404, Exit::NotFound);
        check(409, Exit::Conflict);
        check(413, Exit::Usage);
        check(422, Exit::Usage);
        check(429, Exit::Timeout);
        check(500, Exit::Unexpected);
        check(503, Exit::Unreachable);
        check(504, Exit::Timeout);
    }

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let body =
            r#"{"type":"about:blank","title":"conflict","status":409,"detail":"other input under this id"}"#;
        assert_eq!(answer(409, body).failure().message, "conflict: other input under this id (HTTP 409)");
        let unknown = answer(422, r#"{"title":"unknown-definition","detail":"unknown-definition: x"}"#);
        assert_eq!(unknown.failure().exit, Exit::NotFound);
        assert_eq!(answer(500, "boom").failure().message, "boom (HTTP 500)");
    }
}

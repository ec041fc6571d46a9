//! The servers' API, as a client of it: several addresses, requests, and what came back. What an answer means is said
//! elsewhere; the command line uses this too.
//!
//! A request goes to the address that answered last. Where nobody listens, it was not heard, and goes on to the next
//! address at once. Where the connection breaks or the answer takes too long, it may have been heard: that is the
//! caller's to know, who sends the same again, and then the next address is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde::Deserialize;

/// How long a request without a wait of its own may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most of an answer that is quoted, in characters.
const QUOTED_MAX: usize = 200;

/// The servers of one installation; any one answers for any transaction.
#[derive(Debug)]
pub struct Servers {
    urls: Vec<String>,
    /// Whom to ask first.
    current: AtomicUsize,
    client: Client,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// RFC 9457, as far as people and programs read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ProblemDocument {
    /// One word for programs, such as `conflict`.
    #[serde(default)]
    pub title: Option<String>,
    /// For people.
    #[serde(default)]
    pub detail: Option<String>,
}

/// An address that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Another scheme, or none.
    #[error("{0}: expected http://HOST:PORT (TLS belongs before the server)")]
    NotHttp(String),
    /// The HTTP client cannot be made.
    #[error("no HTTP client: {0}")]
    Client(reqwest::Error),
}

/// Nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Nobody listens at any address: the request was not heard.
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

impl Servers {
    /// One address, or several with commas between: `http://127.0.0.1:8088,http://127.0.0.1:8089`.
    pub fn new(addresses: &str) -> Result<Self, AddressError> {
        let urls = addresses.split(',').map(|url| {
            let url = url.trim().trim_end_matches('/');
            let host = url.strip_prefix("http://").filter(|host| !host.is_empty());
            host.map(|_| url.to_owned()).ok_or_else(|| AddressError::NotHttp(url.to_owned()))
        });
        let urls = urls.collect::<Result<_, _>>()?;
        let client = Client::builder().connect_timeout(REQUEST_TIMEOUT).no_proxy().build();
        Ok(Self { urls, current: AtomicUsize::new(0), client: client.map_err(AddressError::Client)? })
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Answer, Silence> {
        self.request(Method::GET, path, None, REQUEST_TIMEOUT).await
    }

    /// Writes; the answer may take as long as `timeout`.
    pub async fn post(&self, path: &str, body: &str, timeout: Duration) -> Result<Answer, Silence> {
        self.request(Method::POST, path, Some(body), timeout).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, Silence> {
        let begin = self.current.load(Ordering::Relaxed);
        let mut nobody = Vec::new();
        for turn in 0..self.urls.len() {
            let number = (begin + turn) % self.urls.len();
            match self.ask(&self.urls[number], method.clone(), path, body, timeout).await {
                Ok(answer) => {
                    // Alive, and of no help at the moment: the next request asks the next one.
                    let asked_next = if answer.may_pass() { number + 1 } else { number };
                    self.current.store(asked_next % self.urls.len(), Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(silence @ Silence::NoAnswer { .. }) => {
                    self.current.store((number + 1) % self.urls.len(), Ordering::Relaxed);
                    return Err(silence);
                }
                Err(Silence::NobodyThere { url, cause }) => nobody.push((url, cause)),
            }
        }
        let urls: Vec<_> = nobody.iter().map(|(url, _)| url.as_str()).collect();
        let cause = nobody.last().map(|(_, cause)| cause.clone()).unwrap_or_default();
        Err(Silence::NobodyThere { url: urls.join(", "), cause })
    }

    async fn ask(
        &self,
        url: &str,
        method: Method,
        path: &str,
        body: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, Silence> {
        let mut request = self.client.request(method, format!("{url}{path}")).timeout(timeout);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let silence = |error: reqwest::Error| {
            let (url, cause) = (url.to_owned(), root_cause(&error));
            if error.is_connect() || error.is_builder() {
                Silence::NobodyThere { url, cause }
            } else {
                Silence::NoAnswer { url, cause }
            }
        };
        let response = request.send().await.map_err(silence)?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(silence)?;
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// Whether it is what was asked for.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same request may succeed a moment later.
    pub fn may_pass(&self) -> bool {
        matches!(self.status, 408 | 429 | 502 | 503 | 504)
    }

    /// What an answer that is no success says.
    pub fn problem(&self) -> ProblemDocument {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The same for a person.
    pub fn told(&self) -> String {
        let said = match self.problem() {
            ProblemDocument { title: Some(title), detail: Some(detail) } if detail.starts_with(&title) => {
                detail
            }
            ProblemDocument { title: Some(title), detail: Some(detail) } => format!("{title}: {detail}"),
            ProblemDocument { title: Some(text), detail: None }
            | ProblemDocument { title: None, detail: Some(text) } => text,
            ProblemDocument { title: None, detail: None } => self.body.chars().take(QUOTED_MAX).collect(),
        };
        format!("{said} (HTTP {})", self.status)
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

/// How long somebody is willing to try.
#[derive(Debug)]
pub struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// From now on.
    pub fn new(timeout: Duration) -> Self {
        Self { until: Instant::now() + timeout, pause: PAUSE_MIN }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// From 50 ms to a second, longer each time, never beyond the end.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause.min(self.left())).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let told = |status, body: &str| Answer { status, body: body.to_owned() }.told();
        let body = r#"{"title":"conflict","status":409,"detail":"other input under this id"}"#;
        assert_eq!(told(409, body), "conflict: other input under this id (HTTP 409)");
        let body = r#"{"title":"conflict","detail":"conflict: other input"}"#;
        assert_eq!(told(409, body), "conflict: other input (HTTP 409)");
        assert_eq!(told(500, "boom"), "boom (HTTP 500)");
    }

    #[test]
    fn addresses() {
        let check = |given: &str, then: &[&str]| assert_eq!(Servers::new(given).unwrap().urls, then);
        check("http://127.0.0.1:1", &["http://127.0.0.1:1"]);
        let both = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
        check("http://127.0.0.1:1/, http://127.0.0.1:2", &both);
        for wrong in ["", "127.0.0.1:1", "ftp://127.0.0.1", "http://127.0.0.1:1,", "http://"] {
            assert!(matches!(Servers::new(wrong), Err(AddressError::NotHttp(_))), "{wrong}");
        }
    }
}

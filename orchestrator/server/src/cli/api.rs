//! The server's API for commands: where it is, and what its answers mean for the exit code. The requests are the client
//! crate's.

use clap::Args;
use sagamore_client::http::{Answer, Servers, Silence};
use serde::Deserialize;

use super::exit::{Exit, Failure};

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

/// The client for that server.
pub fn servers(address: &ServerAddress) -> Result<Servers, Failure> {
    Servers::new(&address.url).map_err(|error| Failure::usage(format_args!("--server {error}")))
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        Self::new(Exit::Unreachable, silence)
    }
}

/// The body of an answer of the kind that was asked for.
pub fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, Failure> {
    if !answer.is_success() {
        return Err(failure(answer));
    }
    serde_json::from_str(&answer.body).map_err(|error| {
        Failure::new(Exit::Unexpected, format_args!("the server's answer is not understood: {error}"))
    })
}

/// What an answer that is no success says.
pub fn failure(answer: &Answer) -> Failure {
    let exit = match answer.problem().title.as_deref() {
        Some(title @ ("unknown-definition" | "too-old")) => exit_of_refusal(title),
        _ => exit_of(answer.status),
    };
    Failure::new(exit, answer.told())
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
fn exit_of(status: u16) -> Exit {
    match status {
        404 | 410 => Exit::NotFound,
        409 | 412 => Exit::Conflict,
        401 | 403 => Exit::NotAllowed,
        502 | 503 => Exit::Unreachable,
        408 | 429 | 504 => Exit::Timeout,
        400..500 => Exit::Usage,
        _ => Exit::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned() }
    }

    #[test]
    fn what_an_answer_means() {
        let check = |status, exit| assert_eq!(failure(&answer(status, "{}")).exit, exit, "{status}");
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
    fn a_refusal_goes_by_its_word() {
        let unknown = answer(422, r#"{"title":"unknown-definition","detail":"unknown-definition: x"}"#);
        assert_eq!(failure(&unknown).exit, Exit::NotFound);
        assert_eq!(failure(&unknown).message, "unknown-definition: x (HTTP 422)");
    }
}

//! A transaction that has been accepted.

use std::time::Duration;

use sagamore_schemas::ids::TransactionId;
use serde_json::json;

use crate::client::Client;
use crate::error::Error;
use crate::http::{Patience, REQUEST_TIMEOUT};
use crate::outcome::Outcome;
use crate::start::{self, Absence, Until};

/// A transaction that has been accepted: it ends, whether anybody waits or not.
#[derive(Debug, Clone)]
pub struct Handle {
    client: Client,
    id: TransactionId,
    /// The start, as it was sent: the same again is answered with what became of it, by any server.
    document: String,
    group: Option<&'static str>,
}

impl Handle {
    pub(crate) fn new(
        client: Client,
        id: TransactionId,
        document: String,
        group: Option<&'static str>,
    ) -> Self {
        Self { client, id, document, group }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Waits for the outcome, over the end of one server and the take-over by another.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it has not ended in time: it goes on, and this can be called again. [`Error::Forgotten`]
    /// when it ended so long ago that nobody remembers.
    pub async fn wait(&self, timeout: Duration) -> Result<Outcome, Error> {
        let mut patience = Patience::new(timeout);
        let servers = self.client.servers();
        let sent = start::send(servers, &self.document, Until::Ended, Absence::IsWaitedFor, &mut patience);
        let answer = match sent.await {
            Ok(answer) => answer,
            // It was accepted: what is not known is how it ended.
            Err(unanswered) => {
                let last = match unanswered {
                    start::Unanswered::NobodyThere(silence) => silence.to_string(),
                    start::Unanswered::Overloaded(answer) => answer.told(),
                    start::Unanswered::Unknown(trouble) => trouble.to_string(),
                };
                return Err(Error::Timeout { waited: timeout, last });
            }
        };
        match answer.status {
            200 => Outcome::read(&answer, self.group),
            202 => Err(Error::Timeout { waited: timeout, last: format!("{} goes on", self.id) }),
            _ => Err(match Error::of(&answer) {
                // Accepted once, and no longer remembered.
                Error::Refused { reason, .. } if reason == "too-old" => {
                    Error::Forgotten { id: self.id.to_string() }
                }
                error => error,
            }),
        }
    }

    /// Has it go back, if there still is a way back. Whether it has gone back, [`wait`](Self::wait) tells.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong-state`: there is no way back any more, or it has ended. [`Error::Timeout`]: it may
    /// have been taken.
    pub async fn cancel(&self, reason: &str) -> Result<(), Error> {
        let path = format!("/v1/transactions/{}/cancel", self.id);
        let body = json!({ "reason": reason, "actor": "client" }).to_string();
        let unknown = |last: String| Error::Timeout { waited: REQUEST_TIMEOUT, last };
        match self.client.servers().post(&path, &body, REQUEST_TIMEOUT).await {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) if answer.status == 404 => Err(Error::Forgotten { id: self.id.to_string() }),
            Ok(answer) if answer.may_pass() => Err(unknown(answer.told())),
            Ok(answer) => Err(Error::of(&answer)),
            Err(silence) => Err(unknown(silence.to_string())),
        }
    }
}

//! The client: starts by definition, and what every start has in common.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::{IdError, Time, TransactionId};
use sagamore_schemas::wire::DefinitionRef;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::Error;
use crate::handle::Handle;
use crate::http::{Patience, Servers, Silence};
use crate::shape::NewTransaction;
use crate::start::{self, Absence, StartDocument, Until};

/// How long a start is sent again, unless told otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What one request waits for the shards to have a definition.
const DEFINE_WAIT: Duration = Duration::from_secs(5);
/// How much longer its answer may take.
const DEFINE_SLACK: Duration = Duration::from_secs(10);

/// A client of one installation. Clones are the same one: it is cheap to have one wherever it is needed.
#[derive(Debug, Clone)]
pub struct Client {
    servers: Arc<Servers>,
    /// Definitions that every shard is known to have, `name@version`.
    defined: Arc<Mutex<BTreeSet<String>>>,
}

/// A start by definition, not sent yet.
#[derive(Debug, Clone)]
#[must_use = "nothing is started before it is sent"]
pub struct Start {
    client: Client,
    definition: String,
    id: Option<String>,
    input: Option<Box<RawValue>>,
    issued: Option<Time>,
    traceparent: Option<String>,
    patience: Duration,
    pub(crate) group: Option<&'static str>,
}

impl Client {
    /// A client of the servers at these addresses, with commas between: `http://127.0.0.1:8088,http://127.0.0.1:8089`.
    /// They are tried in turn; nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn connect(addresses: &str) -> Result<Self, Error> {
        Ok(Self { servers: Arc::new(Servers::new(addresses)?), defined: Arc::default() })
    }

    /// Begins a start by a definition that has been applied, `order` or `order@3`.
    pub fn start(&self, definition: &str) -> Start {
        Start {
            client: self.clone(),
            definition: definition.to_owned(),
            id: None,
            input: None,
            issued: None,
            traceparent: None,
            patience: PATIENCE,
            group: None,
        }
    }

    /// Begins a transaction of participants and payloads, without a definition of its own.
    pub fn transaction(&self, id: &str) -> NewTransaction {
        NewTransaction::new(self.clone(), id)
    }

    /// Makes a definition known to every shard, and waits until it is. The same again changes nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] when its name and version have been applied with other content, [`Error::Refused`] when the
    /// check refuses it, [`Error::Timeout`] when some shard may not have it yet.
    pub async fn define(&self, definition: &Definition) -> Result<(), Error> {
        self.define_within(definition, PATIENCE).await
    }

    pub(crate) async fn define_within(&self, definition: &Definition, within: Duration) -> Result<(), Error> {
        let name = format!("{}@{}", definition.name, definition.version);
        let defined = || self.defined.lock().unwrap_or_else(PoisonError::into_inner);
        if defined().contains(&name) {
            return Ok(());
        }
        let body = definition.to_canonical_json();
        let mut patience = Patience::new(within);
        let path = format!("/v1/definitions?wait={}s", DEFINE_WAIT.as_secs());
        loop {
            let last = match self.servers.post(&path, &body, DEFINE_WAIT + DEFINE_SLACK).await {
                Ok(answer) if matches!(answer.status, 200 | 201) => {
                    defined().insert(name);
                    return Ok(());
                }
                Ok(answer) if answer.status == 202 => format!("some shard may not have {name} yet"),
                Ok(answer) if answer.may_pass() => answer.told(),
                Ok(answer) => return Err(Error::of(&answer)),
                Err(silence @ Silence::NobodyThere { .. }) if patience.is_over() => {
                    return Err(Error::Unreachable(silence));
                }
                Err(silence) => silence.to_string(),
            };
            if patience.is_over() {
                return Err(Error::Timeout { waited: within, last });
            }
            patience.pause().await;
        }
    }

    /// Whatever is known of this definition is asked anew.
    pub(crate) fn forget(&self, definition: &str) {
        self.defined.lock().unwrap_or_else(PoisonError::into_inner).remove(definition);
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }
}

impl Start {
    /// The transaction's id, which is the idempotency key: the same id with the same input is one transaction, however
    /// often it is sent.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Its input.
    ///
    /// # Errors
    /// [`Error::Payload`] when it cannot be JSON.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Result<Self, Error> {
        self.input = Some(to_raw_value(input)?);
        Ok(self)
    }

    /// Its input, byte for byte.
    pub fn raw_input(mut self, input: Box<RawValue>) -> Self {
        self.input = Some(input);
        self
    }

    /// When it was first issued, for a program that has noted that before it sends: a start that comes again after the
    /// dedupe window is refused then, and not run a second time. Otherwise it is the moment of [`send`](Self::send).
    pub fn issued(mut self, time: Time) -> Self {
        self.issued = Some(time);
        self
    }

    /// W3C trace context.
    pub fn traceparent(mut self, traceparent: &str) -> Self {
        self.traceparent = Some(traceparent.to_owned());
        self
    }

    /// How long it is sent again while no server answers; 30 s unless told otherwise.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it until it is accepted: from then on it is carried to its end, whatever happens to this program.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it may have been started. Any other: it has not.
    pub async fn send(self) -> Result<Handle, Error> {
        let id: TransactionId = self.id.ok_or(Error::Missing("id"))?.parse().map_err(wrong("id"))?;
        let definition: DefinitionRef = self.definition.parse().map_err(wrong("definition"))?;
        let document = StartDocument {
            id: &id,
            definition: &definition.to_string(),
            input: self.input.as_deref(),
            time: self.issued.unwrap_or_else(start::now),
            traceparent: self.traceparent.as_deref(),
        };
        let document = document.to_json();
        let mut patience = Patience::new(self.patience);
        let servers = self.client.servers();
        let sent = start::send(servers, &document, Until::Accepted, Absence::IsWaitedFor, &mut patience);
        let answer = sent.await.map_err(|unanswered| Error::unanswered(unanswered, self.patience))?;
        if !answer.is_success() {
            return Err(Error::of(&answer));
        }
        Ok(Handle::new(self.client, id, document, self.group))
    }
}

pub(crate) fn wrong(field: &'static str) -> impl Fn(IdError) -> Error {
    move |cause| Error::Value { field, cause }
}

//! The classic interface: participants and payloads put together in the program, no definition written.
//!
//! There is one all the same, for the fold runs nothing else. It is made of the shape alone: the protocol, the
//! participants in their order, the deadline, the timeout. Payloads travel in the start's input, by participant, and are
//! mapped from there. Its name is a hash of the shape, so that the same shape is the same definition from whichever
//! program it comes, and applying it again changes nothing. **Each shape is one definition for ever**, and counts against
//! `definitions_max` (1,000): a program that makes up participants or deadlines at run time should write a definition.

use std::collections::BTreeMap;
use std::time::Duration;

use sagamore_decider::definition::build::{branch, definition, step};
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::Span;
use sagamore_schemas::log::Digest256;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use crate::client::{Client, PATIENCE, wrong};
use crate::error::Error;
use crate::handle::Handle;

/// The one step of a group.
const GROUP: &str = "all";
/// What the name of a shape's definition begins with; 26 digits of its hash follow, as many as a name has room for.
const NAME_PREFIX: &str = "adhoc-";
const NAME_DIGITS: usize = 26;

/// How participants end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    TwoPhase,
    ThreePhase,
    Saga,
}

/// A transaction that is being put together.
#[derive(Debug, Clone)]
#[must_use = "nothing is started before `start`"]
pub struct NewTransaction {
    client: Client,
    id: String,
    protocol: Protocol,
    /// Name and participant of each branch, in order.
    branches: Vec<(String, String)>,
    payloads: BTreeMap<String, Box<RawValue>>,
    deadline: Option<String>,
    timeout: Option<String>,
    patience: Duration,
}

impl NewTransaction {
    pub(crate) fn new(client: Client, id: &str) -> Self {
        Self {
            client,
            id: id.to_owned(),
            protocol: Protocol::TwoPhase,
            branches: Vec::new(),
            payloads: BTreeMap::new(),
            deadline: None,
            timeout: None,
            patience: PATIENCE,
        }
    }

    /// All `prepare`; when all have said yes, all `commit`, otherwise all `abort`. This is so unless told otherwise.
    pub fn two_phase(mut self) -> Self {
        self.protocol = Protocol::TwoPhase;
        self
    }

    /// The same with `precommit` before the first `commit`.
    pub fn three_phase(mut self) -> Self {
        self.protocol = Protocol::ThreePhase;
        self
    }

    /// One after the other does `execute`; when one refuses, those before it `compensate`, the last first.
    pub fn saga(mut self) -> Self {
        self.protocol = Protocol::Saga;
        self
    }

    /// Adds a participant with what it is to do.
    ///
    /// # Errors
    /// [`Error::Payload`] when it cannot be JSON.
    pub fn participant<T: Serialize + ?Sized>(self, participant: &str, payload: &T) -> Result<Self, Error> {
        self.branch(participant, participant, payload)
    }

    /// The same under a name of its own, for a participant that takes part twice.
    ///
    /// # Errors
    /// [`Error::Payload`] when it cannot be JSON.
    pub fn branch<T: Serialize + ?Sized>(
        mut self,
        name: &str,
        participant: &str,
        payload: &T,
    ) -> Result<Self, Error> {
        self.branches.push((name.to_owned(), participant.to_owned()));
        self.payloads.insert(name.to_owned(), to_raw_value(payload)?);
        Ok(self)
    }

    /// From the start to the decision, such as `30s`: then it goes back. 15 minutes unless told otherwise.
    pub fn deadline(mut self, deadline: &str) -> Self {
        self.deadline = Some(deadline.to_owned());
        self
    }

    /// How long a participant may take to answer one attempt; 30 s unless told otherwise.
    pub fn timeout(mut self, timeout: &str) -> Self {
        self.timeout = Some(timeout.to_owned());
        self
    }

    /// How long it is sent again while no server answers; 30 s unless told otherwise.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it: from here on the coordinator asks the participants, decides, and tells them, until each has
    /// acknowledged; whatever happens to this program.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it may have been started. Any other: it has not.
    pub async fn start(self) -> Result<Handle, Error> {
        let definition = self.definition()?;
        let name = format!("{}@{}", definition.name, definition.version);
        let mut start = self.client.start(&name).id(&self.id).input(&self.payloads)?.patience(self.patience);
        start.group = (self.protocol != Protocol::Saga).then_some(GROUP);
        let mut is_new = true;
        loop {
            self.client.define_within(&definition, self.patience).await?;
            match start.clone().send().await {
                // Known here, and not there: these are other topics than those we once defined it in.
                Err(Error::Refused { reason, .. }) if reason == "unknown-definition" && is_new => {
                    self.client.forget(&name);
                    is_new = false;
                }
                sent => return sent,
            }
        }
    }

    /// The definition of its shape.
    ///
    /// # Errors
    /// [`Error::Shape`] with what the check says, [`Error::Value`] for a deadline or timeout that is none.
    pub fn definition(&self) -> Result<Definition, Error> {
        let unnamed = self.build(NAME_PREFIX.trim_end_matches('-'))?;
        let digits = Digest256(Sha256::digest(unnamed.to_canonical_json()).into()).to_string();
        self.build(&format!("{NAME_PREFIX}{}", &digits[..NAME_DIGITS]))
    }

    fn build(&self, name: &str) -> Result<Definition, Error> {
        let span = |field, text: &Option<String>| -> Result<Option<Span>, Error> {
            text.as_deref().map(str::parse).transpose().map_err(wrong(field))
        };
        let (deadline, timeout) = (span("deadline", &self.deadline)?, span("timeout", &self.timeout)?);
        let payload = |name: &str| format!(r#""${{input.{name}}}""#);
        let mut built = definition(name, 1);
        if let Some(deadline) = deadline {
            built = built.deadline(deadline);
        }
        let timed = |step: sagamore_decider::definition::build::StepBuilder| match timeout {
            Some(timeout) => step.timeout(timeout),
            None => step,
        };
        let branches = self.branches.iter().map(|(name, participant)| {
            let branch = branch(participant).input(&payload(name));
            if name == participant { branch } else { branch.named(name) }
        });
        built = match self.protocol {
            Protocol::TwoPhase => built.step(timed(step(GROUP).two_phase(branches))),
            Protocol::ThreePhase => built.step(timed(step(GROUP).three_phase(branches))),
            Protocol::Saga => self.branches.iter().fold(built, |built, (name, participant)| {
                built.step(timed(step(name).participant(participant).input(&payload(name))))
            }),
        };
        built.build().map(|(definition, _)| definition).map_err(Error::Shape)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transfer(id: &str, cents: u32) -> NewTransaction {
        let client = Client::connect("http://127.0.0.1:1").unwrap();
        let debit = json!({"account": "alice", "debit_cents": cents});
        let credit = json!({"account": "bob", "credit_cents": cents});
        let transaction = client.transaction(id).participant("bank-a", &debit).unwrap();
        transaction.participant("bank-b", &credit).unwrap().deadline("30s")
    }

    #[test]
    fn a_shape_is_one_definition_whatever_it_carries() {
        let first = transfer("t-1", 100).definition().unwrap();
        let other = transfer("t-2", 200).definition().unwrap();
        assert_eq!(first, other);
        assert_eq!(first.name.as_str().len(), 32);
        assert!(first.name.as_str().starts_with("adhoc-"));
        // For ever: another name for the same shape would be another definition at every update of the client.
        assert_eq!(
            first.to_canonical_json(),
            r#"{"name":"adhoc-4edb45b13492eeac9aec149788","version":1,"deadline":"30s","steps":[{"name":"all","protocol":"two-phase","branches":[{"participant":"bank-a","input":"${input.bank-a}"},{"participant":"bank-b","input":"${input.bank-b}"}]}]}"#
        );
    }

    #[test]
    fn what_differs_has_another_name() {
        let base = transfer("t", 1);
        let names = [
            base.clone(),
            base.clone().three_phase(),
            base.clone().saga(),
            base.clone().deadline("31s"),
            base.clone().timeout("1s"),
            base.clone().participant("bank-c", &1).unwrap(),
            base.branch("second", "bank-a", &1).unwrap(),
        ];
        let names: std::collections::BTreeSet<_> =
            names.iter().map(|shape| shape.definition().unwrap().name).collect();
        assert_eq!(names.len(), 7);
    }

    #[test]
    fn what_cannot_be_is_told_before_anything_is_sent() {
        let twice = transfer("t", 1).participant("bank-a", &1).unwrap().definition();
        assert!(matches!(&twice, Err(Error::Shape(problems)) if !problems.is_empty()), "{twice:?}");
        let named = transfer("t", 1).participant("Bank", &1).unwrap().definition();
        assert!(matches!(&named, Err(Error::Shape(_))), "{named:?}");
        let late = transfer("t", 1).deadline("soon").definition();
        assert!(matches!(late, Err(Error::Value { field: "deadline", .. })), "{late:?}");
    }
}

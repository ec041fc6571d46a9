//! What happened to transactions, as far as it came from outside: the start, the answers, the verbs.

use std::collections::{BTreeMap, HashMap};

use sagamore_decider::output::{Destination, Output, Record};
use sagamore_schemas::ids::{Span, Time, TransactionId};
use sagamore_schemas::wire::{
    Address, Answer, Authority, DefinitionRef, Input, Occasion, Operation, OutcomeKind, Payload, Verb,
    read_command, read_input, read_outcome,
};

use crate::audit::Span as Stretch;

/// One transaction.
#[derive(Debug)]
pub struct Recorded {
    /// Its id.
    pub id: TransactionId,
    /// Which life of it.
    pub birth: String,
    /// What it was started with.
    pub data: Payload,
    /// Attempts, with what was answered, in order; nothing, where nothing was heard.
    pub attempts: BTreeMap<Asked, Vec<Answered>>,
    /// Verbs, and how long after the start they came.
    pub verbs: Vec<(Span, Vec<u8>)>,
    /// How it ended, or that it is stuck, and why.
    pub outcome: Option<(OutcomeKind, Option<String>)>,
    started: Time,
    asked: HashMap<Asked, Time>,
}

/// A command, but for whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked {
    /// The step.
    pub step: String,
    /// The branch.
    pub branch: String,
    /// What was asked.
    pub operation: Operation,
    /// The attempt.
    pub attempt: u32,
}

/// What was answered to it.
#[derive(Debug, Clone)]
pub struct Answered {
    /// How long after it was asked.
    pub after: Span,
    /// The answer.
    pub outcome: Answer,
    /// Why.
    pub reason: Option<String>,
    /// The result.
    pub data: Payload,
}

impl Asked {
    /// Of a command or a reply.
    pub fn of(address: &Address<'_>) -> Self {
        Self {
            step: address.step.clone().into_owned(),
            branch: address.branch.clone().into_owned(),
            operation: address.operation,
            attempt: address.attempt,
        }
    }
}

/// Takes what a fold reads and says. It holds the open transactions.
pub struct Recorder {
    wanted: DefinitionRef,
    span: Stretch,
    open: HashMap<String, Recorded>,
    by_id: HashMap<TransactionId, String>,
    ended: Vec<Recorded>,
}

impl Recorder {
    /// Of the transactions of one definition.
    pub fn new(wanted: DefinitionRef, span: Stretch) -> Self {
        Self { wanted, span, open: HashMap::new(), by_id: HashMap::new(), ended: Vec::new() }
    }

    /// A record of the inbox, and what the fold has said to it. Returns those that have ended.
    pub fn see(&mut self, record: &Record<'_>, outputs: &[Output]) -> impl Iterator<Item = Recorded> {
        match read_input(record.value) {
            Ok(Input::Reply(reply)) => {
                let birth = reply.address.birth.to_string();
                let asked = Asked::of(&reply.address);
                if let Some(open) = self.open.get_mut(&birth)
                    && let Some(at) = open.asked.get(&asked)
                {
                    let after = record.timestamp.since(*at);
                    let reason = reply.reason.map(std::borrow::Cow::into_owned);
                    let data = reply.data.to_payload();
                    let answered = Answered { after, outcome: reply.outcome, reason, data };
                    open.attempts.entry(asked).or_default().push(answered);
                }
            }
            Ok(Input::Verb(Verb { subject, wish, authority })) => {
                let birth = self.by_id.get(&subject);
                if let Some(open) = birth.and_then(|birth| self.open.get_mut(birth)) {
                    let after = record.timestamp.since(open.started);
                    let authority = Authority { revision: None, ..authority };
                    open.verbs.push((after, Verb { subject, wish, authority }.to_json()));
                }
            }
            _ => {}
        }
        for output in outputs {
            match output.destination {
                Destination::Commands(_) => self.on_command(record, output),
                Destination::Outcomes => self.on_outcome(output),
                Destination::Inbox(_) | Destination::DeadLetters => {}
            }
        }
        self.ended.drain(..)
    }

    /// Those that have not ended; an outcome says that they are stuck.
    pub fn finish(self) -> impl Iterator<Item = Recorded> {
        self.open.into_values()
    }

    fn on_command(&mut self, record: &Record<'_>, output: &Output) {
        let Ok(command) = read_command(output.value.as_deref()) else { return };
        let address = &command.address;
        let birth = address.birth.to_string();
        if address.birth.offset == record.offset && !self.open.contains_key(&birth) {
            self.on_start(record, &birth, command.definition.as_ref());
        }
        if let Some(open) = self.open.get_mut(&birth) {
            let asked = Asked::of(address);
            open.attempts.entry(asked.clone()).or_default();
            open.asked.insert(asked, record.timestamp);
        }
    }

    /// The first command of a start names the definition that was taken.
    fn on_start(&mut self, record: &Record<'_>, birth: &str, definition: &str) {
        let Ok(Input::Start(start)) = read_input(record.value) else { return };
        let is_wanted = match self.wanted.version {
            Some(version) => definition == format!("{}@{version}", self.wanted.name),
            None => definition.split('@').next() == Some(self.wanted.name.as_str()),
        };
        if !is_wanted || !self.span.contains(record.timestamp) {
            return;
        }
        self.by_id.insert(start.subject.clone(), birth.to_owned());
        let recorded = Recorded {
            id: start.subject,
            birth: birth.to_owned(),
            data: start.data.to_payload(),
            attempts: BTreeMap::new(),
            verbs: Vec::new(),
            outcome: None,
            started: record.timestamp,
            asked: HashMap::new(),
        };
        self.open.insert(birth.to_owned(), recorded);
    }

    fn on_outcome(&mut self, output: &Output) {
        let Ok(outcome) = read_outcome(output.value.as_deref()) else { return };
        let Occasion::Transaction { birth, .. } = &outcome.occasion else { return };
        let birth = birth.to_string();
        let reason = outcome.reason.map(std::borrow::Cow::into_owned);
        match outcome.outcome {
            OutcomeKind::Stuck => {
                if let Some(open) = self.open.get_mut(&birth) {
                    open.outcome = Some((OutcomeKind::Stuck, reason));
                }
            }
            ended => {
                if let Some(mut open) = self.open.remove(&birth) {
                    self.by_id.remove(&open.id);
                    open.outcome = Some((ended, reason));
                    self.ended.push(open);
                }
            }
        }
    }
}

//! Commands as a coordinator would send them, and their answers as text.

use sagamore_participant::barrier::BranchKey;
use sagamore_participant::perform::{Answered, perform};
use sagamore_participant::store::{LocalTransaction, Store, StoreFault};
use sagamore_participant::{Command, Operation, Participant, Payload};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::Address;
use uuid::Uuid;

const TRIES_MORE: usize = 3;
/// When everything is issued that is not told otherwise.
pub(crate) const ISSUED_MS: i64 = 1_000;

/// A command.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub instance: Uuid,
    pub subject: String,
    pub birth: String,
    pub step: &'static str,
    pub branch: &'static str,
    pub operation: Operation,
    pub issued_ms: i64,
    pub watermark_ms: i64,
    pub told: Payload,
}

impl Ask {
    /// `text`: `operation` or `operation=what business code is told`.
    pub(crate) fn new(subject: impl Into<String>, text: &str) -> Self {
        let (operation, told) = text.split_once('=').unwrap_or((text, "done"));
        Self {
            instance: Uuid::nil(),
            subject: subject.into(),
            birth: "0-7".into(),
            step: "s",
            branch: "b",
            operation: Operation::ALL.into_iter().find(|known| known.as_str() == operation).expect(operation),
            issued_ms: ISSUED_MS,
            watermark_ms: 0,
            told: Payload::from_json(format!("\"{told}\"")).unwrap(),
        }
    }

    pub(crate) fn born(mut self, offset: usize) -> Self {
        self.birth = format!("0-{offset}");
        self
    }

    pub(crate) fn issued(mut self, issued_ms: i64) -> Self {
        self.issued_ms = issued_ms;
        self
    }

    pub(crate) fn watermark(mut self, watermark_ms: i64) -> Self {
        self.watermark_ms = watermark_ms;
        self
    }

    pub(crate) fn command(&self) -> Command<'_> {
        Command {
            address: Address {
                subject: self.subject.parse().unwrap(),
                birth: self.birth.parse().unwrap(),
                step: self.step.into(),
                branch: self.branch.into(),
                operation: self.operation,
                attempt: 1,
            },
            instance: self.instance,
            issued: Time::from_epoch_ms(self.issued_ms),
            watermark: Time::from_epoch_ms(self.watermark_ms),
            deadline: Time::MAX,
            definition: "d@1".into(),
            replyto: "sagamore.inbox/0".into(),
            traceparent: None,
            replytoken: None,
            unilateral_after: None,
            data: self.told.as_ref(),
        }
    }
}

/// All in one local transaction, but for those that must have one of their own.
pub(crate) fn try_all<P: Participant>(
    participant: &P,
    store: &P::Store,
    session: &mut <P::Store as Store>::Session,
    asks: &[Ask],
) -> Result<Vec<Answered>, StoreFault> {
    let is_alone = |ask: &Ask| store.is_alone(ask.operation);
    let mut answers = Vec::with_capacity(asks.len());
    for group in asks.chunk_by(|one, next| !is_alone(one) && !is_alone(next)) {
        // As a worker does it: one alone, whom others were in the way, is tried again.
        let mut tried = try_group(participant, store, session, group);
        for _ in 0..TRIES_MORE {
            if group.len() == 1 && matches!(tried, Err(StoreFault::Conflict)) {
                tried = try_group(participant, store, session, group);
            }
        }
        answers.extend(tried?);
    }
    Ok(answers)
}

fn try_group<P: Participant>(
    participant: &P,
    store: &P::Store,
    session: &mut <P::Store as Store>::Session,
    group: &[Ask],
) -> Result<Vec<Answered>, StoreFault> {
    let commands: Vec<Command<'_>> = group.iter().map(Ask::command).collect();
    let mut tx = store.begin(session)?;
    tx.foresee(&commands.iter().map(BranchKey::of).collect::<Vec<_>>())?;
    let answers: Result<Vec<Answered>, StoreFault> =
        commands.iter().map(|command| perform(participant, &mut tx, command)).collect();
    let answers = answers?;
    tx.commit()?;
    Ok(answers)
}

/// All in one local transaction of a new session, as text: `ok`, `refused reason`, `error reason`.
pub(crate) fn ask_all<P: Participant>(participant: &P, store: &P::Store, asks: &[Ask]) -> Vec<String> {
    let mut session = store.session().unwrap();
    let answers = try_all(participant, store, &mut session, asks).unwrap();
    answers.iter().map(text).collect()
}

pub(crate) fn text(answered: &Answered) -> String {
    let reason = answered.reason.as_deref().map(|reason| format!(" {reason}")).unwrap_or_default();
    format!("{}{reason}", answered.outcome.as_str())
}

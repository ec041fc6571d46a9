//! A batch of commands in one local transaction, and their replies.

use std::borrow::Cow;
use std::sync::Arc;

use sagamore_schemas::topics::RECORD_BYTES_MAX;
use sagamore_schemas::wire::{Command, PayloadRef, Reply, parse_replyto, read_command};
use tracing::{debug, warn};

use super::counters::count;
use super::progress::Token;
use super::replies::{Outgoing, Replies, Shared};
use crate::participant::Participant;
use crate::perform::{Answered, Work, perform};
use crate::store::{LocalTransaction, Store, StoreFault};

/// The rest of a reply beside its `data`, generously: what is larger than a record may be is not sent.
const ENVELOPE_BYTES: i64 = 4096;

/// One record of the command topic.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) token: Option<Token>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key_hash: u64,
    pub(super) value: Vec<u8>,
}

impl Taken {
    pub(super) fn token(&self) -> Token {
        match self.token {
            Some(token) => token,
            None => unreachable!("a record gets its token when it is taken"),
        }
    }
}

/// One thread's part.
pub(super) struct Worker<P: Participant> {
    participant: Arc<P>,
    store: Arc<P::Store>,
    session: Option<<P::Store as Store>::Session>,
    replies: Arc<Replies>,
    shared: Arc<Shared>,
    topic: Arc<str>,
    source: String,
}

/// A command of which nothing has been done yet.
struct Asked<'b> {
    token: Token,
    partition: i32,
    command: Command<'b>,
}

impl<P: Participant> Worker<P> {
    pub(super) fn new(
        participant: Arc<P>,
        store: Arc<P::Store>,
        replies: Arc<Replies>,
        shared: Arc<Shared>,
        topic: Arc<str>,
        source: String,
    ) -> Self {
        Self { participant, store, session: None, replies, shared, topic, source }
    }

    /// Does what has not been taken away meanwhile, and leaves the batch for its buffers.
    pub(super) fn run(&mut self, batch: &mut Vec<Taken>) {
        self.shared.progress.begin(batch, Taken::token);
        let mut asked = Vec::with_capacity(batch.len());
        for taken in &*batch {
            let Some(one) = self.read(taken) else {
                self.shared.progress.finish(taken.token());
                continue;
            };
            match self.participant.before(&one.command) {
                Ok(()) => asked.push(one),
                Err(fault) => self.reply(one, &Answered::error(fault.reason().to_owned())),
            }
        }
        self.answer(asked);
    }

    fn read<'b>(&self, taken: &'b Taken) -> Option<Asked<'b>> {
        let Taken { partition, offset, .. } = *taken;
        let value = Some(taken.value.as_slice()).filter(|value| !value.is_empty());
        let command = match read_command(value) {
            Ok(command) => command,
            Err(cause) => {
                warn!(topic = %self.topic, partition, offset, %cause, "not a command; passed over");
                count(&self.shared.counts.undecodable);
                return None;
            }
        };
        match parse_replyto(&command.replyto) {
            Some((topic, home)) if topic == self.replies.topic() => {
                Some(Asked { token: taken.token(), partition: home.0, command })
            }
            Some(_) | None => {
                warn!(
                    topic = %self.topic, partition, offset, replyto = %command.replyto,
                    "replies go to the inbox and nowhere else; passed over"
                );
                count(&self.shared.counts.misdirected);
                None
            }
        }
    }

    /// All in one local transaction; if that fails as a whole, each in one of its own.
    fn answer(&mut self, asked: Vec<Asked<'_>>) {
        if asked.is_empty() {
            return;
        }
        match self.transact(&asked) {
            Ok(answers) => {
                for (one, answered) in asked.into_iter().zip(&answers) {
                    self.reply(one, answered);
                }
            }
            Err(fault) if asked.len() > 1 => {
                debug!(%fault, commands = asked.len(), "the local transaction failed; each command alone");
                for one in asked {
                    self.answer(vec![one]);
                }
            }
            Err(fault) => {
                warn!(%fault, "the local transaction failed");
                let answered = Answered::error(fault.to_string());
                for one in asked {
                    self.reply(one, &answered);
                }
            }
        }
    }

    fn transact(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Answered>, StoreFault> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.store.session()?,
        };
        let mut tx = self.store.begin(&mut session)?;
        let mut answers = Vec::with_capacity(asked.len());
        for one in asked {
            answers.push(perform(&*self.participant, &mut tx, &one.command)?);
        }
        tx.commit()?;
        // Only a session that has just worked is used again.
        self.session = Some(session);
        Ok(answers)
    }

    fn reply(&self, asked: Asked<'_>, answered: &Answered) {
        let counts = &self.shared.counts;
        count(match answered.work {
            Work::Effect => &counts.effects,
            Work::Refusal => &counts.refusals,
            Work::Repeated => &counts.repeated,
            Work::Nothing => &counts.nothing,
            Work::Failed => &counts.failed,
        });
        let Asked { token, partition, command } = asked;
        let key = command.address.subject.as_str().as_bytes().to_vec();
        let mut reply = Reply {
            address: command.address,
            instance: command.instance,
            source: Cow::Borrowed(&self.source),
            outcome: answered.outcome,
            reason: answered.reason.as_deref().map(Cow::Borrowed),
            replytoken: command.replytoken,
            data: answered.data.as_ref(),
        };
        let is_too_large = i64::try_from(reply.data.size_bytes())
            .is_ok_and(|bytes| bytes > RECORD_BYTES_MAX - ENVELOPE_BYTES);
        if is_too_large {
            reply.outcome = sagamore_schemas::wire::Answer::Error;
            reply.reason = Some("the result is larger than a record may be".into());
            reply.data = PayloadRef::Absent;
        }
        self.replies.send(Outgoing { token, partition, key, value: reply.to_json() });
    }
}

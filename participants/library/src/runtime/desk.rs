//! What comes in is read, and what goes out is put into words: the same for every way in which the work is done.

use std::borrow::Cow;
use std::sync::Arc;

use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::RECORD_BYTES_MAX;
use sagamore_schemas::wire::{
    Asked, Command, Decided, Operation, PayloadRef, Reply, Verdict, parse_replyto, read_asked,
};
use tracing::{debug, error, info, warn};

use super::counters::count;
use super::progress::Token;
use super::replies::Shared;
use crate::barrier::{Branch, BranchKey};
use crate::doubt::{Settled, branch_of, settle};
use crate::participant::Participant;
use crate::perform::{Answered, Work, perform};
use crate::store::{Store, StoreFault};

/// The rest of a reply beside its `data`, generously: what is larger than a record may be is not sent.
const ENVELOPE_BYTES: i64 = 4096;

/// One record of the command topic.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) token: Option<Token>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key_hash: u64,
    pub(super) key: Vec<u8>,
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

/// What came of a wish in a local transaction.
pub(super) enum Done {
    Answered(Answered),
    Settled(Settled),
}

/// Reads commands and verdicts, and writes replies.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    /// Where commands come from.
    pub(super) topic: Arc<str>,
    /// Where replies go, and nowhere else.
    pub(super) inbox: Arc<str>,
    pub(super) name: Name,
}

/// What a record of the command topic wants.
pub(super) enum Wish<'b> {
    /// The home partition, and what is asked from there.
    Command(i32, Command<'b>),
    Verdict(Branch, Decided),
}

impl Wish<'_> {
    /// In an open local transaction; an error means that it is of no more use.
    pub(super) fn carry_out<P: Participant>(
        &self,
        participant: &P,
        tx: &mut <P::Store as Store>::Transaction<'_>,
    ) -> Result<Done, StoreFault> {
        Ok(match self {
            Self::Command(_, command) => Done::Answered(perform(participant, tx, command)?),
            Self::Verdict(branch, decision) => Done::Settled(settle(participant, tx, branch, *decision)?),
        })
    }

    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Command(_, command) => command.address.operation,
            Self::Verdict(_, Decided::Commit) => Operation::Commit,
            Self::Verdict(_, Decided::Abort | Decided::Undecided | Decided::Forgotten) => Operation::Abort,
        }
    }

    pub(super) fn key(&self) -> BranchKey<'_> {
        match self {
            Self::Command(_, command) => BranchKey::of(command),
            Self::Verdict(branch, _) => branch.key(),
        }
    }
}

impl Desk {
    pub(super) fn read<'b>(&self, taken: &'b Taken) -> Option<Wish<'b>> {
        count(&self.shared.counts.taken);
        let Taken { partition, offset, .. } = *taken;
        let value = Some(taken.value.as_slice()).filter(|value| !value.is_empty());
        let command = match read_asked(value) {
            Ok(Asked::Command(command)) => command,
            Ok(Asked::Verdict(verdict)) => return self.read_verdict(taken, &verdict),
            Err(cause) => {
                warn!(topic = %self.topic, partition, offset, %cause, "neither a command nor a verdict; passed over");
                count(&self.shared.counts.undecodable);
                return None;
            }
        };
        match parse_replyto(&command.replyto) {
            Some((topic, home)) if topic == &*self.inbox => Some(Wish::Command(home.0, command)),
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

    fn read_verdict(&self, taken: &Taken, verdict: &Verdict<'_>) -> Option<Wish<'static>> {
        let asker = &verdict.inquiry.participant;
        if *asker != self.name {
            let Taken { partition, offset, .. } = *taken;
            warn!(topic = %self.topic, partition, offset, %asker, "the answer to another participant's inquiry; passed over");
            count(&self.shared.counts.misdirected);
            return None;
        }
        let branch = branch_of(verdict);
        Some(Wish::Verdict(branch, verdict.decision))
    }

    pub(super) fn tell_settled(&self, branch: &Branch, decision: Decided, settled: Settled) {
        let counts = &self.shared.counts;
        let Branch { instance, subject, birth, step, branch } = branch;
        let decision = decision.as_str();
        match settled {
            Settled::Told(Answered { work: Work::Failed, reason, .. }) => {
                let reason = reason.unwrap_or_default();
                warn!(%subject, %birth, %step, %branch, decision, %reason, "the verdict could not be carried out; asked again");
                count(&counts.failed);
            }
            Settled::Told(_) => {
                info!(%subject, %birth, %step, %branch, decision, "no longer in doubt");
                count(&counts.settled);
            }
            Settled::Undecided => {
                debug!(%subject, %birth, %step, %branch, "undecided: goes on waiting");
                count(&counts.undecided);
            }
            Settled::Forgotten => {
                error!(
                    %instance, %subject, %birth, %step, %branch,
                    "in doubt for ever: the transaction has ended and the coordinator no longer remembers how, so it never \
                     had, or has lost, this branch's answer. Nothing is done. Look for the outcome of this birth in the \
                     outcomes or the journal, and write a sagamore.decision.v1 with commit or abort to this topic"
                );
                count(&counts.forgotten);
            }
            Settled::NotInDoubt => {
                debug!(%subject, %birth, %step, %branch, decision, "a verdict about a branch that is not in doubt");
            }
            Settled::Contradicted(has) => {
                error!(
                    %instance, %subject, %birth, %step, %branch, decision, has = has.as_str(),
                    "a verdict against what this branch has done: it has decided alone, or coordinator or participant \
                     has lost its memory. Nothing is done. Compare the books of all branches of this step"
                );
                count(&counts.contradicted);
            }
        }
    }

    /// A command has been answered for good.
    pub(super) fn count(&self, work: Work) {
        let counts = &self.shared.counts;
        count(match work {
            Work::Effect => &counts.effects,
            Work::Refusal => &counts.refusals,
            Work::Repeated => &counts.repeated,
            Work::Nothing => &counts.nothing,
            Work::Failed => &counts.failed,
        });
    }

    /// The reply to a command, and its key.
    pub(super) fn reply(&self, command: Command<'_>, answered: &Answered) -> (Vec<u8>, Vec<u8>) {
        let key = command.address.subject.as_str().as_bytes().to_vec();
        let mut reply = Reply {
            address: command.address,
            instance: command.instance,
            source: Cow::Owned(format!("/{}", self.name)),
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
        (key, reply.to_json())
    }
}

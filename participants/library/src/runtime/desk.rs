//! What comes in is read, and what goes out is put into words: the same for every way in which the work is done.

use std::borrow::Cow;
use std::sync::Arc;

use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::RECORD_BYTES_MAX;
use sagamore_schemas::wire::{
    Asked, Command, Decided, Operation, PayloadRef, Reply, Verdict, parse_replyto, read_asked,
};
use tracing::warn;

use super::counters::count;
use super::progress::Token;
use super::replies::Shared;
use super::verdicts::{tell_by_hand, tell_mixed, tell_settled};
use crate::barrier::{Branch, BranchKey};
use crate::doubt::{Settled, branch_of, settle};
use crate::heuristic::{Said, settle_by_hand};
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
    Verdict(Branch, Word),
}

/// Who has decided about a branch, and what.
pub(super) enum Word {
    /// The coordinator, in answer to an inquiry.
    Verdict(Decided),
    /// An operator, to commit or abort.
    ByHand(Operation, Said),
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
            Self::Verdict(branch, Word::Verdict(decision)) => {
                Done::Settled(settle(participant, tx, branch, *decision)?)
            }
            Self::Verdict(branch, Word::ByHand(operation, said)) => {
                Done::Settled(settle_by_hand(participant, tx, branch, *operation, said)?)
            }
        })
    }

    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Command(_, command) => command.address.operation,
            Self::Verdict(_, Word::ByHand(operation, _)) => *operation,
            Self::Verdict(_, Word::Verdict(Decided::Commit)) => Operation::Commit,
            Self::Verdict(_, Word::Verdict(Decided::Abort | Decided::Undecided | Decided::Forgotten)) => {
                Operation::Abort
            }
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
        let said = verdict.heuristic.as_ref().map(Said::from);
        let word = match (said, verdict.decision) {
            (Some(said), Decided::Commit) => Word::ByHand(Operation::Commit, said),
            (Some(said), Decided::Abort) => Word::ByHand(Operation::Abort, said),
            (Some(_), Decided::Undecided | Decided::Forgotten) => {
                unreachable!("by hand one commits or aborts: read so")
            }
            (None, decision) => Word::Verdict(decision),
        };
        Some(Wish::Verdict(branch, word))
    }

    pub(super) fn tell_settled(&self, branch: &Branch, word: &Word, settled: Settled) {
        let counts = &self.shared.counts;
        match word {
            Word::Verdict(decision) => tell_settled(counts, branch, *decision, settled),
            Word::ByHand(operation, said) => tell_by_hand(counts, branch, *operation, said, settled),
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
            Work::Mixed => &counts.mixed,
            Work::Failed => &counts.failed,
        });
    }

    /// The reply to a command, and its key.
    pub(super) fn reply(&self, command: Command<'_>, answered: &Answered) -> (Vec<u8>, Vec<u8>) {
        if answered.work == Work::Mixed {
            tell_mixed(&Branch::from(&BranchKey::of(&command)), command.address.operation);
        }
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

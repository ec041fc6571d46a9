//! A batch of commands and verdicts in one local transaction, and the replies to the commands.

use std::borrow::Cow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::RECORD_BYTES_MAX;
use sagamore_schemas::wire::{
    Asked, Command, Decided, Operation, PayloadRef, Reply, Verdict, parse_replyto, read_asked,
};
use tracing::{debug, warn};

use super::WhenAway;
use super::counters::count;
use super::doubts::Doubts;
use super::progress::Token;
use super::replies::{Outgoing, Replies, Shared};
use super::restored::verify;
use super::verdicts::{tell_by_hand, tell_mixed, tell_settled};
use crate::barrier::{Branch, BranchKey};
use crate::doubt::{Settled, branch_of, settle};
use crate::heuristic::{Said, settle_by_hand};
use crate::participant::Participant;
use crate::perform::{Answered, Work, perform};
use crate::store::{LocalTransaction, Store, StoreFault};

/// The rest of a reply beside its `data`, generously: what is larger than a record may be is not sent.
const ENVELOPE_BYTES: i64 = 4096;

/// How often a single record is tried again when others were in its way, before it is answered `error`.
const TRIES_MORE: u32 = 3;
/// Before the first of these; before the next ones longer.
const PAUSE: Duration = Duration::from_millis(2);

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
    pub(super) participant: Arc<P>,
    pub(super) store: Arc<P::Store>,
    pub(super) session: Option<<P::Store as Store>::Session>,
    pub(super) replies: Arc<Replies>,
    pub(super) shared: Arc<Shared>,
    pub(super) doubts: Arc<Doubts>,
    pub(super) topic: Arc<str>,
    pub(super) name: Name,
    pub(super) when_away: WhenAway,
    /// For which partitions the session's store was found to remember what it has answered.
    pub(super) verified: Option<u64>,
}

/// A record of which nothing has been done yet.
struct Task<'b> {
    token: Token,
    wish: Wish<'b>,
}

enum Wish<'b> {
    /// The home partition, and what is asked from there.
    Command(i32, Command<'b>),
    Verdict(Branch, Decided),
    ByHand(Branch, Operation, Said),
}

impl Task<'_> {
    fn operation(&self) -> Operation {
        match &self.wish {
            Wish::Command(_, command) => command.address.operation,
            Wish::Verdict(_, Decided::Commit) => Operation::Commit,
            Wish::Verdict(_, Decided::Abort | Decided::Undecided | Decided::Forgotten) => Operation::Abort,
            Wish::ByHand(_, operation, _) => *operation,
        }
    }

    fn key(&self) -> BranchKey<'_> {
        match &self.wish {
            Wish::Command(_, command) => BranchKey::of(command),
            Wish::Verdict(branch, _) | Wish::ByHand(branch, ..) => branch.key(),
        }
    }
}

/// What came of a task in a local transaction.
enum Done {
    Answered(Answered),
    Settled(Settled),
}

impl<P: Participant> Worker<P> {
    /// Does what has not been taken away meanwhile, and leaves the batch for its buffers.
    pub(super) fn run(&mut self, batch: &mut Vec<Taken>) {
        if self.shared.forgotten().is_some() {
            return;
        }
        self.shared.progress.begin(batch, Taken::token);
        let mut tasks = Vec::with_capacity(batch.len());
        for taken in &*batch {
            let token = taken.token();
            match self.read(taken) {
                None => self.shared.progress.finish(token),
                Some(Wish::Command(home, command)) => match self.participant.before(&command) {
                    Ok(()) => tasks.push(Task { token, wish: Wish::Command(home, command) }),
                    Err(fault) => {
                        self.reply(token, home, command, &Answered::error(fault.reason().to_owned()));
                    }
                },
                Some(verdict @ (Wish::Verdict(..) | Wish::ByHand(..))) => {
                    tasks.push(Task { token, wish: verdict });
                }
            }
        }
        self.work_on(tasks);
    }

    fn read<'b>(&self, taken: &'b Taken) -> Option<Wish<'b>> {
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
            Some((topic, home)) if topic == self.replies.topic() => Some(Wish::Command(home.0, command)),
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
        Some(match (said, verdict.decision) {
            (Some(said), Decided::Commit) => Wish::ByHand(branch, Operation::Commit, said),
            (Some(said), Decided::Abort) => Wish::ByHand(branch, Operation::Abort, said),
            (Some(_), Decided::Undecided | Decided::Forgotten) => {
                unreachable!("by hand one commits or aborts: read so")
            }
            (None, decision) => {
                self.doubts.answered(&branch);
                Wish::Verdict(branch, decision)
            }
        })
    }

    /// All in one local transaction, but for those that must have one of their own.
    fn work_on(&mut self, tasks: Vec<Task<'_>>) {
        let mut group = Vec::with_capacity(tasks.len());
        for task in tasks {
            if self.store.is_alone(task.operation()) {
                self.work_on_group(std::mem::take(&mut group));
                self.work_on_one(task);
            } else {
                group.push(task);
            }
        }
        self.work_on_group(group);
    }

    /// If it fails as a whole, each in a local transaction of its own.
    fn work_on_group(&mut self, mut tasks: Vec<Task<'_>>) {
        if tasks.len() <= 1 {
            if let Some(task) = tasks.pop() {
                self.work_on_one(task);
            }
            return;
        }
        match self.transact(&tasks) {
            Ok(done) => {
                for (task, done) in tasks.into_iter().zip(done) {
                    self.tell(task, done);
                }
            }
            Err(StoreFault::Forgotten) => {}
            Err(fault) => {
                debug!(%fault, tasks = tasks.len(), "the local transaction failed; each record alone");
                let mut is_away = matches!(fault, StoreFault::Away(_));
                for task in tasks {
                    // Whom one could not reach, the next would wait for in vain.
                    is_away = if is_away { self.give_up(task, &fault) } else { self.work_on_one(task) };
                }
            }
        }
    }

    /// Whether the store is away.
    fn work_on_one(&mut self, task: Task<'_>) -> bool {
        let one = [task];
        let mut tries = 0;
        loop {
            // What had been idle may have lost its other end meanwhile.
            let is_old = self.session.is_some();
            let fault = match self.transact(&one) {
                Ok(done) => {
                    for (task, done) in one.into_iter().zip(done) {
                        self.tell(task, done);
                    }
                    return false;
                }
                // Neither answered nor finished: whoever comes next takes it again.
                Err(StoreFault::Forgotten) => return false,
                Err(fault) => fault,
            };
            tries += 1;
            let may_work = match fault {
                StoreFault::Conflict => true,
                StoreFault::Unavailable(_) => is_old,
                StoreFault::Away(_) | StoreFault::Full { .. } | StoreFault::Forgotten => false,
            };
            if !may_work || tries > TRIES_MORE {
                warn!(%fault, "the local transaction failed");
                let [task] = one;
                return self.give_up(task, &fault);
            }
            debug!(%fault, tries, "the local transaction failed; once more");
            thread::sleep(PAUSE * tries);
        }
    }

    /// Answers `error`, or nothing; whether the store is away.
    fn give_up(&self, task: Task<'_>, fault: &StoreFault) -> bool {
        let is_away = matches!(fault, StoreFault::Away(_));
        if is_away && self.when_away == WhenAway::Silence && matches!(task.wish, Wish::Command(..)) {
            count(&self.shared.counts.silent);
            self.shared.progress.finish(task.token);
        } else {
            self.tell(task, Done::Answered(Answered::error(fault.to_string())));
        }
        is_away
    }

    fn transact(&mut self, tasks: &[Task<'_>]) -> Result<Vec<Done>, StoreFault> {
        let mut session = if let Some(session) = self.session.take() {
            session
        } else {
            self.verified = None;
            self.store.session()?
        };
        self.verify(&mut session)?;
        let mut tx = self.store.begin(&mut session)?;
        let keys: Vec<BranchKey<'_>> = tasks.iter().map(Task::key).collect();
        tx.foresee(&keys)?;
        let mut done = Vec::with_capacity(tasks.len());
        for task in tasks {
            done.push(match &task.wish {
                Wish::Command(_, command) => Done::Answered(perform(&*self.participant, &mut tx, command)?),
                Wish::Verdict(branch, decision) => {
                    Done::Settled(settle(&*self.participant, &mut tx, branch, *decision)?)
                }
                Wish::ByHand(branch, operation, said) => {
                    Done::Settled(settle_by_hand(&*self.participant, &mut tx, branch, *operation, said)?)
                }
            });
        }
        tx.commit()?;
        // Only a session that has just worked is used again.
        self.session = Some(session);
        Ok(done)
    }

    /// Before a store is answered from: whether it remembers what it has answered.
    fn verify(&mut self, session: &mut <P::Store as Store>::Session) -> Result<(), StoreFault> {
        if !P::Store::KEEPS_POSITIONS || self.verified == Some(self.shared.progress.epoch()) {
            return Ok(());
        }
        let floors = self.shared.progress.floors();
        verify(&*self.store, session, &self.shared, &self.topic, &floors)?;
        self.verified = Some(floors.epoch);
        Ok(())
    }

    /// The local transaction is committed, or has failed.
    fn tell(&self, Task { token, wish }: Task<'_>, done: Done) {
        match (wish, done) {
            (Wish::Command(home, command), Done::Answered(answered)) => {
                self.doubts.on_command(token, &command, &answered, Instant::now());
                self.reply(token, home, command, &answered);
            }
            (Wish::Verdict(branch, decision), done) => {
                let settled = match done {
                    Done::Settled(settled) => settled,
                    Done::Answered(failed) => Settled::Told(failed),
                };
                tell_settled(&self.shared.counts, &branch, decision, settled);
                self.shared.progress.finish(token);
            }
            (Wish::ByHand(branch, operation, said), done) => {
                let settled = match done {
                    Done::Settled(settled) => settled,
                    Done::Answered(failed) => Settled::Told(failed),
                };
                tell_by_hand(&self.shared.counts, &branch, operation, &said, settled);
                self.shared.progress.finish(token);
            }
            (Wish::Command(..), Done::Settled(_)) => unreachable!("a command is answered"),
        }
    }

    fn reply(&self, token: Token, partition: i32, command: Command<'_>, answered: &Answered) {
        let counts = &self.shared.counts;
        count(match answered.work {
            Work::Effect => &counts.effects,
            Work::Refusal => &counts.refusals,
            Work::Repeated => &counts.repeated,
            Work::Nothing => &counts.nothing,
            Work::Mixed => {
                tell_mixed(&Branch::from(&BranchKey::of(&command)), command.address.operation);
                &counts.mixed
            }
            Work::Failed => &counts.failed,
        });
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
        self.replies.send(Outgoing { token, partition, key, value: reply.to_json() });
    }
}

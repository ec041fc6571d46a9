//! A batch of commands and verdicts in one local transaction, and the replies to the commands.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sagamore_schemas::wire::Command;
use tracing::{debug, warn};

use super::WhenAway;
use super::counters::count;
use super::desk::{Desk, Done, Taken, Wish};
use super::doubts::Doubts;
use super::progress::Token;
use super::replies::{Outgoing, Replies, Shared};
use super::restored::verify;
use crate::barrier::BranchKey;
use crate::doubt::Settled;
use crate::participant::Participant;
use crate::perform::Answered;
use crate::store::{LocalTransaction, Store, StoreFault};

/// How often a single record is tried again when others were in its way, before it is answered `error`.
const TRIES_MORE: u32 = 3;
/// Before the first of these; before the next ones longer.
const PAUSE: Duration = Duration::from_millis(2);

/// One thread's part.
pub(super) struct Worker<P: Participant> {
    pub(super) participant: Arc<P>,
    pub(super) store: Arc<P::Store>,
    pub(super) session: Option<<P::Store as Store>::Session>,
    pub(super) replies: Arc<Replies>,
    pub(super) shared: Arc<Shared>,
    pub(super) doubts: Arc<Doubts>,
    pub(super) desk: Desk,
    pub(super) when_away: WhenAway,
    /// For which partitions the session's store was found to remember what it has answered.
    pub(super) verified: Option<u64>,
}

/// A record of which nothing has been done yet.
struct Task<'b> {
    token: Token,
    wish: Wish<'b>,
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
            match self.desk.read(taken) {
                None => self.shared.progress.finish(token),
                Some(Wish::Command(home, command)) => match self.participant.before(&command) {
                    Ok(()) => tasks.push(Task { token, wish: Wish::Command(home, command) }),
                    Err(fault) => {
                        self.reply(token, home, command, &Answered::error(fault.reason().to_owned()));
                    }
                },
                Some(Wish::Verdict(branch, word)) => {
                    self.doubts.answered(&branch);
                    tasks.push(Task { token, wish: Wish::Verdict(branch, word) });
                }
            }
        }
        self.work_on(tasks);
    }

    /// All in one local transaction, but for those that must have one of their own.
    fn work_on(&mut self, tasks: Vec<Task<'_>>) {
        let mut group = Vec::with_capacity(tasks.len());
        for task in tasks {
            if self.store.is_alone(task.wish.operation()) {
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
        let keys: Vec<BranchKey<'_>> = tasks.iter().map(|task| task.wish.key()).collect();
        tx.foresee(&keys)?;
        let mut done = Vec::with_capacity(tasks.len());
        for task in tasks {
            done.push(task.wish.carry_out(&*self.participant, &mut tx)?);
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
        verify(&*self.store, session, &self.shared, &self.desk.topic, &floors)?;
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
            (Wish::Verdict(branch, word), done) => {
                let settled = match done {
                    Done::Settled(settled) => settled,
                    Done::Answered(failed) => Settled::Told(failed),
                };
                self.desk.tell_settled(&branch, &word, settled);
                self.shared.progress.finish(token);
            }
            (Wish::Command(..), Done::Settled(_)) => unreachable!("a command is answered"),
        }
    }

    fn reply(&self, token: Token, partition: i32, command: Command<'_>, answered: &Answered) {
        self.desk.count(answered.work);
        let (key, value) = self.desk.reply(command, answered);
        self.replies.send(Outgoing { token, partition, key, value });
    }
}

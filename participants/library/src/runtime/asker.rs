//! The thread of branches in doubt: asks for those that have waited too long, and ends those whose time is up.
//!
//! It goes round through the votes in the store, so that what a former process has left behind asks as well. A branch
//! asks when its `prepare` was issued [`Settings::asks_after`](super::Settings::asks_after) ago, then after pauses that
//! double. Clocks that disagree make it ask at once, or that much after this process has begun, and nothing else.
//!
//! Several instances that share a store all ask for what is in it. That is harmless: an inquiry changes nothing, verdicts
//! go to the owner of the key's partition, and the barrier applies one of them. Deciding alone is different: it is for
//! the process that took the vote, while it has the partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::wire::{Operation, parse_replyto};
use tracing::{info, warn};

use super::counters::count;
use super::doubts::{Doubts, Due};
use super::replies::{Replies, Shared};
use super::restored::verify;
use crate::barrier::Branch;
use crate::doubt::{InDoubt, decide_alone, inquiry};
use crate::participant::Participant;
use crate::perform::{Answered, Work};
use crate::store::{LocalTransaction, Store, StoreFault};

/// How often the store is looked through, at most.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How often a stop is looked for.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// Votes read at once.
const PORTION: usize = 100;
/// Portions read in one turn: with many votes a round takes several, and the store is left alone in between.
const PORTIONS_PER_TURN: usize = 20;
/// The longest pause between two inquiries of a branch, unless `asks_after` is longer.
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// Branches whose pauses are kept, at about 250 bytes. Beyond it all begin with the shortest pause again.
const PAUSES_MAX: usize = 100_000;
/// Before business code that fails is asked again to end a branch whose time is up.
const ALONE_AGAIN: Duration = Duration::from_secs(1);

/// The running thread. Dropped, it is stopped and waited for.
pub(super) struct Asking {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Asking {
    pub(super) fn spawn<P: Participant>(asker: Asker<P>) -> std::io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let name = format!("{}-doubt", asker.name);
        let thread = thread::Builder::new().name(name).spawn(move || asker.run(&until))?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let is_well = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(is_well || thread::panicking(), "the thread of branches in doubt has panicked");
    }
}

pub(super) struct Asker<P: Participant> {
    pub(super) participant: Arc<P>,
    pub(super) store: Arc<P::Store>,
    pub(super) session: Option<<P::Store as Store>::Session>,
    pub(super) replies: Arc<Replies>,
    pub(super) shared: Arc<Shared>,
    pub(super) doubts: Arc<Doubts>,
    pub(super) topic: Arc<str>,
    pub(super) name: Name,
    pub(super) rounds: Rounds,
}

impl<P: Participant> Asker<P> {
    fn run(mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Acquire) {
            self.turn();
            let until_due = self.doubts.next_due().map(|due| due.saturating_duration_since(Instant::now()));
            let pause = until_due.unwrap_or(STOP_INTERVAL).min(STOP_INTERVAL);
            thread::sleep(pause.min(self.rounds.interval()));
        }
    }

    /// Ends those whose time is up, and looks at the next votes when it is time to.
    pub(super) fn turn(&mut self) {
        let now = Instant::now();
        for due in self.doubts.take_due(now) {
            self.end(due);
        }
        if !self.rounds.is_due(now) {
            return;
        }
        if let Err(fault) = self.look() {
            self.session = None;
            warn!(%fault, "branches in doubt are not looked for; tried again");
        }
    }

    /// Whoever comes next counts them.
    pub(super) fn leave(&mut self) {
        self.shared.counts.in_doubt.fetch_sub(self.rounds.counted, Ordering::Relaxed);
        self.rounds.counted = 0;
    }

    /// Goes on through the votes in the store.
    fn look(&mut self) -> Result<(), StoreFault> {
        for _ in 0..PORTIONS_PER_TURN {
            let room = self.doubts.room(Instant::now());
            if room == 0 {
                return Ok(());
            }
            let mut session = match self.session.take() {
                Some(session) => session,
                None => self.store.session()?,
            };
            let portion = PORTION.min(room);
            let found = self.store.in_doubt(&mut session, self.rounds.after.as_ref(), portion)?;
            self.session = Some(session);
            let is_end = found.len() < portion;
            for one in found {
                self.look_at(one);
            }
            if is_end {
                let waiting = self.rounds.finish();
                let before = std::mem::replace(&mut self.rounds.counted, waiting);
                self.shared.counts.in_doubt.fetch_add(waiting, Ordering::Relaxed);
                self.shared.counts.in_doubt.fetch_sub(before, Ordering::Relaxed);
                return Ok(());
            }
        }
        Ok(())
    }

    fn look_at(&mut self, InDoubt { branch, vote }: InDoubt) {
        let prepare = match vote.prepare() {
            Ok(prepare) => prepare,
            Err(cause) => {
                warn!(subject = %branch.subject, step = %branch.step, %cause, "a stored vote cannot be read: it does not ask");
                self.rounds.after = Some(branch);
                return;
            }
        };
        let (now, clock) = (Instant::now(), wall_clock());
        if let Some(tries) = self.rounds.meet(&branch, prepare.issued, now, clock) {
            let Branch { subject, birth, step, branch: name, .. } = &branch;
            match parse_replyto(&prepare.replyto) {
                Some((topic, home)) if topic == self.replies.topic() => {
                    info!(%subject, %birth, %step, branch = %name, tries, "in doubt: asks what was decided");
                    self.doubts.ask(&branch, now);
                    count(&self.shared.counts.inquiries);
                    let asked = inquiry(&branch, &self.name).to_json();
                    self.replies.inquire(home.0, subject.as_str().as_bytes(), &asked);
                }
                Some(_) | None => {
                    warn!(%subject, replyto = %prepare.replyto, "a stored vote is another installation's; it does not ask");
                }
            }
        }
        self.rounds.after = Some(branch);
    }

    /// Skeen's rule, for a branch that nothing has been heard of.
    fn end(&mut self, due: Due) {
        if !self.shared.progress.is_ours(due.token) {
            return;
        }
        let Branch { subject, birth, step, branch, .. } = &due.branch;
        let after_ms = due.after.as_millis();
        match self.decide(&due.branch) {
            Ok(Some((operation, answered))) if answered.work != Work::Failed => {
                count(&self.shared.counts.alone);
                warn!(
                    %subject, %birth, %step, %branch, %operation, after_ms,
                    "nothing heard for so long: decided alone, as `termination: unilateral` has it; \
                     if anything was merely late, the others may have decided otherwise"
                );
            }
            Ok(Some((operation, answered))) => {
                let reason = answered.reason.unwrap_or_default();
                warn!(%subject, %birth, %step, %branch, %operation, %reason, "its time is up, and that failed; tried again");
                self.doubts.put_back(due, Instant::now() + ALONE_AGAIN);
            }
            Ok(None) => {}
            Err(fault) => {
                warn!(%subject, %birth, %step, %branch, %fault, "its time is up, and the local transaction failed; tried again");
                self.doubts.put_back(due, Instant::now() + ALONE_AGAIN);
            }
        }
    }

    fn decide(&mut self, branch: &Branch) -> Result<Option<(Operation, Answered)>, StoreFault> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.store.session()?,
        };
        verify(&*self.store, &mut session, &self.shared, &self.topic, &self.shared.progress.floors())?;
        let mut tx = self.store.begin(&mut session)?;
        let decided = decide_alone(&*self.participant, &mut tx, branch)?;
        tx.commit()?;
        self.session = Some(session);
        Ok(decided)
    }
}

fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_epoch_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Which branches have been met, and when each asks next.
pub(super) struct Rounds {
    asks_after: Duration,
    /// How far this round has come.
    after: Option<Branch>,
    round: u64,
    pauses: HashMap<Branch, Pause>,
    looked_at: Option<Instant>,
    /// How many of those who have asked are in the counters: several askers of one process add up.
    counted: u64,
}

struct Pause {
    next: Instant,
    tries: u32,
    met: u64,
}

impl Rounds {
    pub(super) fn new(asks_after: Duration) -> Self {
        Self { asks_after, after: None, round: 0, pauses: HashMap::new(), looked_at: None, counted: 0 }
    }

    fn interval(&self) -> Duration {
        self.asks_after.clamp(Duration::from_millis(10), ROUND_INTERVAL)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.looked_at.is_none_or(|looked_at| now.duration_since(looked_at) >= self.interval());
        if is_due {
            self.looked_at = Some(now);
        }
        is_due
    }

    /// A branch is in doubt. Returns the number of its inquiry when it is to ask now.
    fn meet(&mut self, branch: &Branch, issued: Time, now: Instant, clock: Time) -> Option<u32> {
        if !self.pauses.contains_key(branch) {
            if self.pauses.len() >= PAUSES_MAX {
                self.pauses.clear();
            }
            let age = Duration::from_millis(clock.since(issued).as_ms());
            let next = now + self.asks_after.saturating_sub(age);
            self.pauses.insert(branch.clone(), Pause { next, tries: 0, met: self.round });
        }
        let pause = self.pauses.get_mut(branch)?;
        pause.met = self.round;
        if pause.next > now {
            return None;
        }
        let doubled = self.asks_after.saturating_mul(1 << pause.tries.min(16));
        pause.next = now + doubled.min(PAUSE_MAX.max(self.asks_after));
        pause.tries += 1;
        Some(pause.tries)
    }

    /// The last branch has been met: the others are in doubt no longer. Returns how many have asked.
    fn finish(&mut self) -> u64 {
        self.pauses.retain(|_, pause| pause.met == self.round);
        self.round += 1;
        self.after = None;
        self.pauses.values().filter(|pause| pause.tries > 0).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(number: usize) -> Branch {
        Branch {
            instance: uuid::Uuid::nil(),
            subject: format!("t{number}").parse().unwrap(),
            birth: "0-1".parse().unwrap(),
            step: "s".into(),
            branch: "b".into(),
        }
    }

    /// Every second, for so long, one branch is met that was issued at second 100: when it asks, by a clock that shows
    /// second `clock` at the beginning.
    fn check(clock: i64, seconds: u64, then: &[u64]) {
        let mut rounds = Rounds::new(Duration::from_secs(30));
        let (begun, issued) = (Instant::now(), Time::from_epoch_ms(100_000));
        let mut asked = Vec::new();
        for second in 0..seconds {
            let clock = Time::from_epoch_ms((clock + i64::try_from(second).unwrap()) * 1_000);
            if rounds.meet(&branch(1), issued, begun + Duration::from_secs(second), clock).is_some() {
                asked.push(second);
            }
            rounds.finish();
        }
        assert_eq!(asked, then, "{clock}");
    }

    #[test]
    fn a_branch_asks_in_time_and_then_ever_more_rarely() {
        check(100, 1_400, &[30, 60, 120, 240, 480, 780, 1_080, 1_380]);
        check(110, 100, &[20, 50]);
        // Left behind by a former process, or the clock is ahead.
        check(9_000, 40, &[0, 30]);
        // The clock is behind.
        check(0, 65, &[30, 60]);
    }

    #[test]
    fn who_is_met_no_more_is_forgotten() {
        let mut rounds = Rounds::new(Duration::ZERO);
        let (now, old) = (Instant::now(), Time::default());
        for number in 0..3 {
            assert_eq!(rounds.meet(&branch(number), old, now, Time::MAX), Some(1));
        }
        assert_eq!(rounds.finish(), 3);
        assert_eq!(rounds.meet(&branch(1), old, now, Time::MAX), Some(2));
        assert_eq!((rounds.finish(), rounds.pauses.len()), (1, 1));
    }

    #[test]
    fn so_many_pauses_are_kept_and_beyond_it_all_begin_anew() {
        let mut rounds = Rounds::new(Duration::from_secs(30));
        let now = Instant::now();
        for number in 0..PAUSES_MAX {
            assert_eq!(rounds.meet(&branch(number), Time::default(), now, Time::MAX), Some(1));
        }
        assert_eq!(rounds.meet(&branch(0), Time::default(), now, Time::MAX), None, "it pauses");
        assert_eq!(rounds.meet(&branch(PAUSES_MAX), Time::default(), now, Time::MAX), Some(1));
        assert_eq!(rounds.pauses.len(), 1);
        assert_eq!(
            rounds.meet(&branch(0), Time::default(), now, Time::MAX),
            Some(1),
            "it asks, too early at worst"
        );
    }
}

//! What workers and the thread of branches in doubt tell each other: inquiries under way, and who decides alone, when.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sagamore_schemas::wire::{Answer, Command, Operation};
use tracing::warn;

use super::progress::Token;
use crate::barrier::{Branch, BranchKey};
use crate::perform::{Answered, Work};

/// Inquiries whose verdict has not come: a coordinator that comes back is not buried under them.
const INQUIRIES_MAX: usize = 256;
/// After so long an inquiry is no longer counted: its verdict is lost, or went to another instance.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);
/// Branches that are watched because they may decide alone, at about 300 bytes. Others wait and ask.
const WATCHED_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct Doubts(Mutex<State>);

#[derive(Default)]
struct State {
    /// Until when a verdict is waited for.
    asked: HashMap<Branch, Instant>,
    watched: HashMap<Branch, Watched>,
}

/// A branch under `termination: unilateral` that has voted here.
#[derive(Clone, Copy)]
struct Watched {
    /// Whose tenure of the partition its last command came in: with another one, time is no longer up here.
    token: Token,
    after: Duration,
    due: Instant,
}

/// A branch whose time is up.
#[derive(Debug, PartialEq)]
pub(super) struct Due {
    pub branch: Branch,
    pub token: Token,
    pub after: Duration,
}

impl Doubts {
    /// How many more inquiries may leave.
    pub(super) fn room(&self, now: Instant) -> usize {
        let asked = &mut self.state().asked;
        asked.retain(|_, until| *until > now);
        INQUIRIES_MAX.saturating_sub(asked.len())
    }

    /// An inquiry leaves.
    pub(super) fn ask(&self, branch: &Branch, now: Instant) {
        self.state().asked.insert(branch.clone(), now + VERDICT_TIMEOUT);
    }

    /// A verdict has come.
    pub(super) fn answered(&self, branch: &Branch) {
        self.state().asked.remove(branch);
    }

    /// A command has been answered. Who votes or precommits here is watched from now on; a repeated answer of a watched
    /// branch starts its time anew. Anything else that tells of the decision ends the watch, also when it failed.
    ///
    /// A repeated vote begins no watch: who has been away since he voted does not know what the others concluded from his
    /// silence, and asks (Skeen's recovery rule).
    pub(super) fn on_command(&self, token: Token, command: &Command<'_>, answered: &Answered, now: Instant) {
        let after = command.unilateral_after.map(|after| Duration::from_millis(after.as_ms()));
        let mut state = self.state();
        if after.is_none() && state.watched.is_empty() {
            return;
        }
        let branch = Branch::from(&BranchKey::of(command));
        let is_new = answered.outcome == Answer::Ok && answered.work != Work::Repeated;
        let is_repeated = answered.work == Work::Repeated;
        match (command.address.operation, after) {
            (Operation::Prepare | Operation::Precommit, Some(after)) if is_new => {
                if state.watched.len() >= WATCHED_MAX && !state.watched.contains_key(&branch) {
                    warn!(max = WATCHED_MAX, subject = %branch.subject, "too many branches to watch; this one asks");
                    return;
                }
                state.watched.insert(branch, Watched { token, after, due: now + after });
            }
            (Operation::Prepare | Operation::Precommit, Some(_)) if is_repeated => {
                if let Some(watched) = state.watched.get_mut(&branch) {
                    watched.due = now + watched.after;
                    watched.token = token;
                }
            }
            (Operation::Precommit | Operation::Commit | Operation::Abort, _) => {
                state.watched.remove(&branch);
            }
            (Operation::Execute | Operation::Compensate | Operation::Prepare, _) => {}
        }
    }

    /// Those whose time is up; they are no longer watched.
    pub(super) fn take_due(&self, now: Instant) -> Vec<Due> {
        self.state()
            .watched
            .extract_if(|_, watched| watched.due <= now)
            .map(|(branch, Watched { token, after, .. })| Due { branch, token, after })
            .collect()
    }

    /// It could not be told now: once more in a while.
    pub(super) fn put_back(&self, due: Due, until: Instant) {
        let Due { branch, token, after } = due;
        self.state().watched.insert(branch, Watched { token, after, due: until });
    }

    /// When the next one's time is up.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().watched.values().map(|watched| watched.due).min()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::wire::read_command;

    use super::super::progress::Progress;
    use super::*;

    const AFTER: Duration = Duration::from_millis(500);

    fn record(subject: &str, operation: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","type":"sagamore.command.v1","subject":"{subject}","birth":"0-1","step":"s",
            "branch":"b","operation":"{operation}","attempt":1,"definition":"d@1","replyto":"sagamore.inbox/0",
            "instance":"00000000-0000-0000-0000-000000000000","unilateralafter":"500ms",
            "issued":"2026-11-22T16:00:00Z","watermark":"2026-11-22T16:00:00Z","deadline":"2026-11-22T16:00:00Z"}}"#
        )
    }

    fn answered(work: Work) -> Answered {
        Answered { outcome: Answer::Ok, work, ..Answered::error("none") }
    }

    /// `heard`: commands on one branch, `operation`, `operation=repeated` or `operation=failed`, 400 ms apart; `then`:
    /// in how many ms after the last of them its time is up.
    fn check(heard: &str, then: Option<u64>) {
        let (doubts, progress, begun) = (Doubts::default(), Progress::new(), Instant::now());
        progress.assign([0]);
        let mut now = begun;
        for (offset, text) in (0..).zip(heard.split_whitespace()) {
            now += Duration::from_millis(400);
            let (operation, how) = text.split_once('=').unwrap_or((text, "new"));
            let record = record("t", operation);
            let command = read_command(Some(record.as_bytes())).unwrap();
            let answered = match how {
                "new" => answered(Work::Effect),
                "repeated" => answered(Work::Repeated),
                "failed" => Answered::error("told to"),
                other => panic!("{other}"),
            };
            doubts.on_command(progress.take(0, offset).unwrap(), &command, &answered, now);
        }
        let left = doubts.next_due().map(|due| due - now);
        assert_eq!(left, then.map(Duration::from_millis), "{heard}");
        if let Some(left) = left {
            let before = left.saturating_sub(Duration::from_millis(1));
            assert!(doubts.take_due(now + before).is_empty(), "{heard}");
            assert_eq!(doubts.take_due(now + left).len(), 1, "{heard}");
            assert_eq!(doubts.next_due(), None, "{heard}");
        }
    }

    #[test]
    fn time_runs_from_the_last_command_that_says_nothing_of_the_decision() {
        let after = u64::try_from(AFTER.as_millis()).unwrap();
        check("prepare", Some(after));
        check("prepare prepare=repeated", Some(after));
        check("prepare precommit", Some(after));
        check("prepare precommit precommit=repeated", Some(after));
        check("prepare prepare=failed", Some(after - 400));
        check("precommit", Some(after));
        check("prepare=repeated", None);
        check("prepare=failed", None);
        check("prepare precommit=failed", None);
        check("prepare precommit commit", None);
        check("prepare commit=failed", None);
        check("prepare abort", None);
        check("execute compensate", None);
    }

    #[test]
    fn so_many_branches_are_watched_and_the_others_ask() {
        let (doubts, progress, now) = (Doubts::default(), Progress::new(), Instant::now());
        progress.assign([0]);
        let token = progress.take(0, 0).unwrap();
        let heard = |subject: usize, operation: &str| {
            let record = record(&format!("t{subject}"), operation);
            let command = read_command(Some(record.as_bytes())).unwrap();
            doubts.on_command(token, &command, &answered(Work::Effect), now);
            doubts.state().watched.len()
        };
        let watched = (0..WATCHED_MAX).map(|subject| heard(subject, "prepare")).max();
        assert_eq!(watched, Some(WATCHED_MAX));
        assert_eq!(heard(WATCHED_MAX, "prepare"), WATCHED_MAX);
        assert_eq!(heard(3, "precommit"), WATCHED_MAX, "who is watched stays watched");
        assert_eq!(heard(3, "commit"), WATCHED_MAX - 1);
        assert_eq!(heard(WATCHED_MAX, "prepare"), WATCHED_MAX);
    }

    #[test]
    fn inquiries_under_way_are_bounded_and_forgotten_in_time() {
        let (doubts, now) = (Doubts::default(), Instant::now());
        let branch = |number: usize| Branch {
            instance: uuid::Uuid::nil(),
            subject: format!("t{number}").parse().unwrap(),
            birth: "0-1".parse().unwrap(),
            step: "s".into(),
            branch: "b".into(),
        };
        for number in 0..INQUIRIES_MAX {
            doubts.ask(&branch(number), now);
        }
        assert_eq!(doubts.room(now), 0);
        doubts.answered(&branch(3));
        doubts.answered(&branch(3));
        assert_eq!(doubts.room(now), 1);
        assert_eq!(doubts.room(now + VERDICT_TIMEOUT), INQUIRIES_MAX);
    }
}

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

    /// A command has been answered, and its answer is kept. Whoever votes or precommits here is watched from now on;
    /// any other command of a watched branch starts its time anew, or ends the watch. A repeated vote begins none:
    /// who has been away since the vote does not know what the others concluded meanwhile, and asks.
    pub(super) fn on_command(&self, token: Token, command: &Command<'_>, answered: &Answered, now: Instant) {
        let after = command.unilateral_after.map(|after| Duration::from_millis(after.as_ms()));
        let mut state = self.state();
        if after.is_none() && state.watched.is_empty() {
            return;
        }
        let branch = Branch::from(&BranchKey::of(command));
        let is_ok = answered.outcome == Answer::Ok;
        match command.address.operation {
            Operation::Commit | Operation::Abort if is_ok => {
                state.watched.remove(&branch);
            }
            Operation::Prepare | Operation::Precommit if is_ok && answered.work != Work::Repeated => {
                let Some(after) = after else { return };
                if state.watched.len() >= WATCHED_MAX && !state.watched.contains_key(&branch) {
                    warn!(max = WATCHED_MAX, subject = %branch.subject, "too many branches to watch; this one asks");
                    return;
                }
                state.watched.insert(branch, Watched { token, after, due: now + after });
            }
            Operation::Execute
            | Operation::Compensate
            | Operation::Prepare
            | Operation::Precommit
            | Operation::Commit
            | Operation::Abort => {
                if let Some(watched) = state.watched.get_mut(&branch) {
                    watched.due = now + watched.after;
                    watched.token = token;
                }
            }
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

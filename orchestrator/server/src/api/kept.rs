//! Outcomes with their results, for whoever starts first and waits then: the fold remembers how a transaction ended, not
//! what its participants gave back, and most have ended before their caller asks again. Kept by the server that took
//! the start, for a minute, within bounds; what is not kept is told without results.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::start::{Ended, until_outcome};
use crate::waiters::Waiter;

/// How long an outcome is listened for, and about how long it is kept.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// Transactions that are listened for at a time: 10,000 of them take some 20 MiB.
const LISTENED_MAX: usize = 10_000;
/// Outcomes kept.
const KEPT_MAX: usize = 10_000;
/// Their results.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The outcomes of a server's newest starts.
#[derive(Clone)]
pub(super) struct Kept {
    outcomes: Arc<Mutex<Outcomes>>,
    listening: Arc<Semaphore>,
}

#[derive(Default)]
struct Outcomes {
    by_id: HashMap<String, Ended>,
    by_age: VecDeque<(Instant, String)>,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { outcomes: Arc::default(), listening: Arc::new(Semaphore::new(LISTENED_MAX)) }
    }
}

impl Kept {
    /// Listens on for a start that has been answered.
    pub(super) fn listen(&self, mut waiter: Waiter) {
        let Ok(place) = Arc::clone(&self.listening).try_acquire_owned() else { return };
        let outcomes = Arc::clone(&self.outcomes);
        tokio::spawn(async move {
            let deadline = Instant::now() + KEPT_FOR;
            // Told again it has no results: that must not take the place of what has.
            if let Some(ended) = until_outcome(&mut waiter, deadline).await.filter(|told| told.data.is_some())
            {
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).keep(ended, Instant::now());
            }
            drop(place);
        });
    }

    /// The same outcome as it was first told.
    pub(super) fn in_full(&self, told: Ended) -> Ended {
        if told.data.is_some() {
            return told;
        }
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        match outcomes.by_id.get(&told.id) {
            Some(kept) if (&kept.birth, kept.revision) == (&told.birth, told.revision) => kept.clone(),
            _ => told,
        }
    }
}

impl Outcomes {
    fn keep(&mut self, ended: Ended, now: Instant) {
        while let Some((at, _)) = self.by_age.front()
            && now.duration_since(*at) > KEPT_FOR
        {
            self.drop_oldest();
        }
        self.bytes += size(&ended);
        self.by_age.push_back((now, ended.id.clone()));
        if let Some(before) = self.by_id.insert(ended.id.clone(), ended) {
            self.bytes -= size(&before);
        }
        while self.by_age.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.by_age.pop_front()
            && let Some(ended) = self.by_id.remove(&id)
        {
            self.bytes -= size(&ended);
        }
    }
}

fn size(ended: &Ended) -> usize {
    ended.id.len() + ended.data.as_ref().map_or(0, |data| data.get().len())
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use sagamore_schemas::wire::OutcomeKind;

    use super::*;

    fn ended(id: usize, revision: u64, bytes: usize) -> Ended {
        let data = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).expect("JSON");
        Ended {
            id: id.to_string(),
            outcome: OutcomeKind::Committed,
            birth: "0-1".to_owned(),
            revision,
            definition: None,
            reason: None,
            data: Some(data),
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut outcomes = Outcomes::default();
        let now = Instant::now();
        for id in 0..KEPT_MAX + 10 {
            outcomes.keep(ended(id, 1, 10), now);
        }
        assert_eq!((outcomes.by_id.len(), outcomes.by_age.len()), (KEPT_MAX, KEPT_MAX));
        assert!(!outcomes.by_id.contains_key("9") && outcomes.by_id.contains_key("10"));
        for id in 0..70 {
            outcomes.keep(ended(id, 2, 256 * 1024), now);
        }
        assert!(outcomes.bytes <= KEPT_BYTES_MAX, "{}", outcomes.bytes);
        outcomes.keep(ended(0, 3, 10), now + KEPT_FOR * 2);
        let left: usize = outcomes.by_id.values().map(size).sum();
        assert_eq!((outcomes.by_id.len(), outcomes.bytes), (1, left));
    }

    #[test]
    fn the_same_outcome_only() {
        let kept = Kept::default();
        kept.outcomes.lock().expect("nobody panicked").keep(ended(7, 4, 3), Instant::now());
        let told = |id, revision| kept.in_full(Ended { data: None, ..ended(id, revision, 0) }).data.is_some();
        assert!(told(7, 4));
        assert!(!told(7, 5) && !told(8, 4));
    }
}

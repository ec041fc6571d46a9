//! Waiting for a condition, up to a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Looks until there is something; panics with what was waited for when that takes too long.
pub fn until_some<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < patience, "not within {} s: {what}", patience.as_secs());
        thread::sleep(POLL_INTERVAL);
    }
}

/// Looks until it is so; returns how long that took.
pub fn until(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    until_some(patience, what, || is_so().then_some(()));
    begun.elapsed()
}

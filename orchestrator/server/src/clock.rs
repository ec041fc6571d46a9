//! The owner's own clock: for pacing, timers and the start's `time` only, never for a decision.

use std::time::{SystemTime, UNIX_EPOCH};

use sagamore_schemas::ids::Time;

/// Now, by this machine.
pub fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_epoch_ms(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

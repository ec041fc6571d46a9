//! `sagamore participant check`, on a real Kafka: whoever keeps the rules passes, in four languages' worth of stores, and
//! whoever breaks one is found at that very rule.
//!
//! `SAGAMORE_KILLS=20` kills each more often; `SAGAMORE_KIT=each` looks at each defect alone.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

mod defects;
mod naive;
mod observer;
mod participants;
mod run;
mod usage;

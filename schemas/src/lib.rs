//! The wire and the log of Sagamore: every type that stands in a topic, and nothing that decides.
//!
//! Deliberately absent: clocks, random sources, Kafka clients. Everything here is plain data with one parse at the edge.

pub mod definition;
pub mod home;
pub mod ids;
mod json;
pub mod log;
pub mod snapshot;
pub mod topics;
pub mod wire;

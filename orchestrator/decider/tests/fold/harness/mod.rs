//! A tiny world around the real owner and the real fold: an inbox in memory, a clock moved by hand.

mod definition;
mod journal;
mod script;
mod world;

pub use script::{Case, check, play};
pub use world::Fault;

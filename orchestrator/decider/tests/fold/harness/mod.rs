//! A tiny world around the real owner and the real fold: an inbox in memory, a clock moved by hand.

mod definition;
mod journal;
mod life;
mod script;
mod world;

pub use definition::definition;
pub use journal::RowsTaken;
pub use life::{Happening, IDS, Life, Logged, definition_json, happening};
pub use script::{Case, check, play};
pub use world::{Fault, StateTopic, T0_MS, identity, state_of};

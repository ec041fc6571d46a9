//! The pure fold: from the records of an inbox partition to commands, outcomes and state.

pub mod definition;

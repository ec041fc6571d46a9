//! One file per commit protocol. At this level there is one: the saga.

pub(crate) mod saga;

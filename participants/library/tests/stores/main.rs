//! One suite for all stores: what a participant is promised, whatever it keeps its effects in.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod ask;
mod bed;
mod beds;
mod doubt;
#[macro_use]
mod promises;
#[cfg(feature = "sqlite")]
mod sqlite;
mod suite;

keeps_the_promises!(in_memory: crate::beds::Memory);
#[cfg(feature = "sqlite")]
keeps_the_promises!(in_sqlite: crate::beds::Sqlite);

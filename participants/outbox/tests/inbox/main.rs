//! Commands, as they come, against the tables of the inbox, and a service that has nothing but SQL.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

mod bed;
mod functions;
mod held;
mod promises;

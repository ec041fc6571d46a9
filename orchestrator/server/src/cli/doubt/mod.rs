//! `sagamore participant in-doubt` and its neighbours: what an operator sees of a participant's store, and may decide.
//!
//! | verb | looks at | changes |
//! |---|---|---|
//! | `in-doubt` | votes without a decision, what they hold, who waits | |
//! | `decide` | the vote | by a record on the command topic: the participant's own code does it |
//! | `heuristics` | decisions by hand, and what the coordinator said to them | |
//! | `positions` | how far the store and Kafka's group say that commands were answered | |
//! | `rewind`, `accept` | the same | the group's offsets; the store's positions |
//!
//! They open a store that is there, and make nothing.

mod decide;
mod held;
mod restored;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sagamore_participant::store::StoreFault;
use sagamore_participant::store::sqlite::SqliteStore;
use sagamore_participant_postgres::{PostgresOptions, PostgresStore};

use super::exit::{Exit, Failure, Outcome};
use super::output::Printer;

/// Branches read at once, decisions by hand as well.
const PORTION: usize = 500;

/// What about a participant's store.
#[derive(Debug, Subcommand)]
pub enum DoubtCommand {
    /// Branches that have voted and hear nothing: what they hold, and who waits for it.
    InDoubt(held::InDoubtArgs),
    /// Commit or abort a branch in doubt by hand, before the coordinator's decision is known.
    Decide(Box<decide::DecideArgs>),
    /// Decisions by hand, and whether the coordinator has decided the same.
    Heuristics(held::HeuristicsArgs),
    /// Whether the store knows every command that was answered; after SAG-101.
    Positions(restored::RestoredArgs),
    /// Have every command taken again that the store has forgotten; after SAG-101.
    Rewind(restored::RewindArgs),
    /// Leave forgotten what the store has forgotten; after SAG-101.
    Accept(restored::RestoredArgs),
}

/// Where the participant keeps what it has done.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The URL of its database of PostgreSQL.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// The schema of the library's tables there.
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Its file of SQLite.
    #[arg(long, value_name = "FILE", conflicts_with = "postgres")]
    sqlite: Option<PathBuf>,
}

/// A store that is there.
pub(super) enum Opened {
    Postgres(PostgresStore),
    Sqlite(SqliteStore),
}

impl StoreArgs {
    /// `None` when none is named.
    fn open(&self, is_xa: bool) -> Result<Option<Opened>, Failure> {
        if let Some(url) = &self.postgres {
            let config = url
                .parse()
                .map_err(|error| Failure::usage(format_args!("not a URL of PostgreSQL: {error}")))?;
            let options =
                PostgresOptions { schema: self.schema.clone(), xa: is_xa, ..PostgresOptions::default() };
            let store = PostgresStore::existing(config, options).map_err(Failure::usage)?;
            return Ok(Some(Opened::Postgres(store)));
        }
        let Some(file) = &self.sqlite else { return Ok(None) };
        if !file.exists() {
            return Err(Failure::new(Exit::NotFound, format_args!("{}: no such file", file.display())));
        }
        Ok(Some(Opened::Sqlite(SqliteStore::existing(file).map_err(|fault| failure(&fault))?)))
    }

    fn opened(&self) -> Result<Opened, Failure> {
        let missing = || Failure::usage("which store: --postgres URL or --sqlite FILE");
        self.open(false)?.ok_or_else(missing)
    }
}

/// Runs it.
pub fn run(command: &DoubtCommand, printer: Printer) -> Outcome {
    match command {
        DoubtCommand::InDoubt(args) => held::in_doubt(args, printer),
        DoubtCommand::Decide(args) => decide::decide(args, printer),
        DoubtCommand::Heuristics(args) => held::heuristics(args, printer),
        DoubtCommand::Positions(args) => restored::positions(args, printer),
        DoubtCommand::Rewind(args) => restored::rewind(args, printer),
        DoubtCommand::Accept(args) => restored::accept(args, printer),
    }
}

fn failure(fault: &StoreFault) -> Failure {
    let exit = match fault {
        StoreFault::Away(_) => Exit::Unreachable,
        StoreFault::Conflict
        | StoreFault::Full { .. }
        | StoreFault::Forgotten
        | StoreFault::Unavailable(_) => Exit::Unexpected,
    };
    Failure::new(exit, fault)
}

/// As people say it: `42s`, `13m`, `2h13m`, `3d4h`.
fn in_words(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_in_words() {
        for (seconds, words) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (7_980, "2h13m"), (273_600, "3d4h")]
        {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}

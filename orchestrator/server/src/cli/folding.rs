//! How shards are folded, as the command line says it: for the audit and for `rebuild`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::exit::Failure;
use super::server::read_secret;
use crate::audit::{AuditError, Began, Folding};
use crate::cli::exit::Exit;

/// What every fold takes.
#[derive(Debug, Args)]
pub struct FoldingArgs {
    /// The secret under which reply tokens are made, as servers have it.
    #[arg(long, value_name = "FILE")]
    reply_token_secret_file: Option<PathBuf>,
    /// Fold from the beginning of the inbox, whatever snapshots there are.
    #[arg(long)]
    no_snapshots: bool,
    /// Shards and topics that are read at a time; left out, one per core.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl FoldingArgs {
    /// Does it, with a bar that shows how far it is.
    pub fn with<T>(&self, fold: impl FnOnce(Folding<'_>) -> T) -> Result<T, Failure> {
        let secret = self.reply_token_secret_file.as_deref().map(read_secret).transpose()?;
        let bar = progress_bar();
        let how = Folding {
            secret: secret.as_ref(),
            snapshots: !self.no_snapshots,
            threads: threads(self.threads),
            progress: &|more, total| advance(&bar, more, total),
        };
        let made = fold(how);
        bar.finish_and_clear();
        Ok(made)
    }
}

/// So many threads, or one per core.
pub fn threads(given: Option<NonZeroUsize>) -> usize {
    given.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// A bar for records that are read.
pub fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} records, {per_sec}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// So many more of so many; what comes behind the last is another round.
pub fn advance(bar: &ProgressBar, more: u64, total: u64) {
    bar.set_length(total);
    if bar.position() >= total {
        bar.set_position(0);
    }
    bar.inc(more);
}

/// Where a fold began, in a word.
pub fn beginning(began: &Began) -> String {
    match began.snapshot {
        Some(clock) => format!("{}, a snapshot of {clock}", began.at),
        None => began.at.to_string(),
    }
}

/// What would have been used and was not: for standard error, behind a table.
pub fn tell_passed_over<'b>(all: impl IntoIterator<Item = &'b Began>) {
    for Began { partition, passed_over, .. } in all {
        for one in passed_over {
            let (place, offset, cause) = (&one.place, one.next_offset, &one.cause);
            eprintln!("shard {partition}: the snapshot {place} of offset {offset} was not used: {cause}");
        }
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Site(error) => error.into(),
            AuditError::Secret(_) => Self::usage(error),
            AuditError::InboxCut { .. } => Self::new(Exit::Conflict, error),
            AuditError::NoShard(_) => Self::new(Exit::NotFound, error),
            AuditError::Replay(_) => Self::new(Exit::Unexpected, error),
        }
    }
}

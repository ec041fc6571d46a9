//! `sagamore rebuild`: the state of a shard anew, from its inbox.

use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;
use indicatif::ProgressBar;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::operator::OperatorArgs;
use super::output::{self, Printer};
use super::server::read_secret;
use crate::rebuild::{RebuildError, Rebuilt, rebuild};

/// Which shard.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// The partition of the inbox, as the message of SAG-001 names it.
    #[arg(value_name = "PARTITION")]
    partition: i32,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// The secret under which reply tokens are made, as servers have it.
    #[arg(long, value_name = "FILE")]
    reply_token_secret_file: Option<PathBuf>,
}

/// Does it.
pub fn run(args: &RebuildArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let secret = args.reply_token_secret_file.as_deref().map(read_secret).transpose()?;
    let author = format!("rebuilt by {}: {}", args.operator.actor(), args.operator.reason);
    let threads = available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let bar = ProgressBar::new_spinner();
    let rebuilt = rebuild(&site, args.partition, author, secret.as_ref(), threads, &|more, _| {
        bar.inc(more);
        bar.set_message(format!("{} records read", bar.position()));
    });
    bar.finish_and_clear();
    let rebuilt = rebuilt?;
    printer.one(&rebuilt, || table(&rebuilt))?;
    Ok(Exit::Done)
}

fn table(rebuilt: &Rebuilt) -> String {
    let Rebuilt { partition, next_offset, by_checkpoint, inputs, open, records, removed, owed, took_ms } =
        rebuilt;
    let by = if *by_checkpoint { "the last checkpoint" } else { "the journal" };
    let head =
        ["shard", "next", "as said by", "inputs", "open", "records", "of them tombstones", "owed", "ms"];
    let numbers = [*records, *removed, *owed].map(|number| number.to_string());
    let [records, removed, owed] = numbers;
    let row = [
        partition.to_string(),
        next_offset.to_string(),
        by.to_owned(),
        inputs.to_string(),
        open.to_string(),
        records,
        removed,
        owed,
        took_ms.to_string(),
    ];
    format!(
        "{}\n\nnow restart a server that has halted on shard {partition}; then `sagamore audit verify`",
        output::table(head, [row])
    )
}

impl From<RebuildError> for Failure {
    fn from(error: RebuildError) -> Self {
        let exit = match error {
            RebuildError::Audit(error) => return error.into(),
            RebuildError::Indefinite { .. } => Exit::Timeout,
            RebuildError::Fenced(_) => Exit::Conflict,
            RebuildError::Stopped { .. } | RebuildError::Contradiction { .. } | RebuildError::Journal(_) => {
                Exit::CheckNegative
            }
            RebuildError::Unproved(_) => Exit::Unexpected,
        };
        Self::new(exit, error)
    }
}

//! `sagamore rebuild`: the state of a shard anew, from its inbox.

use clap::Args;

use super::exit::{Exit, Failure, Outcome};
use super::folding::{FoldingArgs, beginning, tell_passed_over};
use super::kafka::KafkaArgs;
use super::operator::OperatorArgs;
use super::output::{self, Printer};
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
    #[command(flatten)]
    folding: FoldingArgs,
}

/// Does it.
pub fn run(args: &RebuildArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let author = format!("rebuilt by {}: {}", args.operator.actor(), args.operator.reason);
    let rebuilt = args.folding.with(|how| rebuild(&site, args.partition, author, how))??;
    tell_passed_over([&rebuilt.began]);
    printer.one(&rebuilt, || table(&rebuilt))?;
    Ok(Exit::Done)
}

fn table(rebuilt: &Rebuilt) -> String {
    let Rebuilt { began, next_offset, by_checkpoint, inputs, open, records, removed, owed, took_ms } =
        rebuilt;
    let by = if *by_checkpoint { "the last checkpoint" } else { "the journal" };
    let head = [
        "shard",
        "from",
        "next",
        "as said by",
        "inputs",
        "open",
        "records",
        "of them tombstones",
        "owed",
        "ms",
    ];
    let numbers = [*records, *removed, *owed].map(|number| number.to_string());
    let [records, removed, owed] = numbers;
    let row = [
        began.partition.to_string(),
        beginning(began),
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
        "{}\n\nnow restart a server that has halted on shard {}; then `sagamore audit verify`",
        output::table(head, [row]),
        began.partition
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

//! `sagamore audit state`: what was believed at a moment.

use clap::Args;
use sagamore_decider::view::TransactionView;
use sagamore_schemas::ids::TransactionId;
use serde::Serialize;

use crate::audit::{Believed, Moment, Question, state};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::folding::{FoldingArgs, beginning, tell_passed_over};
use crate::cli::kafka::KafkaArgs;
use crate::cli::output::{self, Printer};
use crate::cli::which::OpenStatus as Status;

/// Transactions of each shard that are told unless told otherwise.
const TOLD_DEFAULT: usize = 100;

/// Of what, and when.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// One transaction, open then or remembered; left out, those that were open.
    #[arg(value_name = "ID")]
    id: Option<TransactionId>,
    /// After every record of this time and before, such as 2026-11-22T16:00:00Z; or after this record of the inbox, such as
    /// 3/88121.
    #[arg(long, value_name = "TIME|PARTITION/OFFSET")]
    at: Moment,
    /// Only those that were in this status.
    #[arg(long, value_enum, conflicts_with = "id")]
    status: Option<Status>,
    /// How many of each shard at most, oldest first.
    #[arg(long, value_name = "N", default_value_t = TOLD_DEFAULT)]
    limit: usize,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    folding: FoldingArgs,
}

#[derive(Debug, Serialize)]
struct Told {
    at: String,
    shards: Vec<Believed>,
}

/// Folds, and tells.
pub fn run(args: &StateArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let status = args.status.map(Status::as_str);
    let question = Question { id: args.id.clone(), status, limit: args.limit };
    let shards = args.folding.with(|how| state(&site, args.at, &question, how))??;
    tell_passed_over(shards.iter().map(|shard| &shard.began));
    let told = Told { at: args.at.to_string(), shards };
    if let Some(id) = &args.id
        && told.shards.iter().all(|shard| shard.transactions.is_empty())
    {
        let message = format!("{id} was neither open nor remembered at {}", told.at);
        return Err(Failure::new(Exit::NotFound, message));
    }
    printer.one(&told, || table(&told, args.id.is_some()))?;
    Ok(Exit::Done)
}

fn table(told: &Told, is_one: bool) -> String {
    let shards = told.shards.iter().map(|shard| {
        [
            shard.began.partition.to_string(),
            beginning(&shard.began),
            shard.next_offset.to_string(),
            shard.clock.to_string(),
            shard.level.to_string(),
            shard.open.to_string(),
            shard.finished.to_string(),
            shard.stopped.clone().unwrap_or_else(|| "to there".into()),
        ]
    });
    let head = ["shard", "from", "next", "clock", "level", "open", "remembered", "folded"];
    let shards = output::table(head, shards);
    let transactions: Vec<&TransactionView> =
        told.shards.iter().flat_map(|shard| &shard.transactions).collect();
    let rows = transactions.iter().map(|view| {
        [
            view.id.clone(),
            view.status.to_owned(),
            view.definition.clone().unwrap_or_default(),
            view.started.map(|at| at.to_string()).unwrap_or_default(),
            view.reason.clone().unwrap_or_default(),
        ]
    });
    let listed = output::table(["transaction", "status", "definition", "started", "reason"], rows);
    let steps = if is_one { transactions.iter().map(|view| steps(view)).collect() } else { String::new() };
    let open: usize = told.shards.iter().map(|shard| shard.open).sum();
    let rest = if is_one || transactions.len() >= open {
        String::new()
    } else {
        format!("\n{} of {open} open transactions are told", transactions.len())
    };
    format!("{shards}\n\n{listed}{steps}{rest}")
}

fn steps(view: &TransactionView) -> String {
    let rows = view.steps.iter().map(|step| {
        let branch = step.branch.as_ref().map(|branch| format!("/{branch}")).unwrap_or_default();
        [
            format!("{}{branch}", step.step),
            step.participant.clone(),
            step.phase.to_owned(),
            step.operation.unwrap_or_default().to_owned(),
            step.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
            step.due.map(|due| due.to_string()).unwrap_or_default(),
            step.reason.clone().unwrap_or_default(),
        ]
    });
    let head = ["step", "participant", "phase", "operation", "attempt", "due", "reason"];
    format!("\n\n{}", output::table(head, rows))
}

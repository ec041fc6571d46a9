//! `sagamore audit`: folds the log again and compares, and tells the story of a transaction from the topics alone. It
//! needs no server, and changes nothing.

mod export;
mod state;
mod what_if;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sagamore_schemas::ids::{Time, TransactionId};

use crate::audit::trace::{Mention, trace};
use crate::audit::{Finding, Kind, Report, Span, read_signed, verify};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::folding::{FoldingArgs, advance, beginning, progress_bar, tell_passed_over, threads};
use crate::cli::kafka::KafkaArgs;
use crate::cli::output::{self, Printer};

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Fold the inbox again, and compare journal, commands, outcomes and dead letters with what the fold says.
    Verify(VerifyArgs),
    /// Everything that stands in the topics about a transaction, in the order of time.
    Trace(TraceArgs),
    /// What was believed at a moment: the shards folded up to there.
    State(state::StateArgs),
    /// Every entry of the journal once, for other programs.
    Export(export::ExportArgs),
    /// Sign where the journal's chain stands, for keeping where nobody can alter it; `verify --signed` compares.
    Sign(export::SignArgs),
    /// Play recorded transactions again under another definition, and list those that would have ended otherwise; then the
    /// exit code is 10.
    WhatIf(what_if::WhatIfArgs),
}

/// What is verified.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Compare what inputs of this time and later have caused, such as 2026-11-22T16:00:00Z; the fold begins at the newest
    /// snapshot before it.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Compare what inputs before this time have caused.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
    #[command(flatten)]
    folding: FoldingArgs,
    /// What `audit sign -o jsonl` has written before: the journal must still be that.
    #[arg(long, value_name = "FILE", requires = "public_key")]
    signed: Option<PathBuf>,
    /// Who has signed it, in PEM.
    #[arg(long, value_name = "FILE", requires = "signed")]
    public_key: Option<PathBuf>,
}

/// Which transaction.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The transaction.
    #[arg(value_name = "ID")]
    id: TransactionId,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Does it.
pub fn run(command: &AuditCommand, printer: Printer) -> Outcome {
    match command {
        AuditCommand::Verify(args) => run_verify(args, printer),
        AuditCommand::Trace(args) => run_trace(args, printer),
        AuditCommand::State(args) => state::run(args, printer),
        AuditCommand::Export(args) => export::run_export(args),
        AuditCommand::Sign(args) => export::run_sign(args, printer),
        AuditCommand::WhatIf(args) => what_if::run(args, printer),
    }
}

fn run_verify(args: &VerifyArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let signed = match (&args.signed, &args.public_key) {
        (Some(file), Some(key)) => read_signed(file, key)?,
        _ => Vec::new(),
    };
    let span = Span { from: args.from, to: args.to };
    let report = args.folding.with(|how| verify(&site, span, &signed, how))??;
    tell_passed_over(report.shards.iter().map(|shard| &shard.began));
    printer.one(&report, || table(&report))?;
    Ok(if report.clean { Exit::Done } else { Exit::CheckNegative })
}

fn run_trace(args: &TraceArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let bar = progress_bar();
    let mentions = trace(&site, &args.id, threads(None), &|more, total| advance(&bar, more, total));
    bar.finish_and_clear();
    let mentions = mentions?;
    if mentions.is_empty() {
        let id = &args.id;
        return Err(Failure::new(Exit::NotFound, format_args!("nothing in the topics is about {id}")));
    }
    printer.list(&mentions, || story(&mentions))?;
    Ok(Exit::Done)
}

fn table(report: &Report) -> String {
    let shards = report.shards.iter().map(|shard| {
        [
            shard.began.partition.to_string(),
            beginning(&shard.began),
            shard.inputs.to_string(),
            shard.next_offset.to_string(),
            shard.checkpoint.to_string(),
            shard.open.to_string(),
            shard.stopped.clone().unwrap_or_else(|| "to the end".into()),
        ]
    });
    let shards = output::table(["shard", "from", "inputs", "next", "checkpoint", "open", "folded"], shards);
    let topics = report.topics.iter().map(|(topic, tally)| {
        let counts = [
            tally.identical,
            tally.repeated,
            tally.missing,
            tally.different,
            tally.extra,
            tally.under_way,
            tally.not_retained,
        ];
        let [identical, repeated, missing, different, extra, under_way, not_retained] =
            counts.map(|count| count.to_string());
        [topic.clone(), identical, repeated, missing, different, extra, under_way, not_retained]
    });
    let head =
        ["topic", "identical", "repeated", "missing", "different", "extra", "under way", "not retained"];
    let topics = output::table(head, topics);
    let findings: String = report.findings.iter().map(told).collect();
    let verdict = if report.clean { "what stands in the topics is what the fold says" } else { "NOT GOOD" };
    let speed = format!(
        "{} inputs folded, {} a second; {} compared; {:.1} s in all",
        report.inputs,
        report.inputs_per_s,
        report.compared,
        std::time::Duration::from_millis(report.took_ms).as_secs_f64()
    );
    format!("{shards}\n\n{topics}\n{findings}\n{speed}\n{verdict}")
}

fn told(finding: &Finding) -> String {
    let Finding { kind, topic, partition, offset, cause, sequence, found, said } = finding;
    let kind = match kind {
        Kind::Missing => "missing",
        Kind::Different => "different",
        _ => "extra",
    };
    let place = offset
        .map_or_else(|| format!("{topic}/{partition}"), |offset| format!("{topic}/{partition}@{offset}"));
    let cause = cause.map_or_else(String::new, |cause| {
        let sequence = sequence.map(|sequence| format!(", entry {sequence}")).unwrap_or_default();
        format!(" (inbox {partition}/{cause}{sequence})")
    });
    let lines = [("found", found), ("the fold says", said)]
        .map(|(label, line)| line.as_ref().map(|line| format!("  {label}: {line}\n")).unwrap_or_default());
    format!("\n{kind}: {place}{cause}\n{}", lines.concat())
}

fn story(mentions: &[Mention]) -> String {
    let rows = mentions.iter().map(|mention| {
        [
            mention.at.to_string(),
            format!("{}/{}@{}", mention.topic, mention.partition, mention.offset),
            mention.what.clone(),
            mention.about.clone().unwrap_or_default(),
            mention.says.clone().unwrap_or_default(),
        ]
    });
    output::table(["at", "place", "what", "about", "says"], rows)
}

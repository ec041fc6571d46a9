//! `list`, `count`, `stuck`: what a server's view says of many transactions.
//!
//! With `--watch` the same is asked again and again: tables take the place of the one before, JSON follows it.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use sagamore_client::http::Servers;
use sagamore_schemas::ids::Span;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::api::{ServerAddress, read, servers};
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Format, Printer};
use super::transactions::{Shown, ShownStep, block_on, list_table};
use super::which::{Pages, Status, Which, behind};
use crate::view::query::By;

/// Transactions that `list` shows unless told otherwise: about as many as people scroll through.
const SHOWN: usize = 100;
/// Stuck transactions that are looked at unless told otherwise.
const LOOKED_AT: usize = 1_000;

/// Which ones, and how many.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of these statuses; those that are open unless told otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    status: Vec<Status>,
    #[command(flatten)]
    which: Which,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    limit: usize,
    /// All of them, page after page.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    server: ServerAddress,
}

/// Which ones, and by what.
#[derive(Debug, Args)]
pub struct CountArgs {
    /// Only those of these statuses; those that are open unless told otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    status: Vec<Status>,
    #[command(flatten)]
    which: Which,
    /// By what, one or several.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "status")]
    by: Vec<By>,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    server: ServerAddress,
}

/// How many, and how.
#[derive(Debug, Args)]
pub struct StuckArgs {
    #[command(flatten)]
    which: Which,
    /// One line for each cause: definition, step, operation, and the first words of the reason.
    #[arg(long)]
    by_cause: bool,
    /// How many are looked at, at most.
    #[arg(long, value_name = "N", default_value_t = LOOKED_AT, conflicts_with = "by_cause")]
    limit: usize,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    server: ServerAddress,
}

/// Whether it is asked once.
#[derive(Debug, Clone, Copy, Args)]
pub struct WatchArgs {
    /// Again and again, every 2 s unless told otherwise, until interrupted.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2s")]
    watch: Option<Span>,
}

#[derive(Debug, Deserialize)]
struct Counted {
    counts: Vec<Map<String, Value>>,
    total: i64,
    #[serde(default)]
    lag_records: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Causes {
    causes: Vec<Cause>,
    #[serde(default)]
    lag_records: Option<i64>,
}

/// As a server tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Cause {
    #[serde(default)]
    definition: Option<String>,
    step: String,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default)]
    participant: Option<String>,
    operation: String,
    error: String,
    pub(super) count: u64,
    first_seen: String,
    last_seen: String,
    sample: String,
    verb: String,
    command: String,
    advice: String,
}

/// Transactions that are stuck alike.
#[derive(Debug, Serialize)]
pub(super) struct ShownCause {
    definition: String,
    step: String,
    participant: String,
    operation: String,
    reason: String,
    pub(super) count: u64,
    first: String,
    last: String,
    sample: String,
    verb: String,
    next: String,
    advice: String,
}

/// `list`.
pub fn list(args: &ListArgs, printer: Printer) -> Outcome {
    let servers = servers(&args.server)?;
    let query = args.which.query(&args.status);
    let most = if args.all { usize::MAX } else { args.limit };
    let is_by_page = args.all && matches!(printer.format, Format::Table | Format::Jsonl);
    args.watch.repeat(printer, || {
        let mut pages = Pages::new(&servers, query.clone(), most);
        if is_by_page {
            while let Some(page) = pages.next()? {
                let (transactions, shown): (Vec<_>, Vec<_>) = page.into_iter().unzip();
                printer.list(&transactions, || list_table(&shown))?;
            }
            return Ok(());
        }
        let (transactions, shown): (Vec<_>, Vec<_>) = pages.all()?.into_iter().unzip();
        printer.list(&transactions, || list_table(&shown))
    })
}

/// `count`.
pub fn count(args: &CountArgs, printer: Printer) -> Outcome {
    let servers = servers(&args.server)?;
    let by: Vec<&str> = args.by.iter().map(|by| by.as_str()).collect();
    let path = format!("/v1/counts?{}by={}", args.which.query(&args.status), by.join(","));
    // What a count by status alone has always ended with.
    let sum = (by == ["status"]).then_some(if args.status.is_empty() { "open" } else { "total" });
    args.watch.repeat(printer, || {
        let Counted { mut counts, total, lag_records } = read(&block_on(servers.get(&path))??)?;
        behind(lag_records);
        if let Some(sum) = sum {
            let row = [("status".to_owned(), sum.into()), ("transactions".to_owned(), total.into())];
            counts.push(row.into_iter().collect());
        }
        printer.list(&counts, || {
            let head: Vec<&str> = by.iter().copied().chain(["transactions"]).collect();
            let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let row = |count: &Map<String, Value>| {
                head.iter()
                    .map(|name| count.get(*name).map(cell).unwrap_or_default().replace("null", "-"))
                    .collect()
            };
            output::wide_table(&head, counts.iter().map(row))
        })
    })
}

/// Those that need a person.
pub fn stuck(args: &StuckArgs, printer: Printer) -> Outcome {
    let servers = servers(&args.server)?;
    args.watch.repeat(printer, || {
        if args.by_cause {
            let causes = causes(&servers, &args.which)?;
            return printer.list(&causes, || causes_table(&causes));
        }
        let query = args.which.query(&[Status::Stuck]);
        let (transactions, found): (Vec<_>, Vec<_>) =
            Pages::new(&servers, query, args.limit).all()?.into_iter().unzip();
        printer.list(&transactions, || {
            let rows = found.iter().map(|shown| {
                let at: Vec<String> = stuck_steps(shown).map(ShownStep::called).collect();
                let why: Vec<String> = stuck_steps(shown).filter_map(|step| step.reason.clone()).collect();
                let definition = shown.definition.clone().unwrap_or_default();
                [shown.id.clone(), definition, at.join(", "), why.join(", ")]
            });
            output::table(["transaction", "definition", "stuck at", "reason"], rows)
        })
    })
}

fn stuck_steps(shown: &Shown) -> impl Iterator<Item = &ShownStep> {
    shown.steps.iter().filter(|step| step.phase == "stuck")
}

/// What is stuck, by cause.
pub(super) fn causes(servers: &Servers, which: &Which) -> Result<Vec<ShownCause>, Failure> {
    let path = format!("/v1/stuck?{}", which.query(&[]));
    let Causes { causes, lag_records } = read(&block_on(servers.get(path.trim_end_matches('&')))??)?;
    behind(lag_records);
    Ok(causes.into_iter().map(ShownCause::from).collect())
}

impl From<Cause> for ShownCause {
    fn from(cause: Cause) -> Self {
        let step = match &cause.branch {
            Some(branch) => format!("{}/{branch}", cause.step),
            None => cause.step,
        };
        Self {
            definition: cause.definition.unwrap_or_default(),
            step,
            participant: cause.participant.unwrap_or_default(),
            operation: cause.operation,
            reason: cause.error,
            count: cause.count,
            first: cause.first_seen,
            last: cause.last_seen,
            sample: cause.sample,
            verb: cause.verb,
            next: cause.command,
            advice: cause.advice,
        }
    }
}

pub(super) fn causes_table(causes: &[ShownCause]) -> String {
    let rows = causes.iter().map(|cause| {
        [
            cause.count.to_string(),
            cause.definition.clone(),
            cause.step.clone(),
            cause.participant.clone(),
            cause.operation.clone(),
            cause.reason.clone(),
            cause.first.clone(),
            cause.last.clone(),
            cause.sample.clone(),
            cause.next.clone(),
        ]
    });
    let head = [
        "count",
        "definition",
        "step",
        "participant",
        "operation",
        "reason",
        "first stuck",
        "last stuck",
        "sample",
        "next",
    ];
    output::table(head, rows)
}

impl WatchArgs {
    /// Once, or until it is interrupted or nobody reads any more.
    fn repeat(self, printer: Printer, mut look: impl FnMut() -> Result<(), Failure>) -> Outcome {
        let Some(pause) = self.watch else {
            look()?;
            return Ok(Exit::Done);
        };
        let is_screen = printer.format == Format::Table && std::io::stdout().is_terminal();
        loop {
            if is_screen {
                // Clear, and to the top.
                output::print("\u{1b}[2J\u{1b}[H")?;
            }
            look()?;
            if output::is_unread() {
                return Ok(Exit::Done);
            }
            std::thread::sleep(Duration::from_millis(pause.as_ms().max(100)));
        }
    }
}

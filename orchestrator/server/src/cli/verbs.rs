//! `cancel`, `retry`, `pause`, `resume`, `resolve`: a person's decisions about transactions, one by one or all that a filter names.
//!
//! A verb is an input like any other: who, why and when stand in the journal. What it came to is told for each
//! transaction, so that a list adds up; and a little later it is looked whether it helped.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sagamore_client::http::{REQUEST_TIMEOUT, Servers};
use sagamore_schemas::ids::{Span, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::api::{ServerAddress, failure, read, servers};
use super::exit::{Exit, Failure, Outcome};
use super::looking::{causes, causes_table};
use super::operator::OperatorArgs;
use super::output::{self, Format, Printer};
use super::transactions::{Shown, block_on, path_of, read_input};
use super::which::{Pages, Status, Which};

/// Which ones, and why.
#[derive(Debug, Args)]
pub struct VerbArgs {
    #[command(flatten)]
    about: About,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

/// Which ones: named, or by where they stand.
#[derive(Debug, Args)]
struct About {
    /// The transactions' ids.
    #[arg(required_unless_present_any = ANY_FILTER)]
    ids: Vec<TransactionId>,
    /// In place of ids: those that are stuck; of them, those that the filter says.
    #[arg(long, conflicts_with_all = ["ids", "status"])]
    stuck: bool,
    /// In place of ids: those of these statuses. With a filter alone, all that are open.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "ids")]
    status: Vec<Status>,
}

/// What goes with a verb about several.
#[derive(Debug, Args)]
struct How {
    /// Say which ones it would be, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// How much later it is looked whether it helped; of several transactions, unless it is 0s.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    check_after: Span,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    server: ServerAddress,
}

/// What stands in the place of ids.
const ANY_FILTER: [&str; 9] = [
    "stuck",
    "status",
    "definition",
    "step",
    "participant",
    "error",
    "id_prefix",
    "older_than",
    "newer_than",
];

/// Which step of which transactions, and what has become of it.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The transactions' ids; with --stuck, all that are stuck at that step.
    #[arg(required_unless_present = "stuck")]
    ids: Vec<TransactionId>,
    /// In place of ids: those that are stuck there; of them, those that the next two say.
    #[arg(long, conflicts_with = "ids")]
    stuck: bool,
    /// Those of this definition; with a version, of that one.
    #[arg(long, value_name = "NAME[@V]", requires = "stuck")]
    definition: Option<String>,
    /// Those with an error of this kind: the words of a reason before its colon.
    #[arg(long, value_name = "KIND", requires = "stuck")]
    error: Option<String>,
    /// The step that is stuck; in a group STEP/BRANCH.
    #[arg(long, value_name = "STEP[/BRANCH]")]
    step: String,
    /// ok: what was asked has been done; of compensate, that it is undone. refused: it has not been done and will not
    /// be; a pivot only, which turns back.
    #[arg(long = "as", value_name = "OUTCOME", value_enum)]
    outcome: Resolved,
    /// The result, as the participant would have answered it: JSON, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    #[command(flatten)]
    how: How,
}

/// What a person has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resolved {
    /// It has been done.
    Ok,
    /// It has not been done.
    Refused,
}

/// A wish about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Go back.
    Cancel,
    /// Try again.
    Retry,
    /// Ask for nothing more.
    Pause,
    /// Go on.
    Resume,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// What a verb came to.
#[derive(Debug, Serialize)]
struct Verdict {
    id: String,
    taken: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Where it stood a little later.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

/// Asks for it, for each of them. The exit code is that of the worst.
pub fn verb(verb: Verb, args: &VerbArgs, printer: Printer) -> Outcome {
    let VerbArgs { about, which, how } = args;
    let statuses = if about.stuck { vec![Status::Stuck] } else { about.status.clone() };
    let body = json!({ "reason": how.operator.reason, "actor": how.operator.actor() });
    all(verb.as_str(), &about.ids, (&statuses, which), how, &body, printer)
}

/// Answers in the place of a participant.
pub fn resolve(args: &ResolveArgs, printer: Printer) -> Outcome {
    let (step, branch) =
        args.step.split_once('/').map_or((args.step.as_str(), None), |(step, branch)| (step, Some(branch)));
    let outcome = match args.outcome {
        Resolved::Ok => "ok",
        Resolved::Refused => "refused",
    };
    let operator = &args.how.operator;
    let mut body =
        json!({ "reason": operator.reason, "actor": operator.actor(), "step": step, "outcome": outcome });
    if let Some(branch) = branch {
        body["branch"] = json!(branch);
    }
    if let Some(data) = &args.data {
        let data = read_input("--data", data)?;
        body["data"] = serde_json::from_str(data.get())
            .map_err(|error| Failure::usage(format_args!("--data is not JSON: {error}")))?;
    }
    let which = Which::stuck_at(args.definition.clone(), step.to_owned(), args.error.clone());
    all("resolve", &args.ids, (&[Status::Stuck], &which), &args.how, &body, printer)
}

/// The same wish for each: for those that are named, or those of the filter.
fn all(
    verb: &str,
    named: &[TransactionId],
    filter: (&[Status], &Which),
    how: &How,
    body: &Value,
    printer: Printer,
) -> Outcome {
    let servers = servers(&how.server)?;
    let ids = if named.is_empty() { found(&servers, filter)? } else { named.to_vec() };
    if how.dry_run {
        let filter = Some(filter).filter(|_| named.is_empty());
        return rehearse(&servers, filter, &ids, printer);
    }
    let bar = bar(verb, ids.len());
    let mut verdicts = Vec::new();
    let mut worst = Exit::Done;
    for id in &ids {
        let (verdict, exit) = ask(&servers, verb, id, body)?;
        worst = worst.max(exit);
        verdicts.push(verdict);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if verdicts.len() > 1 && how.check_after.as_ms() > 0 {
        std::thread::sleep(Duration::from_millis(how.check_after.as_ms()));
        look_again(&servers, &mut verdicts)?;
    }
    tell(verb, &verdicts, printer)?;
    Ok(worst)
}

/// Those that the filter names, all pages of them.
fn found(servers: &Servers, (statuses, which): (&[Status], &Which)) -> Result<Vec<TransactionId>, Failure> {
    let found = Pages::new(servers, which.query(statuses), usize::MAX).all()?;
    found.iter().map(|(_, shown)| id_of(shown)).collect()
}

/// What it would be about: the ids for programs; for people how many, and of what is stuck, why.
fn rehearse(
    servers: &Servers,
    filter: Option<(&[Status], &Which)>,
    ids: &[TransactionId],
    printer: Printer,
) -> Outcome {
    let names: Vec<&str> = ids.iter().map(TransactionId::as_str).collect();
    if printer.format != Format::Table {
        printer.list(&names, String::new)?;
        return Ok(Exit::Done);
    }
    let mut parts = Vec::new();
    if let Some((statuses, which)) = filter {
        let path = format!("/v1/counts?{}by=definition,status", which.query(statuses));
        let Counted { counts } = read(&block_on(servers.get(&path))??)?;
        let cell = |count: &Map<String, Value>, name: &str| match count.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let head = ["definition", "status", "transactions"];
        parts.push(output::table(head, counts.iter().map(|count| head.map(|name| cell(count, name)))));
        let asks_for_stuck = statuses.is_empty() || statuses.contains(&Status::Stuck);
        let causes = if asks_for_stuck { causes(servers, which)? } else { Vec::new() };
        if !causes.is_empty() {
            parts.push(causes_table(&causes));
        }
    }
    parts.push(format!("{}\nwould be asked: {}", names.join("\n"), ids.len()));
    output::print(&parts.join("\n\n"))?;
    Ok(Exit::Done)
}

#[derive(Deserialize)]
struct Counted {
    counts: Vec<Map<String, Value>>,
}

fn bar(verb: &str, count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len}, {eta} to go") {
        bar.set_style(style);
    }
    bar.set_message(verb.to_owned());
    bar
}

fn ask(servers: &Servers, verb: &str, id: &TransactionId, body: &Value) -> Result<(Verdict, Exit), Failure> {
    let path = format!("{}/{verb}", path_of(id));
    let answer = block_on(servers.post(&path, &body.to_string(), REQUEST_TIMEOUT))??;
    let id = id.to_string();
    if answer.is_success() {
        return Ok((Verdict { id, taken: true, reason: None, status: None }, Exit::Done));
    }
    let failure = failure(&answer);
    Ok((Verdict { id, taken: false, reason: Some(failure.message), status: None }, failure.exit))
}

/// Where those that were taken stand by now.
fn look_again(servers: &Servers, verdicts: &mut [Verdict]) -> Result<(), Failure> {
    let bar = bar("looking", verdicts.len());
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.taken) {
        let answer = block_on(servers.get(&format!("/v1/transactions/{}", verdict.id)))??;
        let shown: Option<Shown> = read(&answer).ok();
        verdict.status = Some(shown.map_or_else(|| "unknown".to_owned(), |shown| shown.status));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn tell(verb: &str, verdicts: &[Verdict], printer: Printer) -> Result<(), Failure> {
    printer.list(verdicts, || {
        let row = |verdict: &Verdict| {
            let taken = if verdict.taken { "yes" } else { "no" };
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            [verdict.id.clone(), taken.to_owned(), text(&verdict.reason), text(&verdict.status)]
        };
        let table = output::table(["transaction", verb, "why not", "by now"], verdicts.iter().map(row));
        match verdicts.len() {
            1 => table,
            _ => format!("{table}\n{}", sum(verb, verdicts)),
        }
    })
}

/// What it came to, in one line that adds up.
fn sum(verb: &str, verdicts: &[Verdict]) -> String {
    let taken = verdicts.iter().filter(|verdict| verdict.taken).count();
    let mut by_now: BTreeMap<&str, usize> = BTreeMap::new();
    for status in verdicts.iter().filter_map(|verdict| verdict.status.as_deref()) {
        *by_now.entry(status).or_default() += 1;
    }
    let still = by_now.remove("stuck").map(|count| format!("still stuck: {count}"));
    let others = by_now.into_iter().map(|(status, count)| format!("{status}: {count}"));
    let by_now: Vec<String> = others.chain(still).collect();
    let by_now = if by_now.is_empty() { String::new() } else { format!("; by now {}", by_now.join(", ")) };
    format!("{verb}: {taken} taken, {} not{by_now}", verdicts.len() - taken)
}

fn id_of(shown: &Shown) -> Result<TransactionId, Failure> {
    let wrong = |error| {
        Failure::new(Exit::Unexpected, format_args!("the server's answer is not understood: {error}"))
    };
    shown.id.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_came_to_adds_up() {
        let verdict = |taken, status: Option<&str>| Verdict {
            id: "o-1".to_owned(),
            taken,
            reason: None,
            status: status.map(str::to_owned),
        };
        let verdicts = [
            verdict(true, Some("stuck")),
            verdict(true, Some("committed")),
            verdict(true, Some("stuck")),
            verdict(false, None),
        ];
        assert_eq!(sum("retry", &verdicts), "retry: 3 taken, 1 not; by now committed: 1, still stuck: 2");
        assert_eq!(sum("cancel", &verdicts[3..]), "cancel: 0 taken, 1 not");
    }
}

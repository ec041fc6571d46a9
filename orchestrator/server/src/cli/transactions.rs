//! `start`, `get`, `wait`, `list`, `count`: asked of a server.
//!
//! `start` sends the same id and the same time again until it is answered or its timeout is over, so that whatever
//! happens on the way there is one transaction. `start --wait` lets the server wait and asks again with what is left of
//! the timeout; `wait` looks again and again, from every 50 ms to every second, for any number of transactions.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use clap::Args;
use sagamore_client::http::{Patience, Servers};
use sagamore_client::start::{self, Absence, StartDocument, Unanswered, Until};
use sagamore_schemas::ids::{Span, TransactionId};
use sagamore_schemas::wire::DefinitionRef;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api::{ServerAddress, exit_of_refusal, failure, read, servers};
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Printer};

/// Transactions that `list` shows unless told otherwise: about as many as people scroll through.
const LIST_LIMIT: usize = 100;
/// Transactions that a server lists at most: beyond it, what is shown is a part.
pub(super) const LIST_MAX: usize = 1_000;

/// What to start.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The definition; without a version the highest.
    #[arg(value_name = "NAME[@V]")]
    definition: DefinitionRef,
    /// The transaction's id: the idempotency key. 1-128 characters of A-Z a-z 0-9 . _ : -
    #[arg(long)]
    id: TransactionId,
    /// JSON, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON|@FILE|-")]
    input: String,
    /// Wait for the outcome: exit code 0 is committed, 20 compensated or aborted, 21 stuck.
    #[arg(long)]
    wait: bool,
    /// How long to try, and to wait.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: Span,
    #[command(flatten)]
    server: ServerAddress,
}

/// Which one.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The transaction's id.
    id: TransactionId,
    #[command(flatten)]
    server: ServerAddress,
}

/// Which ones, and for how long.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The transactions' ids. The exit code is that of the worst.
    #[arg(required = true)]
    ids: Vec<TransactionId>,
    /// How long to wait for all of them.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: Span,
    #[command(flatten)]
    server: ServerAddress,
}

/// Which ones.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this status.
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT)]
    limit: usize,
    #[command(flatten)]
    server: ServerAddress,
}

/// Where to ask.
#[derive(Debug, Args)]
pub struct CountArgs {
    #[command(flatten)]
    server: ServerAddress,
}

/// Where an open transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Status {
    /// Going forward, not decided.
    Running,
    /// Decided, going forward to the end.
    Committing,
    /// Going back.
    RollingBack,
    /// In need of a person.
    Stuck,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Committing => "committing",
            Self::RollingBack => "rolling-back",
            Self::Stuck => "stuck",
        }
    }
}

/// What a start came to: accepted, or ended.
#[derive(Debug, Deserialize)]
struct Started {
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// A transaction as far as tables show it.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) birth: Option<String>,
    #[serde(default)]
    pub(super) revision: Option<u64>,
    #[serde(default)]
    pub(super) definition: Option<String>,
    #[serde(default)]
    pub(super) started: Option<String>,
    #[serde(default)]
    pub(super) deadline: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) parent: Option<String>,
    #[serde(default)]
    pub(super) steps: Vec<ShownStep>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ShownStep {
    pub(super) step: String,
    #[serde(default)]
    pub(super) branch: Option<String>,
    #[serde(default)]
    pub(super) participant: Option<String>,
    #[serde(default)]
    pub(super) child: Option<String>,
    pub(super) phase: String,
    #[serde(default)]
    pub(super) operation: Option<String>,
    #[serde(default)]
    pub(super) attempt: Option<u32>,
    #[serde(default)]
    pub(super) due: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    transactions: Vec<Box<RawValue>>,
}

/// How many there are of a status.
#[derive(Debug, Serialize)]
struct Count {
    status: String,
    transactions: usize,
}

/// `start NAME[@V]`.
pub fn start(args: &StartArgs, printer: Printer) -> Outcome {
    let servers = servers(&args.server)?;
    let input = read_input("--input", &args.input)?;
    let definition = args.definition.to_string();
    let document = StartDocument {
        id: &args.id,
        definition: &definition,
        input: Some(&input),
        time: start::now(),
        traceparent: None,
    };
    let document = document.to_json();
    let until = if args.wait { Until::Ended } else { Until::Accepted };
    let mut patience = patience(args.timeout);
    let sent = start::send(&servers, &document, until, Absence::IsTold, &mut patience);
    let answer = block_on(sent)?.map_err(|unanswered| not_started(&args.id, unanswered))?;
    let raw: Box<RawValue> = read(&answer)?;
    let started: Started = read(&answer)?;
    printer.one(&raw, || {
        let word = started.outcome.as_deref().or(started.status.as_deref()).unwrap_or("accepted");
        match &started.reason {
            Some(reason) => format!("{} {word}: {reason}", args.id),
            None => format!("{} {word}", args.id),
        }
    })?;
    match &started.outcome {
        Some(outcome) => Ok(exit_of_outcome(outcome, started.reason.as_deref())),
        None if args.wait => Err(not_ended(&args.id, args.timeout)),
        None => Ok(Exit::Done),
    }
}

fn not_started(id: &TransactionId, unanswered: Unanswered) -> Failure {
    let last = match unanswered {
        Unanswered::NobodyThere(silence) => return silence.into(),
        Unanswered::Overloaded(answer) => return failure(&answer),
        Unanswered::Unknown(trouble) => trouble,
    };
    let message =
        format!("{last}; whether {id} was started is not known: start it again with the same id and input");
    Failure::new(Exit::Timeout, message)
}

/// `get ID`.
pub fn get(args: &GetArgs, printer: Printer) -> Outcome {
    let servers = servers(&args.server)?;
    let answer = block_on(servers.get(&path_of(&args.id)))??;
    let raw: Box<RawValue> = read(&answer)?;
    let shown: Shown = read(&answer)?;
    printer.one(&raw, || one_table(&shown))?;
    Ok(Exit::Done)
}

/// `wait ID…`.
pub fn wait(args: &WaitArgs, printer: Printer) -> Outcome {
    let servers = servers(&args.server)?;
    let ended = block_on(wait_for_all(&servers, args))??;
    let shown: Vec<Shown> = ended.iter().map(|raw| read_shown(raw)).collect::<Result<_, _>>()?;
    printer.list(&ended, || list_table(&shown))?;
    let exits = shown.iter().map(|shown| exit_of_outcome(&shown.status, shown.reason.as_deref()));
    let worst = exits.max().unwrap_or(Exit::Done);
    let missing: Vec<_> =
        args.ids.iter().filter(|id| !shown.iter().any(|shown| shown.id == id.as_str())).collect();
    match missing.first() {
        Some(id) => Err(not_ended(id, args.timeout)),
        None => Ok(worst),
    }
}

/// Those that ended in time, in the order asked for. One that is not known ends the wait.
async fn wait_for_all(servers: &Servers, args: &WaitArgs) -> Result<Vec<Box<RawValue>>, Failure> {
    let mut patience = patience(args.timeout);
    let mut ended: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    loop {
        for id in args.ids.iter().filter(|id| !ended.contains_key(id.as_str())).collect::<Vec<_>>() {
            let answer = match servers.get(&path_of(id)).await {
                Ok(answer) => answer,
                // A server that restarts is worth waiting for.
                Err(silence) if patience.is_over() => return Err(silence.into()),
                Err(_) => break,
            };
            if answer.may_pass() {
                continue;
            }
            let shown: Shown = read(&answer).map_err(|failure| about(id, &failure))?;
            if !is_open(&shown.status) {
                ended.insert(id.as_str(), read(&answer)?);
            }
        }
        if args.ids.iter().all(|id| ended.contains_key(id.as_str())) || patience.is_over() {
            return Ok(args.ids.iter().filter_map(|id| ended.remove(id.as_str())).collect());
        }
        patience.pause().await;
    }
}

/// `list`.
pub fn list(args: &ListArgs, printer: Printer) -> Outcome {
    let found = fetch_list(&args.server, args.status, args.limit)?;
    let (transactions, shown): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    printer.list(&transactions, || list_table(&shown))?;
    Ok(Exit::Done)
}

/// `count`.
pub fn count(args: &CountArgs, printer: Printer) -> Outcome {
    let transactions = fetch_list(&args.server, None, LIST_MAX)?;
    let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
    for (_, shown) in &transactions {
        *by_status.entry(shown.status.clone()).or_default() += 1;
    }
    let total = Count { status: "open".to_owned(), transactions: transactions.len() };
    let counts = by_status.into_iter().map(|(status, transactions)| Count { status, transactions });
    let counts: Vec<_> = counts.chain(std::iter::once(total)).collect();
    printer.list(&counts, || {
        let row = |count: &Count| [count.status.clone(), count.transactions.to_string()];
        output::table(["status", "transactions"], counts.iter().map(row))
    })?;
    Ok(Exit::Done)
}

/// Open transactions, as they were told and as tables show them.
pub(super) fn fetch_list(
    server: &ServerAddress,
    status: Option<Status>,
    limit: usize,
) -> Result<Vec<(Box<RawValue>, Shown)>, Failure> {
    let servers = servers(server)?;
    let status = status.map(|status| format!("status={}&", status.as_str())).unwrap_or_default();
    let answer = block_on(servers.get(&format!("/v1/transactions?{status}limit={limit}")))??;
    let listed: Listed = read(&answer)?;
    if listed.transactions.len() >= limit.min(LIST_MAX) {
        eprintln!("there may be more than these {}", listed.transactions.len());
    }
    let shown = |raw: Box<RawValue>| read_shown(&raw).map(|shown| (raw, shown));
    listed.transactions.into_iter().map(shown).collect()
}

fn patience(timeout: Span) -> Patience {
    Patience::new(Duration::from_millis(timeout.as_ms()))
}

pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Unexpected, error))?;
    Ok(runtime.block_on(future))
}

/// The input as it was written: its bytes are compared when the same id comes again.
pub(super) fn read_input(flag: &'static str, given: &str) -> Result<Box<RawValue>, Failure> {
    let (place, text) = if given == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format_args!("standard input: {error}")))?;
        ("standard input", text)
    } else if let Some(file) = given.strip_prefix('@') {
        let text = std::fs::read_to_string(file);
        (file, text.map_err(|error| Failure::usage(format_args!("{flag} {given}: {error}")))?)
    } else {
        (flag, given.to_owned())
    };
    RawValue::from_string(text.trim().to_owned())
        .map_err(|error| Failure::usage(format_args!("{place} is not JSON: {error}")))
}

/// Ids have no character that an URL would change.
pub(super) fn path_of(id: &TransactionId) -> String {
    format!("/v1/transactions/{id}")
}

fn read_shown(raw: &RawValue) -> Result<Shown, Failure> {
    serde_json::from_str(raw.get()).map_err(|error| {
        Failure::new(Exit::Unexpected, format_args!("the server's answer is not understood: {error}"))
    })
}

fn is_open(status: &str) -> bool {
    matches!(status, "running" | "committing" | "rolling-back")
}

/// The exit code of an outcome; a refused start has the one of what refused it.
fn exit_of_outcome(outcome: &str, reason: Option<&str>) -> Exit {
    match outcome {
        "committed" => Exit::Done,
        "compensated" | "aborted" => Exit::NotCommitted,
        "stuck" => Exit::Stuck,
        "refused" => exit_of_refusal(reason.unwrap_or_default().split(':').next().unwrap_or_default()),
        _ => Exit::Unexpected,
    }
}

fn not_ended(id: &TransactionId, timeout: Span) -> Failure {
    let message = format!("{id} has not ended within {timeout}; it goes on: `sagamore wait {id}`");
    Failure::new(Exit::Timeout, message)
}

fn about(id: &TransactionId, failure: &Failure) -> Failure {
    Failure::new(failure.exit, format_args!("{id}: {failure}"))
}

impl ShownStep {
    /// The step, and in a group the branch.
    pub(super) fn called(&self) -> String {
        self.branch.as_ref().map_or_else(|| self.step.clone(), |branch| format!("{}/{branch}", self.step))
    }

    /// The participant, or the definition it starts and the child.
    fn done_by(&self) -> String {
        let by = self.participant.clone().unwrap_or_default();
        self.child.as_ref().map_or_else(|| by.clone(), |child| format!("{by} as {child}"))
    }
}

fn one_table(shown: &Shown) -> String {
    let mut lines = vec![format!("{} {}", shown.id, shown.status)];
    let fields = [
        ("reason", shown.reason.clone()),
        ("definition", shown.definition.clone()),
        ("parent", shown.parent.clone()),
        ("birth", shown.birth.clone()),
        ("revision", shown.revision.map(|revision| revision.to_string())),
        ("started", shown.started.clone()),
        ("deadline", shown.deadline.clone()),
    ];
    lines.extend(fields.into_iter().filter_map(|(name, value)| Some(format!("{name:<11}{}", value?))));
    if !shown.steps.is_empty() {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let row = |step: &ShownStep| {
            [
                step.called(),
                step.done_by(),
                step.phase.clone(),
                text(&step.operation),
                step.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
                text(&step.due),
                text(&step.reason),
            ]
        };
        let head = ["step", "participant", "phase", "operation", "attempt", "due", "reason"];
        lines.push(String::new());
        lines.push(output::table(head, shown.steps.iter().map(row)));
    }
    lines.join("\n")
}

fn list_table(transactions: &[Shown]) -> String {
    let row = |shown: &Shown| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        [
            shown.id.clone(),
            shown.status.clone(),
            text(&shown.definition),
            text(&shown.started),
            text(&shown.deadline),
            text(&shown.reason),
        ]
    };
    output::table(
        ["transaction", "status", "definition", "started", "deadline", "reason"],
        transactions.iter().map(row),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let check = |outcome, reason, exit| assert_eq!(exit_of_outcome(outcome, reason), exit, "{outcome}");
        check("committed", None, Exit::Done);
        check("compensated", Some("ship refused"), Exit::NotCommitted);
        check("aborted", Some("cancelled"), Exit::NotCommitted);
        check("stuck", Some("refund refused"), Exit::Stuck);
        check("refused", Some("conflict: this id was started with other data"), Exit::Conflict);
        check("refused", Some("unknown-definition: order"), Exit::NotFound);
        check("refused", Some("missing-input: ${input.x}"), Exit::Usage);
        check("nonsense", None, Exit::Unexpected);
    }

    #[test]
    fn the_input_stays_as_it_was_written() {
        let text = r#"{ "total": 100.10,"n":12345678901234567890 }"#;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("input.json");
        std::fs::write(&file, format!("\n{text}\n")).unwrap();
        assert_eq!(read_input("--input", text).unwrap().get(), text);
        assert_eq!(read_input("--input", &format!("@{}", file.display())).unwrap().get(), text);
        assert_eq!(read_input("--input", "{").unwrap_err().exit, Exit::Usage);
        assert_eq!(read_input("--input", "@/nowhere").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_transaction_as_people_read_it() {
        let shown: Shown = serde_json::from_str(
            r#"{"id":"o-1","status":"rolling-back","birth":"0-7","revision":3,"definition":"order@1","reason":"ship: no-carrier",
                "steps":[{"step":"reserve","participant":"inventory","phase":"undoing","operation":"compensate","attempt":1},
                         {"step":"ship","participant":"shipping","phase":"refused","reason":"no-carrier: Norway"}]}"#,
        )
        .unwrap();
        assert_eq!(
            one_table(&shown),
            "o-1 rolling-back\nreason     ship: no-carrier\ndefinition order@1\nbirth      0-7\nrevision   3\n\n\
             STEP     PARTICIPANT  PHASE    OPERATION   ATTEMPT  DUE  REASON\n\
             reserve  inventory    undoing  compensate  1\n\
             ship     shipping     refused                            no-carrier: Norway"
        );
    }
}

//! `start`, `get`, `wait`: asked of a server.
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
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{ServerAddress, exit_of_refusal, failure, read, servers};
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Printer};
use super::story::story;

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
    pub(super) updated: Option<String>,
    #[serde(default)]
    pub(super) deadline: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) parent: Option<String>,
    #[serde(default)]
    pub(super) steps: Vec<ShownStep>,
    #[serde(default)]
    pub(super) decisions: Vec<ShownDecision>,
}

/// What a person has decided.
#[derive(Debug, Deserialize)]
pub(super) struct ShownDecision {
    pub(super) at: String,
    pub(super) verb: String,
    pub(super) actor: String,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) step: Option<String>,
}

/// One command, and what came of it.
#[derive(Debug, Deserialize)]
pub(super) struct ShownAttempt {
    pub(super) operation: String,
    pub(super) attempt: u32,
    pub(super) asked: String,
    #[serde(default)]
    pub(super) took_ms: Option<u64>,
    #[serde(default)]
    pub(super) came_to: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
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
    pub(super) due: Option<String>,
    #[serde(default)]
    pub(super) since: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) attempts: Vec<ShownAttempt>,
    #[serde(default)]
    pub(super) omitted: Option<u32>,
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
    let answer = block_on(servers.get(&format!("{}?history=true", path_of(&args.id))))??;
    let raw: Box<RawValue> = read(&answer)?;
    let shown: Shown = read(&answer)?;
    printer.one(&raw, || story(&shown))?;
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

pub(super) fn read_shown(raw: &RawValue) -> Result<Shown, Failure> {
    serde_json::from_str(raw.get()).map_err(|error| {
        Failure::new(Exit::Unexpected, format_args!("the server's answer is not understood: {error}"))
    })
}

fn is_open(status: &str) -> bool {
    matches!(status, "running" | "paused" | "committing" | "rolling-back")
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
    pub(super) fn done_by(&self) -> String {
        let by = self.participant.clone().unwrap_or_default();
        self.child.as_ref().map_or_else(|| by.clone(), |child| format!("{by} as {child}"))
    }
}

pub(super) fn list_table(transactions: &[Shown]) -> String {
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
}

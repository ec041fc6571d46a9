//! `cancel`, `retry`, `resolve`: a person's decisions about transactions, one by one or all that are stuck alike; and
//! `stuck`, which says who they are and why.
//!
//! A verb is an input like any other: who, why and when stand in the journal. What it came to is told for each
//! transaction, so that a list adds up.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use sagamore_client::http::{REQUEST_TIMEOUT, Servers};
use sagamore_schemas::ids::TransactionId;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::api::{ServerAddress, failure, servers};
use super::exit::{Exit, Failure, Outcome};
use super::operator::OperatorArgs;
use super::output::{self, Printer};
use super::transactions::{LIST_MAX, Shown, ShownStep, Status, block_on, fetch_list, path_of, read_input};

/// Which ones, and why.
#[derive(Debug, Args)]
pub struct VerbArgs {
    /// The transactions' ids.
    #[arg(required_unless_present = "stuck")]
    ids: Vec<TransactionId>,
    /// In place of ids: all that are stuck, or those of them that the next three say.
    #[arg(long, conflicts_with = "ids")]
    stuck: bool,
    #[command(flatten)]
    which: Which,
    /// Say which ones it would be, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    server: ServerAddress,
}

/// Which of those that are stuck.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Those of this definition; with a version, of that one.
    #[arg(long, value_name = "NAME[@V]")]
    definition: Option<String>,
    /// Those stuck at this step.
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Those that wait for this participant.
    #[arg(long, value_name = "NAME")]
    participant: Option<String>,
}

/// Which step of which transaction, and what has become of it.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The transaction's id.
    id: TransactionId,
    /// The step that is stuck; in a group STEP/BRANCH.
    #[arg(long, value_name = "STEP[/BRANCH]")]
    step: String,
    /// ok: what was asked has been done. refused: it has not been done and will not be; a pivot only, which turns back.
    #[arg(long = "as", value_name = "OUTCOME", value_enum)]
    outcome: Resolved,
    /// The result, as the participant would have answered it: JSON, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
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
    #[arg(long, value_name = "N", default_value_t = LIST_MAX)]
    limit: usize,
    #[command(flatten)]
    server: ServerAddress,
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
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
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
}

/// Transactions that are stuck alike.
#[derive(Debug, Serialize)]
struct Cause {
    definition: String,
    step: String,
    participant: String,
    operation: String,
    reason: String,
    count: usize,
    first: String,
    last: String,
    sample: String,
    next: String,
}

/// Asks for it, for each of them. The exit code is that of the worst.
pub fn verb(verb: Verb, args: &VerbArgs, printer: Printer) -> Outcome {
    let ids: Vec<TransactionId> = if args.stuck {
        stuck(&args.server, &args.which, LIST_MAX)?
            .into_iter()
            .map(|(_, shown)| id_of(&shown))
            .collect::<Result<_, _>>()?
    } else {
        args.ids.clone()
    };
    if args.dry_run {
        let ids: Vec<&str> = ids.iter().map(TransactionId::as_str).collect();
        printer.list(&ids, || format!("{}\nwould be asked: {}", ids.join("\n"), ids.len()))?;
        return Ok(Exit::Done);
    }
    let servers = servers(&args.server)?;
    let body = json!({ "reason": args.operator.reason, "actor": args.operator.actor() });
    let bar = ProgressBar::new(ids.len() as u64);
    let mut verdicts = Vec::new();
    let mut worst = Exit::Done;
    for id in ids {
        let (verdict, exit) = ask(&servers, verb.as_str(), &id, &body)?;
        worst = worst.max(exit);
        verdicts.push(verdict);
        bar.inc(1);
    }
    bar.finish_and_clear();
    tell(verb.as_str(), &verdicts, printer)?;
    Ok(worst)
}

/// Answers in the place of a participant.
pub fn resolve(args: &ResolveArgs, printer: Printer) -> Outcome {
    let (step, branch) =
        args.step.split_once('/').map_or((args.step.as_str(), None), |(step, branch)| (step, Some(branch)));
    let outcome = match args.outcome {
        Resolved::Ok => "ok",
        Resolved::Refused => "refused",
    };
    let mut body = json!({
        "reason": args.operator.reason, "actor": args.operator.actor(), "step": step, "outcome": outcome,
    });
    if let Some(branch) = branch {
        body["branch"] = json!(branch);
    }
    if let Some(data) = &args.data {
        let data = read_input("--data", data)?;
        body["data"] = serde_json::from_str(data.get())
            .map_err(|error| Failure::usage(format_args!("--data is not JSON: {error}")))?;
    }
    let (verdict, exit) = ask(&servers(&args.server)?, "resolve", &args.id, &body)?;
    tell("resolve", &[verdict], printer)?;
    Ok(exit)
}

/// Those that need a person.
pub fn show_stuck(args: &StuckArgs, printer: Printer) -> Outcome {
    let found = stuck(&args.server, &args.which, args.limit)?;
    let (transactions, found): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    if args.by_cause {
        let causes = causes(&found);
        printer.list(&causes, || causes_table(&causes))?;
        return Ok(Exit::Done);
    }
    printer.list(&transactions, || {
        let rows = found.iter().map(|shown| {
            let at: Vec<String> = stuck_steps(shown).map(ShownStep::called).collect();
            let why: Vec<String> = stuck_steps(shown).filter_map(|step| step.reason.clone()).collect();
            [shown.id.clone(), shown.definition.clone().unwrap_or_default(), at.join(", "), why.join(", ")]
        });
        output::table(["transaction", "definition", "stuck at", "reason"], rows)
    })?;
    Ok(Exit::Done)
}

fn ask(servers: &Servers, verb: &str, id: &TransactionId, body: &Value) -> Result<(Verdict, Exit), Failure> {
    let path = format!("{}/{verb}", path_of(id));
    let answer = block_on(servers.post(&path, &body.to_string(), REQUEST_TIMEOUT))??;
    if answer.is_success() {
        return Ok((Verdict { id: id.to_string(), taken: true, reason: None }, Exit::Done));
    }
    let failure = failure(&answer);
    Ok((Verdict { id: id.to_string(), taken: false, reason: Some(failure.message) }, failure.exit))
}

fn tell(verb: &str, verdicts: &[Verdict], printer: Printer) -> Result<(), Failure> {
    printer.list(verdicts, || {
        let row = |verdict: &Verdict| {
            let taken = if verdict.taken { "yes" } else { "no" };
            [verdict.id.clone(), taken.to_owned(), verdict.reason.clone().unwrap_or_default()]
        };
        let table = output::table(["transaction", verb, "why not"], verdicts.iter().map(row));
        let taken = verdicts.iter().filter(|verdict| verdict.taken).count();
        match verdicts.len() {
            1 => table,
            all => format!("{table}\n{verb}: {taken} taken, {} not", all - taken),
        }
    })
}

fn stuck(
    server: &ServerAddress,
    which: &Which,
    limit: usize,
) -> Result<Vec<(Box<RawValue>, Shown)>, Failure> {
    let mut found = fetch_list(server, Some(Status::Stuck), limit)?;
    found.retain(|(_, shown)| which.takes(shown));
    Ok(found)
}

fn id_of(shown: &Shown) -> Result<TransactionId, Failure> {
    let wrong = |error| {
        Failure::new(Exit::Unexpected, format_args!("the server's answer is not understood: {error}"))
    };
    shown.id.parse().map_err(wrong)
}

fn stuck_steps(shown: &Shown) -> impl Iterator<Item = &ShownStep> {
    shown.steps.iter().filter(|step| step.phase == "stuck")
}

impl Which {
    fn takes(&self, shown: &Shown) -> bool {
        let definition = shown.definition.as_deref().unwrap_or_default();
        let is_defined = |wanted: &String| {
            wanted == definition || definition.split_once('@').is_some_and(|(name, _)| name == wanted)
        };
        let is_at = |wanted: &String| stuck_steps(shown).any(|step| step.step == *wanted);
        let waits_for =
            |wanted: &String| stuck_steps(shown).any(|step| step.participant.as_ref() == Some(wanted));
        self.definition.as_ref().is_none_or(is_defined)
            && self.step.as_ref().is_none_or(is_at)
            && self.participant.as_ref().is_none_or(waits_for)
    }
}

/// The first words of a reason are what it is; what follows a colon is whom it is about.
fn class_of(reason: &str) -> String {
    reason.split(':').next().unwrap_or_default().trim().to_owned()
}

fn causes(found: &[Shown]) -> Vec<Cause> {
    let mut causes: BTreeMap<[String; 5], Cause> = BTreeMap::new();
    for shown in found {
        for step in stuck_steps(shown) {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let reason = class_of(step.reason.as_deref().unwrap_or_default());
            let key = [
                text(&shown.definition),
                step.called(),
                text(&step.participant),
                text(&step.operation),
                reason.clone(),
            ];
            let [definition, called, participant, operation, _] = key.clone();
            let started = text(&shown.started);
            let cause = causes.entry(key).or_insert_with(|| Cause {
                next: format!(
                    "sagamore retry --stuck --definition {definition} --step {} --reason …",
                    step.step
                ),
                definition,
                step: called,
                participant,
                operation,
                reason,
                count: 0,
                first: started.clone(),
                last: started.clone(),
                sample: shown.id.clone(),
            });
            cause.count += 1;
            cause.first = cause.first.clone().min(started.clone());
            cause.last = cause.last.clone().max(started);
        }
    }
    let mut causes: Vec<Cause> = causes.into_values().collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

fn causes_table(causes: &[Cause]) -> String {
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
    output::table(
        [
            "count",
            "definition",
            "step",
            "participant",
            "operation",
            "reason",
            "first started",
            "last started",
            "sample",
            "next",
        ],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: &str, definition: &str, step: &str, reason: &str, started: &str) -> Shown {
        serde_json::from_value(json!({
            "id": id, "status": "stuck", "definition": definition, "started": started,
            "steps": [
                {"step": "other", "participant": "x", "phase": "done"},
                {"step": step, "participant": "payment", "phase": "stuck", "operation": "compensate", "reason": reason},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn those_alike_are_one_cause() {
        let found = [
            shown("a", "order@1", "charge", "no-account: anna", "2026-11-22T16:00:02Z"),
            shown("b", "order@1", "charge", "no-account: bert", "2026-11-22T16:00:01Z"),
            shown("c", "order@2", "charge", "timeout", "2026-11-22T16:00:03Z"),
        ];
        let causes = causes(&found);
        let told: Vec<_> = causes
            .iter()
            .map(|cause| (cause.count, cause.definition.as_str(), cause.reason.as_str()))
            .collect();
        assert_eq!(told, [(2, "order@1", "no-account"), (1, "order@2", "timeout")]);
        assert_eq!((&*causes[0].first, &*causes[0].last), ("2026-11-22T16:00:01Z", "2026-11-22T16:00:02Z"));
    }

    #[test]
    fn which_ones() {
        let one = shown("a", "order@1", "charge", "no", "");
        let which = |definition: Option<&str>, step: Option<&str>, participant: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Which { definition: own(definition), step: own(step), participant: own(participant) }.takes(&one)
        };
        assert!(which(None, None, None) && which(Some("order"), Some("charge"), Some("payment")));
        assert!(which(Some("order@1"), None, None) && !which(Some("order@2"), None, None));
        assert!(!which(None, Some("other"), None) && !which(None, None, Some("x")));
    }
}

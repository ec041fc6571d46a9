//! `sagamore define`: definitions as files and as they stand in the topic.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use sagamore_decider::definition::check::{Problem, compile};
use sagamore_decider::definition::plan::Plan;
use sagamore_decider::definition::source::{self, Checked, Severity, Source};
use sagamore_schemas::definition::{Definition, DefinitionId};
use sagamore_schemas::ids::Span;
use sagamore_schemas::wire::DefinitionRef;
use serde::Serialize;
use serde_json::value::RawValue;

use super::api::{MaybeServerAddress, ServerAddress, read, servers};
use super::exit::{Exit, Failure, Outcome};
use super::kafka::{KafkaArgs, MaybeKafkaArgs};
use super::output::{self, Printer};
use super::transactions::block_on;
use crate::findings::{Finding, findings};
use crate::site::Site;
use crate::site::apply::{Applied, ApplyError, CommandTopics, apply, id_of};
use crate::site::catalogue::{Catalogue, Entry, NotApplied};
use crate::site::children::judge;

mod diff;
mod graph;

/// What about definitions.
#[derive(Debug, Subcommand)]
pub enum DefineCommand {
    /// Name every problem of files, with its place. What they name is sought among them, and with --kafka among what has
    /// been applied.
    Check(CheckArgs),
    /// Make a definition known to every shard. Once applied, a version never changes.
    Apply(ApplyArgs),
    /// The definitions that have been applied.
    List(ListArgs),
    /// One of them, as it stands in the topic.
    Get(GetArgs),
    /// What changes from one definition to another, in words.
    Diff(DiffArgs),
    /// The steps and what they wait for, as a drawing.
    Graph(GraphArgs),
}

/// Which files.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files, YAML or JSON; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    kafka: MaybeKafkaArgs,
}

/// What to apply, and how long to wait.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// A file, YAML or JSON; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// How long to wait until every shard has it; `0s` does not wait.
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    wait: Span,
    /// How many copies the participants' new command topics get; as many as the inbox, unless told otherwise.
    #[arg(long, value_name = "N")]
    replication: Option<NonZeroU16>,
}

/// Where to look.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    server: MaybeServerAddress,
}

/// Which one.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Its name; without a version the highest.
    #[arg(value_name = "NAME[@V]")]
    definition: DefinitionRef,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What to compare.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A file, or the name of an applied definition.
    #[arg(value_name = "A")]
    before: String,
    /// The same.
    #[arg(value_name = "B")]
    after: String,
    #[command(flatten)]
    kafka: MaybeKafkaArgs,
}

/// What to draw, and how.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// A file, or the name of an applied definition.
    #[arg(value_name = "FILE|NAME[@V]")]
    definition: String,
    /// For which program.
    #[arg(long, value_enum, default_value_t)]
    format: graph::Language,
    #[command(flatten)]
    kafka: MaybeKafkaArgs,
}

/// Runs it.
pub fn run(command: DefineCommand, printer: Printer) -> Outcome {
    match command {
        DefineCommand::Check(args) => check(&args, printer),
        DefineCommand::Apply(args) => {
            let (definition, plan, source) = accepted(&args.file, read_file(&args.file)?)?;
            let site = args.kafka.site()?;
            let (topics, wait) =
                (CommandTopics::Create(args.replication), Duration::from_millis(args.wait.as_ms()));
            let applied = apply(&site, &definition, &plan, topics, wait).map_err(|error| {
                if let ApplyError::Children(problems) = &error {
                    let told =
                        problems.iter().map(|problem| source.report(&args.file, Severity::Error, problem));
                    told.for_each(|text| eprintln!("{text}"));
                    return Failure::new(Exit::CheckNegative, errors_in(&args.file, problems.len()));
                }
                error.into()
            })?;
            if let Some(failure) = not_everywhere(&site, &applied, wait) {
                return Err(failure);
            }
            printer.one(&applied, || applied.to_string())?;
            Ok(Exit::Done)
        }
        DefineCommand::List(args) => list(&args, printer),
        DefineCommand::Get(args) => get(&args, printer),
        DefineCommand::Diff(args) => diff(&args, printer),
        DefineCommand::Graph(args) => {
            let definition = find(&args.definition, &args.kafka)?;
            let plan = compile(&definition).map_err(|problems| not_runnable(&args.definition, &problems))?;
            let drawing = graph::draw(&plan, args.format)
                .map_err(|cause| Failure::new(Exit::Unexpected, format_args!("no picture: {cause}")))?;
            output::print(&drawing)?;
            Ok(Exit::Done)
        }
    }
}

/// One file's findings.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    definition: Option<String>,
    accepted: bool,
    problems: Vec<Finding>,
}

fn check(args: &CheckArgs, printer: Printer) -> Outcome {
    let read = |file: &String| Ok((file.clone(), read_file(file)?));
    let mut all = args.files.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
    judge_together(&mut all, args)?;
    let reports: Vec<Report> = all.iter().map(|(file, checked)| report(file, checked)).collect();
    printer.list(&reports, || {
        let texts = reports.iter().flat_map(|report| {
            let texts = report.problems.iter().map(|problem| problem.text.clone());
            texts.chain(std::iter::once(report.summary()))
        });
        texts.collect::<Vec<_>>().join("\n")
    })?;
    let all_accepted = reports.iter().all(|report| report.accepted);
    Ok(if all_accepted { Exit::Done } else { Exit::CheckNegative })
}

/// What the definitions of the files name: each other, and with a cluster at hand what has been applied there.
fn judge_together(all: &mut [(String, Checked)], args: &CheckArgs) -> Result<(), Failure> {
    let sound = all.iter().filter_map(|(_, checked)| Some(checked.result.as_ref().ok()?.clone()));
    let sound: Vec<(Definition, Plan)> = sound.collect();
    let names_others = sound.iter().any(|(_, plan)| plan.children().next().is_some());
    let catalogue = match args.kafka.given().filter(|_| names_others) {
        Some(kafka) => Catalogue::read(&kafka.site()?)?,
        None => Catalogue::default(),
    };
    let find = |id: &DefinitionId| {
        let among_files = sound
            .iter()
            .map(|(file, _)| file)
            .find(|file| file.name == id.name && file.version == id.version);
        among_files.or_else(|| catalogue.definition(id)).cloned()
    };
    for (_, checked) in all.iter_mut() {
        let Ok((_, plan)) = &checked.result else { continue };
        let problems = judge(plan, find);
        if !problems.is_empty() {
            checked.result = Err(problems);
        }
    }
    Ok(())
}

fn report(file: &str, checked: &Checked) -> Report {
    Report {
        file: file.to_owned(),
        definition: checked.result.as_ref().ok().map(|(definition, _)| id_of(definition)),
        accepted: checked.result.is_ok(),
        problems: findings(file, checked),
    }
}

impl Report {
    fn summary(&self) -> String {
        let errors = self.problems.iter().filter(|problem| problem.severity == "error").count();
        match &self.definition {
            Some(definition) => format!("{}: {definition} is accepted", self.file),
            None => errors_in(&self.file, errors),
        }
    }
}

fn errors_in(file: &str, errors: usize) -> String {
    format!("{file}: {errors} {}", if errors == 1 { "error" } else { "errors" })
}

/// The definition in a file; if it has problems, all of them go to stderr.
pub(super) fn accepted_file(file: &str) -> Result<(Definition, Plan), Failure> {
    accepted(file, read_file(file)?).map(|(definition, plan, _)| (definition, plan))
}

/// The definition of a checked text; if it has problems, all of them go to stderr.
fn accepted(file: &str, checked: Checked) -> Result<(Definition, Plan, Source), Failure> {
    let report = report(file, &checked);
    for problem in &report.problems {
        eprintln!("{}", problem.text);
    }
    let Checked { source, result, .. } = checked;
    let (definition, plan) = result.map_err(|_| Failure::new(Exit::CheckNegative, report.summary()))?;
    Ok((definition, plan, source))
}

/// A definition, and whether anything runs by it.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    /// Open transactions; unknown without a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<u64>,
}

fn list(args: &ListArgs, printer: Printer) -> Outcome {
    let catalogue = Catalogue::read(&args.kafka.site()?)?;
    let open = args.server.given().map(|address| open_by_definition(&address)).transpose()?;
    let entries: Vec<_> = catalogue
        .entries()
        .map(|entry| Listed {
            entry,
            open: open.as_ref().map(|open| open.get(&entry.id()).copied().unwrap_or_default()),
        })
        .collect();
    printer.list(&entries, || {
        let row = |Listed { entry, open }: &Listed<'_>| {
            let open = open.map_or_else(|| "?".to_owned(), |open| open.to_string());
            [entry.id(), entry.offset.to_string(), open, entry.participants().join(", ")]
        };
        output::table(["definition", "offset", "open", "participants"], entries.iter().map(row))
    })?;
    Ok(Exit::Done)
}

#[derive(serde::Deserialize)]
struct OpenByDefinition {
    open: BTreeMap<String, u64>,
}

fn open_by_definition(address: &ServerAddress) -> Result<BTreeMap<String, u64>, Failure> {
    let servers = servers(address)?;
    let told: OpenByDefinition = read(&block_on(servers.get("/v1/definitions"))??)?;
    Ok(told.open)
}

fn get(args: &GetArgs, printer: Printer) -> Outcome {
    let catalogue = Catalogue::read(&args.kafka.site()?)?;
    let entry = catalogue.find(&args.definition)?;
    let document = RawValue::from_string(entry.definition.to_canonical_json())
        .map_err(|error| Failure::new(Exit::Unexpected, error))?;
    // A document has no rows: for people it is YAML.
    printer.one(&document, || output::yaml(&document).unwrap_or_default())?;
    Ok(Exit::Done)
}

fn diff(args: &DiffArgs, printer: Printer) -> Outcome {
    let before = find(&args.before, &args.kafka)?;
    let after = find(&args.after, &args.kafka)?;
    let changes = diff::changes(&before, &after)?;
    if changes.is_empty() {
        eprintln!("{} and {} say the same", args.before, args.after);
    }
    printer.list(&changes, || changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Done)
}

/// A definition from a file of that name, or from the topic.
pub(super) fn find(place: &str, kafka: &MaybeKafkaArgs) -> Result<Definition, Failure> {
    if place == "-" || Path::new(place).exists() {
        return Ok(accepted(place, read_file(place)?)?.0);
    }
    let wanted: DefinitionRef = place.parse().map_err(|_| {
        Failure::new(Exit::NotFound, format_args!("{place}: no such file, and no name of a definition"))
    })?;
    let Some(kafka) = kafka.given() else {
        let message =
            format!("{place}: no such file; to look for a definition of that name, give --kafka HOST:PORT");
        return Err(Failure::usage(message));
    };
    Ok(Catalogue::read(&kafka.site()?)?.find(&wanted)?.definition.clone())
}

fn read_file(file: &str) -> Result<Checked, Failure> {
    let text =
        if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Usage,
        };
        Failure::new(exit, format_args!("{file}: {error}"))
    })?;
    Ok(source::read(&text))
}

fn not_runnable(place: &str, problems: &[Problem]) -> Failure {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Failure::new(Exit::CheckNegative, format_args!("{place}: {}", problems.join("; ")))
}

fn not_everywhere(site: &Site, applied: &Applied, wait: Duration) -> Option<Failure> {
    let lacking = &applied.lacking;
    if lacking.is_empty() {
        return None;
    }
    let partitions: Vec<_> = lacking.iter().map(ToString::to_string).collect();
    let message = format!(
        "{} is written and will be taken over, but the {} of partition {} {} not said so within {} s; is a server \
         running (`sagamore server --kafka {}`), or has that shard halted? Apply again to wait longer",
        applied.definition,
        if lacking.len() == 1 { "shard" } else { "shards" },
        partitions.join(", "),
        if lacking.len() == 1 { "has" } else { "have" },
        wait.as_secs_f32(),
        site.settings.bootstrap(),
    );
    Some(Failure::new(Exit::Timeout, message))
}

impl From<NotApplied> for Failure {
    fn from(error: NotApplied) -> Self {
        Self::new(Exit::NotFound, error)
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Conflict { .. } => Self::new(Exit::Conflict, error),
            ApplyError::Children(_) => Self::new(Exit::CheckNegative, error),
            ApplyError::Lost { .. } => Self::new(Exit::Unexpected, error),
            ApplyError::Site(error) => error.into(),
        }
    }
}

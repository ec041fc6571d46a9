//! `sagamore predict`: the failure model of a definition, as numbers and as a drawing.

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use rdkafka::message::Message as _;
use sagamore_decider::definition::check::compile;
use sagamore_decider::definition::plan::Plan;
use sagamore_schemas::definition::StepKind;
use sagamore_schemas::ids::Span;
use serde::Serialize;

use super::define;
use super::exit::{Exit, Failure, Outcome};
use super::kafka::MaybeKafkaArgs;
use super::output::{self, Printer};
use crate::clock::now;
use crate::predict::journal::{Measured, MeasuredBranch, Observer, Rate};
use crate::predict::model::Model;
use crate::predict::{BranchPrediction, PredictError, Prediction, file, plot, predict, with_attempts};

/// By how much more of the journal is read each time that it was not enough. At first it is as many records of each
/// partition as transactions are wanted: most stand in one.
const JOURNAL_GROWTH: i64 = 8;
/// Most that are read of each partition: half a minute of reading, and more transactions than change a rate.
const JOURNAL_RECORDS_MAX: i64 = 4_000_000;

/// What to predict, and from what.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// A file, or the name of an applied definition.
    #[arg(value_name = "FILE|NAME[@V]")]
    definition: String,
    /// A model, YAML or JSON: `default: {p: 0.99}`, `steps: {charge: {refused: 0.01, latency: 20ms/80ms}}`.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// One step or `step/branch`: `charge:p=0.98,refused=0.01,error=0.005,undo=0.99,latency=20ms/80ms,replicas=2`.
    #[arg(long, value_name = "STEP:NUMBERS")]
    step: Vec<String>,
    /// All other steps, in the same form. Where nothing is said: p=0.999, latency=10ms/50ms, undo=p+refused, the rest 0.
    #[arg(long, value_name = "NUMBERS")]
    default: Option<String>,
    /// Measure success, latency and attempts in the journal; what is said by --model, --step goes before it. Needs --kafka.
    #[arg(long, requires = "kafka")]
    measure: bool,
    /// Measure the newest so many transactions of this version, at most.
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "measure")]
    newest: usize,
    /// Measure what was journalled within this time only.
    #[arg(long, value_name = "DURATION", requires = "measure")]
    since: Option<Span>,
    /// Another deadline than the definition's.
    #[arg(long, value_name = "DURATION")]
    deadline: Option<Span>,
    /// Look for the least deadline by which it commits with this probability; 10 is the exit code when none does.
    #[arg(long, value_name = "PROBABILITY")]
    want: Option<f64>,
    /// Up to how many attempts of each step are compared.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    attempts: u32,
    /// Draw the probability of commit against deadline and attempts.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    kafka: MaybeKafkaArgs,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    definition: String,
    deadline: Span,
    #[serde(flatten)]
    prediction: Prediction,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Measured>,
    attempts: Vec<WithAttempts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    want: Option<Want>,
}

/// What another number of attempts would lead to.
#[derive(Debug, Serialize)]
struct WithAttempts {
    attempts: u32,
    committed: f64,
    commands: f64,
    end_ms: f64,
}

/// What was wanted, and what leads to it.
#[derive(Debug, Serialize)]
struct Want {
    committed: f64,
    /// The least that is enough.
    deadline: Option<Span>,
    /// With no deadline at all.
    at_most: f64,
}

/// Runs it.
pub fn run(args: &PredictArgs, printer: Printer) -> Outcome {
    if let Some(want) = args.want.filter(|want| !(0.0..1.0).contains(want) || *want == 0.0) {
        return Err(Failure::usage(format_args!("--want {want}: a probability between 0 and 1")));
    }
    let mut model = model(args)?;
    let definition = define::find(&args.definition, &args.kafka)?;
    let mut plan = compile(&definition).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Failure::new(Exit::CheckNegative, format_args!("{}: {}", args.definition, problems.join("; ")))
    })?;
    plan.deadline = args.deadline.unwrap_or(plan.deadline);
    let measured = if args.measure { Some(measure(args, &plan)?) } else { None };
    if let Some(measured) = &measured {
        model.measure(&plan, &measured.branches);
        let unsaid = model.unsaid(&plan);
        if !unsaid.is_empty() {
            return Err(Failure::new(
                Exit::CheckNegative,
                format_args!(
                    "of {} nothing was measured in {} transactions of {}@{}: give it by hand, such as --step {}:p=0.99",
                    unsaid.join(", "),
                    measured.transactions,
                    plan.name,
                    plan.version,
                    unsaid[0]
                ),
            ));
        }
    }
    let mut report = report(args, &plan, &model)?;
    report.prediction.notes.extend(measured.iter().flat_map(doubts));
    report.measured = measured;
    if let Some(path) = &args.svg {
        let attempts: Vec<_> = report.attempts.iter().map(|with| (with.attempts, with.committed)).collect();
        let drawing = plot::draw(&report.definition, plan.deadline, &report.prediction, &attempts);
        std::fs::write(path, drawing)
            .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
    }
    printer.one(&report, || table(&report))?;
    let is_hopeless = report.want.as_ref().is_some_and(|want| want.deadline.is_none());
    Ok(if is_hopeless { Exit::CheckNegative } else { Exit::Done })
}

/// What the journal says: its newest part, in growing steps until there are enough transactions in it.
fn measure(args: &PredictArgs, plan: &Plan) -> Result<Measured, Failure> {
    let Some(kafka) = args.kafka.given() else {
        return Err(Failure::usage("--measure: where Kafka is, is said by --kafka HOST:PORT"));
    };
    let site = kafka.site()?;
    let mut records = i64::try_from(args.newest).unwrap_or(i64::MAX).min(JOURNAL_RECORDS_MAX);
    loop {
        let part = match args.since {
            Some(since) => site.journal_since(now().before(since))?,
            None => site.newest_of_journal(records)?,
        };
        let mut observer = Observer::new(plan);
        let bar = ProgressBar::new(part.records());
        let mut unreadable = None;
        site.read_journal(&part, |record| {
            bar.inc(1);
            if let Err(error) = observer.read(record.payload().unwrap_or_default()) {
                unreadable.get_or_insert((record.partition(), record.offset(), error));
            }
        })?;
        bar.finish_and_clear();
        if let Some((partition, offset, error)) = unreadable {
            let message = format!("the journal at {partition}/{offset} is not understood: {error}");
            return Err(Failure::new(Exit::Unexpected, message));
        }
        let is_enough = observer.transactions() >= args.newest || part.is_all || args.since.is_some();
        if is_enough || records >= JOURNAL_RECORDS_MAX {
            return Ok(observer.measured(args.newest));
        }
        records = records.saturating_mul(JOURNAL_GROWTH).min(JOURNAL_RECORDS_MAX);
    }
}

fn doubts(measured: &Measured) -> Vec<String> {
    let counted = format!("measured in {} transactions", measured.transactions);
    let undo = measured.branches.iter().filter(|branch| branch.undo.rate.is_none() && branch.attempts > 0);
    let undo: Vec<_> = undo.map(|branch| branch.name.as_str()).collect();
    let undo = (!undo.is_empty()).then(|| {
        format!(
            "{}: nothing decided was seen asked; unless given, undo is taken as p+refused",
            undo.join(", ")
        )
    });
    let few = measured.branches.iter().filter_map(MeasuredBranch::doubts);
    std::iter::once(counted).chain(few).chain(undo).collect()
}

/// A flag goes before the file, what is said of a step before what is said of all.
fn model(args: &PredictArgs) -> Result<Model, Failure> {
    let mut model = match &args.model {
        None => Model::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let exit = match error.kind() {
                    std::io::ErrorKind::NotFound => Exit::NotFound,
                    _ => Exit::Usage,
                };
                Failure::new(exit, format_args!("{}: {error}", path.display()))
            })?;
            file::read(&text).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?
        }
    };
    for flag in &args.step {
        let Some((step, numbers)) = flag.split_once(':') else {
            return Err(Failure::usage(format_args!(
                "--step {flag}: a step and its numbers, such as charge:p=0.98,latency=20ms"
            )));
        };
        model.say(Some(step), numbers)?;
    }
    if let Some(numbers) = &args.default {
        model.say(None, numbers)?;
    }
    Ok(model)
}

fn report(args: &PredictArgs, plan: &Plan, model: &Model) -> Result<Report, Failure> {
    let prediction = predict(plan, model)?;
    let with = |attempts: u32| {
        let Prediction { committed, commands, end_ms, .. } = predict(&with_attempts(plan, attempts), model)?;
        Ok(WithAttempts { attempts, committed, commands, end_ms })
    };
    let attempts = (1..=args.attempts).map(with).collect::<Result<_, PredictError>>()?;
    let want = args.want.map(|committed| Want {
        committed,
        deadline: prediction.deadline_for(committed),
        at_most: prediction.committed_by(Span::MAX),
    });
    let definition = format!("{}@{}", plan.name, plan.version);
    Ok(Report { definition, deadline: plan.deadline, prediction, measured: None, attempts, want })
}

impl From<PredictError> for Failure {
    fn from(error: PredictError) -> Self {
        Self::usage(error)
    }
}

fn table(report: &Report) -> String {
    let Report { prediction, attempts, want, .. } = report;
    let whole = [
        ["committed".to_owned(), probability(prediction.committed)],
        ["compensated".to_owned(), probability(prediction.compensated)],
        ["aborted".to_owned(), probability(prediction.aborted)],
        ["stuck".to_owned(), probability(prediction.stuck)],
        ["deadline missed".to_owned(), probability(prediction.deadline_missed)],
        ["commands".to_owned(), format!("{:.3}", prediction.commands)],
        ["to the decision".to_owned(), duration(prediction.decision_ms)],
        ["to the end".to_owned(), duration(prediction.end_ms)],
    ];
    let mut parts = vec![
        output::table([&format!("{} within {}", report.definition, report.deadline), ""], whole),
        output::table(
            [
                "branch", "kind", "p", "refused", "error", "undo", "latency", "attempts", "done", "no",
                "unknown", "commands", "mean",
            ],
            prediction.branches.iter().map(row),
        ),
        output::table(
            ["attempts", "committed", "commands", "to the end"],
            attempts.iter().map(|with| {
                [
                    with.attempts.to_string(),
                    probability(with.committed),
                    format!("{:.3}", with.commands),
                    duration(with.end_ms),
                ]
            }),
        ),
    ];
    if let Some(measured) = &report.measured {
        parts.push(measured_table(measured));
    }
    if let Some(Want { committed, deadline, at_most }) = want {
        parts.push(match deadline {
            Some(deadline) => {
                format!("committed with {committed}: a deadline of {deadline} is the least that is enough")
            }
            None => format!(
                "committed with {committed}: no deadline is enough, {} is all there is without one",
                probability(*at_most)
            ),
        });
    }
    parts.extend(prediction.notes.iter().map(|note| format!("note: {note}")));
    parts.join("\n\n")
}

fn measured_table(measured: &Measured) -> String {
    let rate = |rate: &Rate| match rate.rate {
        Some(seen) => format!("{seen:.4} ({:.4}-{:.4})", rate.least, rate.most),
        None => "?".to_owned(),
    };
    let row = |branch: &MeasuredBranch| {
        [
            branch.name.clone(),
            branch.attempts.to_string(),
            rate(&branch.p),
            rate(&branch.refused),
            rate(&branch.error),
            branch.undo_attempts.to_string(),
            rate(&branch.undo),
            branch.latency.map_or_else(|| "?".to_owned(), |latency| latency.to_string()),
        ]
    };
    output::table(
        ["measured", "attempts", "p (95 %)", "refused", "error", "decided", "undo", "latency"],
        measured.branches.iter().map(row),
    )
}

fn row(branch: &BranchPrediction) -> [String; 13] {
    let number = |p: f64| {
        let text = format!("{p:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let kind = match branch.kind {
        StepKind::Compensatable => "compensatable",
        StepKind::Pivot => "pivot",
        StepKind::Retriable => "retriable",
        StepKind::Reserved => "reserved",
    };
    [
        branch.name.clone(),
        kind.to_owned(),
        number(branch.assumed.p),
        number(branch.assumed.refused),
        number(branch.assumed.error),
        number(branch.assumed.undo),
        branch.assumed.latency.to_string(),
        branch.attempts.map_or_else(|| "∞".to_owned(), |attempts| attempts.to_string()),
        probability(branch.done),
        probability(branch.no),
        probability(branch.unknown),
        format!("{:.3}", branch.commands),
        duration(branch.mean_ms),
    ]
}

/// Small ones keep their digits.
fn probability(p: f64) -> String {
    if p != 0.0 && p < 1e-4 { format!("{p:.3e}") } else { format!("{p:.6}") }
}

fn duration(ms: f64) -> String {
    if ms < 10_000.0 { format!("{ms:.1} ms") } else { format!("{:.1} s", ms / 1000.0) }
}

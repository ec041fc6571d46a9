//! `sagamore participant check`: plays coordinator against somebody's participant.

use std::io::IsTerminal as _;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sagamore_kafka::client::ClientSettings;
use sagamore_participant_kit::{
    CheckError, Interrupt, Progress, Protocols, Report, Selection, Settings, Template, Verdict, check,
};
use sagamore_schemas::ids::{Name, Span};
use sagamore_schemas::topics::Prefix;
use uuid::Uuid;

use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Printer};
use super::signals;

/// What is checked, and how.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// How it is started, for `sh -c`. {kafka}, {prefix} and {name} are replaced; they are also the variables
    /// `SAGAMORE_KAFKA`, `SAGAMORE_PREFIX` and `SAGAMORE_NAME`. Left out, one that runs already is checked, and not killed.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// What definitions call it: its commands are in `<prefix>.commands.<name>`.
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// An input that succeeds. {n} in it is a number that differs from transaction to transaction.
    #[arg(long, value_name = "JSON|@FILE")]
    input: String,
    /// An input that the business refuses.
    #[arg(long, value_name = "JSON|@FILE")]
    refused: Option<String>,
    /// The key of a transaction's commands, with {n} as in the input, for a participant that relies on the `key` of its
    /// steps. Left out, the transaction's id.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// What it speaks: saga, two-phase, three-phase (which is two-phase as well), several with commas between, or all.
    #[arg(long, value_name = "PROTOCOLS", default_value = "saga")]
    operations: Protocols,
    /// Prints the state that its effects change, for `sh -c`: a number of effects, or any text. With {subject} or {n} in it,
    /// that of one transaction: then checks run side by side. {kafka}, {prefix} and {name} are replaced, too.
    #[arg(long, value_name = "COMMAND")]
    observe: Option<String>,
    /// Where Kafka is: brokers to begin with, with commas between.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: String,
    /// What the names of the topics begin with: nobody else's. Left out, `check-` and a random word.
    #[arg(long)]
    prefix: Option<Prefix>,
    /// A property of librdkafka, such as `security.protocol=ssl`; in the variable, one per line.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n')]
    kafka_config: Vec<String>,
    /// How many copies the topics get.
    #[arg(long, value_name = "N", default_value = "1")]
    replication: NonZeroU16,
    /// How many checks run side by side.
    #[arg(long, value_name = "N", default_value = "8")]
    workers: NonZeroUsize,
    /// How many keys are used where order and crashes are looked at.
    #[arg(long, value_name = "N", default_value = "8")]
    keys: NonZeroUsize,
    /// How long an answer may take.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: Span,
    /// From a start, or the start after a kill, to the first answer: its group has to miss the killed member first.
    #[arg(long, value_name = "DURATION", default_value = "90s")]
    start_timeout: Span,
    /// How long a vote is left alone before it has to ask.
    #[arg(long, value_name = "DURATION", default_value = "45s")]
    asks_within: Span,
    /// How often it is killed.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// What the moments of the kills follow from; left out, another one in each run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Look at these checks or groups only; with commas between.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these checks or groups out; with commas between.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    skip: Vec<String>,
    /// What it prints is added to this file; left out, one in the folder for temporary files.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Leave the topics there.
    #[arg(long)]
    keep: bool,
}

/// Runs it.
pub fn run(args: &CheckArgs, printer: Printer) -> Outcome {
    let settings = settings(args)?;
    let interrupt = settings.interrupt.clone();
    // Ends with the process; until then it waits for a signal.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || match signals::wait_for_end() {
            Ok(()) => interrupt.set(),
            Err(failure) => tracing::warn!(%failure, "signals end this process at once"),
        })
        .map_err(|error| Failure::new(Exit::Unexpected, format_args!("threads: {error}")))?;
    let bar = progress_bar();
    let checked = check(&settings, &|progress| match progress {
        Progress::Stage(stage) => {
            bar.set_message(stage.to_owned());
            if !std::io::stderr().is_terminal() {
                eprintln!("{stage}");
            }
        }
        Progress::Judged(judged, all) => {
            bar.set_length(all as u64);
            bar.set_position(judged as u64);
        }
    });
    bar.finish_and_clear();
    let report = checked?;
    printer.one(&report, || table(&report))?;
    eprintln!("{}", report.summary());
    if let Some(log) = &report.log {
        eprintln!("what it printed: {log}");
    }
    if !report.observed {
        eprintln!("effects were not seen: --observe lets the kit count them");
    }
    Ok(match report.verdict {
        Verdict::Fail => Exit::CheckNegative,
        Verdict::Pass | Verdict::Skipped => Exit::Done,
    })
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Topics(error) => error.into(),
            CheckError::Kafka { doing, cause } => Self::kafka(doing, "--kafka", &cause),
            CheckError::Occupied { .. } => Self::new(Exit::Conflict, error),
            CheckError::Process { .. } | CheckError::Observe { .. } => Self::usage(error),
            CheckError::Flooded { .. } => Self::new(Exit::CheckNegative, error),
            CheckError::Interrupted => Self::new(Exit::Unexpected, error),
        }
    }
}

fn settings(args: &CheckArgs) -> Result<Settings, Failure> {
    let word = Uuid::new_v4().simple().to_string();
    let prefix = match &args.prefix {
        Some(prefix) => prefix.clone(),
        None => format!("check-{}", &word[..8]).parse().map_err(Failure::usage)?,
    };
    if args.command.is_none() && args.prefix.is_none() {
        return Err(Failure::usage(
            "without --command a participant is checked that runs already: name its --prefix, which must be nobody else's",
        ));
    }
    let overrides = args.kafka_config.iter().map(String::as_str).filter(|text| !text.is_empty());
    let log = args
        .log_file
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("{prefix}-{}.log", args.name)));
    Ok(Settings {
        clients: ClientSettings::new(&args.kafka).with_overrides(overrides)?,
        prefix,
        replication: args.replication,
        participant: args.name.clone(),
        command: args.command.clone().filter(|command| !command.is_empty()),
        observe: args.observe.clone().filter(|command| !command.is_empty()),
        input: template("--input", &args.input)?,
        refused: args.refused.as_deref().map(|text| template("--refused", text)).transpose()?,
        key: args.key.clone().filter(|key| !key.is_empty()),
        protocols: args.operations,
        workers: args.workers,
        keys: args.keys,
        answer_timeout: Duration::from_millis(args.timeout.as_ms()),
        start_timeout: Duration::from_millis(args.start_timeout.as_ms()),
        asks_within: Duration::from_millis(args.asks_within.as_ms()),
        kills: args.kills,
        seed: args.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0),
        log,
        keeps_topics: args.keep,
        selection: Selection::new(named(&args.only), named(&args.skip)).map_err(Failure::usage)?,
        interrupt: Interrupt::default(),
    })
}

/// Without the empty word that an empty variable has.
fn named(words: &[String]) -> impl Iterator<Item = String> {
    words.iter().filter(|word| !word.is_empty()).cloned()
}

fn template(flag: &str, text: &str) -> Result<Template, Failure> {
    let read = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format_args!("{flag}: {file}: {error}")))?,
    };
    read.parse().map_err(|error| Failure::usage(format_args!("{flag}: {error}")))
}

fn progress_bar() -> ProgressBar {
    // Where stderr is no terminal, it draws nothing.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn table(report: &Report) -> String {
    let rows = report.rows.iter().map(|row| {
        let what = match (&row.note, row.verdict) {
            (None, _) => row.promise.to_owned(),
            (Some(note), Verdict::Skipped) => format!("({note})"),
            (Some(note), Verdict::Pass | Verdict::Fail) => format!("{} ({note})", row.promise),
        };
        [row.verdict.as_str().to_owned(), row.id.to_owned(), row.rule.to_string(), what]
    });
    let advice = report.advice();
    let table = output::table(["verdict", "check", "rule", "promise"], rows);
    if advice.is_empty() { table } else { format!("{table}\n\n{advice}") }
}

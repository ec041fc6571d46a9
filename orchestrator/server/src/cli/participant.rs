//! `sagamore participant`: the examples, each a process of its own, and what judges participants.

use std::fs::File;
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use sagamore_examples::{Books, Database, Injection, Kind, Settings, SpawnError, Votes};
use sagamore_participant::{Counters, RuntimeError};
use sagamore_schemas::ids::{Name, Span};
use serde::Serialize;

use super::compare::{self, CompareArgs};
use super::doubt::{self, DoubtCommand};
use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::kafka_only::{self, KafkaOnlyArgs, PointsArgs};
use super::output::{self, Printer};
use super::{participant_check, signals};

/// How often a database that is away is looked for.
const OPENS_EVERY: Duration = Duration::from_millis(500);

/// What is to run.
#[derive(Debug, Subcommand)]
pub enum ParticipantCommand {
    /// Reserves the stock of orders.
    Inventory(ExampleArgs),
    /// Charges customers.
    Payment(ExampleArgs),
    /// Books parcels.
    Shipping(ExampleArgs),
    /// Moves money.
    Bank(ExampleArgs),
    /// Holds the rows that other replicas hold, too.
    Replica(ExampleArgs),
    /// Keeps points of customers, on nothing but Kafka.
    Points(PointsArgs),
    /// The same as replica, on nothing but Kafka: its rows are the topic <prefix>.tables.<name>.
    LogReplica(KafkaOnlyArgs),
    /// Whether replicas are equal, row by row.
    Compare(CompareArgs),
    /// Plays coordinator against a participant in any language, and names the rules it breaks; then the exit code is 10.
    Check(Box<participant_check::CheckArgs>),
    #[command(flatten)]
    Doubt(DoubtCommand),
}

/// What an example does besides its business.
#[derive(Debug, Args)]
pub struct ExampleArgs {
    /// What definitions call it; left out, what it is. So two banks can take part in one transaction.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Threads that do the work.
    #[arg(long, value_name = "N", default_value = "1")]
    workers: NonZeroUsize,
    /// How many transactions of a hundred are refused, whatever they ask.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    refuse_percent: u8,
    /// How many first attempts of a hundred fail technically.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    fail_percent: u8,
    /// How much longer each command takes.
    #[arg(long, value_name = "DURATION", default_value = "0ms")]
    delay: Span,
    /// Which transactions the two above hit: the same in every run of one seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The URL of a database of PostgreSQL to live in, in place of memory, which ends with
    /// the process.
    #[arg(long, value_name = "URL", conflicts_with = "effects")]
    postgres: Option<String>,
    /// replica: a file of SQLite to live in.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["effects", "postgres"])]
    sqlite: Option<PathBuf>,
    /// With --postgres, what a vote of bank or replica is: holds (a row) or prepared (a prepared transaction, XA).
    #[arg(long, value_name = "KIND", default_value_t, requires = "postgres")]
    votes: Votes,
    /// After so long a branch that hears nothing asks for its decision.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    asks_after: Span,
    /// A file that gets one JSON line for each effect.
    #[arg(long, value_name = "FILE")]
    effects: Option<PathBuf>,
    /// inventory: what is on the shelves, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    products: Option<PathBuf>,
    /// payment: every customer's credit.
    #[arg(long, value_name = "CENTS")]
    credit_limit_cents: Option<u64>,
    /// shipping: a country where no carrier goes; in the variable, with commas between.
    #[arg(long, value_name = "COUNTRY", value_delimiter = ',')]
    refuse_country: Option<Vec<String>>,
    /// bank: what every account begins with.
    #[arg(long, value_name = "CENTS")]
    opening_cents: Option<u64>,
}

/// What it did, told at its end.
#[derive(Debug, Serialize)]
struct Report {
    balance: bool,
    books: Books,
    counters: Counters,
}

impl ParticipantCommand {
    /// Whether its log is what people look at.
    pub fn is_long_lived(&self) -> bool {
        !matches!(self, Self::Compare(_) | Self::Check(_) | Self::Doubt(_))
    }
}

/// Runs it until it is told to end.
pub fn run(command: &ParticipantCommand, printer: Printer) -> Outcome {
    match command {
        ParticipantCommand::Inventory(args) => example(Kind::Inventory, args, printer),
        ParticipantCommand::Payment(args) => example(Kind::Payment, args, printer),
        ParticipantCommand::Shipping(args) => example(Kind::Shipping, args, printer),
        ParticipantCommand::Bank(args) => example(Kind::Bank, args, printer),
        ParticipantCommand::Replica(args) => example(Kind::Replica, args, printer),
        ParticipantCommand::Points(args) => kafka_only::points(args, printer),
        ParticipantCommand::LogReplica(args) => kafka_only::log_replica(args, printer),
        ParticipantCommand::Compare(args) => compare::run(args, printer),
        ParticipantCommand::Check(args) => participant_check::run(args, printer),
        ParticipantCommand::Doubt(command) => doubt::run(command, printer),
    }
}

fn example(kind: Kind, args: &ExampleArgs, printer: Printer) -> Outcome {
    let settings = settings(kind, args)?;
    tracing::info!(participant = %settings.runtime.participant, kafka = %args.kafka.kafka, prefix = %args.kafka.prefix, "taking commands");
    let mut interrupted = Ok(());
    let ended = loop {
        let ended = sagamore_examples::run(kind, &settings, |running| {
            interrupted = signals::wait_while(|| running.is_running());
        });
        match ended {
            Err(SpawnError::Open(error)) if error.is_away() => {
                tracing::warn!(%error, "the database is away: looking again");
                thread::sleep(OPENS_EVERY);
            }
            ended => break ended,
        }
    };
    interrupted?;
    let (books, counters) = ended.map_err(|error| failure(&error))?;
    let report = Report { balance: books.balance(), books, counters };
    printer.one(&report, || table(&report))?;
    Ok(Exit::Done)
}

/// Why an example does not run.
pub fn failure(error: &SpawnError) -> Failure {
    let exit = match error {
        SpawnError::Effects { .. }
        | SpawnError::Url(_)
        | SpawnError::Votes(_)
        | SpawnError::NoSqlite(_)
        | SpawnError::NoDatabase => Exit::Usage,
        SpawnError::Open(error) if error.is_away() => Exit::Unreachable,
        SpawnError::Runtime(RuntimeError::Forgotten(_)) => Exit::CheckNegative,
        SpawnError::Open(_) | SpawnError::OpenSqlite(_) | SpawnError::Books(_) | SpawnError::Runtime(_) => {
            Exit::Unexpected
        }
    };
    Failure::new(exit, error)
}

fn settings(kind: Kind, args: &ExampleArgs) -> Result<Settings, Failure> {
    let site = args.kafka.site()?;
    let name = args.name.clone().unwrap_or_else(|| kind.name());
    let runtime = sagamore_participant::Settings {
        workers: args.workers,
        asks_after: Duration::from_millis(args.asks_after.as_ms()),
        ..sagamore_participant::Settings::new(site.settings, site.prefix, name)
    };
    let mut settings = Settings::new(runtime);
    settings.injection = Injection {
        seed: args.seed,
        refuse_percent: args.refuse_percent,
        fail_percent: args.fail_percent,
        delay: Duration::from_millis(args.delay.as_ms()),
    };
    settings.database = match (&args.postgres, &args.sqlite) {
        (Some(url), _) => Some(Database::Postgres { url: url.clone(), votes: args.votes }),
        (None, Some(path)) => Some(Database::Sqlite(path.clone())),
        (None, None) => None,
    };
    settings.effects.clone_from(&args.effects);
    if let Some(file) = &args.products {
        settings.products = read_products(file)?;
    }
    if let Some(limit) = args.credit_limit_cents {
        settings.credit_limit_cents = limit;
    }
    if let Some(countries) = &args.refuse_country {
        settings.refused_countries.clone_from(countries);
    }
    if let Some(cents) = args.opening_cents {
        settings.opening_cents = cents;
    }
    Ok(settings)
}

fn read_products(file: &Path) -> Result<Vec<sagamore_examples::inventory::Product>, Failure> {
    let wrong = |error| Failure::usage(format_args!("{}: {error}", file.display()));
    let lines = BufReader::new(File::open(file).map_err(wrong)?);
    sagamore_examples::inventory::read_products(lines).map_err(wrong)
}

fn table(report: &Report) -> String {
    let Books {
        participant, unit, opening, added, taken, returned, standing, closing, effects, undone, ..
    } = &report.books;
    let numbers =
        [opening, added, taken, returned, standing, closing, effects, undone].map(ToString::to_string);
    let [opening, added, taken, returned, standing, closing, effects, undone] = numbers;
    let balance = if report.balance { "yes" } else { "NO" };
    output::table(
        [
            "participant",
            "unit",
            "opening",
            "added",
            "taken",
            "returned",
            "standing",
            "closing",
            "effects",
            "undone",
            "balance",
        ],
        [[
            (*participant).to_owned(),
            (*unit).to_owned(),
            opening,
            added,
            taken,
            returned,
            standing,
            closing,
            effects,
            undone,
            balance.to_owned(),
        ]],
    )
}

//! `sagamore participant points` and `log-replica`: the examples that have nothing but Kafka.

use std::num::NonZeroU16;
use std::thread;
use std::time::Duration;

use clap::Args;
use sagamore_examples::Injection;
use sagamore_examples::points::{self, PointsSettings};
use sagamore_examples::replica;
use sagamore_participant::{Counters, Handle, KafkaOnlySettings, RuntimeError};
use sagamore_schemas::ids::{Name, Span};
use sagamore_schemas::topics::REPLICATION_LEAST;
use serde::Serialize;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::output::{self, Printer};
use super::signals;

/// How often a participant that has ended by itself is noticed.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// How one runs that has nothing but Kafka.
#[derive(Debug, Args)]
pub struct KafkaOnlyArgs {
    /// What definitions call it.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Copies of the topics it makes.
    #[arg(long, value_name = "N", default_value_t = REPLICATION_LEAST)]
    replication: u16,
    /// Tolerates one broker.
    #[arg(long)]
    development: bool,
    /// How many transactions of a hundred are refused, whatever they ask.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    refuse_percent: u8,
    /// How many first attempts of a hundred fail technically.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    fail_percent: u8,
    /// Which transactions the two above hit: the same in every run of one seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// After so long a branch that hears nothing asks for its decision.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    asks_after: Span,
}

/// Points of customers.
#[derive(Debug, Args)]
pub struct PointsArgs {
    #[command(flatten)]
    runs: KafkaOnlyArgs,
    /// The topic that gets an event for each change of a balance; it must be there.
    #[arg(long, value_name = "TOPIC")]
    events: String,
}

/// What it did, told at its end.
#[derive(Debug, Serialize)]
struct Report {
    counters: Counters,
}

/// Runs the points until they are told to end, or find their topics unfit.
pub fn points(args: &PointsArgs, printer: Printer) -> Outcome {
    let runtime = args.runs.runtime(points::name())?;
    let settings = PointsSettings { runtime, injection: args.runs.injection(), events: args.events.clone() };
    run(points::spawn(&settings), printer)
}

/// The same for a replica that has no database.
pub fn log_replica(args: &KafkaOnlyArgs, printer: Printer) -> Outcome {
    let runtime = args.runtime(replica::name_on_log())?;
    run(replica::spawn_on_log(&runtime, &args.injection()), printer)
}

impl KafkaOnlyArgs {
    fn runtime(&self, name: Name) -> Result<KafkaOnlySettings, Failure> {
        let site = self.kafka.site()?;
        let name = self.name.clone().unwrap_or(name);
        let mut runtime = KafkaOnlySettings::new(site.settings, site.prefix, name);
        runtime.replication = NonZeroU16::new(self.replication)
            .ok_or_else(|| Failure::usage("--replication 0: a topic has one copy at least"))?;
        runtime.is_development = self.development;
        runtime.asks_after = Duration::from_millis(self.asks_after.as_ms());
        Ok(runtime)
    }

    fn injection(&self) -> Injection {
        let Self { seed, refuse_percent, fail_percent, .. } = *self;
        Injection { seed, refuse_percent, fail_percent, ..Injection::default() }
    }
}

fn run(spawned: Result<Handle, RuntimeError>, printer: Printer) -> Outcome {
    let handle = spawned.map_err(failure)?;
    let end = thread::spawn(signals::wait_for_end);
    while handle.is_running() && !end.is_finished() {
        thread::sleep(LOOKS_EVERY);
    }
    handle.stop();
    let counters = handle.join().map_err(failure)?;
    let report = Report { counters };
    printer.one(&report, || table(&report))?;
    Ok(Exit::Done)
}

fn failure(error: RuntimeError) -> Failure {
    let exit = match error {
        RuntimeError::Topics(error) => return error.into(),
        RuntimeError::Unfit(_) | RuntimeError::Forgotten(_) => Exit::CheckNegative,
        RuntimeError::Client(_) | RuntimeError::Thread(_) | RuntimeError::Panicked => Exit::Unexpected,
    };
    Failure::new(exit, error)
}

fn table(Report { counters }: &Report) -> String {
    let numbers =
        [counters.effects, counters.repeated, counters.refusals, counters.batches, counters.dropped];
    output::table(
        ["effects", "repeated", "refused", "Kafka transactions", "taken over again"],
        [numbers.map(|number| number.to_string())],
    )
}

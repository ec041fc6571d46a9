//! `sagamore outbox`: the relay between a service's own PostgreSQL and Kafka.

use std::thread;
use std::time::Duration;

use clap::Args;
use sagamore_outbox::{Counters, Relay, RelayError, Settings, schema::Schema};
use sagamore_schemas::ids::{Name, Span};

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::output::Printer;
use super::signals;

/// Which database, which cluster, and for whom.
#[derive(Debug, Args)]
pub struct OutboxArgs {
    /// The URL of the service's database; a direct connection, not a pooled one.
    #[arg(long, value_name = "URL")]
    postgres: String,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// The schema of tables and functions; made if it is not there.
    #[arg(long, value_name = "NAME", default_value = "sagamore")]
    schema: Schema,
    /// Whose commands are taken into the table; several times, or with commas between. None: an outbox alone.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    participant: Vec<Name>,
    /// What the names of topics begin with that rows of other aggregatetypes go to.
    #[arg(long, value_name = "PREFIX", default_value = "outbox.event")]
    route: String,
    /// How often outbox and commands are looked at while there is nothing.
    #[arg(long, value_name = "DURATION", default_value = "20ms")]
    poll_interval: Span,
    /// After so long a vote that hears nothing asks for its decision.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    asks_after: Span,
}

/// Runs it until it is told to end, and says what it did.
pub fn run(args: OutboxArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let postgres =
        args.postgres.parse().map_err(|error| Failure::usage(format_args!("--postgres: {error}")))?;
    let settings = Settings {
        schema: args.schema,
        prefix: site.prefix,
        route: args.route,
        participants: args.participant,
        poll_interval: Duration::from_millis(args.poll_interval.as_ms()),
        asks_after: Duration::from_millis(args.asks_after.as_ms()),
        ..Settings::new(postgres, site.settings)
    };
    let handle = Relay::spawn(settings).map_err(failure)?;
    let stopper = handle.stopper();
    thread::spawn(move || {
        // Without signals it runs until it is killed, which it bears.
        if let Err(cause) = signals::wait_for_end() {
            tracing::error!(%cause, "SIGTERM will kill it");
            return;
        }
        stopper.stop();
    });
    let counters = handle.join().map_err(failure)?;
    printer.one(&counters, || table(&counters))?;
    Ok(Exit::Done)
}

fn failure(error: RelayError) -> Failure {
    match error {
        RelayError::Instance(error) => error.into(),
        error if error.is_away() => Failure::new(Exit::Unreachable, error),
        error => Failure::new(Exit::Unexpected, error),
    }
}

fn table(counters: &Counters) -> String {
    let Counters { sent, refused, resent, found, opened, repeated, settled, inquiries, .. } = counters;
    format!(
        "{sent} rows sent, {refused} refused, {resent} sent again, {found} found in the inbox; {opened} commands opened, \
         {repeated} repeated, {settled} settled, {inquiries} inquiries"
    )
}

//! What an order saga costs: reserve, charge, book, with an order of 200 bytes, closed loop.
//!
//! ```text
//! cargo run --release -p sagamore-bench -- --in-flight 5000 --count 100000
//! ```
//! Starts its own Kafka (or takes `--kafka`), a server and the participants as processes of their own, and drives them
//! over Kafka. Correctness gate before any number: every order ended once, and ended committed.

mod driver;
mod roles;

use std::error::Error;
use std::io::Read;
use std::num::NonZeroU16;

use clap::{Parser, Subcommand};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_schemas::topics::Prefix;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// A running cluster instead of one of our own.
    #[arg(long, global = true)]
    kafka: Option<String>,
    /// What the names of topics begin with; fresh by default.
    #[arg(long, global = true)]
    prefix: Option<Prefix>,
    /// Orders not yet ended at any moment.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Orders; the first fifth only warms up.
    #[arg(long, default_value_t = 2_000)]
    count: usize,
    /// Shards.
    #[arg(long, default_value_t = NonZeroU16::MIN)]
    partitions: NonZeroU16,
}

#[derive(Subcommand)]
enum Role {
    /// The server alone.
    Server,
    /// The participants alone.
    Participants,
    /// A broker alone, for rounds in turn with another program: prints address and process, ends with its input.
    Broker,
}

fn main() -> Result<(), Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let (own, bootstrap) = if let Some(bootstrap) = &arguments.kafka {
        (None, bootstrap.clone())
    } else {
        let kafka = LocalKafka::start(ClusterSize::One)?;
        let bootstrap = kafka.bootstrap().to_owned();
        (Some(kafka), bootstrap)
    };
    let prefix = match arguments.prefix.clone() {
        Some(prefix) => prefix,
        None => format!("bench-{}", &uuid::Uuid::new_v4().to_string()[..8]).parse()?,
    };
    let kafka = ClientSettings::new(bootstrap);
    match arguments.role {
        Some(Role::Server) => roles::server(kafka, prefix)?,
        Some(Role::Participants) => roles::participants(&kafka, &prefix)?,
        Some(Role::Broker) => {
            let process = own.as_ref().and_then(|own| own.broker_pid(0)).unwrap_or_default();
            println!("{} {process}", kafka.bootstrap());
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        None => {
            let layout = Layout {
                prefix: prefix.clone(),
                partitions: arguments.partitions,
                replication: NonZeroU16::MIN,
            };
            apply(&kafka, &layout)?;
            ensure_command_topics(&kafka, &layout, &roles::participant_names())?;
            let broker = own.as_ref().and_then(|own| own.broker_pid(0));
            driver::run(
                &kafka,
                &prefix,
                i32::from(arguments.partitions.get()),
                arguments.in_flight,
                arguments.count,
                broker,
            )?;
        }
    }
    Ok(())
}

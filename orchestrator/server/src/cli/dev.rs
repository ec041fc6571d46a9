//! `sagamore dev`: a Kafka, a server and the example participants in one process, to play with.
//!
//! ```text
//!   --kafka ┐
//!   local   ├▶ topics ▶ definition ▶ participants ▶ server ▶ "start an order with …" ▶ until SIGINT or SIGTERM
//!   embedded┘
//! ```

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use clap::Args;
use sagamore_decider::definition::source;
use sagamore_decider::owner::Pace;
use sagamore_examples::{Kind, Running, Settings};
use sagamore_kafka::embedded::{self, EmbeddedBroker, EmbeddedError};
use sagamore_kafka::topics::{Layout, apply as apply_topics, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LaunchError, LocalKafka};
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::{Name, Span};
use sagamore_schemas::topics::{Prefix, REPLICATION_LEAST};

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::server::default_lanes;
use super::{participant, signals};
use crate::config::ServerConfig;
use crate::server::Server;
use crate::site::{Site, apply};

/// The order that the example participants understand: the one of the demo, so that both run on one Kafka.
const ORDER: &str = include_str!("../demo/order.json");
/// How long the shards may take to be restored, and to take over the definition.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Where it runs.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// A Kafka that is there already; without it, one is started on this machine and ends with this command.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// What the names of the topics begin with.
    #[arg(long, default_value_t)]
    prefix: Prefix,
    /// A property of librdkafka; in the variable, one per line.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n')]
    kafka_config: Vec<String>,
    /// Where the API listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// How many shards, when the topics are created.
    #[arg(long, value_name = "N", default_value = "4")]
    partitions: NonZeroU16,
    /// A broker inside this process: it needs no JDK, forgets after some hundreds of orders, and proves little.
    #[arg(long, conflicts_with = "kafka")]
    embedded: bool,
}

/// The Kafka it runs on; what was started here ends when this is dropped.
enum Kafka {
    Given,
    Local(#[expect(dead_code, reason = "kept for its end")] LocalKafka),
    Embedded(EmbeddedBroker),
}

/// Runs until it is told to end.
pub fn run(args: &DevArgs) -> Outcome {
    let order = order()?;
    let (kafka, site) = find_kafka(args)?;
    make_topics(&kafka, &site, args.partitions)?;
    let offset = apply::ensure(&site, &order)?;
    let participants = spawn_participants(&site)?;
    let mut server = Server::start(ServerConfig {
        kafka: site.settings.clone(),
        prefix: site.prefix.clone(),
        listen: args.listen,
        advertise: None,
        lanes: default_lanes(),
        development: true,
        view: None,
        check_topics: !matches!(kafka, Kafka::Embedded(_)),
        reply_secret: None,
        snapshot_every: Span::default(),
        pace: Pace::default(),
    })?;
    let is_ready =
        server.wait_ready(READY_TIMEOUT) && site.wait_for_definition(offset, READY_TIMEOUT)?.is_empty();
    if is_ready {
        eprintln!("{}", welcome(&kafka, &site, &server, args));
    } else {
        eprintln!("the shards are not ready after {} s; see the log above", READY_TIMEOUT.as_secs());
    }
    signals::wait_for_end()?;
    eprintln!("stopping");
    server.stop();
    participants.iter().for_each(Running::stop);
    for participant in participants {
        participant.join().map_err(|error| Failure::new(Exit::Unexpected, error))?;
    }
    Ok(Exit::Done)
}

fn order() -> Result<Definition, Failure> {
    match source::read(ORDER).result {
        Ok((definition, _)) => Ok(definition),
        Err(problems) => Err(Failure::new(Exit::Unexpected, format_args!("the sample order: {problems:?}"))),
    }
}

fn find_kafka(args: &DevArgs) -> Result<(Kafka, Site), Failure> {
    let site = |kafka: &str| {
        let kafka_config = args.kafka_config.clone();
        KafkaArgs { kafka: kafka.to_owned(), prefix: args.prefix.clone(), kafka_config }.site()
    };
    if let Some(kafka) = &args.kafka {
        return Ok((Kafka::Given, site(kafka)?));
    }
    if args.embedded {
        eprintln!("{}", embedded::BANNER);
        let broker = EmbeddedBroker::start().map_err(|error| embedded_failure(&error))?;
        let settings = broker.client_settings().map_err(|error| embedded_failure(&error))?;
        let site = Site { settings, prefix: args.prefix.clone() };
        return Ok((Kafka::Embedded(broker), site));
    }
    eprintln!("starting Apache Kafka {} on this machine", sagamore_local_kafka::KAFKA_VERSION);
    let local = LocalKafka::start(ClusterSize::One).map_err(|error| launch_failure(&error))?;
    let site = site(local.bootstrap())?;
    Ok((Kafka::Local(local), site))
}

fn embedded_failure(error: &EmbeddedError) -> Failure {
    Failure::new(Exit::Unexpected, error)
}

fn launch_failure(error: &LaunchError) -> Failure {
    let advice = "or do without it: `sagamore dev --embedded` runs some hundreds of orders on a broker inside the \
                  process, `sagamore dev --kafka HOST:PORT` runs on a Kafka that is there";
    let exit = match error {
        LaunchError::NoJava
        | LaunchError::JavaTooOld { .. }
        | LaunchError::NoMaven
        | LaunchError::NoCache => Exit::Usage,
        LaunchError::Fetch { .. }
        | LaunchError::Io { .. }
        | LaunchError::Format { .. }
        | LaunchError::BrokerEnded { .. }
        | LaunchError::NotReady { .. }
        | LaunchError::NoPorts => Exit::Unexpected,
    };
    Failure::new(exit, format_args!("{error}\n{advice}"))
}

fn make_topics(kafka: &Kafka, site: &Site, partitions: NonZeroU16) -> Result<(), Failure> {
    let participants: Vec<Name> = Kind::OF_AN_ORDER.map(Kind::name).into();
    if let Kafka::Embedded(broker) = kafka {
        let created = broker.create_all_topics(&site.prefix, partitions, &participants);
        return created.map(drop).map_err(|error| embedded_failure(&error));
    }
    let brokers = u16::try_from(site.broker_count()?).unwrap_or(u16::MAX);
    let replication = NonZeroU16::new(brokers.min(REPLICATION_LEAST)).unwrap_or(NonZeroU16::MIN);
    let layout = Layout { prefix: site.prefix.clone(), partitions, replication };
    let made = apply_topics(&site.settings, &layout)?.len();
    let made = made + ensure_command_topics(&site.settings, &layout, &participants)?.len();
    tracing::info!(changes = made, prefix = %site.prefix, "topics are there");
    Ok(())
}

fn spawn_participants(site: &Site) -> Result<Vec<Running>, Failure> {
    let spawn = |kind: Kind| {
        let runtime =
            sagamore_participant::Settings::new(site.settings.clone(), site.prefix.clone(), kind.name());
        sagamore_examples::spawn(kind, &Settings::new(runtime)).map_err(|error| participant::failure(&error))
    };
    Kind::OF_AN_ORDER.into_iter().map(spawn).collect()
}

fn welcome(kafka: &Kafka, site: &Site, server: &Server, args: &DevArgs) -> String {
    let bootstrap = site.settings.bootstrap();
    let kafka = match kafka {
        Kafka::Given => format!("Kafka          {bootstrap}"),
        Kafka::Local(_) => {
            format!("Kafka          {bootstrap}, a broker of this command: it ends with it, and its data too")
        }
        Kafka::Embedded(_) => format!("Kafka          {bootstrap}, inside this process"),
    };
    let address = server.address();
    let flag = if args.listen.to_string() == "127.0.0.1:8088" {
        String::new()
    } else {
        format!(" --server http://{address}")
    };
    format!(
        "
{kafka}
API            http://{address}
participants   inventory, payment, shipping
definition     order@1: reserve, charge, ship

an order that commits, and one that no carrier takes, so that it is compensated:
  sagamore start order --id order-1 --wait{flag} --input '{}'
  sagamore start order --id order-2 --wait{flag} --input '{}'
look at one, or at what is open:
  sagamore get order-1{flag}
  sagamore list{flag}
Ctrl-C ends all of it
",
        sample_input(1, "France"),
        sample_input(2, "Norway"),
    )
}

fn sample_input(order: u32, country: &str) -> String {
    format!(
        r#"{{"order":{order},"customer":"VINET","ship_country":"{country}","total_cents":44000,"lines":[{{"product":11,"quantity":12}}]}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_order_is_one_that_the_sample_inputs_fit() {
        let (_, plan) = source::read(ORDER).result.unwrap();
        let input = serde_json::value::RawValue::from_string(sample_input(1, "France")).unwrap();
        assert_eq!(plan.missing_input(Some(&input)), Vec::<&_>::new());
    }

    #[test]
    fn without_java_it_says_what_to_do() {
        let failure = launch_failure(&LaunchError::NoJava);
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("install a JDK"), "{failure}");
        assert!(failure.message.contains("--embedded"), "{failure}");
    }
}

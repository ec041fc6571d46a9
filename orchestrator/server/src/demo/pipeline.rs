//! The whole pipeline in this process: broker, topics, server, the three examples, the definition.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sagamore_decider::owner::Pace;
use sagamore_examples::inventory::Restock;
use sagamore_examples::payment::CREDIT_LIMIT_CENTS_DEFAULT;
use sagamore_examples::{Books, Kind, Running, spawn};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::embedded::{EmbeddedBroker, fits};
use sagamore_kafka::topics::{Layout, REQUEST_TIMEOUT, TopicsError, apply, ensure_command_topics};
use sagamore_participant::Counters;
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::{Name, Span};
use sagamore_schemas::topics::{Prefix, Topic};
use uuid::Uuid;

use super::DemoError;
use super::drive::Deliveries;
use super::orders::Trade;
use crate::config::ServerConfig;
use crate::server::Server;

/// What is run: reserve, charge, ship.
pub const DEFINITION: &str = include_str!("order.json");
/// Copies of a topic where there are brokers enough.
const REPLICATION_MAX: usize = 3;
/// How long everything may take until the first order can start.
const READY_MAX: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Orders for which the examples' default stock, deliveries and credit are chosen. More orders get more of them.
const ORDERS_TYPICAL: u64 = 830;

/// Where the demo runs.
#[derive(Debug, Clone)]
pub enum Place {
    /// On a broker of its own.
    Embedded,
    /// On a cluster.
    Cluster(ClientSettings),
}

/// A pipeline at work. Dropped, it is stopped.
pub struct Pipeline {
    /// The server.
    pub server: Server,
    /// What wrote the definition, and will write the starts.
    pub producer: BaseProducer<Deliveries>,
    /// How to reach the broker.
    pub kafka: ClientSettings,
    /// What the names of the topics begin with.
    pub prefix: Prefix,
    examples: Vec<Running>,
    /// Last, for the others need it until they have ended.
    _broker: Option<EmbeddedBroker>,
}

/// What an example has done.
#[derive(Debug)]
pub struct Done {
    /// Its books.
    pub books: Books,
    /// Its runtime's counters.
    pub counters: Counters,
}

struct Ground {
    kafka: ClientSettings,
    prefix: Prefix,
    broker: Option<EmbeddedBroker>,
}

impl Pipeline {
    /// Starts everything, and returns when an order can start.
    pub fn start(place: Place, partitions: NonZeroU16, trade: &Trade) -> Result<Self, DemoError> {
        let orders = trade.orders.len() as u64;
        let Ground { kafka, prefix, broker } = match place {
            Place::Embedded => {
                fits(orders, trade.order_bytes(), partitions)?;
                embedded(partitions)?
            }
            Place::Cluster(kafka) => on_cluster(kafka, partitions)?,
        };
        let producer = kafka.client_producer("sagamore-demo").create_with_context(Deliveries::default())?;
        define(&producer, &prefix)?;
        let server = Server::start(ServerConfig {
            kafka: kafka.clone(),
            prefix: prefix.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            lanes: 1,
            development: true,
            view: None,
            check_topics: broker.is_none(),
            reply_secret: None,
            snapshot_every: Span::default(),
            pace: Pace::default(),
        })?;
        let example = |kind: Kind| {
            let runtime = sagamore_participant::Settings::new(kafka.clone(), prefix.clone(), kind.name());
            spawn(kind, &generous(sagamore_examples::Settings::new(runtime), trade))
        };
        let examples = Kind::OF_AN_ORDER.into_iter().map(example).collect::<Result<Vec<_>, _>>()?;
        let pipeline = Self { server, producer, kafka, prefix, examples, _broker: broker };
        pipeline.wait_until_defined()?;
        Ok(pipeline)
    }

    /// Whether every shard runs.
    pub fn is_running(&self) -> bool {
        let partitions = self.server.installation().partitions;
        (0..partitions).all(|partition| self.server.directory().lane_of(partition).is_some())
    }

    /// Stops server and examples gracefully; what the examples have done.
    pub fn stop(&mut self) -> Result<Vec<Done>, DemoError> {
        self.server.stop();
        self.examples.iter().for_each(Running::stop);
        let join = |example: Running| {
            let (books, counters) = example.join()?;
            Ok(Done { books, counters })
        };
        self.examples.drain(..).map(join).collect()
    }

    /// The definition is the only one of a fresh prefix: a shard that has one has it.
    fn wait_until_defined(&self) -> Result<(), DemoError> {
        let begun = Instant::now();
        let count = usize::try_from(self.server.installation().partitions).unwrap_or(usize::MAX);
        loop {
            let shards = self.server.directory().shards();
            if self.is_running()
                && shards.values().filter(|shard| shard.definitions_offset >= 0).count() == count
            {
                return Ok(());
            }
            if begun.elapsed() >= READY_MAX {
                return Err(DemoError::NotReady(READY_MAX));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn participants() -> [Name; 3] {
    Kind::OF_AN_ORDER.map(Kind::name)
}

fn embedded(partitions: NonZeroU16) -> Result<Ground, DemoError> {
    let broker = EmbeddedBroker::start()?;
    let prefix = Prefix::default();
    broker.create_all_topics(&prefix, partitions, &participants())?;
    Ok(Ground { kafka: broker.client_settings()?, prefix, broker: Some(broker) })
}

fn on_cluster(kafka: ClientSettings, partitions: NonZeroU16) -> Result<Ground, DemoError> {
    let [first, second, third, fourth, ..] = *Uuid::new_v4().as_bytes();
    let number = u32::from_be_bytes([first, second, third, fourth]);
    let prefix: Prefix = format!("demo-{number:08x}").parse().unwrap_or_default();
    let layout = Layout { prefix: prefix.clone(), partitions, replication: replication(&kafka)? };
    apply(&kafka, &layout)?;
    ensure_command_topics(&kafka, &layout, &participants())?;
    Ok(Ground { kafka, prefix, broker: None })
}

/// As many copies as there are brokers, up to what production has.
fn replication(kafka: &ClientSettings) -> Result<NonZeroU16, DemoError> {
    let consumer: BaseConsumer = kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
    let metadata = consumer
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .map_err(|cause| TopicsError::Unreachable { bootstrap: kafka.bootstrap().to_owned(), cause })?;
    let copies = metadata.brokers().len().min(REPLICATION_MAX);
    Ok(u16::try_from(copies).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN))
}

/// What `sagamore define apply` does.
fn define(producer: &BaseProducer<Deliveries>, prefix: &Prefix) -> Result<(), DemoError> {
    let definition = Definition::from_json(DEFINITION)
        .unwrap_or_else(|error| unreachable!("the demo's own definition is one: {error}"));
    let (topic, key) =
        (Topic::Definitions.name(prefix), format!("{}@{}", definition.name, definition.version));
    let text = definition.to_canonical_json();
    let record = BaseRecord::to(&topic).partition(0).key(&key).payload(&text);
    producer.send(record).map_err(|(cause, _)| cause)?;
    producer.flush(REQUEST_TIMEOUT)?;
    producer.context().take_error().map_or(Ok(()), |cause| Err(cause.into()))
}

/// The examples' defaults serve most of the typical number of orders; more orders get as much more.
fn generous(mut settings: sagamore_examples::Settings, trade: &Trade) -> sagamore_examples::Settings {
    let orders = (trade.orders.len() as u64).max(ORDERS_TYPICAL);
    let default = Restock::default();
    let deliveries = (u64::from(default.deliveries_max) * orders).div_ceil(ORDERS_TYPICAL);
    settings.restock = Restock { deliveries_max: u32::try_from(deliveries).unwrap_or(u32::MAX), ..default };
    settings.credit_limit_cents = CREDIT_LIMIT_CENTS_DEFAULT * orders / ORDERS_TYPICAL;
    settings.products.clone_from(&trade.products);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_compiles() {
        let definition = Definition::from_json(DEFINITION).unwrap();
        sagamore_decider::definition::check::compile(&definition).unwrap();
    }
}

//! A broker inside the process: librdkafka's mock cluster, for the demo and for tests without Java.
//!
//! It speaks Kafka's protocol over TCP, so clients in other processes can join. What it is not, [`BANNER`] says.
//! It has neither `CreateTopics` nor `DescribeConfigs`: topics are made here, and there is nothing to check.

use std::num::NonZeroU16;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use uuid::Uuid;

use crate::client::{ClientSettings, OverrideError};
use crate::topics::{InstanceError, ensure_instance};

/// What it keeps of a partition, in bytes; older batches vanish.
pub const PARTITION_BYTES_MAX: u64 = 5 * 1024 * 1024;
/// What it keeps of a partition, in batches; with `linger.ms` 0 a batch is often one record.
pub const PARTITION_BATCHES_MAX: u64 = 100_000;
/// Records an order leaves in its fullest topic, the inbox: a start, replies to three commands, their compensations,
/// timers, and some retries.
pub const RECORDS_PER_ORDER: u64 = 10;
/// What the envelope of a record adds to the order it carries, in bytes, with Kafka's own overhead.
pub const ENVELOPE_BYTES: u64 = 700;
/// How much of a partition the estimate may fill, in per cent: ids do not spread evenly.
pub const FILL_PERCENT_MAX: u64 = 75;

/// What a run on the embedded broker does not prove.
pub const BANNER: &str = "\
embedded broker: librdkafka's mock cluster, inside this process
  it keeps 5 MiB or 100,000 batches of a partition, and nothing on disk
  it does not compact, hides no open or aborted Kafka transaction, and fences nobody
  so this run proves nothing about durability, atomicity, takeover or speed: for those, --kafka HOST:PORT";

/// The embedded broker; it ends when dropped.
pub struct EmbeddedBroker {
    /// Owns the mock cluster. Nothing is produced through it.
    producer: BaseProducer,
    bootstrap: String,
}

/// Why the embedded broker does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// librdkafka says no.
    #[error("embedded broker: {0}")]
    Kafka(#[from] KafkaError),
    /// librdkafka made no mock cluster.
    #[error("embedded broker: librdkafka has no mock cluster")]
    NoMockCluster,
    /// The instance could not be written or is contradictory.
    #[error("embedded broker: {0}")]
    Instance(#[from] InstanceError),
    /// A defect: our own overrides are legal.
    #[error("embedded broker: {0}")]
    Override(#[from] OverrideError),
}

/// More orders than the embedded broker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{orders} orders of {order_bytes} bytes are more than the embedded broker keeps ({orders_max} over {partitions} \
     partitions): take fewer, or a real cluster with --kafka HOST:PORT"
)]
pub struct TooMuch {
    /// How many were asked for.
    pub orders: u64,
    /// Their mean size, in bytes.
    pub order_bytes: u64,
    /// How many of that size fit.
    pub orders_max: u64,
    /// Over how many partitions.
    pub partitions: NonZeroU16,
}

/// Whether this many orders of this mean size can run through the embedded broker without its forgetting one.
///
/// # Errors
/// [`TooMuch`], with the number that fits.
pub fn fits(orders: u64, order_bytes: u64, partitions: NonZeroU16) -> Result<(), TooMuch> {
    let bytes_per_order = RECORDS_PER_ORDER.saturating_mul(order_bytes.saturating_add(ENVELOPE_BYTES));
    let per_partition =
        (PARTITION_BYTES_MAX / bytes_per_order).min(PARTITION_BATCHES_MAX / RECORDS_PER_ORDER);
    let orders_max = per_partition * u64::from(partitions.get()) * FILL_PERCENT_MAX / 100;
    if orders <= orders_max { Ok(()) } else { Err(TooMuch { orders, order_bytes, orders_max, partitions }) }
}

impl EmbeddedBroker {
    /// Starts one broker on a free port of the loopback interface.
    pub fn start() -> Result<Self, EmbeddedError> {
        let producer: BaseProducer = ClientConfig::new().set("test.mock.num.brokers", "1").create()?;
        let bootstrap =
            producer.client().mock_cluster().ok_or(EmbeddedError::NoMockCluster)?.bootstrap_servers();
        Ok(Self { producer, bootstrap })
    }

    /// Where it listens, `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Settings of clients that talk to it.
    pub fn client_settings(&self) -> Result<ClientSettings, EmbeddedError> {
        // It does not wake an idle fetch when a record comes: the fetch has to end by itself, and soon.
        Ok(ClientSettings::new(&self.bootstrap).with_overrides(["fetch.wait.max.ms=10"])?)
    }

    /// Creates a topic; there are no settings to give.
    pub fn create_topic(&self, name: &str, partitions: NonZeroU16) -> Result<(), EmbeddedError> {
        Ok(self.mock_cluster()?.create_topic(name, i32::from(partitions.get()), 1)?)
    }

    /// Creates the command topics of these participants.
    pub fn create_command_topics(
        &self,
        prefix: &Prefix,
        shards: NonZeroU16,
        participants: &[Name],
    ) -> Result<(), EmbeddedError> {
        participants
            .iter()
            .try_for_each(|participant| self.create_topic(&command_topic(prefix, participant), shards))
    }

    /// Creates all topics of a prefix and the command topics of these participants, and writes the instance.
    pub fn create_all_topics(
        &self,
        prefix: &Prefix,
        shards: NonZeroU16,
        participants: &[Name],
    ) -> Result<Uuid, EmbeddedError> {
        for topic in Topic::ALL {
            self.create_topic(&topic.name(prefix), topic.partitions(shards))?;
        }
        self.create_command_topics(prefix, shards, participants)?;
        Ok(ensure_instance(&self.client_settings()?, prefix, shards)?)
    }

    fn mock_cluster(&self) -> Result<MockCluster<'_, DefaultProducerContext>, EmbeddedError> {
        self.producer.client().mock_cluster().ok_or(EmbeddedError::NoMockCluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::read_instance;

    fn shards(count: u16) -> NonZeroU16 {
        NonZeroU16::new(count).expect("not 0")
    }

    #[test]
    fn what_fits() {
        assert_eq!(fits(830, 600, shards(4)), Ok(()));
        let too_much = fits(100_000, 600, shards(4)).expect_err("too many");
        assert_eq!(
            too_much.to_string(),
            "100000 orders of 600 bytes are more than the embedded broker keeps (1209 over 4 partitions): take \
             fewer, or a real cluster with --kafka HOST:PORT"
        );
        assert_eq!(fits(too_much.orders_max, 600, shards(4)), Ok(()));
        fits(1, u64::MAX, shards(1)).expect_err("no overflow");
    }

    #[test]
    fn it_starts_with_all_topics_and_an_instance() {
        let broker = EmbeddedBroker::start().expect("starts");
        let prefix = Prefix::default();
        let participants = ["payment".parse().expect("a name")];
        let instance = broker.create_all_topics(&prefix, shards(4), &participants).expect("topics");
        let settings = broker.client_settings().expect("settings");
        let read = read_instance(&settings, &prefix).expect("readable");
        assert_eq!((read.instance, read.partitions), (instance, shards(4)));
        assert_eq!(ensure_instance(&settings, &prefix, shards(4)).expect("again"), instance);
    }
}

//! Why the topics could not be read or written.

use std::time::Duration;

use rdkafka::error::KafkaError;
use sagamore_kafka::topics::{InstanceError, TopicsError};

/// Why the topics could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// What a Kafka client says.
    #[error("cannot {doing} at {bootstrap}: {cause}")]
    Kafka {
        /// What was being done.
        doing: &'static str,
        /// Where.
        bootstrap: String,
        /// What it says.
        cause: KafkaError,
    },
    /// A property of the client is wrong.
    #[error("Kafka client: {0}")]
    Client(KafkaError),
    /// A topic is not there.
    #[error("{0} does not exist: run `sagamore topics apply`")]
    NoTopic(String),
    /// A topic takes too long to be read.
    #[error("{topic} was not read within {} s", .within.as_secs())]
    NotRead {
        /// Which.
        topic: String,
        /// How long it was read.
        within: Duration,
    },
    /// What was written may be there or not.
    #[error("{0}: a write was not acknowledged")]
    NotAcknowledged(String),
    /// The installation is not as it should be.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Topics cannot be created or looked at.
    #[error(transparent)]
    Topics(#[from] TopicsError),
}

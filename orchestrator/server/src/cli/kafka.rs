//! Where Kafka is, as the command line says it.

use clap::Args;
use sagamore_kafka::client::ClientSettings;
use sagamore_schemas::topics::Prefix;

use super::exit::Failure;
use crate::site::Site;

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
pub struct KafkaArgs {
    /// Where Kafka is: brokers to begin with, with commas between.
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: String,
    /// What the names of the topics begin with.
    #[arg(long, default_value_t)]
    pub prefix: Prefix,
    /// A property of librdkafka, such as `security.protocol=ssl`; in the variable, one per line.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n')]
    pub kafka_config: Vec<String>,
}

/// Where Kafka is, for commands that can do without.
#[derive(Debug, Clone, Args)]
pub struct MaybeKafkaArgs {
    /// Where Kafka is: brokers to begin with, with commas between.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// What the names of the topics begin with.
    #[arg(long, default_value_t)]
    prefix: Prefix,
    /// A property of librdkafka, such as `security.protocol=ssl`; in the variable, one per line.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n')]
    kafka_config: Vec<String>,
}

impl MaybeKafkaArgs {
    /// Where it is, when that was said.
    pub fn given(&self) -> Option<KafkaArgs> {
        let Self { kafka, prefix, kafka_config } = self.clone();
        kafka.map(|kafka| KafkaArgs { kafka, prefix, kafka_config })
    }
}

impl KafkaArgs {
    /// The settings, checked.
    pub fn site(&self) -> Result<Site, Failure> {
        let settings = ClientSettings::new(&self.kafka)
            .with_overrides(self.kafka_config.iter().map(String::as_str).filter(|text| !text.is_empty()))?;
        Ok(Site { settings, prefix: self.prefix.clone() })
    }
}

//! The properties of every kind of client, in one place, each with its reason.
//!
//! What stands here differs from librdkafka's default on purpose; everything else is left alone. An operator can
//! override any property but those that a promise rests on ([`PROTECTED`]).

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::crowd::Linger;

/// The largest request a producer of ours sends, in bytes: what a topic accepts is decided by the topic, and a
/// record that is too large for it comes back as an error of the broker with its name on it.
pub const REQUEST_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Outputs a lane may have handed over and not yet seen acknowledged, in records: a second's worth at the peak
/// rate. Credit per destination is the real bound; a refused `send` is the last line.
pub const QUEUED_RECORDS_MAX: u32 = 1_000_000;
/// The same in KiB.
pub const QUEUED_KIBIBYTES_MAX: u32 = 256 * 1024;
/// Commands fetched ahead in each partition of a participant that has nothing but Kafka, in KiB: a few batches.
pub const PARTITION_QUEUE_KIBIBYTES: u32 = 4 * 1024;
/// How long a group waits for a silent member before others take over, in ms: the least a broker allows by default.
pub const SESSION_TIMEOUT_MS: u32 = 6_000;
/// How often a member reports, in ms: survivors learn of a rebalance with their next heartbeat.
pub const HEARTBEAT_INTERVAL_MS: u32 = 300;
/// How long the coordinator waits for a checkpoint before it aborts it, in ms: past the owner's lease of 10 s
/// nobody wants it any more.
pub const TRANSACTION_TIMEOUT_MS: u32 = 10_000;
/// Longest pause between two attempts to connect, in ms: a broker that is back is used again within a second.
pub const RECONNECT_BACKOFF_MAX_MS: u32 = 1_000;

/// Properties that cannot be overridden, with the values that would change nothing, and why.
pub const PROTECTED: &[Protected] = &[
    Protected::never("bootstrap.servers", "the brokers are named by --kafka, for every client alike"),
    Protected::never("metadata.broker.list", "the brokers are named by --kafka, for every client alike"),
    Protected::never("test.mock.num.brokers", "it replaces the cluster by one that keeps nothing"),
    Protected::only("enable.idempotence", &["true"], "without it a retry reorders or doubles outputs"),
    Protected::only("acks", &["all", "-1"], "with fewer, an acknowledged record can be lost with one broker"),
    Protected::only(
        "request.required.acks",
        &["all", "-1"],
        "with fewer, an acknowledged record can be lost",
    ),
    Protected::never(
        "client.rack",
        "inbox and state are read from leaders only: a follower may show an old end",
    ),
    Protected::never("transactional.id", "it fences the former owner of a shard, and follows from the shard"),
    Protected::never("isolation.level", "who reads what is part of the takeover, not of the taste"),
    Protected::never("auto.offset.reset", "a shard whose log was cut must halt, never begin elsewhere"),
    Protected::only("enable.auto.commit", &["false"], "an offset is committed only for finished work"),
    Protected::only("enable.auto.offset.store", &["false"], "an offset is committed only for finished work"),
    Protected::never("group.id", "it follows from --prefix: other groups would own the same shards again"),
    Protected::never("group.instance.id", "all lanes of a server would share it, and fence each other"),
    Protected::only("group.protocol", &["classic"], "the lanes follow the classic protocol's rebalances"),
    Protected::only(
        "partition.assignment.strategy",
        &["cooperative-sticky"],
        "one member with another strategy makes every shard move at each rebalance, or the group fail",
    ),
    Protected::only(
        "enable.partition.eof",
        &["false"],
        "an end of a partition proves nothing and looks like an error",
    ),
    Protected::only("partitioner", &["murmur2_random"], "ids would find two homes, and two decisions"),
    Protected::only(
        "allow.auto.create.topics",
        &["false"],
        "a topic made by chance has none of the settings",
    ),
];

/// A property that a promise rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected {
    /// Its name.
    pub key: &'static str,
    /// Values that are what we set anyway.
    pub harmless: &'static [&'static str],
    /// What it would break.
    pub why: &'static str,
}

impl Protected {
    const fn never(key: &'static str, why: &'static str) -> Self {
        Self { key, harmless: &[], why }
    }

    const fn only(key: &'static str, harmless: &'static [&'static str], why: &'static str) -> Self {
        Self { key, harmless, why }
    }
}

/// Why a text is not a legal override.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// No `=`, or nothing before it.
    #[error("`{text}` is not KEY=VALUE")]
    NotKeyValue {
        /// The text as given.
        text: String,
    },
    /// A property a promise rests on.
    #[error("{key} cannot be overridden: {why}")]
    Protected {
        /// The property.
        key: String,
        /// What it would break.
        why: &'static str,
    },
    /// librdkafka does not know the property, or not that value.
    #[error("{key}: {cause}")]
    Illegal {
        /// The property.
        key: String,
        /// What librdkafka says; without the value where that may be a secret.
        cause: String,
    },
}

/// Where the cluster is, and what an operator wants different.
#[derive(Clone)]
pub struct ClientSettings {
    bootstrap: String,
    overrides: BTreeMap<String, String>,
}

/// Whether records of open and aborted Kafka transactions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed: state and journal.
    ReadCommitted,
    /// Everything: inbox, outcomes and definitions, which are never in a Kafka transaction.
    ReadUncommitted,
}

impl ClientSettings {
    /// Settings without overrides for the cluster at `bootstrap`, `host:port[,host:port]…`.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), overrides: BTreeMap::new() }
    }

    /// Adds overrides of the form `KEY=VALUE`; of two for one key the later one holds.
    pub fn with_overrides<'a>(
        mut self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, OverrideError> {
        for text in texts {
            let (key, value) = parse(text)?;
            self.overrides.insert(key, value);
        }
        Ok(self)
    }

    /// Where the brokers are.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// For the outputs of a lane: commands, outcomes, refusals, timers. By its load the lane decides which to use.
    pub fn lane_output_producer(&self, client_id: &str, linger: Linger) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("client.id", client_id)
            .set("linger.ms", linger.as_ms())
            .set("queue.buffering.max.messages", QUEUED_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUED_KIBIBYTES_MAX.to_string());
        self.finish(config)
    }

    /// For the checkpoints of one shard. A transactional producer is idempotent, too.
    pub fn checkpoint_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("client.id", transactional_id)
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            // CONCURRENT_TRANSACTIONS (markers of the last checkpoint not yet written) is asked again after this;
            // the default of 100 ms is as long as a checkpoint.
            .set("retry.backoff.ms", "1")
            // Delivery is waited for before the commit: lingering only makes checkpoints longer.
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", QUEUED_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUED_KIBIBYTES_MAX.to_string());
        self.finish(config)
    }

    /// For the Kafka transactions of a participant that has nothing but Kafka, one for each partition of its commands.
    pub fn participant_transactions(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.checkpoint_producer(transactional_id);
        // What is emitted to a topic that does not exist has to be told to its command before the Kafka transaction is
        // over; by default it is looked for for 30 s.
        config.set("topic.metadata.propagation.max.ms", "1000");
        self.finish(config)
    }

    /// For the commands of one partition of such a participant, which it assigns itself, from where its own records say.
    /// The group only knows who owns what.
    pub fn participant_partition_consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer(group, Isolation::ReadCommitted);
        config
            // Commands deleted by age are asked for again by the coordinator.
            .set("auto.offset.reset", "earliest")
            // There is one for each partition: the default, 64 MiB, would be many times what a batch needs.
            .set("queued.max.messages.kbytes", PARTITION_QUEUE_KIBIBYTES.to_string());
        self.finish(config)
    }

    /// For the inbox partitions of a lane, in the group of the shard owners.
    pub fn inbox_consumer(&self, group: &str, client_id: &str) -> ClientConfig {
        let mut config = self.consumer(group, Isolation::ReadUncommitted);
        config.set("client.id", client_id);
        member(&mut config);
        self.finish(config)
    }

    /// For reading topics from explicit offsets, in no group: state, journal, outcomes, definitions, an inbox again.
    pub fn replay_consumer(&self, isolation: Isolation) -> ClientConfig {
        // librdkafka assigns nothing without a group id; nobody ever joins or commits under this one.
        self.finish(self.consumer("sagamore.replay", isolation))
    }

    /// For the commands of a participant, in its group.
    pub fn participant_consumer(&self, group: &str, client_id: &str) -> ClientConfig {
        let mut config = self.consumer(group, Isolation::ReadCommitted);
        config
            .set("client.id", client_id)
            // The first instance of a participant may come after its first commands.
            .set("auto.offset.reset", "earliest");
        member(&mut config);
        self.finish(config)
    }

    /// For starts, inquiries, verbs and definitions: anyone who writes to an inbox now and then.
    pub fn client_producer(&self, client_id: &str) -> ClientConfig {
        self.reply_producer(client_id, Linger::None)
    }

    /// For snapshots: off every hot path, large, written once and seldom read, so they are worth compressing.
    pub fn snapshot_producer(&self, client_id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("client.id", client_id).set("linger.ms", "0").set("compression.type", "zstd");
        self.finish(config)
    }

    /// For a participant's replies. By its load the participant decides which to use.
    pub fn reply_producer(&self, client_id: &str, linger: Linger) -> ClientConfig {
        let mut config = self.producer();
        config.set("client.id", client_id).set("linger.ms", linger.as_ms());
        self.finish(config)
    }

    /// For creating and checking topics.
    pub fn admin(&self) -> ClientConfig {
        self.finish(self.any())
    }

    fn any(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MAX_MS.to_string());
        config
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.any();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", REQUEST_BYTES_MAX.to_string())
            // Homes are chosen by our own murmur2 and given explicitly; keys without a partition must agree with it.
            .set("partitioner", "murmur2_random");
        config
    }

    fn consumer(&self, group: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.any();
        config
            .set("group.id", group)
            .set(
                "isolation.level",
                match isolation {
                    Isolation::ReadCommitted => "read_committed",
                    Isolation::ReadUncommitted => "read_uncommitted",
                },
            )
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that is not there any more stops the reader instead of moving it.
            .set("auto.offset.reset", "error")
            // By default a consumer whose queue was full once pauses for a second.
            .set("fetch.queue.backoff.ms", "2");
        config
    }

    /// Overrides come last; those that would break a promise were refused when they were parsed.
    fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.overrides {
            config.set(key, value);
        }
        config
    }
}

/// Values of overrides may be passwords.
impl fmt::Debug for ClientSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientSettings")
            .field("bootstrap", &self.bootstrap)
            .field("overrides", &self.overrides.keys())
            .finish()
    }
}

fn member(config: &mut ClientConfig) {
    config
        // Shards that stay with their owner go on while others move.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", SESSION_TIMEOUT_MS.to_string())
        .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS.to_string());
}

fn parse(text: &str) -> Result<(String, String), OverrideError> {
    let not_key_value = || OverrideError::NotKeyValue { text: text.to_owned() };
    let (key, value) = text.split_once('=').ok_or_else(not_key_value)?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return Err(not_key_value());
    }
    if let Some(protected) = PROTECTED.iter().find(|protected| protected.key == key)
        && !protected.harmless.contains(&value)
    {
        return Err(OverrideError::Protected { key: key.to_owned(), why: protected.why });
    }
    // librdkafka is the one who knows its properties; asked now, a wrong one is told before anything has begun.
    if let Err(error) = ClientConfig::new().set(key, value).create_native_config() {
        return Err(OverrideError::Illegal { key: key.to_owned(), cause: cause_without_secret(key, error) });
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether the value of this property must not be shown: by its name, and rather once too often.
pub fn is_secret(key: &str) -> bool {
    ["password", "secret", "key", "pem", "jaas", "oauthbearer"].iter().any(|part| key.contains(part))
}

fn cause_without_secret(key: &str, error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, cause, _, _) if !is_secret(key) => cause,
        _ => "not a property or value librdkafka takes (or not compiled in)".to_owned(),
    }
}

/// The context of a reader that wants the ends of partitions told: to it an end is no error worth a line. Nor are
/// brokers that are away, of which librdkafka tells at every attempt to connect: whoever reads says so once.
#[derive(Debug, Default, Clone, Copy)]
pub struct EndsAreNoErrors;

impl rdkafka::ClientContext for EndsAreNoErrors {
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
                tracing::debug!(target: "librdkafka", %error, reason);
            }
            _ => tracing::warn!(target: "librdkafka", %error, reason),
        }
    }
}

impl rdkafka::consumer::ConsumerContext for EndsAreNoErrors {}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::{BaseProducer, ThreadedProducer};

    use super::*;

    fn settings(overrides: &[&str]) -> Result<ClientSettings, OverrideError> {
        ClientSettings::new("127.0.0.1:1").with_overrides(overrides.iter().copied())
    }

    #[test]
    fn overrides() {
        let refused = |text: &str| settings(&[text]).expect_err(text).to_string();
        for (text, expected) in [
            ("linger.ms", "`linger.ms` is not KEY=VALUE"),
            ("=5", "`=5` is not KEY=VALUE"),
            ("linger.mss=5", "linger.mss: No such configuration property: \"linger.mss\""),
            (
                "enable.idempotence=false",
                "enable.idempotence cannot be overridden: without it a retry reorders or doubles outputs",
            ),
            (
                "acks=1",
                "acks cannot be overridden: with fewer, an acknowledged record can be lost with one broker",
            ),
        ] {
            assert_eq!(refused(text), expected);
        }
        for key in
            ["isolation.level", "auto.offset.reset", "transactional.id", "group.id", "bootstrap.servers"]
        {
            assert!(refused(&format!("{key}=x")).starts_with(&format!("{key} cannot be overridden")));
        }
        assert!(!refused("sasl.password.x=hunter2").contains("hunter2"));
        settings(&["acks=all", "enable.idempotence=true", "linger.ms=3"]).expect("harmless");
    }

    #[test]
    fn an_override_wins_in_every_role() {
        let settings = settings(&["socket.keepalive.enable=true", "session.timeout.ms=9000"]).expect("legal");
        let member = settings.inbox_consumer("g", "c");
        assert_eq!(member.get("session.timeout.ms"), Some("9000"));
        assert_eq!(settings.admin().get("socket.keepalive.enable"), Some("true"));
    }

    #[test]
    fn nobody_prints_a_password() {
        let settings = settings(&["sasl.password=hunter2"]);
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn librdkafka_takes_every_role() {
        let settings = ClientSettings::new("127.0.0.1:1");
        for linger in [Linger::None, Linger::Crowd] {
            let _: ThreadedProducer<_> =
                settings.lane_output_producer("lane-0", linger).create().expect("lane");
            let _: ThreadedProducer<_> = settings.reply_producer("p", linger).create().expect("replies");
        }
        let _: BaseProducer = settings.checkpoint_producer("sagamore-0").create().expect("checkpoint");
        let _: BaseProducer = settings.client_producer("client").create().expect("client");
        let _: BaseProducer = settings.snapshot_producer("snapshots").create().expect("snapshots");
        let _: BaseConsumer = settings.inbox_consumer("g", "lane-0").create().expect("inbox");
        let _: BaseConsumer = settings.replay_consumer(Isolation::ReadCommitted).create().expect("replay");
        let _: BaseConsumer = settings.participant_consumer("g", "p").create().expect("participant");
    }
}

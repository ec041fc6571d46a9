//! The topics of `sagamore_schemas::topics` on a live cluster.
//!
//! ```text
//!   plan ──▶ changes            nothing is touched
//!   apply ─▶ changes            creates what is missing, alters what is wrong, writes the instance
//!   check ─▶ findings           what the server asks before it runs
//! ```
//!
//! Everything here blocks the caller for at most a few requests' timeouts. What comes back is data; printing it is
//! the caller's. Deliberately absent: growing a topic, moving replicas. Partition counts never change, because they say
//! where a transaction is at home; replicas are moved by Kafka's own tools. Topics are removed only by who has made them
//! for a while: the conformance kit.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, Setting, Topic, command_topic, command_topic_settings};
use serde::Serialize;
use uuid::Uuid;

use crate::client::ClientSettings;
use cluster::{Cluster, ConfigValue, TopicFacts};

mod check;
mod cluster;
mod instance;
mod kafka_only;

pub use check::{Finding, check};
pub use instance::{Instance, InstanceError, ensure_instance, read_instance};
pub use kafka_only::{KafkaOnlyTopics, ensure_kafka_only_topics};

/// How long one request may take, before the cluster counts as unreachable.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a new topic may take until every partition has a leader.
pub const TOPIC_READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at something that is not there yet.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What the topics of one prefix should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What their names begin with.
    pub prefix: Prefix,
    /// How many shards there are: partitions of inbox, state and journal.
    pub partitions: NonZeroU16,
    /// How many copies new topics get.
    pub replication: NonZeroU16,
}

/// One thing `apply` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A topic is missing.
    CreateTopic {
        /// Its name.
        topic: String,
        /// How many partitions it gets.
        partitions: NonZeroU16,
        /// How many copies of each.
        replication: NonZeroU16,
        /// What it is created with.
        settings: BTreeMap<String, String>,
    },
    /// A setting is not acceptable.
    AlterSetting {
        /// The topic.
        topic: String,
        /// Kafka's name of the setting.
        setting: String,
        /// Its value now, if the broker tells one.
        from: Option<String>,
        /// Its value afterwards.
        to: String,
        /// Why it matters.
        reason: String,
    },
    /// Partitions of the state do not say yet to which instance they belong.
    WriteInstance {
        /// The state topic.
        topic: String,
        /// The instance that other partitions have already, or none: then one is drawn.
        instance: Option<Uuid>,
    },
}

/// Why the topics could not be planned, applied or checked.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// No broker answers.
    #[error("no broker answers at {bootstrap}: {cause}")]
    Unreachable {
        /// Where they were looked for.
        bootstrap: String,
        /// What the client says.
        cause: KafkaError,
    },
    /// An existing topic has another partition count. It cannot be changed: it says where transactions are at home.
    #[error(
        "{topic} has {partitions} partitions, not {wanted}. The count can never be changed, for it says where a \
         transaction is at home: give --partitions as it is, or apply under another --prefix"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: usize,
        /// How many were asked for.
        wanted: NonZeroU16,
    },
    /// The broker refused to create a topic.
    #[error("cannot create {topic}: {cause}")]
    Create {
        /// The topic.
        topic: String,
        /// What the broker says.
        cause: RDKafkaErrorCode,
    },
    /// The broker refused to alter a topic.
    #[error("cannot alter {topic}: {cause}")]
    Alter {
        /// The topic.
        topic: String,
        /// What the broker says.
        cause: RDKafkaErrorCode,
    },
    /// The broker does not show the settings of a topic or of itself.
    #[error("cannot read the settings of {resource}: {cause}")]
    Describe {
        /// Topic or broker.
        resource: String,
        /// What the broker says.
        cause: RDKafkaErrorCode,
    },
    /// The broker refused to remove a topic.
    #[error("cannot remove {topic}: {cause}")]
    Remove {
        /// The topic.
        topic: String,
        /// What the broker says.
        cause: RDKafkaErrorCode,
    },
    /// A request was not answered, or the client is misconfigured.
    #[error("cannot {action}: {cause}")]
    Request {
        /// What was asked for.
        action: &'static str,
        /// What the client says.
        cause: KafkaError,
    },
    /// Created topics did not get leaders in time.
    #[error("no leader for every partition of {topic} within {} s", TOPIC_READY_TIMEOUT.as_secs())]
    NotReady {
        /// The first such topic.
        topic: String,
    },
    /// The instance in the state is contradictory or unreadable.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl TopicsError {
    /// Whether a broker did not answer, which says nothing about the topics: the next try may go well.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotReady { .. } => true,
            Self::Create { cause, .. }
            | Self::Alter { cause, .. }
            | Self::Remove { cause, .. }
            | Self::Describe { cause, .. } => SILENCE.contains(cause),
            Self::Request { cause, .. } => is_silent(cause),
            Self::Instance(error) => error.is_silence(),
            Self::PartitionCount { .. } => false,
        }
    }
}

/// What a client says of a broker that has said nothing.
const SILENCE: [RDKafkaErrorCode; 5] = [
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::RequestTimedOut,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::Resolve,
];

fn is_silent(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| SILENCE.contains(&code))
}

/// What [`apply`] would do to the topics of a layout.
///
/// # Errors
/// [`TopicsError::PartitionCount`] when a topic exists with another count than its homes need.
pub fn plan(settings: &ClientSettings, layout: &Layout) -> Result<Vec<Change>, TopicsError> {
    let cluster = Cluster::connect(settings)?;
    let mut changes = plan_topics(&cluster, &own_topics(layout), layout.replication)?;
    changes.extend(instance::plan(&cluster, settings, layout)?);
    Ok(changes)
}

/// Creates what is missing, alters what is not acceptable, writes the instance; returns what was done.
/// A second call does nothing.
///
/// # Errors
/// As [`plan`]; and what the brokers refuse. What was done before an error stays done: call it again.
pub fn apply(settings: &ClientSettings, layout: &Layout) -> Result<Vec<Change>, TopicsError> {
    let cluster = Cluster::connect(settings)?;
    // Planned in full first, so that a contradiction is found before anything is touched.
    let mut changes = plan_topics(&cluster, &own_topics(layout), layout.replication)?;
    changes.extend(instance::plan(&cluster, settings, layout)?);
    carry_out(&cluster, &changes)?;
    let instance = ensure_instance(settings, &layout.prefix, layout.partitions)?;
    for change in &mut changes {
        if let Change::WriteInstance { instance: written, .. } = change {
            *written = Some(instance);
        }
    }
    Ok(changes)
}

/// Creates the command topics of these participants where they are missing, and alters what is not acceptable.
/// The partition count of an existing one is left as it is.
pub fn ensure_command_topics(
    settings: &ClientSettings,
    layout: &Layout,
    participants: &[Name],
) -> Result<Vec<Change>, TopicsError> {
    ensure_topics(settings, layout, &[], participants)
}

/// The same, and some of our own topics: what is enough for somebody who only plays the coordinator.
pub fn ensure_topics(
    settings: &ClientSettings,
    layout: &Layout,
    own: &[Topic],
    participants: &[Name],
) -> Result<Vec<Change>, TopicsError> {
    let cluster = Cluster::connect(settings)?;
    let commands = participants.iter().map(|participant| WantedTopic {
        name: command_topic(&layout.prefix, participant),
        partitions: layout.partitions,
        partitions_are_fixed: false,
        settings: command_topic_settings(),
    });
    let wanted: Vec<_> = own.iter().map(|topic| own_topic(layout, *topic)).chain(commands).collect();
    let changes = plan_topics(&cluster, &wanted, layout.replication)?;
    carry_out(&cluster, &changes)?;
    Ok(changes)
}

/// Creates one topic that is none of ours, and waits until each partition has a leader.
pub fn create_topic(
    settings: &ClientSettings,
    name: &str,
    partitions: NonZeroU16,
    replication: NonZeroU16,
    with: &BTreeMap<String, String>,
) -> Result<(), TopicsError> {
    let cluster = Cluster::connect(settings)?;
    cluster.create(name, partitions, replication, with)?;
    wait_until_ready(&cluster, &[(name, usize::from(partitions.get()))])
}

/// What a broker says of its settings; without those that it keeps to itself.
pub fn broker_settings(settings: &ClientSettings, id: i32) -> Result<BTreeMap<String, String>, TopicsError> {
    let config = Cluster::connect(settings)?.broker_config(id)?;
    Ok(config.into_iter().filter_map(|(key, entry)| Some((key, entry.value?))).collect())
}

/// The names of all topics there are.
pub fn present_topics(settings: &ClientSettings) -> Result<BTreeSet<String>, TopicsError> {
    Ok(Cluster::connect(settings)?.topics()?.into_keys().collect())
}

/// Removes topics, and all that stands in them. One that is not there is fine.
pub fn remove_topics(settings: &ClientSettings, names: &[String]) -> Result<(), TopicsError> {
    Cluster::connect(settings)?.remove(names)
}

/// A row of the table, for one prefix.
struct WantedTopic {
    name: String,
    partitions: NonZeroU16,
    partitions_are_fixed: bool,
    settings: Vec<Setting>,
}

fn own_topics(layout: &Layout) -> Vec<WantedTopic> {
    Topic::ALL.map(|topic| own_topic(layout, topic)).into()
}

fn own_topic(layout: &Layout, topic: Topic) -> WantedTopic {
    WantedTopic {
        name: topic.name(&layout.prefix),
        partitions: topic.partitions(layout.partitions),
        partitions_are_fixed: topic.partitions_are_fixed(),
        settings: topic.settings(),
    }
}

fn plan_topics(
    cluster: &Cluster,
    wanted: &[WantedTopic],
    replication: NonZeroU16,
) -> Result<Vec<Change>, TopicsError> {
    let present = cluster.topics()?;
    let names: Vec<&str> =
        wanted.iter().map(|topic| topic.name.as_str()).filter(|name| present.contains_key(*name)).collect();
    let configs = cluster.topic_configs(&names)?;
    let mut changes = Vec::new();
    for topic in wanted {
        let Some(facts) = present.get(&topic.name) else {
            changes.push(creation(topic, replication));
            continue;
        };
        if topic.partitions_are_fixed && facts.partitions != usize::from(topic.partitions.get()) {
            return Err(TopicsError::PartitionCount {
                topic: topic.name.clone(),
                partitions: facts.partitions,
                wanted: topic.partitions,
            });
        }
        changes.extend(alterations(topic, *facts, configs.get(&topic.name)));
    }
    Ok(changes)
}

fn creation(topic: &WantedTopic, replication: NonZeroU16) -> Change {
    let value = |setting: &Setting| (setting.key.to_owned(), setting.value_for(replication));
    Change::CreateTopic {
        topic: topic.name.clone(),
        partitions: topic.partitions,
        replication,
        settings: topic.settings.iter().map(value).collect(),
    }
}

fn alterations(
    topic: &WantedTopic,
    facts: TopicFacts,
    config: Option<&BTreeMap<String, ConfigValue>>,
) -> Vec<Change> {
    let present = |key: &str| config.and_then(|config| config.get(key)).and_then(|entry| entry.value.clone());
    let change = |setting: &Setting| {
        let from = present(setting.key);
        let to = setting.value_for(facts.replication);
        let is_good = from.as_ref().is_some_and(|value| setting.accepts.allows(value) || *value == to);
        (!is_good).then(|| Change::AlterSetting {
            topic: topic.name.clone(),
            setting: setting.key.to_owned(),
            from,
            to,
            reason: setting.reason.to_owned(),
        })
    };
    topic.settings.iter().filter_map(change).collect()
}

fn carry_out(cluster: &Cluster, changes: &[Change]) -> Result<(), TopicsError> {
    let mut created = Vec::new();
    let mut altered: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for change in changes {
        match change {
            Change::CreateTopic { topic, partitions, replication, settings } => {
                cluster.create(topic, *partitions, *replication, settings)?;
                created.push((topic.as_str(), usize::from(partitions.get())));
            }
            Change::AlterSetting { topic, setting, to, .. } => {
                altered.entry(topic).or_default().insert(setting, to);
            }
            // Written by `ensure_instance`, once the state topic is there.
            Change::WriteInstance { .. } => {}
        }
    }
    for (topic, settings) in altered {
        cluster.alter(topic, &settings)?;
    }
    wait_until_ready(cluster, &created)
}

/// A topic is created when the controller says so, and usable when the brokers know it.
fn wait_until_ready(cluster: &Cluster, created: &[(&str, usize)]) -> Result<(), TopicsError> {
    let deadline = Instant::now() + TOPIC_READY_TIMEOUT;
    loop {
        let present = cluster.topics()?;
        let is_ready = |name: &str, partitions: usize| {
            present.get(name).is_some_and(|facts| facts.partitions == partitions && facts.has_leaders)
        };
        let Some((topic, _)) = created.iter().find(|(name, partitions)| !is_ready(name, *partitions)) else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            return Err(TopicsError::NotReady { topic: (*topic).to_owned() });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

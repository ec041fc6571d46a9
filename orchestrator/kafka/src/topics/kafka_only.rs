//! The topics of a participant that has nothing but Kafka: made where they are missing, checked where they are there.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{KafkaOnlyTopic, Prefix, Severity, command_topic};

use super::check::{Finding, Shards, broker_findings, topic_findings};
use super::cluster::Cluster;
use super::{Change, TopicsError, WantedTopic, carry_out, creation};
use crate::client::ClientSettings;

/// What was found, and made.
#[derive(Debug)]
pub struct KafkaOnlyTopics {
    /// How many partitions commands and the participant's own topics have.
    pub partitions: NonZeroU16,
    /// Topics that were made.
    pub changes: Vec<Change>,
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
}

/// Makes the topics of a participant that are missing, with as many partitions as its command topic, and looks at those
/// that are there and at the brokers. `None`: there is no command topic yet, and so no count. What exists is not altered:
/// it is the operator's.
pub fn ensure_kafka_only_topics(
    settings: &ClientSettings,
    prefix: &Prefix,
    participant: &Name,
    replication: NonZeroU16,
) -> Result<Option<KafkaOnlyTopics>, TopicsError> {
    let cluster = Cluster::connect(settings)?;
    let present = cluster.topics()?;
    let commands = present.get(&command_topic(prefix, participant));
    let partitions =
        commands.and_then(|facts| u16::try_from(facts.partitions).ok()).and_then(NonZeroU16::new);
    let Some(partitions) = partitions else { return Ok(None) };
    let wanted = KafkaOnlyTopic::ALL.map(|topic| WantedTopic {
        name: topic.name(prefix, participant),
        partitions,
        partitions_are_fixed: true,
        settings: topic.settings(),
    });
    let missing = wanted.iter().filter(|topic| !present.contains_key(&topic.name));
    let changes: Vec<Change> = missing.map(|topic| creation(topic, replication)).collect();
    carry_out(&cluster, &changes)?;

    let present = cluster.topics()?;
    let names: Vec<&str> = wanted.iter().map(|topic| topic.name.as_str()).collect();
    let configs = cluster.topic_configs(&names)?;
    let count = Shards {
        count: partitions,
        told_by: "as the command topic",
        remedy: "a count can never be changed, for it says where a row is: give the command topic its former count back",
    };
    let mut findings = Vec::new();
    for topic in &wanted {
        let Some(facts) = present.get(&topic.name) else {
            return Err(TopicsError::NotReady { topic: topic.name.clone() });
        };
        findings
            .extend(topic_findings(topic, *facts, configs.get(&topic.name), count).into_iter().map(as_owner));
    }
    for id in cluster.brokers()? {
        findings.extend(broker_findings(id, &cluster.broker_config(id)?, &present));
    }
    findings.sort_by_key(|finding| finding.severity);
    Ok(Some(KafkaOnlyTopics { partitions, changes, findings }))
}

/// The finding in the words of who has to act on it: `topics apply` does not know these topics.
fn as_owner(mut finding: Finding) -> Finding {
    if finding.setting == "partitions" {
        "partition p of commands, memory, table and replies belong together".clone_into(&mut finding.reason);
    } else if finding.setting != "replication" {
        finding.remedy = format!("set it with kafka-configs --alter --topic {}", finding.topic);
    }
    finding
}

impl KafkaOnlyTopics {
    /// What forbids to run.
    pub fn forbidding(&self, is_development: bool) -> BTreeMap<String, String> {
        let forbids = |finding: &&Finding| match finding.severity {
            Severity::BreaksAPromise => true,
            Severity::DevelopmentOnly => !is_development,
            Severity::Advice => false,
        };
        let told = |finding: &Finding| {
            let Finding { topic, setting, value, wanted, reason, remedy, .. } = finding;
            (format!("{topic} {setting}"), format!("{value}, not {wanted}: {reason}; {remedy}"))
        };
        self.findings.iter().filter(forbids).map(told).collect()
    }
}

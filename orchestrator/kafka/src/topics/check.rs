//! What is wrong with the topics and brokers, and what to do about it.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use sagamore_schemas::topics::{
    IN_SYNC_LEAST, Prefix, REPLICATION_LEAST, Setting, Severity, Topic, command_topic_settings,
};
use serde::Serialize;

use super::cluster::{Cluster, ConfigValue, TopicFacts};
use super::instance::{Instance, InstanceError, read_instance};
use super::{TopicsError, WantedTopic};
use crate::client::ClientSettings;

/// Kafka's topic of the Kafka transactions: where the fencing of former owners is remembered.
const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The topic, or `broker 1`.
    pub topic: String,
    /// Kafka's name of the setting, or `partitions`, `replication`, `instance`, `topic`.
    pub setting: String,
    /// What it is.
    pub value: String,
    /// What it should be.
    pub wanted: String,
    /// Why it matters.
    pub reason: String,
    /// What to do.
    pub remedy: String,
    /// What follows from it.
    pub severity: Severity,
}

/// Looks at all topics of a prefix, command topics included, and at the brokers. Nothing found: an empty list.
/// Sorted by severity, the worst first.
pub fn check(settings: &ClientSettings, prefix: &Prefix) -> Result<Vec<Finding>, TopicsError> {
    let cluster = Cluster::connect(settings)?;
    let present = cluster.topics()?;
    let mut findings = Vec::new();

    let instance = read_instance(settings, prefix);
    let shards = Shards::of(prefix, &present, instance.as_ref().ok());
    let wanted = wanted_topics(prefix, &present, shards.count);
    let names: Vec<&str> =
        wanted.iter().map(|topic| topic.name.as_str()).filter(|name| present.contains_key(*name)).collect();
    let configs = cluster.topic_configs(&names)?;
    for topic in &wanted {
        match present.get(&topic.name) {
            None => findings.push(missing(&topic.name)),
            Some(facts) => findings.extend(topic_findings(topic, *facts, configs.get(&topic.name), shards)),
        }
    }
    findings.extend(instance_finding(instance)?);
    for id in cluster.brokers()? {
        findings.extend(broker_findings(id, &cluster.broker_config(id)?, &present));
    }
    findings.extend(transaction_state_finding(&present));
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

/// How many shards there are, and who says so.
#[derive(Clone, Copy)]
pub(super) struct Shards {
    pub(super) count: NonZeroU16,
    pub(super) told_by: &'static str,
    pub(super) remedy: &'static str,
}

impl Shards {
    /// The instance in the state says it for ever. Before there is one the inbox does, and the others go with it.
    fn of(prefix: &Prefix, present: &BTreeMap<String, TopicFacts>, instance: Option<&Instance>) -> Self {
        if let Some(instance) = instance {
            return Self {
                count: instance.partitions,
                told_by: "as the instance was written for",
                remedy: "a count can never be changed: restore the topic as it was, or apply under another --prefix",
            };
        }
        let inbox = present.get(&Topic::Inbox.name(prefix));
        let count = inbox.and_then(|facts| u16::try_from(facts.partitions).ok()).and_then(NonZeroU16::new);
        Self {
            count: count.unwrap_or(NonZeroU16::MIN),
            told_by: "to go with the inbox",
            remedy: "counts cannot be changed: apply under another --prefix, or delete the topic if it is new and empty",
        }
    }
}

fn wanted_topics(
    prefix: &Prefix,
    present: &BTreeMap<String, TopicFacts>,
    shards: NonZeroU16,
) -> Vec<WantedTopic> {
    let layout = super::Layout { prefix: prefix.clone(), partitions: shards, replication: NonZeroU16::MIN };
    let mut wanted = super::own_topics(&layout);
    let commands = format!("{prefix}.commands.");
    wanted.extend(present.keys().filter(|name| name.starts_with(&commands)).map(|name| WantedTopic {
        name: name.clone(),
        partitions: shards,
        partitions_are_fixed: false,
        settings: command_topic_settings(),
    }));
    wanted
}

fn missing(topic: &str) -> Finding {
    Finding {
        topic: topic.to_owned(),
        setting: "topic".to_owned(),
        value: "missing".to_owned(),
        wanted: "present".to_owned(),
        reason: "a shard needs all of its topics".to_owned(),
        remedy: "sagamore topics apply".to_owned(),
        severity: Severity::BreaksAPromise,
    }
}

pub(super) fn topic_findings(
    topic: &WantedTopic,
    facts: TopicFacts,
    config: Option<&BTreeMap<String, ConfigValue>>,
    shards: Shards,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if topic.partitions_are_fixed && facts.partitions != usize::from(topic.partitions.get()) {
        findings.push(Finding {
            topic: topic.name.clone(),
            setting: "partitions".to_owned(),
            value: facts.partitions.to_string(),
            wanted: format!("{}, {}", topic.partitions, shards.told_by),
            reason: "partition k of inbox, state and journal are one shard; definitions have one order"
                .to_owned(),
            remedy: shards.remedy.to_owned(),
            severity: Severity::BreaksAPromise,
        });
    }
    findings.extend(replication_finding(&topic.name, facts.replication));
    for setting in &topic.settings {
        let value =
            config.and_then(|config| config.get(setting.key)).and_then(|entry| entry.value.as_deref());
        if !value.is_some_and(|value| setting.accepts.allows(value)) {
            findings.push(setting_finding(&topic.name, setting, value, facts.replication));
        }
    }
    findings
}

fn setting_finding(topic: &str, setting: &Setting, value: Option<&str>, replication: NonZeroU16) -> Finding {
    let apply_would_do = setting.accepts.allows(&setting.value_for(replication));
    let remedy = if apply_would_do {
        "sagamore topics apply".to_owned()
    } else {
        format!("replication {REPLICATION_LEAST} first, then sagamore topics apply")
    };
    Finding {
        topic: topic.to_owned(),
        setting: setting.key.to_owned(),
        value: value.unwrap_or("unknown").to_owned(),
        wanted: setting.accepts.to_string(),
        reason: setting.reason.to_owned(),
        remedy,
        severity: setting.severity,
    }
}

fn replication_finding(topic: &str, replication: NonZeroU16) -> Option<Finding> {
    (replication.get() < REPLICATION_LEAST).then(|| Finding {
        topic: topic.to_owned(),
        setting: "replication".to_owned(),
        value: replication.to_string(),
        wanted: format!("at least {REPLICATION_LEAST}"),
        reason: "with fewer copies, one lost disk takes acknowledged records with it, or stops the writing"
            .to_owned(),
        remedy: "move the partitions to more brokers with kafka-reassign-partitions".to_owned(),
        severity: Severity::DevelopmentOnly,
    })
}

fn instance_finding(instance: Result<Instance, InstanceError>) -> Result<Option<Finding>, TopicsError> {
    let (topic, value, remedy) = match instance {
        // A missing topic is a finding of its own.
        Ok(_) | Err(InstanceError::NoTopic { .. }) => return Ok(None),
        Err(InstanceError::Missing { topic, partitions }) => {
            let partitions: Vec<_> = partitions.iter().map(ToString::to_string).collect();
            (topic, format!("missing in {}", partitions.join(", ")), "sagamore topics apply")
        }
        Err(InstanceError::Contradiction { topic, detail }) => {
            (topic, detail, "apply under another --prefix, or restore the topic")
        }
        Err(error @ (InstanceError::Kafka { .. } | InstanceError::Timeout { .. })) => {
            return Err(error.into());
        }
    };
    Ok(Some(Finding {
        topic,
        setting: "instance".to_owned(),
        value,
        wanted: "one instance in every partition".to_owned(),
        reason: "participants tell two lives of the same topics apart by it".to_owned(),
        remedy: remedy.to_owned(),
        severity: Severity::BreaksAPromise,
    }))
}

pub(super) fn broker_findings(
    id: i32,
    config: &BTreeMap<String, ConfigValue>,
    present: &BTreeMap<String, TopicFacts>,
) -> Vec<Finding> {
    let value = |key: &str| config.get(key).and_then(|entry| entry.value.as_deref());
    let finding = |key: &str, wanted: &str, reason: &str, severity: Severity| Finding {
        topic: format!("broker {id}"),
        setting: key.to_owned(),
        value: value(key).unwrap_or("unknown").to_owned(),
        wanted: wanted.to_owned(),
        reason: reason.to_owned(),
        remedy: format!("set {key} in the broker's properties, or with kafka-configs --entity-type brokers"),
        severity,
    };
    let mut findings = Vec::new();
    let verification = "transaction.partition.verification.enable";
    // A broker too old to know the setting does not verify.
    if value(verification) != Some("true") {
        findings.push(finding(
            verification,
            "true",
            "without it a late record of a fenced owner leaves an open Kafka transaction behind, for ever",
            Severity::BreaksAPromise,
        ));
    }
    let is_small = |key: &str, least: u16| {
        value(key).and_then(|value| value.parse::<u16>().ok()).is_some_and(|value| value < least)
    };
    let copies = "transaction.state.log.replication.factor";
    if !present.contains_key(TRANSACTION_STATE_TOPIC) && is_small(copies, REPLICATION_LEAST) {
        findings.push(finding(
            copies,
            "at least 3",
            "the fencing of former owners is remembered there",
            Severity::DevelopmentOnly,
        ));
    }
    let in_sync = "transaction.state.log.min.isr";
    if is_small(in_sync, IN_SYNC_LEAST) {
        findings.push(finding(
            in_sync,
            "at least 2",
            "with one copy enough, a fencing is forgotten with its broker",
            Severity::DevelopmentOnly,
        ));
    }
    findings
}

/// Once the topic is there, the brokers' setting for it says nothing any more.
fn transaction_state_finding(present: &BTreeMap<String, TopicFacts>) -> Option<Finding> {
    let facts = present.get(TRANSACTION_STATE_TOPIC)?;
    replication_finding(TRANSACTION_STATE_TOPIC, facts.replication)
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::topics::MIN_IN_SYNC;

    use super::*;

    fn facts(partitions: usize, replication: u16) -> TopicFacts {
        TopicFacts {
            partitions,
            replication: NonZeroU16::new(replication).expect("not 0"),
            has_leaders: true,
        }
    }

    /// Findings on a topic with the wanted settings, but for these.
    fn findings(topic: Topic, facts: TopicFacts, different: &[(&str, &str)]) -> Vec<String> {
        let wanted = WantedTopic {
            name: topic.suffix().to_owned(),
            partitions: topic.partitions(NonZeroU16::new(4).expect("not 0")),
            partitions_are_fixed: topic.partitions_are_fixed(),
            settings: topic.settings(),
        };
        let mut config: BTreeMap<String, ConfigValue> = topic
            .settings()
            .into_iter()
            .map(|setting| (setting.key.to_owned(), ConfigValue { value: Some(setting.value), is_own: true }))
            .collect();
        for (key, value) in different {
            config.insert((*key).to_owned(), ConfigValue { value: Some((*value).to_owned()), is_own: true });
        }
        let shards = Shards::of(&Prefix::default(), &BTreeMap::new(), None);
        topic_findings(&wanted, facts, Some(&config), shards)
            .into_iter()
            .map(|finding| format!("{} = {} ({:?})", finding.setting, finding.value, finding.severity))
            .collect()
    }

    #[test]
    fn what_is_found() {
        let none: [&str; 0] = [];
        for topic in Topic::ALL {
            let partitions = usize::from(topic.partitions(NonZeroU16::new(4).expect("not 0")).get());
            assert_eq!(findings(topic, facts(partitions, 3), &[]), none);
        }
        for (topic, facts, different, expected) in [
            (
                Topic::Inbox,
                facts(4, 3),
                ("cleanup.policy", "compact"),
                "cleanup.policy = compact (BreaksAPromise)",
            ),
            (
                Topic::Inbox,
                facts(4, 3),
                ("retention.ms", "604800000"),
                "retention.ms = 604800000 (BreaksAPromise)",
            ),
            (
                Topic::Inbox,
                facts(4, 3),
                ("message.timestamp.type", "CreateTime"),
                "message.timestamp.type = CreateTime (DevelopmentOnly)",
            ),
            (
                Topic::State,
                facts(4, 3),
                ("cleanup.policy", "compact,delete"),
                "cleanup.policy = compact,delete (BreaksAPromise)",
            ),
            (Topic::State, facts(3, 3), ("x", ""), "partitions = 3 (BreaksAPromise)"),
            (Topic::Definitions, facts(2, 3), ("x", ""), "partitions = 2 (BreaksAPromise)"),
            (Topic::Journal, facts(4, 1), ("x", ""), "replication = 1 (DevelopmentOnly)"),
            (Topic::Journal, facts(4, 3), (MIN_IN_SYNC, "1"), "min.insync.replicas = 1 (DevelopmentOnly)"),
            (
                Topic::Journal,
                facts(4, 3),
                ("unclean.leader.election.enable", "true"),
                "unclean.leader.election.enable = true (BreaksAPromise)",
            ),
        ] {
            assert_eq!(findings(topic, facts, &[different]), [expected]);
        }
    }

    #[test]
    fn a_broker_that_does_not_verify_is_named() {
        let config = |value: &str| {
            [(
                "transaction.partition.verification.enable".to_owned(),
                ConfigValue { value: Some(value.to_owned()), is_own: false },
            )]
            .into()
        };
        assert!(broker_findings(1, &config("true"), &BTreeMap::new()).is_empty());
        let findings = broker_findings(1, &config("false"), &BTreeMap::new());
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].topic, "broker 1");
    }
}

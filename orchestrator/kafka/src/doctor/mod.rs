//! Is this cluster fit for what is promised? Looked at, tried out, and told with the remedy.
//!
//! ```text
//!   settings of topics (as `topics check`) ─┐
//!   settings of brokers, copies in sync ────┼─▶ Facts ─▶ judge (pure) ─▶ Ailments, each with the promises it breaks
//!   a probe: records, clocks, transactions ─┘
//! ```
//! The probe has a topic of its own, `<prefix>.doctor-<random>`, which is removed at the end; nothing else is changed. What
//! a killed doctor leaves behind is named by the next one.
//!
//! Deliberately absent: ACLs (each probe says what it was not allowed to do), and load: a probe of a second says what a
//! record costs, not how many fit.

mod judge;
mod probe;

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use sagamore_schemas::topics::Prefix;
use serde::Serialize;

use crate::client::ClientSettings;
use crate::topics::{Finding, REQUEST_TIMEOUT, TopicsError, broker_settings, check};

pub use judge::{Ailment, judge};
pub use probe::{Clock, Latency, Probed, TransactionsProbed};

/// What was looked at and tried out.
#[derive(Debug, Default, Serialize)]
pub struct Facts {
    /// The brokers.
    pub brokers: Vec<Broker>,
    /// What `topics check` finds; nothing while none of the topics is there.
    pub topics: Vec<Finding>,
    /// Why the topics could not be checked: a broker did not answer.
    pub unchecked: Option<String>,
    /// Whether any topic of this prefix is there.
    pub is_applied: bool,
    /// Partitions of this prefix, and of Kafka's own topics, that lack copies or a leader.
    pub lacking: Vec<Lacking>,
    /// Topics of earlier doctors.
    pub left_behind: Vec<String>,
    /// What the probe has seen, or why there was none.
    pub probe: Option<Result<Probed, String>>,
}

/// A broker.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// Where it says that it is.
    pub address: String,
    /// Whether it did not answer when it was asked for its settings.
    pub is_silent: bool,
    /// Its settings.
    #[serde(skip)]
    pub settings: BTreeMap<String, String>,
}

/// A partition that is not as it should be now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lacking {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Copies it should have.
    pub copies: usize,
    /// Copies that have everything.
    pub in_sync: usize,
    /// What the topic needs to take a record; 1 where it does not say.
    pub least: usize,
    /// Whether somebody leads it.
    pub has_leader: bool,
}

/// Looks, tries, and takes its own topic away again.
pub fn examine(settings: &ClientSettings, prefix: &Prefix) -> Result<Facts, TopicsError> {
    let mut facts = look(settings, prefix)?;
    let brokers: Vec<i32> = facts.brokers.iter().map(|broker| broker.id).collect();
    facts.probe = Some(probe::probe(settings, prefix, brokers.len()));
    Ok(facts)
}

fn look(settings: &ClientSettings, prefix: &Prefix) -> Result<Facts, TopicsError> {
    let client: BaseConsumer =
        settings.admin().create().map_err(|cause| TopicsError::Request { action: "make a client", cause })?;
    let metadata = client
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .map_err(|cause| TopicsError::Unreachable { bootstrap: settings.bootstrap().to_owned(), cause })?;
    let mut facts = Facts::default();
    for broker in metadata.brokers() {
        let address = format!("{}:{}", broker.host(), broker.port());
        let (is_silent, settings) = match broker_settings(settings, broker.id()) {
            Ok(settings) => (false, settings),
            // Kafka names a broker for a while after it has gone.
            Err(error) if error.is_silence() => (true, BTreeMap::new()),
            Err(error) => return Err(error),
        };
        facts.brokers.push(Broker { id: broker.id(), address, is_silent, settings });
    }
    facts.brokers.sort_by_key(|broker| broker.id);
    let (own, probes) = (format!("{prefix}."), probe::topics_begin_with(prefix));
    let least = |topic: &str| -> usize {
        let key = if topic == "__transaction_state" {
            "transaction.state.log.min.isr"
        } else {
            "min.insync.replicas"
        };
        let first = facts.brokers.first().and_then(|broker| broker.settings.get(key));
        first.and_then(|value| value.parse().ok()).unwrap_or(1)
    };
    for topic in metadata.topics() {
        let name = topic.name();
        if name.starts_with(&probes) {
            facts.left_behind.push(name.to_owned());
            continue;
        }
        let is_own = name.starts_with(&own);
        facts.is_applied |= is_own;
        if !is_own && !matches!(name, "__transaction_state" | "__consumer_offsets") {
            continue;
        }
        let lacks = |partition: &&rdkafka::metadata::MetadataPartition| {
            partition.leader() < 0 || partition.isr().len() < partition.replicas().len()
        };
        facts.lacking.extend(topic.partitions().iter().filter(lacks).map(|partition| Lacking {
            topic: name.to_owned(),
            partition: partition.id(),
            copies: partition.replicas().len(),
            in_sync: partition.isr().len(),
            least: least(name),
            has_leader: partition.leader() >= 0,
        }));
    }
    let findings = match check(settings, prefix) {
        Ok(findings) => findings,
        Err(error) if error.is_silence() => {
            facts.unchecked = Some(error.to_string());
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let is_topic = |finding: &Finding| finding.setting == "topic" || finding.setting == "instance";
    facts.topics = findings.into_iter().filter(|finding| facts.is_applied || !is_topic(finding)).collect();
    Ok(facts)
}

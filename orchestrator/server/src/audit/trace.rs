//! The whole story of one transaction, from the topics alone: what came into its inbox, what was entered into the
//! journal, what was sent.

use rdkafka::message::{BorrowedMessage, Message};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::log::Sealed;
use sagamore_schemas::topics::Topic;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::topics::{Stretch, in_parallel, read, stretches};
use crate::checkpointer::timestamp_ms;
use crate::site::{Site, SiteError};

/// Something that stands somewhere about a transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Mention {
    /// When, by the broker; of an entry, when its input came.
    pub at: Time,
    /// The topic, without the prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Which life of the id; none for a start, which begins one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub birth: Option<String>,
    /// What it is.
    pub what: String,
    /// About which step, branch, operation and attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// What it says: answer, reason, decision, outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// The record or the entry as it stands there.
    pub record: Box<RawValue>,
}

/// Everything that is there about this id, in the order of time. A command may have a key of its own, so every command
/// topic is read.
pub fn trace(
    site: &Site,
    id: &TransactionId,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Mention>, SiteError> {
    let own = home(id, i32::from(site.instance()?.partitions.get())).0;
    let (inbox, journal) = (site.topic(Topic::Inbox), site.topic(Topic::Journal));
    let outcomes = site.topic(Topic::Outcomes);
    let commands = format!("{}.commands.", site.prefix);
    let mut wanted = stretches(site, |topic| {
        topic == inbox || topic == journal || topic == outcomes || topic.starts_with(&commands)
    })?;
    wanted.retain(|stretch| {
        stretch.partition == own || stretch.topic.starts_with(&commands) || stretch.topic == outcomes
    });
    let total = wanted.iter().map(Stretch::span).sum();
    let found = in_parallel(&wanted, threads, |stretch| {
        let mut found = Vec::new();
        let isolation =
            if stretch.topic == inbox { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
        let topic = stretch.topic.strip_prefix(site.prefix.as_str()).unwrap_or(&stretch.topic);
        let topic = topic.trim_start_matches('.');
        read(site, stretch, isolation, |message| {
            progress(1, total);
            if stretch.topic == journal {
                found.extend(entries(message, id, topic));
            } else {
                found.extend(mention(message, id, topic));
            }
            true
        })?;
        Ok::<_, SiteError>(found)
    })?;
    let mut mentions: Vec<Mention> = found.into_iter().flatten().collect();
    mentions.sort_by_key(|mention| (mention.at, rank(&mention.topic), mention.offset));
    Ok(mentions)
}

/// At one moment an input comes first, then what was entered, then what was sent.
fn rank(topic: &str) -> u8 {
    match topic {
        "inbox" => 0,
        "journal" => 1,
        "outcomes" => 3,
        _ => 2,
    }
}

fn mention(message: &BorrowedMessage<'_>, id: &TransactionId, topic: &str) -> Option<Mention> {
    let value = message.payload()?;
    // Cheap first: nearly every record is about somebody else.
    let name = id.as_str().as_bytes();
    value.windows(name.len()).any(|window| window == name).then_some(())?;
    let record: Box<RawValue> = serde_json::from_slice(value).ok()?;
    let document: Value = serde_json::from_str(record.get()).ok()?;
    if document["subject"].as_str() != Some(id.as_str()) {
        return None;
    }
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let kind = text("type").unwrap_or_default();
    let what = kind.strip_prefix("sagamore.").and_then(|kind| kind.strip_suffix(".v1")).unwrap_or(&kind);
    Some(Mention {
        at: Time::from_epoch_ms(timestamp_ms(message.timestamp())),
        topic: topic.to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        birth: text("birth"),
        what: what.to_owned(),
        about: about(&document),
        says: says(&document, &["outcome", "decision", "reason", "definition", "actor", "due"]),
        record,
    })
}

fn entries(message: &BorrowedMessage<'_>, id: &TransactionId, topic: &str) -> Vec<Mention> {
    if message.key() != Some(id.as_str().as_bytes()) {
        return Vec::new();
    }
    let sealed: Vec<Sealed> =
        serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
    let mention = |sealed: Sealed| {
        let document: Value = serde_json::from_str(sealed.entry.get()).ok()?;
        let at = serde_json::from_value(document["at"].clone()).ok()?;
        let changes = document["changes"].as_array().cloned().unwrap_or_default();
        let changes = changes.iter().map(|change| {
            let branch = change["branch"].as_str().map(|branch| format!("/{branch}")).unwrap_or_default();
            let (step, phase) = (change["step"].as_str(), change["phase"].as_str());
            format!("{}{branch}: {}", step.unwrap_or_default(), phase.unwrap_or_default())
        });
        let said = says(&document, &["answer", "reason", "decision", "outcome", "actor"]);
        let says: Vec<String> = said.into_iter().chain(changes).collect();
        Some(Mention {
            at,
            topic: topic.to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            birth: document["birth"].as_str().map(str::to_owned),
            what: format!("entry of {}", document["input"].as_str().unwrap_or("?")),
            about: about(&document),
            says: (!says.is_empty()).then(|| says.join(", ")),
            record: sealed.entry,
        })
    };
    sealed.into_iter().filter_map(mention).collect()
}

fn about(document: &Value) -> Option<String> {
    let parts = ["step", "branch", "operation"].map(|name| document[name].as_str().map(str::to_owned));
    let attempt = document["attempt"].as_u64().map(|attempt| attempt.to_string());
    let parts: Vec<String> = parts.into_iter().chain([attempt]).flatten().collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn says(document: &Value, names: &[&str]) -> Option<String> {
    let parts: Vec<String> = names
        .iter()
        .filter_map(|name| document[*name].as_str().map(|text| format!("{name} {text}")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

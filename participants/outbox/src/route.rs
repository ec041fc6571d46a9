//! Where a row of the outbox goes, or why it goes nowhere. Pure.
//!
//! | `aggregatetype` | topic | partition | value |
//! |---|---|---|---|
//! | `inbox` | `<prefix>.inbox` | the home: murmur2 of the transaction id, which is the key | the whole record |
//! | anything else | `<route>.<aggregatetype>` | by the key, as the Java client does it | the payload; none is a tombstone |
//!
//! A reply belongs to the partition in the `replyto` of its command. That is the home of its transaction (children
//! included: a child lives where its own id hashes to), so key and partition are the same for starts and replies.

use std::num::NonZeroU16;

use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Partition, Time, TransactionId};
use sagamore_schemas::topics::{Prefix, Topic};
use sagamore_schemas::wire::{Input, read_input};

use crate::schema::VALUE_BYTES_MAX;

/// The `aggregatetype` of what a shard reads.
pub const INBOX: &str = "inbox";
/// The longest name of a topic that a broker takes.
const TOPIC_CHARACTERS_MAX: usize = 249;

/// A row of the outbox.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place in the order.
    pub seq: i64,
    /// For those who drop repeats.
    pub id: uuid::Uuid,
    /// Which topic.
    pub aggregatetype: String,
    /// The key.
    pub aggregateid: String,
    /// What it is.
    pub kind: String,
    /// The payload as text; `None` when there is none, or when it is too large to be fetched.
    pub payload: Option<String>,
    /// Bytes of the payload.
    pub bytes: i64,
    /// The relay says when it was issued.
    pub stamps: bool,
    /// When it was first handed over, and for how long that is, in ms.
    pub handed: Option<Handed>,
}

/// When a row was first handed over.
#[derive(Debug, Clone, Copy)]
pub struct Handed {
    /// By the clock of the database.
    pub at: Time,
    /// Until now.
    pub ago_ms: i64,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The topic.
    pub topic: String,
    /// The partition, where it is not the producer's to choose.
    pub partition: Option<Partition>,
}

/// An installation, and where other records go.
#[derive(Debug, Clone)]
pub struct Map {
    /// What the names of the installation's topics begin with.
    pub prefix: Prefix,
    /// Partitions of its inbox.
    pub partitions: NonZeroU16,
    /// What the names of other topics begin with.
    pub route: String,
}

/// Why a row can never leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than a topic takes.
    #[error("{0} bytes: a record has at most {VALUE_BYTES_MAX}")]
    TooLarge(i64),
    /// It cannot name a topic.
    #[error("`{0}` is not the name of a topic")]
    NoTopicName(String),
    /// Only Sagamore itself writes there.
    #[error("`{0}` belongs to Sagamore; what a shard reads has the aggregatetype `inbox`")]
    Reserved(String),
    /// A shard has no use for it.
    #[error("the payload is no record for an inbox: {0}")]
    Unreadable(String),
    /// Not what a service may send.
    #[error("a service sends starts, replies and verbs to the inbox, not {0}")]
    NotYours(String),
    /// Two names for one thing.
    #[error("{0}")]
    Contradiction(String),
}

impl Map {
    /// Where a row goes.
    pub fn route(&self, row: &Row) -> Result<Route, Refusal> {
        if row.bytes > VALUE_BYTES_MAX {
            return Err(Refusal::TooLarge(row.bytes));
        }
        if row.aggregatetype == INBOX { self.to_inbox(row) } else { self.elsewhere(row) }
    }

    fn to_inbox(&self, row: &Row) -> Result<Route, Refusal> {
        let payload = row.payload.as_deref().map(str::as_bytes);
        let input = read_input(payload).map_err(|error| Refusal::Unreadable(error.to_string()))?;
        let subject = match &input {
            Input::Start(start) => &start.subject,
            Input::Reply(reply) => &reply.address.subject,
            Input::Inquiry(inquiry) => &inquiry.subject,
            Input::Verb(verb) => &verb.subject,
            Input::Timer(_)
            | Input::Undeliverable(_)
            | Input::Child(_)
            | Input::Shard(_)
            | Input::Definition(_) => return Err(Refusal::NotYours(input.label().to_owned())),
        };
        if subject.as_str() != row.aggregateid {
            let Row { aggregateid, .. } = row;
            return Err(Refusal::Contradiction(format!(
                "aggregateid `{aggregateid}` is not the subject `{subject}`: it would find another home"
            )));
        }
        let home = self.home(subject);
        let birth = match &input {
            Input::Reply(reply) => Some(reply.address.birth),
            Input::Inquiry(inquiry) => Some(inquiry.birth),
            _ => None,
        };
        if let Some(birth) = birth.filter(|birth| birth.partition != home) {
            return Err(Refusal::Contradiction(format!(
                "birth {birth} is not in partition {home}, the home of `{subject}`"
            )));
        }
        Ok(Route { topic: Topic::Inbox.name(&self.prefix), partition: Some(home) })
    }

    fn elsewhere(&self, row: &Row) -> Result<Route, Refusal> {
        let topic = format!("{}.{}", self.route, row.aggregatetype);
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if row.aggregatetype.is_empty() || topic.len() > TOPIC_CHARACTERS_MAX || !topic.chars().all(is_legal)
        {
            return Err(Refusal::NoTopicName(topic.chars().take(TOPIC_CHARACTERS_MAX).collect()));
        }
        let is_ours = Topic::ALL.iter().any(|ours| ours.name(&self.prefix) == topic)
            || topic.starts_with(&format!("{}.commands.", self.prefix));
        if is_ours {
            return Err(Refusal::Reserved(topic));
        }
        Ok(Route { topic, partition: None })
    }

    /// Where a transaction lives.
    pub fn home(&self, id: &TransactionId) -> Partition {
        home(id, i32::from(self.partitions.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        Map {
            prefix: Prefix::default(),
            partitions: NonZeroU16::new(4).unwrap(),
            route: "outbox.event".into(),
        }
    }

    fn row(aggregatetype: &str, aggregateid: &str, payload: Option<&str>) -> Row {
        Row {
            seq: 1,
            id: uuid::Uuid::nil(),
            aggregatetype: aggregatetype.into(),
            aggregateid: aggregateid.into(),
            kind: String::new(),
            payload: payload.map(str::to_owned),
            bytes: payload.map_or(0, |text| i64::try_from(text.len()).unwrap()),
            stamps: false,
            handed: None,
        }
    }

    /// `then`: topic and partition, or a part of the refusal.
    fn check(given: &Row, then: &str) {
        let told = match map().route(given) {
            Ok(Route { topic, partition: Some(partition) }) => format!("{topic}/{partition}"),
            Ok(Route { topic, partition: None }) => topic,
            Err(refusal) => refusal.to_string(),
        };
        assert!(told.contains(then), "{given:?}: {told}");
    }

    fn reply(subject: &str, birth: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/s","subject":"{subject}","birth":"{birth}",
            "instance":"00000000-0000-0000-0000-000000000000","step":"s","branch":"b","operation":"execute","attempt":1,
            "outcome":"ok"}}"#
        )
    }

    #[test]
    fn starts_and_replies_go_home() {
        let start = r#"{"specversion":"1.0","type":"sagamore.start.v1","id":"i","source":"/s","subject":"foobar",
            "time":"2026-11-22T16:00:00Z","definition":"order"}"#;
        let home = map().home(&"foobar".parse().unwrap()).0;
        check(&row(INBOX, "foobar", Some(start)), &format!("sagamore.inbox/{home}"));
        check(&row(INBOX, "other", Some(start)), "is not the subject `foobar`");
        check(
            &row(INBOX, "foobar", Some(&reply("foobar", &format!("{home}-7")))),
            &format!("sagamore.inbox/{home}"),
        );
        let elsewhere = (home + 1) % 4;
        let wrong = reply("foobar", &format!("{elsewhere}-7"));
        check(&row(INBOX, "foobar", Some(&wrong)), "the home of `foobar`");
    }

    #[test]
    fn an_inbox_takes_what_a_service_may_send() {
        check(&row(INBOX, "a", None), "no record for an inbox");
        check(&row(INBOX, "a", Some("[1]")), "no record for an inbox");
        check(
            &row(INBOX, "a", Some(r#"{"specversion":"1.0","type":"order.placed"}"#)),
            "no record for an inbox",
        );
        let level = r#"{"specversion":"1.0","type":"sagamore.level.v1","id":"i","actor":"me","reason":"r","level":2}"#;
        check(&row(INBOX, "a", Some(level)), "starts, replies and verbs");
    }

    #[test]
    fn everything_else_goes_to_a_topic_of_its_own() {
        check(&row("order", "7", Some("{}")), "outbox.event.order");
        check(&row("order", "7", None), "outbox.event.order");
        check(&row("", "7", None), "not the name of a topic");
        check(&row("a b", "7", None), "not the name of a topic");
        let longest = "t".repeat(TOPIC_CHARACTERS_MAX - "outbox.event.".len());
        check(&row(&longest, "7", None), &longest);
        check(&row(&format!("{longest}t"), "7", None), "not the name of a topic");
        let ours = Map { route: "sagamore".into(), ..map() };
        for reserved in ["state", "journal", "commands.payment"] {
            assert_eq!(
                ours.route(&row(reserved, "7", None)),
                Err(Refusal::Reserved(format!("sagamore.{reserved}")))
            );
        }
    }

    #[test]
    fn a_value_has_so_many_bytes() {
        let of = |bytes| map().route(&Row { bytes, ..row("order", "7", Some("{}")) });
        assert!(of(VALUE_BYTES_MAX).is_ok());
        assert_eq!(of(VALUE_BYTES_MAX + 1), Err(Refusal::TooLarge(VALUE_BYTES_MAX + 1)));
    }
}

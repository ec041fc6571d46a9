//! Sagamore's topics as data: names, partition counts, and every setting with its reason.
//!
//! ```text
//!   clients, participants ──▶ inbox k ──▶ shard k ──▶ commands.<participant>, outcomes, dead-letters
//!                                            │
//!                                            └─ checkpoint ──▶ state k, journal k      snapshots k
//! ```
//!
//! Partition `k` of inbox, state and journal belong together. This table says what a setting must be and
//! what follows when it is not; it does not talk to Kafka. Creating, altering and checking topics is the
//! business of `sagamore-kafka`.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Name, Partition};

mod kafka_only;

pub use kafka_only::KafkaOnlyTopic;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const MIB: i64 = 1024 * 1024;

/// How long the inbox is kept behind the last applied record, so that the audit can fold it again.
pub const AUDIT_RETENTION_MS: i64 = 7 * DAY_MS;
/// How long an unread command waits for its participant; longer than the watermark (3 d) reaches back.
pub const COMMANDS_RETENTION_MS: i64 = 7 * DAY_MS;
/// How long an outcome can be read from its topic; the transaction's own memory is shorter.
pub const OUTCOMES_RETENTION_MS: i64 = 7 * DAY_MS;
/// How long the journal, and with it the snapshots a replay begins at, are kept.
pub const JOURNAL_RETENTION_MS: i64 = 400 * DAY_MS;
/// How long operators have to look at a dead letter.
pub const DEAD_LETTERS_RETENTION_MS: i64 = 30 * DAY_MS;
/// How long compaction must leave older versions of a state record alone: when only a prefix of a checkpoint was
/// committed, a takeover needs the versions below it.
pub const STATE_COMPACTION_LAG_MS: i64 = 10 * MINUTE_MS;
/// How long a tombstone in the state stays readable: longer than any takeover takes to read its partition.
pub const STATE_TOMBSTONE_RETENTION_MS: i64 = 24 * HOUR_MS;
/// The smallest tombstone retention that is safe for a takeover that reads slowly.
pub const STATE_TOMBSTONE_RETENTION_LEAST_MS: i64 = HOUR_MS;

/// The largest record inbox, state, journal, outcomes, commands and snapshots accept, in bytes: a payload of
/// 1 MiB, in Base64, with its envelope.
pub const RECORD_BYTES_MAX: i64 = 2 * MIB;
/// The largest record of the dead letters, in bytes: an inbox record verbatim and the headers with its cause.
pub const DEAD_LETTER_BYTES_MAX: i64 = RECORD_BYTES_MAX + MIB / 4;
/// Smallest sensible segment of the state, in bytes: below it the broker keeps too many files.
pub const STATE_SEGMENT_BYTES_MIN: i64 = 32 * MIB;
/// Largest sensible segment of the state, in bytes: only closed segments are compacted, and a takeover reads
/// everything that is not.
pub const STATE_SEGMENT_BYTES_MAX: i64 = 64 * MIB;

/// Copies of every partition in production: with fewer, one lost disk takes acknowledged inputs with it.
pub const REPLICATION_LEAST: u16 = 3;
/// Copies that must have a record before it counts as written, in production.
pub const IN_SYNC_LEAST: u16 = 2;

/// The longest prefix, in characters: Kafka allows 249 for a topic, `.commands.` and a participant take 42.
pub const PREFIX_CHARACTERS_MAX: usize = 200;

/// Key of the record that says to which instance a partition of the state belongs.
pub const INSTANCE_KEY: &[u8] = b"\0instance";

/// What all names of topics, the group and the transactional ids begin with; `sagamore` by default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// Why a text cannot be a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Nothing, or more than [`PREFIX_CHARACTERS_MAX`] characters.
    #[error("a prefix has 1 to {PREFIX_CHARACTERS_MAX} characters, this one has {characters}")]
    Length {
        /// How many it has.
        characters: usize,
    },
    /// A character Kafka does not take in the name of a topic.
    #[error("a prefix consists of A-Z a-z 0-9 . _ and -, this one has {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl Prefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The consumer group of the shard owners.
    pub fn orchestrator_group(&self) -> String {
        format!("{self}.orchestrator")
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("sagamore".to_owned())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let characters = text.chars().count();
        if characters == 0 || characters > PREFIX_CHARACTERS_MAX {
            return Err(PrefixError::Length { characters });
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            Some(character) => Err(PrefixError::Character { character }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

/// A topic of Sagamore's own. The command topics of the participants come by [`command_topic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Every input of a transaction; its order is the only one there is.
    Inbox,
    /// What became of the transactions, for anyone.
    Outcomes,
    /// Checkpoints of the shards, compacted.
    State,
    /// One entry per transition, for the audit.
    Journal,
    /// Whole folds at an offset, in pieces: where an audit begins.
    Snapshots,
    /// Definitions; the first record of a key wins.
    Definitions,
    /// What could not be understood, with the cause.
    DeadLetters,
}

impl Topic {
    /// All of them, in the order in which they are created and listed.
    pub const ALL: [Self; 7] = [
        Self::Inbox,
        Self::Outcomes,
        Self::State,
        Self::Journal,
        Self::Snapshots,
        Self::Definitions,
        Self::DeadLetters,
    ];

    /// The part of the name behind the prefix.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Outcomes => "outcomes",
            Self::State => "state",
            Self::Journal => "journal",
            Self::Snapshots => "snapshots",
            Self::Definitions => "definitions",
            Self::DeadLetters => "dead-letters",
        }
    }

    /// The full name, e.g. `sagamore.inbox`.
    pub fn name(self, prefix: &Prefix) -> String {
        format!("{prefix}.{}", self.suffix())
    }

    /// How many partitions the topic gets for this many shards.
    pub fn partitions(self, shards: NonZeroU16) -> NonZeroU16 {
        match self {
            // Partition k of each belongs to shard k. Outcomes and snapshots could have any number; the same
            // one lets them grow with the load, and tells where the snapshots of a shard are.
            Self::Inbox | Self::State | Self::Journal | Self::Outcomes | Self::Snapshots => shards,
            // One order for all definitions; and few dead letters, read by a person.
            Self::Definitions | Self::DeadLetters => NonZeroU16::MIN,
        }
    }

    /// Whether another partition count than [`Topic::partitions`] makes two homes of one transaction, or two
    /// orders of the definitions.
    pub fn partitions_are_fixed(self) -> bool {
        match self {
            Self::Inbox | Self::State | Self::Journal | Self::Definitions => true,
            Self::Outcomes | Self::Snapshots | Self::DeadLetters => false,
        }
    }

    /// The settings it is created with and checked for.
    pub fn settings(self) -> Vec<Setting> {
        let mut settings = match self {
            Self::Inbox => inbox(),
            Self::Outcomes => outcomes(),
            Self::State => state(),
            Self::Journal => journal(),
            Self::Snapshots => snapshots(),
            Self::Definitions => definitions(),
            Self::DeadLetters => dead_letters(),
        };
        settings.extend(durability());
        settings
    }
}

/// Name of the topic a participant takes its commands from, e.g. `sagamore.commands.payment`.
pub fn command_topic(prefix: &Prefix, participant: &Name) -> String {
    format!("{prefix}.commands.{}", participant.as_str())
}

/// The settings of a command topic.
pub fn command_topic_settings() -> Vec<Setting> {
    let mut settings = vec![
        policy_is_delete("a compacted topic forgets all but the last command of a transaction"),
        Setting::at_least(
            "retention.ms",
            COMMANDS_RETENTION_MS,
            COMMANDS_RETENTION_MS,
            Severity::Advice,
            "a participant that comes back later than this has lost commands and waits for their retries",
        ),
        size_is_unlimited(Severity::Advice),
        record_bytes(RECORD_BYTES_MAX, Severity::Advice, "a larger command becomes undeliverable"),
    ];
    settings.extend(durability());
    settings
}

/// What follows from a setting that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The server refuses to run.
    BreaksAPromise,
    /// The server runs with `--development` only.
    DevelopmentOnly,
    /// The server runs and says it.
    Advice,
}

/// One setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Kafka's name of the setting.
    pub key: &'static str,
    /// What a topic is created with, and a wrong value is altered to.
    pub value: String,
    /// Which values are accepted when a topic is checked.
    pub accepts: Accepts,
    /// What follows when the value is not accepted.
    pub severity: Severity,
    /// Why.
    pub reason: &'static str,
}

/// Which values of a setting are good enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepts {
    /// This text and no other.
    Exactly(String),
    /// A whole number from here on; `-1` is Kafka's way to say unlimited, and enough.
    AtLeast(i64),
    /// A whole number in these bounds, both included.
    Between(i64, i64),
    /// A ratio up to this many per cent.
    AtMostPercent(u8),
}

impl Accepts {
    /// Whether a topic may have this value.
    pub fn allows(&self, value: &str) -> bool {
        match self {
            Self::Exactly(wanted) => value == wanted,
            Self::AtLeast(least) => value.parse().is_ok_and(|value: i64| value >= *least || value == -1),
            Self::Between(least, most) => {
                value.parse().is_ok_and(|value: i64| (*least..=*most).contains(&value))
            }
            Self::AtMostPercent(most) => {
                value.parse().is_ok_and(|ratio: f64| ratio * 100.0 <= f64::from(*most))
            }
        }
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(wanted) => formatter.write_str(wanted),
            Self::AtLeast(least) => write!(formatter, "at least {least}"),
            Self::Between(least, most) => write!(formatter, "{least} to {most}"),
            Self::AtMostPercent(most) => write!(formatter, "at most {}", f64::from(*most) / 100.0),
        }
    }
}

impl Setting {
    fn exactly(key: &'static str, value: &str, severity: Severity, reason: &'static str) -> Self {
        Self { key, value: value.to_owned(), accepts: Accepts::Exactly(value.to_owned()), severity, reason }
    }

    fn at_least(key: &'static str, value: i64, least: i64, severity: Severity, reason: &'static str) -> Self {
        Self { key, value: value.to_string(), accepts: Accepts::AtLeast(least), severity, reason }
    }

    /// The value for a topic of this many copies: with fewer than [`REPLICATION_LEAST`] the wanted
    /// `min.insync.replicas` could never be met, and the topic would take no record.
    pub fn value_for(&self, replication: NonZeroU16) -> String {
        if self.key == MIN_IN_SYNC {
            IN_SYNC_LEAST.min(replication.get().saturating_sub(1).max(1)).to_string()
        } else {
            self.value.clone()
        }
    }
}

/// Kafka's name of the number of copies that must have a record before it counts as written.
pub const MIN_IN_SYNC: &str = "min.insync.replicas";

fn inbox() -> Vec<Setting> {
    vec![
        policy_is_delete(
            "a compacted inbox loses inputs: a transaction would be folded from part of its log",
        ),
        Setting::exactly(
            "retention.ms",
            "-1",
            Severity::BreaksAPromise,
            "the server trims the inbox behind its checkpoints; by age Kafka would delete what no shard has applied",
        ),
        size_is_unlimited(Severity::BreaksAPromise),
        append_time("time is the broker's timestamp: with the sender's, a wrong clock moves deadlines"),
        record_bytes(
            RECORD_BYTES_MAX,
            Severity::BreaksAPromise,
            "a larger start or reply would be refused by the broker and its transaction never hear of it",
        ),
    ]
}

fn outcomes() -> Vec<Setting> {
    vec![
        policy_is_delete("a stuck transaction has several outcomes, and a waiter may look for an older one"),
        Setting::at_least(
            "retention.ms",
            OUTCOMES_RETENTION_MS,
            DAY_MS,
            Severity::Advice,
            "a listener that is away longer than this misses outcomes",
        ),
        size_is_unlimited(Severity::Advice),
        record_bytes(RECORD_BYTES_MAX, Severity::BreaksAPromise, "a larger outcome could never be told"),
    ]
}

fn state() -> Vec<Setting> {
    vec![
        Setting::exactly(
            "cleanup.policy",
            "compact",
            Severity::BreaksAPromise,
            "`delete` loses open transactions by their age; without `compact` the state grows without end",
        ),
        Setting::at_least(
            "min.compaction.lag.ms",
            STATE_COMPACTION_LAG_MS,
            STATE_COMPACTION_LAG_MS,
            Severity::BreaksAPromise,
            "a takeover needs the version below the last checkpoint when a later one was only partly committed",
        ),
        Setting::at_least(
            "delete.retention.ms",
            STATE_TOMBSTONE_RETENTION_MS,
            STATE_TOMBSTONE_RETENTION_LEAST_MS,
            Severity::BreaksAPromise,
            "a takeover that misses a tombstone brings a finished transaction back",
        ),
        append_time("the compaction lag counts from the timestamp: a slow sender's clock would shorten it"),
        Setting {
            key: "segment.bytes",
            value: STATE_SEGMENT_BYTES_MAX.to_string(),
            accepts: Accepts::Between(STATE_SEGMENT_BYTES_MIN, STATE_SEGMENT_BYTES_MAX),
            severity: Severity::Advice,
            reason: "only closed segments are compacted, and a takeover reads all the rest",
        },
        Setting {
            key: "min.cleanable.dirty.ratio",
            value: "0.1".to_owned(),
            accepts: Accepts::AtMostPercent(10),
            severity: Severity::Advice,
            reason: "the more is left uncompacted, the longer a takeover reads",
        },
        record_bytes(
            RECORD_BYTES_MAX,
            Severity::BreaksAPromise,
            "a transaction whose state is larger would stop every checkpoint of its shard",
        ),
    ]
}

fn journal() -> Vec<Setting> {
    vec![
        policy_is_delete("a compacted journal cannot be verified: its chain has holes"),
        Setting::at_least(
            "retention.ms",
            JOURNAL_RETENTION_MS,
            AUDIT_RETENTION_MS,
            Severity::Advice,
            "the audit compares inbox and journal: the journal is kept at least as long",
        ),
        size_is_unlimited(Severity::Advice),
        record_bytes(
            RECORD_BYTES_MAX,
            Severity::BreaksAPromise,
            "a larger journal record would stop every checkpoint of its shard",
        ),
    ]
}

fn snapshots() -> Vec<Setting> {
    vec![
        policy_is_delete("a snapshot consists of many records; compaction would mix several"),
        Setting::at_least(
            "retention.ms",
            JOURNAL_RETENTION_MS,
            AUDIT_RETENTION_MS,
            Severity::Advice,
            "a replay begins at a snapshot: without an old one, old journal entries cannot be checked",
        ),
        size_is_unlimited(Severity::Advice),
        record_bytes(RECORD_BYTES_MAX, Severity::Advice, "a snapshot has records as large as the state's"),
    ]
}

fn definitions() -> Vec<Setting> {
    vec![
        policy_is_delete("the first record of a key wins; compaction keeps the last"),
        Setting::exactly(
            "retention.ms",
            "-1",
            Severity::BreaksAPromise,
            "an open transaction needs its definition, however old",
        ),
        size_is_unlimited(Severity::BreaksAPromise),
    ]
}

fn dead_letters() -> Vec<Setting> {
    vec![
        policy_is_delete("two dead letters of one key are two dead letters"),
        Setting::at_least(
            "retention.ms",
            DEAD_LETTERS_RETENTION_MS,
            DAY_MS,
            Severity::Advice,
            "what is deleted can no longer be looked at or sent again",
        ),
        size_is_unlimited(Severity::Advice),
        record_bytes(
            DEAD_LETTER_BYTES_MAX,
            Severity::BreaksAPromise,
            "a dead letter is an inbox record verbatim and its cause: it must fit here too",
        ),
    ]
}

/// What every topic needs, so that acknowledged means written.
fn durability() -> [Setting; 2] {
    [
        Setting::at_least(
            MIN_IN_SYNC,
            i64::from(IN_SYNC_LEAST),
            i64::from(IN_SYNC_LEAST),
            Severity::DevelopmentOnly,
            "with one copy enough, an acknowledged record is lost with its broker",
        ),
        Setting::exactly(
            "unclean.leader.election.enable",
            "false",
            Severity::BreaksAPromise,
            "a leader that was behind makes acknowledged records disappear",
        ),
    ]
}

fn policy_is_delete(reason: &'static str) -> Setting {
    Setting::exactly("cleanup.policy", "delete", Severity::BreaksAPromise, reason)
}

fn size_is_unlimited(severity: Severity) -> Setting {
    Setting::exactly(
        "retention.bytes",
        "-1",
        severity,
        "deleting by size takes what was not read yet, on the busiest day",
    )
}

fn append_time(reason: &'static str) -> Setting {
    Setting::exactly("message.timestamp.type", "LogAppendTime", Severity::DevelopmentOnly, reason)
}

fn record_bytes(bytes: i64, severity: Severity, reason: &'static str) -> Setting {
    Setting::at_least("max.message.bytes", bytes, bytes, severity, reason)
}

/// The value under [`INSTANCE_KEY`] in each partition of the state: what never changes for a set of topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Drawn once by `topics apply`, the same in every partition.
    pub instance: Uuid,
    /// How many partitions inbox, state and journal have.
    pub partitions: NonZeroU16,
    /// How a transaction id finds its partition.
    pub hash: HomeHash,
    /// The partition this record stands in.
    pub home: Partition,
}

/// How a transaction id finds its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HomeHash {
    /// Murmur2 modulo the partition count, as Kafka's Java client does it.
    Murmur2,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn prefix() -> Prefix {
        Prefix::default()
    }

    #[test]
    fn names() {
        let names: Vec<_> = Topic::ALL.map(|topic| topic.name(&prefix())).into();
        assert_eq!(
            names.join(" "),
            "sagamore.inbox sagamore.outcomes sagamore.state sagamore.journal sagamore.snapshots \
             sagamore.definitions sagamore.dead-letters"
        );
        assert_eq!(
            command_topic(&prefix(), &"payment".parse().expect("a name")),
            "sagamore.commands.payment"
        );
    }

    #[test]
    fn prefixes() {
        for (text, expected) in [
            ("sagamore", Ok(())),
            ("team-1.Sagamore_x", Ok(())),
            ("", Err(PrefixError::Length { characters: 0 })),
            ("a b", Err(PrefixError::Character { character: ' ' })),
            ("größe", Err(PrefixError::Character { character: 'ö' })),
        ] {
            assert_eq!(text.parse::<Prefix>().map(drop), expected, "{text}");
        }
        let long = "x".repeat(PREFIX_CHARACTERS_MAX + 1);
        assert_eq!(
            long.parse::<Prefix>(),
            Err(PrefixError::Length { characters: PREFIX_CHARACTERS_MAX + 1 })
        );
    }

    #[test]
    fn a_setting_stands_once_and_accepts_its_own_value() {
        let tables = Topic::ALL.map(Topic::settings).into_iter().chain([command_topic_settings()]);
        let tables = tables.chain(KafkaOnlyTopic::ALL.map(KafkaOnlyTopic::settings));
        for table in tables {
            let keys: BTreeSet<_> = table.iter().map(|setting| setting.key).collect();
            assert_eq!(keys.len(), table.len());
            for setting in table {
                assert!(setting.accepts.allows(&setting.value), "{setting:?}");
            }
        }
    }

    #[test]
    fn judgements() {
        for (accepts, value, expected) in [
            (Accepts::Exactly("compact".into()), "compact", true),
            (Accepts::Exactly("compact".into()), "compact,delete", false),
            (Accepts::AtLeast(10), "10", true),
            (Accepts::AtLeast(10), "9", false),
            (Accepts::AtLeast(10), "-1", true),
            (Accepts::AtLeast(10), "", false),
            (Accepts::Between(1, 2), "3", false),
            (Accepts::Between(1, 2), "2", true),
            (Accepts::AtMostPercent(10), "0.1", true),
            (Accepts::AtMostPercent(10), "0.5", false),
        ] {
            assert_eq!(accepts.allows(value), expected, "{accepts:?} {value}");
        }
    }

    #[test]
    fn in_sync_copies_are_fewer_than_copies() {
        let [min_in_sync, _] = durability();
        let values: Vec<_> =
            (1..=5).map(|n| min_in_sync.value_for(NonZeroU16::new(n).expect("not 0"))).collect();
        assert_eq!(values, ["1", "1", "2", "2", "2"]);
    }

    #[test]
    fn shards_have_one_partition_in_each_of_their_topics() {
        let shards = NonZeroU16::new(12).expect("not 0");
        let counts = Topic::ALL.map(|topic| topic.partitions(shards).get());
        assert_eq!(counts, [12, 12, 12, 12, 12, 1, 1]);
    }

    #[test]
    fn the_instance_record_on_the_wire() {
        let record = InstanceRecord {
            instance: Uuid::nil(),
            partitions: NonZeroU16::new(4).expect("not 0"),
            hash: HomeHash::Murmur2,
            home: Partition(3),
        };
        let json = serde_json::to_string(&record).expect("plain data");
        assert_eq!(
            json,
            r#"{"instance":"00000000-0000-0000-0000-000000000000","partitions":4,"hash":"murmur2","home":3}"#
        );
        assert_eq!(serde_json::from_str::<InstanceRecord>(&json).expect("what we wrote"), record);
    }
}

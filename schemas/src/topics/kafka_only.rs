//! The topics of a participant that has nothing but Kafka, one of each, with as many partitions as its command topic.
//!
//! Partition p of the three belongs to partition p of the commands: one Kafka transaction of its owner writes to all.

use super::{
    Accepts, DAY_MS, MIB, Prefix, RECORD_BYTES_MAX, STATE_SEGMENT_BYTES_MAX, STATE_SEGMENT_BYTES_MIN,
    STATE_TOMBSTONE_RETENTION_LEAST_MS, STATE_TOMBSTONE_RETENTION_MS, Setting, Severity, durability,
    policy_is_delete, record_bytes, size_is_unlimited,
};
use crate::ids::Name;

/// The largest record of a memory, in bytes: a whole batch, which is written at one stroke before its parts are.
pub const BATCH_RECORD_BYTES_MAX: i64 = 8 * MIB;
/// How long a reply waits to be forwarded, at most.
const REPLIES_RETENTION_MS: i64 = 7 * DAY_MS;

/// A topic of one participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KafkaOnlyTopic {
    /// The operations it has answered, its votes and horizons.
    Memory,
    /// Its effects: anybody may read it, `read_committed`.
    Table,
    /// Its replies, until they are forwarded to the inbox.
    Replies,
}

impl KafkaOnlyTopic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Table, Self::Replies];

    /// The full name, e.g. `sagamore.tables.seats`.
    pub fn name(self, prefix: &Prefix, participant: &Name) -> String {
        let kind = match self {
            Self::Memory => "memory",
            Self::Table => "tables",
            Self::Replies => "replies",
        };
        format!("{prefix}.{kind}.{participant}")
    }

    /// The settings it is created with and checked for.
    pub fn settings(self) -> Vec<Setting> {
        let mut settings = match self {
            Self::Memory => compacted(
                BATCH_RECORD_BYTES_MAX,
                "`delete` loses answers by their age, and what was done is done again; without `compact` the memory grows \
                 without end",
            ),
            Self::Table => compacted(
                RECORD_BYTES_MAX,
                "`delete` loses rows by their age; without `compact` the table grows without end",
            ),
            Self::Replies => vec![
                policy_is_delete("a compacted topic forgets all but the last reply of a transaction"),
                Setting::at_least(
                    "retention.ms",
                    REPLIES_RETENTION_MS,
                    DAY_MS,
                    Severity::Advice,
                    "a reply that is deleted before it is forwarded is asked for once more",
                ),
                size_is_unlimited(Severity::Advice),
                record_bytes(
                    RECORD_BYTES_MAX,
                    Severity::BreaksAPromise,
                    "a larger reply would stop its partition",
                ),
            ],
        };
        settings.extend(durability());
        settings
    }
}

fn compacted(bytes_max: i64, policy: &'static str) -> Vec<Setting> {
    vec![
        Setting::exactly("cleanup.policy", "compact", Severity::BreaksAPromise, policy),
        Setting::at_least(
            "delete.retention.ms",
            STATE_TOMBSTONE_RETENTION_MS,
            STATE_TOMBSTONE_RETENTION_LEAST_MS,
            Severity::BreaksAPromise,
            "a takeover that misses a tombstone brings a removed row back",
        ),
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
        record_bytes(bytes_max, Severity::BreaksAPromise, "a larger record would stop its partition"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let (prefix, seats) = (Prefix::default(), "seats".parse().expect("a name"));
        let names = KafkaOnlyTopic::ALL.map(|topic| topic.name(&prefix, &seats));
        assert_eq!(names.join(" "), "sagamore.memory.seats sagamore.tables.seats sagamore.replies.seats");
    }
}

//! What a shard reads and what it sends, as plain bytes: the seam between the fold and Kafka.

use serde::{Deserialize, Serialize};

use sagamore_schemas::ids::{Name, Partition, Time};

/// One record of the shard's inbox partition.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// The broker's timestamp.
    pub timestamp: Time,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, kept only if it becomes a dead letter.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// The command topic of a participant.
    Commands(Name),
    /// The inbox of a shard: the home of a parent, or of a child.
    Inbox(Partition),
    /// The outcomes topic.
    Outcomes,
    /// The dead letters.
    DeadLetters,
}

/// One record to be sent: a function of the log, so that sending it twice says the same thing twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where to.
    pub destination: Destination,
    /// The record's key; its murmur2 chooses the partition, and for an inbox comes to the same.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// Headers of a dead letter; all else carries the content type alone.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Output {
    /// Bytes it takes in memory and, about, on the wire.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.key.as_deref().map_or(0, <[u8]>::len) + self.value.as_deref().map_or(0, <[u8]>::len)
    }
}

/// What the owner's clients want to know at once about the input just applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Nothing anybody waits for.
    None,
    /// A start was accepted, or was known already and is answered.
    Accepted,
    /// A start was refused.
    Refused {
        /// Why.
        reason: String,
    },
    /// A verb was taken.
    VerbTaken,
    /// A verb was refused.
    VerbRefused {
        /// Why.
        reason: String,
    },
}

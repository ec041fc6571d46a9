//! What a checkpoint writes: the records of the state topic and of the journal.
//!
//! ```text
//!  state k:   <transaction id> ─ JSON of the transaction          \0definition/<name>@<version> ─ canonical JSON
//!             \0finished/<n>   ─ packed endings                   \0owed/<n>  ─ outputs not yet delivered
//!             \0instance       ─ written once, by `topics apply`  \0barrier   ─ written by each takeover
//!             \0checkpoint     ─ [`CheckpointRecord`], the last of each checkpoint
//!  journal k: <transaction id> ─ array of [`Sealed`] entries
//! ```
//! Every state record but instance and barrier carries the header [`AS_OF`]: the inbox offset up to which it is
//! true. An empty value says "ended": the key means nothing any more, and its tombstone follows.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ids::{Birth, Name, Partition, Time, TransactionId};
use crate::json::{push_birth, push_integer, push_json_string, push_number, text};
use crate::wire::{Answer, Operation, OutcomeKind};

/// Header of a state record: inbox offset (decimal text) up to which everything is folded in.
pub const AS_OF: &str = "as-of";
/// Key of the last record of each checkpoint.
pub const CHECKPOINT_KEY: &[u8] = b"\0checkpoint";
/// Key of the record by which a new owner finds the end of what it must read.
pub const BARRIER_KEY: &[u8] = b"\0barrier";
/// Prefix of the keys of packed endings.
pub const FINISHED_KEY_PREFIX: &str = "\0finished/";
/// Prefix of the keys of definitions.
pub const DEFINITION_KEY_PREFIX: &str = "\0definition/";
/// Prefix of the keys of outputs not yet delivered.
pub const OWED_KEY_PREFIX: &str = "\0owed/";

/// What an owner writes to state and journal at takeover, to read up to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierRecord {
    /// Different at every takeover.
    pub token: Uuid,
    /// Where the new owner's API is reached, for people who read the topic.
    pub owner: String,
}

/// The last input a checkpoint holds, to be found again in the inbox at takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRecord {
    /// Its offset.
    pub offset: i64,
    /// [`record_hash`] of it.
    pub hash: Digest256,
}

/// Where the journal's chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Inbox offset of the last entry; -1 before the first.
    pub offset: i64,
    /// Sequence of the last entry at that offset.
    pub sequence: u32,
    /// Hash of the last entry, which covers all before it.
    pub hash: Digest256,
}

impl Default for ChainHead {
    fn default() -> Self {
        Self { offset: -1, sequence: 0, hash: Digest256([0; 32]) }
    }
}

/// `\0checkpoint`: everything of a shard that is not kept by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The installation.
    pub instance: Uuid,
    /// The shard.
    pub partition: Partition,
    /// Partition count of the inbox; it never changes.
    pub partitions: i32,
    /// Inbox offset X: everything below it is folded in.
    pub next_offset: i64,
    /// The last input below X.
    pub applied: Option<AppliedRecord>,
    /// The fold's clock.
    pub clock: Time,
    /// Starts issued before this are refused: they may have run and been forgotten.
    pub issued_after: Time,
    /// Which rules the fold follows.
    pub level: u32,
    /// Every number the fold uses; the fields belong to the level.
    pub settings: RawText,
    /// The journal's chain.
    pub chain: ChainHead,
    /// Offset in `definitions` of the last definition applied; -1 before the first.
    pub definitions_offset: i64,
    /// Number of the next record of packed endings.
    pub finished_next: u64,
    /// Number of packed endings below which all are purged.
    pub finished_purged: u64,
    /// How many keys are stored at X.
    pub stored_count: u64,
    /// XOR over [`stored_hash`] of each of them.
    pub stored_xor: Digest128,
    /// How many outputs are owed.
    pub owed: u32,
}

/// Raw JSON that can be compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawText(pub Box<RawValue>);

impl PartialEq for RawText {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for RawText {}

/// A SHA-256, in hexadecimal where it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest256(pub [u8; 32]);

/// The first 128 bits of a SHA-256, in hexadecimal where it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest128(pub [u8; 16]);

impl Digest128 {
    /// The first half.
    pub fn of(bytes: &[u8]) -> Self {
        Digest256(Sha256::digest(bytes).into()).half()
    }

    /// Adds to, or takes out of, a set's XOR.
    pub fn toggle(&mut self, member: Self) {
        for (mine, other) in self.0.iter_mut().zip(member.0) {
            *mine ^= other;
        }
    }
}

impl Digest256 {
    /// The first half.
    pub fn half(self) -> Digest128 {
        let (half, _) = self.0.split_at(16);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(half);
        Digest128(bytes)
    }
}

/// Identifies an inbox record by its content: a successor finds the very same one, or halts.
pub fn record_hash(key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: i64) -> Digest256 {
    let mut hash = Sha256::new().chain_update(timestamp_ms.to_be_bytes());
    for part in [key, value] {
        let length = part.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    Digest256(hash.finalize().into())
}

/// One stored key with its as-of offset, for the XOR of a checkpoint.
pub fn stored_hash(key: &[u8], as_of: i64) -> Digest128 {
    let hash = Sha256::new().chain_update(as_of.to_be_bytes()).chain_update(key);
    Digest256(hash.finalize().into()).half()
}

/// One transition of a transaction or of the shard. Payloads stand here by hash, never by value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Inbox offset of the input.
    pub offset: i64,
    /// Number of this entry among those of the input.
    pub sequence: u32,
    /// The fold's clock at the input.
    pub at: Time,
    /// What kind of input: `start`, `reply`, `timer`, …
    pub input: Cow<'static, str>,
    /// The transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<TransactionId>,
    /// Which life of that id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<Birth>,
    /// Count of inputs applied to the transaction, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The definition, `name@version`; at the start of a transaction, and when one is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Step of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Name>,
    /// Branch of the input, when the step has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Name>,
    /// Operation the input is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Attempt the input is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What a participant answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, for a verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// SHA-256 of the payload the input carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Digest256>,
    /// Steps that changed, with their new phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<StepChange>,
    /// The decision, in the entry of the input that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The outcome that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeKind>,
}

impl JournalEntry {
    /// Adds the text that serde gives, in a fraction of the time: the fold writes one for each input.
    pub fn push_json(&self, out: &mut String) {
        out.push_str("{\"offset\":");
        push_integer(out, self.offset);
        out.push_str(",\"sequence\":");
        push_number(out, self.sequence.into());
        push_text(out, ",\"at\":", Some(self.at.rfc_3339(&mut [0; 24])));
        push_text(out, ",\"input\":", Some(&self.input));
        push_text(out, ",\"transaction\":", self.transaction.as_ref().map(TransactionId::as_str));
        if let Some(birth) = self.birth {
            out.push_str(",\"birth\":\"");
            push_birth(out, birth);
            out.push('"');
        }
        if let Some(revision) = self.revision {
            out.push_str(",\"revision\":");
            push_number(out, revision);
        }
        push_text(out, ",\"definition\":", self.definition.as_deref());
        push_text(out, ",\"step\":", self.step.as_ref().map(Name::as_str));
        push_text(out, ",\"branch\":", self.branch.as_ref().map(Name::as_str));
        push_text(out, ",\"operation\":", self.operation.map(Operation::as_str));
        if let Some(attempt) = self.attempt {
            out.push_str(",\"attempt\":");
            push_number(out, attempt.into());
        }
        push_text(out, ",\"answer\":", self.answer.map(Answer::as_str));
        push_text(out, ",\"reason\":", self.reason.as_deref());
        push_text(out, ",\"actor\":", self.actor.as_deref());
        let mut payload = [0; 64];
        push_text(out, ",\"payload\":", self.payload.map(|hash| hash.hexadecimal(&mut payload)));
        for (place, change) in self.changes.iter().enumerate() {
            out.push_str(if place == 0 { ",\"changes\":[" } else { "," });
            push_text(out, "{\"step\":", Some(change.step.as_str()));
            push_text(out, ",\"branch\":", change.branch.as_ref().map(Name::as_str));
            push_text(out, ",\"phase\":", Some(&change.phase));
            out.push('}');
        }
        if !self.changes.is_empty() {
            out.push(']');
        }
        push_text(out, ",\"decision\":", self.decision.map(Decision::as_str));
        push_text(out, ",\"outcome\":", self.outcome.map(OutcomeKind::as_str));
        out.push('}');
    }
}

fn push_text(out: &mut String, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        out.push_str(name);
        push_json_string(out, text);
    }
}

/// A branch and the phase it has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepChange {
    /// The step.
    pub step: Name,
    /// The branch, when the step has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Name>,
    /// Its new phase.
    pub phase: Cow<'static, str>,
}

/// An entry as it is read: borrowed from its record, without what only the audit looks at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EntryRef<'a> {
    /// Inbox offset of the input.
    pub offset: i64,
    /// Number of this entry among those of the input.
    pub sequence: u32,
    /// The fold's clock at the input.
    pub at: Time,
    /// What kind of input.
    #[serde(borrow)]
    pub input: Cow<'a, str>,
    /// The transaction.
    #[serde(borrow, default, deserialize_with = "text")]
    pub transaction: Option<Cow<'a, str>>,
    /// Which life of that id.
    #[serde(default)]
    pub birth: Option<Birth>,
    /// Count of inputs applied to the transaction.
    #[serde(default)]
    pub revision: Option<u64>,
    /// The definition, `name@version`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub definition: Option<Cow<'a, str>>,
    /// Step of the input.
    #[serde(borrow, default, deserialize_with = "text")]
    pub step: Option<Cow<'a, str>>,
    /// Branch of the input, when the step has several.
    #[serde(borrow, default, deserialize_with = "text")]
    pub branch: Option<Cow<'a, str>>,
    /// What a participant answered.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Why.
    #[serde(borrow, default, deserialize_with = "text")]
    pub reason: Option<Cow<'a, str>>,
    /// Who, for a verb.
    #[serde(borrow, default, deserialize_with = "text")]
    pub actor: Option<Cow<'a, str>>,
    /// Steps that changed, with their new phase.
    #[serde(borrow, default)]
    pub changes: Vec<ChangeRef<'a>>,
    /// The decision, in the entry of the input that made it.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// The outcome that was told.
    #[serde(default)]
    pub outcome: Option<OutcomeKind>,
}

/// A [`StepChange`] as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRef<'a> {
    /// The step.
    #[serde(borrow)]
    pub step: Cow<'a, str>,
    /// The branch, when the step has several.
    #[serde(borrow, default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub branch: Option<Cow<'a, str>>,
    /// Its new phase.
    #[serde(borrow)]
    pub phase: Cow<'a, str>,
}

impl ChangeRef<'_> {
    /// For longer than its record.
    pub fn to_static(&self) -> ChangeRef<'static> {
        let own = |text: &Cow<'_, str>| Cow::Owned(text.to_string());
        ChangeRef { step: own(&self.step), branch: self.branch.as_ref().map(own), phase: own(&self.phase) }
    }
}

/// The entries of a journal record; whether their chain is whole is the audit's business.
///
/// # Errors
/// On anything but a list of sealed entries: a takeover's barrier is none.
pub fn entries_of(record: &[u8]) -> Result<Vec<EntryRef<'_>>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Unsealed<'a> {
        #[serde(borrow)]
        entry: EntryRef<'a>,
    }
    // Looked at once as a whole, UTF-8 costs less than text by text.
    let unsealed: Vec<Unsealed<'_>> = match std::str::from_utf8(record) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(record),
    }?;
    Ok(unsealed.into_iter().map(|unsealed| unsealed.entry).collect())
}

/// The one decision of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Forward, to the end.
    Commit,
    /// Back.
    Rollback,
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        }
    }
}

/// A journal entry with its place in the chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sealed {
    /// The text of a [`JournalEntry`], byte for byte as it was hashed.
    pub entry: Box<RawValue>,
    /// [`seal`] of the chain so far and this entry.
    pub chain: Digest256,
}

/// The next link: SHA-256 over the link before and the text of the entry.
pub fn seal(before: Digest256, entry: impl AsRef<[u8]>) -> Digest256 {
    Digest256(Sha256::new().chain_update(before.0).chain_update(entry).finalize().into())
}

fn hexadecimal<'a>(bytes: &[u8], text: &'a mut [u8]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    crate::ids::ascii(text)
}

macro_rules! hex_digest {
    ($($type:ident, $length:literal);*) => {$(
        impl $type {
            /// As it is written, in `text`.
            pub fn hexadecimal(self, text: &mut [u8; 2 * $length]) -> &str {
                hexadecimal(&self.0, text)
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(hexadecimal(&self.0, &mut [0; 2 * $length]))
            }
        }
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(hexadecimal(&self.0, &mut [0; 2 * $length]))
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let wrong = || serde::de::Error::custom(concat!("expected ", $length, " bytes in hexadecimal"));
                let mut bytes = [0; $length];
                if text.len() != 2 * $length || !text.is_ascii() {
                    return Err(wrong());
                }
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }
    )*};
}
hex_digest!(Digest256, 32; Digest128, 16);

#[cfg(test)]
mod tests {
    use super::*;
    use OutcomeKind::{Aborted, Committed, Compensated, Refused, Stuck};

    fn check(entry: &JournalEntry) {
        let mut text = String::new();
        entry.push_json(&mut text);
        assert_eq!(text, serde_json::to_string(entry).unwrap());
    }

    #[test]
    fn an_entry_is_written_as_serde_writes_it() {
        let least = r#"{"offset":7,"sequence":0,"at":"2026-11-22T16:00:00.013Z","input":"timer"}"#;
        let least: JournalEntry = serde_json::from_str(least).unwrap();
        check(&least);
        let change = |branch: Option<&str>| StepChange {
            step: "pay".parse().unwrap(),
            branch: branch.map(|name| name.parse().unwrap()),
            phase: "asked execute 1".into(),
        };
        let most = JournalEntry {
            offset: i64::MIN,
            sequence: u32::MAX,
            transaction: Some("order:1".parse().unwrap()),
            birth: Some(Birth { partition: Partition(3), offset: i64::MAX }),
            revision: Some(u64::MAX),
            definition: Some("order@1".to_owned()),
            step: Some("pay".parse().unwrap()),
            branch: Some("bank".parse().unwrap()),
            attempt: Some(u32::MAX),
            reason: Some("\"\\/\u{0}\n\t\u{1f}\u{7f}\u{2028}é€😀".to_owned()),
            actor: Some("a \"b\"".to_owned()),
            payload: Some(Digest256([0xa5; 32])),
            changes: vec![change(None), change(Some("bank"))],
            ..least
        };
        check(&most);
        for operation in Operation::ALL {
            check(&JournalEntry { operation: Some(operation), ..most.clone() });
        }
        for answer in [Answer::Ok, Answer::Refused, Answer::Error, Answer::Pending] {
            check(&JournalEntry { answer: Some(answer), ..most.clone() });
        }
        for decision in [Decision::Commit, Decision::Rollback] {
            check(&JournalEntry { decision: Some(decision), ..most.clone() });
        }
        for outcome in [Committed, Compensated, Aborted, Refused, Stuck] {
            check(&JournalEntry { outcome: Some(outcome), ..most.clone() });
        }
    }
}

//! A golden as text, one JSON document a line, so that a diff reads like the log.
//!
//! ```text
//! {"golden":NAME,"level":1,"shows":…, who the shard is}
//! {"in":0,"at":TIME,"key":…,"value":…}      a record of the inbox, and under it what the fold said to it
//! {"out":"commands.a","key":…,"value":…}
//! {"owed":2}                                a checkpoint: so many of the latest outputs are owed,
//! {"state":KEY,"as_of":7,"value":…}         the records it writes, `\0checkpoint` last,
//! {"journal":KEY,"value":[…]}               and those of the journal
//! {"end":{…}}                               where the fold stands in the end
//! ```
//! A key or value that is a JSON object or array stands as it is, byte for byte; other text is a string; what is no
//! text is a string that begins with `base64:`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sagamore_decider::checkpoint::Checkpoint;
use sagamore_decider::identity::{Identity, ReplySecret};
use sagamore_decider::output::{Destination, Output};
use sagamore_decider::shard::Shard;
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::log::ChainHead;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub golden: String,
    pub level: u32,
    pub shows: String,
    pub instance: Uuid,
    pub partition: i32,
    pub partitions: i32,
    pub inbox: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl Head {
    /// Who the shard is.
    pub fn identity(&self) -> Identity {
        Identity {
            instance: self.instance,
            partition: Partition(self.partition),
            partitions: self.partitions,
            replyto: format!("{}/{}", self.inbox, self.partition),
            inbox: self.inbox.clone(),
            secret: self.secret.as_ref().and_then(|text| ReplySecret::new(text.as_bytes().to_vec())),
        }
    }
}

/// A record of the inbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct In {
    #[serde(rename = "in")]
    pub offset: i64,
    pub at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Bytes)>,
    /// Who had it passed over, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<(String, String)>,
}

impl In {
    /// The broker's timestamp.
    pub fn timestamp(&self) -> Time {
        self.at.parse().unwrap()
    }
}

#[derive(Serialize)]
struct Out<'a> {
    #[serde(rename = "out")]
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Bytes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(&'a str, Bytes)>,
}

/// How many of the latest outputs a checkpoint owes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owed {
    pub owed: usize,
}

/// A record of the state topic.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    #[serde(rename = "state")]
    pub key: Bytes,
    pub as_of: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
}

#[derive(Serialize)]
struct Journal {
    #[serde(rename = "journal")]
    key: Bytes,
    value: Bytes,
}

#[derive(Serialize)]
struct Ended<'a> {
    end: End<'a>,
}

#[derive(Serialize)]
struct End<'a> {
    next_offset: i64,
    clock: Time,
    level: u32,
    chain: &'a ChainHead,
    definitions_offset: i64,
    open: usize,
    finished: usize,
    timers: usize,
}

/// The lines of one golden file.
#[derive(Debug, Clone)]
pub struct Golden {
    pub head: Head,
    /// All but the first.
    pub lines: Vec<String>,
}

/// What a line says.
#[derive(Debug)]
pub enum Line {
    In(In),
    Out,
    Owed(usize),
    State(State),
    Journal,
    End,
}

impl Golden {
    /// Reads a file.
    pub fn read(text: &str) -> Self {
        let mut lines = text.lines().map(str::to_owned);
        let head = serde_json::from_str(&lines.next().unwrap()).unwrap();
        Self { head, lines: lines.collect() }
    }

    /// The file's text.
    pub fn print(&self) -> String {
        format!("{}\n{}\n", line(&self.head), self.lines.join("\n"))
    }

    /// Every line with what it says.
    pub fn read_lines(&self) -> impl Iterator<Item = (&str, Line)> {
        self.lines.iter().map(|text| (text.as_str(), parsed(text)))
    }
}

fn parsed(text: &str) -> Line {
    let kind = text.split('"').nth(1).unwrap_or_default();
    match kind {
        "in" => Line::In(serde_json::from_str(text).unwrap()),
        "out" => Line::Out,
        "owed" => Line::Owed(serde_json::from_str::<Owed>(text).unwrap().owed),
        "state" => Line::State(serde_json::from_str(text).unwrap()),
        "journal" => Line::Journal,
        "end" => Line::End,
        _ => panic!("what does this line say? {text}"),
    }
}

/// One line.
pub fn line(document: &impl Serialize) -> String {
    serde_json::to_string(document).unwrap()
}

/// The line of an output.
pub fn out_line(output: &Output) -> String {
    let to = match &output.destination {
        Destination::Commands(participant) => format!("commands.{participant}"),
        Destination::Inbox(partition) => format!("inbox/{partition}"),
        Destination::Outcomes => "outcomes".to_owned(),
        Destination::DeadLetters => "dead-letters".to_owned(),
    };
    let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map(Bytes);
    let headers = output.headers.iter().map(|(name, value)| (name.as_str(), Bytes(value.clone())));
    line(&Out { to, key: bytes(&output.key), value: bytes(&output.value), headers: headers.collect() })
}

/// The lines of a checkpoint.
pub fn checkpoint_lines(checkpoint: &Checkpoint, owed: usize) -> Vec<String> {
    let mut lines = vec![line(&Owed { owed })];
    for record in checkpoint.state.iter().chain([&checkpoint.last]) {
        let key = Bytes(record.key.clone());
        lines.push(line(&State { key, as_of: record.as_of, value: record.value.clone().map(Bytes) }));
    }
    for (key, value) in &checkpoint.journal {
        lines.push(line(&Journal { key: Bytes(key.clone()), value: Bytes(value.clone()) }));
    }
    lines
}

/// The last line.
pub fn end_line(shard: &Shard) -> String {
    line(&Ended {
        end: End {
            next_offset: shard.next_offset(),
            clock: shard.clock(),
            level: shard.level(),
            chain: shard.journal().head(),
            definitions_offset: shard.definitions().last_offset(),
            open: shard.open_count(),
            finished: shard.finished_count(),
            timers: shard.timers().len(),
        },
    })
}

/// Bytes that read well where they can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

const BASE64_PREFIX: &str = "base64:";

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(text) = std::str::from_utf8(&self.0).ok().filter(|text| !text.starts_with(BASE64_PREFIX))
        else {
            return serializer.serialize_str(&format!("{BASE64_PREFIX}{}", BASE64.encode(&self.0)));
        };
        let is_one_line = text.starts_with(['{', '[']) && !text.contains(['\n', '\r']);
        match RawValue::from_string(text.to_owned()) {
            // What stands around the document would be lost.
            Ok(raw) if is_one_line && raw.get().len() == text.len() => raw.serialize(serializer),
            _ => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('"') {
            return Ok(Self(raw.get().into()));
        }
        let text: Cow<'_, str> = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        match text.strip_prefix(BASE64_PREFIX) {
            Some(encoded) => BASE64.decode(encoded).map(Self).map_err(serde::de::Error::custom),
            None => Ok(Self(text.into_owned().into_bytes())),
        }
    }
}

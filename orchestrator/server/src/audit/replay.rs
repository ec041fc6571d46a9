//! The fold of one shard again: what it enters into the journal, and what it sends.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sagamore_decider::checkpoint::StateRecord;
use sagamore_decider::identity::Identity;
use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::rebuild::StateImage;
use sagamore_decider::restore::Restored;
use sagamore_decider::shard::Shard;
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{CHECKPOINT_KEY, Digest128, Digest256, Sealed};
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use sagamore_schemas::wire::{Input, read_input};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::checkpointer::Skip;
use crate::halt::panic_text;

/// Inputs after which the entries of the journal are taken out of the shard.
const TAKEN_EVERY: i64 = 8_192;

/// Why a fold does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A defect, or a damaged record: the owner has halted there, too (SAG-004).
    #[error(
        "inbox {partition}/{offset}: the fold panics: {cause}. Its shard halts there until it is skipped"
    )]
    Panic {
        /// The shard.
        partition: i32,
        /// The record.
        offset: i64,
        /// What the panic says.
        cause: String,
    },
    /// Another binary is needed.
    #[error("inbox {partition}/{offset}: the level was raised to {level}, which this binary does not know")]
    Level {
        /// The shard.
        partition: i32,
        /// The record.
        offset: i64,
        /// The level.
        level: u32,
    },
    /// Not what the fold writes: a defect.
    #[error("an entry of the fold is not understood: {0}")]
    Entry(#[from] serde_json::Error),
}

/// An entry of the journal, by its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entered {
    /// Inbox offset of its input.
    pub offset: i64,
    /// Its number among those of that input.
    pub sequence: u32,
    /// The fold's clock at the input.
    pub at: Time,
    /// The chain up to it.
    pub chain: Digest256,
}

/// An output, by what it is.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// Hash of topic, key and value.
    pub content: Digest128,
    /// Hash of its id.
    pub name: Digest128,
    /// Inbox offset of its cause.
    pub cause: i64,
    /// When that was, by the broker.
    pub at: Time,
    /// The shard.
    pub partition: i32,
}

/// A fold under way.
pub struct Replay {
    shard: Shard,
    prefix: Prefix,
    partition: i32,
    /// Records that operators have passed over.
    skips: BTreeMap<i64, Skip>,
    taken: i64,
    replayed: ReplayedShard,
    scratch: Vec<Output>,
    wanted: Wanted,
    topics: BTreeMap<Destination, String>,
}

/// What of a fold is kept in words, not as a digest alone.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Entries, by offset and sequence.
    pub entries: BTreeSet<(i64, u32)>,
    /// Outputs, by content.
    pub outputs: BTreeSet<Digest128>,
    /// All that a state topic would hold.
    pub state: bool,
    /// Whether the snapshots that are passed say the same.
    pub snapshots: bool,
}

/// What a fold has said.
#[derive(Debug, Default)]
pub struct ReplayedShard {
    /// Inbox offset at which it began.
    pub begins: i64,
    /// The journal's chain there.
    pub chain: Digest256,
    /// Entries, in the order of the log.
    pub entries: Vec<Entered>,
    /// Outputs, in the order in which they were said.
    pub said: Vec<Said>,
    /// Names of commands that could not be delivered, and are known to be.
    pub undeliverable: Vec<Digest128>,
    /// Inputs.
    pub inputs: u64,
    /// Texts of entries that were wanted.
    pub texts: BTreeMap<(i64, u32), String>,
    /// Outputs that were wanted.
    pub outputs: Vec<Output>,
    /// What a state topic would hold, if that was wanted; of the last inputs not all.
    pub state: StateImage,
}

impl Replay {
    /// From the beginning of an inbox partition.
    pub fn new(identity: Identity, prefix: Prefix, skips: BTreeMap<i64, Skip>, wanted: Wanted) -> Self {
        Self::of(Shard::new(identity), prefix, skips, wanted)
    }

    /// On from a snapshot, which has these records.
    pub fn on_from(
        restored: Restored,
        records: &[StateRecord],
        prefix: Prefix,
        skips: BTreeMap<i64, Skip>,
        wanted: Wanted,
    ) -> Self {
        let Restored { shard, owed, applied: _ } = restored;
        let (cause, at) = (shard.next_offset() - 1, shard.clock());
        let mut replay = Self::of(shard, prefix, skips, wanted);
        // What was owed is said by what came before, and is found in its topic behind it.
        replay.scratch = owed;
        replay.hear(cause, at);
        if replay.wanted.state {
            replay
                .replayed
                .state
                .write(records.iter().filter(|record| record.key != CHECKPOINT_KEY).cloned());
        }
        replay
    }

    fn of(shard: Shard, prefix: Prefix, skips: BTreeMap<i64, Skip>, wanted: Wanted) -> Self {
        let (partition, begins) = (shard.identity().partition.0, shard.next_offset());
        let chain = shard.journal().head().hash;
        Self {
            shard,
            prefix,
            partition,
            skips,
            taken: begins,
            replayed: ReplayedShard { begins, chain, ..ReplayedShard::default() },
            scratch: Vec::new(),
            wanted,
            topics: BTreeMap::new(),
        }
    }

    /// The next record. After an error it is of no use any more.
    pub fn apply(
        &mut self,
        record: &Record<'_>,
        see: &mut dyn FnMut(&Record<'_>, &[Output]),
    ) -> Result<(), ReplayError> {
        let (partition, offset) = (self.partition, record.offset);
        if let Some(skip) = self.skips.get(&offset) {
            self.shard.skip(record, &skip.authority());
        } else {
            let (shard, scratch) = (&mut self.shard, &mut self.scratch);
            catch_unwind(AssertUnwindSafe(|| shard.apply(record, scratch))).map_err(|panic| {
                let cause = panic_text(&*panic);
                ReplayError::Panic { partition, offset, cause }
            })?;
        }
        if !self.shard.is_understood() {
            return Err(ReplayError::Level { partition, offset, level: self.shard.level() });
        }
        self.replayed.inputs += 1;
        see(record, &self.scratch);
        self.hear(offset, self.shard.clock());
        if let Some(value) = record.value.filter(|value| contains(value, b"undeliverable"))
            && let Ok(Input::Undeliverable(lost)) = read_input(Some(value))
        {
            self.replayed.undeliverable.push(name_of(lost.address.command_id().as_bytes()));
        }
        if self.shard.next_offset() - self.taken >= TAKEN_EVERY {
            self.take()?;
        }
        Ok(())
    }

    fn hear(&mut self, cause: i64, at: Time) {
        let partition = self.partition;
        for output in self.scratch.drain(..) {
            let topic = self
                .topics
                .entry(output.destination.clone())
                .or_insert_with(|| topic_of(&self.prefix, &output.destination));
            let (content, name) = digests(topic, &output);
            self.replayed.said.push(Said { content, name, cause, at, partition });
            if self.wanted.outputs.contains(&content) {
                self.replayed.outputs.push(output);
            }
        }
    }

    /// The shard as it is by now.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// What it has said.
    pub fn finish(mut self) -> Result<(ReplayedShard, Shard), ReplayError> {
        self.take()?;
        Ok((self.replayed, self.shard))
    }

    /// A checkpoint that nobody writes: with it the entries leave the shard.
    fn take(&mut self) -> Result<(), ReplayError> {
        let Some(draft) = self.shard.draft(self.taken) else { return Ok(()) };
        self.taken = self.shard.next_offset();
        let before = self.replayed.entries.len();
        let checkpoint = self.shard.complete(draft, &[]);
        if self.wanted.state {
            self.replayed.state.write(checkpoint.state);
        }
        for (_, record) in checkpoint.journal {
            for sealed in serde_json::from_slice::<Vec<Sealed>>(&record)? {
                let Place { offset, sequence, at } = Place::of(sealed.entry.get())?;
                self.replayed.entries.push(Entered { offset, sequence, at, chain: sealed.chain });
                if self.wanted.entries.contains(&(offset, sequence)) {
                    self.replayed.texts.insert((offset, sequence), sealed.entry.get().to_owned());
                }
            }
        }
        self.replayed.entries[before..].sort_unstable();
        Ok(())
    }
}

/// The name of an output's topic.
fn topic_of(prefix: &Prefix, destination: &Destination) -> String {
    match destination {
        Destination::Commands(participant) => command_topic(prefix, participant),
        Destination::Inbox(_) => Topic::Inbox.name(prefix),
        Destination::Outcomes => Topic::Outcomes.name(prefix),
        Destination::DeadLetters => Topic::DeadLetters.name(prefix),
    }
}

fn digests(topic: &str, output: &Output) -> (Digest128, Digest128) {
    let value = output.value.as_deref();
    let headers: Vec<(&str, &[u8])> =
        output.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    (content_of(topic, output.key.as_deref(), value, &headers), id_of(value, &headers))
}

/// What a record is. The headers count where there are other ones than the content type: at dead letters.
pub fn content_of(
    topic: &str,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, &[u8])],
) -> Digest128 {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        hash.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(Some(topic.as_bytes()));
    part(key);
    part(value);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "content-type") {
        part(Some(name.as_bytes()));
        part(Some(value));
    }
    Digest256(hash.finalize().into()).half()
}

/// How a record is called: by its place in the inbox, if it is a dead letter, otherwise by its id.
pub fn id_of(value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Digest128 {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: std::borrow::Cow<'a, str>,
    }
    let header = |name: &str| {
        let found = headers.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value).unwrap_or_default()
    };
    let offset = header("__dlq.errors.offset");
    if !offset.is_empty() {
        return name_of(&[b"dead ", header("__dlq.errors.partition"), b"/", offset].concat());
    }
    let value = value.unwrap_or_default();
    match serde_json::from_slice::<Named<'_>>(value) {
        Ok(Named { id }) => name_of(id.as_bytes()),
        Err(_) => name_of(value),
    }
}

fn name_of(id: &[u8]) -> Digest128 {
    Digest128::of(id)
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// Inbox offset of its input.
    pub offset: i64,
    /// Its number among those of that input.
    pub sequence: u32,
    /// The fold's clock at the input.
    pub at: Time,
}

impl Place {
    /// From the text of an entry.
    pub fn of(entry: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(entry)
    }
}

fn contains(value: &[u8], word: &[u8]) -> bool {
    value.windows(word.len()).any(|window| window == word)
}

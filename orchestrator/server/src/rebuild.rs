//! Writes the state of a shard anew, from its inbox: for what cannot be proved any more (SAG-001).
//!
//! ```text
//!  1  fence the owner; a barrier in state and journal      nobody else writes from here on
//!  2  read the state up to the barrier                     X: what its newest \0checkpoint has folded in
//!  3  fold on to X, from the newest snapshot before it     must agree with that \0checkpoint, chain and all
//!  4  one checkpoint, in one Kafka transaction             proved, as a takeover proves it, before it is written
//! ```
//! Without a `\0checkpoint` the journal says how far outputs had been acknowledged, for its entries come with checkpoints.
//! Outputs of inputs before X are in their topics then, unless they were owed: whatever the fold has said and no topic has is
//! owed again. A server that has halted on the shard leaves it alone until it is restarted. One that runs it is fenced, and
//! takes it over again: if that is before the rebuild is done, the rebuild is fenced in turn and changes nothing.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::message::{Headers, Message};
use sagamore_decider::checkpoint::Checkpoint;
use sagamore_decider::output::Output;
use sagamore_decider::rebuild::contradiction;
use sagamore_decider::restore::{RestoreError, StateReader};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::log::{AS_OF, BARRIER_KEY, BarrierRecord, CHECKPOINT_KEY, CheckpointRecord, Digest128};
use sagamore_schemas::topics::Topic;
use serde::Serialize;
use uuid::Uuid;

use crate::audit::{
    AuditError, Began, Begin, Entries, Folder, Folding, Kind, Origin, Outputs, ReplayedShard, Wanted, read,
    sent, stretches,
};
use crate::checkpointer::{CheckpointProducer, Failure};
use crate::site::Site;
use crate::snapshots::Found;

/// How long our own barrier is looked for.
const BARRIER_WITHIN: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Why a state is not rebuilt. Nothing of it is written then.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The topics cannot be read, or not be folded.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A Kafka transaction did not come to its end.
    #[error("the state of shard {partition} is as it was, or rebuilt: {reason}. Rebuild it once more")]
    Indefinite {
        /// The shard.
        partition: i32,
        /// Why.
        reason: String,
    },
    /// Somebody takes it over all the time.
    #[error(
        "a server has taken shard {0} over meanwhile, so nothing was rebuilt: where a server runs it, it is healthy; to \
         rebuild it all the same, stop the servers"
    )]
    Fenced(i32),
    /// The fold stops before it gets there.
    #[error("the fold does not come to offset {x}: {cause}")]
    Stopped {
        /// Where it should end.
        x: i64,
        /// Why it does not.
        cause: String,
    },
    /// The inbox is not the one that the checkpoint was made of.
    #[error(
        "the fold up to offset {x} says something else than the last checkpoint: {what}. Is it the same inbox, and were \
         its servers not newer? `sagamore audit verify` names what is different"
    )]
    Contradiction {
        /// Where.
        x: i64,
        /// What is different.
        what: &'static str,
    },
    /// The journal has what the fold does not say.
    #[error("the journal of shard {0} is not what the fold says: `sagamore audit verify` names the entries")]
    Journal(i32),
    /// A defect: it would not be taken over.
    #[error("what was rebuilt does not prove itself: {0}")]
    Unproved(RestoreError),
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct Rebuilt {
    /// Where the fold began.
    #[serde(flatten)]
    pub began: Began,
    /// X: where its next owner begins.
    pub next_offset: i64,
    /// Whether a checkpoint said that; otherwise the journal.
    pub by_checkpoint: bool,
    /// Inputs folded.
    pub inputs: u64,
    /// Open transactions.
    pub open: usize,
    /// Records of the state that were written, tombstones counted.
    pub records: usize,
    /// Keys that stood there and did not belong there.
    pub removed: usize,
    /// Outputs that are owed: the next owner sends them.
    pub owed: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What the state topic holds.
struct Present {
    records: Vec<Entry>,
    /// The last checkpoint, if it can be read.
    head: Option<CheckpointRecord>,
}

/// A record as it stands there.
struct Entry {
    key: Vec<u8>,
    as_of: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// Rebuilds shard `partition`. `author` is who, and why, for those who read the topics.
pub fn rebuild(
    site: &Site,
    partition: i32,
    author: String,
    how: Folding<'_>,
) -> Result<Rebuilt, RebuildError> {
    let begun = Instant::now();
    let folder = Folder::new(site, how)?;
    let inbox = folder.inbox_of(partition)?;
    let failed = |failure| match failure {
        Failure::Fenced => RebuildError::Fenced(partition),
        Failure::Indefinite(reason) => RebuildError::Indefinite { partition, reason },
        Failure::Halt(halt) => RebuildError::Indefinite { partition, reason: halt.reason },
    };
    let instance = folder.identity(partition).instance;
    let producer = CheckpointProducer::new(site, instance, partition).map_err(failed)?;
    producer.fence().map_err(failed)?;
    let barrier = BarrierRecord { token: Uuid::new_v4(), owner: author };
    let Ok(value) = serde_json::to_vec(&barrier) else { unreachable!("a barrier is JSON") };
    producer.write_barrier(&value).map_err(failed)?;
    let present = read_state(site, partition, &barrier)?;

    let is_before =
        |found: &Found| present.head.as_ref().is_none_or(|head| found.part.next_offset <= head.next_offset);
    let origin = folder.origin(&inbox, &Begin::Before(&is_before))?;
    let settled = present.head.as_ref().filter(|head| head.owed == 0).map(|head| head.next_offset);
    let (x, lost) = match settled {
        Some(x) => (x, BTreeSet::new()),
        None => what_was_lost(site, &folder, &origin, present.head.as_ref(), how.threads)?,
    };
    let origin = origin.up_to(x);
    let wanted = Wanted { outputs: lost, state: true, ..Wanted::default() };
    let mut fold = folder.fold(&origin, None, &wanted, origin.stretch.span())?;
    if let Some(cause) = fold.stopped {
        return Err(RebuildError::Stopped { x, cause });
    }
    let owed: Vec<&Output> = fold.replayed.outputs.iter().collect();
    let keys: BTreeSet<Vec<u8>> = present.records.iter().map(|entry| entry.key.clone()).collect();
    let checkpoint = fold.replayed.state.finish(&mut fold.shard, &keys, &owed);
    if let Some(what) = present.head.as_ref().and_then(|head| contradiction(head, &checkpoint)) {
        return Err(RebuildError::Contradiction { x, what });
    }
    prove(&folder, partition, &present, &checkpoint).map_err(RebuildError::Unproved)?;
    producer.write(&checkpoint).map_err(failed)?;
    Ok(Rebuilt {
        began: origin.began(),
        next_offset: checkpoint.next_offset,
        by_checkpoint: present.head.is_some(),
        inputs: fold.replayed.inputs,
        open: fold.shard.open_count(),
        records: checkpoint.state.len() + 1,
        removed: checkpoint.state.iter().filter(|record| record.value.is_none()).count(),
        owed: owed.len(),
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Everything up to our own barrier, which may become visible a little later than it was committed.
fn read_state(site: &Site, partition: i32, barrier: &BarrierRecord) -> Result<Present, RebuildError> {
    let name = site.topic(Topic::State);
    let begun = Instant::now();
    loop {
        let all = stretches(site, |topic| topic == name).map_err(AuditError::from)?;
        let stretch = all.into_iter().find(|stretch| stretch.partition == partition);
        let stretch = stretch.ok_or(AuditError::NoShard(partition))?;
        let mut present = Present { records: Vec::new(), head: None };
        let mut is_whole = false;
        read(site, &stretch, Isolation::ReadCommitted, |message| {
            let (key, value) = (message.key().unwrap_or_default(), message.payload());
            let own =
                |value| serde_json::from_slice(value).is_ok_and(|found: BarrierRecord| found == *barrier);
            is_whole = key == BARRIER_KEY && value.is_some_and(own);
            if key == CHECKPOINT_KEY {
                // One before it would be older than what has been sent.
                present.head = value.and_then(|value| serde_json::from_slice(value).ok());
            }
            let as_of =
                message.headers().and_then(|headers| headers.iter().find(|header| header.key == AS_OF));
            let as_of = as_of.and_then(|header| header.value).map(<[u8]>::to_vec);
            present.records.push(Entry { key: key.to_vec(), as_of, value: value.map(<[u8]>::to_vec) });
            !is_whole
        })
        .map_err(AuditError::from)?;
        if is_whole {
            return Ok(present);
        }
        if begun.elapsed() > BARRIER_WITHIN {
            let reason = "the state topic does not show our own barrier".to_owned();
            return Err(RebuildError::Indefinite { partition, reason });
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// X, and the outputs before it that are in no topic.
fn what_was_lost(
    site: &Site,
    folder: &Folder<'_>,
    origin: &Origin,
    head: Option<&CheckpointRecord>,
    threads: usize,
) -> Result<(i64, BTreeSet<Digest128>), RebuildError> {
    let fold = folder.fold(origin, None, &Wanted::default(), origin.stretch.span())?;
    let x = match head {
        Some(head) => head.next_offset,
        None => folded_in(site, fold.partition, &fold.replayed)?,
    };
    let undeliverable = fold.replayed.undeliverable.iter().copied().collect();
    let said = fold.replayed.said.into_iter().filter(|said| said.cause < x).collect();
    let outputs = Outputs::new(said, undeliverable);
    let begins = sent(site, &outputs, threads).map_err(AuditError::from)?;
    let lost = outputs.not_found().filter(|said| begins.is_none_or(|begins| said.at >= begins));
    Ok((x, lost.map(|said| said.content).collect()))
}

/// X by the journal: what a checkpoint has folded in, it has entered there.
fn folded_in(site: &Site, partition: i32, said: &ReplayedShard) -> Result<i64, RebuildError> {
    let name = site.topic(Topic::Journal);
    let journals = stretches(site, |topic| topic == name).map_err(AuditError::from)?;
    let journal = journals.into_iter().find(|stretch| stretch.partition == partition);
    let journal = journal.ok_or(AuditError::NoShard(partition))?;
    let mut entries = Entries::new(said);
    // A snapshot is of a checkpoint.
    let mut end = said.begins;
    let mut is_wrong = false;
    read(site, &journal, Isolation::ReadCommitted, |message| {
        for found in entries.see(message.payload().unwrap_or_default()) {
            end = end.max(found.place.offset + 1);
            is_wrong |= matches!(found.kind, Kind::Different | Kind::Extra);
        }
        true
    })
    .map_err(AuditError::from)?;
    if is_wrong {
        return Err(RebuildError::Journal(partition));
    }
    // Of a checkpoint that was committed in part, entries are missing in the middle.
    let missing = entries.not_found(end, journal.low == 0).filter(|(kind, _)| *kind == Kind::Missing);
    Ok(missing.map(|(_, entry)| entry.offset).min().unwrap_or(end))
}

/// As the next owner will.
fn prove(
    folder: &Folder<'_>,
    partition: i32,
    present: &Present,
    checkpoint: &Checkpoint,
) -> Result<(), RestoreError> {
    let mut reader = StateReader::default();
    for Entry { key, as_of, value } in &present.records {
        reader.read(key, as_of.as_deref(), value.as_deref());
    }
    for record in checkpoint.state.iter().chain([&checkpoint.last]) {
        let as_of = record.as_of.to_string();
        reader.read(&record.key, Some(as_of.as_bytes()), record.value.as_deref());
    }
    reader.finish(folder.identity(partition)).map(|_| ())
}

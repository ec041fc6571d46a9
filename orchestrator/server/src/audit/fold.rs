//! A shard folded again from its inbox, up to its end or to where one wants to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::message::Message;
use sagamore_decider::identity::{Identity, ReplySecret};
use sagamore_decider::output::{Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_decider::takeover::{TakeoverError, check_secret};
use sagamore_kafka::client::Isolation;
use sagamore_kafka::topics::Instance;
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::log::Digest128;
use sagamore_schemas::topics::Topic;
use serde::Serialize;

use super::proofs::{Proof, Proofs};
use super::replay::{Replay, ReplayError, ReplayedShard, Wanted, content_of};
use super::topics::{Stretch, in_parallel, read, stretches};
use crate::checkpointer::{Skip, headers_of, timestamp_ms};
use crate::site::{Site, SiteError};
use crate::snapshots::{Found, PassedOver, Snapshot, Snapshots};

/// Records after which progress is told.
pub(super) const PROGRESS_EVERY: u64 = 1_000;

/// Hears how many records more were read, of how many in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// How shards are folded.
#[derive(Clone, Copy)]
pub struct Folding<'a> {
    /// The secret under which reply tokens are made.
    pub secret: Option<&'a ReplySecret>,
    /// Whether a fold may begin at a snapshot.
    pub snapshots: bool,
    /// Shards and topics at a time.
    pub threads: usize,
    /// Who hears how far it is.
    pub progress: Progress<'a>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The topics cannot be read.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Nothing to begin at.
    #[error(
        "inbox {partition} begins at offset {low}: what came before is not retained, and {why}{passed_over}",
        passed_over = told(.passed_over)
    )]
    InboxCut {
        /// The shard.
        partition: i32,
        /// Its first offset.
        low: i64,
        /// Why no snapshot is used.
        why: &'static str,
        /// Snapshots that are of no use.
        passed_over: Vec<PassedOver>,
    },
    /// There is no such shard.
    #[error("the inbox has no partition {0}")]
    NoShard(i32),
    /// What was sent cannot be told again without it.
    #[error("{0}: give --reply-token-secret-file")]
    Secret(TakeoverError),
    /// The fold does not go on.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

fn told(passed_over: &[PassedOver]) -> String {
    let line = |one: &PassedOver| {
        format!("\nsnapshot {} of offset {} is of no use: {}", one.place, one.next_offset, one.cause)
    };
    passed_over.iter().map(line).collect()
}

/// Where a fold is to begin.
pub enum Begin<'p> {
    /// Where the inbox begins; if that was trimmed, at the oldest snapshot.
    Whole,
    /// At the newest snapshot that suits; without one like [`Self::Whole`].
    Late(Suits<'p>),
    /// The same; but without one where the inbox begins, or nowhere.
    Before(Suits<'p>),
}

/// Which snapshots.
pub type Suits<'p> = &'p (dyn Fn(&Found) -> bool + Sync);

/// Where a fold begins and ends.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What is folded of the inbox.
    pub stretch: Stretch,
    /// What it begins at.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What it does not begin at, and why.
    pub passed_over: Vec<PassedOver>,
}

/// Where a fold began, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Began {
    /// The shard.
    pub partition: i32,
    /// The first inbox offset that was folded.
    pub at: i64,
    /// The clock of the snapshot it began at; none at the beginning of the inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Time>,
    /// Snapshots that would have been used, and why they were not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
}

impl Origin {
    /// Where it begins.
    pub fn began(&self) -> Began {
        Began {
            partition: self.stretch.partition,
            at: self.stretch.low,
            snapshot: self.snapshot.as_ref().map(|snapshot| snapshot.found.part.clock),
            passed_over: self.passed_over.clone(),
        }
    }

    /// The same, up to another end.
    pub fn up_to(&self, end: i64) -> Self {
        Self { stretch: Stretch { end, ..self.stretch.clone() }, ..self.clone() }
    }
}

/// Folds the shards of an installation.
pub struct Folder<'a> {
    site: &'a Site,
    how: Folding<'a>,
    instance: Instance,
}

/// A shard that was folded.
pub struct Fold {
    /// Which one.
    pub partition: i32,
    /// Where it began and was to end.
    pub origin: Origin,
    /// The shard as it is there.
    pub shard: Shard,
    /// What it has said.
    pub replayed: ReplayedShard,
    /// Why the fold does not go on.
    pub stopped: Option<String>,
    /// What stands in this inbox.
    pub found: Vec<Digest128>,
    /// Records that operators have passed over.
    pub skips: BTreeMap<i64, Skip>,
    /// Snapshots, and whether they say the same; if that was wanted.
    pub proofs: Vec<Proof>,
}

/// What was made of a shard, and how far.
pub struct Attempted<T> {
    /// What was made.
    pub made: T,
    /// Why it does not go on.
    pub stopped: Option<String>,
    /// Records that operators have passed over.
    pub skips: BTreeMap<i64, Skip>,
}

impl<'a> Folder<'a> {
    /// Of the installation at `site`.
    pub fn new(site: &'a Site, how: Folding<'a>) -> Result<Self, AuditError> {
        Ok(Self { site, how, instance: site.instance()? })
    }

    /// The partitions of the inbox, as far as they are there.
    pub fn inbox(&self) -> Result<Vec<Stretch>, AuditError> {
        let name = self.site.topic(Topic::Inbox);
        Ok(stretches(self.site, |topic| topic == name)?)
    }

    /// One of them.
    pub fn inbox_of(&self, partition: i32) -> Result<Stretch, AuditError> {
        let found = self.inbox()?.into_iter().find(|stretch| stretch.partition == partition);
        found.ok_or(AuditError::NoShard(partition))
    }

    /// Where a fold of this partition begins.
    pub fn origin(&self, stretch: &Stretch, begin: &Begin<'_>) -> Result<Origin, AuditError> {
        let Stretch { partition, low, end, .. } = *stretch;
        let mut passed_over = Vec::new();
        let mut found = None;
        if self.how.snapshots && (low > 0 || !matches!(begin, Begin::Whole)) {
            let snapshots = Snapshots::new(self.site, self.identity(partition))?;
            let is_within = |found: &Found| (low..=end).contains(&found.part.next_offset);
            if let Begin::Late(suits) | Begin::Before(suits) = begin {
                found = snapshots.newest(|found| is_within(found) && suits(found), &mut passed_over)?;
            }
            if found.is_none() && low > 0 && !matches!(begin, Begin::Before(_)) {
                passed_over.clear();
                found = snapshots.oldest(low, &mut passed_over)?;
            }
        }
        let stretch = stretch.clone();
        match found {
            Some(snapshot) => {
                let low = snapshot.found.part.next_offset;
                let stretch = Stretch { low, ..stretch };
                Ok(Origin { stretch, snapshot: Some(Arc::new(snapshot)), passed_over })
            }
            None if low == 0 => Ok(Origin { stretch, snapshot: None, passed_over }),
            None => {
                let why = if self.how.snapshots {
                    "no snapshot is there to begin at instead"
                } else {
                    "no snapshot is to be used"
                };
                Err(AuditError::InboxCut { partition, low, why, passed_over })
            }
        }
    }

    /// Folds each, and keeps what `keep` makes of it.
    pub fn fold_all<T: Send>(
        &self,
        inbox: &[Stretch],
        begin: &Begin<'_>,
        until: Option<Time>,
        wanted: &Wanted,
        keep: impl Fn(Fold) -> T + Sync,
    ) -> Result<Vec<T>, AuditError> {
        let total: u64 = inbox.iter().map(Stretch::span).sum();
        let mut folds = in_parallel(inbox, self.how.threads, |stretch| {
            let origin = self.origin(stretch, begin)?;
            self.fold(&origin, until, wanted, total).map(|fold| (fold.partition, keep(fold)))
        })?;
        folds.sort_by_key(|(partition, _)| *partition);
        Ok(folds.into_iter().map(|(_, kept)| kept).collect())
    }

    /// Up to the end of the stretch, or to the first record after `until`, or to a record that nobody has passed over.
    pub fn fold(
        &self,
        origin: &Origin,
        until: Option<Time>,
        wanted: &Wanted,
        total: u64,
    ) -> Result<Fold, AuditError> {
        let attempt = |origin: &Origin, skips: &BTreeMap<i64, Skip>| {
            self.fold_once(origin, until, skips.clone(), wanted.clone(), total, &mut |_, _| {})
        };
        let Attempted { made, stopped, skips } = self.over_skips(origin, attempt)?;
        Ok(Fold { stopped, skips, ..made })
    }

    /// Tries until a fold comes to its end: over what operators have passed over, or up to what nobody has.
    pub fn over_skips<T>(
        &self,
        origin: &Origin,
        attempt: impl Fn(&Origin, &BTreeMap<i64, Skip>) -> Result<T, AuditError>,
    ) -> Result<Attempted<T>, AuditError> {
        let mut skips = BTreeMap::new();
        let mut origin = origin.clone();
        let mut stopped = None;
        loop {
            match attempt(&origin, &skips) {
                Err(AuditError::Replay(ReplayError::Panic { partition, offset, cause })) => {
                    // What panicked is of no use any more: once more, over it or up to it.
                    if let Some(skip) = self.skip_of(partition, offset)? {
                        skips.insert(offset, skip);
                    } else {
                        stopped = Some(ReplayError::Panic { partition, offset, cause }.to_string());
                        origin.stretch.end = offset;
                    }
                }
                Err(AuditError::Replay(error @ ReplayError::Level { offset, .. })) => {
                    stopped = Some(error.to_string());
                    origin.stretch.end = offset;
                }
                made => return made.map(|made| Attempted { made, stopped, skips }),
            }
        }
    }

    /// The same, when it is known what is passed over, keeping what is `wanted`; `see` sees each record, and what was said.
    pub fn fold_once(
        &self,
        origin: &Origin,
        until: Option<Time>,
        skips: BTreeMap<i64, Skip>,
        wanted: Wanted,
        total: u64,
        see: &mut dyn FnMut(&Record<'_>, &[Output]),
    ) -> Result<Fold, AuditError> {
        let stretch = &origin.stretch;
        let identity = self.identity(stretch.partition);
        let mut proofs = Proofs::new(self.site, &identity, stretch, wanted.snapshots)?;
        let prefix = self.site.prefix.clone();
        let mut replay = match &origin.snapshot {
            None => Replay::new(identity, prefix, skips, wanted),
            Some(snapshot) => match snapshot.restore(identity) {
                Ok(restored) => Replay::on_from(restored, &snapshot.records, prefix, skips, wanted),
                Err(error) => unreachable!("it was restored when it was found: {error}"),
            },
        };
        let mut found = Vec::new();
        let mut wrong: Option<AuditError> = None;
        let mut read_since = 0;
        read(self.site, stretch, Isolation::ReadUncommitted, |message| {
            let timestamp = Time::from_epoch_ms(timestamp_ms(message.timestamp()));
            if until.is_some_and(|until| timestamp > until) {
                return false;
            }
            let headers = headers_of(message);
            let (key, value) = (message.key(), message.payload());
            let record = Record { offset: message.offset(), timestamp, key, value, headers: &headers };
            found.push(content_of(&stretch.topic, key, value, &headers));
            let applied = replay.apply(&record, see).map_err(AuditError::from);
            let passed = applied.and_then(|()| Ok(proofs.pass(replay.shard())?));
            wrong = passed.err();
            read_since += 1;
            if read_since == PROGRESS_EVERY {
                (self.how.progress)(std::mem::take(&mut read_since), total);
            }
            wrong.is_none()
        })?;
        (self.how.progress)(read_since, total);
        if let Some(error) = wrong {
            return Err(error);
        }
        let (replayed, shard) = replay.finish()?;
        check_secret(shard.settings(), self.how.secret).map_err(AuditError::Secret)?;
        let (partition, origin, proofs) = (stretch.partition, origin.clone(), proofs.finish());
        Ok(Fold { partition, origin, shard, replayed, stopped: None, found, skips: BTreeMap::new(), proofs })
    }

    /// Who the shard is.
    pub fn identity(&self, partition: i32) -> Identity {
        let Instance { instance, partitions, .. } = self.instance;
        let inbox = self.site.topic(Topic::Inbox);
        let partitions = i32::from(partitions.get());
        Identity::new(instance, Partition(partition), partitions, inbox, self.how.secret.cloned())
    }

    /// Whether an operator has passed over this record, later in the same inbox: also behind where a fold is to end.
    fn skip_of(&self, partition: i32, offset: i64) -> Result<Option<Skip>, AuditError> {
        let after = Stretch { low: offset + 1, ..self.inbox_of(partition)? };
        let mut found = None;
        read(self.site, &after, Isolation::ReadUncommitted, |message| {
            found = Skip::read(message.payload()).filter(|skip| skip.offset == offset);
            found.is_none()
        })?;
        Ok(found)
    }
}

/// A set of places of entries.
pub type Places = BTreeSet<(i64, u32)>;

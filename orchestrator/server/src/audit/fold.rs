//! A shard folded again from its inbox, up to its end or to where one wants to know.

use std::collections::{BTreeMap, BTreeSet};

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

use super::replay::{Replay, ReplayError, ReplayedShard, Wanted, content_of};
use super::topics::{Stretch, in_parallel, read, stretches};
use crate::checkpointer::{Skip, headers_of, timestamp_ms};
use crate::site::{Site, SiteError};

/// Records after which progress is told.
pub(super) const PROGRESS_EVERY: u64 = 1_000;

/// Hears how many records more were read, of how many in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The topics cannot be read.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// A fold begins where the inbox begins.
    #[error("inbox {partition} begins at offset {low}: what came before is gone, and a fold needs it")]
    InboxCut {
        /// The shard.
        partition: i32,
        /// Its first offset.
        low: i64,
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

/// Folds the shards of an installation.
pub struct Folder<'a> {
    site: &'a Site,
    secret: Option<&'a ReplySecret>,
    instance: Instance,
    progress: Progress<'a>,
}

/// A shard that was folded.
pub struct Fold {
    /// Which one.
    pub partition: i32,
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
    pub fn new(
        site: &'a Site,
        secret: Option<&'a ReplySecret>,
        progress: Progress<'a>,
    ) -> Result<Self, AuditError> {
        Ok(Self { site, secret, instance: site.instance()?, progress })
    }

    /// The partitions of the inbox, whole.
    pub fn inbox(&self) -> Result<Vec<Stretch>, AuditError> {
        let name = self.site.topic(Topic::Inbox);
        let inbox = stretches(self.site, |topic| topic == name)?;
        match inbox.iter().find(|stretch| stretch.low > 0) {
            Some(cut) => Err(AuditError::InboxCut { partition: cut.partition, low: cut.low }),
            None => Ok(inbox),
        }
    }

    /// One of them.
    pub fn inbox_of(&self, partition: i32) -> Result<Stretch, AuditError> {
        let found = self.inbox()?.into_iter().find(|stretch| stretch.partition == partition);
        found.ok_or(AuditError::NoShard(partition))
    }

    /// Folds each, by so many threads, and keeps what `keep` makes of it.
    pub fn fold_all<T: Send>(
        &self,
        inbox: &[Stretch],
        threads: usize,
        until: Option<Time>,
        keep: impl Fn(Fold) -> T + Sync,
    ) -> Result<Vec<T>, AuditError> {
        let total: u64 = inbox.iter().map(Stretch::span).sum();
        let mut folds = in_parallel(inbox, threads, |stretch| {
            self.fold(stretch, until, &Wanted::default(), total).map(|fold| (fold.partition, keep(fold)))
        })?;
        folds.sort_by_key(|(partition, _)| *partition);
        Ok(folds.into_iter().map(|(_, kept)| kept).collect())
    }

    /// Up to the end of the stretch, or to the first record after `until`, or to a record that nobody has passed over.
    pub fn fold(
        &self,
        stretch: &Stretch,
        until: Option<Time>,
        wanted: &Wanted,
        total: u64,
    ) -> Result<Fold, AuditError> {
        let attempt = |stretch: &Stretch, skips: &BTreeMap<i64, Skip>| {
            self.fold_once(stretch, until, skips.clone(), wanted.clone(), total, &mut |_, _| {})
        };
        let Attempted { made, stopped, skips } = self.over_skips(stretch, attempt)?;
        Ok(Fold { stopped, skips, ..made })
    }

    /// Tries until a fold comes to its end: over what operators have passed over, or up to what nobody has.
    pub fn over_skips<T>(
        &self,
        stretch: &Stretch,
        attempt: impl Fn(&Stretch, &BTreeMap<i64, Skip>) -> Result<T, AuditError>,
    ) -> Result<Attempted<T>, AuditError> {
        let mut skips = BTreeMap::new();
        let mut stretch = stretch.clone();
        let mut stopped = None;
        loop {
            match attempt(&stretch, &skips) {
                Err(AuditError::Replay(ReplayError::Panic { partition, offset, cause })) => {
                    // What panicked is of no use any more: once more, over it or up to it.
                    if let Some(skip) = self.skip_of(partition, offset)? {
                        skips.insert(offset, skip);
                    } else {
                        stopped = Some(ReplayError::Panic { partition, offset, cause }.to_string());
                        stretch.end = offset;
                    }
                }
                Err(AuditError::Replay(error @ ReplayError::Level { offset, .. })) => {
                    stopped = Some(error.to_string());
                    stretch.end = offset;
                }
                made => return made.map(|made| Attempted { made, stopped, skips }),
            }
        }
    }

    /// The same, when it is known what is passed over, keeping what is `wanted`; `see` sees each record, and what was said.
    pub fn fold_once(
        &self,
        stretch: &Stretch,
        until: Option<Time>,
        skips: BTreeMap<i64, Skip>,
        wanted: Wanted,
        total: u64,
        see: &mut dyn FnMut(&Record<'_>, &[Output]),
    ) -> Result<Fold, AuditError> {
        let identity = self.identity(stretch.partition);
        let mut replay = Replay::new(identity, self.site.prefix.clone(), skips, wanted);
        let mut found = Vec::new();
        let mut wrong = None;
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
            wrong = replay.apply(&record, see).err();
            read_since += 1;
            if read_since == PROGRESS_EVERY {
                (self.progress)(std::mem::take(&mut read_since), total);
            }
            wrong.is_none()
        })?;
        (self.progress)(read_since, total);
        if let Some(error) = wrong {
            return Err(error.into());
        }
        let (replayed, shard) = replay.finish()?;
        check_secret(shard.settings(), self.secret).map_err(AuditError::Secret)?;
        let partition = stretch.partition;
        Ok(Fold { partition, shard, replayed, stopped: None, found, skips: BTreeMap::new() })
    }

    /// Who the shard is.
    pub fn identity(&self, partition: i32) -> Identity {
        let Instance { instance, partitions, .. } = self.instance;
        let inbox = self.site.topic(Topic::Inbox);
        let partitions = i32::from(partitions.get());
        Identity::new(instance, Partition(partition), partitions, inbox, self.secret.cloned())
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

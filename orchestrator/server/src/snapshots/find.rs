//! Finding one: which there are, and whether one is whole, undamaged and of this very inbox.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::message::{Headers, Message};
use sagamore_decider::checkpoint::StateRecord;
use sagamore_decider::identity::Identity;
use sagamore_decider::restore::Restored;
use sagamore_decider::snapshot::{SnapshotError as BodyError, decode, restore};
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{AppliedRecord, record_hash};
use sagamore_schemas::snapshot::{PART, SnapshotPart, body_digest};
use sagamore_schemas::topics::Topic;
use uuid::Uuid;

use super::{PassedOver, Unusable};
use crate::audit::{Stretch, read, stretches};
use crate::checkpointer::timestamp_ms;
use crate::site::{Site, SiteError};

/// How far from its end the topic is searched for the newest ones at first, in records.
const SEARCH_RECORDS: i64 = 256;
/// By how much more each time that it was not enough.
const SEARCH_GROWTH: i64 = 16;

/// A snapshot as its pieces describe it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// What its last piece says.
    pub part: SnapshotPart,
    /// Where the first piece stands that was found.
    pub first: i64,
    /// Where the last piece stands.
    pub last: i64,
    /// When that was written.
    pub written: Time,
    /// Size of what was found, before compression.
    pub bytes: u64,
    numbers: BTreeSet<u32>,
}

impl Found {
    /// Whether every piece is there.
    pub fn is_whole(&self) -> bool {
        self.numbers.iter().copied().eq(1..=self.part.count)
    }

    /// That not every piece is.
    pub fn torn(&self) -> Unusable {
        Unusable::Torn { found: self.numbers.len(), count: self.part.count }
    }

    /// Why it is not used.
    pub fn passed_over(&self, cause: &Unusable) -> PassedOver {
        let place = format!("{}/{}", self.part.partition.0, self.last);
        PassedOver { next_offset: self.part.next_offset, place, cause: cause.to_string() }
    }
}

/// A snapshot that a fold can begin at.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Which one.
    pub found: Found,
    /// Its records, `\0checkpoint` among them.
    pub records: Vec<StateRecord>,
}

impl Snapshot {
    /// The shard as of there.
    pub fn restore(&self, identity: Identity) -> Result<Restored, Unusable> {
        Ok(restore(&self.records, identity).map_err(BodyError::from)?)
    }
}

/// The snapshots of one shard.
pub(crate) struct Snapshots<'s> {
    site: &'s Site,
    identity: Identity,
    stretch: Option<Stretch>,
}

impl<'s> Snapshots<'s> {
    /// As they are now. A topic that is not there has none.
    pub fn new(site: &'s Site, identity: Identity) -> Result<Self, SiteError> {
        let name = site.topic(Topic::Snapshots);
        let all = stretches(site, |topic| topic == name)?;
        let stretch = all.into_iter().find(|stretch| stretch.partition == identity.partition.0);
        Ok(Self { site, identity, stretch })
    }

    /// All there are, the oldest first, torn ones among them.
    pub fn all(&self) -> Result<Vec<Found>, SiteError> {
        self.since(i64::MIN)
    }

    fn since(&self, offset: i64) -> Result<Vec<Found>, SiteError> {
        let Some(stretch) = &self.stretch else { return Ok(Vec::new()) };
        let stretch = Stretch { low: stretch.low.max(offset), ..stretch.clone() };
        let mut found: BTreeMap<Uuid, Found> = BTreeMap::new();
        read(self.site, &stretch, Isolation::ReadUncommitted, |message| {
            let Some(part) = part_of(message.headers()) else { return true };
            let at = message.offset();
            let one = found.entry(part.id).or_insert_with(|| Found {
                part: part.clone(),
                first: at,
                last: at,
                written: Time::default(),
                bytes: 0,
                numbers: BTreeSet::new(),
            });
            one.last = at;
            one.written = Time::from_epoch_ms(timestamp_ms(message.timestamp()));
            if one.numbers.insert(part.number) {
                one.bytes += message.payload_len() as u64;
            }
            one.part = part;
            true
        })?;
        let mut found: Vec<Found> = found.into_values().collect();
        found.sort_by_key(|found| (found.part.next_offset, found.last));
        Ok(found)
    }

    /// The one that was written last, if it is whole; nobody has looked into it.
    pub fn last(&self) -> Result<Option<Found>, SiteError> {
        let Some(stretch) = &self.stretch else { return Ok(None) };
        let found = self.since(stretch.end.saturating_sub(SEARCH_RECORDS))?;
        Ok(found.into_iter().filter(Found::is_whole).max_by_key(|found| found.last))
    }

    /// The newest one that `suits` and is of use; newer ones that are not are told.
    pub fn newest(
        &self,
        suits: impl Fn(&Found) -> bool,
        passed_over: &mut Vec<PassedOver>,
    ) -> Result<Option<Snapshot>, SiteError> {
        let Some(stretch) = &self.stretch else { return Ok(None) };
        let mut window = SEARCH_RECORDS;
        let mut looked_at = BTreeSet::new();
        loop {
            let from = stretch.end.saturating_sub(window);
            let is_all = from <= stretch.low;
            for found in self.since(from)?.into_iter().rev().filter(&suits) {
                // The first pieces may stand before what was searched.
                let is_cut = !is_all && !found.numbers.contains(&1);
                if is_cut || !looked_at.insert(found.part.id) {
                    continue;
                }
                match self.load(&found)? {
                    Ok(snapshot) => return Ok(Some(snapshot)),
                    Err(cause) => passed_over.push(found.passed_over(&cause)),
                }
            }
            if is_all {
                return Ok(None);
            }
            window = window.saturating_mul(SEARCH_GROWTH);
        }
    }

    /// The oldest one that begins at `low` or behind, and is of use; older ones that are not are told.
    pub fn oldest(&self, low: i64, passed_over: &mut Vec<PassedOver>) -> Result<Option<Snapshot>, SiteError> {
        for found in self.all()?.into_iter().filter(|found| found.part.next_offset >= low) {
            match self.load(&found)? {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(cause) => passed_over.push(found.passed_over(&cause)),
            }
        }
        Ok(None)
    }

    /// One of them, whole and proved, or why not.
    pub fn load(&self, found: &Found) -> Result<Result<Snapshot, Unusable>, SiteError> {
        let Some(stretch) = self.stretch.as_ref().filter(|_| found.is_whole()) else {
            return Ok(Err(found.torn()));
        };
        let stretch = Stretch { low: found.first, end: found.last + 1, ..stretch.clone() };
        let mut pieces: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        read(self.site, &stretch, Isolation::ReadUncommitted, |message| {
            if let Some(part) = part_of(message.headers()).filter(|part| part.id == found.part.id) {
                pieces.entry(part.number).or_insert_with(|| message.payload().unwrap_or_default().to_vec());
            }
            true
        })?;
        let body: Vec<u8> = pieces.into_values().flatten().collect();
        let (snapshot, restored) = match self.prove(found, &body) {
            Ok(made) => made,
            Err(cause) => return Ok(Err(cause)),
        };
        let is_own = match &restored.applied {
            Some(applied) => self.is_in_inbox(applied)?,
            None => true,
        };
        Ok(if is_own { Ok(snapshot) } else { Err(Unusable::OtherInbox(found.part.next_offset)) })
    }

    fn prove(&self, found: &Found, body: &[u8]) -> Result<(Snapshot, Restored), Unusable> {
        if body_digest(body) != found.part.digest {
            return Err(Unusable::Digest);
        }
        let snapshot = Snapshot { found: found.clone(), records: decode(body)? };
        let restored = snapshot.restore(self.identity.clone())?;
        let said = (found.part.next_offset, found.part.clock);
        if (restored.shard.next_offset(), restored.shard.clock()) != said {
            return Err(Unusable::Mislabelled);
        }
        Ok((snapshot, restored))
    }

    /// As a takeover does: the last input must be the very same record. One that has been trimmed cannot be asked for.
    fn is_in_inbox(&self, applied: &AppliedRecord) -> Result<bool, SiteError> {
        let name = self.site.topic(Topic::Inbox);
        let all = stretches(self.site, |topic| topic == name)?;
        let Some(inbox) = all.into_iter().find(|inbox| inbox.partition == self.identity.partition.0) else {
            return Ok(false);
        };
        if applied.offset < inbox.low {
            return Ok(true);
        }
        let mut is_same = false;
        read(self.site, &Stretch { low: applied.offset, ..inbox }, Isolation::ReadUncommitted, |message| {
            let hash = record_hash(message.key(), message.payload(), timestamp_ms(message.timestamp()));
            is_same = message.offset() == applied.offset && hash == applied.hash;
            false
        })?;
        Ok(is_same)
    }
}

fn part_of(headers: Option<&rdkafka::message::BorrowedHeaders>) -> Option<SnapshotPart> {
    let header = headers?.iter().find(|header| header.key == PART)?;
    serde_json::from_slice(header.value?).ok()
}

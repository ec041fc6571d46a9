//! What the fold has said beside what was found.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{Digest128, Digest256, Sealed, seal};
use serde::Serialize;

use super::replay::{Entered, Place, ReplayedShard, Said};

/// How something in a topic, or missing there, stands to the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Said, and found.
    Identical,
    /// Found once more.
    Repeated,
    /// Said, and not found.
    Missing,
    /// Something else was said under its name.
    Different,
    /// Nothing was said under its name.
    Extra,
    /// Said by inputs that are in no checkpoint yet, and not found.
    UnderWay,
    /// So old that what it would be compared with is not there any more, or was not asked for.
    NotRetained,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Said, and found.
    pub identical: u64,
    /// Found once more.
    pub repeated: u64,
    /// Said, and not found.
    pub missing: u64,
    /// Something else was said under that name.
    pub different: u64,
    /// Nothing was said under that name.
    pub extra: u64,
    /// No checkpoint has the cause yet.
    pub under_way: u64,
    /// Older than what the topic keeps, or than where the fold begins.
    pub not_retained: u64,
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::Identical => &mut self.identical,
            Kind::Repeated => &mut self.repeated,
            Kind::Missing => &mut self.missing,
            Kind::Different => &mut self.different,
            Kind::Extra => &mut self.extra,
            Kind::UnderWay => &mut self.under_way,
            Kind::NotRetained => &mut self.not_retained,
        } += 1;
    }

    /// Adds another's.
    pub fn merge(&mut self, other: Self) {
        self.identical += other.identical;
        self.repeated += other.repeated;
        self.missing += other.missing;
        self.different += other.different;
        self.extra += other.extra;
        self.under_way += other.under_way;
        self.not_retained += other.not_retained;
    }

    /// How many were found.
    pub fn found(self) -> u64 {
        self.identical + self.repeated + self.different + self.extra
    }

    /// Whether nothing is wrong.
    pub fn is_clean(self) -> bool {
        self.missing == 0 && self.different == 0 && self.extra == 0
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What is wrong with it.
    pub kind: Kind,
    /// The topic.
    pub topic: String,
    /// The partition; of something missing, the shard that has said it.
    pub partition: i32,
    /// Where it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Inbox offset of what caused it, if the fold knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<i64>,
    /// Of an entry, its number among those of its input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u32>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What the fold says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// Everything that is said, to be found again by content or by name.
pub struct Outputs {
    by_content: Vec<Said>,
    found: Vec<AtomicBool>,
    names: Vec<Digest128>,
    undeliverable: BTreeSet<Digest128>,
}

impl Outputs {
    /// Of all shards.
    pub fn new(mut said: Vec<Said>, undeliverable: BTreeSet<Digest128>) -> Self {
        // The same words twice are one output: of the first cause.
        said.sort_unstable_by_key(|said| (said.content, said.cause));
        said.dedup_by_key(|said| said.content);
        let mut names: Vec<Digest128> = said.iter().map(|said| said.name).collect();
        names.sort_unstable();
        let found = said.iter().map(|_| AtomicBool::new(false)).collect();
        Self { by_content: said, found, names, undeliverable }
    }

    /// What a record is that was found.
    pub fn see(&self, content: Digest128, name: impl FnOnce() -> Digest128) -> Kind {
        match self.by_content.binary_search_by_key(&content, |said| said.content) {
            Ok(place) if self.found[place].swap(true, Ordering::Relaxed) => Kind::Repeated,
            Ok(_) => Kind::Identical,
            Err(_) if self.names.binary_search(&name()).is_ok() => Kind::Different,
            Err(_) => Kind::Extra,
        }
    }

    /// What was said and not found.
    pub fn not_found(&self) -> impl Iterator<Item = &Said> {
        let unseen = self.by_content.iter().zip(&self.found);
        unseen
            .filter(|(said, found)| {
                !found.load(Ordering::Relaxed) && !self.undeliverable.contains(&said.name)
            })
            .map(|(said, _)| said)
    }
}

/// The journal of one shard.
pub struct Entries<'e> {
    said: &'e [Entered],
    /// Where the fold begins, and the chain there.
    begins: (i64, Digest256),
    found: Vec<bool>,
    /// The first entry that is in a topic which no longer begins at its beginning.
    first: Option<(i64, u32)>,
}

/// An entry as it was found.
#[derive(Debug)]
pub struct FoundEntry {
    /// How it stands to the fold.
    pub kind: Kind,
    /// Its place.
    pub place: Place,
    /// Its text.
    pub text: String,
}

impl<'e> Entries<'e> {
    /// As the fold has them, in the order of the log.
    pub fn new(replayed: &'e ReplayedShard) -> Self {
        let ReplayedShard { entries, begins, chain, .. } = replayed;
        Self { said: entries, begins: (*begins, *chain), found: vec![false; entries.len()], first: None }
    }

    /// A record of the journal; anything that is no list of entries is a takeover's barrier, and nothing.
    pub fn see(&mut self, value: &[u8]) -> Vec<FoundEntry> {
        let Ok(sealed) = serde_json::from_slice::<Vec<Sealed>>(value) else { return Vec::new() };
        sealed.iter().map(|sealed| self.look_at(sealed)).collect()
    }

    fn look_at(&mut self, sealed: &Sealed) -> FoundEntry {
        let text = sealed.entry.get().to_owned();
        let Ok(place) = Place::of(&text) else {
            let place = Place { offset: -1, sequence: 0, at: Time::default() };
            return FoundEntry { kind: Kind::Extra, place, text };
        };
        let key = (place.offset, place.sequence);
        self.first = Some(self.first.map_or(key, |first| first.min(key)));
        if place.offset < self.begins.0 {
            return FoundEntry { kind: Kind::NotRetained, place, text };
        }
        let kind = match self.said.binary_search_by_key(&key, |entry| (entry.offset, entry.sequence)) {
            Err(_) => Kind::Extra,
            Ok(at) => {
                let before = at.checked_sub(1).map_or(self.begins.1, |before| self.said[before].chain);
                let expected = self.said[at].chain;
                if sealed.chain != expected || seal(before, &text) != expected {
                    Kind::Different
                } else if std::mem::replace(&mut self.found[at], true) {
                    Kind::Repeated
                } else {
                    Kind::Identical
                }
            }
        };
        FoundEntry { kind, place, text }
    }

    /// Entries that were not found, and what that means: `next_offset` is what the newest checkpoint has folded in.
    pub fn not_found(&self, next_offset: i64, is_whole: bool) -> impl Iterator<Item = (Kind, &Entered)> {
        let first = self.first.unwrap_or((i64::MAX, 0));
        self.said.iter().zip(&self.found).filter(|(_, found)| !**found).map(move |(entry, _)| {
            let kind = if entry.offset >= next_offset {
                Kind::UnderWay
            } else if !is_whole && (entry.offset, entry.sequence) < first {
                Kind::NotRetained
            } else {
                Kind::Missing
            };
            (kind, entry)
        })
    }
}

//! The snapshots that a fold passes: whether they say what the fold says there.

use std::collections::VecDeque;

use sagamore_decider::identity::Identity;
use sagamore_decider::shard::Shard;
use sagamore_decider::snapshot::difference;

use super::compare::Kind;
use super::topics::Stretch;
use crate::site::{Site, SiteError};
use crate::snapshots::{Found, Snapshots};

/// A snapshot beside the fold.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Which one.
    pub found: Found,
    /// How it stands to the fold. One that is torn counts as under way: its writer is at it, or was killed.
    pub kind: Kind,
    /// What is wrong with it.
    pub cause: Option<String>,
}

/// Those of one shard.
pub struct Proofs<'s> {
    snapshots: Option<Snapshots<'s>>,
    ahead: VecDeque<Found>,
    made: Vec<Proof>,
}

impl<'s> Proofs<'s> {
    /// None at all, unless they are wanted.
    pub fn new(
        site: &'s Site,
        identity: &Identity,
        stretch: &Stretch,
        is_wanted: bool,
    ) -> Result<Self, SiteError> {
        let mut proofs = Self { snapshots: None, ahead: VecDeque::new(), made: Vec::new() };
        if !is_wanted {
            return Ok(proofs);
        }
        let snapshots = Snapshots::new(site, identity.clone())?;
        for found in snapshots.all()? {
            if !found.is_whole() {
                proofs.add(found, Kind::UnderWay, None);
            } else if found.part.next_offset <= stretch.low {
                proofs.add(found, Kind::NotRetained, None);
            } else {
                proofs.ahead.push_back(found);
            }
        }
        proofs.snapshots = Some(snapshots);
        Ok(proofs)
    }

    /// The fold has come on.
    pub fn pass(&mut self, shard: &Shard) -> Result<(), SiteError> {
        let here = shard.next_offset();
        while let Some(found) = self.ahead.pop_front_if(|found| found.part.next_offset <= here) {
            let Some(snapshots) = &self.snapshots else { return Ok(()) };
            let cause = if found.part.next_offset < here {
                Some("no input ends where it says".to_owned())
            } else {
                match snapshots.load(&found)? {
                    Err(cause) => Some(cause.to_string()),
                    Ok(snapshot) => match snapshot.restore(shard.identity().clone()) {
                        Err(cause) => Some(cause.to_string()),
                        Ok(restored) => difference(shard, &restored.shard)
                            .map(|what| format!("{what}: the fold says something else")),
                    },
                }
            };
            let kind = if cause.is_none() { Kind::Identical } else { Kind::Different };
            self.add(found, kind, cause);
        }
        Ok(())
    }

    /// All of them; those behind the end of the fold were not looked at.
    pub fn finish(mut self) -> Vec<Proof> {
        for found in std::mem::take(&mut self.ahead) {
            self.add(found, Kind::UnderWay, None);
        }
        self.made
    }

    fn add(&mut self, found: Found, kind: Kind, cause: Option<String>) {
        self.made.push(Proof { found, kind, cause });
    }
}

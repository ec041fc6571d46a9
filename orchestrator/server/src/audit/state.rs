//! What was believed at a moment: the shards folded up to there, and no further.

use std::fmt;
use std::str::FromStr;

use sagamore_decider::view::TransactionView;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::wire::RecordPlace;
use serde::Serialize;

use super::fold::{AuditError, Began, Begin, Fold, Folder, Folding};
use super::replay::Wanted;
use super::topics::Stretch;
use crate::site::Site;
use crate::snapshots::Found;

/// A moment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After every record of this time and before.
    At(Time),
    /// After this record of the inbox.
    After(RecordPlace),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.parse().map(Self::After).ok();
        place.or_else(|| text.parse().ok().map(Self::At)).ok_or_else(|| {
            "expected a time, such as 2026-11-22T16:00:00Z, or PARTITION/OFFSET of the inbox, such as 3/88121"
                .to_owned()
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => time.fmt(f),
            Self::After(place) => place.fmt(f),
        }
    }
}

/// Which transactions are told.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// One of them; ended ones as well, while they were remembered.
    pub id: Option<TransactionId>,
    /// Open ones of this status.
    pub status: Option<&'static str>,
    /// So many of each shard, oldest first.
    pub limit: usize,
}

/// A shard as it was.
#[derive(Debug, Serialize)]
pub struct Believed {
    /// Where the fold began.
    #[serde(flatten)]
    pub began: Began,
    /// Everything below this inbox offset was folded in.
    pub next_offset: i64,
    /// The fold's clock.
    pub clock: Time,
    /// Its rules.
    pub level: u32,
    /// Open transactions.
    pub open: usize,
    /// Ended ones it remembered.
    pub finished: usize,
    /// Why the fold stopped before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Those that were asked for.
    pub transactions: Vec<TransactionView>,
}

/// What the shards believed then.
pub fn state(
    site: &Site,
    moment: Moment,
    question: &Question,
    how: Folding<'_>,
) -> Result<Vec<Believed>, AuditError> {
    let folder = Folder::new(site, how)?;
    let mut inbox = folder.inbox()?;
    if let Some(id) = &question.id {
        let count = i32::try_from(inbox.len()).unwrap_or(i32::MAX);
        let own = home(id, count).0;
        inbox.retain(|stretch| stretch.partition == own);
    }
    let until = match moment {
        Moment::At(time) => Some(time),
        Moment::After(RecordPlace { partition, offset }) => {
            let stretch = folder.inbox_of(partition)?;
            inbox = vec![Stretch { end: stretch.end.min(offset + 1), ..stretch }];
            None
        }
    };
    let is_before = |found: &Found| until.is_none_or(|until| found.part.clock <= until);
    let begin = Begin::Before(&is_before);
    let keep = |Fold { origin, shard, stopped, .. }: Fold| Believed {
        began: origin.began(),
        next_offset: shard.next_offset(),
        clock: shard.clock(),
        level: shard.level(),
        open: shard.open_count(),
        finished: shard.finished_count(),
        stopped,
        transactions: match &question.id {
            Some(id) => shard.view(id).into_iter().collect(),
            None => shard.list(question.status, -1, question.limit),
        },
    };
    folder.fold_all(&inbox, &begin, until, &Wanted::default(), keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!("3/88121".parse(), Ok(Moment::After(RecordPlace { partition: 3, offset: 88_121 })));
        assert!(matches!("2026-11-22T16:00:00Z".parse(), Ok(Moment::At(_))));
        for wrong in ["3", "3/", "-1/2", "3/-2", "yesterday"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}

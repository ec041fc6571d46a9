//! One shard as its lane sees it, and how it tells the rest of the server about it.
//!
//! | slot | on | becomes |
//! |---|---|---|
//! | - | given by the group | restoring |
//! | restoring | restored | running: fetched from X on |
//! | restoring, running | fenced | resting: a newer assignment may come; if none does, restoring |
//! | restoring, running | anything indefinite | resting, for shorter |
//! | running | `apply` panics | halted: looks ahead for `skip`; then restoring, past that record |
//! | restoring, running | what only an operator can mend | halted |
//! | any | taken by the group | - |

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sagamore_decider::owner::Owner;
use serde::Serialize;

use crate::checkpointer::{Checkpointer, Looking, Skip, Tenure};
use crate::halt::Halt;

pub(super) struct Slot {
    pub tenure: Tenure,
    pub stage: Stage,
    /// The operator's decision about the record on which `apply` panicked.
    pub skip: Option<Skip>,
    /// Failures in a row: the pause grows with them.
    pub failures: u32,
}

pub(super) enum Stage {
    Restoring(Checkpointer),
    Running(Box<Running>),
    Resting {
        until: Instant,
    },
    /// While it stands on a panic, a thread looks ahead for `skip`; it ends with this.
    Halted(
        Halt,
        #[expect(dead_code, reason = "dropped with the slot: that ends the look-ahead")] Option<Looking>,
    ),
}

pub(super) struct Running {
    pub owner: Owner,
    pub checkpointer: Checkpointer,
    /// Whether its partition is being fetched: not while the owner may not apply.
    pub fetched: bool,
    /// Up to which offset of `definitions` records have been appended to the inbox, and when.
    pub definitions_appended: Option<(i64, Instant)>,
    pub told_live: bool,
    pub checkpoint_took: Duration,
    pub inputs: u64,
    pub outputs: crate::metrics::Outputs,
}

/// In which stage a shard is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardState {
    /// It is being restored, or replays, or rests before the next try.
    Restoring,
    /// It applies what comes.
    Running,
    /// It needs an operator.
    Halted(Halt),
}

/// How a shard is.
#[derive(Debug, Clone, Serialize)]
pub struct ShardStatus {
    /// Its stage.
    pub state: ShardState,
    /// Which lane has it.
    pub lane: usize,
    /// Everything below this inbox offset is folded in.
    pub next_offset: i64,
    /// Offset of the last definition it has applied; -1 before the first.
    pub definitions_offset: i64,
    /// Open transactions.
    pub open: usize,
    /// Remembered endings.
    pub finished: usize,
    /// Outputs not acknowledged.
    pub unacknowledged: usize,
    /// Milliseconds since the last checkpoint.
    pub checkpoint_age_ms: u64,
    /// Age of the oldest open transaction; 0 when none is open.
    pub oldest_open_ms: u64,
}

/// All shards of a server by partition: what readiness, routing and metrics go by.
#[derive(Debug, Default)]
pub struct Directory {
    shards: Mutex<BTreeMap<i32, ShardStatus>>,
}

impl Directory {
    /// The shards of this server.
    pub fn shards(&self) -> BTreeMap<i32, ShardStatus> {
        self.lock().clone()
    }

    /// The lane that runs a shard here.
    pub fn lane_of(&self, partition: i32) -> Option<usize> {
        self.lock().get(&partition).filter(|shard| shard.state == ShardState::Running).map(|shard| shard.lane)
    }

    pub(super) fn put(&self, partition: i32, status: ShardStatus) {
        self.lock().insert(partition, status);
    }

    pub(super) fn remove(&self, partition: i32, lane: usize) {
        let mut shards = self.lock();
        if shards.get(&partition).is_some_and(|shard| shard.lane == lane) {
            shards.remove(&partition);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, ShardStatus>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

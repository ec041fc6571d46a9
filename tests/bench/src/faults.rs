//! What is measured once: how long a killed server's load stands still, and a takeover with many open transactions.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::lab::{Lab, windows};
use crate::load::{self, Seen};
use crate::ours::{Ours, Plan};
use crate::processes::resident_bytes;
use crate::system::{RunError, Site, System};

/// Offered while the server is killed: well below what it can, so that the backlog does not count.
const LOAD_PER_S: f64 = 500.0;
const BEFORE_S: f64 = 3.0;
const AFTER_S: f64 = 15.0;
const PATIENCE: Duration = Duration::from_mins(2);

/// A server was killed under load, and another one started in its place at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Recovery {
    pub load_per_s: f64,
    /// No transaction ended for so long.
    pub pause_s: f64,
    /// Slowest transaction, from the moment it was to start.
    pub slowest_ms: f64,
}

/// A server was killed with many transactions open, and another one took over.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Takeover {
    pub open: u64,
    /// From the kill until the successor has caught up; the session timeout of the group is in it.
    pub from_kill_s: f64,
    /// The takeover alone, as the successor counts it.
    pub alone_s: f64,
    pub resident_bytes_before: u64,
    pub resident_bytes_open: u64,
    pub resident_bytes_successor: u64,
    /// Resident memory an open transaction, in the server that took the starts.
    pub bytes_each: f64,
    /// From the moment participants came until all had ended.
    pub drained_s: f64,
}

pub(crate) fn recovery(lab: &mut Lab, ours: &mut Ours) -> Result<Recovery, RunError> {
    let run = lab.next_run();
    let starts = ours.starts(run);
    let mut successor = ours.successor();
    let mut edges = 0;
    let mut on_edge = || {
        edges += 1;
        if edges == 1 { successor.kill_and_replace() } else { Ok(()) }
    };
    let seen = load::open(starts, ours.ends(run), LOAD_PER_S, windows(BEFORE_S, AFTER_S), &mut on_edge)?;
    ours.succeed(successor);
    ours.settle()?;
    ours.check(run, &seen)?;
    Ok(Recovery {
        load_per_s: LOAD_PER_S,
        pause_s: seen.longest_pause.as_secs_f64(),
        slowest_ms: Duration::from_micros(seen.latency_us.max()).as_secs_f64() * 1e3,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
pub(crate) fn takeover(lab: &mut Lab, site: &Site, plan: Plan, open: u64) -> Result<Takeover, RunError> {
    let run = lab.next_run();
    let mut ours = Ours::build_without_participants(site, plan)?;
    ours.wait_until_defined()?;
    let resident_bytes_before = resident_bytes(ours.server_id())?;
    let mut starts = ours.starts(run);
    for index in 0..open {
        starts.start(index).map_err(|error| RunError::Failed(error.into()))?;
    }
    let is_there = |metrics: &crate::ours::Metrics| {
        metrics.sum("sagamore_open_transactions") >= open as f64
            && metrics.sum("sagamore_unacknowledged_outputs") == 0.0
            && metrics.sum("sagamore_checkpoint_age_seconds") == 0.0
    };
    ours.wait_until(PATIENCE, is_there)?;
    let resident_bytes_open = resident_bytes(ours.server_id())?;
    let killed = Instant::now();
    let mut successor = ours.successor();
    successor.kill_and_replace()?;
    ours.succeed(successor);
    let partitions = f64::from(site.partitions.get());
    let metrics = ours.wait_until(PATIENCE, |metrics| metrics.sum("sagamore_shard_state") >= partitions)?;
    let from_kill_s = killed.elapsed().as_secs_f64();
    let resident_bytes_successor = resident_bytes(ours.server_id())?;
    let begun = Instant::now();
    ours.attach_participants()?;
    let mut seen = Seen::started(usize::try_from(open).map_err(|error| RunError::Failed(error.into()))?)?;
    load::drain(&mut seen, ours.ends(run))?;
    let drained_s = begun.elapsed().as_secs_f64();
    ours.settle()?;
    ours.check(run, &seen)?;
    Ok(Takeover {
        open,
        from_kill_s,
        alone_s: metrics.sum("sagamore_takeover_seconds_sum"),
        resident_bytes_before,
        resident_bytes_open,
        resident_bytes_successor,
        bytes_each: resident_bytes_open.saturating_sub(resident_bytes_before) as f64 / open as f64,
        drained_s,
    })
}

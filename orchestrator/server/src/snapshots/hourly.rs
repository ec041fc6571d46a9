//! The thread of a server that writes snapshots of the shards it runs, one after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sagamore_decider::identity::Identity;
use sagamore_schemas::ids::{Partition, Span, Time};
use sagamore_schemas::topics::Topic;

use super::{SnapshotError, Snapshots, write};
use crate::clock;
use crate::config::Installation;
use crate::lane::{Directory, ShardState};
use crate::metrics;
use crate::site::SiteError;

/// How often it is looked what is due, unless snapshots are wanted more often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a snapshot that could not be written.
const AGAIN_AFTER: Duration = Duration::from_mins(2);

/// The thread, while it is wanted.
#[derive(Debug)]
pub(crate) struct Hourly {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    is_told: AtomicBool,
    told: (Mutex<()>, Condvar),
}

/// The newest snapshot of a shard; before the first, the beginning of its inbox at the beginning of time.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    next_offset: i64,
    written: Time,
}

impl Hourly {
    /// Begins to write one of each shard `every` so long.
    pub fn start(
        installation: &Arc<Installation>,
        directory: Arc<Directory>,
        every: Span,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let (installation, stopped) = (Arc::clone(installation), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("snapshots".to_owned())
            .spawn(move || Writing { installation, directory, every, stop: stopped }.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Hourly {
    fn drop(&mut self) {
        self.stop.is_told.store(true, Ordering::Release);
        self.stop.told.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of snapshots ended by a panic");
        }
    }
}

struct Writing {
    installation: Arc<Installation>,
    directory: Arc<Directory>,
    every: Span,
    stop: Arc<Stop>,
}

impl Writing {
    fn run(&self) {
        let every = Duration::from_millis(self.every.as_ms());
        let pause = LOOK_EVERY.min(every / 4);
        let mut last: BTreeMap<i32, Last> = BTreeMap::new();
        let mut not_before: BTreeMap<i32, Instant> = BTreeMap::new();
        while !self.is_stopped() {
            let mut running = self.directory.shards();
            running.retain(|_, status| status.state == ShardState::Running);
            // What goes and comes back has been another server's meanwhile.
            last.retain(|partition, _| running.contains_key(partition));
            for (partition, status) in running {
                let is_early = not_before.get(&partition).is_some_and(|at| Instant::now() < *at);
                if is_early || self.is_stopped() {
                    continue;
                }
                match self.look(partition, status.next_offset, last.get(&partition).copied()) {
                    Ok(newest) => {
                        last.insert(partition, newest);
                    }
                    Err(SnapshotError::GivenUp) => return,
                    Err(error) => {
                        tracing::warn!(shard = partition, %error, "no snapshot; trying again later");
                        not_before.insert(partition, Instant::now() + AGAIN_AFTER.min(every));
                    }
                }
            }
            let told = self.stop.told.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.stop.told.1.wait_timeout(told, pause).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Writes one if it is due; returns the newest.
    fn look(&self, partition: i32, applied: i64, known: Option<Last>) -> Result<Last, SnapshotError> {
        let identity = self.identity(partition);
        let last = known.map_or_else(|| self.newest(&identity), Ok)?;
        let is_behind = last.next_offset < applied;
        let age = clock::now().since(last.written);
        let is_told = is_behind && last.next_offset > 0;
        metrics::snapshot_age(partition, if is_told { age } else { Span::default() });
        if !is_behind || age < self.every {
            return Ok(last);
        }
        let written = match write(&self.installation.site(), &identity, &|| !self.is_stopped()) {
            // Its first checkpoint is not written yet.
            Err(SnapshotError::NoCheckpoint(_)) => return Ok(last),
            written => written?,
        };
        tracing::info!(
            shard = partition,
            next_offset = written.next_offset,
            records = written.records,
            bytes = written.bytes,
            took_ms = written.took_ms,
            "snapshot written"
        );
        metrics::snapshot(partition, Duration::from_millis(written.took_ms), written.bytes);
        Ok(Last { next_offset: written.next_offset, written: clock::now() })
    }

    fn newest(&self, identity: &Identity) -> Result<Last, SiteError> {
        let newest = Snapshots::new(&self.installation.site(), identity.clone())?.last()?;
        Ok(newest.map_or_else(Last::default, |found| Last {
            next_offset: found.part.next_offset,
            written: found.written,
        }))
    }

    fn identity(&self, partition: i32) -> Identity {
        let Installation { instance, partitions, .. } = *self.installation;
        let inbox = self.installation.topic(Topic::Inbox);
        // No secret: nothing is told, and the settings are only passed on.
        Identity::new(instance, Partition(partition), partitions, inbox, None)
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_told.load(Ordering::Acquire)
    }
}

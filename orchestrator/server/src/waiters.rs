//! Who waits for what becomes of a transaction: the API on one side, the lanes on the other.
//!
//! A lane tells what it has just applied; its cause is durable, so it may be told at once. A waiter is registered before
//! its start is sent, so that nothing can be missed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagamore_decider::output::Notice;
use tokio::sync::mpsc;

/// What a waiter is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// An input of that transaction id has been applied.
    Applied {
        /// Its inbox offset.
        offset: i64,
        /// What became of it.
        notice: Notice,
    },
    /// An outcome record has been made.
    Outcome(Arc<[u8]>),
    /// The shard has left this server: whatever happens now is told elsewhere.
    Lost,
}

/// More than a transaction can tell in the time a waiter takes to look; a waiter that misses something times out.
const BACKLOG: usize = 64;

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    by_id: HashMap<Box<[u8]>, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    partition: i32,
    sender: mpsc::Sender<Told>,
}

/// All waiters of a server.
#[derive(Debug, Default, Clone)]
pub struct Waiters {
    registry: Arc<Mutex<Registry>>,
    count: Arc<AtomicUsize>,
}

/// One waiter; it is forgotten when this is dropped.
#[derive(Debug)]
pub struct Waiter {
    waiters: Waiters,
    id: Box<[u8]>,
    number: u64,
    /// What is told.
    pub told: mpsc::Receiver<Told>,
}

impl Waiters {
    /// Registers a waiter for a transaction id, at home in `partition`.
    pub fn register(&self, id: &str, partition: i32) -> Waiter {
        let (sender, told) = mpsc::channel(BACKLOG);
        let id: Box<[u8]> = id.as_bytes().into();
        let mut registry = self.lock();
        let number = registry.next;
        registry.next += 1;
        registry.by_id.entry(id.clone()).or_default().push(Entry { number, partition, sender });
        self.count.fetch_add(1, Ordering::Release);
        drop(registry);
        Waiter { waiters: self.clone(), id, number, told }
    }

    /// Tells everyone who waits for `id`.
    pub fn tell(&self, id: &[u8], told: impl FnOnce() -> Told) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(entries) = self.lock().by_id.get(id) {
            let told = told();
            for entry in entries {
                // A waiter that does not look is gone or will time out; neither is the lane's business.
                drop(entry.sender.try_send(told.clone()));
            }
        }
    }

    /// Tells everyone whose transaction is at home in `partition` that it is looked after elsewhere.
    pub fn lose(&self, partition: i32) {
        for entry in self.lock().by_id.values().flatten().filter(|entry| entry.partition == partition) {
            drop(entry.sender.try_send(Told::Lost));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut registry = self.waiters.lock();
        if let Some(entries) = registry.by_id.get_mut(&self.id) {
            entries.retain(|entry| entry.number != self.number);
            if entries.is_empty() {
                registry.by_id.remove(&self.id);
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::Release);
    }
}

//! Everything on every server: a view of the journal in an embedded store, for lists, counts, causes and history.
//!
//! ```text
//!  journal (all partitions) ─▶ feed, one thread ─▶ file ◀─ readers, a few at a time ─▶ API
//!                                   └─▶ changes ─▶ who listens
//! ```
//! An owner knows its open transactions and nothing else; a list asked of all owners is as long as the slowest of them,
//! is cut where one is restored, and knows nothing of what has ended. The journal has all of it, in order, and only what
//! was committed. So each server reads it for itself, and answers alone; how far it has read stands in each answer.
//!
//! **Why SQLite**: the questions are filters, orders and groups over several columns, which are its trade; a key-value
//! store (redb) would need each index and each group by hand, kept right by us. Its cache is bounded, its readers see
//! one state while the writer goes on (WAL), rows and position are written in one local transaction, and the
//! participant library already has it in the binary. The file is a copy: deleted, of another schema or of another instance, it
//! is built anew.
//!
//! Memory: the cache of the writer and of at most [`READERS`] readers, one batch, and what librdkafka fetches ahead.
//!
//! Deliberately absent: decisions, payloads (the journal has their hashes), and any way back into the fold.

mod changes;
mod feed;
mod folder;
mod life;
pub mod query;
mod schema;
mod show;
mod status;
pub mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{Semaphore, broadcast};

pub use changes::Change;
pub use life::Life;
pub use query::{By, Cause, Count, Cursor, Filter, Page, Place, Position};
pub use show::Shown;
pub use status::{Status, nearest};

use crate::config::Installation;
use crate::definitions_tail::DefinitionsTail;
use feed::{Ends, Feed};
use folder::Folder;

/// Questions that are answered at a time: each has its own connection and cache.
const READERS: usize = 4;
/// How long one question may take: then it is given up, and another may be asked.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Changes that are kept for a slow listener: it is told when it has missed some.
const CHANGES_KEPT: usize = 8_192;

/// Why the view does not answer, or does not get on.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Its folder cannot be used.
    #[error("{}: {cause}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Another server has it.
    #[error("{}: another server keeps its view there; each needs a folder of its own", .0.display())]
    InUse(PathBuf),
    /// Its file has gone while it was in use.
    #[error("{}: deleted, and built anew", .0.display())]
    Deleted(PathBuf),
    /// The file.
    #[error("the view's file: {0}")]
    Store(#[from] rusqlite::Error),
    /// A story that cannot be written.
    #[error("a transaction cannot be written: {0}")]
    Written(String),
    /// The journal.
    #[error("the journal: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// There is less in the journal than had been read.
    #[error(
        "partition {partition} of the journal ends at {end}, {next} had been read: the view is built anew"
    )]
    Cut {
        /// Which one.
        partition: i32,
        /// Where the view stood.
        next: i64,
        /// Where the journal ends.
        end: i64,
    },
    /// A question took too long.
    #[error("it takes more than {} s: ask for less", ANSWERED_WITHIN.as_secs())]
    TooLong,
    /// The thread of an answer has gone.
    #[error("the answer was lost")]
    Lost,
}

/// A running view.
#[derive(Debug)]
pub struct View {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    folder: Folder,
    stop: AtomicBool,
    /// Records that are still to be read, by partition; none while a partition is not known.
    lags: Mutex<BTreeMap<i32, i64>>,
    lag: AtomicI64,
    readers: Arc<Semaphore>,
    changes: broadcast::Sender<Arc<Change>>,
}

impl Shared {
    fn tell(&self, ends: &BTreeMap<i32, Ends>) {
        let lags: BTreeMap<i32, i64> =
            ends.iter().map(|(partition, ends)| (*partition, ends.lag())).collect();
        self.lag.store(lags.values().sum(), Ordering::Release);
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = lags;
    }
}

impl View {
    /// Opens the file in `folder`, or in a temporary one, and begins to read.
    pub fn start(
        installation: &Arc<Installation>,
        definitions: Arc<DefinitionsTail>,
        folder: Option<&Path>,
    ) -> Result<Self, ViewError> {
        let folder = Folder::open(folder)?;
        // Whoever asks at once finds a file.
        drop(store::Store::open(&folder.file(), installation.instance)?);
        let shared = Arc::new(Shared {
            folder,
            stop: AtomicBool::new(false),
            lags: Mutex::default(),
            lag: AtomicI64::new(i64::MAX),
            readers: Arc::new(Semaphore::new(READERS)),
            changes: broadcast::channel(CHANGES_KEPT).0,
        });
        let feed = Feed { installation: Arc::clone(installation), definitions, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(move || feed.run());
        let thread = thread.map_err(|cause| ViewError::Folder { path: shared.folder.file(), cause })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Journal records that it has not read yet; none before it knows where the journal ends.
    pub fn lag(&self) -> Option<i64> {
        Some(self.shared.lag.load(Ordering::Acquire)).filter(|lag| *lag != i64::MAX)
    }

    /// What changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.shared.changes.subscribe()
    }

    /// Answers a question from one state of the file, which is told with the answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<(T, Vec<Position>), ViewError> {
        let free =
            tokio::time::timeout(ANSWERED_WITHIN, Arc::clone(&self.shared.readers).acquire_owned()).await;
        let place = free.map_err(|_| ViewError::TooLong)?.map_err(|_| ViewError::Lost)?;
        let file = self.shared.folder.file();
        let connection = tokio::task::spawn_blocking(move || schema::read(&file));
        let mut connection = connection.await.map_err(|_| ViewError::Lost)??;
        let _wanted = Wanted(connection.get_interrupt_handle());
        let answer = tokio::task::spawn_blocking(move || {
            // Until it is over, however little it is still wanted.
            let _place = place;
            let transaction = connection.transaction()?;
            let positions = query::positions(&transaction)?;
            Ok((question(&transaction)?, positions))
        });
        let answer = tokio::time::timeout(ANSWERED_WITHIN, answer).await;
        answer.map_err(|_| ViewError::TooLong)?.map_err(|_| ViewError::Lost)?
    }
}

/// Nobody waits for an answer any more when this is dropped: the question is given up.
struct Wanted(InterruptHandle);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the view ended by a panic");
        }
    }
}

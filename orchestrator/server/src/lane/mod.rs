//! A lane: one thread, one member of the group, the shards it was given.
//!
//! ```text
//!   poll the inbox ─▶ owner.on_record ─▶ owner.send ─▶ OutputProducer ─reports─▶ owner.on_delivered
//!        │                                  owner.poll ─▶ Checkpointer ─events──▶ owner.on_written
//!        └ rebalance: slots come and go; a slot is restored off this thread and fetched from explicit offsets
//! ```
//! Lanes share nothing. Deliberately absent: decisions (the fold's), anything that blocks (the checkpointer's).

mod assignment;
mod outputs;
mod shards;
mod slot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use sagamore_decider::view::TransactionView;
use sagamore_schemas::ids::TransactionId;
use tokio::sync::oneshot;

pub use slot::{Directory, ShardState, ShardStatus};

use crate::config::Installation;
use crate::definitions_tail::DefinitionsTail;
use crate::waiters::Waiters;

/// What the API asks of a lane.
#[derive(Debug)]
pub enum Query {
    /// What is known of a transaction.
    View {
        /// Its home.
        partition: i32,
        /// Its id.
        id: TransactionId,
        /// `None` inside when it is not known; dropped when the shard is not here.
        answer: oneshot::Sender<Option<TransactionView>>,
    },
    /// How many transactions are open of each definition, over all shards of this lane.
    OpenByDefinition {
        /// The answer, by `name@version`.
        answer: oneshot::Sender<BTreeMap<String, usize>>,
    },
    /// Drops every shard as a crash would, and takes it over again.
    Crash {
        /// How many shards it was.
        answer: oneshot::Sender<usize>,
    },
}

/// How a lane is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Not = 0,
    Graceful = 1,
}

/// A running lane.
#[derive(Debug)]
pub struct Lane {
    queries: Sender<Query>,
    ending: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

/// What lanes share with the rest of the server: nothing of it is hot.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The installation.
    pub installation: Arc<Installation>,
    /// Which shards are here, and how they are.
    pub directory: Arc<Directory>,
    /// Who waits for what.
    pub waiters: Waiters,
    /// The definitions topic as far as it has been read.
    pub definitions: Arc<DefinitionsTail>,
}

impl Lane {
    /// Starts a lane; it joins the group at once.
    pub fn start(number: usize, surroundings: Surroundings) -> Result<Self, LaneError> {
        let (queries, inbox): (_, Receiver<Query>) = channel();
        let ending = Arc::new(AtomicU8::new(Ending::Not as u8));
        let mut shards = shards::Shards::new(number, surroundings, Arc::clone(&ending))?;
        let thread = std::thread::Builder::new()
            .name(format!("lane-{number}"))
            .spawn(move || shards.run(&inbox))
            .map_err(LaneError::Thread)?;
        Ok(Self { queries, ending, thread: Some(thread) })
    }

    /// Asks the lane something; it answers within a few milliseconds.
    pub fn ask(&self, query: Query) {
        // A lane that has ended drops the query, and with it the answer's sender.
        drop(self.queries.send(query));
    }

    /// Another end of its queries.
    pub fn queries(&self) -> Sender<Query> {
        self.queries.clone()
    }

    /// Begins a graceful stop: a last checkpoint of each shard, then out of the group.
    pub fn stop(&self) {
        self.ending.store(Ending::Graceful as u8, Ordering::Release);
    }

    /// Waits for the end of the thread.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a lane ended by a panic");
        }
    }

    /// Whether its thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Why a lane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// A client cannot be made of its settings.
    #[error("a Kafka client cannot be made: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    /// No thread.
    #[error("no thread for a lane: {0}")]
    Thread(#[source] std::io::Error),
}

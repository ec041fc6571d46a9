//! One thread per shard: it takes the shard over, then writes its checkpoints. Everything here may block; the lane never
//! does.
//!
//! ```text
//!   lane ──spawn──▶ takeover ──Restored──▶ lane ──Checkpoint──▶ write ──Written──▶ lane
//!                      └──Failed─────────▶ lane                   └──Failed──────▶ lane
//! ```
//! After `Failed` the thread ends. Nothing is repaired in place: the lane drops the shard and spawns another.

mod inbox_check;
mod lookahead;
mod producer;
mod takeover;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use sagamore_decider::checkpoint::Checkpoint;
use sagamore_decider::restore::Restored;

use crate::config::Installation;
use crate::definitions_tail::DefinitionsTail;
use crate::halt::Halt;
use crate::telemetry::Observer;

pub(crate) use inbox_check::{headers_of, timestamp_ms};
pub use lookahead::{Looking, Skip};
pub(crate) use producer::CheckpointProducer;

/// What the thread says.
#[derive(Debug)]
pub enum Event {
    /// The shard as of its last checkpoint, and the end of its inbox now.
    Restored {
        /// The shard.
        restored: Box<Restored>,
        /// First inbox offset that nobody has written yet.
        inbox_end: i64,
        /// How long it took.
        took: Duration,
    },
    /// A checkpoint is committed.
    Written {
        /// How long it took.
        took: Duration,
        /// Records it wrote.
        records: usize,
    },
    /// An operator has decided to pass over the record on which `apply` panicked.
    Skip(Skip),
    /// It is over.
    Failed(Failure),
}

/// Why a takeover or a checkpoint failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// Another owner has taken the shard over.
    Fenced,
    /// It may have happened or not, or it may go well the next time.
    Indefinite(String),
    /// Only an operator can help.
    Halt(Halt),
}

/// What one report is about: events of an earlier tenure of the same shard are of no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// The shard.
    pub partition: i32,
    /// Rises with every takeover in this process.
    pub number: u64,
}

/// The lane's end of the thread; when it is dropped the thread ends.
#[derive(Debug)]
pub struct Checkpointer {
    jobs: Sender<Checkpoint>,
}

impl Checkpointer {
    /// Starts the takeover of a shard.
    pub fn spawn(
        installation: Arc<Installation>,
        definitions: Arc<DefinitionsTail>,
        tenure: Tenure,
        events: Sender<(Tenure, Event)>,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = channel();
        std::thread::Builder::new()
            .name(format!("checkpoint-{}", tenure.partition))
            .spawn(move || run(&installation, definitions, tenure, &inbox, &events))?;
        Ok(Self { jobs })
    }

    /// Looks ahead in the inbox for the decision to skip the record at `offset`, until what is returned is dropped.
    pub fn look_ahead(
        installation: Arc<Installation>,
        tenure: Tenure,
        offset: i64,
        events: Sender<(Tenure, Event)>,
    ) -> std::io::Result<Looking> {
        let looking = Looking::default();
        let wanted = Arc::downgrade(&looking.0);
        std::thread::Builder::new()
            .name(format!("look-ahead-{}", tenure.partition))
            .spawn(move || lookahead::look_ahead(&installation, tenure, offset, &events, &wanted))?;
        Ok(looking)
    }

    /// Hands over a checkpoint; the answer comes as an event.
    pub fn write(&self, checkpoint: Checkpoint) {
        // A thread that has ended has said why.
        drop(self.jobs.send(checkpoint));
    }
}

fn run(
    installation: &Installation,
    definitions: Arc<DefinitionsTail>,
    tenure: Tenure,
    jobs: &Receiver<Checkpoint>,
    events: &Sender<(Tenure, Event)>,
) {
    // A lane that is gone has no use for events.
    let tell = |event| drop(events.send((tenure, event)));
    let begun = Instant::now();
    let (producer, mut observer) = match takeover::take_over(installation, tenure.partition) {
        Ok((producer, restored, inbox_end)) => {
            let observer = Observer::new(tenure.partition, &restored.shard, definitions);
            tell(Event::Restored { restored: Box::new(restored), inbox_end, took: begun.elapsed() });
            (producer, observer)
        }
        Err(failure) => return tell(Event::Failed(failure)),
    };
    while let Ok(checkpoint) = jobs.recv() {
        let begun = Instant::now();
        let records = checkpoint.state.len() + checkpoint.journal.len() + 1;
        match producer.write(&checkpoint) {
            Ok(()) => {
                tell(Event::Written { took: begun.elapsed(), records });
                observer.see(&checkpoint.journal, checkpoint.next_offset);
            }
            Err(failure) => return tell(Event::Failed(failure)),
        }
    }
}

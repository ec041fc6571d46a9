//! The member of the group: who owns which partition of the commands. It fetches nothing; each partition has an owner with a
//! thread and clients of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rdkafka::bindings::rd_kafka_resp_err_t as RDKafkaRespErr;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tracing::{info, warn};

use super::KafkaOnlySettings;
use super::owner::Owner;
use crate::participant::Participant;
use crate::runtime::desk::Desk;
use crate::runtime::replies::{Replies, Shared};
use crate::runtime::trouble::{Trouble, log_client};
use crate::runtime::{COMMIT_INTERVAL_DEFAULT, Ending, IDLE_POLL, RuntimeError, asked_to_end};
use crate::store::Position;
use crate::store::kafka::KafkaStore;

pub(super) struct Members<P> {
    pub(super) participant: Arc<P>,
    pub(super) settings: Arc<KafkaOnlySettings>,
    pub(super) desk: Desk,
    pub(super) replies: Arc<Replies>,
    pub(super) shared: Arc<Shared>,
    pub(super) ending: Arc<AtomicU8>,
    pub(super) partitions: i32,
}

/// A running owner.
struct Running {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl<P: Participant<Store = KafkaStore>> Members<P> {
    pub(super) fn run(self) -> Result<(), RuntimeError> {
        let KafkaOnlySettings { clients, participant, .. } = &*self.settings;
        let topic = Arc::clone(&self.desk.topic);
        let config = clients.participant_consumer(&self.settings.group(), &format!("sagamore-{participant}"));
        let consumer: BaseConsumer<Membership> = config.create_with_context(Membership::default())?;
        consumer.subscribe(&[&topic])?;
        info!(%topic, "taking commands");
        let (mut owners, mut leaving) = (BTreeMap::<i32, Running>::new(), Vec::<Running>::new());
        let (mut trouble, mut committed_at) = (Trouble::default(), Instant::now());
        while asked_to_end(&self.ending) == Ending::None {
            if let Some(Err(failure)) = consumer.poll(IDLE_POLL) {
                trouble.tell(&topic, &failure);
            }
            for change in consumer.context().take_changes() {
                trouble.over();
                match change {
                    Change::Given(partitions) => {
                        info!(%topic, ?partitions, "partitions come");
                        for partition in partitions {
                            leaving
                                .extend(owners.insert(partition, self.own(partition)?).map(Running::leave));
                        }
                    }
                    Change::Taken(partitions) => {
                        info!(%topic, ?partitions, "partitions go");
                        let gone = partitions.iter().filter_map(|partition| owners.remove(partition));
                        leaving.extend(gone.map(Running::leave));
                    }
                }
            }
            for ended in leaving.extract_if(.., |running| running.thread.is_finished()) {
                ended.join();
            }
            if committed_at.elapsed() >= COMMIT_INTERVAL_DEFAULT {
                committed_at = Instant::now();
                tell_group(&consumer, &topic, &self.shared.progress.take_moved(), CommitMode::Async);
            }
        }
        let positions = self.shared.progress.positions();
        leaving.extend(owners.into_values().map(Running::leave));
        leaving.into_iter().for_each(Running::join);
        if asked_to_end(&self.ending) == Ending::Stop {
            tell_group(&consumer, &topic, &positions, CommitMode::Sync);
            info!(%topic, "stopped");
        }
        Ok(())
    }

    fn own(&self, partition: i32) -> Result<Running, RuntimeError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let owner = Owner::new(self, partition, Arc::clone(&is_over));
        let name = format!("{}-{partition}", self.settings.participant);
        let thread = thread::Builder::new().name(name).spawn(move || owner.run())?;
        Ok(Running { is_over, thread })
    }
}

impl Running {
    /// It ends with its batch. Whoever has the partition next ends it sooner.
    fn leave(self) -> Self {
        self.is_over.store(true, Ordering::Release);
        self
    }

    fn join(self) {
        assert!(self.thread.join().is_ok() || thread::panicking(), "the owner of a partition has panicked");
    }
}

/// For people who watch lags, and to find that a memory is older than what was taken: the truth stands in the memory.
fn tell_group(consumer: &BaseConsumer<Membership>, topic: &str, positions: &[Position], mode: CommitMode) {
    if positions.is_empty() {
        return;
    }
    let mut offsets = TopicPartitionList::with_capacity(positions.len());
    for Position { partition, offset } in positions {
        let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        debug_assert!(added.is_ok(), "{offset} is an offset that was read");
    }
    if let Err(failure) = consumer.commit(&offsets, mode) {
        warn!(topic, %failure, "the group is not told how far the commands are taken");
    }
}

enum Change {
    Given(Vec<i32>),
    Taken(Vec<i32>),
}

#[derive(Default)]
struct Membership {
    changes: Mutex<Vec<Change>>,
}

impl Membership {
    fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client(level, facility, message);
    }
}

impl ConsumerContext for Membership {
    /// Nothing is fetched here: a rebalance is answered with an empty assignment.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
        let nothing = TopicPartitionList::new();
        let done = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.push(Change::Given(numbers));
            consumer.incremental_assign(&nothing)
        } else {
            self.push(Change::Taken(numbers));
            consumer.incremental_unassign(&nothing)
        };
        if let Err(failure) = done {
            warn!(%failure, "a rebalance was not taken");
        }
    }
}

//! The consumer's side of the group: partitions come and go, offsets are committed.

use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::replies::Shared;
use super::restored::Keep;
use super::trouble::log_client;
use super::{Ending, FINISH_TIMEOUT, asked_to_end};
use crate::store::Position;

/// Commits what is done, once the store knows it. Whether the store does.
pub(super) fn commit(
    consumer: &BaseConsumer<Membership>,
    keep: Option<&Mutex<Keep>>,
    topic: &str,
    positions: &[Position],
    mode: CommitMode,
) -> bool {
    if positions.is_empty() {
        return true;
    }
    if let Some(keep) = keep
        && let Err(fault) = (keep.lock().unwrap_or_else(PoisonError::into_inner))(positions)
    {
        warn!(topic, %fault, "offsets not committed, for the store cannot keep them: this work may be asked again, and repeated from memory");
        return false;
    }
    let mut offsets = TopicPartitionList::with_capacity(positions.len());
    for Position { partition, offset } in positions {
        let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        debug_assert!(added.is_ok(), "{offset} is an offset that was read");
    }
    if let Err(failure) = consumer.commit(&offsets, mode) {
        warn!(topic, %failure, "offsets not committed: this work may be asked again, and repeated from memory");
    }
    true
}

/// What the consumer calls from inside `poll`.
pub(super) struct Membership {
    pub(super) shared: Arc<Shared>,
    pub(super) ending: Arc<AtomicU8>,
    pub(super) topic: Arc<str>,
    pub(super) keep: Option<Arc<Mutex<Keep>>>,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client(level, facility, message);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let partitions = numbers(partitions);
                info!(topic = %self.topic, ?partitions, "partitions come");
                self.shared.progress.assign(partitions);
            }
            Rebalance::Revoke(partitions) => {
                let partitions = numbers(partitions);
                info!(topic = %self.topic, ?partitions, "partitions go");
                let is_abandoned =
                    asked_to_end(&self.ending) == Ending::Abandon || self.shared.forgotten().is_some();
                let timeout = if is_abandoned { Duration::ZERO } else { FINISH_TIMEOUT };
                let positions = self.shared.progress.revoke(&partitions, timeout);
                if !is_abandoned {
                    commit(consumer, self.keep.as_deref(), &self.topic, &positions, CommitMode::Sync);
                }
            }
            Rebalance::Error(failure) => warn!(topic = %self.topic, %failure, "rebalance"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(failure) = result {
            warn!(topic = %self.topic, %failure, "offsets not committed; tried again");
            self.shared.progress.forget_commits();
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<i32> {
    partitions
        .elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect()
}

//! What the group gives and takes. Partitions are fetched only once their shard is restored, and from explicit offsets:
//! so the rebalance itself assigns nothing, and takes away only what is being fetched.

use std::sync::Mutex;

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_resp_err_t as RDKafkaRespErr;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};

/// A change of what this member is responsible for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Given(Vec<i32>),
    Taken(Vec<i32>),
}

#[derive(Debug, Default)]
pub(super) struct Membership {
    changes: Mutex<Vec<Change>>,
}

impl Membership {
    pub(super) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn push(&self, change: Change) {
        self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(change);
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "consumer");
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
        let done = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.push(Change::Given(numbers));
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            let fetched = consumer.assignment().map(|assignment| fetched_of(&assignment, partitions));
            self.push(Change::Taken(numbers));
            fetched.and_then(|fetched| consumer.incremental_unassign(&fetched))
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a rebalance was not taken");
        }
    }
}

fn fetched_of(assignment: &TopicPartitionList, taken: &TopicPartitionList) -> TopicPartitionList {
    let mut fetched = TopicPartitionList::new();
    for element in taken.elements() {
        if assignment.find_partition(element.topic(), element.partition()).is_some() {
            fetched.add_partition(element.topic(), element.partition());
        }
    }
    fetched
}

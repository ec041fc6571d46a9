//! The transactional producer of one shard: the only place where the server uses Kafka transactions.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use sagamore_decider::checkpoint::{Checkpoint, StateRecord};
use sagamore_kafka::transactions::{TransactionError, Transactions};
use sagamore_schemas::log::{AS_OF, BARRIER_KEY};
use sagamore_schemas::topics::Topic;
use uuid::Uuid;

use super::Failure;
use crate::site::Site;

pub(crate) struct CheckpointProducer {
    transactions: Transactions,
    partition: i32,
    state: String,
    journal: String,
}

impl CheckpointProducer {
    /// Of one shard; it has to fence before it may write.
    pub(crate) fn new(site: &Site, instance: Uuid, partition: i32) -> Result<Self, Failure> {
        let id = format!("{}-{instance}-{partition}", site.prefix);
        let transactions = Transactions::new(&site.settings.checkpoint_producer(&id))?;
        let (state, journal) = (site.topic(Topic::State), site.topic(Topic::Journal));
        Ok(Self { transactions, partition, state, journal })
    }

    /// Fences the former owner and ends its open Kafka transaction.
    pub(crate) fn fence(&self) -> Result<(), Failure> {
        Ok(self.transactions.fence()?)
    }

    /// Writes the barrier up to which the state is to be read.
    pub(crate) fn write_barrier(&self, value: &[u8]) -> Result<(), Failure> {
        self.transactions.run(|| {
            self.send(BaseRecord::to(&self.state).key(BARRIER_KEY).payload(value))?;
            self.send(BaseRecord::to(&self.journal).key(BARRIER_KEY).payload(value))?;
            self.delivered()
        })
    }

    /// Writes what a part of a checkpoint hides.
    pub(crate) fn write_again(&self, records: &[StateRecord]) -> Result<(), Failure> {
        self.transactions.run(|| {
            records.iter().try_for_each(|record| self.send_state(record))?;
            self.delivered()
        })
    }

    /// Writes a checkpoint.
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        self.transactions.run(|| {
            for part in checkpoint.parts() {
                for (key, value) in part.journal {
                    self.send(BaseRecord::to(&self.journal).key(key.as_slice()).payload(value.as_slice()))?;
                }
                for record in part.state {
                    self.send_state(record)?;
                }
                self.delivered()?;
            }
            Ok(())
        })
    }

    fn send_state(&self, record: &StateRecord) -> Result<(), Failure> {
        let as_of = record.as_of.to_string();
        let headers = OwnedHeaders::new().insert(Header { key: AS_OF, value: Some(&as_of) });
        let mut base = BaseRecord::to(&self.state).key(record.key.as_slice()).headers(headers);
        if let Some(value) = &record.value {
            base = base.payload(value.as_slice());
        }
        self.send(base)
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Failure> {
        Ok(self.transactions.send(record.partition(self.partition))?)
    }

    fn delivered(&self) -> Result<(), Failure> {
        Ok(self.transactions.delivered()?)
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Fenced => Self::Fenced,
            TransactionError::Refused(_) | TransactionError::Indefinite(_) => {
                Self::Indefinite(error.to_string())
            }
        }
    }
}

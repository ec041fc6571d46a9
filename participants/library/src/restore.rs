//! What an operator does about a store that has forgotten what it has answered: SAG-101. All instances have ended meanwhile.
//!
//! | | Kafka's group | the store | and then |
//! |---|---|---|---|
//! | [`rewind`] | goes back to what the store knows | | every command since is taken again, in order, through the barrier |
//! | [`accept`] | | is told what the group has committed | what it has forgotten stays forgotten |
//!
//! Taken again, a command is done as if it had come for the first time: its effect is there again, once; its reply is known
//! to the coordinator, and changes nothing. That cannot repair: commands that the topic no longer has ([`Compared::gone`]);
//! answers that depend on a clock, on chance or on other people's data; commands issued before a watermark that another
//! partition has brought first, which are refused as `expired`.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::ClientSettings;
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, command_topic};
use serde::Serialize;

use crate::store::{Position, Store, StoreFault};

/// How long each question to the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Whose commands.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where the cluster is.
    pub clients: ClientSettings,
    /// What the names of topics and group begin with.
    pub prefix: Prefix,
    /// The participant.
    pub participant: Name,
}

/// A partition of the command topic, as Kafka and as the store have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Which one.
    pub partition: i32,
    /// Everything below it was answered, says the group.
    pub committed: Option<i64>,
    /// Everything below it was answered, says the store.
    pub known: Option<i64>,
    /// The oldest offset that the topic still has.
    pub earliest: i64,
}

impl Compared {
    /// How many offsets the store has forgotten.
    pub fn forgotten(&self) -> i64 {
        self.committed.map_or(0, |committed| (committed - self.known.unwrap_or(0)).max(0))
    }

    /// How many of these the topic no longer has.
    pub fn gone(&self) -> i64 {
        let known = self.known.unwrap_or(0);
        (self.earliest - known).clamp(0, self.forgotten())
    }
}

/// What to do when commands are gone from the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Nothing at all.
    Refuse,
    /// Take again what is left.
    Accept,
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What the client library says.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// There is no such participant here.
    #[error("there is no topic {0}")]
    NoTopic(String),
    /// Somebody takes commands.
    #[error("instances of the participant are running: end them all, their group must be empty")]
    Running,
    /// What has been forgotten is not in the topic any more.
    #[error(
        "{count} of the forgotten commands are no longer in the topic; the rest can be taken again all the same"
    )]
    Gone {
        /// How many, in offsets.
        count: i64,
    },
}

/// Looks, and changes nothing.
pub fn compare<S: Store>(place: &Place, store: &S) -> Result<Vec<Compared>, RestoreError> {
    Repair::begin(place, store).map(|repair| repair.compared)
}

/// Has every forgotten command taken again by whoever starts next.
pub fn rewind<S: Store>(place: &Place, store: &S, gone: Gone) -> Result<Vec<Compared>, RestoreError> {
    let mut repair = Repair::begin(place, store)?;
    let count = repair.compared.iter().map(Compared::gone).sum();
    if count > 0 && gone == Gone::Refuse {
        return Err(RestoreError::Gone { count });
    }
    let back =
        |one: &Compared| Position { partition: one.partition, offset: one.known.unwrap_or(0) + one.gone() };
    let targets: Vec<Position> = repair.compared.iter().filter(|one| one.forgotten() > 0).map(back).collect();
    repair.commit(&targets)?;
    // Ahead of what it knows where commands are gone: otherwise it would be behind the group once more.
    store.keep_positions(&mut repair.session, &repair.topic, &targets)?;
    Ok(repair.compared)
}

/// Leaves forgotten what the store has forgotten, and lets it go on from where the group is.
pub fn accept<S: Store>(place: &Place, store: &S) -> Result<Vec<Compared>, RestoreError> {
    let mut repair = Repair::begin(place, store)?;
    let targets: Vec<Position> = repair
        .compared
        .iter()
        .filter_map(|one| Some(Position { partition: one.partition, offset: one.committed? }))
        .collect();
    store.keep_positions(&mut repair.session, &repair.topic, &targets)?;
    Ok(repair.compared)
}

struct Repair<S: Store> {
    consumer: BaseConsumer,
    session: S::Session,
    topic: String,
    compared: Vec<Compared>,
}

impl<S: Store> Repair<S> {
    fn begin(place: &Place, store: &S) -> Result<Self, RestoreError> {
        let Place { clients, prefix, participant } = place;
        let mut session = store.session()?;
        let topic = command_topic(prefix, participant);
        let group = format!("{prefix}.{participant}");
        let consumer: BaseConsumer =
            clients.participant_consumer(&group, &format!("sagamore-{participant}")).create()?;
        let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT)?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic && found.error().is_none())
            .flat_map(|found| found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id))
            .collect();
        if partitions.is_empty() {
            return Err(RestoreError::NoTopic(topic));
        }
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in &partitions {
            asked.add_partition(&topic, *partition);
        }
        let committed = consumer.committed_offsets(asked, TIMEOUT)?;
        // Behind it: what somebody does meanwhile is in the store before it is in the group, and would look forgotten.
        let known = store.positions(&mut session, &topic)?;
        let mut compared = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let (earliest, _) = consumer.fetch_watermarks(&topic, partition, TIMEOUT)?;
            let committed = match committed.find_partition(&topic, partition) {
                Some(found) => {
                    found.error()?;
                    match found.offset() {
                        Offset::Offset(offset) => Some(offset),
                        Offset::Beginning
                        | Offset::End
                        | Offset::Stored
                        | Offset::Invalid
                        | Offset::OffsetTail(_) => None,
                    }
                }
                None => None,
            };
            compared.push(Compared { partition, committed, known: known.get(&partition).copied(), earliest });
        }
        Ok(Self { consumer, session, topic, compared })
    }

    fn commit(&self, targets: &[Position]) -> Result<(), RestoreError> {
        if targets.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(targets.len());
        for Position { partition, offset } in targets {
            offsets.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer.commit(&offsets, CommitMode::Sync).map_err(|failure| {
            match failure.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::IllegalGeneration,
                ) => RestoreError::Running,
                Some(_) | None => failure.into(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Committed, known, earliest; then forgotten, and gone of these.
    fn check(committed: Option<i64>, known: Option<i64>, earliest: i64, then: (i64, i64)) {
        let compared = Compared { partition: 0, committed, known, earliest };
        assert_eq!((compared.forgotten(), compared.gone()), then, "{compared:?}");
    }

    #[test]
    fn what_is_forgotten_and_what_of_it_is_gone() {
        check(Some(90), Some(90), 0, (0, 0));
        check(Some(90), Some(95), 0, (0, 0));
        check(None, Some(95), 0, (0, 0));
        check(Some(90), Some(60), 0, (30, 0));
        check(Some(90), Some(60), 60, (30, 0));
        check(Some(90), Some(60), 75, (30, 15));
        check(Some(90), Some(60), 95, (30, 30));
        check(Some(90), None, 10, (90, 10));
        check(Some(0), None, 0, (0, 0));
        check(Some(90), Some(90), 95, (0, 0));
    }
}

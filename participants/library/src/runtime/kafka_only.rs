//! Participants that have nothing but Kafka: their effect is a record, and so are their answers.
//!
//! ```text
//!  commands p ──▶ owner of p: a thread, a consumer, a transactional producer, the image of memory p and table p
//!                   │ one Kafka transaction a batch
//!                   ▼
//!     memory p, table p, replies p, what business code emits
//!                           │ committed
//!                           ▼
//!                         relay ──▶ the inbox, which takes no records of Kafka transactions
//! ```
//! The group `<prefix>.<name>` says who owns what, and nothing else: it fetches nothing, and what it is told of offsets is
//! for people who watch lags. Where a partition is taken up again stands in its memory ([`crate::store::kafka`]).
//!
//! An owner that meets anything indefinite drops its producer and all it holds, and takes the partition over again. A
//! process that was paused, and whose partition went elsewhere, is fenced with its next batch, of which nothing is
//! committed; and what is not committed, no relay forwards.
//!
//! Topics are made when they are missing, as many partitions as the command topic has, and checked when they are there.
//!
//! Deliberately absent: workers. Whoever wants more at a time has more partitions.

mod members;
mod owner;
mod place;
mod relay;
mod table;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::thread;
use std::time::Duration;

use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::topics::{KafkaOnlyTopics, TopicsError, ensure_kafka_only_topics};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, REPLICATION_LEAST, Topic, command_topic};
use tracing::{error, info, warn};

use super::desk::Desk;
use super::replies::{Replies, Shared};
use super::{ASKS_AFTER_DEFAULT, BATCH_MAX_DEFAULT, Ending, Handle, RuntimeError, asked_to_end};
use crate::participant::Participant;
use crate::store::kafka::{Bounds, KafkaStore};
use members::Members;
use relay::Relay;
pub use table::{TableError, read_table};

/// How often topics that are not there yet are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a stop is looked for meanwhile.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// How a participant runs that has nothing but Kafka.
#[derive(Debug, Clone)]
pub struct KafkaOnlySettings {
    /// Where the cluster is.
    pub clients: ClientSettings,
    /// What the names of topics, groups and transactional ids begin with.
    pub prefix: Prefix,
    /// Whose commands are taken; also the `source` of the replies.
    pub participant: Name,
    /// Commands in one Kafka transaction.
    pub batch_max: NonZeroUsize,
    /// How long after its `prepare` was issued a branch without a decision asks for it.
    pub asks_after: Duration,
    /// What is held in memory of each partition.
    pub bounds: Bounds,
    /// Copies of the topics that are made.
    pub replication: NonZeroU16,
    /// Tolerates one broker.
    pub is_development: bool,
    /// Whether what reaches the inbox carries the header `content-type`.
    pub has_content_type: bool,
}

impl KafkaOnlySettings {
    /// Batches of 500, inquiries after 30 s, the bounds of [`Bounds::default`], three copies, with the header.
    pub fn new(clients: ClientSettings, prefix: Prefix, participant: Name) -> Self {
        Self {
            clients,
            prefix,
            participant,
            batch_max: NonZeroUsize::new(BATCH_MAX_DEFAULT).unwrap_or(NonZeroUsize::MIN),
            asks_after: ASKS_AFTER_DEFAULT,
            bounds: Bounds::default(),
            replication: NonZeroU16::new(REPLICATION_LEAST).unwrap_or(NonZeroU16::MIN),
            is_development: false,
            has_content_type: true,
        }
    }

    fn group(&self) -> String {
        format!("{}.{}", self.prefix, self.participant)
    }
}

/// Topics that would break what is promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(BTreeMap<String, String>);

impl std::fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|(what, why)| format!("{what} is {why}")).collect();
        formatter.write_str(&lines.join(". "))
    }
}

/// A participant at work that has nothing but Kafka.
pub struct KafkaOnly;

impl KafkaOnly {
    /// Takes commands until it is stopped. It waits for brokers and for the command topic, for ever; topics that would
    /// break a promise end it, with [`RuntimeError::Unfit`] from [`Handle::join`].
    pub fn spawn<P: Participant<Store = KafkaStore>>(
        participant: P,
        settings: &KafkaOnlySettings,
    ) -> Result<Handle, RuntimeError> {
        let shared = Arc::new(Shared::new());
        let ending = Arc::new(AtomicU8::new(Ending::None as u8));
        let supervisor = Supervisor {
            participant: Arc::new(participant),
            settings: Arc::new(settings.clone()),
            shared: Arc::clone(&shared),
            ending: Arc::clone(&ending),
        };
        let thread = thread::Builder::new()
            .name(format!("{}-members", settings.participant))
            .spawn(move || supervisor.run())?;
        Ok(Handle { thread: Some(thread), shared, ending })
    }
}

struct Supervisor<P> {
    participant: Arc<P>,
    settings: Arc<KafkaOnlySettings>,
    shared: Arc<Shared>,
    ending: Arc<AtomicU8>,
}

impl<P: Participant<Store = KafkaStore>> Supervisor<P> {
    fn run(self) -> Result<(), RuntimeError> {
        let Some(topics) = self.topics().inspect_err(|cause| error!(%cause, "not taking commands"))? else {
            return Ok(());
        };
        let Self { participant, settings, shared, ending } = self;
        let relayed = Arc::new(Shared::with(Arc::clone(&shared.counts)));
        let client_id = format!("sagamore-{}", settings.participant);
        let replies = Arc::new(Replies::new(
            settings.clients.clone(),
            client_id,
            Topic::Inbox.name(&settings.prefix),
            settings.has_content_type,
            Arc::clone(&relayed),
        )?);
        let relay = Relay::spawn(&settings, &replies, &relayed)?;
        let desk = Desk {
            shared: Arc::clone(&shared),
            topic: command_topic(&settings.prefix, &settings.participant).into(),
            inbox: replies.topic().into(),
            name: settings.participant.clone(),
        };
        let partitions = i32::from(topics.partitions.get());
        let members =
            Members { participant, settings, desk, replies, shared, ending: Arc::clone(&ending), partitions };
        let ended = members.run();
        relay.end(asked_to_end(&ending));
        ended
    }

    /// Waits until they are there. `None`: it was stopped before.
    fn topics(&self) -> Result<Option<KafkaOnlyTopics>, RuntimeError> {
        let KafkaOnlySettings { clients, prefix, participant, replication, is_development, .. } =
            &*self.settings;
        let mut waits = 0_u32;
        while asked_to_end(&self.ending) == Ending::None {
            match ensure_kafka_only_topics(clients, prefix, participant, *replication) {
                Ok(Some(topics)) => {
                    let forbidding = topics.forbidding(*is_development);
                    for change in &topics.changes {
                        info!(?change, "made a topic of this participant's own");
                    }
                    if forbidding.is_empty() {
                        return Ok(Some(topics));
                    }
                    return Err(RuntimeError::Unfit(Unfit(forbidding)));
                }
                Ok(None) if waits.is_multiple_of(10) => {
                    let topic = command_topic(prefix, participant);
                    warn!(
                        topic,
                        "the command topic does not exist; applying a definition with this participant creates it"
                    );
                }
                Ok(None) => {}
                Err(cause) if cause.is_silence() => warn!(%cause, "topics not looked at; tried again"),
                Err(cause) => return Err(cause.into()),
            }
            waits += 1;
            wait(LOOK_INTERVAL, || asked_to_end(&self.ending) != Ending::None);
        }
        Ok(None)
    }
}

/// Waits so long, or until it is over.
fn wait(time: Duration, is_over: impl Fn() -> bool) {
    let until = std::time::Instant::now() + time;
    while !is_over() && std::time::Instant::now() < until {
        thread::sleep(STOP_INTERVAL.min(time));
    }
}

impl From<TopicsError> for RuntimeError {
    fn from(cause: TopicsError) -> Self {
        Self::Topics(cause)
    }
}

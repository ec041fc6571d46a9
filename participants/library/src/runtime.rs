//! The Kafka side: commands in, replies out, offsets behind.
//!
//! ```text
//!  commands.<participant> ──poll──▶ worker = hash of the record's key ──▶ one local transaction a batch
//!           ▲                                                                   │ committed
//!           └── offsets, once everything below is finished ◀── delivered ── reply to the inbox
//! ```
//! One thread polls. With one worker the work is done there; with more, each worker has its own thread, and commands
//! of one key stay in order. Nothing ticks while records flow: a poll returns with the first record, everything
//! that waits behind it joins its batch.
//!
//! Bounded in flight: with [`Settings::in_flight_max`] commands unfinished, nothing more is taken; the group keeps its
//! member. When a partition goes elsewhere, what has begun is finished and committed, what waits is dropped. A crash
//! between effect and commit makes a duplicate, which the barrier answers from memory.
//!
//! Before anything is answered from a store, it is compared with what the group has committed ([`restored`]): a store that
//! was restored from an old copy ends the runtime.
//!
//! A verdict on the command topic takes the same way, without a reply. One more thread asks for branches in doubt, and
//! ends those whose time is up under `termination: unilateral`.
//!
//! Deliberately absent: retries of business code. The coordinator asks again, with its own pauses.

mod asker;
mod counters;
mod desk;
mod doubts;
pub mod kafka_only;
mod membership;
mod progress;
mod replies;
mod restored;
mod trouble;
mod verdicts;
mod worker;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::topics::TopicsError;
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use tracing::{error, info, warn};

use asker::{Asker, Asking, Rounds};
pub use counters::Counters;
use desk::{Desk, Taken};
use doubts::Doubts;
use membership::{Membership, commit};
use replies::{Replies, Shared};
pub use restored::Forgotten;
use restored::{Keep, Keeper};
use trouble::Trouble;
use worker::Worker;

use crate::code::Code;
use crate::participant::Participant;
use crate::store::Store;

/// How long a poll waits for a first record: what a stop waits for at most, and nothing else.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// Commands in flight unless told otherwise.
const IN_FLIGHT_MAX_DEFAULT: usize = 20_000;
/// Commands in one local transaction unless told otherwise.
const BATCH_MAX_DEFAULT: usize = 500;
/// How often finished work is committed unless told otherwise: one small record a turn.
const COMMIT_INTERVAL_DEFAULT: Duration = Duration::from_millis(500);
/// After so long without a decision a branch asks, unless told otherwise: the usual timeout of a step.
const ASKS_AFTER_DEFAULT: Duration = Duration::from_secs(30);
/// How long a rebalance or a stop waits for replies under way. They are repeated by whoever comes next.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often failed deliveries are tried again.
const RESEND_INTERVAL: Duration = Duration::from_millis(250);
/// After so long without room, the consumer is paused and polled, so that rebalances are answered meanwhile.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How long the group's coordinator may take to say what was committed; then it is asked again.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);
/// After a store could not keep positions, so many turns of committing are left out: each may have waited for its timeout.
const TURNS_LEFT_OUT: u32 = 10;
/// How often a topic that does not exist yet is looked for, in ms.
const METADATA_REFRESH_MS: &str = "2000";

/// How a runtime runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the cluster is.
    pub clients: ClientSettings,
    /// What the names of topics and group begin with.
    pub prefix: Prefix,
    /// Whose commands are taken; also the `source` of the replies.
    pub participant: Name,
    /// Threads that do the work. One does it on the polling thread, which is quickest for short effects.
    pub workers: NonZeroUsize,
    /// Commands taken whose replies are not delivered. It covers a second of replies under way at full speed.
    pub in_flight_max: NonZeroUsize,
    /// Commands in one local transaction: what a failing commit makes repeat one by one.
    pub batch_max: NonZeroUsize,
    /// How often finished work is committed: what a crash makes the next one repeat.
    pub commit_interval: Duration,
    /// How long after its `prepare` was issued a branch without a decision asks for it; then again after pauses that
    /// double, up to five minutes.
    pub asks_after: Duration,
    /// What a command hears while the store cannot be reached.
    pub when_away: WhenAway,
    /// Whether replies and inquiries carry the header `content-type`. It costs throughput, and readers need none.
    pub has_content_type: bool,
}

impl Settings {
    /// One worker, 20,000 in flight, batches of 500, committed twice a second, inquiries after 30 s, `error` while the
    /// store is away, with the header.
    pub fn new(clients: ClientSettings, prefix: Prefix, participant: Name) -> Self {
        let number = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        Self {
            clients,
            prefix,
            participant,
            workers: NonZeroUsize::MIN,
            in_flight_max: number(IN_FLIGHT_MAX_DEFAULT),
            batch_max: number(BATCH_MAX_DEFAULT),
            commit_interval: COMMIT_INTERVAL_DEFAULT,
            asks_after: ASKS_AFTER_DEFAULT,
            when_away: WhenAway::Error,
            has_content_type: true,
        }
    }
}

/// While the store cannot be reached. Nothing is lost either way: the coordinator asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAway {
    /// `error`, at once: it asks again after the step's pause.
    Error,
    /// No reply: it asks again after the step's timeout, so that a short outage costs fewer attempts.
    Silence,
}

/// Why a runtime does not run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The client library does not take the settings.
    #[error("Kafka client: {0}")]
    Client(#[from] KafkaError),
    /// The system gives no thread.
    #[error("thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The topics of a participant that has nothing but Kafka cannot be made or looked at.
    #[error(transparent)]
    Topics(TopicsError),
    /// The topics of a participant that has nothing but Kafka would break what it promises.
    #[error("topics that would break a promise: {0}")]
    Unfit(kafka_only::Unfit),
    /// The store is not the one that has answered.
    #[error("{0}")]
    Forgotten(Box<Forgotten>),
    /// A defect: a thread of the runtime panicked.
    #[error("the runtime panicked")]
    Panicked,
}

/// A participant at work.
pub struct Runtime;

impl Runtime {
    /// Takes commands until it is stopped. Unreachable brokers are told of and tried again, for ever.
    pub fn spawn<P: Participant>(
        participant: P,
        store: P::Store,
        settings: &Settings,
    ) -> Result<Handle, RuntimeError> {
        let shared = Arc::new(Shared::new());
        let ending = Arc::new(AtomicU8::new(Ending::None as u8));
        let client_id = format!("sagamore-{}", settings.participant);
        let group = format!("{}.{}", settings.prefix, settings.participant);
        let topic: Arc<str> = command_topic(&settings.prefix, &settings.participant).into();

        let config = settings.clients.participant_consumer(&group, &client_id);
        let replies = Arc::new(Replies::new(
            settings.clients.clone(),
            client_id,
            Topic::Inbox.name(&settings.prefix),
            settings.has_content_type,
            Arc::clone(&shared),
        )?);

        let (participant, store) = (Arc::new(participant), Arc::new(store));
        let doubts = Arc::new(Doubts::default());
        let worker = || Worker {
            participant: Arc::clone(&participant),
            store: Arc::clone(&store),
            session: None,
            replies: Arc::clone(&replies),
            shared: Arc::clone(&shared),
            doubts: Arc::clone(&doubts),
            desk: Desk {
                shared: Arc::clone(&shared),
                topic: Arc::clone(&topic),
                inbox: replies.topic().into(),
                name: settings.participant.clone(),
            },
            when_away: settings.when_away,
            verified: None,
        };
        let crew = Crew::new(settings, worker)?;
        let asking = Asking::spawn(Asker {
            participant: Arc::clone(&participant),
            store: Arc::clone(&store),
            session: None,
            replies: Arc::clone(&replies),
            shared: Arc::clone(&shared),
            doubts: Arc::clone(&doubts),
            topic: Arc::clone(&topic),
            name: settings.participant.clone(),
            rounds: Rounds::new(settings.asks_after),
        })?;
        let mut keeper = Keeper {
            store: Arc::clone(&store),
            session: None,
            shared: Arc::clone(&shared),
            topic: Arc::clone(&topic),
        };
        let keep: Option<Arc<Mutex<Keep>>> = if P::Store::KEEPS_POSITIONS {
            Some(Arc::new(Mutex::new(move |positions: &[_]| keeper.keep(positions))))
        } else {
            None
        };
        let poller = Poller::new(config, topic, &replies, &shared, &ending, crew, keep)?;
        let poller = Poller {
            asking: Some(asking),
            in_flight_max: settings.in_flight_max.get(),
            batch_max: settings.batch_max.get(),
            commit_interval: settings.commit_interval,
            ..poller
        };
        let thread =
            thread::Builder::new().name(format!("{}-poll", settings.participant)).spawn(move || {
                poller.run();
                Ok(())
            })?;
        Ok(Handle { thread: Some(thread), shared, ending })
    }
}

/// A running participant. Dropped, it is stopped.
pub struct Handle {
    thread: Option<JoinHandle<Result<(), RuntimeError>>>,
    shared: Arc<Shared>,
    ending: Arc<AtomicU8>,
}

impl Handle {
    /// Asks for the graceful end: nothing new begins, replies leave, offsets are committed, the group is left.
    pub fn stop(&self) {
        self.end(Ending::Stop);
    }

    /// For tests: ends as a crash would, without finishing, sending or committing what is under way.
    pub fn abandon(&self) {
        self.end(Ending::Abandon);
    }

    /// Waits for the end, which also comes when the store turns out to be a restored copy: [`RuntimeError::Forgotten`].
    pub fn join(mut self) -> Result<Counters, RuntimeError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(RuntimeError::Panicked),
            Some(Ok(Err(error))) => Err(error),
            Some(Ok(Ok(()))) | None => match self.shared.forgotten() {
                Some(forgotten) => Err(RuntimeError::Forgotten(Box::new(forgotten.clone()))),
                None => Ok(self.counters()),
            },
        }
    }

    /// What has been done so far.
    pub fn counters(&self) -> Counters {
        self.shared.counts.snapshot(self.shared.progress.in_flight())
    }

    /// Whether it is still at work.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn end(&self, ending: Ending) {
        self.ending.fetch_max(ending as u8, Ordering::AcqRel);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Ending {
    None = 0,
    Stop = 1,
    Abandon = 2,
}

fn asked_to_end(ending: &AtomicU8) -> Ending {
    match ending.load(Ordering::Acquire) {
        0 => Ending::None,
        1 => Ending::Stop,
        _ => Ending::Abandon,
    }
}

/// What becomes of the records that a poller takes.
trait Work: Send + 'static {
    /// Begins with these, and returns the buffers that are free again.
    fn work(&mut self, batch: Vec<Taken>) -> Vec<Taken>;

    /// Ends what has begun.
    fn end(self);
}

/// Those who do the work.
enum Crew<P: Participant> {
    Inline(Box<Worker<P>>),
    Threads { senders: Vec<mpsc::Sender<Vec<Taken>>>, threads: Vec<JoinHandle<()>> },
}

impl<P: Participant> Crew<P> {
    fn new(settings: &Settings, worker: impl Fn() -> Worker<P>) -> Result<Self, RuntimeError> {
        if settings.workers.get() == 1 {
            return Ok(Self::Inline(Box::new(worker())));
        }
        let (mut senders, mut threads) = (Vec::new(), Vec::new());
        for number in 0..settings.workers.get() {
            // Bounded by what may be in flight.
            let (sender, receiver) = mpsc::channel::<Vec<Taken>>();
            let mut worker = worker();
            let thread = thread::Builder::new()
                .name(format!("{}-{number}", settings.participant))
                .spawn(move || receiver.into_iter().for_each(|mut batch| worker.run(&mut batch)))?;
            senders.push(sender);
            threads.push(thread);
        }
        Ok(Self::Threads { senders, threads })
    }
}

impl<P: Participant> Work for Crew<P> {
    /// Gives each record to the worker of its key.
    fn work(&mut self, mut batch: Vec<Taken>) -> Vec<Taken> {
        match self {
            Self::Inline(worker) => {
                worker.run(&mut batch);
                batch
            }
            Self::Threads { senders, .. } => {
                let mut shares: Vec<Vec<Taken>> = senders.iter().map(|_| Vec::new()).collect();
                for taken in batch {
                    let worker = usize::try_from(taken.key_hash % senders.len() as u64).unwrap_or(0);
                    shares[worker].push(taken);
                }
                for (sender, share) in senders.iter().zip(shares) {
                    let is_given = share.is_empty() || sender.send(share).is_ok();
                    assert!(is_given, "a worker of the participant has panicked");
                }
                Vec::new()
            }
        }
    }

    fn end(self) {
        match self {
            Self::Inline(_) => {}
            Self::Threads { senders, threads } => {
                drop(senders);
                for thread in threads {
                    assert!(thread.join().is_ok(), "a worker of the participant has panicked");
                }
            }
        }
    }
}

/// The thread that owns the consumer.
struct Poller<W> {
    consumer: BaseConsumer<Membership>,
    /// Before offsets are committed; none where no store knows them.
    keep: Option<Arc<Mutex<Keep>>>,
    crew: W,
    asking: Option<Asking>,
    replies: Arc<Replies>,
    shared: Arc<Shared>,
    ending: Arc<AtomicU8>,
    topic: Arc<str>,
    in_flight_max: usize,
    batch_max: usize,
    commit_interval: Duration,
    taken: Vec<Taken>,
    spare: Vec<Taken>,
    trouble: Trouble,
    committed_at: Instant,
    resent_at: Instant,
}

impl<W: Work> Poller<W> {
    /// Of a topic, in the group of `config`.
    fn new(
        mut config: ClientConfig,
        topic: Arc<str>,
        replies: &Arc<Replies>,
        shared: &Arc<Shared>,
        ending: &Arc<AtomicU8>,
        crew: W,
        keep: Option<Arc<Mutex<Keep>>>,
    ) -> Result<Self, RuntimeError> {
        if config.get("topic.metadata.refresh.interval.ms").is_none() {
            config.set("topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS);
        }
        let membership = Membership {
            shared: Arc::clone(shared),
            ending: Arc::clone(ending),
            topic: Arc::clone(&topic),
            keep: keep.clone(),
        };
        let consumer: BaseConsumer<Membership> = config.create_with_context(membership)?;
        consumer.subscribe(&[&topic])?;
        Ok(Self {
            consumer,
            keep,
            crew,
            asking: None,
            replies: Arc::clone(replies),
            shared: Arc::clone(shared),
            ending: Arc::clone(ending),
            topic,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            batch_max: BATCH_MAX_DEFAULT,
            commit_interval: COMMIT_INTERVAL_DEFAULT,
            taken: Vec::new(),
            spare: Vec::new(),
            trouble: Trouble::default(),
            committed_at: Instant::now(),
            resent_at: Instant::now(),
        })
    }

    fn run(mut self) {
        info!(topic = %self.topic, "taking commands");
        while self.goes_on() {
            let room = self.in_flight_max.saturating_sub(self.shared.progress.in_flight());
            if room > 0 {
                self.take(room.min(self.batch_max));
                if !self.knows_what_was_committed() {
                    continue;
                }
                let batch = std::mem::take(&mut self.taken);
                if !batch.is_empty() {
                    let free = self.crew.work(batch);
                    self.recycle(free);
                    self.replies.look_around();
                }
            } else {
                self.wait_for_room();
            }
            self.commit_when_due();
            self.resend_when_due();
        }
        self.finish();
    }

    fn goes_on(&self) -> bool {
        asked_to_end(&self.ending) == Ending::None && self.shared.forgotten().is_none()
    }

    /// Asks the group for what it has committed of partitions that have come.
    fn knows_what_was_committed(&mut self) -> bool {
        let Some(keep) = &self.keep else { return true };
        let unknown = self.shared.progress.unknown_floors();
        if unknown.is_empty() {
            return true;
        }
        let mut asked = TopicPartitionList::with_capacity(unknown.len());
        for partition in unknown {
            asked.add_partition(&self.topic, partition);
        }
        let found = match self.consumer.committed_offsets(asked, COMMITTED_TIMEOUT) {
            Ok(found) => found,
            Err(failure) => {
                self.trouble.tell(&self.topic, &failure);
                return false;
            }
        };
        for one in found.elements() {
            if let Err(failure) = one.error() {
                self.trouble.tell(&self.topic, &failure);
                return false;
            }
            let committed = match one.offset() {
                Offset::Offset(offset) => Some(offset),
                Offset::Beginning
                | Offset::End
                | Offset::Stored
                | Offset::Invalid
                | Offset::OffsetTail(_) => None,
            };
            self.shared.progress.learn_floor(one.partition(), committed);
        }
        // At once, so that a restored copy is found out before a command comes. A store that is away is compared by the
        // worker, before it answers.
        let compared = (keep.lock().unwrap_or_else(PoisonError::into_inner))(&[]);
        if let Err(fault) = compared
            && self.shared.forgotten().is_none()
        {
            info!(topic = %self.topic, %fault, "the store is not compared yet with what was committed");
        }
        self.shared.forgotten().is_none()
    }

    /// Takes what is there, up to `limit`; waits for the first one only.
    fn take(&mut self, limit: usize) {
        let mut timeout = if self.taken.is_empty() { IDLE_POLL } else { Duration::ZERO };
        while self.taken.len() < limit {
            match self.consumer.poll(timeout) {
                Some(Ok(message)) => {
                    let taken = take_record(&self.shared, &mut self.spare, &message);
                    self.taken.extend(taken);
                    self.trouble.over();
                    timeout = Duration::ZERO;
                }
                Some(Err(failure)) => {
                    self.trouble.tell(&self.topic, &failure);
                    return;
                }
                None => return,
            }
        }
    }

    fn recycle(&mut self, free: Vec<Taken>) {
        // Large values give their memory back; the usual ones are kept for as many as one batch takes.
        const KEPT_BYTES: usize = 16 * 1024;
        let room = self.batch_max.saturating_sub(self.spare.len());
        self.spare.extend(free.into_iter().filter(|taken| taken.value.capacity() <= KEPT_BYTES).take(room));
    }

    /// Not polling is the quickest pause; a long one is made a real pause, so that rebalances are answered.
    fn wait_for_room(&mut self) {
        let enough = self.in_flight_max.saturating_sub(self.batch_max.min(self.in_flight_max / 2).max(1));
        let since = Instant::now();
        let mut is_paused = false;
        while self.goes_on() && !self.shared.progress.wait_until_in_flight(enough, IDLE_POLL) {
            self.commit_when_due();
            self.resend_when_due();
            if since.elapsed() >= PAUSE_AFTER {
                if !is_paused {
                    let in_flight = self.shared.progress.in_flight();
                    warn!(topic = %self.topic, in_flight, "work does not finish; nothing more is taken");
                }
                is_paused = true;
                self.poll_paused();
            }
        }
        if is_paused {
            self.for_assignment("resume", Consumer::resume);
            info!(topic = %self.topic, "taking commands again");
        }
    }

    /// Lets the client library do its duties; a record that slips through is taken all the same.
    fn poll_paused(&mut self) {
        self.for_assignment("pause", Consumer::pause);
        match self.consumer.poll(Duration::ZERO) {
            Some(Ok(message)) => {
                let taken = take_record(&self.shared, &mut self.spare, &message);
                self.taken.extend(taken);
            }
            Some(Err(failure)) => self.trouble.tell(&self.topic, &failure),
            None => {}
        }
    }

    fn for_assignment(
        &self,
        verb: &'static str,
        work: impl FnOnce(&BaseConsumer<Membership>, &TopicPartitionList) -> KafkaResult<()>,
    ) {
        let done = self.consumer.assignment().and_then(|partitions| work(&self.consumer, &partitions));
        if let Err(failure) = done {
            warn!(topic = %self.topic, verb, %failure, "the assignment does not follow");
        }
    }

    fn commit_when_due(&mut self) {
        // In the future while the store could not keep them: `elapsed` is zero then.
        if self.committed_at.elapsed() < self.commit_interval {
            return;
        }
        self.committed_at = Instant::now();
        let moved = self.shared.progress.take_moved();
        if !commit(&self.consumer, self.keep.as_deref(), &self.topic, &moved, CommitMode::Async) {
            self.shared.progress.forget_commits();
            self.committed_at = Instant::now() + self.commit_interval * TURNS_LEFT_OUT;
        }
    }

    fn resend_when_due(&mut self) {
        if self.resent_at.elapsed() >= RESEND_INTERVAL {
            self.resent_at = Instant::now();
            self.replies.resend();
        }
    }

    fn finish(mut self) {
        drop(self.asking);
        self.shared.progress.drain();
        self.shared.progress.begin(&mut self.taken, Taken::token);
        self.crew.end();
        if let Some(forgotten) = self.shared.forgotten() {
            error!(code = %Code::StoreForgotten, "{forgotten}");
            return;
        }
        if asked_to_end(&self.ending) == Ending::Abandon {
            return;
        }
        let deadline = Instant::now() + FINISH_TIMEOUT;
        while !self.shared.progress.wait_until_in_flight(0, IDLE_POLL) && Instant::now() < deadline {
            self.replies.resend();
        }
        let positions = self.shared.progress.positions();
        commit(&self.consumer, self.keep.as_deref(), &self.topic, &positions, CommitMode::Sync);
        info!(topic = %self.topic, in_flight = self.shared.progress.in_flight(), "stopped");
    }
}

fn take_record(shared: &Shared, spare: &mut Vec<Taken>, message: &BorrowedMessage<'_>) -> Option<Taken> {
    let token = shared.progress.take(message.partition(), message.offset())?;
    let mut record = spare.pop().unwrap_or_default();
    record.token = Some(token);
    record.partition = message.partition();
    record.offset = message.offset();
    record.key_hash = hash_of(message.key());
    record.key.clear();
    record.key.extend_from_slice(message.key().unwrap_or_default());
    record.value.clear();
    record.value.extend_from_slice(message.payload().unwrap_or_default());
    Some(record)
}

fn hash_of(key: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

//! The thread: connects, waits for the lock, works, and begins anew when the database goes.
//!
//! | state | on | becomes |
//! |---|---|---|
//! | away | the database and Kafka answer | standing by |
//! | standing by | the lock is free | active |
//! | active | the connection is lost, or a statement fails that does not concern a single row | away; the lock is free |
//! | any | told to stop | ended: what is under way is waited for, offsets are committed |
//!
//! A relay that stands still (a stopped process, a machine that is cut off) says nothing to its database, which ends the
//! session after [`SILENCE_MAX`]; so its lock becomes free as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::topics::{InstanceError, read_instance};
use sagamore_participant_postgres::{Connection, Connector, SqlError, connector, lock_key};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::{Prefix, Topic};
use tokio_postgres::{Config, NoTls};
use tracing::{error, info, warn};

use crate::chores::Chores;
use crate::commands::Commands;
use crate::counters::Counters;
use crate::handover::Handover;
use crate::inbox::Inbox;
use crate::route::Map;
use crate::schema::{Schema, migrate};

/// The longest that a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the database has to answer, on top of that.
const MARGIN: Duration = Duration::from_secs(2);
/// After so long without a statement the database ends the session, and with it the lock.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often the database hears from us at least, whatever Kafka does.
const SPEAKS_EVERY: Duration = Duration::from_secs(1);
/// How often one that stands by tries the lock.
const STANDBY_INTERVAL: Duration = Duration::from_millis(250);
/// Before what failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const CHORES_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop waits for what is under way.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a wait for Kafka's answers to a batch is at most, so that commands are looked at in between.
const HEARS_EVERY: Duration = Duration::from_millis(1);

/// How a relay runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The service's database.
    pub postgres: Config,
    /// Where the tables are; made if it is not there.
    pub schema: Schema,
    /// Where the cluster is.
    pub clients: ClientSettings,
    /// What the names of the installation's topics begin with.
    pub prefix: Prefix,
    /// What the names of topics begin with that other rows go to.
    pub route: String,
    /// Whose commands are taken. None: an outbox alone.
    pub participants: Vec<Name>,
    /// How often outbox and commands are looked at while there is nothing.
    pub poll_interval: Duration,
    /// How long after its `prepare` was issued a vote without a decision asks for it; then after pauses that double.
    pub asks_after: Duration,
}

impl Settings {
    /// Schema `sagamore`, prefix `sagamore`, route `outbox.event`, no participants, a look every 20 ms, inquiries after 30 s.
    pub fn new(postgres: Config, clients: ClientSettings) -> Self {
        let schema = "sagamore".parse().unwrap_or_else(|_| unreachable!("a plain name"));
        Self {
            postgres,
            schema,
            clients,
            prefix: Prefix::default(),
            route: "outbox.event".to_owned(),
            participants: Vec::new(),
            poll_interval: Duration::from_millis(20),
            asks_after: Duration::from_secs(30),
        }
    }
}

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A newer release has been here.
    #[error("the schema has version {found}, this release knows {known}: take the newer release")]
    NewerSchema {
        /// In the database.
        found: i32,
        /// The newest this release knows.
        known: i32,
    },
    /// What the database says.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The client library does not take the settings.
    #[error("Kafka client: {0}")]
    Kafka(#[from] KafkaError),
    /// The topics are not there, or not one installation's.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The system gives no thread.
    #[error("thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A defect.
    #[error("the relay panicked")]
    Panicked,
}

impl RelayError {
    /// Whether database or brokers may answer a little later.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Sql(error) => error.is_away(),
            Self::Instance(error) => error.is_silence(),
            Self::NewerSchema { .. } | Self::Kafka(_) | Self::Thread(_) | Self::Panicked => false,
        }
    }
}

/// A relay at work.
pub struct Relay {
    settings: Settings,
    connector: Connector,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    counters: Mutex<Counters>,
}

/// A running relay. Dropped, it is stopped.
pub struct Handle {
    thread: Option<JoinHandle<Result<(), RelayError>>>,
    shared: Arc<Shared>,
}

/// Stops a relay from elsewhere.
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// Asks for the graceful end.
    pub fn stop(&self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

impl Handle {
    /// For another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// Asks for the graceful end.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        *self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end.
    pub fn join(mut self) -> Result<Counters, RelayError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => return Err(RelayError::Panicked),
            Some(Ok(ended)) => ended?,
            None => {}
        }
        Ok(self.counters())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an active one has besides its connection.
struct Works {
    handover: Handover,
    commands: Vec<Commands>,
    chores: Chores,
}

impl Relay {
    /// Runs until it is stopped. While database or brokers are away it waits for them, for ever.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(settings: Settings) -> Result<Handle, RelayError> {
        let shared = Arc::new(Shared::default());
        let relay = Self { settings, connector: connector(NoTls), shared: Arc::clone(&shared) };
        let thread = thread::Builder::new().name("outbox".into()).spawn(move || relay.run())?;
        Ok(Handle { thread: Some(thread), shared })
    }

    fn run(&self) -> Result<(), RelayError> {
        let (mut has_worked, mut is_told) = (false, false);
        while !self.is_over() {
            let lived = self.live(&mut has_worked, &mut is_told);
            self.count(|counters| counters.active = false);
            let Err(error) = lived else { continue };
            if !error.is_away() && !has_worked {
                return Err(error);
            }
            if !is_told {
                is_told = true;
                error!(%error, "database or brokers do not answer as they should; trying again");
            }
            self.pause(AGAIN_AFTER);
        }
        Ok(())
    }

    /// From a new connection to its end, or to ours.
    fn live(&self, has_worked: &mut bool, is_told: &mut bool) -> Result<(), RelayError> {
        let Settings { postgres, schema, clients, prefix, .. } = &self.settings;
        let instance = read_instance(clients, prefix)?;
        let mut connection = Connection::open(&self.connector, postgres, STATEMENT_TIMEOUT + MARGIN)?;
        migrate(&mut connection, schema)?;
        connection.batch(&format!(
            "SET statement_timeout = {};
             SET lock_timeout = {};
             SET idle_session_timeout = {silence};
             SET idle_in_transaction_session_timeout = {silence};
             SET client_min_messages = warning;
             SET jit = off;
             SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off'",
            STATEMENT_TIMEOUT.as_millis(),
            STATEMENT_TIMEOUT.as_millis() / 2,
            silence = SILENCE_MAX.as_millis(),
        ))?;
        *has_worked = true;
        if std::mem::take(is_told) {
            info!("database and brokers answer again");
        }
        if !self.stand_by(&mut connection)? {
            return Ok(());
        }
        let map = Map {
            prefix: prefix.clone(),
            partitions: instance.partitions,
            route: self.settings.route.clone(),
        };
        let inbox = Topic::Inbox.name(prefix);
        let commands = self.settings.participants.iter().map(|participant| {
            let kept = Inbox::new(schema, participant.clone(), &inbox);
            Commands::new(clients, prefix, participant, kept)
        });
        let mut works = Works {
            handover: Handover::new(clients, schema, map)?,
            commands: commands.collect::<Result<_, _>>()?,
            chores: Chores::new(schema, self.settings.asks_after),
        };
        info!(%prefix, schema = schema.as_str(), "relaying");
        self.count(|counters| counters.active = true);
        self.work(&mut connection, &mut works)?;
        self.finish(&mut connection, &mut works)?;
        Ok(())
    }

    /// Waits for the lock; `false` when told to stop meanwhile.
    fn stand_by(&self, connection: &mut Connection) -> Result<bool, SqlError> {
        let key = lock_key(&[b"sagamore outbox", self.settings.schema.as_str().as_bytes()]);
        let mut is_told = false;
        while !self.is_over() {
            let row = connection
                .wait(async |client| client.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await)?;
            if row.get(0) {
                return Ok(true);
            }
            if !is_told {
                is_told = true;
                info!("another relay is active; standing by");
            }
            self.pause(STANDBY_INTERVAL);
        }
        Ok(false)
    }

    fn work(&self, connection: &mut Connection, works: &mut Works) -> Result<(), RelayError> {
        let share = u32::try_from(works.commands.len()).unwrap_or(u32::MAX).max(1);
        let (mut chores_at, mut spoke_at) = (Instant::now(), Instant::now());
        let mut patience = Duration::ZERO;
        while !self.is_over() {
            let mut counters = self.counters();
            let mut is_busy = false;
            for commands in &mut works.commands {
                let patience = if is_busy { Duration::ZERO } else { patience / share };
                is_busy |= commands.turn(connection, patience, &mut counters)?;
                if spoke_at.elapsed() >= SPEAKS_EVERY {
                    spoke_at = Instant::now();
                    connection.batch("")?;
                }
            }
            if works.commands.is_empty() && !works.handover.is_waiting() {
                thread::sleep(patience);
            }
            works.handover.hear(if is_busy { Duration::ZERO } else { HEARS_EVERY });
            is_busy |= works.handover.turn(connection, &mut counters)?;
            if chores_at.elapsed() >= CHORES_INTERVAL {
                chores_at = Instant::now();
                counters.inquiries += works.chores.ask(connection)?;
                works.chores.purge(connection)?;
            }
            patience = if is_busy || works.handover.is_waiting() {
                Duration::ZERO
            } else {
                self.settings.poll_interval
            };
            self.count(|told| *told = counters);
        }
        Ok(())
    }

    fn finish(&self, connection: &mut Connection, works: &mut Works) -> Result<(), RelayError> {
        let begun = Instant::now();
        let mut counters = self.counters();
        while works.handover.is_waiting() && begun.elapsed() < FINISH_TIMEOUT {
            works.handover.hear(Duration::from_millis(20));
            works.handover.end(connection, &mut counters)?;
        }
        if works.handover.is_waiting() {
            warn!("Kafka has not answered; what is under way stays in the outbox");
        }
        works.commands.iter_mut().for_each(Commands::finish);
        self.count(|told| *told = counters);
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Acquire)
    }

    fn pause(&self, pause: Duration) {
        let begun = Instant::now();
        while !self.is_over() && begun.elapsed() < pause {
            thread::sleep(pause.min(Duration::from_millis(20)));
        }
    }

    fn counters(&self) -> Counters {
        *self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

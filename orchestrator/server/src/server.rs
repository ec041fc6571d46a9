//! A server: lanes, API, and what they share. One start for production, tests and the demo.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sagamore_kafka::topics::{self, Finding, Instance, InstanceError, TopicsError};
use sagamore_schemas::topics::Severity;

use crate::api::{self, Api};
use crate::config::{Installation, ServerConfig};
use crate::definitions_tail::{DefinitionsTail, TailThread};
use crate::halt::Code;
use crate::lane::{Directory, Lane, LaneError, Query, Surroundings};
use crate::snapshots::Hourly;
use crate::view::{View, ViewError};
use crate::waiters::Waiters;
use crate::watch::Watch;

/// Pause between two attempts to find the cluster at the start.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topics would break a promise.
    #[error("{code}: the topics would break a promise:{findings}\nnext: sagamore topics plan, then sagamore topics apply", code = Code::TopicsUnfit.as_str(), findings = told(.0))]
    TopicsUnfit(Vec<Finding>),
    /// The topics are missing or contradictory.
    #[error("{code}: {0}\nnext: sagamore topics apply", code = Code::NoTopics.as_str())]
    NoTopics(String),
    /// No broker answers.
    #[error("{code}: {0}", code = Code::Unreachable.as_str())]
    Unreachable(String),
    /// Kafka says something else.
    #[error("{code}: {0}", code = Code::TopicsUnfit.as_str())]
    Topics(#[from] TopicsError),
    /// A lane cannot start.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The API cannot listen.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A Kafka client cannot be made.
    #[error("a Kafka client cannot be made: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    /// No runtime for the API.
    #[error("no runtime for the API: {0}")]
    Runtime(std::io::Error),
    /// The view has no place.
    #[error("--view: {0}")]
    View(#[from] ViewError),
    /// No thread for snapshots.
    #[error("no thread for snapshots: {0}")]
    Snapshots(std::io::Error),
    /// Metrics cannot be counted.
    #[error("no metrics: {0}")]
    Metrics(String),
}

impl StartError {
    /// Which page of the runbook, when there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::TopicsUnfit(_) | Self::Topics(_) => Some(Code::TopicsUnfit),
            Self::NoTopics(_) => Some(Code::NoTopics),
            Self::Unreachable(_) => Some(Code::Unreachable),
            Self::Lane(_)
            | Self::Listen(..)
            | Self::Client(_)
            | Self::Runtime(_)
            | Self::View(_)
            | Self::Snapshots(_)
            | Self::Metrics(_) => None,
        }
    }
}

fn told(findings: &[Finding]) -> String {
    let line = |f: &Finding| {
        format!(
            "\n  {} {}={} (wanted: {}): {}; {}",
            f.topic, f.setting, f.value, f.wanted, f.reason, f.remedy
        )
    };
    findings.iter().map(line).collect::<Vec<_>>().concat()
}

/// A running server. Dropping it stops it gracefully.
pub struct Server {
    lanes: Vec<Lane>,
    directory: Arc<Directory>,
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
    installation: Arc<Installation>,
    hourly: Option<Hourly>,
    _watch: Arc<Watch>,
    _tail: TailThread,
}

impl Server {
    /// Finds the installation, checks the topics, starts lanes and API.
    pub fn start(config: ServerConfig) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("api")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let cannot_listen = |error| StartError::Listen(config.listen, error);
        let listener = std::net::TcpListener::bind(config.listen).map_err(cannot_listen)?;
        listener.set_nonblocking(true).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let meanwhile = listener.try_clone().map_err(cannot_listen)?;
        let in_runtime = |listener| {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(cannot_listen)
        };
        let (listener, meanwhile) = (in_runtime(listener)?, in_runtime(meanwhile)?);
        // Whoever asks is told that it is alive and not ready, however long the brokers take.
        let waiting = runtime.spawn(api::serve_waiting(meanwhile));
        let installation = find_installation(config, address);
        waiting.abort();
        let installation = Arc::new(installation?);
        let directory = Arc::new(Directory::default());
        let waiters = Waiters::default();
        let definitions = Arc::new(DefinitionsTail::default());
        let tail = definitions.follow(&installation)?;
        let watch = Arc::new(Watch::start(&installation, Arc::clone(&directory))?);
        let every = installation.config.snapshot_every;
        let hourly = (every.as_ms() > 0)
            .then(|| Hourly::start(&installation, Arc::clone(&directory), every))
            .transpose()
            .map_err(StartError::Snapshots)?;
        let surroundings = Surroundings {
            installation: Arc::clone(&installation),
            directory: Arc::clone(&directory),
            waiters: waiters.clone(),
            definitions: Arc::clone(&definitions),
        };
        let view = Arc::new(View::start(&installation, definitions, installation.config.view.as_deref())?);
        let lanes = (0..installation.config.lanes.max(1))
            .map(|number| Lane::start(number, surroundings.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let api = Api::new(
            Arc::clone(&installation),
            Arc::clone(&directory),
            waiters,
            lanes.iter().map(Lane::queries).collect(),
            Arc::clone(&watch),
            view,
        )?;
        runtime.spawn(api::serve(listener, api));
        tracing::info!(%address, instance = %installation.instance, shards = installation.partitions, lanes = lanes.len(), "serving");
        Ok(Self {
            lanes,
            directory,
            runtime: Some(runtime),
            address,
            installation,
            hourly,
            _watch: watch,
            _tail: tail,
        })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has found out.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The shards it runs.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Waits until every shard is restored here; `false` when it takes longer than `patience`.
    pub fn wait_ready(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let all = usize::try_from(self.installation.partitions).unwrap_or(usize::MAX);
        while begun.elapsed() < patience {
            let running = (0..self.installation.partitions)
                .filter(|partition| self.directory.lane_of(*partition).is_some());
            if running.count() == all {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Drops every shard as a crash would, and takes it over again; returns how many it were.
    pub fn crash_shards(&self) -> usize {
        let answers: Vec<_> = self
            .lanes
            .iter()
            .map(|lane| {
                let (answer, told) = tokio::sync::oneshot::channel();
                lane.ask(Query::Crash { answer });
                told
            })
            .collect();
        answers.into_iter().filter_map(|told| told.blocking_recv().ok()).sum()
    }

    /// Stops gracefully: a last checkpoint of each shard, then out of the group.
    pub fn stop(&mut self) {
        self.hourly = None;
        self.lanes.iter().for_each(Lane::stop);
        self.lanes.iter_mut().for_each(Lane::join);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    /// Whether a lane has ended by itself, which none should.
    pub fn is_broken(&self) -> bool {
        self.lanes.iter().any(Lane::is_over)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a server until SIGINT or SIGTERM, which also end the wait for the brokers. At each SIGHUP `on_hangup` is called.
pub fn run(config: ServerConfig, on_hangup: &dyn Fn()) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};

    let signals =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    let running: Result<Option<(Server, &str)>, StartError> = signals.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Runtime)?;
        let (tell, started) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("start".to_owned())
            // Nobody to be told: a signal was quicker, and the server is dropped at once.
            .spawn(move || drop(tell.send(Server::start(config))))
            .map_err(StartError::Runtime)?;
        let mut started = started;
        let server = loop {
            tokio::select! {
                server = &mut started => {
                    let panicked = |_| StartError::Runtime(std::io::Error::other("the start panicked"));
                    break server.map_err(panicked)??;
                }
                _ = terminate.recv() => return Ok(None),
                _ = interrupt.recv() => return Ok(None),
                _ = hangup.recv() => on_hangup(),
            }
        };
        let mut broken = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Some((server, "SIGTERM"))),
                _ = interrupt.recv() => return Ok(Some((server, "SIGINT"))),
                _ = hangup.recv() => on_hangup(),
                _ = broken.tick() => if server.is_broken() { return Ok(Some((server, "a lane has ended"))) },
            }
        }
    });
    let Some((mut server, reason)) = running? else {
        tracing::info!("stopped before it had begun");
        return Ok(());
    };
    tracing::info!(reason, "stopping");
    server.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Asks until a cluster answers: a server that starts before its brokers says so and waits.
fn find_installation(config: ServerConfig, address: SocketAddr) -> Result<Installation, StartError> {
    let Instance { instance, partitions, .. } = loop {
        match topics::read_instance(&config.kafka, &config.prefix) {
            Ok(instance) => break instance,
            Err(error) if error.is_silence() => {
                tracing::error!(
                    code = Code::Unreachable.as_str(),
                    brokers = config.kafka.bootstrap(),
                    %error,
                    "no broker answers; trying on"
                );
                std::thread::sleep(RETRY_EVERY);
            }
            Err(error @ InstanceError::Kafka { .. }) => return Err(TopicsError::from(error).into()),
            Err(
                error @ (InstanceError::NoTopic { .. }
                | InstanceError::Missing { .. }
                | InstanceError::Contradiction { .. }
                | InstanceError::Timeout { .. }),
            ) => {
                return Err(StartError::NoTopics(error.to_string()));
            }
        }
    };
    if config.check_topics {
        let findings = loop {
            match topics::check(&config.kafka, &config.prefix) {
                Err(error) if error.is_silence() => {
                    tracing::error!(code = Code::Unreachable.as_str(), %error, "a broker does not answer; trying on");
                    std::thread::sleep(RETRY_EVERY);
                }
                findings => break findings?,
            }
        };
        let fatal = |finding: &Finding| match finding.severity {
            Severity::BreaksAPromise => true,
            Severity::DevelopmentOnly => !config.development,
            Severity::Advice => false,
        };
        let (unfit, rest): (Vec<_>, Vec<_>) = findings.into_iter().partition(fatal);
        if !unfit.is_empty() {
            return Err(StartError::TopicsUnfit(unfit));
        }
        if !rest.is_empty() {
            tracing::warn!(
                findings = rest.len(),
                "the topics are fit for development only: see sagamore topics check"
            );
        }
    }
    let advertise = config.advertise.clone().unwrap_or_else(|| address.to_string());
    Ok(Installation {
        client_id: format!("{}{advertise}", api::owner::CLIENT_ID_PREFIX),
        instance,
        partitions: i32::from(partitions.get()),
        config,
    })
}

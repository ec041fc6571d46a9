//! A real Apache Kafka on this machine: one or three brokers, for tests, benchmarks and `sagamore dev`.
//!
//! No image and no tarball: the brokers come from Maven Central as jars, fetched once into a cache that
//! `cargo clean` does not reach, and run on the JDK that is there.
//!
//! ```text
//!   this process ──pipe──▶ sh (guard) ──▶ java (broker)      one pair per broker
//! ```
//!
//! The guard kills its broker when the pipe closes. So a broker ends with [`LocalKafka`], and also with a process
//! that panics, is killed or is forgotten; there is nothing to clean up by hand.
//!
//! Deliberately absent: TLS, authentication, keeping data. It is no way to run Kafka for anyone else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;
use uuid::Uuid;

mod broker;
mod jars;
mod probe;
mod properties;

pub use jars::KAFKA_VERSION;

use broker::Broker;
use properties::{ClientListener, Ports};

/// How long a cluster may take until every broker knows every other: three start in 7 s on an idle machine.
pub const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// How often other ports are tried when somebody else took one between its choice and its use.
const ATTEMPTS_MAX: usize = 4;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How many brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterSize {
    /// One; replication 1.
    One,
    /// Three; replication 3, `min.insync.replicas` 2.
    Three,
}

impl ClusterSize {
    fn brokers(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
        }
    }
}

/// Why there is no Kafka.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no Java.
    #[error(
        "no `java` on the PATH or in JAVA_HOME: install a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)"
    )]
    NoJava,
    /// There is one, and it is too old.
    #[error(
        "`java` is version {found}, Kafka {KAFKA_VERSION} needs 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)"
    )]
    JavaTooOld {
        /// What it says of itself.
        found: String,
    },
    /// The jars are not cached, and there is no Maven to fetch them.
    #[error(
        "no `mvn` on the PATH, needed once to fetch Kafka {KAFKA_VERSION}: install Maven (Debian: apt-get install maven)"
    )]
    NoMaven,
    /// There is no place to keep the jars.
    #[error("no place for a cache: set SAGAMORE_CACHE (or HOME)")]
    NoCache,
    /// Maven could not fetch the jars.
    #[error("Maven could not fetch Kafka {KAFKA_VERSION}; is a repository reachable?\n{output}")]
    Fetch {
        /// The end of what it said.
        output: String,
    },
    /// A file could not be written, or a program not be started.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The storage of a broker could not be formatted.
    #[error("cannot format the storage of a broker:\n{output}")]
    Format {
        /// The end of what the tool said.
        output: String,
    },
    /// A broker ended while it started.
    #[error("broker {id} ended while it started. The end of its log:\n{log}")]
    BrokerEnded {
        /// Its node id.
        id: usize,
        /// The end of its log.
        log: String,
    },
    /// The brokers run and do not answer.
    #[error("broker {id} does not answer within {} s. The end of its log:\n{log}", READY_TIMEOUT.as_secs())]
    NotReady {
        /// Its node id.
        id: usize,
        /// The end of its log.
        log: String,
    },
    /// Every choice of ports was taken by somebody else.
    #[error("no free ports in {ATTEMPTS_MAX} attempts")]
    NoPorts,
}

/// The `java` that runs the brokers, and their class path, which has Kafka's own client and Jackson: enough for a
/// participant in Java.
pub fn java() -> Result<(PathBuf, String), LaunchError> {
    Ok((jars::find_java()?, jars::classpath()?))
}

impl LaunchError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        |cause| Self::Io { doing: doing.into(), cause }
    }
}

/// A running cluster; it ends, and its data is deleted, when this is dropped or the process dies.
pub struct LocalKafka {
    // Before `data`: the brokers end before their folder goes.
    brokers: Vec<Broker>,
    bootstrap: String,
    behind: Vec<SocketAddr>,
    data: TempDir,
}

impl LocalKafka {
    /// Starts a cluster and waits until it answers. The first call on a machine fetches the jars.
    ///
    /// # Errors
    /// What is missing, with its remedy; or the end of a broker's log.
    pub fn start(size: ClusterSize) -> Result<Self, LaunchError> {
        Self::start_with(size, &[], &[])
    }

    /// The same with other properties of its brokers, such as one that no production may have.
    pub fn start_set(size: ClusterSize, properties: &[(&str, &str)]) -> Result<Self, LaunchError> {
        Self::start_with(size, &[], properties)
    }

    /// The same with one more listener per broker, for clients that are to take a way round, through a proxy say:
    /// who asks there is told the addresses in `advertised`, in the order of the brokers. Brokers talk to each other
    /// directly, and [`Self::bootstrap`] still names the direct way.
    ///
    /// # Panics
    /// Unless there is one address for each broker.
    pub fn start_behind(size: ClusterSize, advertised: &[SocketAddr]) -> Result<Self, LaunchError> {
        assert_eq!(advertised.len(), size.brokers(), "one address for each broker");
        Self::start_with(size, advertised, &[])
    }

    fn start_with(
        size: ClusterSize,
        advertised: &[SocketAddr],
        properties: &[(&str, &str)],
    ) -> Result<Self, LaunchError> {
        let java = jars::find_java()?;
        let classpath = jars::classpath()?;
        for _ in 0..ATTEMPTS_MAX {
            match Self::start_once(size, advertised, properties, &java, &classpath) {
                Err(error) if is_port_clash(&error) => {
                    tracing::warn!(%error, "a port was taken; trying others");
                }
                result => return result,
            }
        }
        Err(LaunchError::NoPorts)
    }

    /// Where it listens, `host:port` of every broker, with commas between.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The additional listener of each broker, whose clients are told the advertised addresses; empty unless this
    /// was started with [`Self::start_behind`].
    pub fn behind(&self) -> &[SocketAddr] {
        &self.behind
    }

    /// How many brokers there are, running or not.
    pub fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    /// Process id of a broker (counted from 0) that runs, to measure or to stop it.
    pub fn broker_pid(&self, index: usize) -> Option<u32> {
        self.brokers[index].pid()
    }

    /// Kills a broker (counted from 0) at once, as `kill -9` does, and waits until it is gone. Its data stays.
    pub fn kill_broker(&mut self, index: usize) {
        self.brokers[index].kill();
    }

    /// Starts a broker again, on its port and with its data, and waits until it answers; kills it first if it runs.
    pub fn restart_broker(&mut self, index: usize) -> Result<(), LaunchError> {
        self.brokers[index].kill();
        self.brokers[index].spawn()?;
        let running = self.brokers.iter().filter(|broker| broker.pid().is_some()).count();
        wait_until_ready(&mut self.brokers[index..=index], running)
    }

    /// The end of a broker's log.
    pub fn log_tail(&self, index: usize) -> String {
        self.brokers[index].log_tail()
    }

    /// The folder of all its data.
    pub fn data_dir(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    fn start_once(
        size: ClusterSize,
        advertised: &[SocketAddr],
        properties: &[(&str, &str)],
        java: &Path,
        classpath: &str,
    ) -> Result<Self, LaunchError> {
        let data = tempfile::Builder::new()
            .prefix("sagamore-kafka-")
            .tempdir()
            .map_err(LaunchError::io("make a folder"))?;
        let ports: Vec<Ports> = (0..size.brokers())
            .map(|index| free_ports(advertised.get(index).copied()))
            .collect::<Result<_, _>>()?;
        let cluster_id = random_cluster_id();
        let mut brokers = Vec::new();
        for index in 0..size.brokers() {
            brokers.push(Broker::prepare(index, &ports, properties, data.path(), java, classpath)?);
        }
        // A JVM each: side by side.
        thread::scope(|scope| {
            let starts: Vec<_> = brokers
                .iter_mut()
                .map(|broker| scope.spawn(|| broker.format(&cluster_id).and_then(|()| broker.spawn())))
                .collect();
            starts.into_iter().try_for_each(|start| start.join().expect("starting a broker does not panic"))
        })?;
        wait_until_ready(&mut brokers, size.brokers())?;
        let bootstrap: Vec<_> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.broker)).collect();
        let behind = ports.iter().filter_map(|ports| ports.client);
        let behind = behind.map(|client| SocketAddr::from(([127, 0, 0, 1], client.port))).collect();
        Ok(Self { brokers, bootstrap: bootstrap.join(","), behind, data })
    }
}

/// Each of these brokers answers, and knows at least this many to be alive.
fn wait_until_ready(brokers: &mut [Broker], alive: usize) -> Result<(), LaunchError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    for broker in brokers {
        let is_late = |port| probe::brokers_known_at(port).is_none_or(|known| known < alive);
        while broker.ports().any(is_late) {
            if broker.has_ended() {
                return Err(LaunchError::BrokerEnded { id: broker.id(), log: broker.log_tail() });
            }
            if Instant::now() >= deadline {
                return Err(LaunchError::NotReady { id: broker.id(), log: broker.log_tail() });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(())
}

/// 16 random bytes, as Kafka writes a UUID.
fn random_cluster_id() -> String {
    let mut bytes = *Uuid::new_v4().as_bytes();
    // So that the text begins with a letter: the formatting tool takes a leading `-` for an option.
    bytes[0] &= 0x7f;
    URL_SAFE_NO_PAD.encode(bytes)
}

fn is_port_clash(error: &LaunchError) -> bool {
    match error {
        LaunchError::BrokerEnded { log, .. } => {
            log.contains("Address already in use") || log.contains("BindException")
        }
        _ => false,
    }
}

fn free_ports(advertised: Option<SocketAddr>) -> Result<Ports, LaunchError> {
    let free_port = || sagamore_launcher::free_port().ok_or(LaunchError::NoPorts);
    let listener = |advertised| free_port().map(|port| ClientListener { port, advertised });
    let client = advertised.map(listener).transpose()?;
    Ok(Ports { broker: free_port()?, controller: free_port()?, client })
}

//! A real PostgreSQL on this machine: servers for tests, each with a port and a data directory of its own.
//!
//! ```text
//!   this process ──pipe──▶ sh (guard) ──▶ postgres      one pair per server
//! ```
//!
//! The server comes from Maven Central, as the brokers of `local-kafka` do: one version everywhere, with or without
//! root, whatever is installed. An installed one would be another version on each machine, and a second way that
//! nobody tests. PostgreSQL does not run as root; where we are root, it runs as `nobody`, from a copy of its program in
//! the data's folder, because the cache lies where `nobody` may not look.
//!
//! A server ends with [`LocalPostgres`], and also with a process that panics, is killed or is forgotten.
//!
//! Deliberately absent: passwords, TLS, keeping data. It is no way to run PostgreSQL for anyone else.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use sagamore_launcher::guard::{Guarded, Guarding, User};
use sagamore_launcher::{free_port, tail_of};
use tempfile::TempDir;

mod files;
mod probe;

pub use files::POSTGRES_VERSION;

/// How long a server may take until it answers: one starts in half a second, recovery after `kill -9` included.
pub const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How often other ports are tried when somebody else took one between its choice and its use.
const ATTEMPTS_MAX: usize = 4;
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Why there is no PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It is not cached, and could not be fetched.
    #[error("PostgreSQL {POSTGRES_VERSION}: {0}")]
    Fetch(#[from] sagamore_launcher::maven::FetchError),
    /// Nobody builds it for this machine.
    #[error("there is no PostgreSQL {POSTGRES_VERSION} for {os} on {architecture} in Maven Central")]
    NoBuild {
        /// Operating system.
        os: &'static str,
        /// Processor.
        architecture: &'static str,
    },
    /// We are root, and there is nobody else.
    #[error("PostgreSQL does not run as root, and there is no user `nobody`")]
    NoUser,
    /// A file could not be written, or a program not be started.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed:\n{output}")]
    Init {
        /// What it said.
        output: String,
    },
    /// The server ended while it started.
    #[error("PostgreSQL ended while it started. The end of its log:\n{log}")]
    Ended {
        /// The end of its log.
        log: String,
    },
    /// It runs and does not answer.
    #[error("PostgreSQL does not answer within {} s. The end of its log:\n{log}", READY_TIMEOUT.as_secs())]
    NotReady {
        /// The end of its log.
        log: String,
    },
    /// Every choice of a port was taken by somebody else.
    #[error("no free port in {ATTEMPTS_MAX} attempts")]
    NoPort,
}

impl LaunchError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        |cause| Self::Io { doing: doing.into(), cause }
    }
}

/// A server; it ends, and its data is deleted, when this is dropped or the process dies.
pub struct LocalPostgres {
    // Before `folder`: the server ends before its data goes.
    running: Option<Guarded>,
    program: PathBuf,
    user: Option<User>,
    port: u16,
    settings: Vec<(String, String)>,
    folder: TempDir,
}

impl LocalPostgres {
    /// Starts a server with these settings (`max_prepared_transactions`, `fsync`, …) and waits until it answers. The
    /// first call on a machine fetches it.
    ///
    /// # Errors
    /// What is missing, with its remedy; or the end of a log.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self, LaunchError> {
        let cached = files::program()?;
        let user = files::user()?;
        let folder = tempfile::Builder::new()
            .prefix("sagamore-postgres-")
            .tempdir()
            .map_err(LaunchError::io("make a folder"))?;
        let program = files::within_reach(&cached, folder.path(), user)?;
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut server = Self { running: None, program, user, port: 0, settings: settings.collect(), folder };
        server.init()?;
        for _ in 0..ATTEMPTS_MAX {
            server.port = free_port().ok_or(LaunchError::NoPort)?;
            match server.restart() {
                Err(LaunchError::Ended { log }) if log.contains("could not bind") => {
                    tracing::warn!(port = server.port, "the port was taken; trying another");
                }
                result => return result.map(|()| server),
            }
        }
        Err(LaunchError::NoPort)
    }

    /// How a client finds it, as superuser, in the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// How a client finds it, as this role in this database; no password is asked for.
    pub fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens on 127.0.0.1; it stays the same.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the running server, to measure or to stop it.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Guarded::pid)
    }

    /// Ends server and connections at once, as a power cut would (but for what the system had not yet written), and
    /// waits until all its processes are gone. Its data stays.
    pub fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        let children = files::children(running.pid());
        running.kill();
        files::kill(&children);
    }

    /// Starts it again on its port and with its data, and waits until it answers; kills it first if it runs.
    pub fn restart(&mut self) -> Result<(), LaunchError> {
        self.kill();
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            self.spawn()?;
            match self.wait_until_ready(deadline) {
                // A process of the killed server is still there.
                Err(LaunchError::Ended { log }) if log.contains("shared memory block") => {
                    thread::sleep(POLL_INTERVAL);
                }
                result => return result,
            }
        }
    }

    /// The same with another value of a setting.
    pub fn restart_with(&mut self, name: &str, value: &str) -> Result<(), LaunchError> {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self.restart()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail_of(&self.console()).unwrap_or_default()
    }

    /// The folder of all its data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn console(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }

    fn init(&self) -> Result<(), LaunchError> {
        let mut command = Command::new(self.program.join("bin/initdb"));
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        command.arg("--no-instructions").arg("-D").arg(self.data_dir());
        let output = files::as_user(&mut command, self.user, self.folder.path())
            .output()
            .map_err(LaunchError::io("start initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(LaunchError::Init { output: String::from_utf8_lossy(&said).into_owned() })
    }

    fn spawn(&mut self) -> Result<(), LaunchError> {
        let mut command: Vec<OsString> = vec![self.program.join("bin/postgres").into()];
        command.extend(["-D".into(), self.data_dir().into()]);
        let port = self.port.to_string();
        let fixed = [
            ("port", port.as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            // Nothing outside the folder, so that nothing is left behind.
            ("dynamic_shared_memory_type", "mmap"),
            ("logging_collector", "off"),
        ];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(given) {
            command.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let guarding = Guarding {
            name: "sagamore-postgres-guard",
            folder: self.folder.path(),
            console: &self.console(),
            // Without a last checkpoint, but its shared memory goes.
            ends: "QUIT",
            user: self.user,
        };
        let running = guarding.spawn(command.iter().map(OsString::as_os_str));
        self.running = Some(running.map_err(LaunchError::io("start postgres"))?);
        Ok(())
    }

    fn wait_until_ready(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        while !probe::is_ready(self.port) {
            if self.running.as_mut().is_none_or(Guarded::has_ended) {
                return Err(LaunchError::Ended { log: self.log_tail() });
            }
            if Instant::now() >= deadline {
                return Err(LaunchError::NotReady { log: self.log_tail() });
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

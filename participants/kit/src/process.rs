//! The participant as a process that is started, killed and started again.
//!
//! ```text
//!   this process ──pipe──▶ sh (guard) ──▶ sh -c COMMAND ──▶ whatever it starts     one process group
//!        ▲                                                      │
//!        └──────────────── one pipe: what all of them print ◀───┘
//! ```
//!
//! `kill -9` goes to the group, so that nothing of it lives on; it has ended when nobody holds its output any more. The
//! guard kills the group when the kit dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::CheckError;
use crate::settings::Settings;

/// `$1` is the command.
const GUARD: &str = r#"
exec 3<&0
( read -r _ <&3; kill -9 0 ) >/dev/null 2>&1 &
exec 3<&- </dev/null
sh -c "$1"
"#;
/// How long the system may take to end what was killed.
const KILLED_WITHIN: Duration = Duration::from_secs(20);
/// So much of the end of the log stands in a message, in bytes.
const TAIL_BYTES: usize = 600;

/// A running participant. Dropped, it is killed.
pub(crate) struct Process {
    guard: Child,
    /// Open as long as the group shall live.
    lifeline: Option<ChildStdin>,
    /// Ends when nobody of the group holds the output any more.
    printed: Receiver<()>,
}

impl Process {
    /// Starts it. What it prints is added to the log.
    pub(crate) fn spawn(settings: &Settings, command: &str) -> Result<Self, CheckError> {
        let failed = |doing: String| move |cause| CheckError::Process { doing, cause };
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&settings.log)
            .map_err(failed(format!("write {}", settings.log.display())))?;
        let told = writeln!(log, "---- {command}");
        told.map_err(failed(format!("write {}", settings.log.display())))?;
        let (reader, writer) = io::pipe().map_err(failed("make a pipe".to_owned()))?;
        let again = writer.try_clone().map_err(failed("make a pipe".to_owned()))?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "sagamore-kit-guard", command]).process_group(0);
        with_variables(&mut guard, settings);
        guard.stdin(Stdio::piped()).stdout(writer).stderr(again);
        let mut guard = guard.spawn().map_err(failed(format!("start `{command}`")))?;
        let lifeline = guard.stdin.take();
        let (sender, printed) = mpsc::channel();
        thread::Builder::new()
            .name("kit-log".to_owned())
            .spawn(move || {
                copy(reader, &log);
                drop(sender);
            })
            .map_err(failed("start a thread".to_owned()))?;
        Ok(Self { guard, lifeline, printed })
    }

    /// How it has ended, if it has by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.guard.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(cause) => Some(cause.to_string()),
        }
    }

    /// `kill -9` for all of it, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.lifeline.take().is_none() {
            return;
        }
        kill_group(self.guard.id());
        if let Err(cause) = self.guard.wait() {
            tracing::warn!(%cause, "the guard of the participant cannot be waited for");
        }
        if self.printed.recv_timeout(KILLED_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("somebody outside of the participant's process group still holds its output");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// `kill -9` for a process group.
pub(crate) fn kill_group(leader: u32) {
    let group = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let Some(cause) = group.and_then(|group| kill_process_group(group, Signal::KILL).err()) {
        tracing::debug!(%cause, "the processes have ended before they were killed");
    }
}

/// `{kafka}`, `{prefix}` and `{name}` in a command.
pub(crate) fn filled(command: &str, settings: &Settings) -> String {
    command
        .replace("{kafka}", settings.clients.bootstrap())
        .replace("{prefix}", settings.prefix.as_str())
        .replace("{name}", settings.participant.as_str())
}

/// The same as variables.
pub(crate) fn with_variables(command: &mut Command, settings: &Settings) {
    command
        .env("SAGAMORE_KAFKA", settings.clients.bootstrap())
        .env("SAGAMORE_PREFIX", settings.prefix.as_str())
        .env("SAGAMORE_NAME", settings.participant.as_str());
}

/// The end of what it has printed.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).into_owned();
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}

fn copy(mut from: io::PipeReader, mut log: &File) {
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            // What cannot be kept is still read, so that the participant does not wait.
            Ok(read) => {
                if let Err(cause) = log.write_all(&buffer[..read]) {
                    tracing::debug!(%cause, "what the participant prints cannot be kept");
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => {
                tracing::warn!(%cause, "what the participant prints cannot be read");
                return;
            }
        }
    }
}

//! One process of ours that is killed, paused and restarted: a server, or an instance of a participant.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sagamore_end_to_end::process::{Folder, Process};

/// How long the system may take to end a killed process on a busy machine.
const KILLED_WITHIN: Duration = Duration::from_secs(20);

/// A process that comes again.
pub struct Member {
    name: String,
    folder: Arc<Folder>,
    program: PathBuf,
    arguments: Vec<OsString>,
    process: Option<Process>,
    starts: usize,
}

impl Member {
    /// One that does not run yet; its logs are `<name>.<start>`.
    pub fn new(folder: &Arc<Folder>, name: String, program: PathBuf, arguments: Vec<String>) -> Self {
        let arguments = arguments.into_iter().map(OsString::from).collect();
        Self { name, folder: Arc::clone(folder), program, arguments, process: None, starts: 0 }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often it has been started.
    pub fn starts(&self) -> usize {
        self.starts
    }

    /// Starts it, unless it runs.
    pub fn start(&mut self) {
        if self.is_running() {
            return;
        }
        self.starts += 1;
        let name = format!("{}.{}", self.name, self.starts);
        let program: &OsStr = self.program.as_os_str();
        self.process = Some(Process::spawn(&self.folder, &name, program, &self.arguments));
    }

    /// Whether it has been started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// `kill -9`; whether there was something to kill.
    pub fn kill(&mut self) -> bool {
        let running = self.is_running();
        if let Some(mut process) = self.process.take()
            && running
        {
            send(process.pid(), "KILL");
            process.wait(KILLED_WITHIN);
        }
        running
    }

    /// Sends a signal; whether there was somebody to take it.
    pub fn signal(&mut self, signal: &str) -> bool {
        let running = self.is_running();
        running && self.process.as_ref().is_some_and(|process| send(process.pid(), signal))
    }

    /// How it ended by itself, if it has; it is forgotten by that.
    pub fn take_ended(&mut self) -> Option<String> {
        let status = self.process.as_mut()?.ended()?;
        self.process = None;
        Some(status.to_string())
    }
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: &str) -> bool {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
    sent.is_ok_and(|status| status.success())
}

//! A participant on a database: a process that may be killed at any time, and begins again where it was.

use std::ffi::OsString;

use sagamore_end_to_end::process::Process;
use sagamore_end_to_end::stage::Stage;
use serde_json::Value;

/// One process. Several may have one name: they are instances of one participant.
pub struct Member {
    stage: Stage,
    name: String,
    arguments: Vec<OsString>,
    starts: usize,
    process: Process,
}

impl Member {
    /// `sagamore participant <example>`, called `participant` by definitions; `name` is that of the process.
    pub fn new(stage: &Stage, name: &str, example: &str, participant: &str, more: &[&str]) -> Self {
        let prefix = stage.topic("");
        let prefix = prefix.trim_end_matches('.');
        let arguments = [
            "participant",
            example,
            "--name",
            participant,
            "--kafka",
            stage.bootstrap(),
            "--prefix",
            prefix,
            "--asks-after",
            "2s",
            "-o",
            "json",
        ];
        let arguments: Vec<OsString> = arguments.iter().chain(more).map(OsString::from).collect();
        let process = stage.spawn(&format!("{name}.1"), &arguments);
        Self { stage: stage.clone(), name: name.to_owned(), arguments, starts: 1, process }
    }

    /// `kill -9`, and a new one.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// A new one in the place of one that was killed.
    pub fn restart(&mut self) {
        self.starts += 1;
        self.process = self.stage.spawn(&format!("{}.{}", self.name, self.starts), &self.arguments);
    }

    /// It ends by itself, with this code; its log.
    pub fn ends_with(&mut self, code: i32) -> String {
        let ended = self.process.wait(super::ENDS_WITHIN);
        assert_eq!(ended, code, "{}: {}", self.name, self.process.log());
        self.process.log()
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Ends it gracefully; what it says of itself.
    pub fn end(&mut self) -> Value {
        self.process.signal("TERM");
        let code = self.process.wait(super::ENDS_WITHIN);
        assert_eq!(code, 0, "{}: {}", self.name, self.process.log());
        serde_json::from_str(&self.process.out()).unwrap()
    }
}

//! A process that ends with the test, whatever becomes of the test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::wait;

/// `$1` takes standard output, `$2` standard error; the rest is the command. Says the process id. When standard input
/// ends, because the test wants it or has died, the process is killed, stopped ones too.
const GUARD: &str = r#"
out=$1 err=$2; shift 2
trap '' INT HUP
exec 3<&0
"$@" </dev/null >"$out" 2>"$err" 3<&- & child=$!
echo $child
( read -r _ <&3; kill -9 $child ) >/dev/null 2>&1 & guard=$!
exec 3<&- </dev/null >/dev/null 2>&1
wait $child
status=$?
kill -9 $guard
exit $status
"#;
/// How long the system may take to end a killed process.
const KILLED_WITHIN: Duration = Duration::from_secs(20);
/// Lines of each log that a failing test prints.
const TAIL_LINES: usize = 40;

/// Where the logs of a test are; kept and printed when it fails.
pub struct Folder(Place);

enum Place {
    Temporary(Option<tempfile::TempDir>),
    Given(PathBuf),
}

impl Folder {
    /// A new one.
    pub fn new(test: &str) -> Arc<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("sagamore-{test}-")).tempdir();
        Arc::new(Self(Place::Temporary(Some(folder.expect("a temporary folder can be made")))))
    }

    /// One that is there already, and stays.
    pub fn at(path: PathBuf) -> Arc<Self> {
        Arc::new(Self(Place::Given(path)))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        match &self.0 {
            Place::Temporary(folder) => folder.as_ref().expect("it is taken at the end only").path(),
            Place::Given(path) => path,
        }
    }

    fn print_logs(folder: &Path) {
        let mut logs: Vec<PathBuf> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension() == Some(OsStr::new("log")));
        logs.sort();
        for log in logs {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("---- {} (the last of {} lines)", log.display(), lines.len());
            println!("{}", lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"));
        }
        println!("---- everything is kept in {}", folder.display());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Place::Temporary(folder) = &mut self.0
            && let Some(folder) = folder.take()
            && thread::panicking()
        {
            Self::print_logs(&folder.keep());
        }
    }
}

/// A running process.
pub struct Process {
    name: String,
    guard: Child,
    /// Open as long as the process shall live.
    lifeline: Option<ChildStdin>,
    pid: u32,
    folder: Arc<Folder>,
}

impl Process {
    /// Starts it; `name` is that of its logs.
    pub fn spawn(folder: &Arc<Folder>, name: &str, program: &OsStr, arguments: &[OsString]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sagamore-guard"]);
        command.arg(folder.path().join(format!("{name}.out"))).arg(folder.path().join(format!("{name}.log")));
        command.arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        clear_variables(&mut command);
        let mut guard = command.spawn().expect("sh can be started");
        let lifeline = guard.stdin.take();
        let mut line = String::new();
        let told =
            BufReader::new(guard.stdout.take().expect("standard output is piped")).read_line(&mut line);
        told.expect("the guard can be read from");
        let pid = line.trim().parse().expect("the guard says a process id");
        Self { name: name.to_owned(), guard, lifeline, pid, folder: Arc::clone(folder) }
    }

    /// What its logs are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.pid)]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} is not there to take SIG{signal}", self.name);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait(KILLED_WITHIN);
    }

    /// Waits for its end; returns the exit code, 128 and the number of the signal when there was one.
    pub fn wait(&mut self, patience: Duration) -> i32 {
        let what = format!("the end of {}", self.name);
        wait::until_some(patience, &what, || self.ended()).code().unwrap_or(-1)
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().expect("a child can be asked")
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// What it has written to standard output so far.
    pub fn out(&self) -> String {
        fs::read_to_string(self.folder.path().join(format!("{}.out", self.name))).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The guard ends when its process does; if it cannot be waited for, there is nobody to tell.
        let _ = self.guard.wait();
    }
}

/// A process of the tests does not inherit what the developer has set for `sagamore`.
pub(crate) fn clear_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SAGAMORE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
}

//! A process that ends with its owner, whatever becomes of the owner.
//!
//! ```text
//!   this process ──pipe──▶ sh (guard) ──▶ the server
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// `$1` is the folder of the owner, `$2` the file for what the server prints, `$3` the signal that ends it, the rest is
/// its command. Says its process id, then nothing. When standard input ends, so does the server: by `kill -9` after the
/// word `kill`; when there was no word, the owner has died, and its folder goes too. Ctrl-C is for the owner; it ends us
/// by its end.
const GUARD: &str = r#"
data=$1 console=$2 ends=$3; shift 3
trap '' INT HUP
exec 3<&0
"$@" </dev/null >"$console" 2>&1 3<&- & server=$!
echo $server
(
    word=$(cat <&3)
    [ -n "$word" ] || : >"$console.orphaned"
    if [ "$word" = kill ]; then kill -9 $server; else kill -"$ends" $server; kill -CONT $server; fi
) >/dev/null 2>&1 & guard=$!
exec 3<&- </dev/null >/dev/null 2>&1
wait $server
status=$?
# Whoever has the server's process id next is none of our business.
kill -9 $guard
[ ! -e "$console.orphaned" ] || rm -rf -- "$data" || { sleep 1; rm -rf -- "$data"; }
exit $status
"#;

/// Whom a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What is started, and how it is ended.
pub struct Guarding<'a> {
    /// The guard's name among the processes.
    pub name: &'a str,
    /// Removed when the owner dies without a word.
    pub folder: &'a Path,
    /// Takes what the server prints.
    pub console: &'a Path,
    /// The signal that ends the server when nobody needs it any more, such as `KILL`.
    pub ends: &'a str,
    /// Somebody else than the owner.
    pub user: Option<User>,
}

/// A running server. Dropped, it is ended.
pub struct Guarded {
    guard: Option<Child>,
    /// Open as long as the server shall live.
    lifeline: Option<ChildStdin>,
    pid: u32,
}

impl Guarding<'_> {
    /// Starts it.
    pub fn spawn<'c>(&self, command: impl IntoIterator<Item = &'c std::ffi::OsStr>) -> io::Result<Guarded> {
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, self.name]).arg(self.folder).arg(self.console).arg(self.ends).args(command);
        // The guard's own working directory must be one that its user may be in.
        guard.current_dir(self.folder);
        if let Some(User { uid, gid }) = self.user {
            guard.uid(uid).gid(gid);
        }
        guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = guard.spawn()?;
        let lifeline = guard.stdin.take();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().expect("standard output is piped")).read_line(&mut line)?;
        let pid = line.trim().parse().map_err(io::Error::other)?;
        Ok(Guarded { guard: Some(guard), lifeline, pid })
    }
}

impl Guarded {
    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.guard.as_mut().is_none_or(|guard| !matches!(guard.try_wait(), Ok(None)))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.end("kill\n");
    }

    fn end(&mut self, word: &str) {
        let Some(mut guard) = self.guard.take() else { return };
        // The word says that the folder is still wanted. If it cannot be said, the guard is gone, and the server too.
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(word.as_bytes());
        }
        if let Err(cause) = guard.wait() {
            tracing::warn!(%cause, pid = self.pid, "the guard of a server cannot be waited for");
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end("end\n");
    }
}

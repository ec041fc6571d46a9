//! SIGHUP: a server reads its file again. What it logs changes at once; everything else holds from its next start, because
//! clients, lanes and listeners are made with it, and the log says so.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::config_file::{self, Entry};
use super::{logs, with_file};

/// Names of the file that change while the server runs.
const RELOADED: &[&str] = &["log"];

/// What the server was told, to be read again.
pub struct Reload {
    arguments: Vec<OsString>,
    file: Option<PathBuf>,
    /// As it was read last.
    entries: Mutex<Vec<Entry>>,
}

impl Reload {
    /// Of this process.
    pub fn new(file: Option<PathBuf>) -> Self {
        let entries = file.as_deref().and_then(|file| config_file::read(file).ok()).unwrap_or_default();
        Self { arguments: std::env::args_os().collect(), file, entries: Mutex::new(entries) }
    }

    /// Reads the file again, takes what can be taken, and logs what came of it. A file that is wrong changes nothing.
    pub fn reload(&self) {
        let Some(file) = &self.file else {
            tracing::warn!("SIGHUP: there is no file to be read again (--config), nothing changes");
            return;
        };
        let (command, entries) = match with_file(Some(file)) {
            Ok(read) => read,
            Err(failure) => {
                tracing::error!(%failure, "SIGHUP: the file is wrong, nothing changes");
                return;
            }
        };
        let matches = match command.try_get_matches_from(&self.arguments) {
            Ok(matches) => matches,
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the file is wrong, nothing changes");
                return;
            }
        };
        let mut before = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(&before, &entries);
        let (reloaded, later): (Vec<&str>, Vec<&str>) =
            changed.iter().map(String::as_str).partition(|name| RELOADED.contains(name));
        let log = matches.get_one::<String>("log").map(String::as_str);
        if let Err(error) = logs::change(log) {
            tracing::error!(error, "SIGHUP: the file is wrong, nothing changes");
            return;
        }
        if reloaded.contains(&"log") {
            // A warning, so that who asks for less is told, too.
            tracing::warn!(log = log.unwrap_or("default"), "SIGHUP: this is logged from now on");
        }
        if later.is_empty() {
            tracing::info!(file = %file.display(), changed = changed.len(), "SIGHUP: the file was read again");
        } else {
            let later = later.join(", ");
            tracing::warn!(file = %file.display(), %later, "SIGHUP: these hold from the next start on");
        }
        *before = entries;
    }
}

/// Names whose values differ, or that came or went.
fn changed(before: &[Entry], now: &[Entry]) -> Vec<String> {
    let value = |entries: &[Entry], name: &str| {
        entries.iter().find(|entry| entry.name == name).map(|entry| entry.values.clone())
    };
    let mut names: Vec<&str> = before.iter().chain(now).map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter(|name| value(before, name) != value(now, name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed() {
        let entry = |name: &str, value: &str, line| Entry {
            name: name.to_owned(),
            values: vec![value.to_owned()],
            line,
        };
        let before = [entry("lanes", "2", 1), entry("log", "info", 2), entry("prefix", "a", 3)];
        let now = [entry("prefix", "a", 1), entry("log", "debug", 2), entry("listen", "h:1", 3)];
        assert_eq!(changed(&before, &now), ["lanes", "listen", "log"]);
        assert!(changed(&before, &before).is_empty());
    }
}

//! What was asked and what was answered, on disk before it counts: one JSON document a line, in the order in which it
//! happened. The check reads this file, not the memory of the process that wrote it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The open file.
pub struct Notes(Mutex<File>);

impl Notes {
    /// A new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(File::create(path)?)))
    }

    /// Appends, and returns when it is on the disk.
    pub fn write(&self, note: &Value) {
        let line = format!("{note}\n");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        written.expect("without its notes the run proves nothing");
    }
}

/// Reads a file back, note by note.
pub fn read(path: &Path, mut each: impl FnMut(Value)) -> io::Result<()> {
    for line in BufReader::new(File::open(path)?).lines() {
        each(serde_json::from_str(&line?)?);
    }
    Ok(())
}

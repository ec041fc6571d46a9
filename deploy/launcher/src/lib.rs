//! What `local-kafka` and `local-postgres` have in common: a cache filled by Maven, a guard around each process, ports.
//!
//! Deliberately absent: anything that knows what is launched.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use uuid::Uuid;

pub mod guard;
pub mod maven;

/// How much of a log stands in an error, in bytes.
const LOG_TAIL_BYTES: u64 = 4_096;
/// Ports are chosen below those that Linux hands out by itself (from 32768), so that an outgoing connection of
/// somebody else does not sit on the port of a server that is about to be restarted.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port nobody listens on just now. Random, because others on this machine look for one at the same time.
pub fn free_port() -> Option<u16> {
    (0..100)
        .map(|_| {
            let [high, low, ..] = *Uuid::new_v4().as_bytes();
            PORTS.start + u16::from_be_bytes([high, low]) % (PORTS.end - PORTS.start)
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

/// The first program of that name on the PATH.
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The end of a log.
pub fn tail_of(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! The one question put to a starting server: may I come in? By hand, so that this crate needs no client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the server on this port lets clients in.
pub(crate) fn is_ready(port: u16) -> bool {
    answer(port).is_some_and(|kind| kind == b'R')
}

/// The first byte of the answer to a start-up message: `R` (authentication) or `E` (error: starting up).
fn answer(port: u16) -> Option<u8> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    stream.write_all(&startup_message()).ok()?;
    let mut kind = [0];
    stream.read_exact(&mut kind).ok()?;
    // Goodbye: otherwise the server logs that somebody has vanished.
    stream.write_all(&[b'X', 0, 0, 0, 4]).ok()?;
    Some(kind[0])
}

/// Protocol 3.0, `postgres` in the database `postgres`.
fn startup_message() -> Vec<u8> {
    let body = [&196_608_i32.to_be_bytes(), &b"user\0postgres\0database\0postgres\0\0"[..]].concat();
    let length = i32::try_from(body.len() + 4).expect("forty bytes");
    [length.to_be_bytes().to_vec(), body].concat()
}

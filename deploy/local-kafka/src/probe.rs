//! The one question put to a starting broker: which brokers do you know? By hand, so that this crate needs no client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
/// An answer without topics is far smaller; anything else is not Kafka.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How many brokers the one on this port knows to be alive; none if it does not answer yet.
pub(crate) fn brokers_known_at(port: u16) -> Option<usize> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    stream.write_all(&metadata_request()).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length =
        usize::try_from(i32::from_be_bytes(length)).ok().filter(|&length| length <= ANSWER_BYTES_MAX)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    broker_count(&answer)
}

/// Metadata, version 4, of no topic.
fn metadata_request() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(3_i16.to_be_bytes()); // api key: Metadata
    body.extend(4_i16.to_be_bytes()); // api version
    body.extend(1_i32.to_be_bytes()); // correlation id
    body.extend((-1_i16).to_be_bytes()); // client id: none
    body.extend(0_i32.to_be_bytes()); // topics: none
    body.push(0); // allow auto creation: no
    let length = i32::try_from(body.len()).expect("fifteen bytes");
    [length.to_be_bytes().to_vec(), body].concat()
}

/// Correlation id, throttle time, then the array of brokers with its length.
fn broker_count(answer: &[u8]) -> Option<usize> {
    let length: [u8; 4] = answer.get(8..12)?.try_into().ok()?;
    usize::try_from(i32::from_be_bytes(length)).ok()
}

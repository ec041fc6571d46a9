//! One batch: everything that stands in one Kafka transaction, as the records of its three steps.

use super::records::{BATCH_KEY, DONE_KEY};
use super::{Damaged, LogFault};

/// The largest batch, in bytes of the one record that holds it: what a request of a producer may carry, with its envelope.
pub(super) const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024 - 64 * 1024;

/// Everything of one local transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// One more than the last one of this partition.
    pub(super) number: u64,
    /// The offset of the next command.
    pub(super) position: Option<i64>,
    pub(super) outputs: Vec<Output>,
}

/// One record of the second step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub to: Destination,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Where a record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Partition p of the memory.
    Memory,
    /// Partition p of the table.
    Table,
    /// Partition p of the replies.
    Replies,
    /// A topic that business code has named, and the partition of the key.
    Topic(Box<str>),
}

/// A record to be written.
#[derive(Debug)]
pub struct Record<'b> {
    /// Where to.
    pub to: &'b Destination,
    /// Its key.
    pub key: &'b [u8],
    /// Its value; a tombstone has none.
    pub value: Option<&'b [u8]>,
    /// Which of the records that the batch emits, if it is one: with number and partition its name for ever.
    pub emitted: Option<usize>,
}

impl Batch {
    /// Its number in this partition.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Hands out the records, step by step. `delivered` is called behind each step, and has to wait until all of it
    /// has been acknowledged.
    pub fn write<L>(
        &self,
        log: &mut L,
        mut send: impl FnMut(&mut L, Record<'_>) -> Result<(), LogFault>,
        mut delivered: impl FnMut(&mut L) -> Result<(), LogFault>,
    ) -> Result<(), LogFault> {
        let whole = self.to_bytes();
        if whole.len() > BATCH_BYTES_MAX {
            return Err(LogFault::Refused(format!(
                "{} bytes are more than one Kafka transaction may carry ({BATCH_BYTES_MAX})",
                whole.len()
            )));
        }
        let to = &Destination::Memory;
        send(log, Record { to, key: BATCH_KEY, value: Some(&whole), emitted: None })?;
        delivered(log)?;
        let mut emitted = 0..;
        for output in &self.outputs {
            let emitted = matches!(output.to, Destination::Topic(_)).then(|| emitted.next()).flatten();
            send(log, Record { to: &output.to, key: &output.key, value: output.value.as_deref(), emitted })?;
        }
        delivered(log)?;
        let done = write_done(self.number, self.position);
        send(log, Record { to, key: DONE_KEY, value: Some(done.as_bytes()), emitted: None })?;
        delivered(log)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, write_done(self.number, self.position).as_bytes());
        for Output { to, key, value } in &self.outputs {
            match to {
                Destination::Memory => bytes.push(b'm'),
                Destination::Table => bytes.push(b't'),
                Destination::Replies => bytes.push(b'r'),
                Destination::Topic(name) => {
                    bytes.push(b'e');
                    put(&mut bytes, name.as_bytes());
                }
            }
            put(&mut bytes, key);
            bytes.push(if value.is_some() { b'=' } else { b'-' });
            put(&mut bytes, value.as_deref().unwrap_or_default());
        }
        bytes
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Result<Self, Damaged> {
        Self::read(&mut bytes).ok_or(Damaged::Batch)
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (number, position) = read_done(take(bytes)?)?;
        let mut outputs = Vec::new();
        while !bytes.is_empty() {
            let to = match byte(bytes)? {
                b'm' => Destination::Memory,
                b't' => Destination::Table,
                b'r' => Destination::Replies,
                b'e' => Destination::Topic(std::str::from_utf8(take(bytes)?).ok()?.into()),
                _ => return None,
            };
            let key = take(bytes)?.to_vec();
            let has_value = byte(bytes)? == b'=';
            let value = take(bytes)?;
            outputs.push(Output { to, key, value: has_value.then(|| value.to_vec()) });
        }
        Some(Self { number, position, outputs })
    }
}

/// A length and so many bytes.
fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
}

fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(part)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

pub(super) fn write_done(number: u64, position: Option<i64>) -> String {
    match position {
        Some(position) => format!("{number} {position}"),
        None => number.to_string(),
    }
}

pub(super) fn read_done(value: &[u8]) -> Option<(u64, Option<i64>)> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let number = words.next()?.parse().ok()?;
    let position = words.next().map(str::parse).transpose().ok()?;
    words.next().is_none().then_some((number, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_read_as_it_was_written_and_no_part_of_it_is() {
        let output = |to, key: &[u8], value: Option<&[u8]>| Output {
            to,
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        let batch = Batch {
            number: 7,
            position: Some(88),
            outputs: vec![
                output(Destination::Memory, b"k", Some(b"v")),
                output(Destination::Table, b"", None),
                output(Destination::Replies, b"\xff\0", Some(b"")),
                output(Destination::Topic("events".into()), b"k", Some(b"{}")),
            ],
        };
        let bytes = batch.to_bytes();
        assert_eq!(Batch::from_bytes(&bytes).unwrap(), batch);
        let (mut read, mut cuts) = (0, Vec::new());
        for end in 0..bytes.len() {
            if Batch::from_bytes(&bytes[..end]).is_ok() {
                (read, cuts) = (read + 1, [cuts, vec![end]].concat());
            }
        }
        // Only where a whole output ends: Kafka does not cut records, and a record is as long as it says.
        assert_eq!(read, batch.outputs.len(), "{cuts:?}");
    }

    #[test]
    fn how_far_it_is() {
        for (number, position) in [(1, None), (u64::MAX, Some(0)), (3, Some(i64::MAX))] {
            assert_eq!(read_done(write_done(number, position).as_bytes()), Some((number, position)));
        }
        for text in ["", "x", "1 x", "1 2 3", " 1"] {
            assert_eq!(read_done(text.as_bytes()), None, "{text}");
        }
    }
}

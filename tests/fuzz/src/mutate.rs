//! Small damages, one after another, to bytes that were right: of bytes as such, and of the values in a JSON text, so
//! that much of what comes out still parses and is wrong further in.

use proptest::prelude::*;
use proptest::sample::Index;

/// Longest input that mutation makes; longer ones belong to the tests of growth.
const BYTES_MAX: usize = 64 * 1024;

/// What parsers stumble over: boundaries of numbers, structure, escapes, and the words of the wire.
const TOKENS: &[&str] = &[
    "",
    "0",
    "-0",
    "1",
    "-1",
    "1e400",
    "1.5",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "-9223372036854775808",
    "NaN",
    "null",
    "true",
    "false",
    "\"\"",
    "[]",
    "{}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\u{0}",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "😀",
    "\r\n",
    "\n",
    "\t",
    " ",
    "#",
    "- ",
    "? ",
    ": ",
    "& a",
    "*a",
    "!!str ",
    "|",
    ">",
    "---\n",
    "...\n",
    "<<: ",
    "~",
    "'",
    "%",
    "@",
    "`",
    "$",
    "${",
    "$${",
    "}",
    "${input}",
    "${input.}",
    "${input.a}",
    "${steps.a}",
    "${steps.a.r}",
    "${transaction.id}",
    "..",
    ".",
    "/",
    "-",
    "_",
    ":",
    "0ms",
    "1ms",
    "365d",
    "366d",
    "1d",
    "30s",
    "99999999999999999999s",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:60Z",
    "2026-01-01T00:00:00+23:59",
    "0-0",
    "0-1",
    "1-0",
    "0--1",
    "0-9223372036854775807",
    "t",
    "a",
    "t@1",
    "t@0",
    "t@4294967296",
    "execute",
    "compensate",
    "prepare",
    "precommit",
    "commit",
    "abort",
    "ok",
    "refused",
    "error",
    "pending",
    "expired",
    "stuck",
    "committed",
    "start",
    "pivot",
    "retriable",
    "reserved",
    "compensatable",
    "after",
    "branches",
    "protocol",
    "two-phase",
    "input",
    "steps",
    "name",
    "data",
    "data_base64",
    "specversion",
    "subject",
    "birth",
    "type",
    "sagamore.start.v1",
    "sagamore.reply.v1",
    "sagamore.timer.v1",
    "sagamore.cancel.v1",
    "sagamore.retry.v1",
    "sagamore.skip.v1",
    "sagamore.level.v1",
    "sagamore.settings.v1",
    "sagamore.definition.v1",
    "sagamore.undeliverable.v1",
    "sagamore.command.v1",
    "sagamore.outcome.v1",
    "sagamore.inquiry.v1",
];

/// Bytes that print as text when they break something.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes: {}", self.0.len(), self.0.escape_ascii())
    }
}

/// One damage.
#[derive(Debug, Clone)]
pub enum Damage {
    /// One bit turns.
    Bit(Index, u8),
    /// A byte becomes another.
    Byte(Index, u8),
    /// Some bytes vanish.
    Cut(Index, u16),
    /// Some bytes stand there twice, or many times.
    Repeat(Index, u8, u8),
    /// A token is put in.
    Insert(Index, Index),
    /// What follows comes from another input.
    Splice(Index, Index, Index),
    /// The value of a string, number or word of a JSON text becomes a token.
    Value(Index, Index),
    /// It becomes a value from another input.
    Borrow(Index, Index, Index),
    /// One becomes very long.
    Grow(Index, u16),
    /// It ends here.
    End(Index),
}

/// Any damage.
pub fn damage() -> impl Strategy<Value = Damage> {
    let at = || any::<Index>();
    prop_oneof![
        2 => (at(), 0u8..8).prop_map(|(at, bit)| Damage::Bit(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        2 => (at(), 1u16..64).prop_map(|(at, count)| Damage::Cut(at, count)),
        2 => (at(), 1u8..64, 1u8..20).prop_map(|(at, count, times)| Damage::Repeat(at, count, times)),
        4 => (at(), at()).prop_map(|(at, token)| Damage::Insert(at, token)),
        2 => (at(), at(), at()).prop_map(|(at, other, from)| Damage::Splice(at, other, from)),
        8 => (at(), at()).prop_map(|(at, token)| Damage::Value(at, token)),
        6 => (at(), at(), at()).prop_map(|(at, other, which)| Damage::Borrow(at, other, which)),
        1 => (at(), 1u16..4_000).prop_map(|(at, count)| Damage::Grow(at, count)),
        1 => at().prop_map(Damage::End),
    ]
}

/// Inputs that were right once.
pub fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Bytes> {
    (any::<Index>(), proptest::collection::vec(damage(), 0..6))
        .prop_map(move |(seed, damages)| Bytes(damaged(seed.get(&seeds).clone(), &damages, &seeds)))
}

/// What becomes of an input under these damages; `others` lend it pieces.
pub fn damaged(input: Vec<u8>, damages: &[Damage], others: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = damages.iter().fold(input, |bytes, damage| apply(damage, bytes, others));
    bytes.truncate(BYTES_MAX);
    bytes
}

fn apply(damage: &Damage, mut bytes: Vec<u8>, others: &[Vec<u8>]) -> Vec<u8> {
    let within = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match damage {
        Damage::Bit(at, bit) => {
            let at = within(at, &bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Damage::Byte(at, new) => {
            let at = within(at, &bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *new;
            }
        }
        Damage::Cut(at, count) => {
            let from = within(at, &bytes);
            bytes.drain(from..bytes.len().min(from + usize::from(*count)));
        }
        Damage::Repeat(at, count, times) => {
            let from = within(at, &bytes);
            let piece = bytes[from..bytes.len().min(from + usize::from(*count))].repeat((*times).into());
            bytes.splice(from..from, piece);
        }
        Damage::Insert(at, token) => {
            let at = within(at, &bytes);
            bytes.splice(at..at, token.get(TOKENS).bytes());
        }
        Damage::Splice(at, other, from) => {
            let other = other.get(others);
            bytes.truncate(within(at, &bytes));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        Damage::Value(at, token) => replace(&mut bytes, *at, token.get(TOKENS).as_bytes()),
        Damage::Borrow(at, other, which) => {
            let other = other.get(others);
            let values = values(other);
            if !values.is_empty() {
                let (from, to) = *which.get(&values);
                let value = other[from..to].to_vec();
                replace(&mut bytes, *at, &value);
            }
        }
        Damage::Grow(at, count) => replace(&mut bytes, *at, &b"x".repeat((*count).into())),
        Damage::End(at) => bytes.truncate(within(at, &bytes)),
    }
    bytes
}

fn replace(bytes: &mut Vec<u8>, at: Index, value: &[u8]) {
    let values = values(bytes);
    if !values.is_empty() {
        let (from, to) = *at.get(&values);
        bytes.splice(from..to, value.iter().copied());
    }
}

/// Where words stand: what is between quotes, and runs of letters and digits outside of them.
fn values(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut values = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            values.push((from + 1, at.min(bytes.len())));
            at += 1;
        } else if is_word(bytes[at]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            values.push((from, at));
        } else {
            at += 1;
        }
    }
    values.retain(|(from, to)| from <= to);
    values
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

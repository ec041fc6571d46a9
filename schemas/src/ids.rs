//! Identifiers and quantities of the wire, valid by type: what got past a parse here is never checked again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest transaction id, in characters. It is a Kafka key, an URL segment and part of every command id.
pub const TRANSACTION_ID_MAX_CHARS: usize = 128;
/// Longest name of a definition, step, branch or participant: it becomes part of a topic name (249 at most).
pub const NAME_MAX_CHARS: usize = 32;

/// What is wrong with an identifier or a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A transaction id outside its alphabet or length.
    #[error("transaction id {0:?} must be 1-128 characters of [A-Za-z0-9._:-]")]
    TransactionId(String),
    /// A name outside its alphabet or length.
    #[error("name {0:?} must be 1-32 characters of [a-z0-9-]")]
    Name(String),
    /// Not `<name>@<version>`.
    #[error("definition {0:?} must be <name>@<version>, such as order@3")]
    Definition(String),
    /// Not `<partition>-<offset>`.
    #[error("birth {0:?} must be <partition>-<offset>")]
    Birth(String),
    /// Not an integer with a unit.
    #[error("duration {0:?} must be an integer and ms, s, m, h or d, at most 365d")]
    Duration(String),
    /// Not an RFC 3339 time.
    #[error("time {0:?} must be RFC 3339, such as 2026-11-22T16:00:00Z")]
    Time(String),
}

/// The caller's idempotency key and the name of a transaction: 1-128 characters of `[A-Za-z0-9._:-]`. Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(Arc<str>);

impl TransactionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TransactionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > TRANSACTION_ID_MAX_CHARS || !text.bytes().all(legal) {
            return Err(IdError::TransactionId(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

/// A name of a definition, step, branch or participant: 1-32 characters of `[a-z0-9-]`. Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > NAME_MAX_CHARS || !text.bytes().all(legal) {
            return Err(IdError::Name(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

/// An inbox partition, and so the shard that folds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where the start of a transaction stands in the log. Two lives of one transaction id never share a birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// Home partition.
    pub partition: Partition,
    /// Inbox offset of the start.
    pub offset: i64,
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for Birth {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parsed = text.split_once('-').and_then(|(partition, offset)| {
            let is_canonical = |number: &str| {
                number.bytes().all(|byte| byte.is_ascii_digit())
                    && (number == "0" || !number.starts_with('0'))
            };
            let birth = Self { partition: Partition(partition.parse().ok()?), offset: offset.parse().ok()? };
            (is_canonical(partition) && is_canonical(offset)).then_some(birth)
        });
        parsed.ok_or_else(|| IdError::Birth(shortened(text)))
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z. In the fold it comes from the broker, never from a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

impl Time {
    /// Latest time there is (9999-12-30): what lies beyond is clamped, so that every time prints.
    pub const MAX: Self = Self(253_402_128_000_000);

    /// From milliseconds since the epoch, clamped to 1970-9999.
    pub fn from_epoch_ms(ms: i64) -> Self {
        Self(ms.clamp(0, Self::MAX.0))
    }

    /// Milliseconds since the epoch.
    pub fn epoch_ms(self) -> i64 {
        self.0
    }

    /// This time and `span` later; stops at [`Time::MAX`].
    #[must_use]
    pub fn after(self, span: Span) -> Self {
        Self::from_epoch_ms(self.0.saturating_add(span.as_i64()))
    }

    /// This time and `span` earlier; stops at the epoch.
    #[must_use]
    pub fn before(self, span: Span) -> Self {
        Self::from_epoch_ms(self.0.saturating_sub(span.as_i64()))
    }

    /// How much later this time is than `earlier`; zero when it is not.
    pub fn since(self, earlier: Self) -> Span {
        Span::from_ms(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// As RFC 3339 with milliseconds: every command carries three. The date is `civil_from_days` of Howard Hinnant,
    /// "chrono-Compatible Low-Level Date Algorithms", for the years of a `Time` only.
    pub(crate) fn rfc_3339(self, buffer: &mut [u8; 24]) -> &str {
        const DAY_MS: i64 = 86_400_000;
        let small = |number: i64| u32::try_from(number).unwrap_or_default();
        let (days, ms) = (small(self.0 / DAY_MS), small(self.0 % DAY_MS));
        // Days since 0000-03-01: a year that begins in March has its leap day last.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u32::from(month <= 2);
        *buffer = *b"0000-00-00T00:00:00.000Z";
        put_pair(buffer, 0, year / 100);
        put_pair(buffer, 2, year % 100);
        put_pair(buffer, 5, month);
        put_pair(buffer, 8, day);
        put_pair(buffer, 11, ms / 3_600_000);
        put_pair(buffer, 14, ms / 60_000 % 60);
        put_pair(buffer, 17, ms / 1_000 % 60);
        put_pair(buffer, 20, ms % 1_000 / 10);
        buffer[22] = digit(ms % 10);
        ascii(buffer)
    }

    /// Reads what [`Time::rfc_3339`] writes, and nothing else; by `days_from_civil` of the same source.
    fn of_own_text(text: &str) -> Option<Self> {
        let bytes: &[u8; 24] = text.as_bytes().try_into().ok()?;
        let number = |places: std::ops::Range<usize>| {
            bytes[places].iter().fold(0, |number, byte| number * 10 + i64::from(byte.wrapping_sub(b'0')))
        };
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        let year_of_march = if month <= 2 { year - 1 } else { year };
        let month_from_march = (month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let days =
            year_of_march * 365 + year_of_march / 4 - year_of_march / 100 + year_of_march / 400 + day_of_year
                - 719_468;
        let seconds = days * 86_400 + number(11..13) * 3_600 + number(14..16) * 60 + number(17..19);
        let time = Self::from_epoch_ms(seconds * 1_000 + number(20..23));
        // What is no digit, no date or no sign in its place is written otherwise.
        (time.rfc_3339(&mut [0; 24]) == text).then_some(time)
    }
}

/// Two digits.
fn put_pair(buffer: &mut [u8; 24], place: usize, number: u32) {
    buffer[place] = digit(number / 10);
    buffer[place + 1] = digit(number % 10);
}

fn digit(number: u32) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// What was written digit by digit, as text.
pub(crate) fn ascii(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => unreachable!("digits, and signs between them, are ASCII"),
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rfc_3339(&mut [0; 24]))
    }
}

impl FromStr for Time {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if let Some(time) = Self::of_own_text(text) {
            return Ok(time);
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| IdError::Time(shortened(text)))?;
        Ok(Self::from_epoch_ms(time.as_millisecond()))
    }
}

/// A length of time in milliseconds; written as an integer and `ms`, `s`, `m`, `h` or `d`.
///
/// ```
/// use sagamore_schemas::ids::Span;
/// let timeout: Span = "90s".parse().unwrap();
/// assert_eq!(timeout.as_ms(), 90_000);
/// assert_eq!(timeout.to_string(), "90s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u64);

impl Span {
    /// Longest span: a year. Longer ones are typing errors, and sums of a few still fit everywhere.
    pub const MAX: Self = Self(365 * 24 * 3600 * 1000);

    /// From milliseconds, clamped to [`Span::MAX`].
    pub const fn from_ms(ms: u64) -> Self {
        Self(if ms > Self::MAX.0 { Self::MAX.0 } else { ms })
    }

    /// From seconds, clamped to [`Span::MAX`].
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_ms(seconds.saturating_mul(1000))
    }

    /// Milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, ms) =
            UNITS.into_iter().find(|(_, ms)| self.0 != 0 && self.0.is_multiple_of(*ms)).unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / ms)
    }
}

impl FromStr for Span {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Duration(shortened(text));
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let total = number.parse::<u64>().ok().and_then(|n| n.checked_mul(ms)).ok_or_else(wrong)?;
        if total > Self::MAX.0 {
            return Err(wrong());
        }
        Ok(Self(total))
    }
}

/// The beginning of a text that may be very long, for an error.
pub(crate) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

macro_rules! text_serde {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_serde!(TransactionId, Name, Birth, Time, Span);

macro_rules! text_out {
    ($($type:ty, $itself:ident, $serializer:ident => $written:expr);*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&$itself, $serializer: S) -> Result<S::Ok, S::Error> {
                $written
            }
        }
    )*};
}
text_out! {
    TransactionId, self, to => to.serialize_str(&self.0);
    Name, self, to => to.serialize_str(&self.0);
    Birth, self, to => to.collect_str(self);
    Time, self, to => to.serialize_str(self.rfc_3339(&mut [0; 24]));
    Span, self, to => to.collect_str(self)
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_legal_stays_as_it_is_and_the_rest_is_named() {
        let longest = "x".repeat(128);
        for legal in ["order-1", "A:b.c_d", longest.as_str()] {
            assert_eq!(legal.parse::<TransactionId>().map(|id| id.to_string()), Ok(legal.to_owned()));
        }
        for illegal in ["", "a b", "a/b", "é", &"x".repeat(129)] {
            assert!(illegal.parse::<TransactionId>().is_err(), "{illegal}");
        }
        for illegal in ["", "Bank", "a_b", &"x".repeat(33)] {
            assert!(illegal.parse::<Name>().is_err(), "{illegal}");
        }
        for illegal in ["", "1", "1-", "-1-2", "01-2", "1-02", "+1-2", "1-+2", "1-2-3", "1--2"] {
            assert!(illegal.parse::<Birth>().is_err(), "{illegal}");
        }
        assert_eq!("3-88121".parse::<Birth>().unwrap().to_string(), "3-88121");
    }

    #[test]
    fn spans_and_times_print_as_they_are_written() {
        for text in ["100ms", "5s", "2m", "3h", "7d", "0ms", "1500ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for illegal in ["", "5", "s", "1.5s", "-1s", "5 s", "366d", "99999999999999999999s"] {
            assert!(illegal.parse::<Span>().is_err(), "{illegal}");
        }
        let time: Time = "2026-11-22T16:00:00.013Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-22T16:00:00.013Z");
        assert_eq!(Time::from_epoch_ms(i64::MAX).to_string(), "9999-12-30T00:00:00.000Z");
    }

    #[test]
    fn every_day_prints_as_jiff_prints_it_and_reads_as_jiff_reads_it() {
        const DAY_MS: i64 = 86_400_000;
        for day in 0..=Time::MAX.epoch_ms() / DAY_MS {
            // Another time of day each day: the step has no factor in common with a day.
            let time = Time::from_epoch_ms(day * DAY_MS + day * 86_399_999 % DAY_MS);
            let expected = jiff::Timestamp::from_millisecond(time.epoch_ms()).unwrap();
            assert_eq!(time.to_string(), format!("{expected:.3}"));
            assert_eq!(Time::of_own_text(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn other_ways_to_write_a_time_are_jiffs() {
        for (text, read) in [
            ("2026-11-22T16:00:00.013+00:00", Some("2026-11-22T16:00:00.013Z")),
            ("2026-11-22T18:00:00.013456+02:00", Some("2026-11-22T16:00:00.013Z")),
            ("2026-11-22 16:00:00Z", Some("2026-11-22T16:00:00.000Z")),
            ("9999-12-30T22:00:00.999Z", Some("9999-12-30T00:00:00.000Z")),
            ("2026-02-29T16:00:00.013Z", None),
            ("2026-13-01T16:00:00.013Z", None),
            ("2026-11-22T24:00:00.013Z", None),
            ("2026-11-22T16:0x:00.013Z", None),
            ("2026-11-22T16:00:00.013z\n", None),
        ] {
            assert_eq!(Time::of_own_text(text), None, "{text}");
            let time = text.parse::<Time>().ok();
            assert_eq!(time.map(|time| time.to_string()).as_deref(), read, "{text}");
        }
    }
}

//! What stands among the dead letters: letters, as the fold has set them aside, and what people have done about them.
//!
//! ```text
//!  a letter    the record as it came, its own headers, then  __dlq.errors.{topic,partition,offset,timestamp,message}
//!  a handling  no value; key = the letter's place;           __dlq.handled.{of,as,actor,reason,time,to,edited}
//!  a resent    a copy in the inbox, its own headers, then    __dlq.resent.{from,edited}
//! ```
//! A handling stands in its letter's partition, behind it. The topic is only ever appended to: the letter stays as it was.
//! Whatever has `__dlq.errors.offset` is a letter, so that no header of a client makes a letter look handled.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::ids::Time;

/// What the names of the headers begin with that say why a record was set aside.
pub const ERRORS: &str = "__dlq.errors.";
const HANDLED: &str = "__dlq.handled.";
/// What the names of the headers of a copy begin with.
pub const RESENT: &str = "__dlq.resent.";

/// Where a record stands in a topic; written `PARTITION/OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPlace {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Not `PARTITION/OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected PARTITION/OFFSET, such as 3/88121")]
pub struct RecordPlaceError;

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl FromStr for RecordPlace {
    type Err = RecordPlaceError;

    fn from_str(text: &str) -> Result<Self, RecordPlaceError> {
        let (partition, offset) = text.split_once('/').ok_or(RecordPlaceError)?;
        let place = Self {
            partition: partition.parse().map_err(|_| RecordPlaceError)?,
            offset: offset.parse().map_err(|_| RecordPlaceError)?,
        };
        if place.partition >= 0 && place.offset >= 0 { Ok(place) } else { Err(RecordPlaceError) }
    }
}

impl Serialize for RecordPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a letter came from, and why it was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterCause<'a> {
    /// The topic in which it stood.
    pub topic: &'a str,
    /// The partition there.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
    /// When it was written there, by the broker.
    pub at: Time,
    /// Why nobody could take it.
    pub message: &'a str,
}

impl<'a> LetterCause<'a> {
    /// From a record's headers; none if it is no letter. Of two headers of a name the last holds: it is the fold's.
    pub fn read(headers: &[(&'a str, &'a [u8])]) -> Option<Self> {
        let text = |name| text_of(headers, ERRORS, name);
        Some(Self {
            topic: text("topic")?,
            partition: text("partition")?.parse().ok()?,
            offset: text("offset")?.parse().ok()?,
            at: Time::from_epoch_ms(text("timestamp")?.parse().ok()?),
            message: text("message")?,
        })
    }
}

/// What a person has done about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// A copy is about to be written. If nothing follows, nobody knows whether it was.
    Resending,
    /// A copy was written.
    Resent,
    /// Nothing is to be done any more.
    Discarded,
}

impl Handling {
    const ALL: [Self; 3] = [Self::Resending, Self::Resent, Self::Discarded];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resending => "resending",
            Self::Resent => "resent",
            Self::Discarded => "discarded",
        }
    }
}

/// That something was done about a letter: by whom, why, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Handled {
    /// The letter.
    #[serde(skip)]
    pub of: RecordPlace,
    /// What was done.
    #[serde(rename = "as")]
    pub handling: Handling,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When, by the clock of whoever did it.
    pub time: Time,
    /// Where the copy stands, `topic/partition@offset`; of `resending` without the offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Whether the copy was another text.
    pub edited: bool,
}

impl Handled {
    /// The headers of the record that says so.
    pub fn to_headers(&self) -> Vec<(String, Vec<u8>)> {
        let fields = [
            ("of", Some(self.of.to_string())),
            ("as", Some(self.handling.as_str().to_owned())),
            ("actor", Some(self.actor.clone())),
            ("reason", Some(self.reason.clone())),
            ("time", Some(self.time.to_string())),
            ("to", self.to.clone()),
            ("edited", Some(self.edited.to_string())),
        ];
        let header =
            |(name, value): (&str, Option<String>)| Some((format!("{HANDLED}{name}"), value?.into_bytes()));
        fields.into_iter().filter_map(header).collect()
    }

    /// From a record's headers; none if it is no handling.
    pub fn read(headers: &[(&str, &[u8])]) -> Option<Self> {
        if text_of(headers, ERRORS, "offset").is_some() {
            return None;
        }
        let text = |name| text_of(headers, HANDLED, name);
        let handling = text("as")?;
        Some(Self {
            of: text("of")?.parse().ok()?,
            handling: Handling::ALL.into_iter().find(|known| known.as_str() == handling)?,
            actor: text("actor")?.to_owned(),
            reason: text("reason")?.to_owned(),
            time: text("time")?.parse().ok()?,
            to: text("to").map(str::to_owned),
            edited: text("edited")?.parse().ok()?,
        })
    }
}

/// The headers of a copy: its own, without what earlier rounds have added, and where it comes from.
pub fn resent_headers(own: &[(&str, &[u8])], from: &str, edited: bool) -> Vec<(String, Vec<u8>)> {
    let is_own = |name: &str| !name.starts_with(ERRORS) && !name.starts_with(RESENT);
    let kept = own.iter().filter(|(name, _)| is_own(name));
    let kept = kept.map(|(name, value)| ((*name).to_owned(), value.to_vec()));
    let added = [("from", from.to_owned()), ("edited", edited.to_string())];
    kept.chain(added.map(|(name, value)| (format!("{RESENT}{name}"), value.into_bytes()))).collect()
}

fn text_of<'a>(headers: &[(&'a str, &'a [u8])], family: &str, name: &str) -> Option<&'a str> {
    let found = headers.iter().rev().find(|(known, _)| known.strip_prefix(family) == Some(name));
    found.and_then(|(_, value)| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(headers: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
    }

    fn handled() -> Handled {
        Handled {
            of: RecordPlace { partition: 0, offset: 12 },
            handling: Handling::Resent,
            actor: "anna".into(),
            reason: "mended".into(),
            time: Time::from_epoch_ms(1_767_225_600_123),
            to: Some("sagamore.inbox/3@99".into()),
            edited: true,
        }
    }

    #[test]
    fn places() {
        assert_eq!("3/88".parse::<RecordPlace>().unwrap().to_string(), "3/88");
        for wrong in ["", "3", "3/", "/3", "-1/2", "1/-2", "1/2/3", "a/b", "1/99999999999999999999"] {
            assert_eq!(wrong.parse::<RecordPlace>(), Err(RecordPlaceError), "{wrong}");
        }
    }

    #[test]
    fn what_was_done_is_read_as_it_was_written() {
        for handling in Handling::ALL {
            let handled = Handled { handling, ..handled() };
            assert_eq!(Handled::read(&lent(&handled.to_headers())), Some(handled));
        }
        let headers = handled().to_headers();
        for left_out in ["of", "as", "actor", "reason", "time", "edited"] {
            let name = format!("{HANDLED}{left_out}");
            let rest: Vec<_> = headers.iter().filter(|(known, _)| *known != name).cloned().collect();
            assert_eq!(Handled::read(&lent(&rest)), None, "without {left_out}");
        }
    }

    #[test]
    fn a_client_cannot_make_its_letter_look_handled() {
        let mut headers = handled().to_headers();
        let place =
            [("topic", "t"), ("partition", "1"), ("offset", "7"), ("timestamp", "5"), ("message", "m")];
        // What the fold adds stands last, and holds.
        for (name, value) in [("offset", "1")].into_iter().chain(place) {
            headers.push((format!("{ERRORS}{name}"), value.into()));
        }
        assert_eq!(Handled::read(&lent(&headers)), None);
        let expected =
            LetterCause { topic: "t", partition: 1, offset: 7, at: Time::from_epoch_ms(5), message: "m" };
        assert_eq!(LetterCause::read(&lent(&headers)), Some(expected));
    }

    #[test]
    fn a_copy_keeps_its_own_headers_only() {
        let own: [(&str, &[u8]); 3] =
            [("sent-by", b"\xff"), ("__dlq.errors.offset", b"7"), ("__dlq.resent.from", b"old")];
        let copy = resent_headers(&own, "sagamore.dead-letters/0@12", false);
        let expected: [(&str, &[u8]); 3] = [
            ("sent-by", b"\xff"),
            ("__dlq.resent.from", b"sagamore.dead-letters/0@12"),
            ("__dlq.resent.edited", b"false"),
        ];
        assert_eq!(lent(&copy), expected);
    }
}

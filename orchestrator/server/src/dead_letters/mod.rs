//! The dead letters as an operator works with them: what stands there, what became of it, a copy sent again.
//!
//! ```text
//!   dead letters ──▶ Index (what was done, what was said twice) ──▶ letters, one by one ──▶ list, show, export
//!                                                                        │
//!        inbox ◀── copy ◀── "resending" among the dead letters ◀─────────┘   then "resent", with the copy's place
//! ```
//! Everything is read from the topic, twice: first what was done, which stands behind what it was done about, then the
//! letters. So values are never held, but of those that are being sent: the index takes some 40 bytes a letter.
//!
//! A letter may stand there twice, because outputs may; its place is that of the first. What is sent again says so first,
//! and says where it stands afterwards: whoever is killed in between leaves `resending`, and nobody sends that again
//! without looking.

mod cause;
mod resend;

use std::collections::BTreeMap;

use rdkafka::message::{BorrowedMessage, Message};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{Handled, Handling, LetterCause, RecordPlace};
use serde::{Deserialize, Serialize};

use crate::checkpointer::{headers_of, timestamp_ms};
use crate::site::{Site, SiteError};

pub use cause::CauseCode;
pub use resend::{Deed, DeedError, Done, discard, resend};

/// Which letters are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The word for the cause, or a part of its sentence.
    pub cause: Option<String>,
    /// The topic they came from.
    pub topic: Option<String>,
    /// Set aside at this time or later.
    pub from: Option<Time>,
    /// Set aside before this time.
    pub to: Option<Time>,
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nothing yet.
    Open,
    /// Somebody began to send it again; nobody knows whether it was written.
    Resending,
    /// It was sent again.
    Resent,
    /// Nothing is to be done.
    Discarded,
}

impl Status {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resending => Handling::Resending.as_str(),
            Self::Resent => Handling::Resent.as_str(),
            Self::Discarded => Handling::Discarded.as_str(),
        }
    }

    /// Whether somebody has to look at it.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Resending)
    }
}

impl From<Option<&Handled>> for Status {
    fn from(newest: Option<&Handled>) -> Self {
        match newest.map(|handled| handled.handling) {
            None => Self::Open,
            Some(Handling::Resending) => Self::Resending,
            Some(Handling::Resent) => Self::Resent,
            Some(Handling::Discarded) => Self::Discarded,
        }
    }
}

/// A letter, as long as its record is in hand.
#[derive(Debug)]
pub struct Letter<'m> {
    /// Where it stands.
    pub place: RecordPlace,
    /// When it was set aside.
    pub at: Time,
    /// Where it came from, and why it is here.
    pub cause: LetterCause<'m>,
    /// The cause in one word.
    pub code: CauseCode,
    /// What it says it is, as far as it can be read.
    pub event: Event,
    /// Its key.
    pub key: Option<&'m [u8]>,
    /// Its value.
    pub value: Option<&'m [u8]>,
    /// All headers.
    pub headers: Vec<(&'m str, &'m [u8])>,
}

/// What can be read of a record that could not be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The transaction it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Event {
    /// As much as can be read.
    pub fn read(value: Option<&[u8]>) -> Self {
        #[derive(Deserialize)]
        struct Loose {
            #[serde(rename = "type")]
            kind: Option<serde_json::Value>,
            subject: Option<serde_json::Value>,
            id: Option<serde_json::Value>,
        }
        let text =
            |value: Option<serde_json::Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let loose = serde_json::from_slice::<Loose>(value.unwrap_or_default());
        loose.map_or_else(
            |_| Self::default(),
            |Loose { kind, subject, id }| Self { kind: text(kind), subject: text(subject), id: text(id) },
        )
    }
}

impl<'m> Letter<'m> {
    fn read(record: &'m BorrowedMessage<'_>) -> Option<Self> {
        let headers = headers_of(record);
        let cause = LetterCause::read(&headers)?;
        let event = Event::read(record.payload());
        Some(Self {
            place: place_of(record),
            at: Time::from_epoch_ms(timestamp_ms(record.timestamp())),
            code: CauseCode::of(cause.message, event.kind.as_deref()),
            cause,
            event,
            key: record.key(),
            value: record.payload(),
            headers,
        })
    }
}

impl Filter {
    /// Whether this letter is meant.
    pub fn allows(&self, letter: &Letter<'_>) -> bool {
        let is_cause =
            |wanted: &String| letter.code.as_str() == wanted || letter.cause.message.contains(wanted);
        self.cause.as_ref().is_none_or(is_cause)
            && self.topic.as_ref().is_none_or(|topic| letter.cause.topic == topic)
            && self.from.is_none_or(|from| from <= letter.at)
            && self.to.is_none_or(|to| letter.at < to)
    }
}

/// Where a record stood before it was set aside: partition and offset, and its topic by number.
type Origin = (u16, i32, i64);

/// What was done about letters, and which were said twice.
#[derive(Debug, Default)]
pub struct Index {
    topics: Vec<String>,
    first: BTreeMap<Origin, RecordPlace>,
    /// Repeats, by their own place.
    repeats: BTreeMap<RecordPlace, RecordPlace>,
    newest: BTreeMap<RecordPlace, Handled>,
}

impl Index {
    /// Reads the topic once.
    pub fn read(site: &Site) -> Result<Self, SiteError> {
        let mut index = Self::default();
        site.read_dead_letters(|record| index.see(record))?;
        Ok(index)
    }

    fn see(&mut self, record: &BorrowedMessage<'_>) {
        let headers = headers_of(record);
        if let Some(cause) = LetterCause::read(&headers) {
            let place = place_of(record);
            let origin = self.origin(&cause);
            let first = *self.first.entry(origin).or_insert(place);
            if first != place {
                self.repeats.insert(place, first);
            }
        } else if let Some(handled) = Handled::read(&headers) {
            self.newest.insert(handled.of, handled);
        }
    }

    fn origin(&mut self, cause: &LetterCause<'_>) -> Origin {
        let known = self.topics.iter().position(|topic| topic == cause.topic);
        let topic = known.unwrap_or_else(|| {
            self.topics.push(cause.topic.to_owned());
            self.topics.len() - 1
        });
        (u16::try_from(topic).unwrap_or(u16::MAX), cause.partition, cause.offset)
    }

    /// Where the letter stands that is meant by this place: of a repeat, the first.
    pub fn first(&self, place: RecordPlace) -> RecordPlace {
        self.repeats.get(&place).copied().unwrap_or(place)
    }

    /// How often it was said again.
    pub fn repeats(&self, place: RecordPlace) -> usize {
        self.repeats.values().filter(|first| **first == place).count()
    }

    /// What was done about it last.
    pub fn newest(&self, place: RecordPlace) -> Option<&Handled> {
        self.newest.get(&place)
    }

    /// What has become of it.
    pub fn status(&self, place: RecordPlace) -> Status {
        self.newest(place).into()
    }

    /// Reads the topic again, and shows each letter once.
    pub fn letters(&self, site: &Site, mut see: impl FnMut(&Letter<'_>)) -> Result<(), SiteError> {
        site.read_dead_letters(|record| {
            if !self.repeats.contains_key(&place_of(record))
                && let Some(letter) = Letter::read(record)
            {
                see(&letter);
            }
        })
    }

    /// Everything that was done about one letter, in order.
    pub fn history(site: &Site, place: RecordPlace) -> Result<Vec<Handled>, SiteError> {
        let mut history = Vec::new();
        site.read_dead_letters(|record| {
            if record.partition() == place.partition {
                history.extend(Handled::read(&headers_of(record)).filter(|handled| handled.of == place));
            }
        })?;
        Ok(history)
    }
}

fn place_of(record: &BorrowedMessage<'_>) -> RecordPlace {
    RecordPlace { partition: record.partition(), offset: record.offset() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_read_as_can_be() {
        let check = |value: Option<&[u8]>, kind: Option<&str>, subject: Option<&str>| {
            let event = Event::read(value);
            assert_eq!((event.kind.as_deref(), event.subject.as_deref()), (kind, subject));
        };
        check(None, None, None);
        check(Some(b"\xff\xfe"), None, None);
        check(Some(b"[1]"), None, None);
        check(Some(br#"{"type":"sagamore.start.v1","subject":7}"#), Some("sagamore.start.v1"), None);
        check(Some(br#"{"subject":"a/b","data":{"x":[]}}"#), None, Some("a/b"));
    }
}

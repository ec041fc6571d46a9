//! A copy of a letter goes back to where it came from, or somebody says that nothing is to be done.
//!
//! | written | where | if the writer is killed after it |
//! |---|---|---|
//! | `resending` | dead letters | the letter is `resending`: look for `__dlq.resent.from` in the inbox before it is sent again |
//! | the copy | the inbox | the same; the fold takes a start or a reply that comes twice once |
//! | `resent`, with the copy's place | dead letters | |

use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::{Handled, Handling, RecordPlace, resent_headers};
use serde::Serialize;

use super::{CauseCode, Event, Filter, Index, Letter};
use crate::site::{NewRecord, Site, SiteError, Writer};

/// Copies that are under way at a time: what is written at once and acknowledged together.
const BATCH_RECORDS_MAX: usize = 500;
/// The same in bytes, so that large letters do not fill the memory.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is to be done, about which letters, by whom.
#[derive(Debug)]
pub struct Deed {
    /// These; empty for all that the filter lets through.
    pub places: Vec<RecordPlace>,
    /// Which of the open ones.
    pub filter: Filter,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub time: Time,
    /// Only say what it would be.
    pub dry_run: bool,
    /// Also what was handled before, or is being handled.
    pub again: bool,
    /// Another value in place of the letter's own.
    pub edited: Option<Vec<u8>>,
    /// Another partition of the topic.
    pub partition: Option<i32>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum DeedError {
    /// Kafka.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// No such letter.
    #[error("there is no dead letter at {0}")]
    NotFound(RecordPlace),
    /// Somebody was quicker.
    #[error("{0} was handled before ({1}); --again does it all the same")]
    Handled(RecordPlace, &'static str),
    /// It says that it came from somewhere else.
    #[error("{0} came from {1}, which is not the inbox of this installation")]
    Foreign(RecordPlace, String),
    /// There is no such partition.
    #[error("{0} has no partition {1}, there are {2}")]
    NoPartition(String, i32, usize),
}

/// What was done about one letter.
#[derive(Debug, Serialize)]
pub struct Done {
    /// The letter.
    pub place: RecordPlace,
    /// Why it was one.
    pub cause: CauseCode,
    /// What was done; with a dry run, what would be.
    pub done: Handling,
    /// Where the copy stands; with a dry run, its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A copy that waits for its batch.
struct Copy {
    done: Done,
    record: NewRecord,
}

/// Writes copies to where the letters came from.
pub fn resend(site: &Site, deed: &Deed) -> Result<Vec<Done>, DeedError> {
    let inbox = site.topic(Topic::Inbox);
    let partitions = site.partitions(Topic::Inbox)?.len();
    if let Some(partition) = deed.partition
        && !usize::try_from(partition).is_ok_and(|partition| partition < partitions)
    {
        return Err(DeedError::NoPartition(inbox, partition, partitions));
    }
    let letters = site.topic(Topic::DeadLetters);
    let copy = |letter: &Letter<'_>| {
        if letter.cause.topic != inbox {
            return Err(DeedError::Foreign(letter.place, letter.cause.topic.to_owned()));
        }
        let record = copy_of(letter, deed, i32::try_from(partitions).unwrap_or(i32::MAX), &letters);
        let to = Some(format!("{inbox}/{}", record.partition));
        Ok(Copy {
            done: Done { place: letter.place, cause: letter.code, done: Handling::Resent, to },
            record,
        })
    };
    each(site, deed, copy, |writer, batch| {
        say(writer, &letters, deed, Handling::Resending, batch)?;
        let records: Vec<NewRecord> = batch.iter().map(|copy| copy.record.clone()).collect();
        let offsets = writer.write_to(&inbox, &records)?;
        for (copy, offset) in batch.iter_mut().zip(offsets) {
            copy.done.to = Some(format!("{inbox}/{}@{offset}", copy.record.partition));
        }
        say(writer, &letters, deed, Handling::Resent, batch)
    })
}

/// Says that nothing is to be done about them.
pub fn discard(site: &Site, deed: &Deed) -> Result<Vec<Done>, DeedError> {
    let nothing = NewRecord { partition: 0, key: None, value: None, headers: Vec::new() };
    let copy = |letter: &Letter<'_>| {
        let done = Done { place: letter.place, cause: letter.code, done: Handling::Discarded, to: None };
        Ok(Copy { done, record: nothing.clone() })
    };
    let letters = site.topic(Topic::DeadLetters);
    each(site, deed, copy, |writer, batch| say(writer, &letters, deed, Handling::Discarded, batch))
}

/// Every letter that is meant, batch by batch.
fn each(
    site: &Site,
    deed: &Deed,
    copy: impl Fn(&Letter<'_>) -> Result<Copy, DeedError>,
    write: impl Fn(&Writer<'_>, &mut [Copy]) -> Result<(), SiteError>,
) -> Result<Vec<Done>, DeedError> {
    let index = Index::read(site)?;
    let named: Vec<RecordPlace> = deed.places.iter().map(|place| index.first(*place)).collect();
    let mut missing = named.clone();
    index.letters(site, |letter| missing.retain(|place| *place != letter.place))?;
    if let Some(place) = missing.first() {
        return Err(DeedError::NotFound(*place));
    }
    let is_untouched = |place: RecordPlace| deed.again || index.newest(place).is_none();
    if let Some(place) = named.iter().find(|place| !is_untouched(**place)) {
        return Err(DeedError::Handled(*place, index.status(*place).as_str()));
    }
    let is_meant = |letter: &Letter<'_>| {
        if named.is_empty() {
            deed.filter.allows(letter) && is_untouched(letter.place)
        } else {
            named.contains(&letter.place)
        }
    };
    let writer = site.writer()?;
    let mut write = |batch: &mut [Copy]| write(&writer, batch);
    let mut done = Vec::new();
    let mut batch = Batch::default();
    let mut wrong = Ok(());
    index.letters(site, |letter| {
        if wrong.is_ok() && is_meant(letter) {
            wrong = copy(letter).and_then(|copy| {
                if deed.dry_run {
                    done.push(copy.done);
                    return Ok(());
                }
                batch.add(copy);
                if batch.is_full() { Ok(batch.flush(&mut write, &mut done)?) } else { Ok(()) }
            });
        }
    })?;
    wrong?;
    batch.flush(&mut write, &mut done)?;
    Ok(done)
}

#[derive(Default)]
struct Batch {
    copies: Vec<Copy>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, copy: Copy) {
        self.bytes += copy.record.value.as_ref().map_or(0, Vec::len);
        self.copies.push(copy);
    }

    fn is_full(&self) -> bool {
        self.copies.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn flush(
        &mut self,
        write: &mut impl FnMut(&mut [Copy]) -> Result<(), SiteError>,
        done: &mut Vec<Done>,
    ) -> Result<(), SiteError> {
        if !self.copies.is_empty() {
            write(&mut self.copies)?;
        }
        self.bytes = 0;
        done.extend(self.copies.drain(..).map(|copy| copy.done));
        Ok(())
    }
}

/// Appends what is done about them to the dead letters.
fn say(
    writer: &Writer<'_>,
    letters: &str,
    deed: &Deed,
    handling: Handling,
    batch: &[Copy],
) -> Result<(), SiteError> {
    let record = |copy: &Copy| {
        let handled = Handled {
            of: copy.done.place,
            handling,
            actor: deed.actor.clone(),
            reason: deed.reason.clone(),
            time: deed.time,
            to: copy.done.to.clone(),
            edited: deed.edited.is_some(),
        };
        NewRecord {
            partition: copy.done.place.partition,
            key: Some(copy.done.place.to_string().into_bytes()),
            value: None,
            headers: handled.to_headers(),
        }
    };
    let records: Vec<NewRecord> = batch.iter().map(record).collect();
    writer.write_to(letters, &records).map(drop)
}

/// The letter's record again. What is about a transaction goes to its home, which for a reply that stood in the wrong
/// partition is another one; everything else to where it stood.
fn copy_of(letter: &Letter<'_>, deed: &Deed, partitions: i32, letters: &str) -> NewRecord {
    let value = deed.edited.as_deref().or(letter.value);
    let about = Event::read(value).subject.and_then(|subject| subject.parse::<TransactionId>().ok());
    let at_home = about.as_ref().map(|id| home(id, partitions).0);
    let key = match (&about, &deed.edited) {
        (Some(id), Some(_)) => Some(id.as_str().as_bytes().to_vec()),
        _ => letter.key.map(<[u8]>::to_vec),
    };
    let from = format!("{letters}/{}@{}", letter.place.partition, letter.place.offset);
    NewRecord {
        partition: deed.partition.or(at_home).unwrap_or(letter.cause.partition),
        key,
        value: value.map(<[u8]>::to_vec),
        headers: resent_headers(&letter.headers, &from, deed.edited.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::wire::LetterCause;

    use super::*;

    fn letter<'m>(key: Option<&'m [u8]>, value: Option<&'m [u8]>) -> Letter<'m> {
        let cause =
            LetterCause { topic: "s.inbox", partition: 1, offset: 7, at: Time::default(), message: "m" };
        let place = RecordPlace { partition: 0, offset: 12 };
        let (at, code, event) = (Time::default(), CauseCode::Other, Event::read(value));
        Letter { place, at, cause, code, event, key, value, headers: vec![("sent-by", b"x")] }
    }

    fn deed(edited: Option<&str>, partition: Option<i32>) -> Deed {
        Deed {
            places: Vec::new(),
            filter: Filter::default(),
            actor: "a".into(),
            reason: "r".into(),
            time: Time::default(),
            dry_run: false,
            again: false,
            edited: edited.map(|text| text.as_bytes().to_vec()),
            partition,
        }
    }

    #[test]
    fn a_copy_goes_home() {
        let id: TransactionId = "order-1".parse().unwrap();
        let home = home(&id, 4).0;
        let event: &[u8] = br#"{"subject":"order-1"}"#;
        let check = |value: &[u8], edited, partition, then: (i32, &[u8])| {
            let copy =
                copy_of(&letter(Some(b"k"), Some(value)), &deed(edited, partition), 4, "s.dead-letters");
            assert_eq!((copy.partition, copy.key.as_deref()), (then.0, Some(then.1)), "{edited:?}");
        };
        check(event, None, None, (home, b"k"));
        check(b"\xff", None, None, (1, b"k"));
        check(b"\xff", Some(r#"{"subject":"order-1"}"#), None, (home, b"order-1"));
        check(event, Some(r#"{"subject":"a/b"}"#), None, (1, b"k"));
        check(event, None, Some(3), (3, b"k"));
    }

    #[test]
    fn a_batch_is_bounded_by_records_and_by_bytes() {
        let copy = |bytes: usize| Copy {
            done: Done {
                place: RecordPlace { partition: 0, offset: 0 },
                cause: CauseCode::Other,
                done: Handling::Resent,
                to: None,
            },
            record: NewRecord { partition: 0, key: None, value: Some(vec![0; bytes]), headers: Vec::new() },
        };
        let mut batch = Batch::default();
        (1..BATCH_RECORDS_MAX).for_each(|_| batch.add(copy(0)));
        assert!(!batch.is_full());
        batch.add(copy(0));
        assert!(batch.is_full());
        let mut batch = Batch::default();
        batch.add(copy(BATCH_BYTES_MAX - 1));
        assert!(!batch.is_full());
        batch.add(copy(1));
        assert!(batch.is_full());
    }
}

//! The records of the memory topic: keys that a person can read, values as short as they may be.
//!
//! | key | value |
//! |---|---|
//! | `["row",instance,birth,subject,step,branch,operation]` | `json`, `base64`, `nothing`, `refused` or `cancelled`, when it was issued in ms, what follows |
//! | `["vote",instance,birth,subject,step,branch]` | the `prepare`, until it is decided |
//! | `["heuristic",instance,birth,subject,step,branch]` | a decision by hand, as JSON |
//! | `["horizon",instance,partition]` | ms |
//! | `\0batch` | the last batch, whole: [`Batch`](super::Batch) |
//! | `\0done` | the number of the last batch that is done, and the offset of the next command |
//! | `\0barrier` | none; a takeover read to here. Also in the table |

use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::wire::{Operation, Payload};

use crate::barrier::{Branch, Home, Row, Stored};

/// Key of the record up to which a takeover reads. It never has a value, so to a reader of the table it deletes what was
/// never there.
pub const BARRIER_KEY: &[u8] = b"\0barrier";
pub(super) const BATCH_KEY: &[u8] = b"\0batch";
pub(super) const DONE_KEY: &[u8] = b"\0done";

/// What a record of the memory is about.
pub(super) enum About {
    Row(Branch, Operation),
    Vote(Branch),
    Heuristic(Branch),
    Horizon(Home),
}

pub(super) fn row_key(branch: &Branch, operation: Operation) -> Vec<u8> {
    let Branch { instance, subject, birth, step, branch } = branch;
    array(&[
        "row",
        &instance.to_string(),
        &birth.to_string(),
        subject.as_str(),
        step,
        branch,
        operation.as_str(),
    ])
}

pub(super) fn vote_key(branch: &Branch) -> Vec<u8> {
    branch_key("vote", branch)
}

pub(super) fn heuristic_key(branch: &Branch) -> Vec<u8> {
    branch_key("heuristic", branch)
}

fn branch_key(what: &str, branch: &Branch) -> Vec<u8> {
    let Branch { instance, subject, birth, step, branch } = branch;
    array(&[what, &instance.to_string(), &birth.to_string(), subject.as_str(), step, branch])
}

pub(super) fn horizon_key(home: Home) -> Vec<u8> {
    array(&["horizon", &home.instance.to_string(), &home.partition.0.to_string()])
}

fn array(words: &[&str]) -> Vec<u8> {
    serde_json::Value::from(words).to_string().into_bytes()
}

pub(super) fn read_key(key: &[u8]) -> Option<About> {
    let words: Vec<String> = serde_json::from_slice(key).ok()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let branch = |instance: &str, birth: &str, subject: &str, step: &str, branch: &str| {
        Some(Branch {
            instance: instance.parse().ok()?,
            subject: subject.parse().ok()?,
            birth: birth.parse().ok()?,
            step: step.into(),
            branch: branch.into(),
        })
    };
    match *words.as_slice() {
        ["row", instance, birth, subject, step, name, operation] => {
            let operation = Operation::ALL.into_iter().find(|known| known.as_str() == operation)?;
            Some(About::Row(branch(instance, birth, subject, step, name)?, operation))
        }
        ["vote", instance, birth, subject, step, name] => {
            branch(instance, birth, subject, step, name).map(About::Vote)
        }
        ["heuristic", instance, birth, subject, step, name] => {
            branch(instance, birth, subject, step, name).map(About::Heuristic)
        }
        ["horizon", instance, partition] => {
            let (instance, partition) = (instance.parse().ok()?, partition.parse().ok()?);
            Some(About::Horizon(Home { instance, partition: Partition(partition) }))
        }
        _ => None,
    }
}

pub(super) fn write_row(row: &Row) -> Vec<u8> {
    let (word, text) = match &row.answer {
        Stored::Done(Payload::Json(raw)) => ("json", raw.get()),
        Stored::Done(Payload::Base64(text)) => ("base64", text.as_ref()),
        Stored::Done(Payload::Absent) => ("nothing", ""),
        Stored::Refused(reason) => ("refused", reason.as_ref()),
        Stored::Cancelled => ("cancelled", ""),
        Stored::ByHand => ("by-hand", ""),
    };
    format!("{word} {} {text}", row.issued.epoch_ms()).into_bytes()
}

pub(super) fn read_row(operation: Operation, value: &[u8]) -> Option<Row> {
    let mut parts = std::str::from_utf8(value).ok()?.splitn(3, ' ');
    let (word, issued, text) = (parts.next()?, parts.next()?, parts.next()?);
    let answer = match word {
        "json" => Stored::Done(Payload::from_json(text.to_owned()).ok()?),
        "base64" => Stored::Done(Payload::Base64(text.into())),
        "nothing" => Stored::Done(Payload::Absent),
        "refused" => Stored::Refused(text.into()),
        "cancelled" => Stored::Cancelled,
        "by-hand" => Stored::ByHand,
        _ => return None,
    };
    Some(Row { operation, issued: read_time(issued.as_bytes())?, answer })
}

pub(super) fn write_time(time: Time) -> Vec<u8> {
    time.epoch_ms().to_string().into_bytes()
}

pub(super) fn read_time(text: &[u8]) -> Option<Time> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Time::from_epoch_ms)
}

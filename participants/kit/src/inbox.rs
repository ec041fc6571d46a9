//! What the participant writes to the inbox, read as the coordinator reads it, and kept by transaction.
//!
//! The topic is ours and nobody else writes to it, so a gap in its offsets is a marker of a Kafka transaction: that is
//! how one sees that a reply was in one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, EndsAreNoErrors, Isolation};
use sagamore_schemas::ids::{Birth, TransactionId};
use sagamore_schemas::wire::{Answer, Input, Inquiry, Operation, Payload, PayloadRef, read_input};
use uuid::Uuid;

use crate::error::{CheckError, Stop};

/// Records that are kept: a hundred times what a run needs. A participant that says more answers in a loop.
pub(crate) const ARRIVED_MAX: usize = 100_000;
/// Of the records that nobody understands, so many are told.
const STRAYS_TOLD: usize = 5;
/// How often whoever waits looks whether there is still somebody to wait for.
const PULSE: Duration = Duration::from_millis(50);
/// How long a question about the end of a partition may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One record of the inbox.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) said: Said,
}

#[derive(Debug, Clone)]
pub(crate) enum Said {
    Reply(Box<Answered>),
    Inquiry(Inquiry<'static>),
}

/// A reply, on its own.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) instance: Uuid,
    pub(crate) subject: TransactionId,
    pub(crate) birth: Birth,
    pub(crate) step: String,
    pub(crate) branch: String,
    pub(crate) operation: Operation,
    pub(crate) attempt: u32,
    pub(crate) outcome: Answer,
    pub(crate) reason: Option<String>,
    pub(crate) replytoken: Option<String>,
    pub(crate) data: Payload,
}

/// How much of a payload is told.
const TOLD_CHARACTERS: usize = 200;

impl Answered {
    /// For a person.
    pub(crate) fn told(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let data = match self.data.as_ref() {
            PayloadRef::Json(raw) => {
                format!(" {}", raw.get().chars().take(TOLD_CHARACTERS).collect::<String>())
            }
            PayloadRef::Base64(text) => format!(" {} characters of Base64", text.len()),
            PayloadRef::Absent => String::new(),
        };
        format!("{}{reason}{data}", self.outcome.as_str())
    }

    /// Whether both say the same; JSON is compared as values, because some parsers write it anew.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let value = |payload: &Payload| match payload.as_ref() {
            PayloadRef::Base64(text) => Err(text.into_owned()),
            json => Ok(json.json().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())),
        };
        (self.outcome, &self.reason) == (other.outcome, &other.reason)
            && value(&self.data) == value(&other.data)
    }
}

/// What has come so far.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    by_subject: BTreeMap<String, Vec<Arrived>>,
    count: usize,
    strays: Vec<String>,
    strays_count: usize,
    /// The next offset of each partition.
    positions: BTreeMap<i32, i64>,
    marker: Option<String>,
    failure: Option<String>,
}

impl Shelf {
    /// What came about this transaction, in its order.
    pub(crate) fn of(&self, subject: &TransactionId) -> &[Arrived] {
        self.by_subject.get(subject.as_str()).map(Vec::as_slice).unwrap_or_default()
    }

    /// What cannot be read, or is about nobody's transaction.
    pub(crate) fn strays(&self, known: &BTreeSet<String>) -> Option<String> {
        let mut told = self.strays.clone();
        let strangers: Vec<&String> =
            self.by_subject.keys().filter(|subject| !known.contains(*subject)).collect();
        told.extend(
            strangers
                .iter()
                .take(STRAYS_TOLD)
                .map(|subject| format!("about {subject:?}, which was never sent")),
        );
        let count = self.strays_count + strangers.len();
        (count > 0).then(|| format!("{count} such: {}", told.join("; ")))
    }

    /// Where a marker of a Kafka transaction stands.
    pub(crate) fn marker(&self) -> Option<&str> {
        self.marker.as_deref()
    }

    fn put(&mut self, partition: i32, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.pass(partition, offset);
        self.count += 1;
        if self.count > ARRIVED_MAX {
            return;
        }
        let said = match read_input(value) {
            Ok(Input::Reply(reply)) => Said::Reply(Box::new(Answered {
                instance: reply.instance,
                subject: reply.address.subject.clone(),
                birth: reply.address.birth,
                step: reply.address.step.into_owned(),
                branch: reply.address.branch.into_owned(),
                operation: reply.address.operation,
                attempt: reply.address.attempt,
                outcome: reply.outcome,
                reason: reply.reason.map(std::borrow::Cow::into_owned),
                replytoken: reply.replytoken.map(std::borrow::Cow::into_owned),
                data: reply.data.to_payload(),
            })),
            Ok(Input::Inquiry(inquiry)) => Said::Inquiry(owned(&inquiry)),
            Ok(other) => return self.stray(partition, offset, &format!("a sagamore.{}.v1", other.label())),
            Err(cause) => return self.stray(partition, offset, &cause.to_string()),
        };
        let subject = match &said {
            Said::Reply(reply) => reply.subject.to_string(),
            Said::Inquiry(inquiry) => inquiry.subject.to_string(),
        };
        let arrived = Arrived { partition, offset, key: key.map(<[u8]>::to_vec), said };
        self.by_subject.entry(subject).or_default().push(arrived);
    }

    fn stray(&mut self, partition: i32, offset: i64, cause: &str) {
        self.strays_count += 1;
        if self.strays.len() < STRAYS_TOLD {
            self.strays.push(format!("{partition}/{offset}: {cause}"));
        }
    }

    fn pass(&mut self, partition: i32, offset: i64) {
        let next = self.positions.entry(partition).or_insert(offset);
        if *next < offset && self.marker.is_none() {
            self.marker =
                Some(format!("a gap before offset {offset} of partition {partition}: a transaction marker"));
        }
        *next = offset + 1;
    }
}

fn owned(inquiry: &Inquiry<'_>) -> Inquiry<'static> {
    Inquiry {
        instance: inquiry.instance,
        subject: inquiry.subject.clone(),
        birth: inquiry.birth,
        step: inquiry.step.to_string().into(),
        branch: inquiry.branch.to_string().into(),
        participant: inquiry.participant.clone(),
    }
}

/// The reading thread, and those who wait for it.
pub(crate) struct Inbox {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<EndsAreNoErrors>>,
    topic: String,
    log: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    shelf: Mutex<Shelf>,
    changed: Condvar,
    ending: AtomicBool,
}

impl Shared {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// Reads from now on.
    pub(crate) fn open(
        clients: &ClientSettings,
        topic: String,
        partitions: i32,
        log: String,
    ) -> Result<Self, CheckError> {
        let kafka = |doing| move |cause| CheckError::Kafka { doing, cause };
        let consumer: BaseConsumer<EndsAreNoErrors> = clients
            .replay_consumer(Isolation::ReadUncommitted)
            .create_with_context(EndsAreNoErrors)
            .map_err(kafka("make a consumer"))?;
        let mut assignment = TopicPartitionList::new();
        let shared = Arc::new(Shared::default());
        for partition in 0..partitions {
            let (_, end) = consumer
                .fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)
                .map_err(kafka("find the end of the inbox"))?;
            assignment
                .add_partition_offset(&topic, partition, Offset::Offset(end))
                .map_err(kafka("read the inbox"))?;
            shared.shelf().positions.insert(partition, end);
        }
        consumer.assign(&assignment).map_err(kafka("read the inbox"))?;
        let consumer = Arc::new(consumer);
        let thread = thread::Builder::new()
            .name("kit-inbox".to_owned())
            .spawn({
                let (shared, consumer) = (Arc::clone(&shared), Arc::clone(&consumer));
                move || read(&shared, &consumer)
            })
            .map_err(|cause| CheckError::Process { doing: "start a thread".to_owned(), cause })?;
        Ok(Self { shared, consumer, topic, log, thread: Some(thread) })
    }

    /// Waits until `look` finds something, at most until then. `pulse` says from time to time whether there is still
    /// somebody to wait for.
    pub(crate) fn wait<T>(
        &self,
        until: Instant,
        pulse: impl Fn() -> Result<(), Stop>,
        mut look: impl FnMut(&Shelf) -> Option<T>,
    ) -> Result<Option<T>, Stop> {
        let mut records = self.shared.shelf();
        loop {
            if let Some(found) = look(&records) {
                return Ok(Some(found));
            }
            if records.count > ARRIVED_MAX {
                return Err(CheckError::Flooded { count: records.count, log: self.log.clone() }.into());
            }
            if let Some(failure) = &records.failure {
                let cause = rdkafka::error::KafkaError::Canceled;
                tracing::warn!(%failure, "the inbox cannot be read");
                return Err(CheckError::Kafka { doing: "read the inbox", cause }.into());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            drop(records);
            pulse()?;
            records = self.shared.shelf();
            let waited = self.shared.changed.wait_timeout(records, left.min(PULSE));
            records = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Looks at what has come so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Shelf) -> T) -> T {
        look(&self.shared.shelf())
    }

    /// Looks for a marker behind the last record of a partition, once everything has been read.
    pub(crate) fn look_behind_the_last(&self, until: Instant) -> Result<(), CheckError> {
        loop {
            let positions = self.shared.shelf().positions.clone();
            let mut behind = None;
            for (partition, position) in &positions {
                let (_, end) = self
                    .consumer
                    .fetch_watermarks(&self.topic, *partition, REQUEST_TIMEOUT)
                    .map_err(|cause| CheckError::Kafka { doing: "find the end of the inbox", cause })?;
                if end > *position {
                    behind = Some((*partition, *position, end));
                }
            }
            let Some((partition, position, end)) = behind else { return Ok(()) };
            if Instant::now() >= until {
                let mut records = self.shared.shelf();
                if records.positions.get(&partition) == Some(&position) && records.marker.is_none() {
                    records.marker = Some(format!(
                        "nothing to read from offset {position} to {end} of partition {partition}: transaction markers"
                    ));
                }
                return Ok(());
            }
            thread::sleep(PULSE);
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads the inbox has panicked");
        }
    }
}

fn read(shared: &Shared, consumer: &BaseConsumer<EndsAreNoErrors>) {
    while !shared.ending.load(Ordering::Acquire) {
        let Some(polled) = consumer.poll(PULSE) else { continue };
        let mut shelf = shared.shelf();
        match polled {
            Ok(message) => put(&mut shelf, &message),
            // Brokers that are away are asked again by the client; whoever waits has a deadline.
            Err(cause) if is_fatal(&cause) => shelf.failure = Some(cause.to_string()),
            Err(cause) => tracing::debug!(%cause, "reading the inbox"),
        }
        shared.changed.notify_all();
    }
}

fn put(shelf: &mut Shelf, message: &BorrowedMessage<'_>) {
    shelf.put(message.partition(), message.offset(), message.key(), message.payload());
}

fn is_fatal(cause: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        cause.rdkafka_error_code(),
        Some(
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::TopicAuthorizationFailed | Code::Fatal
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"t","birth":"0-1",
        "step":"s","branch":"b","operation":"execute","attempt":1,"instance":"00000000-0000-0000-0000-000000000000",
        "outcome":"ok","data":{"a": 1}}"#;

    fn shelf(records: &[(i64, &str)]) -> Shelf {
        let mut shelf = Shelf::default();
        for (offset, value) in records {
            shelf.put(0, *offset, Some(b"t"), Some(value.as_bytes()));
        }
        shelf
    }

    #[test]
    fn replies_are_kept_by_transaction_and_the_rest_is_told() {
        let shelf = shelf(&[(0, REPLY), (1, "garbage"), (2, &REPLY.replace("\"t\"", "\"u\""))]);
        assert_eq!(shelf.of(&"t".parse().unwrap()).len(), 1);
        let strays = shelf.strays(&BTreeSet::from(["t".to_owned()])).unwrap();
        assert!(strays.starts_with("2 such: 0/1: not a CloudEvents document"), "{strays}");
        assert!(strays.contains("about \"u\""), "{strays}");
        assert!(shelf.strays(&BTreeSet::new()).is_some_and(|strays| strays.starts_with("3 such")));
    }

    #[test]
    fn a_gap_is_a_marker() {
        assert_eq!(shelf(&[(0, REPLY), (1, REPLY)]).marker(), None);
        assert!(shelf(&[(0, REPLY), (2, REPLY)]).marker().unwrap().contains("before offset 2"));
    }

    #[test]
    fn so_many_records_are_kept_and_no_more() {
        let mut shelf = Shelf::default();
        for offset in 0..=i64::try_from(ARRIVED_MAX).unwrap() {
            shelf.put(0, offset, None, Some(REPLY.as_bytes()));
        }
        assert_eq!((shelf.count, shelf.of(&"t".parse().unwrap()).len()), (ARRIVED_MAX + 1, ARRIVED_MAX));
    }

    #[test]
    fn answers_are_compared_as_values() {
        let answered = |data: &str, reason: Option<&str>| Answered {
            instance: Uuid::nil(),
            subject: "t".parse().unwrap(),
            birth: "0-1".parse().unwrap(),
            step: "s".into(),
            branch: "b".into(),
            operation: Operation::Execute,
            attempt: 1,
            outcome: Answer::Ok,
            reason: reason.map(str::to_owned),
            replytoken: None,
            data: Payload::from_json(data.to_owned()).unwrap(),
        };
        let one = answered(r#"{"a": 1, "b": 2}"#, None);
        assert!(one.says_the_same_as(&answered(r#"{"b":2,"a":1}"#, None)));
        assert!(!one.says_the_same_as(&answered(r#"{"b":2,"a":2}"#, None)));
        assert!(!one.says_the_same_as(&answered(r#"{"a": 1, "b": 2}"#, Some("why"))));
        assert_eq!(one.told(), r#"ok {"a": 1, "b": 2}"#);
    }
}

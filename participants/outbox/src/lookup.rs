//! Whether starts that were handed over long ago stand in the inbox: the log knows what nobody remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, EndsAreNoErrors, Isolation};
use sagamore_schemas::ids::{Time, TransactionId};
use sagamore_schemas::topics::{Prefix, Topic};
use sagamore_schemas::wire::{Input, read_input};

/// How far the clocks of database and brokers may be apart, in ms.
const SKEW_MS: i64 = 5 * 60_000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker may be silent while records are to come.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often the database hears that we are there.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// A start that may have been sent.
pub(crate) struct Sought {
    pub(crate) seq: i64,
    /// Its home.
    pub(crate) partition: i32,
    pub(crate) id: TransactionId,
    /// As it was stamped: another start of that id is another one.
    pub(crate) time: Time,
    /// When it was first handed over, by the clock of the database.
    pub(crate) since: Time,
}

/// Those that are there. `is_alive` is called now and then, and ends the search by `false`.
pub(crate) fn find(
    clients: &ClientSettings,
    prefix: &Prefix,
    sought: &[Sought],
    mut is_alive: impl FnMut() -> bool,
) -> KafkaResult<BTreeSet<i64>> {
    let inbox = Topic::Inbox.name(prefix);
    let consumer: BaseConsumer<EndsAreNoErrors> =
        clients.replay_consumer(Isolation::ReadUncommitted).create_with_context(EndsAreNoErrors)?;
    let mut since: BTreeMap<i32, i64> = BTreeMap::new();
    let mut wanted: HashMap<(&str, Time), i64> = HashMap::new();
    for one in sought {
        let from = one.since.epoch_ms() - SKEW_MS;
        since.entry(one.partition).and_modify(|least| *least = from.min(*least)).or_insert(from);
        wanted.insert((one.id.as_str(), one.time), one.seq);
    }
    let mut times = TopicPartitionList::new();
    for (partition, from) in &since {
        times.add_partition_offset(&inbox, *partition, Offset::Offset(*from))?;
    }
    let begins = consumer.offsets_for_times(times, REQUEST_TIMEOUT)?;
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    let mut places = TopicPartitionList::new();
    for begin in begins.elements() {
        begin.error()?;
        // Nothing so late: nothing there.
        let Offset::Offset(from) = begin.offset() else { continue };
        let (_, end) = consumer.fetch_watermarks(&inbox, begin.partition(), REQUEST_TIMEOUT)?;
        if from < end {
            ends.insert(begin.partition(), end);
            places.add_partition_offset(&inbox, begin.partition(), Offset::Offset(from))?;
        }
    }
    consumer.assign(&places)?;
    let mut found = BTreeSet::new();
    let (mut heard, mut told) = (Instant::now(), Instant::now());
    while !ends.is_empty() {
        if told.elapsed() >= ALIVE_EVERY {
            told = Instant::now();
            if !is_alive() {
                break;
            }
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            if heard.elapsed() > SILENCE_MAX {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
            }
            continue;
        };
        let message = message?;
        heard = Instant::now();
        let (partition, offset) = (message.partition(), message.offset());
        if ends.get(&partition).is_some_and(|end| offset < *end)
            && let Ok(Input::Start(start)) = read_input(message.payload())
            && let Some(seq) = wanted.get(&(start.subject.as_str(), start.time))
        {
            found.insert(*seq);
        }
        if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            ends.remove(&partition);
        }
    }
    Ok(found)
}

//! Rows of the outbox on their way to Kafka, in their order, one bounded batch at a time.
//!
//! ```text
//!   rows ──route──▶ refused: moved aside with the cause
//!     └──▶ starts stamped (committed) ──▶ sent ──▶ all acknowledged or failed ──▶ acknowledged ones deleted
//! ```
//! A relay that dies in between sends its batch again: repeats, harmless by their ids. What fails stays, and with it what
//! follows of the same aggregate, so that the last repetition of an aggregate's rows is in order.
//!
//! **A start is stamped** when it is first handed over, because coordinators refuse the `time` of a start that is older than
//! they remember: an outbox may stand still for days. The stamp is committed before the record leaves. Whether a start that
//! was handed over long ago has arrived, nobody knows: it is looked for in the inbox ([`crate::lookup`]), and stamped anew
//! only when it is not there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use sagamore_kafka::client::ClientSettings;
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{CONTENT_TYPE, Input, read_input};
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::counters::Counters;
use crate::lookup::{self, Sought};
use crate::route::{Handed, INBOX, Map, Route, Row};
use crate::schema::{Schema, VALUE_BYTES_MAX};

/// Rows of a batch.
const BATCH_ROWS_MAX: i64 = 1_000;
/// Bytes of a batch, give or take one row.
const BATCH_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// How long Kafka has to take a record; then it is tried again with the next batch.
const DELIVERY_TIMEOUT_MS: u32 = 30_000;
/// A start that was first handed over longer ago is looked for before it is sent again. With the above, no start arrives
/// later than 150 s after its `time`: coordinators must remember for longer than that.
const RESENDS_WITHIN_MS: i64 = 120_000;
/// How long a broker may take to say whether a topic is there.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it is believed.
const TOPIC_KNOWN_FOR: Duration = Duration::from_secs(30);

/// The way out.
pub(crate) struct Handover {
    statements: Statements,
    clients: ClientSettings,
    map: Map,
    producer: ThreadedProducer<Deliveries>,
    deliveries: mpsc::Receiver<Delivered>,
    flight: Option<Flight>,
    topics: HashMap<String, (IsThere, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IsThere {
    Yes,
    No,
}

/// A batch under way.
struct Flight {
    /// Rows without an answer, and what they belong to.
    waiting: BTreeMap<i64, (String, String)>,
    acknowledged: Vec<(i64, (String, String))>,
    /// Rows to be tried again.
    failed: BTreeMap<(String, String), i64>,
    refused: Vec<(i64, String)>,
}

struct Delivered {
    seq: i64,
    failure: Option<KafkaError>,
}

impl Handover {
    pub(crate) fn new(clients: &ClientSettings, schema: &Schema, map: Map) -> KafkaResult<Self> {
        let (producer, deliveries) = producer(clients)?;
        Ok(Self {
            statements: Statements::new(schema),
            clients: clients.clone(),
            map,
            producer,
            deliveries,
            flight: None,
            topics: HashMap::new(),
        })
    }

    /// Whether a batch is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.flight.is_some()
    }

    /// Hears what Kafka says, waiting so long for it.
    pub(crate) fn hear(&mut self, patience: Duration) {
        let Some(flight) = &mut self.flight else { return };
        let mut next = self.deliveries.recv_timeout(patience).ok();
        while let Some(delivered) = next {
            flight.on_delivered(delivered);
            next = self.deliveries.try_recv().ok();
        }
    }

    /// Ends the batch that is through, or takes the next one. Whether there was anything to do.
    pub(crate) fn turn(
        &mut self,
        connection: &mut Connection,
        counters: &mut Counters,
    ) -> Result<bool, SqlError> {
        self.hear(Duration::ZERO);
        self.rebuild_if_broken();
        if self.end(connection, counters)? {
            return Ok(true);
        }
        if self.is_waiting() { Ok(false) } else { self.take(connection, counters) }
    }

    /// Ends the batch if it is through. Whether it was.
    pub(crate) fn end(
        &mut self,
        connection: &mut Connection,
        counters: &mut Counters,
    ) -> Result<bool, SqlError> {
        match self.flight.take_if(|flight| flight.waiting.is_empty()) {
            Some(flight) => self.settle(connection, flight, counters).map(|()| true),
            None => Ok(false),
        }
    }

    fn take(&mut self, connection: &mut Connection, counters: &mut Counters) -> Result<bool, SqlError> {
        let rows = self.statements.fetch(connection)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut ready = Vec::with_capacity(rows.len());
        let mut refused = Vec::new();
        let mut is_dark = false;
        for row in rows {
            match self.map.route(&row) {
                Err(refusal) => refused.push((row.seq, refusal.to_string())),
                Ok(route) if is_dark && !self.topics.contains_key(&route.topic) => {}
                Ok(route) => match self.is_there(&route.topic) {
                    Ok(IsThere::Yes) => ready.push((row, route)),
                    Ok(IsThere::No) if row.aggregatetype == INBOX => {}
                    Ok(IsThere::No) => {
                        refused.push((row.seq, format!("there is no topic `{}`", route.topic)));
                    }
                    Err(failure) => {
                        debug!(topic = route.topic, %failure, "nobody says whether the topic is there");
                        is_dark = true;
                    }
                },
            }
        }
        let (found, unknown) = self.look_for_old_starts(connection, &ready)?;
        ready.retain(|(row, _)| !found.contains(&row.seq) && !unknown.contains(&row.seq));
        let is_old = |row: &Row| row.handed.is_some_and(|handed| handed.ago_ms > RESENDS_WITHIN_MS);
        let stamped: Vec<i64> = ready
            .iter()
            .filter(|(row, _)| row.stamps && (row.handed.is_none() || is_old(row)))
            .map(|(row, _)| row.seq)
            .collect();
        let mut texts = self.prepare(connection, &refused, &found, &stamped, counters)?;
        if ready.is_empty() {
            return Ok(!refused.is_empty() || !found.is_empty());
        }
        let mut flight = Flight {
            waiting: BTreeMap::new(),
            acknowledged: Vec::new(),
            failed: BTreeMap::new(),
            refused: Vec::new(),
        };
        for (mut row, route) in ready {
            if row.handed.is_some() {
                counters.resent += 1;
            }
            row.payload = texts.remove(&row.seq).or(row.payload);
            flight.waiting.insert(row.seq, (row.aggregatetype.clone(), row.aggregateid.clone()));
            if let Err(failure) = self.send(&row, &route) {
                flight.on_delivered(Delivered { seq: row.seq, failure: Some(failure) });
            }
        }
        self.flight = Some(flight);
        Ok(true)
    }

    /// What must be true before the batch leaves, in one transaction. Returns the payloads that were stamped.
    fn prepare(
        &self,
        connection: &mut Connection,
        refused: &[(i64, String)],
        found: &BTreeSet<i64>,
        stamped: &[i64],
        counters: &mut Counters,
    ) -> Result<HashMap<i64, String>, SqlError> {
        if refused.is_empty() && found.is_empty() && stamped.is_empty() {
            return Ok(HashMap::new());
        }
        connection.batch("BEGIN")?;
        self.statements.refuse(connection, refused)?;
        self.statements.delete(connection, &found.iter().copied().collect::<Vec<_>>())?;
        let texts = self.statements.stamp(connection, stamped)?;
        connection.batch("COMMIT")?;
        counters.refused += refused.len() as u64;
        counters.found += found.len() as u64;
        Ok(texts)
    }

    /// Starts that somebody may have sent long ago: those that are in the inbox, and those of which it could not be seen.
    fn look_for_old_starts(
        &self,
        connection: &mut Connection,
        ready: &[(Row, Route)],
    ) -> Result<(BTreeSet<i64>, BTreeSet<i64>), SqlError> {
        let mut sought = Vec::new();
        for (row, route) in ready.iter().filter(|(row, _)| row.stamps) {
            let Some(Handed { at, .. }) = row.handed.filter(|handed| handed.ago_ms > RESENDS_WITHIN_MS)
            else {
                continue;
            };
            let Ok(Input::Start(start)) = read_input(row.payload.as_deref().map(str::as_bytes)) else {
                continue;
            };
            let partition = route.partition.map_or(0, |partition| partition.0);
            sought.push(Sought { seq: row.seq, partition, id: start.subject, time: start.time, since: at });
        }
        if sought.is_empty() {
            return Ok((BTreeSet::new(), BTreeSet::new()));
        }
        let all = sought.iter().map(|sought| sought.seq).collect();
        let mut lost = Ok(());
        let found = lookup::find(&self.clients, &self.map.prefix, &sought, || {
            lost = connection.batch("");
            lost.is_ok()
        });
        lost?;
        Ok(match found {
            Ok(found) => (found, BTreeSet::new()),
            Err(failure) => {
                warn!(starts = sought.len(), %failure, "the inbox cannot be searched for starts of long ago; again later");
                (BTreeSet::new(), all)
            }
        })
    }

    fn settle(
        &self,
        connection: &mut Connection,
        flight: Flight,
        counters: &mut Counters,
    ) -> Result<(), SqlError> {
        let Flight { acknowledged, failed, refused, .. } = flight;
        let is_behind_a_failure = |(seq, aggregate): &(i64, (String, String))| {
            failed.get(aggregate).is_some_and(|failed| failed < seq)
        };
        let done: Vec<i64> =
            acknowledged.iter().filter(|row| !is_behind_a_failure(row)).map(|(seq, _)| *seq).collect();
        counters.resent += (acknowledged.len() - done.len() + failed.len()) as u64;
        if refused.is_empty() {
            self.statements.delete(connection, &done)?;
        } else {
            connection.batch("BEGIN")?;
            self.statements.delete(connection, &done)?;
            self.statements.refuse(connection, &refused)?;
            connection.batch("COMMIT")?;
        }
        counters.sent += done.len() as u64;
        counters.refused += refused.len() as u64;
        Ok(())
    }

    fn send(&self, row: &Row, Route { topic, partition }: &Route) -> KafkaResult<()> {
        let id = row.id.to_string();
        let header = if row.aggregatetype == INBOX {
            Header { key: CONTENT_TYPE.0, value: Some(CONTENT_TYPE.1) }
        } else {
            Header { key: "id", value: Some(id.as_str()) }
        };
        let opaque = usize::try_from(row.seq).unwrap_or(usize::MAX);
        let mut record: BaseRecord<'_, str, str, usize> = BaseRecord::with_opaque_to(topic, opaque)
            .key(row.aggregateid.as_str())
            .headers(OwnedHeaders::new_with_capacity(1).insert(header));
        if let Some(payload) = &row.payload {
            record = record.payload(payload);
        }
        if let Some(partition) = partition {
            record = record.partition(partition.0);
        }
        self.producer.send(record).map_err(|(failure, _)| failure)
    }

    fn is_there(&mut self, topic: &str) -> KafkaResult<IsThere> {
        if let Some((is_there, since)) = self.topics.get(topic)
            && since.elapsed() < TOPIC_KNOWN_FOR
        {
            return Ok(*is_there);
        }
        let metadata = self.producer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let is_there = match found {
            Some(found) if !found.partitions().is_empty() => IsThere::Yes,
            _ => IsThere::No,
        };
        self.topics.insert(topic.to_owned(), (is_there, Instant::now()));
        Ok(is_there)
    }

    fn rebuild_if_broken(&mut self) {
        let Some((code, reason)) = self.producer.client().fatal_error() else { return };
        warn!(%code, reason, "the producer is broken for good and is replaced");
        match producer(&self.clients) {
            Ok((producer, deliveries)) => {
                (self.producer, self.deliveries) = (producer, deliveries);
                if let Some(flight) = &mut self.flight {
                    for (seq, aggregate) in std::mem::take(&mut flight.waiting) {
                        flight.failed.entry(aggregate).or_insert(seq);
                    }
                }
            }
            Err(failure) => error!(%failure, "no new producer; tried again"),
        }
    }
}

impl Flight {
    fn on_delivered(&mut self, Delivered { seq, failure }: Delivered) {
        let Some(aggregate) = self.waiting.remove(&seq) else { return };
        match failure {
            None => self.acknowledged.push((seq, aggregate)),
            Some(failure) if is_permanent(&failure) => {
                error!(seq, topic = aggregate.0, %failure, "a row of the outbox can never leave");
                self.refused.push((seq, failure.to_string()));
            }
            Some(failure) => {
                debug!(seq, %failure, "a row of the outbox has not left; again with the next batch");
                let first = self.failed.entry(aggregate).or_insert(seq);
                *first = seq.min(*first);
            }
        }
    }
}

/// What the same record will never be taken with.
fn is_permanent(failure: &KafkaError) -> bool {
    matches!(
        failure.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::PolicyViolation
                | RDKafkaErrorCode::TopicAuthorizationFailed
        )
    )
}

fn producer(
    clients: &ClientSettings,
) -> KafkaResult<(ThreadedProducer<Deliveries>, mpsc::Receiver<Delivered>)> {
    // Bounded by the rows of a batch.
    let (sender, receiver) = mpsc::channel();
    let mut config = clients.client_producer("sagamore-outbox");
    config.set("message.timeout.ms", DELIVERY_TIMEOUT_MS.to_string());
    Ok((config.create_with_context(Deliveries(sender))?, receiver))
}

/// Called on the producer's own thread.
struct Deliveries(mpsc::Sender<Delivered>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, "{message}");
    }

    fn error(&self, failure: KafkaError, reason: &str) {
        debug!(%failure, reason, "the producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let failure = result.as_ref().err().map(|(failure, _)| failure.clone());
        let delivered = Delivered { seq: i64::try_from(opaque).unwrap_or(i64::MAX), failure };
        // Nobody listens any more: the rows stay where they are.
        let _ = self.0.send(delivered);
    }
}

struct Statements {
    fetch: String,
    refuse: String,
    delete: String,
    stamp: String,
}

impl Statements {
    fn new(s: &Schema) -> Self {
        Self {
            // Texts that are too large stay where they are.
            fetch: format!(
                "SELECT seq, id, aggregatetype, aggregateid, type, CASE WHEN bytes <= {VALUE_BYTES_MAX} THEN text END,
                     bytes, stamps, (extract(epoch FROM handed_at) * 1000)::bigint,
                     (extract(epoch FROM now() - handed_at) * 1000)::bigint
                 FROM (
                     SELECT *, sum(least(bytes, {VALUE_BYTES_MAX})) OVER (ORDER BY seq) - bytes AS before FROM (
                         SELECT *, coalesce(octet_length(text), 0)::bigint AS bytes FROM (
                             SELECT seq, id, aggregatetype, aggregateid, type, payload::text AS text, stamps, handed_at
                             FROM {s}.outbox ORDER BY seq LIMIT {BATCH_ROWS_MAX} OFFSET 0
                         ) t OFFSET 0
                     ) b
                 ) r WHERE before < {BATCH_BYTES_MAX} ORDER BY seq"
            ),
            refuse: format!(
                "WITH gone AS (
                     DELETE FROM {s}.outbox o USING unnest($1::bigint[], $2::text[]) AS k (seq, cause)
                     WHERE o.seq = k.seq RETURNING o.*, k.cause
                 )
                 INSERT INTO {s}.outbox_refused (id, aggregatetype, aggregateid, type, payload, seq, stamps, cause)
                 SELECT id, aggregatetype, aggregateid, type, payload, seq, stamps, cause FROM gone"
            ),
            delete: format!("DELETE FROM {s}.outbox WHERE seq = ANY ($1::bigint[])"),
            stamp: format!(
                "UPDATE {s}.outbox SET handed_at = now(),
                     payload = jsonb_set(payload, '{{time}}', to_jsonb({s}.wire_time(now())))
                 WHERE seq = ANY ($1::bigint[]) RETURNING seq, payload::text"
            ),
        }
    }

    fn fetch(&self, connection: &mut Connection) -> Result<Vec<Row>, SqlError> {
        let statement = connection.statement(&self.fetch)?;
        let found = connection.wait(async |client| client.query(&statement, &[]).await)?;
        let rows = found.iter().map(|row| Row {
            seq: row.get(0),
            id: row.get::<_, Uuid>(1),
            aggregatetype: row.get(2),
            aggregateid: row.get(3),
            kind: row.get(4),
            payload: row.get(5),
            bytes: row.get(6),
            stamps: row.get(7),
            handed: row
                .get::<_, Option<i64>>(8)
                .zip(row.get::<_, Option<i64>>(9))
                .map(|(at, ago_ms)| Handed { at: Time::from_epoch_ms(at), ago_ms }),
        });
        Ok(rows.collect())
    }

    fn refuse(&self, connection: &mut Connection, refused: &[(i64, String)]) -> Result<(), SqlError> {
        if refused.is_empty() {
            return Ok(());
        }
        for (seq, cause) in refused {
            error!(seq, cause, "a row of the outbox can never leave; it is in outbox_refused");
        }
        let seqs: Vec<i64> = refused.iter().map(|(seq, _)| *seq).collect();
        // The text of a cause may quote what was wrong, and a database takes no zero bytes.
        let causes: Vec<String> = refused.iter().map(|(_, cause)| cause.replace('\0', "\u{fffd}")).collect();
        let statement = connection.statement(&self.refuse)?;
        connection.wait(async |client| client.execute(&statement, &[&seqs, &causes]).await)?;
        Ok(())
    }

    fn delete(&self, connection: &mut Connection, seqs: &[i64]) -> Result<(), SqlError> {
        if seqs.is_empty() {
            return Ok(());
        }
        let statement = connection.statement(&self.delete)?;
        connection.wait(async |client| client.execute(&statement, &[&seqs]).await)?;
        Ok(())
    }

    fn stamp(&self, connection: &mut Connection, seqs: &[i64]) -> Result<HashMap<i64, String>, SqlError> {
        if seqs.is_empty() {
            return Ok(HashMap::new());
        }
        let statement = connection.statement(&self.stamp)?;
        let found = connection.wait(async |client| client.query(&statement, &[&seqs]).await)?;
        Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

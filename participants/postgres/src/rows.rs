//! Rows of the barrier as rows of PostgreSQL: the statements, and what they bring.

use std::collections::HashMap;

use sagamore_participant::barrier::{Branch, BranchKey, Home, Row, Stored};
use sagamore_participant::store::StoreFault;
use sagamore_participant::{Operation, Payload};
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::wire::PayloadRef;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::tx::Tx;

pub(crate) const DONE: &str = "done";
const REFUSED: &str = "refused";
const CANCELLED: &str = "cancelled";
const BY_HAND: &str = "by-hand";

/// The statements of a store, with its schema in them.
pub(crate) struct Statements {
    pub(crate) fetch: String,
    pub(crate) insert: String,
    /// The same, and it fails when the row is there.
    pub(crate) insert_or_fail: String,
    /// Holds the rows that are there, so that nobody purges them meanwhile; says how many.
    pub(crate) hold: String,
    pub(crate) keep_vote: String,
    pub(crate) delete_vote: String,
    pub(crate) vote: String,
    pub(crate) horizon: String,
    pub(crate) raise_horizon: String,
    pub(crate) portion: String,
    pub(crate) purge: String,
    pub(crate) in_doubt: String,
    pub(crate) prepared: String,
    pub(crate) intend: String,
    pub(crate) forget: String,
    pub(crate) forget_old: String,
    pub(crate) held: crate::held::Texts,
    pub(crate) heuristics: crate::heuristics::Texts,
    pub(crate) positions: crate::positions::Texts,
}

/// Six columns, by their names or by the numbers of parameters.
const KEY: &str = "instance = $1 AND home = $2 AND birth = $3 AND subject = $4 AND step = $5 AND branch = $6";
/// Whose gid is on the server, in this database.
const IS_PREPARED: &str =
    "EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.gid = x.gid AND p.database = current_database())";

impl Statements {
    pub(crate) fn new(schema: &str) -> Self {
        let s = crate::schema::quoted(schema);
        let insert = format!(
            "INSERT INTO {s}.sagamore_barrier (instance, home, birth, subject, step, branch, operation, issued_ms,
                 answer, reason, data, data_base64)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        );
        Self {
            // One snapshot for rows and horizons: a row that is not there was purged behind this horizon, or never was.
            // `OFFSET 0` keeps the planner from joining whole tables.
            fetch: format!(
                "SELECT k.n, h.horizon_ms, b.operation, b.issued_ms, b.answer, b.reason, b.data, b.data_base64
                 FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[])
                      WITH ORDINALITY AS k (instance, home, birth, subject, step, branch, n)
                 LEFT JOIN LATERAL (
                     SELECT horizon_ms FROM {s}.sagamore_horizon o
                     WHERE o.instance = k.instance AND o.home = k.home OFFSET 0) h ON true
                 LEFT JOIN LATERAL (
                     SELECT operation, issued_ms, answer, reason, data, data_base64 FROM {s}.sagamore_barrier r
                     WHERE r.instance = k.instance AND r.home = k.home AND r.birth = k.birth
                       AND r.subject = k.subject AND r.step = k.step AND r.branch = k.branch OFFSET 0) b ON true"
            ),
            insert: format!("{insert} ON CONFLICT DO NOTHING"),
            insert_or_fail: insert,
            hold: format!("SELECT 1 FROM {s}.sagamore_barrier WHERE {KEY} FOR KEY SHARE"),
            keep_vote: format!(
                "INSERT INTO {s}.sagamore_vote (instance, home, birth, subject, step, branch, command)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (instance, home, birth, subject, step, branch) DO UPDATE SET command = excluded.command"
            ),
            delete_vote: format!("DELETE FROM {s}.sagamore_vote WHERE {KEY}"),
            vote: format!("SELECT command FROM {s}.sagamore_vote WHERE {KEY}"),
            horizon: format!(
                "SELECT horizon_ms FROM {s}.sagamore_horizon WHERE instance = $1 AND home = $2"
            ),
            // Nothing, when somebody else is at it.
            raise_horizon: format!(
                "INSERT INTO {s}.sagamore_horizon AS o (instance, home, horizon_ms)
                 SELECT $1::uuid, $2::int, $3::bigint WHERE pg_try_advisory_xact_lock($4)
                 ON CONFLICT (instance, home) DO UPDATE SET horizon_ms = greatest(o.horizon_ms, excluded.horizon_ms)"
            ),
            portion: format!(
                "SELECT birth, subject, step, branch, operation, issued_ms, answer FROM {s}.sagamore_barrier
                 WHERE instance = $1 AND home = $2 AND (birth, subject, step, branch) > ($3, $4, $5, $6)
                 ORDER BY birth, subject, step, branch LIMIT $7 FOR UPDATE SKIP LOCKED"
            ),
            // By the rows' places, which stay while they are locked: joined by their keys, the planner may read the whole
            // table for it as long as it has no statistics.
            purge: format!(
                "DELETE FROM {s}.sagamore_barrier WHERE ctid = ANY (ARRAY(
                     SELECT r.ctid FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[])
                         AS k (birth, subject, step, branch),
                     LATERAL (
                         SELECT b.ctid, max(b.issued_ms) OVER () AS last_ms FROM {s}.sagamore_barrier b
                         WHERE b.instance = $1 AND b.home = $2 AND b.birth = k.birth AND b.subject = k.subject
                           AND b.step = k.step AND b.branch = k.branch OFFSET 0) r
                     WHERE r.last_ms < $7))"
            ),
            in_doubt: format!(
                "SELECT instance, home, birth, subject, step, branch, command FROM (
                     SELECT instance, home, birth, subject, step, branch, command FROM {s}.sagamore_vote
                     UNION ALL
                     SELECT instance, home, birth, subject, step, branch, command FROM {s}.sagamore_xa x
                     WHERE {IS_PREPARED}
                 ) v
                 WHERE (instance, home, birth, subject, step, branch) > ($1, $2, $3, $4, $5, $6)
                 ORDER BY instance, home, birth, subject, step, branch LIMIT $7"
            ),
            prepared: format!(
                "SELECT gid, issued_ms, command, data, data_base64 FROM {s}.sagamore_xa x
                 WHERE {KEY} AND {IS_PREPARED}"
            ),
            intend: format!(
                "INSERT INTO {s}.sagamore_xa (instance, home, birth, subject, step, branch, gid, issued_ms, command,
                     data, data_base64)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 ON CONFLICT (instance, home, birth, subject, step, branch) DO UPDATE
                 SET gid = excluded.gid, issued_ms = excluded.issued_ms, command = excluded.command,
                     data = excluded.data, data_base64 = excluded.data_base64, written_at = now()"
            ),
            forget: format!("DELETE FROM {s}.sagamore_xa WHERE {KEY}"),
            forget_old: format!(
                "DELETE FROM {s}.sagamore_xa x
                 WHERE instance = $1 AND home = $2 AND issued_ms < $3 AND written_at < now() - interval '1 hour'
                   AND NOT {IS_PREPARED}"
            ),
            held: crate::held::Texts::new(&s, IS_PREPARED),
            heuristics: crate::heuristics::Texts::new(&s, KEY),
            positions: crate::positions::Texts::new(&s),
        }
    }
}

/// A branch as parameters 1 to 6.
pub(crate) struct Key<'a> {
    instance: Uuid,
    home: i32,
    birth: i64,
    subject: &'a str,
    step: &'a str,
    branch: &'a str,
}

impl<'a> Key<'a> {
    pub(crate) fn of(key: &BranchKey<'a>) -> Self {
        let BranchKey { instance, subject, birth, step, branch } = *key;
        Self {
            instance,
            home: birth.partition.0,
            birth: birth.offset,
            subject: subject.as_str(),
            step,
            branch,
        }
    }

    pub(crate) fn parameters(&self) -> [&(dyn ToSql + Sync); 6] {
        [&self.instance, &self.home, &self.birth, &self.subject, &self.step, &self.branch]
    }

    /// These, and more.
    pub(crate) fn and<'p>(&'p self, more: &[&'p (dyn ToSql + Sync)]) -> Vec<&'p (dyn ToSql + Sync)> {
        self.parameters().into_iter().chain(more.iter().copied()).collect()
    }
}

/// What is remembered of some branches, and the horizons of their homes.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) rows: HashMap<Branch, Vec<Row>>,
    pub(crate) horizons: HashMap<Home, Time>,
}

pub(crate) fn fetch(
    tx: &mut Tx<'_>,
    statements: &Statements,
    keys: &[BranchKey<'_>],
) -> Result<Fetched, StoreFault> {
    let column = |part: fn(&BranchKey<'_>) -> String| keys.iter().map(part).collect::<Vec<_>>();
    let instances: Vec<Uuid> = keys.iter().map(|key| key.instance).collect();
    let homes: Vec<i32> = keys.iter().map(|key| key.birth.partition.0).collect();
    let births: Vec<i64> = keys.iter().map(|key| key.birth.offset).collect();
    let subjects = column(|key| key.subject.to_string());
    let steps = column(|key| key.step.to_owned());
    let branches = column(|key| key.branch.to_owned());
    let parameters: [&(dyn ToSql + Sync); 6] = [&instances, &homes, &births, &subjects, &steps, &branches];
    let found = tx.look(&statements.fetch, &parameters).map_err(|error| error.fault())?;
    let mut fetched = Fetched::default();
    for key in keys {
        fetched.rows.insert(Branch::from(key), Vec::new());
    }
    for row in found {
        let number: i64 = row.get(0);
        let key = usize::try_from(number - 1).ok().and_then(|number| keys.get(number));
        let Some(key) = key else { continue };
        let horizon = row.get::<_, Option<i64>>(1).map(Time::from_epoch_ms).unwrap_or_default();
        fetched.horizons.insert(key.home(), horizon);
        if let Some(name) = row.get::<_, Option<&str>>(2) {
            let kept = Row {
                operation: operation(name)?,
                issued: Time::from_epoch_ms(row.get(3)),
                answer: stored(row.get(4), row.get(5), row.get(6), row.get(7))?,
            };
            fetched.rows.entry(Branch::from(key)).or_default().push(kept);
        }
    }
    Ok(fetched)
}

pub(crate) fn operation(name: &str) -> Result<Operation, StoreFault> {
    Operation::ALL
        .into_iter()
        .find(|known| known.as_str() == name)
        .ok_or_else(|| StoreFault::Unavailable(format!("no such operation: {name}")))
}

fn stored(
    answer: &str,
    reason: Option<&[u8]>,
    data: Option<&[u8]>,
    data_base64: Option<&[u8]>,
) -> Result<Stored, StoreFault> {
    Ok(match answer {
        DONE => Stored::Done(payload(data, data_base64)?),
        REFUSED => Stored::Refused(text(reason.unwrap_or_default())?.into()),
        CANCELLED => Stored::Cancelled,
        BY_HAND => Stored::ByHand,
        other => return Err(StoreFault::Unavailable(format!("no such answer: {other}"))),
    })
}

pub(crate) fn payload(data: Option<&[u8]>, data_base64: Option<&[u8]>) -> Result<Payload, StoreFault> {
    Ok(match (data, data_base64) {
        (Some(json), _) => Payload::from_json(text(json)?)
            .map_err(|error| StoreFault::Unavailable(format!("a stored result: {error}")))?,
        (None, Some(base64)) => Payload::Base64(text(base64)?.into()),
        (None, None) => Payload::Absent,
    })
}

fn text(bytes: &[u8]) -> Result<String, StoreFault> {
    String::from_utf8(bytes.to_vec())
        .map_err(|error| StoreFault::Unavailable(format!("a stored text: {error}")))
}

/// As it stands in a row: JSON, or base 64.
pub(crate) fn columns<'p>(payload: &'p PayloadRef<'_>) -> (Option<&'p [u8]>, Option<&'p [u8]>) {
    match payload {
        PayloadRef::Json(raw) => (Some(raw.get().as_bytes()), None),
        PayloadRef::Base64(text) => (None, Some(text.as_bytes())),
        PayloadRef::Absent => (None, None),
    }
}

/// Adds a row; with it goes, in one round trip, what `more` says. Whether it was the first, and what came of the others.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    statements: &Statements,
    key: &Key<'_>,
    row: &Row,
    more: &[(&str, &[&(dyn ToSql + Sync)])],
) -> Result<Vec<u64>, crate::SqlError> {
    let (answer, reason, data) = answer_columns(&row.answer);
    let (data, data_base64) = columns(&data);
    let (operation, issued_ms) = (row.operation.as_str(), row.issued.epoch_ms());
    let of_row: [&(dyn ToSql + Sync); 6] = [&operation, &issued_ms, &answer, &reason, &data, &data_base64];
    let parameters = key.and(&of_row);
    let mut all: Vec<(&str, &[&(dyn ToSql + Sync)])> = vec![(&statements.insert, &parameters)];
    all.extend_from_slice(more);
    tx.change_all(&all)
}

/// Adds a row that is alone in its branch, together with whatever is sent next; if it is not the first, all fails.
pub(crate) fn defer(
    tx: &mut Tx<'_>,
    statements: &Statements,
    key: &BranchKey<'_>,
    row: &Row,
) -> Result<(), crate::SqlError> {
    let (answer, reason, data) = answer_columns(&row.answer);
    let (data, data_base64) = columns(&data);
    let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
    tx.defer(
        &statements.insert_or_fail,
        vec![
            Box::new(key.instance),
            Box::new(key.birth.partition.0),
            Box::new(key.birth.offset),
            Box::new(key.subject.to_string()),
            Box::new(key.step.to_owned()),
            Box::new(key.branch.to_owned()),
            Box::new(row.operation.as_str()),
            Box::new(row.issued.epoch_ms()),
            Box::new(answer),
            Box::new(bytes(reason)),
            Box::new(bytes(data)),
            Box::new(bytes(data_base64)),
        ],
    )
}

fn answer_columns(answer: &Stored) -> (&'static str, Option<&[u8]>, PayloadRef<'_>) {
    match answer {
        Stored::Done(result) => (DONE, None, result.as_ref()),
        Stored::Refused(reason) => (REFUSED, Some(reason.as_bytes()), PayloadRef::Absent),
        Stored::Cancelled => (CANCELLED, None, PayloadRef::Absent),
        Stored::ByHand => (BY_HAND, None, PayloadRef::Absent),
    }
}

/// Of a home.
pub(crate) fn home(home: Home) -> (Uuid, i32) {
    let Home { instance, partition: Partition(partition) } = home;
    (instance, partition)
}

/// Of a home alone.
pub(crate) fn horizon(tx: &mut Tx<'_>, statements: &Statements, of: Home) -> Result<Time, StoreFault> {
    let (instance, partition) = home(of);
    let found = tx.look(&statements.horizon, &[&instance, &partition]).map_err(|error| error.fault())?;
    Ok(found.first().map(|row| Time::from_epoch_ms(row.get(0))).unwrap_or_default())
}

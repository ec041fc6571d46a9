//! What stands in the table of commands, and what is written to it, a batch at a time.

use std::collections::HashMap;

use sagamore_participant::barrier::{Branch, BranchKey, Home, Row, Stored};
use sagamore_participant::{Operation, Payload};
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::Time;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::schema::Schema;

pub(crate) const DONE: &str = "done";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const CANCELLED: &str = "cancelled";

/// What is known of a branch.
#[derive(Default)]
pub(crate) struct Known {
    /// Its answered operations.
    pub(crate) rows: Vec<Row>,
    /// Its open ones.
    pub(crate) open: Vec<Open>,
    /// Its vote, while that waits for a decision.
    pub(crate) vote: Option<Vote>,
}

#[derive(Clone, Copy)]
pub(crate) struct Open {
    pub(crate) operation: Operation,
    pub(crate) place: Place,
    /// An operator has decided it.
    pub(crate) is_by_hand: bool,
}

/// Where an open row is.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// In the table, under this number.
    Table(i64),
    /// Among the rows that this batch is about to insert.
    Batch(usize),
}

/// What `commit` and `abort` are made from.
pub(crate) struct Vote {
    pub(crate) issued: Time,
    pub(crate) data: Option<String>,
    pub(crate) data_base64: Option<String>,
}

/// A row to be inserted.
pub(crate) struct NewRow {
    pub(crate) key: Vec<u8>,
    pub(crate) branch: Branch,
    pub(crate) operation: Operation,
    pub(crate) attempt: Option<u32>,
    pub(crate) issued: Time,
    pub(crate) deadline: Option<Time>,
    pub(crate) definition: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) replytoken: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) data_base64: Option<String>,
    /// Open when `None`.
    pub(crate) answer: Option<&'static str>,
    pub(crate) reason: Option<String>,
    /// Which operator has decided it, why and when, as JSON.
    pub(crate) by_hand: Option<String>,
}

/// What became of an open row that somebody wants to cancel.
pub(crate) enum Fate {
    Cancelled,
    /// It was answered meanwhile.
    Answered(Stored),
    /// It was answered `error`, and is gone.
    Gone,
    /// A worker has it.
    Held,
}

/// What the horizons are, and whether they were raised here.
pub(crate) type Horizons = HashMap<Home, Horizon>;

#[derive(Clone, Copy, Default)]
pub(crate) struct Horizon {
    pub(crate) stored: Time,
    pub(crate) raised: Time,
}

pub(crate) struct Statements {
    fetch: String,
    insert: String,
    reply: String,
    cancel: String,
    look: String,
    adopt: String,
    raise: String,
    count_open: String,
}

impl Statements {
    pub(crate) fn new(s: &Schema) -> Self {
        Self {
            // One snapshot for rows and horizons: a row that is not there was purged behind this horizon, or never was.
            fetch: format!(
                "SELECT k.n, h.horizon_ms, c.number, c.operation, c.issued_ms, c.answer, c.reason, c.result::text,
                     c.in_doubt, CASE WHEN c.in_doubt THEN c.data::text END, CASE WHEN c.in_doubt THEN c.data_base64 END,
                     c.by_hand IS NOT NULL
                 FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[])
                      WITH ORDINALITY AS k (instance, home, birth, subject, step, branch, n)
                 LEFT JOIN LATERAL (
                     SELECT horizon_ms FROM {s}.horizon o
                     WHERE o.instance = k.instance AND o.home = k.home OFFSET 0) h ON true
                 LEFT JOIN LATERAL (
                     SELECT * FROM {s}.commands r
                     WHERE r.instance = k.instance AND r.home = k.home AND r.birth = k.birth
                       AND r.subject = k.subject AND r.step = k.step AND r.branch = k.branch OFFSET 0) c ON true"
            ),
            insert: format!(
                "INSERT INTO {s}.commands (participant, key, instance, home, birth, subject, step, branch, operation,
                     attempt, issued_ms, deadline, definition, traceparent, replytoken, data, data_base64, answer, reason,
                     by_hand)
                 SELECT $1, key, instance, home, birth, subject, step, branch, operation, attempt, issued_ms,
                     to_timestamp(deadline_ms / 1000.0), definition, traceparent, replytoken, data::jsonb, data_base64,
                     answer, reason, by_hand::jsonb
                 FROM unnest($2::bytea[], $3::uuid[], $4::int[], $5::bigint[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::text[],
                     $16::text[], $17::text[], $18::text[], $19::text[], $20::text[]) WITH ORDINALITY
                     AS k (key, instance, home, birth, subject, step, branch, operation, attempt, issued_ms, deadline_ms,
                         definition, traceparent, replytoken, data, data_base64, answer, reason, by_hand, n)
                 ORDER BY n"
            ),
            reply: format!(
                "INSERT INTO {s}.outbox (aggregatetype, aggregateid, type, payload)
                 SELECT 'inbox', subject, 'sagamore.reply.v1', payload::jsonb
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (subject, payload, n) ORDER BY n"
            ),
            // Whoever works on it holds it: then this is for later.
            cancel: format!(
                "UPDATE {s}.commands SET answer = '{CANCELLED}', data = NULL, data_base64 = NULL WHERE number = (
                     SELECT number FROM {s}.commands WHERE number = $1 AND answer IS NULL FOR UPDATE SKIP LOCKED)"
            ),
            look: format!("SELECT answer, reason, result::text, by_hand IS NOT NULL FROM {s}.commands WHERE number = $1"),
            adopt: format!(
                "UPDATE {s}.commands SET attempt = $2, replytoken = $3 WHERE number = (
                     SELECT number FROM {s}.commands
                     WHERE number = $1 AND answer IS NULL AND attempt IS NULL FOR UPDATE SKIP LOCKED)"
            ),
            raise: format!(
                "INSERT INTO {s}.horizon AS o (instance, home, horizon_ms) VALUES ($1, $2, $3)
                 ON CONFLICT (instance, home) DO UPDATE SET horizon_ms = greatest(o.horizon_ms, excluded.horizon_ms)"
            ),
            count_open: format!(
                "SELECT count(*) FROM (
                     SELECT FROM {s}.commands WHERE participant = $1 AND answer IS NULL LIMIT $2) o"
            ),
        }
    }

    /// What is known of these branches, in their order, and the horizons of their homes.
    pub(crate) fn fetch(
        &self,
        connection: &mut Connection,
        keys: &[BranchKey<'_>],
    ) -> Result<(Vec<Known>, Horizons), SqlError> {
        let column = |part: fn(&BranchKey<'_>) -> String| keys.iter().map(part).collect::<Vec<_>>();
        let instances: Vec<Uuid> = keys.iter().map(|key| key.instance).collect();
        let homes: Vec<i32> = keys.iter().map(|key| key.birth.partition.0).collect();
        let births: Vec<i64> = keys.iter().map(|key| key.birth.offset).collect();
        let subjects = column(|key| key.subject.to_string());
        let steps = column(|key| key.step.to_owned());
        let branches = column(|key| key.branch.to_owned());
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&instances, &homes, &births, &subjects, &steps, &branches];
        let statement = connection.statement(&self.fetch)?;
        let found = connection.wait(async |client| client.query(&statement, &parameters).await)?;
        let mut known: Vec<Known> = keys.iter().map(|_| Known::default()).collect();
        let mut horizons = Horizons::new();
        for row in found {
            let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
            let (Some(key), Some(known)) = (keys.get(place), known.get_mut(place)) else { continue };
            let stored = row.get::<_, Option<i64>>(1).map(Time::from_epoch_ms).unwrap_or_default();
            horizons.insert(key.home(), Horizon { stored, raised: stored });
            let Some(number) = row.get::<_, Option<i64>>(2) else { continue };
            let operation = operation(row.get(3));
            let issued = Time::from_epoch_ms(row.get(4));
            match stored_of(row.get(5), row.get(6), row.get(7), row.get(11)) {
                None => {
                    let is_by_hand = row.get(11);
                    known.open.push(Open { operation, place: Place::Table(number), is_by_hand });
                }
                Some(answer) => known.rows.push(Row { operation, issued, answer }),
            }
            if row.get(8) {
                known.vote = Some(Vote { issued, data: row.get(9), data_base64: row.get(10) });
            }
        }
        Ok((known, horizons))
    }

    pub(crate) fn insert(
        &self,
        connection: &mut Connection,
        participant: &str,
        rows: &[NewRow],
    ) -> Result<(), SqlError> {
        if rows.is_empty() {
            return Ok(());
        }
        let key = column(rows, |row| row.key.clone());
        let instance = column(rows, |row| row.branch.instance);
        let home = column(rows, |row| row.branch.birth.partition.0);
        let birth = column(rows, |row| row.branch.birth.offset);
        let subject = column(rows, |row| row.branch.subject.to_string());
        let step = column(rows, |row| row.branch.step.to_string());
        let branch = column(rows, |row| row.branch.branch.to_string());
        let operation = column(rows, |row| row.operation.as_str());
        let attempt = column(rows, |row| row.attempt.map(i64::from));
        let issued = column(rows, |row| row.issued.epoch_ms());
        let deadline = column(rows, |row| row.deadline.map(Time::epoch_ms));
        let definition = column(rows, |row| row.definition.clone());
        let traceparent = column(rows, |row| row.traceparent.clone());
        let replytoken = column(rows, |row| row.replytoken.clone());
        let data = column(rows, |row| row.data.clone());
        let data_base64 = column(rows, |row| row.data_base64.clone());
        let answer = column(rows, |row| row.answer);
        let reason = column(rows, |row| row.reason.clone());
        let by_hand = column(rows, |row| row.by_hand.clone());
        let parameters: [&(dyn ToSql + Sync); 20] = [
            &participant,
            &key,
            &instance,
            &home,
            &birth,
            &subject,
            &step,
            &branch,
            &operation,
            &attempt,
            &issued,
            &deadline,
            &definition,
            &traceparent,
            &replytoken,
            &data,
            &data_base64,
            &answer,
            &reason,
            &by_hand,
        ];
        let statement = connection.statement(&self.insert)?;
        connection.wait(async |client| client.execute(&statement, &parameters).await)?;
        Ok(())
    }

    /// Replies: transaction ids and records.
    pub(crate) fn reply(
        &self,
        connection: &mut Connection,
        replies: &[(String, String)],
    ) -> Result<(), SqlError> {
        if replies.is_empty() {
            return Ok(());
        }
        let (subjects, payloads): (Vec<&str>, Vec<&str>) =
            replies.iter().map(|(subject, payload)| (subject.as_str(), payload.as_str())).unzip();
        let statement = connection.statement(&self.reply)?;
        connection.wait(async |client| client.execute(&statement, &[&subjects, &payloads]).await)?;
        Ok(())
    }

    /// Cancels an open row, unless a worker has it. It waits for nobody.
    pub(crate) fn cancel(&self, connection: &mut Connection, number: i64) -> Result<Fate, SqlError> {
        let statement = connection.statement(&self.cancel)?;
        if connection.wait(async |client| client.execute(&statement, &[&number]).await)? > 0 {
            return Ok(Fate::Cancelled);
        }
        // Read committed: this sees what was committed meanwhile.
        let statement = connection.statement(&self.look)?;
        let found = connection.wait(async |client| client.query_opt(&statement, &[&number]).await)?;
        let Some(row) = found else { return Ok(Fate::Gone) };
        Ok(stored_of(row.get(0), row.get(1), row.get(2), row.get(3)).map_or(Fate::Held, Fate::Answered))
    }

    /// A command has come for what a verdict had asked for: from now on there is somebody to reply to.
    pub(crate) fn adopt(
        &self,
        connection: &mut Connection,
        number: i64,
        attempt: u32,
        replytoken: Option<&str>,
    ) -> Result<(), SqlError> {
        let statement = connection.statement(&self.adopt)?;
        let attempt = i64::from(attempt);
        connection
            .wait(async |client| client.execute(&statement, &[&number, &attempt, &replytoken]).await)?;
        Ok(())
    }

    pub(crate) fn raise(&self, connection: &mut Connection, home: Home, to: Time) -> Result<(), SqlError> {
        let statement = connection.statement(&self.raise)?;
        let (partition, horizon_ms) = (home.partition.0, to.epoch_ms());
        connection
            .wait(async |client| client.execute(&statement, &[&home.instance, &partition, &horizon_ms]).await)
            .map(|_| ())
    }

    /// How many are open, counted to so many.
    pub(crate) fn count_open(
        &self,
        connection: &mut Connection,
        participant: &str,
        limit: usize,
    ) -> Result<usize, SqlError> {
        let statement = connection.statement(&self.count_open)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let row =
            connection.wait(async |client| client.query_one(&statement, &[&participant, &limit]).await)?;
        Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX))
    }
}

fn column<T>(rows: &[NewRow], part: impl Fn(&NewRow) -> T) -> Vec<T> {
    rows.iter().map(part).collect()
}

/// The table has no others: only this relay and its functions write operations.
pub(crate) fn operation(name: &str) -> Operation {
    let known = Operation::ALL.into_iter().find(|known| known.as_str() == name);
    known.unwrap_or_else(|| panic!("the table of commands has an operation `{name}`"))
}

/// `None` while it is open.
fn stored_of(
    answer: Option<&str>,
    reason: Option<&str>,
    result: Option<String>,
    is_by_hand: bool,
) -> Option<Stored> {
    Some(match answer? {
        DONE if is_by_hand => Stored::ByHand,
        DONE => Stored::Done(result.map_or(Payload::Absent, |text| match Payload::from_json(text) {
            Ok(payload) => payload,
            Err(error) => panic!("a column of type jsonb holds no JSON: {error}"),
        })),
        REFUSED => Stored::Refused(reason.unwrap_or_default().into()),
        CANCELLED => Stored::Cancelled,
        other => panic!("the table of commands has an answer `{other}`, against its constraint"),
    })
}

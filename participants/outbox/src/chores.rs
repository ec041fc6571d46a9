//! What is done now and then: votes without a decision ask for it, and answered commands behind the horizon go.

use std::collections::HashMap;
use std::time::Duration;

use sagamore_participant::Payload;
use sagamore_participant::barrier::{self, Row, Stored};
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::Time;
use uuid::Uuid;

use crate::rows::{DONE, operation};
use crate::schema::Schema;

/// Inquiries at a time: a coordinator that comes back is not buried under them.
const INQUIRIES_MAX: i64 = 100;
/// The longest pause between two inquiries of a branch, in seconds.
const PAUSE_MAX_SECONDS: f64 = 300.0;
/// Rows looked at for purging, at once. A branch has six at most.
const PORTION_ROWS: i64 = 512;
/// Portions a turn: purging overtakes inserting, and stops for nobody long.
const PORTIONS_MAX: usize = 20;

pub(crate) struct Chores {
    asks_after: Duration,
    ask: String,
    homes: String,
    portion: String,
    purge: String,
    cursors: HashMap<(Uuid, i32), Cursor>,
}

/// A branch within its home; the default one comes before all others.
#[derive(Clone, PartialEq)]
struct Cursor {
    birth: i64,
    subject: String,
    step: String,
    branch: String,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { birth: i64::MIN, subject: String::new(), step: String::new(), branch: String::new() }
    }
}

struct Portion {
    branches: Vec<(Cursor, Vec<Kept>)>,
    is_end: bool,
}

struct Kept {
    number: i64,
    is_open: bool,
    is_by_hand: bool,
    row: Row,
}

impl Chores {
    pub(crate) fn new(s: &Schema, asks_after: Duration) -> Self {
        Self {
            asks_after,
            // A branch that is told already, and only waits for a worker, asks no more.
            ask: format!(
                "WITH due AS (
                     SELECT number FROM {s}.commands c
                     WHERE in_doubt
                       AND coalesce(asks_at, to_timestamp(issued_ms / 1000.0) + make_interval(secs => $1)) <= now()
                       AND NOT EXISTS (SELECT FROM {s}.commands o WHERE (o.instance, o.home, o.birth, o.subject, o.step,
                           o.branch) = (c.instance, c.home, c.birth, c.subject, c.step, c.branch)
                           AND o.operation IN ('commit', 'abort'))
                     ORDER BY number LIMIT {INQUIRIES_MAX} FOR UPDATE SKIP LOCKED
                 ), asks AS (
                     UPDATE {s}.commands c SET asked = asked + 1, asks_at = now()
                         + make_interval(secs => least(greatest($1, {PAUSE_MAX_SECONDS:.1}), $1 * 2 ^ least(asked, 16)))
                     FROM due WHERE c.number = due.number RETURNING c.*
                 )
                 INSERT INTO {s}.outbox (aggregatetype, aggregateid, type, payload)
                 SELECT 'inbox', subject, 'sagamore.inquiry.v1', jsonb_build_object(
                     'specversion', '1.0', 'type', 'sagamore.inquiry.v1',
                     'id', concat_ws('/', subject, home || '-' || birth, step, branch, participant, 'inquiry'),
                     'source', '/' || participant, 'instance', instance, 'subject', subject,
                     'birth', home || '-' || birth, 'step', step, 'branch', branch, 'participant', participant)
                 FROM asks"
            ),
            homes: format!("SELECT instance, home, horizon_ms FROM {s}.horizon"),
            portion: format!(
                "SELECT birth, subject, step, branch, operation, issued_ms, answer, number, by_hand IS NOT NULL FROM {s}.commands
                 WHERE instance = $1 AND home = $2 AND (birth, subject, step, branch) > ($3, $4, $5, $6)
                 ORDER BY birth, subject, step, branch LIMIT {PORTION_ROWS}"
            ),
            purge: format!("DELETE FROM {s}.commands WHERE number = ANY ($1::bigint[])"),
            cursors: HashMap::new(),
        }
    }

    /// Votes that have waited long enough ask, through the outbox. How many.
    pub(crate) fn ask(&self, connection: &mut Connection) -> Result<u64, SqlError> {
        let statement = connection.statement(&self.ask)?;
        let seconds = self.asks_after.as_secs_f64();
        connection.wait(async |client| client.execute(&statement, &[&seconds]).await)
    }

    /// Lets go branches whose rows were all issued before the horizon and answered, never one in doubt, nor one that an
    /// operator has decided. Nobody but this
    /// relay inserts rows, so a branch goes as a whole.
    pub(crate) fn purge(&mut self, connection: &mut Connection) -> Result<(), SqlError> {
        let statement = connection.statement(&self.homes)?;
        let homes = connection.wait(async |client| client.query(&statement, &[]).await)?;
        for home in homes {
            self.purge_home(connection, home.get(0), home.get(1), Time::from_epoch_ms(home.get(2)))?;
        }
        Ok(())
    }

    fn purge_home(
        &mut self,
        connection: &mut Connection,
        instance: Uuid,
        home: i32,
        horizon: Time,
    ) -> Result<(), SqlError> {
        for _ in 0..PORTIONS_MAX {
            let cursor = self.cursors.entry((instance, home)).or_default().clone();
            let Portion { branches, is_end } = self.portion(connection, instance, home, &cursor)?;
            let is_young = |kept: &Kept| kept.is_open || kept.row.issued >= horizon;
            let has_young = branches.iter().any(|(_, kept)| kept.iter().any(is_young));
            let last = branches.last().map(|(cursor, _)| cursor.clone());
            let numbers: Vec<i64> = branches
                .into_iter()
                .filter(|(_, kept)| !kept.iter().any(|kept| is_young(kept) || kept.is_by_hand))
                .filter(|(_, kept)| {
                    !barrier::in_doubt(&kept.iter().map(|kept| kept.row.clone()).collect::<Vec<_>>())
                })
                .flat_map(|(_, kept)| kept.into_iter().map(|kept| kept.number))
                .collect();
            if !numbers.is_empty() {
                let statement = connection.statement(&self.purge)?;
                connection.wait(async |client| client.execute(&statement, &[&numbers]).await)?;
            }
            // Births rise with time: behind a young branch nearly all are younger.
            let goes_on = !(is_end || has_young && numbers.is_empty());
            self.cursors.insert((instance, home), last.filter(|_| goes_on).unwrap_or_default());
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// The next branches behind the cursor, as wholes.
    fn portion(
        &self,
        connection: &mut Connection,
        instance: Uuid,
        home: i32,
        cursor: &Cursor,
    ) -> Result<Portion, SqlError> {
        let Cursor { birth, subject, step, branch } = cursor;
        let statement = connection.statement(&self.portion)?;
        let found = connection.wait(async |client| {
            client.query(&statement, &[&instance, &home, birth, subject, step, branch]).await
        })?;
        let is_end = i64::try_from(found.len()).unwrap_or(i64::MAX) < PORTION_ROWS;
        let mut branches: Vec<(Cursor, Vec<Kept>)> = Vec::new();
        for row in found {
            let cursor =
                Cursor { birth: row.get(0), subject: row.get(1), step: row.get(2), branch: row.get(3) };
            let answer: Option<&str> = row.get(6);
            let kept = Kept {
                number: row.get(7),
                is_open: answer.is_none(),
                is_by_hand: row.get(8),
                row: Row {
                    operation: operation(row.get(4)),
                    issued: Time::from_epoch_ms(row.get(5)),
                    answer: if answer == Some(DONE) {
                        Stored::Done(Payload::Absent)
                    } else {
                        Stored::Cancelled
                    },
                },
            };
            match branches.last_mut() {
                Some((last, rows)) if *last == cursor => rows.push(kept),
                Some(_) | None => branches.push((cursor, vec![kept])),
            }
        }
        if !is_end {
            branches.pop();
        }
        Ok(Portion { branches, is_end })
    }
}

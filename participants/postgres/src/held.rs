//! What branches in doubt hold, and who waits for it.
//!
//! A prepared transaction has no process: its locks stand in `pg_locks` without one, under the virtual transaction that
//! also has the lock on its id. (That is the one in which it was prepared, or `-1/<its id>` after a restart.) Whoever wants
//! one of its rows waits for that id; who waits behind a waiter is found by `pg_blocking_pids`.
//!
//! A vote without XA is a committed row. PostgreSQL holds nothing for it: what is reserved is in the business's own rows.

use std::time::Duration;

use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::Vote;
use sagamore_participant::store::StoreFault;

use crate::connection::{Connection, SqlError};
use crate::in_doubt::branch_of;
use crate::rows::Statements;

/// What is held until somebody decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Whose; `None`: a prepared transaction that nobody here knows.
    pub branch: Option<Branch>,
    /// The vote of the branch.
    pub vote: Option<Vote>,
    /// The prepared transaction; `None`: it is held in rows of the business.
    pub locks: Option<Locks>,
}

/// A prepared transaction and its locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locks {
    /// Its name on the server.
    pub gid: String,
    /// The role that prepared it, and may end it.
    pub owner: String,
    /// How long it has held them.
    pub age: Duration,
    /// How many locks.
    pub count: u64,
    /// The tables they are on.
    pub relations: Vec<String>,
    /// Who waits for it, the longest first.
    pub waiters: Vec<Waiter>,
}

/// A backend that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// Its process on the server.
    pub pid: i32,
    /// Its role.
    pub user: String,
    /// What it calls itself.
    pub application: String,
    /// How long its statement has been running.
    pub age: Duration,
}

/// What the schema knows.
pub(crate) struct Texts {
    prepared: String,
    rows: String,
}

impl Texts {
    pub(crate) fn new(s: &str, is_prepared: &str) -> Self {
        Self {
            prepared: format!(
                "SELECT instance, home, birth, subject, step, branch, command, gid FROM {s}.sagamore_xa x
                 WHERE {is_prepared}"
            ),
            rows: format!(
                "SELECT instance, home, birth, subject, step, branch, command FROM {s}.sagamore_vote
                 ORDER BY instance, home, birth, subject, step, branch LIMIT $1"
            ),
        }
    }
}

/// Every prepared transaction of this database.
const PREPARED: &str = "
    SELECT p.gid, p.owner::text, extract(epoch FROM now() - p.prepared)::float8, count(h.locktype),
        coalesce(array_agg(DISTINCT h.relation::regclass::text) FILTER (WHERE c.relkind IN ('r', 'p')), '{}')
    FROM pg_prepared_xacts p
    LEFT JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL
    LEFT JOIN pg_locks h ON h.virtualtransaction = x.virtualtransaction AND h.pid IS NULL
    LEFT JOIN pg_class c ON c.oid = h.relation
    WHERE p.database = current_database() GROUP BY p.gid, p.owner, p.prepared ORDER BY p.prepared, p.gid";

/// Who waits for which: for its id or for a lock it has on a relation, or behind one who does.
const WAITERS: &str = "
    WITH RECURSIVE waiting (gid, pid) AS (
        SELECT DISTINCT p.gid, w.pid
        FROM pg_prepared_xacts p
        JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL
        JOIN pg_locks h ON h.virtualtransaction = x.virtualtransaction AND h.pid IS NULL AND h.granted
        JOIN pg_locks w ON NOT w.granted AND w.pid IS NOT NULL AND w.locktype = h.locktype
            AND w.database IS NOT DISTINCT FROM h.database AND w.relation IS NOT DISTINCT FROM h.relation
            AND w.page IS NOT DISTINCT FROM h.page AND w.tuple IS NOT DISTINCT FROM h.tuple
            AND w.transactionid IS NOT DISTINCT FROM h.transactionid
        WHERE p.database = current_database()
      UNION
        SELECT before.gid, a.pid FROM waiting before
        JOIN pg_stat_activity a ON a.wait_event_type = 'Lock' AND before.pid = ANY (pg_blocking_pids(a.pid))
    )
    SELECT w.gid, a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''),
        coalesce(extract(epoch FROM clock_timestamp() - a.query_start)::float8, 0)
    FROM waiting w JOIN pg_stat_activity a ON a.pid = w.pid ORDER BY a.query_start, a.pid";

pub(crate) fn held(
    connection: &mut Connection,
    statements: &Statements,
    limit: usize,
) -> Result<Vec<Hold>, StoreFault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let fault = |error: SqlError| error.fault();
    // What is not prepared any more when it is looked for is not shown; what has been prepared since comes next time.
    let known =
        connection.wait(async |client| client.query(&statements.held.prepared, &[]).await).map_err(fault)?;
    let prepared = connection.wait(async |client| client.query(PREPARED, &[]).await).map_err(fault)?;
    let waiting = connection.wait(async |client| client.query(WAITERS, &[]).await).map_err(fault)?;
    let rows = connection
        .wait(async |client| client.query(&statements.held.rows, &[&limit]).await)
        .map_err(fault)?;
    let mut held = Vec::with_capacity(prepared.len() + rows.len());
    for row in &prepared {
        let gid: String = row.get(0);
        let found = known.iter().find(|known| known.get::<_, &str>(7) == gid);
        let waiters = waiting.iter().filter(|waiter| waiter.get::<_, &str>(0) == gid).map(|waiter| Waiter {
            pid: waiter.get(1),
            user: waiter.get(2),
            application: waiter.get(3),
            age: seconds(waiter.get(4)),
        });
        let locks = Locks {
            owner: row.get(1),
            age: seconds(row.get(2)),
            count: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
            relations: row.get(4),
            waiters: waiters.collect(),
            gid,
        };
        held.push(Hold {
            branch: found.map(|known| branch_of(known, 0)).transpose()?,
            vote: found.map(|known| Vote::from_bytes(known.get(6))),
            locks: Some(locks),
        });
    }
    for row in &rows {
        held.push(Hold {
            branch: Some(branch_of(row, 0)?),
            vote: Some(Vote::from_bytes(row.get(6))),
            locks: None,
        });
    }
    Ok(held)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

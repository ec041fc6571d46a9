//! Branches in doubt: votes that stand in the table, and votes that are prepared transactions.

use std::time::Duration;

use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::{InDoubt, Vote};
use sagamore_participant::store::StoreFault;
use sagamore_schemas::ids::{Birth, Partition};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::connection::{Connection, SqlError};
use crate::rows::Statements;
use crate::xa::Prepared;

pub(crate) fn in_doubt(
    connection: &mut Connection,
    statements: &Statements,
    after: Option<&Branch>,
    limit: usize,
) -> Result<Vec<InDoubt>, StoreFault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (instance, home, birth, subject, step, branch) = match after {
        Some(after) => (
            after.instance,
            after.birth.partition.0,
            after.birth.offset,
            after.subject.as_str(),
            &*after.step,
            &*after.branch,
        ),
        // Before all others.
        None => (Uuid::nil(), i32::MIN, i64::MIN, "", "", ""),
    };
    let statement = connection.statement(&statements.in_doubt).map_err(|error| error.fault())?;
    let found = connection
        .wait(async |client| {
            client.query(&statement, &[&instance, &home, &birth, &subject, &step, &branch, &limit]).await
        })
        .map_err(|error| error.fault())?;
    found
        .iter()
        .map(|row| Ok(InDoubt { branch: branch_of(row, 0)?, vote: Vote::from_bytes(row.get(6)) }))
        .collect()
}

/// Every prepared transaction of ours in this database, the oldest first.
pub(crate) fn prepared(
    connection: &mut Connection,
    statements: &Statements,
    prefix: &str,
) -> Result<Vec<Prepared>, StoreFault> {
    let prefix = format!("{prefix}/");
    let found = connection
        .wait(async |client| client.query(&statements.all_prepared, &[&prefix]).await)
        .map_err(|error: SqlError| error.fault())?;
    found
        .iter()
        .map(|row| {
            let is_known = row.get::<_, Option<Uuid>>(3).is_some();
            Ok(Prepared {
                gid: row.get(0),
                owner: row.get(1),
                age: Duration::from_secs_f64(row.get::<_, f64>(2).max(0.0)),
                branch: is_known.then(|| branch_of(row, 3)).transpose()?,
            })
        })
        .collect()
}

fn branch_of(row: &Row, from: usize) -> Result<Branch, StoreFault> {
    let subject: &str = row.get(from + 3);
    Ok(Branch {
        instance: row.get(from),
        birth: Birth { partition: Partition(row.get(from + 1)), offset: row.get(from + 2) },
        subject: subject
            .parse()
            .map_err(|error| StoreFault::Unavailable(format!("a stored subject: {error}")))?,
        step: row.get::<_, &str>(from + 4).into(),
        branch: row.get::<_, &str>(from + 5).into(),
    })
}

//! Branches in doubt: votes that stand in the table, and votes that are prepared transactions.

use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::{InDoubt, Vote};
use sagamore_participant::store::StoreFault;
use sagamore_schemas::ids::{Birth, Partition};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::connection::Connection;
use crate::rows::Statements;

pub(crate) fn in_doubt(
    connection: &mut Connection,
    statements: &Statements,
    after: Option<&Branch>,
    limit: usize,
) -> Result<Vec<InDoubt>, StoreFault> {
    behind(connection, &statements.in_doubt, after, limit)?
        .iter()
        .map(|row| Ok(InDoubt { branch: branch_of(row, 0)?, vote: Vote::from_bytes(row.get(6)) }))
        .collect()
}

/// The next branches of a statement that takes one, and a limit.
pub(crate) fn behind(
    connection: &mut Connection,
    statement: &str,
    after: Option<&Branch>,
    limit: usize,
) -> Result<Vec<Row>, StoreFault> {
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
    let statement = connection.statement(statement).map_err(|error| error.fault())?;
    connection
        .wait(async |client| {
            client.query(&statement, &[&instance, &home, &birth, &subject, &step, &branch, &limit]).await
        })
        .map_err(|error| error.fault())
}

pub(crate) fn branch_of(row: &Row, from: usize) -> Result<Branch, StoreFault> {
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

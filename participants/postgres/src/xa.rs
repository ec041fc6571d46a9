//! XA: a vote is a prepared transaction of PostgreSQL, which holds effect, locks and the barrier's row until it is ended.
//!
//! ```text
//!  prepare  BEGIN ─ business ─ row `prepare` ─ (side: intention) ─ PREPARE TRANSACTION gid
//!  commit   side: COMMIT PREPARED gid      then BEGIN ─ row `commit` ─ forget the intention ─ COMMIT
//!  abort    side: ROLLBACK PREPARED gid    then BEGIN ─ rows `prepare`, `abort` ─ forget the intention ─ COMMIT
//! ```
//! The **intention** is a row of `sagamore_xa`, written on a second connection just before `PREPARE TRANSACTION`: what a
//! prepared transaction holds nobody can read, and a duplicate `prepare`, or a branch in doubt after a crash, must know
//! the vote. It is committed without waiting for the disk: `PREPARE TRANSACTION` writes to the same log behind it, and
//! waits. An intention whose gid is not on the server is nothing, and is overwritten.
//!
//! | gid on the server | row `prepare` | other rows | it is | and the barrier sees |
//! |---|---|---|---|---|
//! | yes | invisible | | in doubt | the intention as row `prepare` |
//! | no | – | – | never prepared, or rolled back and not yet told | nothing: `prepare` may come again, `abort` cancels it |
//! | no | done | – | committed, and the process died before the row `commit` | row `commit`, which is written now |
//! | no | done, and a vote in `sagamore_vote` | – | a vote without XA, of before | as without XA |
//! | no | done or cancelled | `abort` | aborted | these |
//!
//! The order matters: whether the gid is there is asked before the rows are looked at. The other way round, a commit in
//! between would look as if nothing had ever been prepared.
//!
//! The local transaction that ends a prepared one is read committed, whatever the store's isolation: what is prepared
//! cannot give way, so a serializable one would fail for ever.
//!
//! Whatever fails (no slot left, a gid in use, another role's transaction, a lock, a serialization failure) is answered
//! `error` with the cause, and asked again. `prepare`, `commit` and `abort` have a local transaction of their own each;
//! business code of `commit` and `abort` has nothing to do there.

use std::fmt::Write as _;

use sagamore_participant::barrier::{BranchKey, Row, Stored};
use sagamore_participant::doubt::Vote;
use sagamore_participant::store::StoreFault;
use sagamore_participant::{Operation, Payload};
use sagamore_schemas::ids::Time;
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;

use crate::connection::{Connection, SqlError};
use crate::rows::{Key, Statements, columns, payload};

/// The longest that PostgreSQL takes, in bytes.
pub const GID_BYTES_MAX: usize = 199;
/// The longest prefix, in bytes: what is hashed fits behind it.
pub const PREFIX_BYTES_MAX: usize = 64;

/// Whether gids may begin so: with what no statement has to escape.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    (1..=PREFIX_BYTES_MAX).contains(&prefix.len()) && is_plain(prefix)
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// The name of a branch's prepared transaction: the same for every attempt, another for every life of an id. Hashed where
/// it is too long, or has characters that no name of ours has.
///
/// Gids are of a whole server, not of a database. Two participants never have a branch in common, so they may share one;
/// a copy of a participant's database on the same server needs another prefix.
pub fn gid(prefix: &str, key: &BranchKey<'_>) -> String {
    let BranchKey { instance, subject, birth, step, branch } = key;
    let plain = format!("{prefix}/{}/{subject}/{birth}/{step}/{branch}", instance.simple());
    if plain.len() <= GID_BYTES_MAX && is_plain(step) && is_plain(branch) {
        return plain;
    }
    let mut hash = Sha256::new();
    for part in [
        instance.as_bytes(),
        subject.as_str().as_bytes(),
        birth.to_string().as_bytes(),
        step.as_bytes(),
        branch.as_bytes(),
    ] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut gid = format!("{prefix}/#");
    for byte in hash.finalize() {
        // Writing to a text does not fail.
        let _ = write!(gid, "{byte:02x}");
    }
    gid
}

/// The vote of a branch whose gid is on the server.
#[derive(Clone)]
pub(crate) struct Intention {
    pub(crate) gid: String,
    pub(crate) issued: Time,
    pub(crate) vote: Vote,
    pub(crate) result: Payload,
}

impl Intention {
    /// As the row that nobody can see.
    pub(crate) fn row(&self) -> Row {
        Row { operation: Operation::Prepare, issued: self.issued, answer: Stored::Done(self.result.clone()) }
    }
}

/// What a prepared transaction was ended with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Now,
    /// It is not there any more: somebody else was quicker.
    Unknown,
}

/// The intention of a branch, when its gid is on the server.
pub(crate) fn intention(
    side: &mut Connection,
    statements: &Statements,
    key: &BranchKey<'_>,
) -> Result<Option<Intention>, StoreFault> {
    let statement = side.statement(&statements.prepared).map_err(|error| error.fault())?;
    let key = Key::of(key);
    let found = side.wait(async |client| client.query_opt(&statement, &key.parameters()).await);
    let Some(row) = found.map_err(|error| error.fault())? else { return Ok(None) };
    Ok(Some(Intention {
        gid: row.get(0),
        issued: Time::from_epoch_ms(row.get(1)),
        vote: Vote::from_bytes(row.get(2)),
        result: payload(row.get(3), row.get(4))?,
    }))
}

/// Writes it down, so that it is on the disk when what is prepared next is.
pub(crate) fn intend(
    side: &mut Connection,
    statements: &Statements,
    key: &Key<'_>,
    intention: &Intention,
) -> Result<(), SqlError> {
    let Intention { gid, issued, vote, result } = intention;
    let statement = side.statement(&statements.intend)?;
    let (issued_ms, command, result) = (issued.epoch_ms(), vote.as_bytes(), result.as_ref());
    let (data, data_base64) = columns(&result);
    let parameters = key.and(&[gid, &issued_ms, &command, &data, &data_base64]);
    side.wait(async |client| client.execute(&statement, &parameters).await)?;
    Ok(())
}

/// Ends a prepared transaction.
pub(crate) fn end(side: &mut Connection, gid: &str, operation: Operation) -> Result<Ended, StoreFault> {
    let verb = if operation == Operation::Commit { "COMMIT" } else { "ROLLBACK" };
    match side.batch(&format!("{verb} PREPARED '{gid}'")) {
        Ok(()) => Ok(Ended::Now),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(Ended::Unknown),
        Err(error) => Err(StoreFault::Unavailable(format!("{verb} PREPARED {gid}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::ids::TransactionId;
    use uuid::Uuid;

    use super::*;

    fn named(subject: &str, step: &str, branch: &str) -> String {
        let subject: TransactionId = subject.parse().unwrap_or_else(|error| panic!("{error}"));
        let birth = "3-88121".parse().unwrap_or_else(|error| panic!("{error}"));
        gid("sagamore", &BranchKey { instance: Uuid::from_u128(7), subject: &subject, birth, step, branch })
    }

    #[test]
    fn a_gid_names_the_branch_and_fits() {
        assert_eq!(
            named("order-1", "pay", "bank-a"),
            "sagamore/00000000000000000000000000000007/order-1/3-88121/pay/bank-a"
        );
        let longest = "x".repeat(128);
        let room = GID_BYTES_MAX - named(&longest, "", "").len();
        assert_eq!(named(&longest, &"s".repeat(room), "").len(), GID_BYTES_MAX);
        let hashed = named(&longest, &"s".repeat(room + 1), "");
        assert!(hashed.starts_with("sagamore/#") && hashed.len() == 10 + 64, "{hashed}");
        assert_ne!(hashed, named(&longest, &"s".repeat(room + 1), "b"));
        // Cut elsewhere, and what would end the text of a statement.
        assert_ne!(named("t", "a/b", "c"), named("t", "a", "b/c"));
        assert!(named("t", "it's", "b").starts_with("sagamore/#"));
    }
}

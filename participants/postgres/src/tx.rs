//! An open local transaction, as business code and the library see it: statements, one after the other.

use std::future::poll_fn;
use std::task::Poll;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::connection::{Connection, SqlError};

/// Statements that begin or end local transactions, or would make one final.
const NOT_YOURS: [&str; 9] =
    ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"];

/// The open local transaction that business code writes in.
///
/// Each statement is one, with parameters; it is prepared once a connection. Errors convert into a
/// [`Fault`](sagamore_participant::Fault) by `?`, and whatever was written since the command began is rolled back.
pub struct Tx<'t> {
    pub(crate) connection: &'t mut Connection,
    /// Sent before `pending`: rows of commands that are done.
    deferred: Vec<Deferred>,
    /// Sent in front of the next statement.
    pending: String,
    savepoint: Savepoint,
    /// `BEGIN` is on the server.
    pub(crate) has_begun: bool,
    /// A statement has failed since the command began.
    has_failed: bool,
    /// A serialization failure or a deadlock was met: only another local transaction may succeed.
    pub(crate) is_hopeless: bool,
}

/// A statement whose answer is heard with that of the next one.
struct Deferred {
    statement: Statement,
    parameters: Vec<Box<dyn ToSql + Sync + Send>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Savepoint {
    None,
    Pending,
    Set,
}

impl<'t> Tx<'t> {
    pub(crate) fn new(connection: &'t mut Connection, begin: &str) -> Self {
        Self {
            connection,
            deferred: Vec::new(),
            pending: begin.to_owned(),
            savepoint: Savepoint::None,
            has_begun: false,
            has_failed: false,
            is_hopeless: false,
        }
    }

    /// Runs a statement, and says how many rows it has changed.
    pub fn execute(&mut self, text: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, SqlError> {
        refuse_control(text)?;
        self.change(text, parameters)
    }

    /// Runs several statements without waiting in between: one round trip. If one fails, those after it fail, too.
    pub fn execute_all(
        &mut self,
        statements: &[(&str, &[&(dyn ToSql + Sync)])],
    ) -> Result<Vec<u64>, SqlError> {
        for (text, _) in statements {
            refuse_control(text)?;
        }
        self.change_all(statements)
    }

    /// Runs a query.
    pub fn query(&mut self, text: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, SqlError> {
        refuse_control(text)?;
        self.look(text, parameters)
    }

    /// Runs a query of at most one row.
    pub fn query_opt(
        &mut self,
        text: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, SqlError> {
        refuse_control(text)?;
        let statement = self.statement(text)?;
        self.send(async |client| client.query_opt(&statement, parameters).await)
    }

    /// Runs a query of exactly one row.
    pub fn query_one(&mut self, text: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row, SqlError> {
        refuse_control(text)?;
        let statement = self.statement(text)?;
        self.send(async |client| client.query_one(&statement, parameters).await)
    }

    pub(crate) fn change(&mut self, text: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, SqlError> {
        let statement = self.statement(text)?;
        self.send(async |client| client.execute(&statement, parameters).await)
    }

    pub(crate) fn look(
        &mut self,
        text: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SqlError> {
        let statement = self.statement(text)?;
        self.send(async |client| client.query(&statement, parameters).await)
    }

    pub(crate) fn change_all(
        &mut self,
        statements: &[(&str, &[&(dyn ToSql + Sync)])],
    ) -> Result<Vec<u64>, SqlError> {
        let mut prepared = Vec::with_capacity(statements.len());
        for (text, parameters) in statements {
            prepared.push((self.statement(text)?, *parameters));
        }
        self.send(async |client| {
            let running =
                prepared.iter().map(|(statement, parameters)| client.execute(statement, parameters));
            in_order(running.collect()).await
        })
    }

    /// The statement, prepared; inside the local transaction as it will be.
    fn statement(&mut self, text: &str) -> Result<Statement, SqlError> {
        if !self.connection.is_prepared(text) {
            self.flush()?;
        }
        let statement = self.connection.statement(text);
        self.heed(statement)
    }

    /// Begins as read committed, if it has not begun yet.
    pub(crate) fn relax(&mut self, begin: &str) {
        if !self.has_begun {
            self.pending = self.pending.replacen(begin, "BEGIN ISOLATION LEVEL READ COMMITTED;", 1);
        }
    }

    /// Whether a statement may be deferred: nothing is pending that it would overtake.
    pub(crate) fn may_defer(&self) -> bool {
        self.has_begun && !self.has_failed && self.pending.is_empty()
    }

    /// Runs a statement together with the next one. If it fails, the whole local transaction does.
    pub(crate) fn defer(
        &mut self,
        text: &str,
        parameters: Vec<Box<dyn ToSql + Sync + Send>>,
    ) -> Result<(), SqlError> {
        let statement = self.statement(text)?;
        self.deferred.push(Deferred { statement, parameters });
        Ok(())
    }

    /// Sends what is deferred and pending, and with it this.
    pub(crate) fn send<T>(
        &mut self,
        statement: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, SqlError> {
        let (deferred, pending) = self.take_pending();
        let mut has_failed = false;
        let answer = self.connection.wait(async |client| {
            let before =
                async { if pending.is_empty() { Ok(()) } else { client.batch_execute(&pending).await } };
            let rows = in_order(deferred.iter().map(|row| row.run(client)).collect());
            let (rows, before, answer) = tokio::join!(biased; rows, before, statement(client));
            has_failed = rows.is_err();
            rows?;
            before?;
            answer
        });
        // The answers of their commands are not true any more.
        self.is_hopeless |= has_failed;
        self.heed(answer)
    }

    /// Sends what is deferred and pending.
    pub(crate) fn flush(&mut self) -> Result<(), SqlError> {
        if self.deferred.is_empty() && self.pending.is_empty() {
            return Ok(());
        }
        self.send(async |_| Ok(()))
    }

    /// Sends what is pending, and `end` behind it: both fail when the local transaction has failed.
    pub(crate) fn finish(&mut self, end: &str) -> Result<(), SqlError> {
        let pending = std::mem::take(&mut self.pending);
        // A `COMMIT` of a failed local transaction rolls it back, and says so in a word that clients do not look at. A
        // query in front of it fails, and then `end` is not run.
        let end = format!("{pending}SELECT 1;{end}");
        self.send(async |client| client.batch_execute(&end).await)
    }

    pub(crate) fn savepoint(&mut self) {
        match self.savepoint {
            Savepoint::None => self.pending.push_str("SAVEPOINT sagamore;"),
            Savepoint::Pending => {}
            Savepoint::Set => self.pending.push_str("RELEASE SAVEPOINT sagamore;SAVEPOINT sagamore;"),
        }
        self.savepoint = Savepoint::Pending;
    }

    pub(crate) fn roll_back(&mut self) {
        self.has_failed = false;
        match self.savepoint {
            Savepoint::Set => {
                // What is deferred was so after the savepoint.
                self.deferred.clear();
                self.pending.push_str("ROLLBACK TO SAVEPOINT sagamore;");
            }
            // Nothing was sent since.
            Savepoint::Pending => {}
            Savepoint::None => unreachable!("a command begins with a savepoint"),
        }
    }

    fn take_pending(&mut self) -> (Vec<Deferred>, String) {
        self.has_begun = true;
        if self.savepoint == Savepoint::Pending {
            self.savepoint = Savepoint::Set;
        }
        (std::mem::take(&mut self.deferred), std::mem::take(&mut self.pending))
    }

    fn heed<T>(&mut self, answer: Result<T, SqlError>) -> Result<T, SqlError> {
        if let Err(error) = &answer {
            self.has_failed = true;
            self.is_hopeless |= error.is_transient();
        }
        answer
    }
}

impl Deferred {
    async fn run(&self, client: &Client) -> Result<u64, Error> {
        let parameters: Vec<&(dyn ToSql + Sync)> =
            self.parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)).collect();
        client.execute(&self.statement, &parameters).await
    }
}

/// Sends one after the other, which is what the first poll of each does, and waits for all.
async fn in_order<F: Future<Output = Result<u64, Error>>>(running: Vec<F>) -> Result<Vec<u64>, Error> {
    let mut running: Vec<_> = running.into_iter().map(|one| (Box::pin(one), None)).collect();
    poll_fn(|context| {
        let mut waits = false;
        for (one, answer) in running.iter_mut().filter(|(_, answer)| answer.is_none()) {
            match one.as_mut().poll(context) {
                Poll::Ready(done) => *answer = Some(done),
                Poll::Pending => waits = true,
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, answer)| answer).collect()
}

/// The first word of a statement decides; one statement a call is all that PostgreSQL prepares.
fn refuse_control(text: &str) -> Result<(), SqlError> {
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '(');
    loop {
        let after = if let Some(line) = rest.strip_prefix("--") {
            line.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(block) = rest.strip_prefix("/*") {
            block.split_once("*/").map_or("", |(_, after)| after)
        } else {
            break;
        };
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '(');
    }
    let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
    match NOT_YOURS.into_iter().find(|control| control.eq_ignore_ascii_case(&word)) {
        Some(control) => Err(SqlError::NotYours(control.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_and_ends() {
        for yours in
            ["SELECT 1", "committed", "UPDATE a SET b = 'COMMIT'", "-- COMMIT\n SELECT 1", "", "ending"]
        {
            assert!(refuse_control(yours).is_ok(), "{yours}");
        }
        for control in [
            "COMMIT",
            " rollback to x",
            "/* a */ -- b\n Commit;",
            ";end",
            "PREPARE TRANSACTION 'x'",
            "begin;",
        ] {
            assert!(refuse_control(control).is_err(), "{control}");
        }
    }
}

//! Commands and verdicts into the table, a batch in one database transaction.
//!
//! The barrier of the participant library decides, over the answered rows of the branch; an open row of `precommit`,
//! `commit`, `abort` or `compensate`, which nothing refuses, counts as answered. Whatever is answered here leaves through the
//! outbox, with the same commit.
//!
//! | what comes | what stands there | what is written |
//! |---|---|---|
//! | any | the same, open | answer `pending` |
//! | any | the same, open because of a verdict | the command, to be replied to; answer `pending` |
//! | any | the same, answered | the stored answer |
//! | `compensate`, `abort` | `execute` or `prepare`, open, nobody works on it | that as cancelled; then as the barrier says |
//! | `compensate`, `abort` | `execute` or `prepare`, open, a worker has it | once `pending`; decided again until the worker lets go |
//! | any | otherwise, and the barrier says: perform | an open row; `error` when too many are open |
//! | any | otherwise, and the barrier says something else | that answer, and the rows that go with it |
//! | verdict `commit`, `abort` | a vote without a decision | an open row that is not replied to |
//! | an operator's `commit`, `abort` | a vote without a decision | the same, marked as by hand |
//! | an operator's word that it is repaired | the opposite, by hand | that row as done by hand |
//! | verdict `undecided` | | nothing |
//! | verdict `forgotten`, or against what was done | | nothing, loudly: a person has to look |
//!
//! Waiting for the worker inside the database would be shorter, and one slow worker would stop all commands.
//!
//! Data that the database cannot store as `jsonb` (a zero byte, a number beyond its range) refuses its command, alone.

use std::collections::HashMap;

use sagamore_participant::barrier::{Branch, BranchKey};
use sagamore_participant::doubt::branch_of;
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::Name;
use sagamore_schemas::wire::{Asked, Heuristic, Verdict, parse_replyto, read_asked};
use tracing::{debug, error, warn};

use crate::batch::{Batch, Done, Task, Wish};
use crate::counters::Counters;
use crate::rows::Statements;
use crate::schema::Schema;

/// Commands open at a time, of one participant: minutes of work. Beyond it what would do something new is answered `error`,
/// and asked again; what undoes or finishes passes.
pub const OPEN_MAX: usize = 10_000;
/// A horizon that is so much later is kept, in ms.
const RAISED_MS: u64 = 1_000;
/// How often a batch is tried again that met somebody else's rows.
const TRIES_MORE: usize = 3;

/// A record of the command topic.
#[derive(Debug, Default)]
pub struct Record {
    /// Commands of one key are worked on in their order.
    pub key: Option<Vec<u8>>,
    /// A command or a verdict.
    pub value: Vec<u8>,
    /// It has been answered `pending` before.
    pub is_told: bool,
}

/// The inbox of one participant.
pub struct Inbox {
    statements: Statements,
    participant: Name,
    /// Where replies go.
    replyto: String,
    open_max: usize,
}

impl Inbox {
    /// Of one participant. `inbox_topic` is where replies go.
    pub fn new(schema: &Schema, participant: Name, inbox_topic: &str) -> Self {
        Self {
            statements: Statements::new(schema),
            participant,
            replyto: inbox_topic.to_owned(),
            open_max: OPEN_MAX,
        }
    }

    /// With another bound on what is open.
    #[must_use]
    pub fn with_open_max(mut self, open_max: usize) -> Self {
        self.open_max = open_max;
        self
    }

    /// Keeps these records, in one transaction if that works, or each in its own. Returns the places of those that are to
    /// be decided again.
    ///
    /// # Errors
    /// The database's: nothing is known of the batch, and all of it is to come again.
    pub fn absorb(
        &self,
        connection: &mut Connection,
        records: &[&Record],
        counters: &mut Counters,
    ) -> Result<Vec<usize>, SqlError> {
        let mut tasks = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            match self.read(index, record) {
                Some(task) => tasks.push(task),
                None => counters.passed_over += 1,
            }
        }
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        match self.together(connection, &tasks, None) {
            Ok(done) => Ok(done.told_to(counters)),
            Err(error) if error.is_away() => Err(error),
            Err(error) => {
                debug!(%error, commands = tasks.len(), "a batch has failed: each command alone");
                self.one_by_one(connection, &tasks, counters)
            }
        }
    }

    fn one_by_one(
        &self,
        connection: &mut Connection,
        tasks: &[Task<'_>],
        counters: &mut Counters,
    ) -> Result<Vec<usize>, SqlError> {
        let mut held = Vec::new();
        for task in tasks {
            let one = std::slice::from_ref(task);
            let mut tries = 0;
            let done = loop {
                match self.together(connection, one, None) {
                    Err(error) if is_others_fault(&error) && tries < TRIES_MORE => tries += 1,
                    other => break other,
                }
            };
            let done = match done {
                Err(error) if is_data_fault(&error) => {
                    self.together(connection, one, Some(&error.to_string()))
                }
                other => other,
            };
            match done {
                Ok(done) => held.extend(done.told_to(counters)),
                Err(error) if is_data_fault(&error) => {
                    error!(subject = %task.branch.subject, %error, "a command that the database cannot store; passed over");
                    counters.passed_over += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// `unstorable`: why the data of the one task cannot be stored.
    fn together(
        &self,
        connection: &mut Connection,
        tasks: &[Task<'_>],
        unstorable: Option<&str>,
    ) -> Result<Done, SqlError> {
        connection.batch("BEGIN")?;
        match self.work(connection, tasks, unstorable) {
            Ok(done) => {
                connection.batch("COMMIT")?;
                Ok(done)
            }
            Err(error) => {
                if !error.is_away() {
                    connection.batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    fn work(
        &self,
        connection: &mut Connection,
        tasks: &[Task<'_>],
        unstorable: Option<&str>,
    ) -> Result<Done, SqlError> {
        let mut keys: Vec<BranchKey<'_>> = Vec::new();
        let mut places: HashMap<&Branch, usize> = HashMap::new();
        for task in tasks {
            places.entry(&task.branch).or_insert_with(|| {
                keys.push(task.branch.key());
                keys.len() - 1
            });
        }
        let (mut known, horizons) = self.statements.fetch(connection, &keys)?;
        let open = self.statements.count_open(connection, self.participant.as_str(), self.open_max)?;
        let mut batch = Batch {
            connection,
            statements: &self.statements,
            participant: &self.participant,
            horizons,
            open_max: self.open_max,
            room: self.open_max - open,
            unstorable,
            rows: Vec::new(),
            replies: Vec::new(),
            done: Done::default(),
        };
        for task in tasks {
            batch.decide(task, &mut known[places[&task.branch]])?;
        }
        let Batch { connection, horizons, rows, replies, done, .. } = batch;
        self.statements.insert(connection, self.participant.as_str(), &rows)?;
        self.statements.reply(connection, &replies)?;
        for (home, horizon) in horizons {
            if horizon.raised.since(horizon.stored).as_ms() >= RAISED_MS {
                self.statements.raise(connection, home, horizon.raised)?;
            }
        }
        Ok(done)
    }

    fn read<'r>(&self, index: usize, record: &'r Record) -> Option<Task<'r>> {
        let (wish, branch) = match read_asked(Some(&record.value)) {
            Ok(Asked::Command(command)) => {
                let home = command.address.birth.partition;
                if parse_replyto(&command.replyto) != Some((&self.replyto, home)) {
                    warn!(replyto = %command.replyto, %home, "replies go to the inbox, to their transaction's home; passed over");
                    return None;
                }
                let branch = Branch::from(&BranchKey::of(&command));
                (Wish::Command(Box::new(command)), branch)
            }
            Ok(Asked::Verdict(verdict)) => {
                let Verdict { inquiry, decision, heuristic } = &verdict;
                if inquiry.participant != self.participant {
                    warn!(asker = %inquiry.participant, "the answer to another participant's inquiry; passed over");
                    return None;
                }
                let wish = heuristic.as_ref().map_or(Wish::Verdict(*decision), |heuristic| {
                    Wish::ByHand(heuristic.wish, *decision, said(heuristic))
                });
                (wish, branch_of(&verdict))
            }
            Err(cause) => {
                warn!(participant = %self.participant, %cause, "neither a command nor a verdict; passed over");
                return None;
            }
        };
        let key = record.key.as_deref().unwrap_or_default();
        Some(Task { index, key, is_told: record.is_told, wish, branch })
    }
}

/// Who, why and when, as it is kept.
fn said(heuristic: &Heuristic<'_>) -> String {
    let Heuristic { wish, actor, reason, time } = heuristic;
    serde_json::json!({"wish": wish.as_str(), "actor": actor, "reason": reason, "time": time.to_string()})
        .to_string()
}

/// The data's: no other batch and no other time would change it.
fn is_data_fault(error: &SqlError) -> bool {
    error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "54"))
}

/// Somebody else's row, or an order of locks: decided again, it is seen.
fn is_others_fault(error: &SqlError) -> bool {
    error.is_transient() || error.code().is_some_and(|code| code.code() == "23505")
}

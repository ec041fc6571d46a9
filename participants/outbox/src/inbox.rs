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
//! | verdict `undecided` | | nothing |
//! | verdict `forgotten`, or against what was done | | nothing, loudly: a person has to look |
//!
//! Waiting for the worker inside the database would be shorter, and one slow worker would stop all commands.
//!
//! Data that the database cannot store as `jsonb` (a zero byte, a number beyond its range) refuses its command, alone.

use std::borrow::Cow;
use std::collections::HashMap;

use sagamore_participant::barrier::{self, Branch, BranchKey, Decision, REASON_IN_DOUBT, Row, Stored};
use sagamore_participant::doubt::branch_of;
use sagamore_participant::{Operation, Payload};
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::Name;
use sagamore_schemas::wire::{
    Answer, Asked, Command, Decided, PayloadRef, Reply, Verdict, parse_replyto, read_asked,
};
use tracing::{debug, error, warn};

use crate::counters::Counters;
use crate::rows::{CANCELLED, DONE, Fate, Horizons, Known, NewRow, Open, Place, REFUSED, Statements};
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

struct Task<'r> {
    /// Which record.
    index: usize,
    key: &'r [u8],
    is_told: bool,
    wish: Wish<'r>,
    branch: Branch,
}

enum Wish<'r> {
    Command(Command<'r>),
    Verdict(Decided),
}

/// What a batch comes to.
#[derive(Default)]
struct Work {
    rows: Vec<NewRow>,
    replies: Vec<(String, String)>,
    /// Records that a worker stands in the way of.
    held: Vec<usize>,
    /// Of these alone.
    counters: Counters,
    /// How many more may be open.
    room: usize,
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
            Ok(work) => Ok(work.told_to(counters)),
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
            let work = loop {
                match self.together(connection, one, None) {
                    Err(error) if is_others_fault(&error) && tries < TRIES_MORE => tries += 1,
                    other => break other,
                }
            };
            let work = match work {
                Err(error) if is_data_fault(&error) => {
                    self.together(connection, one, Some(&error.to_string()))
                }
                other => other,
            };
            match work {
                Ok(work) => held.extend(work.told_to(counters)),
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
    ) -> Result<Work, SqlError> {
        connection.batch("BEGIN")?;
        let worked = self.work(connection, tasks, unstorable);
        match worked {
            Ok(work) => {
                connection.batch("COMMIT")?;
                Ok(work)
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
    ) -> Result<Work, SqlError> {
        let mut keys: Vec<BranchKey<'_>> = Vec::new();
        let mut places: HashMap<&Branch, usize> = HashMap::new();
        for task in tasks {
            places.entry(&task.branch).or_insert_with(|| {
                keys.push(task.branch.key());
                keys.len() - 1
            });
        }
        let (mut known, mut horizons) = self.statements.fetch(connection, &keys)?;
        let open = self.statements.count_open(connection, self.participant.as_str(), self.open_max)?;
        let mut work = Work { room: self.open_max - open, ..Work::default() };
        for task in tasks {
            let known = &mut known[places[&task.branch]];
            match &task.wish {
                Wish::Command(command) => {
                    self.on_command(connection, task, command, known, &mut horizons, &mut work, unstorable)?;
                }
                Wish::Verdict(decided) => on_verdict(task, *decided, known, &mut work),
            }
        }
        self.statements.insert(connection, self.participant.as_str(), &work.rows)?;
        self.statements.reply(connection, &work.replies)?;
        for (home, horizon) in horizons {
            if horizon.raised.since(horizon.stored).as_ms() >= RAISED_MS {
                self.statements.raise(connection, home, horizon.raised)?;
            }
        }
        Ok(work)
    }

    #[expect(clippy::too_many_arguments, reason = "what a batch shares, and what is one command's")]
    fn on_command(
        &self,
        connection: &mut Connection,
        task: &Task<'_>,
        command: &Command<'_>,
        known: &mut Known,
        horizons: &mut Horizons,
        work: &mut Work,
        unstorable: Option<&str>,
    ) -> Result<(), SqlError> {
        let operation = command.address.operation;
        let horizon = horizons.entry(task.branch.key().home()).or_default();
        // No transaction is issued before it is born, nor born before the watermark it carries.
        horizon.raised = horizon.raised.max(command.watermark.min(command.issued));
        if let Some(open) = known.open.iter().find(|open| open.operation == operation) {
            let (attempt, token) = (command.address.attempt, command.replytoken.as_deref());
            match open.place {
                Place::Table(number) => self.statements.adopt(connection, number, attempt, token)?,
                Place::Batch(index) => {
                    let row = &mut work.rows[index];
                    if row.attempt.is_none() {
                        (row.attempt, row.replytoken) = (Some(attempt), token.map(str::to_owned));
                    }
                }
            }
            work.counters.pending += 1;
            self.answer(work, command, Answer::Pending, None, PayloadRef::Absent);
            return Ok(());
        }
        if matches!(operation, Operation::Compensate | Operation::Abort)
            && self.cancel_forward(connection, command, known, work)? == Forward::Held
        {
            if !task.is_told {
                work.counters.pending += 1;
                self.answer(work, command, Answer::Pending, None, PayloadRef::Absent);
            }
            work.held.push(task.index);
            return Ok(());
        }
        let rows = known.counted();
        let decision = barrier::decide(operation, command.issued, &rows, horizon.raised);
        let answered = match decision {
            Decision::Repeat(stored) => {
                work.counters.repeated += 1;
                let (outcome, reason, data) = wire_answer(stored);
                self.answer(work, command, outcome, reason.as_deref(), data.as_ref());
                return Ok(());
            }
            Decision::Refuse(refusal) => {
                work.counters.settled += 1;
                self.answer(work, command, Answer::Refused, Some(refusal.as_str()), PayloadRef::Absent);
                return Ok(());
            }
            Decision::Later => {
                work.counters.settled += 1;
                self.answer(work, command, Answer::Error, Some(REASON_IN_DOUBT), PayloadRef::Absent);
                return Ok(());
            }
            Decision::Perform if work.room == 0 => {
                work.counters.crowded += 1;
                let reason = format!("too many commands are open: {}", self.open_max);
                self.answer(work, command, Answer::Error, Some(&reason), PayloadRef::Absent);
                return Ok(());
            }
            Decision::Perform => match unstorable {
                None => None,
                Some(why) => Some((Stored::Refused(format!("bad-input: {why}").into()), None)),
            },
            Decision::PerformOn(_) => match unstorable {
                None => None,
                Some(why) => {
                    work.counters.settled += 1;
                    self.answer(work, command, Answer::Error, Some(why), PayloadRef::Absent);
                    return Ok(());
                }
            },
            Decision::Nothing { cancels } => Some((Stored::Done(Payload::Absent), cancels)),
        };
        let Some((stored, cancels)) = answered else {
            let place = Place::Batch(work.rows.len());
            known.open.push(Open { operation, place });
            work.rows.push(new_row(task, command, operation, None, None));
            work.counters.opened += 1;
            work.room = work.room.saturating_sub(1);
            return Ok(());
        };
        if let Some(cancelled) = cancels {
            work.rows.push(new_row(task, command, cancelled, Some(CANCELLED), None));
            known.rows.push(Row { operation: cancelled, issued: command.issued, answer: Stored::Cancelled });
        }
        let (outcome, reason, _) = wire_answer(&stored);
        let answer = if outcome == Answer::Ok { DONE } else { REFUSED };
        work.rows.push(new_row(task, command, operation, Some(answer), reason.clone()));
        known.rows.push(Row { operation, issued: command.issued, answer: stored });
        work.counters.settled += 1;
        self.answer(work, command, outcome, reason.as_deref(), PayloadRef::Absent);
        Ok(())
    }

    /// Before anything is undone: what is open and would do it is cancelled.
    fn cancel_forward(
        &self,
        connection: &mut Connection,
        command: &Command<'_>,
        known: &mut Known,
        work: &mut Work,
    ) -> Result<Forward, SqlError> {
        for forward in [Operation::Execute, Operation::Prepare] {
            let Some(at) = known.open.iter().position(|open| open.operation == forward) else { continue };
            let fate = match known.open[at].place {
                Place::Table(number) => self.statements.cancel(connection, number)?,
                Place::Batch(index) => {
                    let row = &mut work.rows[index];
                    (row.answer, row.data, row.data_base64) = (Some(CANCELLED), None, None);
                    Fate::Cancelled
                }
            };
            let answer = match fate {
                Fate::Held => return Ok(Forward::Held),
                Fate::Gone => None,
                Fate::Answered(stored) => Some(stored),
                Fate::Cancelled => Some(Stored::Cancelled),
            };
            known.open.remove(at);
            known.rows.extend(answer.map(|answer| Row {
                operation: forward,
                issued: command.issued,
                answer,
            }));
        }
        Ok(Forward::Free)
    }

    fn answer(
        &self,
        work: &mut Work,
        command: &Command<'_>,
        outcome: Answer,
        reason: Option<&str>,
        data: PayloadRef<'_>,
    ) {
        let reply = Reply {
            address: command.address.clone(),
            instance: command.instance,
            source: Cow::Owned(format!("/{}", self.participant)),
            outcome,
            reason: reason.map(Cow::Borrowed),
            replytoken: command.replytoken.as_deref().map(Cow::Borrowed),
            data,
        };
        let record = String::from_utf8(reply.to_json());
        let record = record.unwrap_or_else(|_| unreachable!("the writer writes text"));
        work.replies.push((command.address.subject.to_string(), record));
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
                (Wish::Command(command), branch)
            }
            Ok(Asked::Verdict(verdict)) => {
                let Verdict { inquiry, decision } = &verdict;
                if inquiry.participant != self.participant {
                    warn!(asker = %inquiry.participant, "the answer to another participant's inquiry; passed over");
                    return None;
                }
                (Wish::Verdict(*decision), branch_of(&verdict))
            }
            Err(cause) => {
                warn!(participant = %self.participant, %cause, "neither a command nor a verdict; passed over");
                return None;
            }
        };
        let key = record.key.as_deref();
        // A key is optional in Kafka: then commands of a transaction stay in order.
        let key = key.unwrap_or_default();
        Some(Task { index, key, is_told: record.is_told, wish, branch })
    }
}

fn on_verdict(task: &Task<'_>, decided: Decided, known: &mut Known, work: &mut Work) {
    let Branch { instance, subject, birth, step, branch } = &task.branch;
    let operation = match decided {
        Decided::Commit => Operation::Commit,
        Decided::Abort => Operation::Abort,
        Decided::Undecided => return,
        Decided::Forgotten if known.vote.is_some() => {
            error!(
                %instance, %subject, %birth, %step, %branch,
                "in doubt for ever: the transaction has ended and the coordinator no longer remembers how. Nothing is done. \
                 Look for the outcome of this birth in the outcomes or the journal, and write a sagamore.decision.v1 with \
                 commit or abort to this topic"
            );
            work.counters.alarms += 1;
            return;
        }
        Decided::Forgotten => return,
    };
    let other = if operation == Operation::Commit { Operation::Abort } else { Operation::Commit };
    let is_there = |operation| {
        known.rows.iter().any(|row| row.operation == operation && matches!(row.answer, Stored::Done(_)))
            || known.open.iter().any(|open| open.operation == operation)
    };
    if is_there(other) {
        error!(
            %instance, %subject, %birth, %step, %branch, decision = decided.as_str(), has = %other,
            "a verdict against what this branch has done. Nothing is done. Compare the books of all branches of this step"
        );
        work.counters.alarms += 1;
        return;
    }
    if is_there(operation) {
        return;
    }
    let Some(vote) = &known.vote else { return };
    let result = known.rows.iter().find(|row| row.operation == Operation::Prepare).map(|row| &row.answer);
    let result = match result {
        Some(Stored::Done(result)) => result.as_ref().json().filter(|_| result.size_bytes() > 0),
        Some(Stored::Refused(_) | Stored::Cancelled) | None => None,
    };
    let fields = [
        vote.data.as_ref().map(|data| format!("\"input\":{data}")),
        vote.data_base64.as_ref().map(|text| format!("\"input_base64\":\"{text}\"")),
        result.map(|result| format!("\"result\":{result}")),
    ];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    let place = Place::Batch(work.rows.len());
    work.rows.push(NewRow {
        key: key_of(task),
        branch: task.branch.clone(),
        operation,
        attempt: None,
        issued: vote.issued,
        deadline: None,
        definition: None,
        traceparent: None,
        replytoken: None,
        data: Some(format!("{{{}}}", fields.join(","))),
        data_base64: None,
        answer: None,
        reason: None,
    });
    known.open.push(Open { operation, place });
    work.counters.verdicts += 1;
}

#[derive(PartialEq, Eq)]
enum Forward {
    Free,
    Held,
}

impl Known {
    /// What the barrier is asked with.
    fn counted(&self) -> Cow<'_, [Row]> {
        let mut rows = Cow::Borrowed(self.rows.as_slice());
        for open in &self.open {
            if !matches!(open.operation, Operation::Execute | Operation::Prepare) {
                let answer = Stored::Done(Payload::Absent);
                let issued = sagamore_schemas::ids::Time::MAX;
                rows.to_mut().push(Row { operation: open.operation, issued, answer });
            }
        }
        rows
    }
}

impl Work {
    fn told_to(self, counters: &mut Counters) -> Vec<usize> {
        let Counters { opened, repeated, pending, settled, crowded, verdicts, alarms, .. } = self.counters;
        counters.opened += opened;
        counters.repeated += repeated;
        counters.pending += pending;
        counters.settled += settled;
        counters.crowded += crowded;
        counters.verdicts += verdicts;
        counters.alarms += alarms;
        self.held
    }
}

fn key_of(task: &Task<'_>) -> Vec<u8> {
    if task.key.is_empty() { task.branch.subject.as_str().as_bytes().to_vec() } else { task.key.to_vec() }
}

fn new_row(
    task: &Task<'_>,
    command: &Command<'_>,
    operation: Operation,
    answer: Option<&'static str>,
    reason: Option<String>,
) -> NewRow {
    let text = |part: &Option<Cow<'_, str>>| part.as_deref().map(str::to_owned);
    let (data, data_base64) = match &command.data {
        PayloadRef::Json(raw) => (Some(raw.get().to_owned()), None),
        PayloadRef::Base64(text) => (None, Some(text.as_ref().to_owned())),
        PayloadRef::Absent => (None, None),
    };
    let is_open = answer.is_none();
    NewRow {
        key: key_of(task),
        branch: task.branch.clone(),
        operation,
        attempt: Some(command.address.attempt),
        issued: command.issued,
        deadline: Some(command.deadline),
        definition: Some(command.definition.as_ref().to_owned()),
        traceparent: text(&command.traceparent),
        replytoken: text(&command.replytoken),
        data: data.filter(|_| is_open),
        data_base64: data_base64.filter(|_| is_open),
        answer,
        reason,
    }
}

fn wire_answer(stored: &Stored) -> (Answer, Option<String>, Payload) {
    match stored {
        Stored::Done(result) => (Answer::Ok, None, result.clone()),
        Stored::Refused(reason) => (Answer::Refused, Some(reason.to_string()), Payload::Absent),
        Stored::Cancelled => (Answer::Refused, Some(barrier::REASON_CANCELLED.to_owned()), Payload::Absent),
    }
}

/// The data's: no other batch and no other time would change it.
fn is_data_fault(error: &SqlError) -> bool {
    error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "54"))
}

/// Somebody else's row, or an order of locks: decided again, it is seen.
fn is_others_fault(error: &SqlError) -> bool {
    error.is_transient() || error.code().is_some_and(|code| code.code() == "23505")
}

//! What a batch of commands and verdicts comes to: decided one after the other, written together.

use std::borrow::Cow;

use sagamore_participant::barrier::{self, Branch, Decision, REASON_IN_DOUBT, Refusal, Row, Stored};
use sagamore_participant::code::Code;
use sagamore_participant::{Operation, Payload};
use sagamore_participant_postgres::{Connection, SqlError};
use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::wire::{Answer, Command, Decided, HeuristicWish, PayloadRef, Reply};
use tracing::{error, warn};

use crate::counters::Counters;
use crate::rows::{CANCELLED, DONE, Fate, Horizons, Known, NewRow, Open, Place, REFUSED, Statements};

/// One record of which nothing has been done yet.
pub(crate) struct Task<'r> {
    /// Which record.
    pub(crate) index: usize,
    pub(crate) key: &'r [u8],
    pub(crate) is_told: bool,
    pub(crate) wish: Wish<'r>,
    pub(crate) branch: Branch,
}

pub(crate) enum Wish<'r> {
    Command(Box<Command<'r>>),
    Verdict(Decided),
    /// An operator's word: its record as JSON is kept.
    ByHand(HeuristicWish, Decided, String),
}

/// A batch in an open transaction, and what is to be written in it.
pub(crate) struct Batch<'b> {
    pub(crate) connection: &'b mut Connection,
    pub(crate) statements: &'b Statements,
    pub(crate) participant: &'b Name,
    pub(crate) horizons: Horizons,
    /// How many may be open.
    pub(crate) open_max: usize,
    /// How many more.
    pub(crate) room: usize,
    /// Why the data of the one task cannot be stored.
    pub(crate) unstorable: Option<&'b str>,
    pub(crate) rows: Vec<NewRow>,
    /// Transaction ids and records.
    pub(crate) replies: Vec<(String, String)>,
    pub(crate) done: Done,
}

/// What is told of a batch once it is committed.
#[derive(Default)]
pub(crate) struct Done {
    /// Records that a worker stands in the way of.
    pub(crate) held: Vec<usize>,
    /// Of this batch alone.
    counters: Counters,
}

/// Whether a worker has the operation that is to be undone.
#[derive(PartialEq, Eq)]
enum Forward {
    Free,
    Held,
}

impl Batch<'_> {
    pub(crate) fn decide(&mut self, task: &Task<'_>, known: &mut Known) -> Result<(), SqlError> {
        match &task.wish {
            Wish::Command(command) => self.on_command(task, command, known),
            Wish::Verdict(decided) => {
                self.on_verdict(task, *decided, known);
                Ok(())
            }
            Wish::ByHand(wish, decided, said) => {
                self.on_word(task, *wish, *decided, said, known);
                Ok(())
            }
        }
    }

    fn on_command(
        &mut self,
        task: &Task<'_>,
        command: &Command<'_>,
        known: &mut Known,
    ) -> Result<(), SqlError> {
        let operation = command.address.operation;
        let horizon = self.horizons.entry(task.branch.key().home()).or_default();
        // No transaction is issued before it is born, nor born before the watermark it carries.
        horizon.raised = horizon.raised.max(command.watermark.min(command.issued));
        let horizon = horizon.raised;
        if let Some(open) = known.open.iter().find(|open| open.operation == operation) {
            self.adopt(open.place, command)?;
            self.done.counters.pending += 1;
            self.answer(command, Answer::Pending, None, PayloadRef::Absent);
            return Ok(());
        }
        if matches!(operation, Operation::Compensate | Operation::Abort)
            && self.cancel_forward(command, known)? == Forward::Held
        {
            if !task.is_told {
                self.done.counters.pending += 1;
                self.answer(command, Answer::Pending, None, PayloadRef::Absent);
            }
            self.done.held.push(task.index);
            return Ok(());
        }
        let rows = counted(known);
        match barrier::decide(operation, command.issued, &rows, horizon) {
            Decision::Repeat(stored) => {
                self.done.counters.repeated += 1;
                let (outcome, reason) = wire_answer(stored);
                let result = match stored {
                    Stored::Done(result) => result.as_ref(),
                    Stored::Refused(_) | Stored::Cancelled | Stored::ByHand => PayloadRef::Absent,
                };
                self.answer(command, outcome, reason, result);
            }
            Decision::Refuse(refusal) => {
                if refusal == Refusal::Mixed {
                    self.tell_mixed(task, operation);
                }
                self.settle(command, Answer::Refused, refusal.as_str());
            }
            Decision::Later => self.settle(command, Answer::Error, REASON_IN_DOUBT),
            Decision::Perform if self.room == 0 => {
                self.done.counters.crowded += 1;
                let reason = format!("too many commands are open: {}", self.open_max);
                self.answer(command, Answer::Error, Some(&reason), PayloadRef::Absent);
            }
            Decision::Perform => match self.unstorable {
                None => self.open(task, command, known),
                Some(why) => {
                    let refused = Stored::Refused(format!("bad-input: {why}").into());
                    self.keep(task, command, known, &refused, None);
                }
            },
            Decision::PerformOn(_) => match self.unstorable {
                None => self.open(task, command, known),
                Some(why) => self.settle(command, Answer::Error, why),
            },
            Decision::Nothing { cancels } => {
                self.keep(task, command, known, &Stored::Done(Payload::Absent), cancels);
            }
        }
        Ok(())
    }

    /// A verdict had asked for it: from now on there is somebody to reply to.
    fn adopt(&mut self, place: Place, command: &Command<'_>) -> Result<(), SqlError> {
        let (attempt, token) = (command.address.attempt, command.replytoken.as_deref());
        match place {
            Place::Table(number) => self.statements.adopt(self.connection, number, attempt, token),
            Place::Batch(index) => {
                let row = &mut self.rows[index];
                if row.attempt.is_none() {
                    (row.attempt, row.replytoken) = (Some(attempt), token.map(str::to_owned));
                }
                Ok(())
            }
        }
    }

    /// Before anything is undone: what is open and would do it is cancelled.
    fn cancel_forward(&mut self, command: &Command<'_>, known: &mut Known) -> Result<Forward, SqlError> {
        for forward in [Operation::Execute, Operation::Prepare] {
            let Some(at) = known.open.iter().position(|open| open.operation == forward) else { continue };
            let fate = match known.open[at].place {
                Place::Table(number) => self.statements.cancel(self.connection, number)?,
                Place::Batch(index) => {
                    let row = &mut self.rows[index];
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
            let row = |answer| Row { operation: forward, issued: command.issued, answer };
            known.rows.extend(answer.map(row));
        }
        Ok(Forward::Free)
    }

    /// For a worker.
    fn open(&mut self, task: &Task<'_>, command: &Command<'_>, known: &mut Known) {
        let operation = command.address.operation;
        let place = Place::Batch(self.rows.len());
        known.open.push(Open { operation, place, is_by_hand: false });
        self.rows.push(new_row(task, command, operation, None));
        self.done.counters.opened += 1;
        self.room = self.room.saturating_sub(1);
    }

    /// Answered for good, without a worker.
    fn keep(
        &mut self,
        task: &Task<'_>,
        command: &Command<'_>,
        known: &mut Known,
        answer: &Stored,
        cancels: Option<Operation>,
    ) {
        let (outcome, reason) = wire_answer(answer);
        let cancelled = cancels.map(|operation| (operation, &Stored::Cancelled));
        for (operation, answer) in cancelled.into_iter().chain([(command.address.operation, answer)]) {
            self.rows.push(new_row(task, command, operation, Some(answer)));
            known.rows.push(Row { operation, issued: command.issued, answer: answer.clone() });
        }
        self.done.counters.settled += 1;
        self.answer(command, outcome, reason, PayloadRef::Absent);
    }

    /// Answered, and nothing is kept.
    fn settle(&mut self, command: &Command<'_>, outcome: Answer, reason: &str) {
        self.done.counters.settled += 1;
        self.answer(command, outcome, Some(reason), PayloadRef::Absent);
    }

    fn answer(&mut self, command: &Command<'_>, outcome: Answer, reason: Option<&str>, data: PayloadRef<'_>) {
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
        self.replies.push((command.address.subject.to_string(), record));
    }

    fn on_verdict(&mut self, task: &Task<'_>, decided: Decided, known: &mut Known) {
        let Branch { instance, subject, birth, step, branch } = &task.branch;
        let operation = match decided {
            Decided::Commit => Operation::Commit,
            Decided::Abort => Operation::Abort,
            Decided::Forgotten if known.vote.is_some() => {
                error!(
                    code = %Code::DecisionForgotten, %instance, %subject, %birth, %step, %branch,
                    "in doubt for ever: the transaction has ended and the coordinator no longer remembers how. Nothing is \
                     done. Look for the outcome of this birth in the outcomes or the journal, and write a \
                     sagamore.decision.v1 with commit or abort to this topic"
                );
                self.done.counters.alarms += 1;
                return;
            }
            Decided::Undecided | Decided::Forgotten => return,
        };
        let other = opposite(operation);
        if stands(known, other) {
            if is_by_hand(known, other) {
                self.tell_mixed(task, operation);
                return;
            }
            error!(
                code = %Code::Contradicted, %instance, %subject, %birth, %step, %branch,
                decision = decided.as_str(), has = %other,
                "a verdict against what this branch has done. Nothing is done. Compare the books of all branches of this step"
            );
            self.done.counters.alarms += 1;
            return;
        }
        if !stands(known, operation) {
            self.open_from_vote(task, operation, known, None);
        }
    }

    /// What an operator decides: a branch in doubt is ended so, and what is mixed is taken for repaired.
    fn on_word(
        &mut self,
        task: &Task<'_>,
        wish: HeuristicWish,
        decided: Decided,
        said: &str,
        known: &mut Known,
    ) {
        let operation = match decided {
            Decided::Commit => Operation::Commit,
            Decided::Abort => Operation::Abort,
            Decided::Undecided | Decided::Forgotten => return,
        };
        let other = opposite(operation);
        let Branch { subject, birth, step, branch, .. } = &task.branch;
        match wish {
            HeuristicWish::Decided if !stands(known, operation) && !stands(known, other) => {
                warn!(%subject, %birth, %step, %branch, %operation, said, "decided by hand");
                self.open_from_vote(task, operation, known, Some(said.to_owned()));
            }
            HeuristicWish::Repaired if is_by_hand(known, other) && !stands(known, operation) => {
                warn!(%subject, %birth, %step, %branch, %operation, said, "the books have been set right by hand");
                let issued = known.rows.first().map_or(Time::default(), |row| row.issued);
                let answer = Stored::ByHand;
                let by_hand = Some(said.to_owned());
                self.rows.push(NewRow { answer: Some(DONE), by_hand, ..of_branch(task, operation, issued) });
                known.rows.push(Row { operation, issued, answer });
                self.done.counters.settled += 1;
            }
            HeuristicWish::Decided | HeuristicWish::Repaired => {
                warn!(%subject, %birth, %step, %branch, %operation, said, "an operator's word about a branch that it is not for");
                self.done.counters.passed_over += 1;
            }
        }
    }

    /// As its command would have brought it, from the vote; nothing without one.
    fn open_from_vote(
        &mut self,
        task: &Task<'_>,
        operation: Operation,
        known: &mut Known,
        by_hand: Option<String>,
    ) {
        let Some(vote) = &known.vote else { return };
        let result = known.rows.iter().find_map(|row| match (row.operation, &row.answer) {
            (Operation::Prepare, Stored::Done(Payload::Json(result))) => Some(result.get()),
            _ => None,
        });
        let fields = [
            vote.data.as_ref().map(|data| format!("\"input\":{data}")),
            vote.data_base64.as_ref().map(|text| format!("\"input_base64\":\"{text}\"")),
            result.map(|result| format!("\"result\":{result}")),
        ];
        let fields: Vec<String> = fields.into_iter().flatten().collect();
        let place = Place::Batch(self.rows.len());
        let is_by_hand = by_hand.is_some();
        let data = Some(format!("{{{}}}", fields.join(",")));
        self.rows.push(NewRow { data, by_hand, ..of_branch(task, operation, vote.issued) });
        known.open.push(Open { operation, place, is_by_hand });
        self.done.counters.verdicts += 1;
    }

    fn tell_mixed(&mut self, task: &Task<'_>, operation: Operation) {
        let Branch { instance, subject, birth, step, branch } = &task.branch;
        error!(
            code = %Code::HeuristicMixed, %instance, %subject, %birth, %step, %branch, %operation,
            "the coordinator has decided against what an operator had decided by hand"
        );
        self.done.counters.alarms += 1;
    }
}

impl Done {
    /// Counts, and returns what is to be decided again.
    pub(crate) fn told_to(self, counters: &mut Counters) -> Vec<usize> {
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

/// What the barrier is asked with: what nothing refuses counts as answered while it is open.
fn counted(known: &Known) -> Vec<Row> {
    let is_forward = |operation| matches!(operation, Operation::Execute | Operation::Prepare);
    let open = known.open.iter().filter(|open| !is_forward(open.operation));
    let counts = |open: &Open| Row {
        operation: open.operation,
        issued: Time::MAX,
        answer: if open.is_by_hand { Stored::ByHand } else { Stored::Done(Payload::Absent) },
    };
    known.rows.iter().cloned().chain(open.map(counts)).collect()
}

const fn opposite(operation: Operation) -> Operation {
    if matches!(operation, Operation::Commit) { Operation::Abort } else { Operation::Commit }
}

/// Whether it was done, or waits for a worker.
fn stands(known: &Known, operation: Operation) -> bool {
    let is_done =
        |row: &Row| row.operation == operation && matches!(row.answer, Stored::Done(_) | Stored::ByHand);
    known.rows.iter().any(is_done) || known.open.iter().any(|open| open.operation == operation)
}

fn is_by_hand(known: &Known, operation: Operation) -> bool {
    known.rows.iter().any(|row| row.operation == operation && matches!(row.answer, Stored::ByHand))
        || known.open.iter().any(|open| open.operation == operation && open.is_by_hand)
}

/// A row that no command has asked for.
fn of_branch(task: &Task<'_>, operation: Operation, issued: Time) -> NewRow {
    NewRow {
        key: key_of(task),
        branch: task.branch.clone(),
        operation,
        attempt: None,
        issued,
        deadline: None,
        definition: None,
        traceparent: None,
        replytoken: None,
        data: None,
        data_base64: None,
        answer: None,
        reason: None,
        by_hand: None,
    }
}

/// A key is optional in Kafka: without one, commands of a transaction stay in order.
fn key_of(task: &Task<'_>) -> Vec<u8> {
    if task.key.is_empty() { task.branch.subject.as_str().as_bytes().to_vec() } else { task.key.to_vec() }
}

fn new_row(task: &Task<'_>, command: &Command<'_>, operation: Operation, answer: Option<&Stored>) -> NewRow {
    let text = |part: &Option<Cow<'_, str>>| part.as_deref().map(str::to_owned);
    let (data, data_base64) = match (&command.data, answer) {
        (PayloadRef::Json(raw), None) => (Some(raw.get().to_owned()), None),
        (PayloadRef::Base64(text), None) => (None, Some(text.as_ref().to_owned())),
        (PayloadRef::Absent, None) | (_, Some(_)) => (None, None),
    };
    let (answer, reason) = match answer {
        None => (None, None),
        Some(Stored::Done(_) | Stored::ByHand) => (Some(DONE), None),
        Some(Stored::Refused(reason)) => (Some(REFUSED), Some(reason.to_string())),
        Some(Stored::Cancelled) => (Some(CANCELLED), None),
    };
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
        data,
        data_base64,
        answer,
        reason,
        by_hand: None,
    }
}

fn wire_answer(stored: &Stored) -> (Answer, Option<&str>) {
    match stored {
        Stored::Done(_) | Stored::ByHand => (Answer::Ok, None),
        Stored::Refused(reason) => (Answer::Refused, Some(reason)),
        Stored::Cancelled => (Answer::Refused, Some(barrier::REASON_CANCELLED)),
    }
}

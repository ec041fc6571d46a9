//! In doubt: a branch has voted yes and has not been told what was decided.
//!
//! | the branch hears | rows | and then |
//! |---|---|---|
//! | its `commit` or `abort` | as `barrier` says | answers |
//! | a verdict `commit` or `abort` | the very same: [`settle`] performs that command, made from its vote | no reply |
//! | a verdict `undecided` | | waits |
//! | a verdict `forgotten` | | waits, loudly: a person has to say what became of it |
//! | a verdict, and it is not in doubt | | nothing; loudly, when the verdict contradicts its rows |
//! | a verdict of an operator | as `heuristic` says | no reply |
//! | nothing for `unilateral_after`, prepared | abort: [`decide_alone`] | answers what comes later from its rows |
//! | nothing for `unilateral_after`, precommitted | commit: [`decide_alone`] | as before |
//! | nothing, and there is no `unilateral_after` | | asks, and decides nothing |
//!
//! A verdict is not answered by a reply: an answer counts for the present attempt of a command, which a verdict does not
//! name; and the command itself is asked until it is answered, which the stored row then does.
//!
//! The last two rows but one are the termination rule of D. Skeen, "Nonblocking Commit Protocols", SIGMOD 1981. It holds
//! while every message arrives and every process answers in time. Otherwise it splits the branches: the model
//! `three-phase` in `tests/model` tells how, without "waiting when in doubt".
//!
//! Deliberately absent: clocks, Kafka. When to ask, and when time is up, is the runtime's.

use std::borrow::Cow;
use std::sync::Arc;

use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::wire::{
    Address, Command, Decided, Inquiry, Operation, Payload, PayloadRef, ReadError, Verdict, read_command,
};

use crate::barrier::{self, Branch, BranchKey, Decision, Refusal, Row, Stored};
use crate::heuristic::{self, ByHand};
use crate::participant::Participant;
use crate::perform::{Answered, perform_as};
use crate::store::{LocalTransaction, Store, StoreFault};

/// What is kept of a vote until it is decided: the `prepare` itself, without its token. It names whom to ask, and
/// has the input that `commit` and `abort` carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote(Arc<[u8]>);

impl Vote {
    /// From the `prepare` that is answered `ok`.
    pub fn of(prepare: &Command<'_>) -> Self {
        Self(again(prepare, Operation::Prepare, prepare.data.clone()).to_json().into())
    }

    /// As a store has kept it.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// For a store to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The `prepare`.
    pub fn prepare(&self) -> Result<Command<'_>, ReadError> {
        read_command(Some(&self.0))
    }
}

/// A branch in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// Which one.
    pub branch: Branch,
    /// Its vote.
    pub vote: Vote,
}

/// What a branch in doubt asks.
pub fn inquiry(branch: &Branch, participant: &Name) -> Inquiry<'static> {
    Inquiry {
        instance: branch.instance,
        subject: branch.subject.clone(),
        birth: branch.birth,
        step: branch.step.to_string().into(),
        branch: branch.branch.to_string().into(),
        participant: participant.clone(),
    }
}

/// The branch that a verdict is about.
pub fn branch_of(verdict: &Verdict<'_>) -> Branch {
    let Inquiry { instance, subject, birth, step, branch, participant: _ } = &verdict.inquiry;
    Branch {
        instance: *instance,
        subject: subject.clone(),
        birth: *birth,
        step: step.as_ref().into(),
        branch: branch.as_ref().into(),
    }
}

/// What became of a verdict.
#[derive(Debug)]
pub enum Settled {
    /// The branch was told to commit or abort, and this came of it: `ok`, or an `error` that is asked again.
    Told(Answered),
    /// It goes on waiting.
    Undecided,
    /// It is in doubt, and the coordinator cannot say any more what was decided.
    Forgotten,
    /// It is not in doubt, and what it has done is what the verdict says, or unknown here.
    NotInDoubt,
    /// It has done the opposite: one side has lost its memory, or has decided by itself, or by hand.
    Contradicted(Refusal),
    /// What an operator had decided against the coordinator counts as set right.
    Repaired,
    /// There is nothing to be set right.
    NotMixed,
}

/// Carries out a verdict, as if the command of that name had come. The caller commits `tx`.
pub fn settle<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    branch: &Branch,
    decision: Decided,
) -> Result<Settled, StoreFault> {
    let key = branch.key();
    let operation = match decision {
        Decided::Commit => Operation::Commit,
        Decided::Abort => Operation::Abort,
        Decided::Undecided => return Ok(Settled::Undecided),
        Decided::Forgotten if tx.vote(&key)?.is_some() => return Ok(Settled::Forgotten),
        Decided::Forgotten => return Ok(Settled::NotInDoubt),
    };
    if let Some(answered) = tell(participant, tx, &key, operation, None)? {
        return Ok(Settled::Told(answered));
    }
    if let Some(refusal) = contradicting(tx, &key, operation)? {
        if refusal == Refusal::Mixed {
            heuristic::contradict(tx, &key)?;
        }
        return Ok(Settled::Contradicted(refusal));
    }
    if tx.rows(&key)?.iter().any(|row| row.operation == operation && matches!(row.answer, Stored::ByHand)) {
        heuristic::agree(tx, &key)?;
    }
    Ok(Settled::NotInDoubt)
}

/// Whether a branch that is not in doubt has done the opposite.
pub(crate) fn contradicting<T: LocalTransaction>(
    tx: &mut T,
    key: &BranchKey<'_>,
    operation: Operation,
) -> Result<Option<Refusal>, StoreFault> {
    // The horizon does not matter: nothing is done here.
    Ok(match barrier::decide(operation, Time::MAX, tx.rows(key)?, Time::default()) {
        Decision::Refuse(refusal @ (Refusal::Aborted | Refusal::Committed | Refusal::Mixed)) => Some(refusal),
        Decision::Refuse(Refusal::Expired | Refusal::NotPrepared)
        | Decision::Perform
        | Decision::PerformOn(_)
        | Decision::Repeat(_)
        | Decision::Nothing { .. }
        | Decision::Later => None,
    })
}

/// Skeen's rule for a branch whose time is up: prepared, it aborts; precommitted, it commits. `None`: it is not in doubt.
pub fn decide_alone<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    branch: &Branch,
) -> Result<Option<(Operation, Answered)>, StoreFault> {
    let key = branch.key();
    let is_precommitted = done(tx.rows(&key)?, Operation::Precommit).is_some();
    let operation = if is_precommitted { Operation::Commit } else { Operation::Abort };
    Ok(tell(participant, tx, &key, operation, None)?.map(|answered| (operation, answered)))
}

/// Performs `commit` or `abort` of a branch that is in doubt. `None`: it is not.
pub(crate) fn tell<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    key: &BranchKey<'_>,
    operation: Operation,
    by_hand: Option<&ByHand>,
) -> Result<Option<Answered>, StoreFault> {
    let Some(vote) = tx.vote(key)? else { return Ok(None) };
    let unreadable =
        |cause: &dyn std::fmt::Display| StoreFault::Unavailable(format!("a stored vote: {cause}"));
    let prepare = vote.prepare().map_err(|cause| unreadable(&cause))?;
    let Some(result) = done(tx.rows(key)?, Operation::Prepare) else { return Ok(None) };
    let fields = [field("input", &prepare.data), field("result", &result.as_ref())];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    let data = Payload::from_json(format!("{{{}}}", fields.join(","))).map_err(|cause| unreadable(&cause))?;
    perform_as(participant, tx, &again(&prepare, operation, data.as_ref()), by_hand).map(Some)
}

fn done(rows: &[Row], operation: Operation) -> Option<&Payload> {
    rows.iter().filter(|row| row.operation == operation).find_map(|row| match &row.answer {
        Stored::Done(result) => Some(result),
        Stored::Refused(_) | Stored::Cancelled | Stored::ByHand => None,
    })
}

/// Input and result, as a coordinator names them in what it sends after the vote.
fn field(name: &str, payload: &PayloadRef<'_>) -> Option<String> {
    match payload {
        PayloadRef::Json(raw) => Some(format!("\"{name}\":{}", raw.get())),
        PayloadRef::Base64(text) => {
            Some(format!("\"{name}_base64\":{}", serde_json::Value::from(text.as_ref())))
        }
        PayloadRef::Absent => None,
    }
}

/// Another command of the branch. Its watermark is none: the vote's is old, and raises nothing.
fn again<'c>(prepare: &'c Command<'_>, operation: Operation, data: PayloadRef<'c>) -> Command<'c> {
    let Address { subject, birth, step, branch, .. } = &prepare.address;
    Command {
        address: Address {
            subject: subject.clone(),
            birth: *birth,
            step: Cow::Borrowed(step),
            branch: Cow::Borrowed(branch),
            operation,
            attempt: 1,
        },
        instance: prepare.instance,
        issued: prepare.issued,
        watermark: Time::default(),
        deadline: prepare.deadline,
        definition: Cow::Borrowed(&prepare.definition),
        replyto: Cow::Borrowed(&prepare.replyto),
        traceparent: prepare.traceparent.as_deref().map(Cow::Borrowed),
        replytoken: None,
        unilateral_after: prepare.unilateral_after,
        data,
    }
}

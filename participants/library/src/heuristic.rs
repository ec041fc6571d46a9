//! Decisions by hand: an operator ends a branch in doubt before the coordinator's decision is known, because what it holds
//! cannot wait. In the literature a heuristic decision.
//!
//! | standing | the branch hears | becomes | answer |
//! |---|---|---|---|
//! | in doubt | an operator's `commit` or `abort` | open | |
//! | open | the same from the coordinator | agreed | `ok` |
//! | open | the other one from the coordinator | mixed | `refused`, `heuristic-mixed` |
//! | mixed | an operator: the books have been set right | repaired | |
//! | repaired | the coordinator asks again | repaired | `ok` |
//! | any | anything else an operator says | as it was | |
//!
//! The first is carried out by the participant's own `commit` or `abort`, and its row says [`Stored::ByHand`]; who, why and
//! when stands beside it in a [`Heuristic`], which is never purged. A repair runs no code: the person has done the work. The
//! decision comes as a `sagamore.decision.v1` with `heuristic`, so it works for every store and every language.
//!
//! Deliberately absent: whether the person is right. What a mixed branch needs is said in the runbook, SAG-102.

use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{self, HeuristicWish, Operation};
use serde::{Deserialize, Serialize};

use crate::barrier::{Branch, BranchKey, Row, Stored};
use crate::doubt::{Settled, contradicting, tell};
use crate::participant::Participant;
use crate::store::{LocalTransaction, Store, StoreFault};

/// What is kept of a decision by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heuristic {
    /// `commit` or `abort`.
    pub operation: Operation,
    /// Who has decided it.
    pub decided: ByHand,
    /// What the coordinator said to it.
    pub standing: Standing,
    /// Who has set the books right, after it was mixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<ByHand>,
}

/// Who, why, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// Who.
    pub actor: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// When, by the operator's clock.
    #[serde(with = "as_text")]
    pub time: Time,
}

/// How a decision by hand stands to the coordinator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Nothing has been heard of that.
    Open,
    /// It is the same.
    Agreed,
    /// It is the opposite: the branches of the step have not ended alike.
    Mixed,
    /// It was the opposite, and somebody has set the books right.
    Repaired,
}

impl Standing {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Agreed => "agreed",
            Self::Mixed => "mixed",
            Self::Repaired => "repaired",
        }
    }
}

/// What an operator has said of a branch, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Decide, or take for repaired.
    pub wish: HeuristicWish,
    /// Who, why, when.
    pub by: ByHand,
}

impl From<&wire::Heuristic<'_>> for Said {
    fn from(heuristic: &wire::Heuristic<'_>) -> Self {
        let wire::Heuristic { wish, actor, reason, time } = heuristic;
        let by = ByHand { actor: actor.as_ref().into(), reason: reason.as_ref().into(), time: *time };
        Self { wish: *wish, by }
    }
}

impl Heuristic {
    /// Decided now.
    pub fn open(operation: Operation, decided: ByHand) -> Self {
        Self { operation, decided, standing: Standing::Open, repaired: None }
    }

    /// For a store to keep.
    pub fn to_json(&self) -> Result<String, StoreFault> {
        serde_json::to_string(self).map_err(|cause| unreadable(&cause))
    }

    /// As a store has kept it.
    pub fn from_json(text: &str) -> Result<Self, StoreFault> {
        serde_json::from_str(text).map_err(|cause| unreadable(&cause))
    }
}

fn unreadable(cause: &serde_json::Error) -> StoreFault {
    StoreFault::Unavailable(format!("a stored decision by hand: {cause}"))
}

/// Does what an operator has said. The caller commits `tx`.
pub fn settle_by_hand<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    branch: &Branch,
    operation: Operation,
    said: &Said,
) -> Result<Settled, StoreFault> {
    let key = branch.key();
    match said.wish {
        HeuristicWish::Decided => decide::<P>(participant, tx, &key, operation, &said.by),
        HeuristicWish::Repaired => repair(tx, &key, operation, &said.by),
    }
}

fn decide<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    key: &BranchKey<'_>,
    operation: Operation,
    by: &ByHand,
) -> Result<Settled, StoreFault> {
    if let Some(answered) = tell(participant, tx, key, operation, Some(by))? {
        return Ok(Settled::Told(answered));
    }
    let is_answered = tx.rows(key)?.iter().any(|row| row.operation == operation);
    let known = tx.heuristic(key)?;
    if !is_answered && known.is_some_and(|known| known.operation == operation) {
        // XA: the prepared transaction is ended, and the process died before the rows said so.
        tx.savepoint()?;
        tx.insert(key, Row { operation: Operation::Prepare, issued: by.time, answer: Stored::Cancelled })?;
        tx.insert(key, Row { operation, issued: by.time, answer: Stored::ByHand })?;
        return Ok(Settled::NotInDoubt);
    }
    Ok(contradicting(tx, key, operation)?.map_or(Settled::NotInDoubt, Settled::Contradicted))
}

fn repair<T: LocalTransaction>(
    tx: &mut T,
    key: &BranchKey<'_>,
    operation: Operation,
    by: &ByHand,
) -> Result<Settled, StoreFault> {
    let Some(known) = tx.heuristic(key)? else { return Ok(Settled::NotMixed) };
    if known.standing != Standing::Mixed || known.operation == operation {
        return Ok(Settled::NotMixed);
    }
    tx.savepoint()?;
    tx.insert(key, Row { operation, issued: by.time, answer: Stored::ByHand })?;
    tx.keep_heuristic(key, &Heuristic { standing: Standing::Repaired, repaired: Some(by.clone()), ..known })?;
    Ok(Settled::Repaired)
}

/// The coordinator has decided the same, or the books have been set right: notes the first.
pub(crate) fn agree<T: LocalTransaction>(tx: &mut T, key: &BranchKey<'_>) -> Result<(), StoreFault> {
    move_on(tx, key, Standing::Agreed)
}

/// The coordinator has decided the opposite.
pub(crate) fn contradict<T: LocalTransaction>(tx: &mut T, key: &BranchKey<'_>) -> Result<(), StoreFault> {
    move_on(tx, key, Standing::Mixed)
}

/// From `open`, and from nothing else: what was said first stands.
fn move_on<T: LocalTransaction>(
    tx: &mut T,
    key: &BranchKey<'_>,
    standing: Standing,
) -> Result<(), StoreFault> {
    let Some(known) = tx.heuristic(key)?.filter(|known| known.standing == Standing::Open) else {
        return Ok(());
    };
    tx.keep_heuristic(key, &Heuristic { standing, ..known })
}

mod as_text {
    use sagamore_schemas::ids::Time;
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

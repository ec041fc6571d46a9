//! The barrier: from what is remembered of a branch, what to do with a command. Pure.
//!
//! A **branch** is one participant's part of one step of one life of a transaction ([`BranchKey`]). Under it the
//! store keeps at most one [`Row`] per operation, in the local transaction that also contains the effect. `error`
//! answers are never kept. `done`, `no` and `–` below are what the row of the operation named before says: done
//! (answered `ok`), no (answered `refused`, or cancelled), or no such row.
//!
//! | operation | own row | what else is remembered | decision | answer | rows inserted |
//! |---|---|---|---|---|---|
//! | any | there | | repeat | the stored one; a cancelled one reads `refused`, `cancelled` | |
//! | any | – | no row of the branch, issued before the horizon | refuse | `refused`, `expired` | |
//! | `execute` | – | anything | perform | what it says | execute |
//! | `compensate` | – | execute done | undo it | `ok` | compensate |
//! | `compensate` | – | execute no | nothing | `ok` | compensate |
//! | `compensate` | – | execute –, prepare done, commit there | undo it | `ok` | compensate |
//! | `compensate` | – | execute –, prepare done, abort there | nothing | `ok` | compensate |
//! | `compensate` | – | execute –, prepare done, neither | later | `error`, `in-doubt` | |
//! | `compensate` | – | execute –, prepare no | nothing | `ok` | compensate |
//! | `compensate` | – | execute –, prepare – | nothing | `ok` | execute cancelled, compensate |
//! | `prepare` | – | anything | perform | what it says | prepare |
//! | `precommit` | – | commit there | nothing | `ok` | precommit |
//! | `precommit` | – | abort there, by hand | refuse | `refused`, `heuristic-mixed` | |
//! | `precommit` | – | prepare done, abort there | refuse | `refused`, `aborted` | |
//! | `precommit` | – | prepare done, neither | perform | `ok` | precommit |
//! | `precommit` | – | prepare no or – | refuse | `refused`, `not-prepared` | |
//! | `commit` | – | abort there, by hand | refuse | `refused`, `heuristic-mixed` | |
//! | `commit` | – | prepare done, abort there | refuse | `refused`, `aborted` | |
//! | `commit` | – | prepare done, no abort | perform | `ok` | commit |
//! | `commit` | – | prepare no or – | refuse | `refused`, `not-prepared` | |
//! | `abort` | – | commit there, by hand | refuse | `refused`, `heuristic-mixed` | |
//! | `abort` | – | prepare done, commit there | refuse | `refused`, `committed` | |
//! | `abort` | – | prepare done, no commit | undo it | `ok` | abort |
//! | `abort` | – | prepare no | nothing | `ok` | abort |
//! | `abort` | – | prepare – | nothing | `ok` | prepare cancelled, abort |
//!
//! An `execute` or `prepare` after its `compensate` or `abort` finds its own row, cancelled: the second line of the
//! two races that lose money elsewhere (empty compensation, hanging).
//!
//! **The horizon** is the largest watermark seen from that home ([`Home`]): what was issued before it may be purged.
//! The rows of a branch are purged together, and never while it is in doubt ([`in_doubt`]); so one row that is there
//! proves that nothing of its branch was purged, and `expired` is for branches of which nothing is there.
//!
//! `not-prepared`, `aborted` and `committed` cannot happen while coordinator and participant keep their promises:
//! they mean that one of them lost its memory. They are not stored, and make the transaction stuck.
//!
//! **By hand** is the row of a `commit` or `abort` that an operator has decided ([`Stored::ByHand`]). The coordinator's own
//! decision finds it: the same one is answered `ok`, the other one `heuristic-mixed`, which makes the transaction stuck.
//! When the books have been set right, a second row by hand, of the operation that was refused, answers it `ok`.
//!
//! Deliberately absent: clocks, stores, Kafka. The simulator runs this very code.

use sagamore_schemas::ids::{Birth, Partition, Time, TransactionId};
use sagamore_schemas::wire::{Command, Operation, Payload, REASON_EXPIRED};
use uuid::Uuid;

use crate::planted::{self, Defect};

/// The reason of a refused `execute` or `prepare` that comes after its own undoing.
pub const REASON_CANCELLED: &str = "cancelled";
/// The reason of an `error` while a prepared branch waits for its decision.
pub const REASON_IN_DOUBT: &str = "in-doubt";
/// The reason of a refused `precommit`, `commit` or `abort` after an operator has decided the opposite.
pub const REASON_MIXED: &str = "heuristic-mixed";

/// What names a branch in a participant's memory, together with the instance that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchKey<'a> {
    /// The installation.
    pub instance: Uuid,
    /// Transaction id.
    pub subject: &'a TransactionId,
    /// Which life of that id; its partition is the home.
    pub birth: Birth,
    /// Step of the definition.
    pub step: &'a str,
    /// Branch of the step.
    pub branch: &'a str,
}

impl<'a> BranchKey<'a> {
    /// The branch a command is about.
    pub fn of(command: &'a Command<'_>) -> Self {
        let address = &command.address;
        let mut birth = address.birth;
        if planted::is(Defect::BirthIgnored) {
            birth.offset = 0;
        }
        Self {
            instance: command.instance,
            subject: &address.subject,
            birth,
            step: &address.step,
            branch: &address.branch,
        }
    }

    /// Whose watermark covers this branch.
    pub fn home(&self) -> Home {
        Home { instance: self.instance, partition: self.birth.partition }
    }
}

/// A [`BranchKey`] that owns its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch {
    /// The installation.
    pub instance: Uuid,
    /// Transaction id.
    pub subject: TransactionId,
    /// Which life of that id.
    pub birth: Birth,
    /// Step of the definition.
    pub step: Box<str>,
    /// Branch of the step.
    pub branch: Box<str>,
}

impl Branch {
    /// As a key of the store.
    pub fn key(&self) -> BranchKey<'_> {
        let Self { instance, subject, birth, step, branch } = self;
        BranchKey { instance: *instance, subject, birth: *birth, step, branch }
    }
}

impl From<&BranchKey<'_>> for Branch {
    fn from(key: &BranchKey<'_>) -> Self {
        let BranchKey { instance, subject, birth, step, branch } = *key;
        Self { instance, subject: subject.clone(), birth, step: step.into(), branch: branch.into() }
    }
}

/// One shard of one installation: what a watermark is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// The installation.
    pub instance: Uuid,
    /// The inbox partition.
    pub partition: Partition,
}

/// One operation that is remembered.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which one; unique within its branch.
    pub operation: Operation,
    /// When it was issued; for a cancelled one, when the command was issued that cancelled it.
    pub issued: Time,
    /// What stands for it.
    pub answer: Stored,
}

/// What is remembered of an operation.
#[derive(Debug, Clone)]
pub enum Stored {
    /// Answered `ok`, with this result.
    Done(Payload),
    /// Answered `refused`, for this reason.
    Refused(Box<str>),
    /// Never done, and never to be done.
    Cancelled,
    /// A `commit` or `abort`: done, because an operator has decided so.
    ByHand,
}

/// What to do with a command.
#[derive(Debug)]
pub enum Decision<'r> {
    /// Do it, and store its answer.
    Perform,
    /// Undo or finish what was done with this result, and store the answer `ok`.
    PerformOn(&'r Payload),
    /// Answer what is stored, and do nothing.
    Repeat(&'r Stored),
    /// Do nothing; store the answer `ok`, after the row of the operation that must never be done, if any.
    Nothing {
        /// Whose row is inserted first, as cancelled.
        cancels: Option<Operation>,
    },
    /// Answer `refused`, and store nothing.
    Refuse(Refusal),
    /// Answer `error`, and store nothing: the branch waits for its decision.
    Later,
}

/// Why the barrier itself refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It may have been done and purged: unknown, not no.
    Expired,
    /// There is no vote to act on.
    NotPrepared,
    /// It was aborted before.
    Aborted,
    /// It was committed before.
    Committed,
    /// An operator has decided the opposite.
    Mixed,
}

impl Refusal {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => REASON_EXPIRED,
            Self::NotPrepared => "not-prepared",
            Self::Aborted => "aborted",
            Self::Committed => "committed",
            Self::Mixed => REASON_MIXED,
        }
    }
}

/// Decides. `rows` is everything remembered of the branch, in any order.
pub fn decide(operation: Operation, issued: Time, rows: &[Row], horizon: Time) -> Decision<'_> {
    if let Some(row) = row(rows, operation) {
        return Decision::Repeat(&row.answer);
    }
    if rows.is_empty() && issued < horizon && !planted::is(Defect::NoHorizon) {
        return Decision::Refuse(Refusal::Expired);
    }
    match operation {
        Operation::Execute | Operation::Prepare => Decision::Perform,
        Operation::Compensate => compensate(rows),
        Operation::Precommit => precommit(rows),
        Operation::Commit => commit(rows),
        Operation::Abort => abort(rows),
    }
}

/// Whether the branch has voted yes and waits for its decision. Such a branch is never purged.
pub fn in_doubt(rows: &[Row]) -> bool {
    matches!(forward(rows, Operation::Prepare), Forward::Done(_))
        && row(rows, Operation::Commit).is_none()
        && row(rows, Operation::Abort).is_none()
}

fn compensate(rows: &[Row]) -> Decision<'_> {
    let committed = row(rows, Operation::Commit).is_some();
    let aborted = row(rows, Operation::Abort).is_some();
    match (forward(rows, Operation::Execute), forward(rows, Operation::Prepare)) {
        (Forward::Done(result), _) => Decision::PerformOn(result),
        (Forward::No, _) | (Forward::Unknown, Forward::No) => Decision::Nothing { cancels: None },
        (Forward::Unknown, Forward::Done(result)) if committed => Decision::PerformOn(result),
        (Forward::Unknown, Forward::Done(_)) if aborted => Decision::Nothing { cancels: None },
        (Forward::Unknown, Forward::Done(_)) => Decision::Later,
        (Forward::Unknown, Forward::Unknown) => Decision::Nothing {
            cancels: Some(Operation::Execute).filter(|_| !planted::is(Defect::NoTombstone)),
        },
    }
}

fn precommit(rows: &[Row]) -> Decision<'_> {
    if row(rows, Operation::Commit).is_some() {
        return Decision::Nothing { cancels: None };
    }
    commit(rows)
}

fn commit(rows: &[Row]) -> Decision<'_> {
    if is_by_hand(rows, Operation::Abort) {
        return Decision::Refuse(Refusal::Mixed);
    }
    match forward(rows, Operation::Prepare) {
        Forward::Done(_) if row(rows, Operation::Abort).is_some() => Decision::Refuse(Refusal::Aborted),
        Forward::Done(result) => Decision::PerformOn(result),
        Forward::No | Forward::Unknown => Decision::Refuse(Refusal::NotPrepared),
    }
}

fn abort(rows: &[Row]) -> Decision<'_> {
    if is_by_hand(rows, Operation::Commit) {
        return Decision::Refuse(Refusal::Mixed);
    }
    match forward(rows, Operation::Prepare) {
        Forward::Done(_) if row(rows, Operation::Commit).is_some() => Decision::Refuse(Refusal::Committed),
        Forward::Done(result) => Decision::PerformOn(result),
        Forward::No => Decision::Nothing { cancels: None },
        Forward::Unknown => Decision::Nothing { cancels: Some(Operation::Prepare) },
    }
}

/// What became of an operation that others undo or finish.
enum Forward<'r> {
    Done(&'r Payload),
    No,
    Unknown,
}

fn forward(rows: &[Row], operation: Operation) -> Forward<'_> {
    match row(rows, operation).map(|row| &row.answer) {
        Some(Stored::Done(result)) => Forward::Done(result),
        Some(Stored::Refused(_) | Stored::Cancelled | Stored::ByHand) => Forward::No,
        None => Forward::Unknown,
    }
}

fn is_by_hand(rows: &[Row], operation: Operation) -> bool {
    row(rows, operation).is_some_and(|row| matches!(row.answer, Stored::ByHand))
}

fn row(rows: &[Row], operation: Operation) -> Option<&Row> {
    rows.iter().find(|row| row.operation == operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `given`: rows as `operation=done|refused|cancelled`; `when`: an operation, issued at 5; `then`: the decision.
    /// The horizon is 0, or what follows `@` in `when`.
    fn check(given: &str, when: &str, then: &str) {
        let rows: Vec<Row> = given.split_whitespace().map(remembered).collect();
        let (operation, horizon) = when.split_once('@').unwrap_or((when, "0"));
        let horizon = Time::from_epoch_ms(horizon.parse().unwrap());
        let decided = decide(parsed(operation), Time::from_epoch_ms(5), &rows, horizon);
        assert_eq!(told(&decided), then, "given [{given}] when {when}");
    }

    fn remembered(text: &str) -> Row {
        let (operation, answer) = text.split_once('=').unwrap();
        let answer = match answer {
            "done" => Stored::Done(Payload::from_json(format!("\"{operation}\"")).unwrap()),
            "refused" => Stored::Refused("no".into()),
            "cancelled" => Stored::Cancelled,
            "hand" => Stored::ByHand,
            other => panic!("{other}"),
        };
        Row { operation: parsed(operation), issued: Time::from_epoch_ms(1), answer }
    }

    fn parsed(operation: &str) -> Operation {
        Operation::ALL.into_iter().find(|known| known.as_str() == operation).expect(operation)
    }

    fn told(decision: &Decision<'_>) -> String {
        match decision {
            Decision::Perform => "perform".into(),
            Decision::PerformOn(result) => format!("perform on {}", result.as_ref().json().unwrap()),
            Decision::Repeat(Stored::Done(_)) => "repeat done".into(),
            Decision::Repeat(Stored::Refused(_)) => "repeat refused".into(),
            Decision::Repeat(Stored::Cancelled) => "repeat cancelled".into(),
            Decision::Repeat(Stored::ByHand) => "repeat by hand".into(),
            Decision::Nothing { cancels: None } => "nothing".into(),
            Decision::Nothing { cancels: Some(operation) } => format!("nothing, cancels {operation}"),
            Decision::Refuse(refusal) => format!("refuse {}", refusal.as_str()),
            Decision::Later => "later".into(),
        }
    }

    #[test]
    fn a_duplicate_repeats_what_is_stored_whatever_else_is_there() {
        for operation in Operation::ALL {
            for (stored, then) in
                [("done", "repeat done"), ("refused", "repeat refused"), ("cancelled", "repeat cancelled")]
            {
                check(&format!("{operation}={stored}"), operation.as_str(), then);
                check(&format!("{operation}={stored}"), &format!("{operation}@9"), then);
            }
        }
    }

    #[test]
    fn what_may_have_been_purged_is_expired() {
        for operation in Operation::ALL {
            check("", &format!("{operation}@6"), "refuse expired");
        }
        check("", "execute@5", "perform");
    }

    #[test]
    fn one_row_proves_that_nothing_of_its_branch_was_purged() {
        check("execute=done", "compensate@6", r#"perform on "execute""#);
        check("prepare=done", "commit@6", r#"perform on "prepare""#);
        check("prepare=done", "abort@6", r#"perform on "prepare""#);
    }

    #[test]
    fn sagas() {
        check("", "execute", "perform");
        check("execute=done", "compensate", r#"perform on "execute""#);
        check("execute=refused", "compensate", "nothing");
        check("execute=cancelled", "compensate", "nothing");
        check("", "compensate", "nothing, cancels execute");
        check("execute=cancelled compensate=done", "execute", "repeat cancelled");
        check("execute=done compensate=done", "execute", "repeat done");
        check("execute=done compensate=done", "compensate", "repeat done");
    }

    #[test]
    fn a_committed_branch_is_compensated_by_its_vote() {
        check("prepare=done commit=done", "compensate", r#"perform on "prepare""#);
        check("prepare=done abort=done", "compensate", "nothing");
        check("prepare=done", "compensate", "later");
        check("prepare=refused", "compensate", "nothing");
        check("prepare=cancelled abort=done", "compensate", "nothing");
    }

    #[test]
    fn atomic_commitment() {
        check("", "prepare", "perform");
        check("prepare=done", "precommit", r#"perform on "prepare""#);
        check("prepare=done commit=done", "precommit", "nothing");
        check("prepare=done abort=done", "precommit", "refuse aborted");
        check("prepare=done", "commit", r#"perform on "prepare""#);
        check("prepare=done precommit=done", "commit", r#"perform on "prepare""#);
        check("prepare=done abort=done", "commit", "refuse aborted");
        check("prepare=done", "abort", r#"perform on "prepare""#);
        check("prepare=done precommit=done", "abort", r#"perform on "prepare""#);
        check("prepare=done commit=done", "abort", "refuse committed");
        check("prepare=refused", "abort", "nothing");
        check("prepare=cancelled", "abort", "nothing");
        check("", "abort", "nothing, cancels prepare");
        check("prepare=cancelled abort=done", "prepare", "repeat cancelled");
        for operation in ["precommit", "commit"] {
            for given in ["", "prepare=refused", "prepare=cancelled abort=done"] {
                check(given, operation, "refuse not-prepared");
            }
        }
    }

    #[test]
    fn what_was_decided_by_hand_is_agreed_with_or_mixed() {
        // After a crash between the end of a prepared transaction and its rows the vote reads cancelled.
        for vote in ["prepare=done", "prepare=done precommit=done", "prepare=cancelled"] {
            let (aborted, committed) = (format!("{vote} abort=hand"), format!("{vote} commit=hand"));
            check(&aborted, "abort", "repeat by hand");
            check(&aborted, "commit", "refuse heuristic-mixed");
            check(&committed, "commit", "repeat by hand");
            check(&committed, "abort", "refuse heuristic-mixed");
            check(&aborted, "compensate", "nothing");
        }
        check("prepare=done abort=hand", "precommit", "refuse heuristic-mixed");
        check("prepare=done commit=hand", "precommit", "nothing");
        check("prepare=done commit=hand", "compensate", r#"perform on "prepare""#);
        check("prepare=done abort=hand", "prepare", "repeat done");
        // Both rows: it was mixed, and has been repaired.
        for repaired in ["prepare=done abort=hand commit=hand", "prepare=done commit=hand abort=hand"] {
            check(repaired, "commit", "repeat by hand");
            check(repaired, "abort", "repeat by hand");
            check(repaired, "precommit", "nothing");
        }
    }

    #[test]
    fn only_a_vote_without_a_decision_is_in_doubt() {
        for (given, then) in [
            ("", false),
            ("execute=done", false),
            ("prepare=refused", false),
            ("prepare=cancelled abort=done", false),
            ("prepare=done", true),
            ("prepare=done precommit=done", true),
            ("prepare=done commit=done", false),
            ("prepare=done abort=done", false),
            ("prepare=done commit=hand", false),
            ("prepare=done abort=hand", false),
        ] {
            let rows: Vec<Row> = given.split_whitespace().map(remembered).collect();
            assert_eq!(in_doubt(&rows), then, "{given}");
        }
    }
}

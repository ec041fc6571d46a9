//! One command in an open local transaction: asks the barrier, calls the business code, remembers the answer.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sagamore_schemas::wire::{Answer, Command, Operation, Payload};

use crate::barrier::{self, BranchKey, Decision, REASON_CANCELLED, REASON_IN_DOUBT, Refusal, Row, Stored};
use crate::doubt::Vote;
use crate::heuristic::{self, ByHand, Heuristic};
use crate::participant::{Effect, Fault, Participant};
use crate::planted::{self, Defect};
use crate::store::{LocalTransaction, Store, StoreFault};

/// How often a command is decided again because another instance of this participant was quicker: the second look
/// sees the other's row, so more than one more turn means that something else is wrong.
const CONFLICTS_MAX: usize = 3;

/// The answer to a command, and how it came about.
#[derive(Debug)]
pub struct Answered {
    /// For the reply.
    pub outcome: Answer,
    /// Why, for a refusal or an error.
    pub reason: Option<Cow<'static, str>>,
    /// The result.
    pub data: Payload,
    /// What was done for it.
    pub work: Work,
}

/// What was done for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Business code ran, and its effect is kept.
    Effect,
    /// Business code ran and said no.
    Refusal,
    /// Nothing: the stored answer was repeated.
    Repeated,
    /// Nothing: there was nothing to undo, or the barrier refused.
    Nothing,
    /// Nothing: an operator has decided the opposite by hand.
    Mixed,
    /// Business code or the store failed; everything is rolled back.
    Failed,
}

/// Applies one command. The caller commits `tx` before the answer leaves, and drops both when it cannot.
///
/// An error is the store's own: the transaction can no longer be used.
pub fn perform<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    command: &Command<'_>,
) -> Result<Answered, StoreFault> {
    perform_as(participant, tx, command, None)
}

/// The same; `by_hand`: it is not the coordinator who says so.
pub(crate) fn perform_as<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    command: &Command<'_>,
    by_hand: Option<&ByHand>,
) -> Result<Answered, StoreFault> {
    tx.savepoint()?;
    for _ in 0..CONFLICTS_MAX {
        let failed = match attempt(participant, tx, command, by_hand) {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        tx.roll_back()?;
        match failed {
            Failed::Store(StoreFault::Conflict) => {}
            Failed::Store(fault) => return Ok(Answered::error(fault.to_string())),
            Failed::Business(fault) => return Ok(Answered::error(fault.reason().to_owned())),
        }
    }
    Ok(Answered::error(StoreFault::Conflict.to_string()))
}

enum Failed {
    Store(StoreFault),
    Business(Fault),
}

impl From<StoreFault> for Failed {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

fn attempt<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Transaction<'_>,
    command: &Command<'_>,
    by_hand: Option<&ByHand>,
) -> Result<Answered, Failed> {
    let key = BranchKey::of(command);
    let operation = command.address.operation;
    // No transaction is issued before it is born, nor born before the watermark it carries: more than that is
    // nonsense, and must not make others expire.
    let watermark = command.watermark.min(command.issued);
    tx.foresee(&[key])?;
    let horizon = tx.horizon(key.home(), watermark)?;
    let decision = barrier::decide(operation, command.issued, tx.rows(&key)?, horizon);
    let (answer, work) = match decision {
        Decision::Repeat(stored) => {
            let stored = stored.clone();
            if matches!(stored, Stored::ByHand) && by_hand.is_none() {
                heuristic::agree(tx, &key)?;
            }
            return Ok(Answered::stored(stored, Work::Repeated));
        }
        Decision::Refuse(refusal) => {
            let is_mixed = refusal == Refusal::Mixed;
            if is_mixed && by_hand.is_none() {
                heuristic::contradict(tx, &key)?;
            }
            return Ok(Answered {
                outcome: Answer::Refused,
                reason: Some(refusal.as_str().into()),
                data: Payload::Absent,
                work: if is_mixed { Work::Mixed } else { Work::Nothing },
            });
        }
        Decision::Later => return Ok(Answered::error(REASON_IN_DOUBT)),
        Decision::Nothing { cancels } => {
            if let Some(operation) = cancels {
                tx.insert(&key, Row { operation, issued: command.issued, answer: Stored::Cancelled })?;
            }
            (Stored::Done(Payload::Absent), Work::Nothing)
        }
        Decision::Perform => match guarded(|| forward(participant, tx.business(), command))? {
            Effect::Done(result) => (Stored::Done(result), Work::Effect),
            Effect::Refused(reason) => {
                if !planted::is(Defect::RefusalKeepsEffect) {
                    tx.roll_back()?;
                }
                (Stored::Refused(reason.into()), Work::Refusal)
            }
        },
        Decision::PerformOn(done) => {
            let done = done.clone();
            guarded(|| follow(participant, tx.business(), command, &done))?;
            match by_hand {
                Some(by) => {
                    tx.keep_heuristic(&key, &Heuristic::open(operation, by.clone()))?;
                    (Stored::ByHand, Work::Effect)
                }
                None => (Stored::Done(Payload::Absent), Work::Effect),
            }
        }
    };
    if operation == Operation::Prepare && matches!(answer, Stored::Done(_)) {
        tx.keep_vote(&key, Vote::of(command))?;
    }
    if !planted::is(Defect::AnswerNotRemembered) {
        tx.insert(&key, Row { operation, issued: command.issued, answer: answer.clone() })?;
    }
    Ok(Answered::stored(answer, work))
}

fn forward<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Business<'_>,
    command: &Command<'_>,
) -> Result<Effect, Fault> {
    match command.address.operation {
        Operation::Execute => participant.execute(tx, command),
        Operation::Prepare => participant.prepare(tx, command),
        Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort => {
            unreachable!("the barrier performs {} only on what was done", command.address.operation)
        }
    }
}

fn follow<P: Participant>(
    participant: &P,
    tx: &mut <P::Store as Store>::Business<'_>,
    command: &Command<'_>,
    done: &Payload,
) -> Result<(), Fault> {
    match command.address.operation {
        Operation::Compensate => participant.compensate(tx, command, done),
        Operation::Precommit => participant.precommit(tx, command, done),
        Operation::Commit => participant.commit(tx, command, done),
        Operation::Abort => participant.abort(tx, command, done),
        Operation::Execute | Operation::Prepare => {
            unreachable!("the barrier performs {} from nothing", command.address.operation)
        }
    }
}

/// A command that makes business code panic must not block the others.
fn guarded<T>(business: impl FnOnce() -> Result<T, Fault>) -> Result<T, Failed> {
    match catch_unwind(AssertUnwindSafe(business)) {
        Ok(result) => result.map_err(Failed::Business),
        Err(_) => Err(Failed::Business(Fault::new("the participant panicked"))),
    }
}

impl Answered {
    /// A technical failure.
    pub(crate) fn error(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            outcome: Answer::Error,
            reason: Some(reason.into()),
            data: Payload::Absent,
            work: Work::Failed,
        }
    }

    fn stored(stored: Stored, work: Work) -> Self {
        let (outcome, reason, data) = match stored {
            Stored::Done(result) => (Answer::Ok, None, result),
            Stored::Refused(reason) => (Answer::Refused, Some(String::from(reason).into()), Payload::Absent),
            Stored::Cancelled => (Answer::Refused, Some(REASON_CANCELLED.into()), Payload::Absent),
            Stored::ByHand => (Answer::Ok, None, Payload::Absent),
        };
        Self { outcome, reason, data, work }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sagamore_schemas::ids::Time;
    use sagamore_schemas::wire::{Address, PayloadRef};
    use uuid::Uuid;

    use super::*;
    use crate::store::memory::{Cell, MemoryStore, State, Undo};

    /// What happens to the one thing this participant has, and what its business code does when asked.
    #[derive(Default)]
    struct Effects {
        net: Cell<i64>,
    }

    impl State for Effects {
        fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
            visit(&mut self.net);
        }
    }

    /// Does what the command's `data` says: `"done"`, `"refused"`, `"fault"` or `"panic"`, each after its effect.
    struct Obedient;

    impl Obedient {
        fn obey(effects: &mut Effects, change: i64, command: &Command<'_>) -> Result<Effect, Fault> {
            *effects.net.change() += change;
            match command.data.json() {
                Some("\"refused\"") => Ok(Effect::refused("told-to")),
                Some("\"fault\"") => Err(Fault::new("told to")),
                Some("\"panic\"") => panic!("told to"),
                _ => Effect::done(&"result"),
            }
        }
    }

    impl Participant for Obedient {
        type Store = MemoryStore<Effects>;

        fn execute(&self, tx: &mut Effects, command: &Command<'_>) -> Result<Effect, Fault> {
            Self::obey(tx, 1, command)
        }

        fn compensate(&self, tx: &mut Effects, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
            assert_eq!(done.as_ref().json(), Some("\"result\""));
            Self::obey(tx, -1, command).map(|_| ())
        }

        fn prepare(&self, tx: &mut Effects, command: &Command<'_>) -> Result<Effect, Fault> {
            Self::obey(tx, 1, command)
        }

        fn commit(&self, tx: &mut Effects, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
            Self::obey(tx, 10, command).map(|_| ())
        }

        fn abort(&self, tx: &mut Effects, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
            Self::obey(tx, -1, command).map(|_| ())
        }
    }

    fn parsed(operation: &str) -> Operation {
        Operation::ALL.into_iter().find(|known| known.as_str() == operation).expect(operation)
    }

    fn asked(store: &MemoryStore<Effects>, operation: &str, told: &str) -> String {
        let data = Payload::from_json(format!("\"{told}\"")).unwrap();
        let command = Command {
            address: Address {
                subject: "t".parse().unwrap(),
                birth: "0-7".parse().unwrap(),
                step: "s".into(),
                branch: "b".into(),
                operation: parsed(operation),
                attempt: 1,
            },
            instance: Uuid::nil(),
            issued: Time::from_epoch_ms(10),
            watermark: Time::from_epoch_ms(1),
            deadline: Time::MAX,
            definition: "d@1".into(),
            replyto: "sagamore.inbox/0".into(),
            traceparent: None,
            replytoken: None,
            unilateral_after: None,
            data: match &data {
                Payload::Json(raw) => PayloadRef::Json(raw),
                Payload::Base64(_) | Payload::Absent => PayloadRef::Absent,
            },
        };
        let mut session = ();
        let mut tx = store.begin(&mut session).unwrap();
        let answered = perform(&Obedient, &mut tx, &command).unwrap();
        tx.commit().unwrap();
        let reason = answered.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
        format!("{}{reason}", answered.outcome.as_str())
    }

    /// `when`: operations in turn, `operation` or `operation=what it is told`; `then`: the answers, and at the end
    /// the net effect.
    fn check(when: &str, then: &str) {
        let store = MemoryStore::new(Effects::default());
        let mut answers: Vec<String> = when
            .split_whitespace()
            .map(|step| step.split_once('=').unwrap_or((step, "done")))
            .map(|(operation, told)| asked(&store, operation, told))
            .collect();
        answers.push(store.read(|effects| effects.net.get().to_string()));
        assert_eq!(answers.join(", "), then, "{when}");
    }

    #[test]
    fn duplicates_repeat_the_first_answer() {
        check("execute execute execute=refused", "ok, ok, ok, 1");
        check("execute=refused execute", "refused told-to, refused told-to, 0");
        check("execute execute compensate compensate", "ok, ok, ok, ok, 0");
        check("prepare prepare commit commit", "ok, ok, ok, ok, 11");
        check("prepare abort abort", "ok, ok, ok, 0");
    }

    #[test]
    fn failures_are_rolled_back_and_never_stored() {
        check("execute=fault execute", "error told to, ok, 1");
        check("execute=panic execute", "error the participant panicked, ok, 1");
        check("execute compensate=fault execute compensate", "ok, error told to, ok, ok, 0");
        check("prepare commit=fault commit", "ok, error told to, ok, 11");
    }

    #[test]
    fn an_undoing_that_comes_first_forbids_the_doing() {
        check("compensate execute compensate execute", "ok, refused cancelled, ok, refused cancelled, 0");
        check("abort prepare abort", "ok, refused cancelled, ok, 0");
        check("execute=refused compensate", "refused told-to, ok, 0");
        check("prepare=refused abort", "refused told-to, ok, 0");
        check("commit prepare commit", "refused not-prepared, ok, ok, 11");
    }

    proptest! {
        #[test]
        fn any_order_and_duplication_leaves_one_effect_or_none(
            turns in prop::collection::vec((prop::sample::select(vec!["execute", "compensate"]), 0..6_u8), 0..12)
        ) {
            let store = MemoryStore::new(Effects::default());
            let mut answered: std::collections::BTreeMap<&str, String> = std::collections::BTreeMap::new();
            for (operation, die) in turns {
                let told = match (operation, die) {
                    ("execute", 0) => "refused",
                    (_, 1) => "fault",
                    _ => "done",
                };
                let answer = asked(&store, operation, told);
                if !answer.starts_with("error") {
                    let first = answered.entry(operation).or_insert_with(|| answer.clone());
                    prop_assert_eq!(&answer, first, "an answer never changes");
                }
                let is_done = answered.get("execute").is_some_and(|answer| answer == "ok");
                let is_undone = answered.contains_key("compensate");
                let net = store.read(|effects| *effects.net.get());
                prop_assert_eq!(net, i64::from(is_done && !is_undone));
            }
        }
    }
}

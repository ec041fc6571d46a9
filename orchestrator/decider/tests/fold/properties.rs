//! What holds of every life of a shard, whatever its participants say and in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sagamore_decider::output::{Destination, Notice, Output};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::{Phase, StepPhase, Transaction};
use sagamore_schemas::definition::StepKind;
use sagamore_schemas::ids::Birth;
use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::{
    Input, Occasion, Operation, OutcomeKind, read_command, read_input, read_outcome,
};

use crate::harness::{Happening, Life, Logged, RowsTaken, definition_json, happening, identity};

/// What is known of one transaction from outside.
#[derive(Debug, Default)]
struct Seen {
    decision: Option<Decision>,
    ended: Option<OutcomeKind>,
    /// Steps whose `execute` was issued.
    executed: BTreeSet<String>,
    /// Steps that were refused, as far as the fold heeded it.
    refused: BTreeSet<String>,
    compensated: BTreeSet<String>,
    attempts: BTreeMap<(String, Operation), u32>,
}

#[derive(Debug, Default)]
struct Witness {
    transactions: BTreeMap<Birth, Seen>,
    ids: BTreeMap<String, Output>,
}

impl Witness {
    fn sees(&mut self, shard: &Shard, logged: &Logged, outputs: &[Output], notice: &Notice) {
        for output in outputs {
            self.sees_output(shard, logged, output);
        }
        for transaction in shard.open_transactions() {
            let seen = self.transactions.get(&transaction.birth);
            let decided = match transaction.phase {
                Phase::Forward => None,
                Phase::Committing => Some(Decision::Commit),
                Phase::RollingBack => Some(Decision::Rollback),
            };
            let before = seen.and_then(|seen| seen.decision);
            assert!(before.is_none() || before == decided, "one decision: {transaction:?}");
            let seen = self.transactions.entry(transaction.birth).or_default();
            seen.decision = decided;
            let steps = transaction.steps.iter().zip(names(shard, transaction));
            let refused = steps.filter(|(step, _)| step.phase == StepPhase::Refused);
            seen.refused.extend(refused.map(|(_, name)| name));
            assert!(has_timer_or_is_stuck(shard, transaction), "somebody has to act: {transaction:?}");
            assert!(
                transaction.steps.iter().all(|step| step.phase != StepPhase::Unknown),
                "unknown never outlasts a turn: {transaction:?}"
            );
        }
        if matches!(notice, Notice::VerbRefused { .. }) {
            assert!(outputs.iter().all(|output| output.destination == Destination::DeadLetters));
        }
    }

    fn sees_output(&mut self, shard: &Shard, logged: &Logged, output: &Output) {
        match output.destination {
            Destination::DeadLetters => {
                assert_eq!(output.value.as_deref(), Some(&logged.value[..]), "it is the record itself");
            }
            Destination::Commands(_) => self.sees_command(shard, logged, output),
            Destination::Outcomes => {
                let outcome = read_outcome(output.value.as_deref()).unwrap();
                assert_eq!(subject(&logged.value).as_deref(), Some(outcome.subject.as_str()), "a cause");
                let Occasion::Transaction { birth, .. } = outcome.occasion else { return };
                let seen = self.transactions.entry(birth).or_default();
                assert!(seen.ended.is_none_or(|ended| ended == outcome.outcome), "one end");
                if outcome.outcome != OutcomeKind::Stuck && seen.ended.is_none() {
                    seen.ended = Some(outcome.outcome);
                    check_end(seen, outcome.outcome, logged);
                }
            }
        }
        if output.destination != Destination::DeadLetters {
            let document: serde_json::Value =
                serde_json::from_slice(output.value.as_deref().unwrap()).unwrap();
            let id = document["id"].as_str().unwrap().to_owned();
            let before = self.ids.insert(id.clone(), output.clone());
            let told_again = output.destination == Destination::Outcomes;
            assert!(before.is_none() || told_again, "{id} is said once");
        }
    }

    fn sees_command(&mut self, shard: &Shard, logged: &Logged, output: &Output) {
        let command = read_command(output.value.as_deref()).unwrap();
        let address = &command.address;
        assert_eq!(subject(&logged.value).as_deref(), Some(address.subject.as_str()), "a cause");
        let seen = self.transactions.entry(address.birth).or_default();
        let step = address.step.to_string();
        let attempt = seen.attempts.entry((step.clone(), address.operation)).or_default();
        assert_eq!(address.attempt, *attempt + 1, "attempts are counted one by one");
        *attempt += 1;
        let (_, plan, _) = shard.definitions().iter().next().unwrap();
        let (_, planned) = plan.indexed().find(|(_, planned)| planned.name.as_str() == step).unwrap();
        match address.operation {
            Operation::Execute => {
                let first = seen.executed.insert(step.clone());
                assert!(!seen.compensated.contains(&step), "{step} is not done after it was undone");
                if planned.kind == StepKind::Retriable {
                    let before = seen.decision == Some(Decision::Rollback);
                    assert!(!before, "{step} runs after a commit only");
                } else {
                    assert!(!first || seen.decision.is_none(), "{step} was first asked after the decision");
                }
            }
            Operation::Compensate => {
                assert_eq!(planned.kind, StepKind::Compensatable, "{step} can be undone");
                assert!(seen.executed.contains(&step), "{step} was never asked");
                assert!(!seen.refused.contains(&step), "{step} was refused: there is nothing to undo");
                if seen.compensated.insert(step.clone())
                    && let Some(transaction) =
                        shard.open_transactions().find(|transaction| transaction.birth == address.birth)
                {
                    for after in &planned.before {
                        let phase = &transaction.step(*after).phase;
                        let settled = matches!(
                            phase,
                            StepPhase::Skipped | StepPhase::Refused | StepPhase::Undone | StepPhase::Stuck(_)
                        );
                        assert!(settled, "{step} is undone while {after} is {phase}");
                    }
                }
            }
            Operation::Prepare | Operation::Precommit | Operation::Commit | Operation::Abort => {
                panic!("no saga says {}", address.operation)
            }
        }
    }
}

fn check_end(seen: &Seen, outcome: OutcomeKind, logged: &Logged) {
    // The refusal that ended it left no open transaction to look at.
    let mut refused = seen.refused.clone();
    if let Ok(Input::Reply(reply)) = read_input(Some(&logged.value))
        && reply.outcome == sagamore_schemas::wire::Answer::Refused
        && reply.address.operation == Operation::Execute
    {
        refused.insert(reply.address.step.to_string());
    }
    let maybe_done: BTreeSet<&String> = seen.executed.difference(&refused).collect();
    match outcome {
        OutcomeKind::Committed => {
            assert!(seen.compensated.is_empty() && seen.refused.is_empty(), "{seen:?}");
            assert_ne!(seen.decision, Some(Decision::Rollback));
        }
        OutcomeKind::Compensated => {
            assert_eq!(maybe_done, seen.compensated.iter().collect(), "all that may be done is undone");
            assert_ne!(seen.decision, Some(Decision::Commit));
        }
        OutcomeKind::Aborted => {
            assert!(maybe_done.is_empty() && seen.compensated.is_empty(), "{seen:?}");
            assert_ne!(seen.decision, Some(Decision::Commit));
        }
        OutcomeKind::Refused | OutcomeKind::Stuck => unreachable!("no end"),
    }
}

fn has_timer_or_is_stuck(shard: &Shard, transaction: &Transaction) -> bool {
    let due = sagamore_schemas::ids::Time::MAX;
    let has_timer = shard.timers().due(due).any(|entry| entry.birth_offset == transaction.birth.offset);
    has_timer || transaction.is_stuck()
}

fn names(shard: &Shard, transaction: &Transaction) -> Vec<String> {
    let found = shard.definitions().iter().find(|(id, _, _)| **id == transaction.definition);
    found.unwrap().1.steps.iter().map(|step| step.name.to_string()).collect()
}

fn subject(value: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(value).ok()?;
    Some(document.get("subject")?.as_str()?.to_owned())
}

fn check(definition: &str, happenings: &[Happening]) {
    let mut witness = Witness::default();
    let mut life = Life::live(definition, happenings, |shard, _, logged, outputs, notice| {
        witness.sees(shard, logged, outputs, notice);
    });

    // Friendly answers bring everything to its end.
    let left: Vec<&Transaction> = life.shard.open_transactions().collect();
    assert!(left.is_empty(), "friendly answers end everything: {left:?}");
    assert!(life.shard.timers().is_empty(), "no timer of nothing");
    for (birth, seen) in &witness.transactions {
        assert!(seen.ended.is_some(), "{birth} was told how it ended: {seen:?}");
    }

    // Once more, and the very same comes out.
    let mut again = Shard::new(identity());
    for (offset, logged) in life.log.iter().enumerate() {
        let mut outputs = Vec::new();
        again.apply(&logged.record(offset), &mut outputs);
        assert_eq!(outputs, life.said[offset], "record {offset}");
    }
    assert_eq!(again.journal().head(), life.shard.journal().head());

    // The journal says it too: each entry takes rows of the table, one decision and one end per transaction.
    let draft = life.shard.draft(0).unwrap();
    let checkpoint = life.shard.complete(draft, &[]);
    let mut rows = RowsTaken::default();
    let mut decided = BTreeSet::new();
    let mut ended = BTreeSet::new();
    for entry in rows.read(&checkpoint.journal) {
        rows.rows_of(&entry);
        let Some(birth) = entry.birth else { continue };
        assert!(!ended.contains(&birth), "nothing happens after the end");
        assert!(entry.decision.is_none() || decided.insert(birth), "one decision");
        if entry.outcome.is_some_and(|outcome| outcome != OutcomeKind::Stuck) {
            ended.insert(birth);
        }
    }
    assert_eq!(decided, ended, "a decision each, and an end each");
    assert_eq!(ended, witness.transactions.keys().copied().collect());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn whatever_happens_the_saga_keeps_its_promises(
        definition in definition_json(),
        happenings in proptest::collection::vec(happening(), 5..120),
    ) {
        check(&definition, &happenings);
    }
}

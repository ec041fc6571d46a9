//! What holds of every life of a shard, whatever its participants say and in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sagamore_decider::output::{Destination, Notice, Output};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::{BranchPhase, Phase, Transaction};
use sagamore_schemas::definition::{Protocol, StepKind};
use sagamore_schemas::ids::Birth;
use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::{
    Answer, Input, Occasion, Operation, OutcomeKind, read_command, read_input, read_outcome,
};

use crate::harness::{Happening, Life, Logged, RowsTaken, definition_json, happening, identity};

/// What is known of one transaction from outside. Branches by `step/branch`.
#[derive(Debug, Default)]
struct Seen {
    decision: Option<Decision>,
    ended: Option<OutcomeKind>,
    /// Branches to which an operation was issued.
    asked: BTreeMap<Operation, BTreeSet<String>>,
    /// Branches of which the log holds an `ok` to an operation.
    answered: BTreeMap<Operation, BTreeSet<String>>,
    /// Branches that refused, as far as the fold heeded it.
    refused: BTreeSet<String>,
    attempts: BTreeMap<(String, Operation), u32>,
}

impl Seen {
    fn was_asked(&self, branch: &str, operation: Operation) -> bool {
        self.asked.get(&operation).is_some_and(|branches| branches.contains(branch))
    }

    fn has_answered(&self, branch: &str, operation: Operation) -> bool {
        self.answered.get(&operation).is_some_and(|branches| branches.contains(branch))
    }

    fn all(&self, operation: Operation) -> BTreeSet<String> {
        self.asked.get(&operation).cloned().unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Witness {
    transactions: BTreeMap<Birth, Seen>,
    ids: BTreeMap<String, Output>,
}

impl Witness {
    fn sees(&mut self, shard: &Shard, logged: &Logged, outputs: &[Output], notice: &Notice) {
        if let Ok(Input::Reply(reply)) = read_input(Some(&logged.value))
            && reply.outcome == Answer::Ok
        {
            let address = reply.address;
            let seen = self.transactions.entry(address.birth).or_default();
            let of_operation = seen.answered.entry(address.operation).or_default();
            of_operation.insert(format!("{}/{}", address.step, address.branch));
        }
        for output in outputs {
            self.sees_output(shard, logged, output);
        }
        for transaction in shard.open_transactions() {
            let seen = self.transactions.get(&transaction.birth);
            let decided = match transaction.phase {
                Phase::Ended(_) => unreachable!("no life here has children"),
                Phase::Forward | Phase::Paused => None,
                Phase::Committing => Some(Decision::Commit),
                Phase::RollingBack => Some(Decision::Rollback),
            };
            let before = seen.and_then(|seen| seen.decision);
            assert!(before.is_none() || before == decided, "one decision: {transaction:?}");
            let seen = self.transactions.entry(transaction.birth).or_default();
            seen.decision = decided;
            let branches = transaction.branches.iter().zip(names(shard, transaction));
            let refused = branches.filter(|(branch, _)| branch.phase == BranchPhase::Refused);
            seen.refused.extend(refused.map(|(_, name)| name));
            assert!(has_timer_or_is_stuck(shard, transaction), "somebody has to act: {transaction:?}");
            assert!(
                transaction.branches.iter().all(|branch| branch.phase != BranchPhase::Unknown),
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
            Destination::Inbox(_) => unreachable!("no life here has children"),
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
        let own = format!("{}/{}", address.step, address.branch);
        let attempt = seen.attempts.entry((own.clone(), address.operation)).or_default();
        assert_eq!(address.attempt, *attempt + 1, "attempts are counted one by one");
        *attempt += 1;
        let (_, plan, _) = shard.definitions().iter().next().unwrap();
        let step = plan.steps.iter().find(|planned| planned.name.as_str() == address.step).unwrap();
        let open = shard.open_transactions().find(|transaction| transaction.birth == address.birth);
        let phase = open.map(|transaction| transaction.phase);
        let first = seen.asked.entry(address.operation).or_default().insert(own.clone());
        let siblings = || step.branches.iter().map(|branch| format!("{}/{}", step.name, branch.name));
        match address.operation {
            Operation::Execute | Operation::Prepare => {
                assert_eq!(step.protocol.is_some(), address.operation == Operation::Prepare);
                let over = [Operation::Compensate, Operation::Abort, Operation::Commit];
                assert!(
                    !over.iter().any(|later| seen.was_asked(&own, *later)),
                    "{own}: what is over is over"
                );
                if step.kind == StepKind::Retriable {
                    let before = seen.decision == Some(Decision::Rollback);
                    assert!(!before, "{own} runs after a commit only");
                } else {
                    assert!(!first || seen.decision.is_none(), "{own} was first asked after the decision");
                }
            }
            Operation::Precommit | Operation::Commit => {
                let missing = siblings().find(|branch| !seen.has_answered(branch, Operation::Prepare));
                assert_eq!(missing, None, "no commit precedes the last vote");
                assert!(siblings().all(|branch| !seen.was_asked(&branch, Operation::Abort)), "{own}: both");
                let three = step.protocol == Some(Protocol::ThreePhase);
                assert!(three || address.operation == Operation::Commit);
                if three && address.operation == Operation::Commit {
                    let missing = siblings().find(|branch| !seen.has_answered(branch, Operation::Precommit));
                    assert_eq!(missing, None, "no commit precedes the last precommit");
                }
                if step.kind != StepKind::Compensatable {
                    assert_eq!(phase, Some(Phase::Committing), "{own} commits with the transaction");
                }
            }
            Operation::Abort => {
                assert_eq!(phase, Some(Phase::RollingBack), "{own} aborts with the transaction");
                assert!(seen.was_asked(&own, Operation::Prepare), "{own} was never asked");
                assert!(siblings().all(|branch| !seen.was_asked(&branch, Operation::Commit)), "{own}: both");
            }
            Operation::Compensate => {
                assert_eq!(step.kind, StepKind::Compensatable, "{own} can be undone");
                assert_eq!(phase, Some(Phase::RollingBack));
                let done = if step.protocol.is_some() { Operation::Commit } else { Operation::Execute };
                assert!(seen.was_asked(&own, done), "{own} was never asked");
                assert!(!seen.refused.contains(&own), "{own} was refused: there is nothing to undo");
            }
        }
        let undoes = matches!(address.operation, Operation::Compensate | Operation::Abort);
        if let Some(transaction) = open.filter(|_| undoes && first) {
            for after in &step.before {
                let settled = |phase: &BranchPhase| {
                    matches!(
                        phase,
                        BranchPhase::Skipped
                            | BranchPhase::Refused
                            | BranchPhase::Undone
                            | BranchPhase::Aborted
                            | BranchPhase::Stuck(_)
                    )
                };
                assert!(transaction.all_of(plan.step(*after), settled), "{own} is undone before {after}");
            }
        }
    }
}

fn check_end(seen: &Seen, outcome: OutcomeKind, logged: &Logged) {
    // The refusal that ended it left no open transaction to look at.
    let mut refused = seen.refused.clone();
    if let Ok(Input::Reply(reply)) = read_input(Some(&logged.value))
        && reply.outcome == Answer::Refused
        && matches!(reply.address.operation, Operation::Execute | Operation::Prepare)
    {
        refused.insert(format!("{}/{}", reply.address.step, reply.address.branch));
    }
    let (committed, aborted) = (seen.all(Operation::Commit), seen.all(Operation::Abort));
    let without = |all: BTreeSet<String>| -> BTreeSet<String> { all.difference(&refused).cloned().collect() };
    let maybe_done: BTreeSet<String> =
        without(seen.all(Operation::Execute)).union(&committed).cloned().collect();
    let maybe_held: BTreeSet<String> =
        without(seen.all(Operation::Prepare)).difference(&committed).cloned().collect();
    let compensated = seen.all(Operation::Compensate);
    match outcome {
        OutcomeKind::Committed => {
            assert!(compensated.is_empty() && aborted.is_empty() && seen.refused.is_empty(), "{seen:?}");
            assert!(maybe_held.is_empty(), "all that is held is committed: {seen:?}");
            assert_ne!(seen.decision, Some(Decision::Rollback));
        }
        OutcomeKind::Compensated | OutcomeKind::Aborted => {
            assert_eq!(maybe_done, compensated, "all that may be done is undone");
            assert_eq!(maybe_held, aborted, "all that may be held is let go");
            assert_eq!(outcome == OutcomeKind::Aborted, compensated.is_empty());
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
    let plan = found.unwrap().1;
    let name = |index| {
        let (step, branch) = plan.branch(index);
        format!("{}/{}", step.name, branch.name)
    };
    plan.branch_indexes().map(name).collect()
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
    let (_, plan, _) = life.shard.definitions().iter().next().unwrap();
    let committing = plan.steps.iter().filter(|step| step.protocol.is_some());
    let committing = committing.map(|step| step.name.to_string()).collect();
    let mut rows = RowsTaken::default();
    rows.committing = committing;
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
    fn whatever_happens_the_promises_are_kept(
        definition in definition_json(),
        happenings in proptest::collection::vec(happening(), 5..120),
    ) {
        check(&definition, &happenings);
    }
}

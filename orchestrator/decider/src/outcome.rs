//! How a transaction ended, as it is told to the world.

use std::borrow::Cow;

use sagamore_schemas::wire::{Occasion, Outcome, OutcomeKind, Payload};

use crate::definition::plan::{Plan, PlanStep};
use crate::identity::Identity;
use crate::output::{Destination, Output};
use crate::transaction::Transaction;
use crate::turn::field;

/// An outcome with its id, which is the same whenever it is told.
pub(crate) fn outcome(
    identity: &Identity,
    transaction: &Transaction,
    kind: OutcomeKind,
    reason: Option<&str>,
    plan: &Plan,
) -> Output {
    let data = match kind {
        OutcomeKind::Committed => results(transaction, plan),
        OutcomeKind::Compensated | OutcomeKind::Aborted | OutcomeKind::Refused | OutcomeKind::Stuck => {
            Payload::Absent
        }
    };
    outcome_output(&Outcome {
        subject: transaction.id.clone(),
        outcome: kind,
        occasion: Occasion::Transaction { birth: transaction.birth, revision: transaction.revision },
        instance: identity.instance,
        definition: Some(Cow::Borrowed(&plan.label)),
        reason: reason.map(Cow::Borrowed),
        data: data.as_ref(),
    })
}

/// What a committed transaction has to show: `{"steps": {step: result}}`.
pub(crate) fn results(transaction: &Transaction, plan: &Plan) -> Payload {
    let results: Vec<String> = plan.steps.iter().filter_map(|step| result_of(step, transaction)).collect();
    match Payload::from_json(format!("{{\"steps\":{{{}}}}}", results.join(","))) {
        Ok(payload) => payload,
        Err(error) => unreachable!("results are JSON: {error}"),
    }
}

/// The result of a step as a field of a JSON object: that of its branch, or under a protocol those of its branches.
fn result_of(step: &PlanStep, transaction: &Transaction) -> Option<String> {
    let named = step.branches.iter().zip(transaction.branches_of(step));
    if step.is_group {
        let results: Vec<String> =
            named.filter_map(|(planned, branch)| field(planned.name.as_str(), &branch.result)).collect();
        return (!results.is_empty()).then(|| format!("\"{}\":{{{}}}", step.name, results.join(",")));
    }
    named.into_iter().find_map(|(_, branch)| field(step.name.as_str(), &branch.result))
}

pub(crate) fn outcome_output(told: &Outcome<'_>) -> Output {
    Output {
        destination: Destination::Outcomes,
        key: Some(told.subject.as_str().as_bytes().into()),
        value: Some(told.to_json()),
        headers: Vec::new(),
    }
}

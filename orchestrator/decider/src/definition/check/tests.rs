//! Whatever document comes, it compiles or is told why.

use proptest::prelude::*;
use sagamore_schemas::definition::{self as document, Branch, CommitPlace, ExactJson, Protocol, STEPS_MAX};
use sagamore_schemas::ids::Name;

use super::*;

fn name() -> impl Strategy<Value = Name> {
    "[a-e]".prop_map(|text| text.parse().unwrap())
}

fn template() -> impl Strategy<Value = String> {
    "([$]{0,2}[{]?(input|steps[.][a-e]|transaction[.]id|x)?[.}]{0,2}){0,3}"
}

fn span() -> impl Strategy<Value = Option<Span>> {
    proptest::option::of(any::<u64>().prop_map(Span::from_ms))
}

prop_compose! {
    fn retry()(attempts in any::<Option<u32>>(), backoff in span(), factor in any::<Option<u32>>(), max in span())
        -> document::Retry
    {
        document::Retry { attempts, backoff, factor, max }
    }
}

prop_compose! {
    fn branch()(participant in name(), input in proptest::option::of(template()), compensate in any::<bool>()) -> Branch {
        Branch { name: None, participant, input: input.map(ExactJson::Text), key: None, compensate }
    }
}

type Group = (Option<Protocol>, Vec<Branch>, Option<CommitPlace>);

fn group() -> impl Strategy<Value = Group> {
    let protocol = prop_oneof![Just(Protocol::TwoPhase), Just(Protocol::ThreePhase)];
    let commit = prop_oneof![Just(CommitPlace::InPlace), Just(CommitPlace::AtEnd)];
    (
        proptest::option::weighted(0.9, protocol),
        proptest::collection::vec(branch(), 0..4),
        proptest::option::of(commit),
    )
}

prop_compose! {
    fn step()(
        name in name(),
        participant in proptest::option::weighted(0.9, name()),
        group in proptest::option::weighted(0.3, group()),
        kind in prop_oneof![
            4 => Just(StepKind::Compensatable),
            2 => Just(StepKind::Retriable),
            1 => Just(StepKind::Pivot),
            1 => Just(StepKind::Reserved),
        ],
        after in proptest::option::of(proptest::collection::vec(name(), 0..3)),
        input in proptest::option::of(template().prop_map(|text| ExactJson::Array(vec![ExactJson::Text(text)]))),
        key in proptest::option::of(template()),
        timeout in span(),
        retry in proptest::option::of(retry()),
    ) -> Step {
        let step = Step {
            name,
            definition: None,
            participant,
            protocol: None,
            branches: None,
            commit: None,
            when: None,
            kind,
            after,
            input,
            key,
            termination: None,
            assumes_synchrony_ms: None,
            timeout,
            retry,
        };
        let Some((protocol, branches, commit)) = group else { return step };
        let (participant, input, key, kind) = (None, None, None, StepKind::default());
        let branches = Some(branches);
        Step { participant, protocol, branches, commit, kind, input, key, ..step }
    }
}

prop_compose! {
    fn definition()(version in 0u32..3, deadline in span(), steps in proptest::collection::vec(step(), 0..6))
        -> Definition
    {
        Definition { name: "d".parse().unwrap(), version, deadline, compensated_by: None, steps }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_document_compiles_or_is_told_why(definition in definition()) {
        match compile(&definition) {
            Err(problems) => prop_assert!(!problems.is_empty()),
            Ok(plan) => {
                warnings(&plan);
                let is_linked = |(index, step): (StepIndex, &PlanStep)| {
                    step.after.iter().all(|&earlier| plan.step(earlier).before.contains(&index))
                };
                prop_assert!(plan.indexed().all(is_linked));
                prop_assert!(plan.steps.iter().all(|step| step.is_group || step.branches.len() == 1));
                for index in plan.branch_indexes() {
                    let (step, branch) = plan.branch(index);
                    prop_assert_eq!(plan.branch_named(step.name.as_str(), branch.name.as_str()), Some(index));
                }
                let pivots = plan.steps.iter().filter(|step| step.kind == StepKind::Pivot).count();
                prop_assert!(pivots <= 1);
                let again = Definition::from_json(&definition.to_canonical_json()).unwrap();
                prop_assert_eq!(compile(&again), Ok(plan));
            }
        }
    }
}

#[test]
fn the_largest_graph_is_checked_at_once() {
    let step = |position: usize| Step {
        name: format!("s{position}").parse().unwrap(),
        definition: None,
        participant: Some("p".parse().unwrap()),
        protocol: None,
        branches: None,
        commit: None,
        when: None,
        termination: None,
        assumes_synchrony_ms: None,
        kind: StepKind::Compensatable,
        after: (position + 1 < STEPS_MAX).then(|| vec![format!("s{}", position + 1).parse().unwrap()]),
        input: None,
        key: None,
        timeout: None,
        retry: None,
    };
    let mut steps: Vec<Step> = (0..STEPS_MAX).map(step).collect();
    steps[STEPS_MAX - 1].after = Some(Vec::new());
    let definition =
        Definition { name: "d".parse().unwrap(), version: 1, deadline: None, compensated_by: None, steps };
    let plan = compile(&definition).unwrap();
    assert_eq!(warnings(&plan).len(), 1);
    assert_eq!(plan.step(StepIndex(0)).after, [StepIndex(1)]);
}

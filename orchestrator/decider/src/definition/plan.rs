//! A checked definition in the form that the fold runs on: names resolved to indexes, defaults filled in.

use std::collections::BTreeSet;
use std::fmt;

use sagamore_schemas::definition::{DefinitionId, Protocol, StepKind};
use sagamore_schemas::ids::{Name, Span};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::condition::Condition;
use super::template::{Path, Template};

macro_rules! indexes {
    ($($(#[$doc:meta])* $index:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $index(pub u16);

        impl fmt::Display for $index {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl $index {
            pub(super) fn from_position(position: usize) -> Self {
                match u16::try_from(position) {
                    Ok(index) => Self(index),
                    Err(_) => unreachable!("a checked definition has at most 500 branches"),
                }
            }

            pub(crate) fn position(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}

indexes! {
    /// The place of a step in its definition, counted from 0.
    StepIndex
    /// The place of a branch among all branches of its definition, in the order of the file, counted from 0.
    BranchIndex
}

/// A definition that has passed the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the definition.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Both, as `name@version`: every command says it.
    pub label: Box<str>,
    /// Start to decision.
    pub deadline: Span,
    /// What undoes a committed transaction of it that was a child.
    pub compensated_by: Option<DefinitionId>,
    /// In the order of the file. Acyclic.
    pub steps: Vec<PlanStep>,
    /// The step of each branch.
    pub(super) steps_of_branches: Vec<StepIndex>,
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStep {
    /// Unique in the plan.
    pub name: Name,
    /// What it is to the transaction's decision. A step under a protocol that commits with the decision is reserved, one
    /// that commits in its place is the pivot, or compensatable when its branches are.
    pub kind: StepKind,
    /// How its branches commit together; `None`: it is executed. A reserved step of one participant is two-phase.
    pub protocol: Option<Protocol>,
    /// What its branches may do by themselves, and after how long; `None`: nothing.
    pub unilateral_after: Option<Span>,
    /// It is skipped when this is false.
    pub when: Option<Condition>,
    /// Whether the document gives it `branches`: they are then named in paths and results, even if there is one only.
    pub is_group: bool,
    /// One, or under a protocol one or several.
    pub branches: Vec<PlanBranch>,
    /// Index of the first of them.
    pub first_branch: BranchIndex,
    /// The steps it waits for, ascending.
    pub after: Vec<StepIndex>,
    /// The steps that wait for it, ascending.
    pub before: Vec<StepIndex>,
    /// How long one attempt may take.
    pub timeout: Span,
    /// What follows an attempt without a usable answer.
    pub retry: Retry,
}

/// One participant's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanBranch {
    /// Unique in the step.
    pub name: Name,
    /// Who does it.
    pub by: Performer,
    /// The data of `execute`; without it the command carries the data of the start as it is.
    pub input: Option<Template>,
    /// The key of the command's record; without it the transaction id. See [`Template::render_text`].
    pub key: Option<Template>,
}

/// Who does a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Performer {
    /// A service, behind its command topic.
    Participant(Name),
    /// A definition, started as a child.
    Child(DefinitionId),
}

impl Performer {
    /// The service, unless it is a child.
    pub fn participant(&self) -> Option<&Name> {
        match self {
            Self::Participant(name) => Some(name),
            Self::Child(_) => None,
        }
    }

    /// The definition of the child, unless it is a service.
    pub fn child(&self) -> Option<&DefinitionId> {
        match self {
            Self::Participant(_) => None,
            Self::Child(definition) => Some(definition),
        }
    }
}

impl fmt::Display for Performer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Participant(name) => name.fmt(f),
            Self::Child(definition) => definition.fmt(f),
        }
    }
}

/// When an attempt is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts, the first one counted; [`Retry::UNBOUNDED`] for a pivot that is executed, a retriable step, and a child.
    pub attempts: u32,
    /// Pause after the first attempt.
    pub backoff: Span,
    /// How much longer each pause is than the one before.
    pub factor: u32,
    /// Longest pause.
    pub max: Span,
}

impl Retry {
    /// Attempts of a step that is tried until it is answered.
    pub const UNBOUNDED: u32 = u32::MAX;

    /// The pause after the `attempt`-th attempt (the first is 1), without jitter: `backoff * factor^(attempt - 1)`,
    /// at most `max`.
    ///
    /// ```
    /// use sagamore_decider::definition::plan::Retry;
    /// use sagamore_schemas::ids::Span;
    /// let retry = Retry { attempts: 5, backoff: Span::from_ms(100), factor: 2, max: Span::from_ms(350) };
    /// assert_eq!([1, 2, 3, 4].map(|attempt| retry.delay(attempt).as_ms()), [100, 200, 350, 350]);
    /// ```
    #[must_use]
    pub fn delay(self, attempt: u32) -> Span {
        let growth = u64::from(self.factor).saturating_pow(attempt.saturating_sub(1));
        Span::from_ms(self.backoff.as_ms().saturating_mul(growth)).min(self.max)
    }
}

impl Plan {
    /// From steps whose first branches follow each other.
    pub(super) fn new(
        name: Name,
        version: u32,
        deadline: Span,
        compensated_by: Option<DefinitionId>,
        steps: Vec<PlanStep>,
    ) -> Self {
        let of_each = steps.iter().enumerate();
        let steps_of_branches = of_each
            .flat_map(|(position, step)| {
                step.branches.iter().map(move |_| StepIndex::from_position(position))
            })
            .collect();
        let label = format!("{name}@{version}").into();
        Self { name, version, label, deadline, compensated_by, steps, steps_of_branches }
    }

    /// How many branches there are.
    pub fn branch_count(&self) -> usize {
        self.steps_of_branches.len()
    }

    /// The branch at `index`, which is one of this plan's own, with its step.
    pub fn branch(&self, index: BranchIndex) -> (&PlanStep, &PlanBranch) {
        let step = self.step(self.steps_of_branches[index.position()]);
        (step, &step.branches[index.position() - step.first_branch.position()])
    }

    /// Step and branch as the journal names them: the branch only where the step has several.
    pub(crate) fn names(&self, index: BranchIndex) -> (Option<Name>, Option<Name>) {
        let (step, branch) = self.branch(index);
        (Some(step.name.clone()), step.is_group.then(|| branch.name.clone()))
    }

    /// The branch of those names.
    pub fn branch_named(&self, step: &str, branch: &str) -> Option<BranchIndex> {
        let step = self.steps.iter().find(|planned| planned.name.as_str() == step)?;
        step.indexes()
            .zip(&step.branches)
            .find(|(_, planned)| planned.name.as_str() == branch)
            .map(|(index, _)| index)
    }

    /// Every index of a branch, in the order of the file.
    pub fn branch_indexes(&self) -> impl DoubleEndedIterator<Item = BranchIndex> + use<> {
        (0..self.branch_count()).map(BranchIndex::from_position)
    }

    /// The step at `index`, which is one of this plan's own.
    pub fn step(&self, index: StepIndex) -> &PlanStep {
        &self.steps[index.position()]
    }

    /// Every step with its index, in the order of the file.
    pub fn indexed(&self) -> impl DoubleEndedIterator<Item = (StepIndex, &PlanStep)> + ExactSizeIterator {
        self.steps.iter().enumerate().map(|(position, step)| (StepIndex::from_position(position), step))
    }

    /// The step of that name.
    pub fn step_named(&self, name: &Name) -> Option<StepIndex> {
        self.indexed().find(|(_, step)| step.name == *name).map(|(index, _)| index)
    }

    /// The point of no return, when the definition has one.
    pub fn pivot(&self) -> Option<StepIndex> {
        self.indexed().find(|(_, step)| step.kind == StepKind::Pivot).map(|(index, _)| index)
    }

    /// The definitions it names, with the step that starts each; `None`: what undoes it.
    pub fn children(&self) -> impl Iterator<Item = (Option<StepIndex>, &DefinitionId)> {
        let started = self.indexed().flat_map(|(index, step)| {
            step.branches.iter().filter_map(move |branch| Some((Some(index), branch.by.child()?)))
        });
        started.chain(self.compensated_by.iter().map(|definition| (None, definition)))
    }

    /// The participants it asks, each once.
    pub fn participants(&self) -> BTreeSet<&Name> {
        let branches = self.steps.iter().flat_map(|step| &step.branches);
        branches.filter_map(|branch| branch.by.participant()).collect()
    }

    /// Every `${input.…}` that some step reads, each once, in a fixed order.
    pub fn input_paths(&self) -> BTreeSet<&Path> {
        self.steps.iter().flat_map(PlanStep::paths).filter(|path| path.is_input()).collect()
    }

    /// The `${input.…}` paths that lead nowhere in the data of a start: it must be refused.
    pub fn missing_input(&self, data: Option<&RawValue>) -> Vec<&Path> {
        self.input_paths().into_iter().filter(|path| !path.exists_in(data)).collect()
    }

    /// The branches whose results the inputs and keys of `step` read.
    pub fn needs_results(&self, step: StepIndex) -> BTreeSet<BranchIndex> {
        self.step(step).paths().filter_map(Path::branch).collect()
    }
}

impl PlanStep {
    /// The indexes of its branches.
    pub fn indexes(&self) -> impl DoubleEndedIterator<Item = BranchIndex> + use<> {
        let first = self.first_branch.position();
        (first..first + self.branches.len()).map(BranchIndex::from_position)
    }

    /// Whether it starts a definition instead of asking participants.
    pub fn is_child(&self) -> bool {
        self.branches.iter().any(|branch| branch.by.child().is_some())
    }

    /// Every path in the inputs and keys of this step.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let templates = self.branches.iter().flat_map(|branch| branch.input.iter().chain(&branch.key));
        templates.flat_map(Template::paths)
    }
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::definition::Definition;

    use super::super::check::compile;
    use super::*;

    #[test]
    fn a_plan_knows_what_its_templates_read() {
        let definition = r#"{"name":"d","version":1,"steps":[
            {"name":"a","participant":"p","input":{"x":"${input.n}","y":"${input.o.k} ${transaction.id}"},"key":"${input.n}"},
            {"name":"b","participant":"p","kind":"pivot","input":"${steps.a}","key":"${input.k}"},
            {"name":"c","participant":"p","kind":"retriable","input":["${steps.a.x}","${steps.b.x}","${input.n}"]}]}"#;
        let plan = compile(&Definition::from_json(definition).unwrap()).unwrap();
        let printed =
            |paths: &mut dyn Iterator<Item = &Path>| paths.map(Path::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(printed(&mut plan.input_paths().into_iter()), "${input.k} ${input.n} ${input.o.k}");
        let check_missing = |data: &str, then: &str| {
            let data = serde_json::from_str(data).unwrap();
            assert_eq!(printed(&mut plan.missing_input(Some(data)).into_iter()), then);
        };
        check_missing(r#"{"n":null,"o":{"k":1},"k":""}"#, "");
        check_missing(r#"{"n":1,"o":[]}"#, "${input.k} ${input.o.k}");
        check_missing("3", "${input.k} ${input.n} ${input.o.k}");
        assert_eq!(plan.missing_input(None).len(), 3);
        assert_eq!(plan.needs_results(StepIndex(2)), [BranchIndex(0), BranchIndex(1)].into());
        assert_eq!(plan.needs_results(StepIndex(0)), BTreeSet::new());
        assert_eq!(plan.pivot(), Some(StepIndex(1)));
        assert_eq!(plan.step_named(&"c".parse().unwrap()), Some(StepIndex(2)));
        assert_eq!(plan.step(StepIndex(1)).retry.attempts, Retry::UNBOUNDED);
        assert_eq!(
            (&plan.step(StepIndex(1)).after, &plan.step(StepIndex(1)).before),
            (&vec![StepIndex(0)], &vec![StepIndex(2)])
        );
    }

    #[test]
    fn pauses_stop_growing() {
        let retry = Retry { attempts: 9, backoff: Span::from_ms(100), factor: 10, max: Span::MAX };
        let delays = [0, 1, 2, 3, 12, u32::MAX].map(|attempt| retry.delay(attempt).as_ms());
        assert_eq!(delays, [100, 100, 1000, 10_000, Span::MAX.as_ms(), Span::MAX.as_ms()]);
    }
}

//! Definitions written in Rust instead of YAML: the same document, the same check, the same plan.
//!
//! ```
//! use sagamore_decider::definition::build::{branch, definition, step};
//! use sagamore_schemas::ids::Span;
//!
//! let (order, plan) = definition("order", 3)
//!     .deadline(Span::from_secs(120))
//!     .step(step("reserve").participant("inventory").input(r#"{"sku": "${input.sku}"}"#))
//!     .step(step("insure").participant("insurer").when("input.total > 450"))
//!     .step(step("pay").two_phase([
//!         branch("bank-a").input(r#"{"debit": "${input.payer}", "amount": "${input.total}"}"#),
//!         branch("bank-b").input(r#"{"credit": "shop", "amount": "${input.total}"}"#),
//!     ]))
//!     .step(step("ship").participant("shipping").retriable())
//!     .build()
//!     .expect("a sound definition");
//! assert_eq!(plan.pivot(), plan.step_named(&"pay".parse().unwrap()));
//! assert!(order.to_canonical_json().starts_with(r#"{"name":"order","version":3,"deadline":"2m""#));
//!
//! let problems = definition("order", 4).step(step("ship").participant("shipping").after(["pay"])).build();
//! assert_eq!(problems.unwrap_err()[0].to_string(), "steps[0].after[0]: there is no step `pay` (unknown-step); the steps are ship");
//! ```

use std::str::FromStr;

use sagamore_schemas::definition::{
    Branch, CommitPlace, Definition, DefinitionId, ExactJson, Protocol, Retry, Step, StepKind, Termination,
};
use sagamore_schemas::ids::{IdError, Name, Span};

use super::check::{Problem, ProblemCode, compile};
use super::plan::Plan;

/// Begins a definition.
pub fn definition(name: &str, version: u32) -> DefinitionBuilder {
    let mut built = Built::default();
    let name = built.name("name", name);
    let definition = Definition { name, version, deadline: None, compensated_by: None, steps: Vec::new() };
    DefinitionBuilder { definition, built }
}

/// Begins a step.
pub fn step(name: &str) -> StepBuilder {
    let mut built = Built::default();
    let name = built.name("name", name);
    let step = Step {
        name,
        participant: None,
        definition: None,
        protocol: None,
        branches: None,
        commit: None,
        when: None,
        kind: StepKind::default(),
        after: None,
        input: None,
        key: None,
        termination: None,
        assumes_synchrony_ms: None,
        timeout: None,
        retry: None,
    };
    StepBuilder { step, built }
}

/// Begins a branch: the part of this participant in a step under a protocol.
pub fn branch(participant: &str) -> BranchBuilder {
    let mut built = Built::default();
    let participant = built.name("participant", participant);
    let branch = Branch { name: None, participant, input: None, key: None, compensate: false };
    BranchBuilder { branch, built }
}

/// A definition under construction.
#[derive(Debug, Clone)]
#[must_use]
pub struct DefinitionBuilder {
    definition: Definition,
    built: Built,
}

/// A step under construction.
#[derive(Debug, Clone)]
#[must_use]
pub struct StepBuilder {
    step: Step,
    built: Built,
}

/// A branch under construction.
#[derive(Debug, Clone)]
#[must_use]
pub struct BranchBuilder {
    branch: Branch,
    built: Built,
}

impl DefinitionBuilder {
    /// From the start to the decision.
    pub fn deadline(mut self, deadline: Span) -> Self {
        self.definition.deadline = Some(deadline);
        self
    }

    /// What undoes a committed transaction of this definition when it was a child, such as `recharge@1`.
    pub fn compensated_by(mut self, definition: &str) -> Self {
        self.definition.compensated_by = self.built.definition("compensated_by", definition);
        self
    }

    /// The next step. It follows the one before it unless it says [`StepBuilder::after`].
    pub fn step(mut self, step: StepBuilder) -> Self {
        self.built.inside(&format!("steps[{}]", self.definition.steps.len()), step.built);
        self.definition.steps.push(step.step);
        self
    }

    /// The definition and what the fold makes of it, or every problem: what cannot be read first, then what
    /// [`compile`] says.
    ///
    /// # Errors
    /// The very problems that `sagamore define check` names.
    pub fn build(self) -> Result<(Definition, Plan), Vec<Problem>> {
        if !self.built.problems.is_empty() {
            return Err(self.built.problems);
        }
        compile(&self.definition).map(|plan| (self.definition, plan))
    }
}

impl StepBuilder {
    /// The one service that does the step.
    pub fn participant(mut self, participant: &str) -> Self {
        self.step.participant = Some(self.built.name("participant", participant));
        self
    }

    /// Starts that definition, such as `refund@2`, as a child.
    pub fn child(mut self, definition: &str) -> Self {
        self.step.definition = self.built.definition("definition", definition);
        self
    }

    /// All these commit together, or all abort.
    pub fn two_phase(self, branches: impl IntoIterator<Item = BranchBuilder>) -> Self {
        self.group(Protocol::TwoPhase, branches)
    }

    /// The same with `precommit` before the first `commit`.
    pub fn three_phase(self, branches: impl IntoIterator<Item = BranchBuilder>) -> Self {
        self.group(Protocol::ThreePhase, branches)
    }

    fn group(mut self, protocol: Protocol, branches: impl IntoIterator<Item = BranchBuilder>) -> Self {
        let built = branches.into_iter().enumerate().map(|(number, branch)| {
            self.built.inside(&format!("branches[{number}]"), branch.built);
            branch.branch
        });
        self.step.branches = Some(built.collect());
        self.step.protocol = Some(protocol);
        self
    }

    /// The group commits with the transaction's decision, not in its place.
    pub fn commit_at_end(mut self) -> Self {
        self.step.commit = Some(CommitPlace::AtEnd);
        self
    }

    /// Branches in doubt decide by themselves. See [`Termination::Unilateral`] for what that can cost.
    pub fn unilateral(mut self, assumes_synchrony_ms: u32) -> Self {
        self.step.termination = Some(Termination::Unilateral);
        self.step.assumes_synchrony_ms = Some(assumes_synchrony_ms);
        self
    }

    /// The point of no return.
    pub fn pivot(self) -> Self {
        self.kind(StepKind::Pivot)
    }

    /// After the decision, tried until it succeeds.
    pub fn retriable(self) -> Self {
        self.kind(StepKind::Retriable)
    }

    /// Try/confirm/cancel: prepared in its place, committed or aborted with the decision.
    pub fn reserved(self) -> Self {
        self.kind(StepKind::Reserved)
    }

    fn kind(mut self, kind: StepKind) -> Self {
        self.step.kind = kind;
        self
    }

    /// Skipped where this expression is false.
    pub fn when(mut self, expression: &str) -> Self {
        self.step.when = Some(expression.to_owned());
        self
    }

    /// The steps it waits for; none begins at once.
    pub fn after<'a>(mut self, steps: impl IntoIterator<Item = &'a str>) -> Self {
        let names = steps.into_iter().enumerate();
        let built = &mut self.built;
        self.step.after =
            Some(names.map(|(number, name)| built.name(&format!("after[{number}]"), name)).collect());
        self
    }

    /// The data of the command, as JSON with `${…}` in it.
    pub fn input(mut self, json: &str) -> Self {
        self.step.input = self.built.json("input", json);
        self
    }

    /// The key of the command's record.
    pub fn key(mut self, template: &str) -> Self {
        self.step.key = Some(template.to_owned());
        self
    }

    /// How long one attempt may take.
    pub fn timeout(mut self, timeout: Span) -> Self {
        self.step.timeout = Some(timeout);
        self
    }

    /// What follows an attempt that failed.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.step.retry = Some(retry);
        self
    }
}

impl BranchBuilder {
    /// Its name, when it is not the participant's.
    pub fn named(mut self, name: &str) -> Self {
        self.branch.name = Some(self.built.name("name", name));
        self
    }

    /// The data of `prepare`, as JSON with `${…}` in it.
    pub fn input(mut self, json: &str) -> Self {
        self.branch.input = self.built.json("input", json);
        self
    }

    /// The key of its commands' records.
    pub fn key(mut self, template: &str) -> Self {
        self.branch.key = Some(template.to_owned());
        self
    }

    /// What it has committed can be undone.
    pub fn can_be_undone(mut self) -> Self {
        self.branch.compensate = true;
        self
    }
}

/// What could not be read, with its path from here on.
#[derive(Debug, Clone, Default)]
struct Built {
    problems: Vec<Problem>,
}

impl Built {
    fn inside(&mut self, path: &str, other: Self) {
        let moved = other.problems.into_iter().map(|problem| {
            let path = format!("{path}.{}", problem.path);
            Problem { path, ..problem }
        });
        self.problems.extend(moved);
    }

    fn name(&mut self, path: &str, text: &str) -> Name {
        text.parse().unwrap_or_else(|_| {
            self.wrong(path, format!("`{text}` is no name"), "write 1 to 32 of a-z, 0-9 and -");
            match Name::from_str("unnamed") {
                Ok(name) => name,
                Err(error) => unreachable!("it is a name: {error}"),
            }
        })
    }

    fn definition(&mut self, path: &str, text: &str) -> Option<DefinitionId> {
        text.parse().map_err(|error: IdError| self.wrong(path, error.to_string(), "write name@version")).ok()
    }

    fn json(&mut self, path: &str, text: &str) -> Option<ExactJson> {
        match serde_json::from_str(text) {
            Ok(json) => Some(json),
            Err(error) => {
                self.wrong(path, format!("no JSON: {error}"), "write the JSON that stands in a file");
                None
            }
        }
    }

    fn wrong(&mut self, path: &str, message: String, help: &str) {
        let (path, help) = (path.to_owned(), help.to_owned());
        self.problems.push(Problem { code: ProblemCode::BadValue, path, message, help });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_is_written() {
        let (built, plan) = definition("order", 3)
            .deadline(Span::from_secs(120))
            .step(step("reserve").participant("inventory").input(r#"{"sku":"${input.sku}","n":1.10}"#))
            .step(step("hold").participant("seats").reserved().when("input.seats > 0"))
            .step(step("pay").timeout(Span::from_secs(5)).two_phase([
                branch("bank").named("payer").input(r#"{"debit":"${input.payer}"}"#),
                branch("bank").named("shop").key("${input.shop}"),
            ]))
            .step(step("ship").participant("shipping").retriable().after(["reserve", "pay"]))
            .build()
            .unwrap();
        let written = Definition::from_json(
            r#"{"name":"order","version":3,"deadline":"2m","steps":[
                {"name":"reserve","participant":"inventory","input":{"sku":"${input.sku}","n":1.10}},
                {"name":"hold","participant":"seats","kind":"reserved","when":"input.seats > 0"},
                {"name":"pay","protocol":"two-phase","timeout":"5s","branches":[
                    {"name":"payer","participant":"bank","input":{"debit":"${input.payer}"}},
                    {"name":"shop","participant":"bank","key":"${input.shop}"}]},
                {"name":"ship","participant":"shipping","kind":"retriable","after":["reserve","pay"]}]}"#,
        );
        let written = written.unwrap();
        assert_eq!(built.to_canonical_json(), written.to_canonical_json());
        assert_eq!(compile(&written), Ok(plan));
    }

    #[test]
    fn every_shape_can_be_written() {
        let built = definition("d", 1)
            .step(step("a").participant("p").key("${input.k}").retry(Retry::default()))
            .step(step("b").two_phase([branch("x").can_be_undone()]))
            .step(step("c").three_phase([branch("x")]).commit_at_end().unilateral(500))
            .step(step("d").participant("p").pivot())
            .build();
        let (definition, plan) = built.unwrap();
        let again = Definition::from_json(&definition.to_canonical_json()).unwrap();
        assert_eq!(compile(&again), Ok(plan));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let wrong = definition("Order", 1)
            .step(step("a").participant("p").input("{").after(["B!"]))
            .step(step("c").two_phase([branch("x"), branch("Y")]))
            .build()
            .unwrap_err();
        let places: Vec<&str> = wrong.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            places,
            ["name", "steps[0].input", "steps[0].after[0]", "steps[1].branches[1].participant"]
        );
    }
}

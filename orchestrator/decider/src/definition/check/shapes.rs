//! Fields of a step that go together: one participant, or branches under a protocol.

use std::collections::BTreeMap;

use sagamore_schemas::definition::{Branch, CommitPlace, Definition, DefinitionId, Protocol, Step, StepKind};
use sagamore_schemas::ids::Name;

use super::problem::ProblemCode;
use super::{BRANCHES_MAX, Check, FAN_OUT_MAX};

impl Check {
    pub(super) fn shapes(&mut self, definition: &Definition) {
        for (position, step) in definition.steps.iter().enumerate() {
            let at = format!("steps[{position}]");
            match (&step.branches, step.protocol) {
                (Some(branches), Some(_)) => self.group(&at, step, branches),
                (Some(_), None) => self.add(
                    ProblemCode::MissingField,
                    format!("{at}.branches"),
                    format!("the branches of `{}` have no `protocol`", step.name),
                    "write `protocol: two-phase` or `protocol: three-phase`",
                ),
                (None, Some(_)) => self.add(
                    ProblemCode::MissingField,
                    format!("{at}.protocol"),
                    format!("`{}` has a protocol and no `branches`", step.name),
                    "list who commits together: `branches: [{ participant: … }, …]`; or take `protocol` away (one \
                     participant that prepares and is told the transaction's decision is `kind: reserved`)",
                ),
                (None, None) => self.single(&at, step),
            }
            self.termination(&at, step);
        }
        let own = DefinitionId { name: definition.name.clone(), version: definition.version };
        let named = definition
            .steps
            .iter()
            .enumerate()
            .map(|(position, step)| (format!("steps[{position}].definition"), step.definition.as_ref()));
        let named = named.chain([("compensated_by".to_owned(), definition.compensated_by.as_ref())]);
        for (path, _) in named.filter(|(_, named)| *named == Some(&own)) {
            let help = "name another one: what a definition names is applied before it";
            self.add(ProblemCode::Cycle, path, format!("{own} names itself"), help);
        }
        let count: usize =
            definition.steps.iter().map(|step| step.branches.as_ref().map_or(1, Vec::len)).sum();
        if count > BRANCHES_MAX {
            self.add(
                ProblemCode::OutOfBounds,
                "steps",
                format!("the definition has {count} branches"),
                format!("keep it within {BRANCHES_MAX}"),
            );
        }
    }

    fn single(&mut self, at: &str, step: &Step) {
        match (&step.participant, &step.definition) {
            (None, None) => self.add(
                ProblemCode::MissingField,
                at,
                "this step has no `participant`",
                "name the service that does it: `participant: …`",
            ),
            (Some(_), Some(_)) => self.add(
                ProblemCode::Contradiction,
                format!("{at}.definition"),
                format!("`{}` has a `participant` and starts a `definition`", step.name),
                "keep one of the two: who does the step",
            ),
            (None, Some(_)) => self.child(at, step),
            (Some(_), None) => {}
        }
        if step.commit.is_some() {
            self.add(
                ProblemCode::Contradiction,
                format!("{at}.commit"),
                format!("`{}` has no branches that commit together", step.name),
                "take `commit` away; one participant that commits with the transaction's decision is `kind: reserved`",
            );
        }
    }

    fn child(&mut self, at: &str, step: &Step) {
        if step.kind == StepKind::Reserved {
            self.add(
                ProblemCode::Contradiction,
                format!("{at}.kind"),
                format!("`{}` starts a definition, which cannot be prepared", step.name),
                "make it compensatable, the pivot, or retriable",
            );
        }
        if step.key.is_some() {
            self.add(
                ProblemCode::Contradiction,
                format!("{at}.key"),
                "`key` of a step that starts a definition",
                "take it away: a child lives where the hash of its id says",
            );
        }
    }

    fn group(&mut self, at: &str, step: &Step, branches: &[Branch]) {
        let own = [
            ("definition", step.definition.is_some()),
            ("participant", step.participant.is_some()),
            ("input", step.input.is_some()),
            ("key", step.key.is_some()),
        ];
        for (field, _) in own.into_iter().filter(|(_, is_used)| *is_used) {
            self.add(
                ProblemCode::Contradiction,
                format!("{at}.{field}"),
                format!("`{field}` of a step that has branches"),
                format!("each branch has its own `{field}`"),
            );
        }
        if step.kind != StepKind::default() {
            self.add(
                ProblemCode::Contradiction,
                format!("{at}.kind"),
                format!("kind `{}` of a step that has branches", step.kind),
                "its place follows from `commit` (in-place or at-end) and from `compensate: true` on its branches",
            );
        }
        self.branch_names(at, step, branches);
        let compensated = branches.iter().filter(|branch| branch.compensate).count();
        if let Some(first) = branches.iter().position(|branch| branch.compensate) {
            let path = format!("{at}.branches[{first}].compensate");
            if compensated < branches.len() {
                self.add(
                    ProblemCode::Contradiction,
                    path,
                    format!("{compensated} of {} branches of `{}` can be undone", branches.len(), step.name),
                    "write `compensate: true` on all of them, or on none: what commits together is undone together",
                );
            } else if step.commit == Some(CommitPlace::AtEnd) {
                self.add(
                    ProblemCode::Contradiction,
                    path,
                    format!("`{}` commits with the transaction's decision and is never undone", step.name),
                    "take `compensate` away, or `commit: at-end`",
                );
            }
        }
    }

    fn branch_names(&mut self, at: &str, step: &Step, branches: &[Branch]) {
        if !(1..=FAN_OUT_MAX).contains(&branches.len()) {
            self.add(
                ProblemCode::FanOut,
                format!("{at}.branches"),
                format!("`{}` has {} branches", step.name, branches.len()),
                format!("write 1 to {FAN_OUT_MAX}"),
            );
        }
        let mut names: BTreeMap<&Name, usize> = BTreeMap::new();
        for (position, branch) in branches.iter().enumerate() {
            let name = name_of(branch);
            let first = *names.entry(name).or_insert(position);
            if first != position {
                self.add(
                    ProblemCode::DuplicateBranch,
                    format!("{at}.branches[{position}]"),
                    format!("branch {} of `{}` is named `{name}` already", first + 1, step.name),
                    "give each branch its own `name`",
                );
            }
        }
    }

    fn termination(&mut self, at: &str, step: &Step) {
        if step.termination.is_some() && step.protocol != Some(Protocol::ThreePhase) {
            self.add(
                ProblemCode::Contradiction,
                format!("{at}.termination"),
                "`termination` is for a step under `three-phase`",
                "take it away: a branch in doubt asks, and is answered from the log",
            );
        }
        match (step.termination, step.assumes_synchrony_ms) {
            (Some(_), None) => self.add(
                ProblemCode::MissingField,
                format!("{at}.termination"),
                "`termination: unilateral` without `assumes_synchrony_ms`",
                "say within how many milliseconds every message is delivered and every process answers, for ever: when \
                 that is untrue once, some branches commit and others abort",
            ),
            (None, Some(_)) => self.add(
                ProblemCode::Contradiction,
                format!("{at}.assumes_synchrony_ms"),
                "`assumes_synchrony_ms` without `termination: unilateral`",
                "take it away: nothing here depends on it",
            ),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

/// A branch is named like its participant unless it is named.
pub(super) fn name_of(branch: &Branch) -> &Name {
    branch.name.as_ref().unwrap_or(&branch.participant)
}

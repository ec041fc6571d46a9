//! Inputs and keys: every `${…}` exists on every path to the step that reads it.

use std::collections::BTreeMap;
use std::fmt;

use sagamore_schemas::definition::{Definition, ExactJson, Step};
use sagamore_schemas::ids::Name;

use super::Check;
use super::graph::{Ancestors, Graph};
use super::problem::ProblemCode;
use super::shapes::name_of;
use super::words::{nearest, unknown_step};
use crate::definition::condition::{Condition, ConditionError, ConditionFault, Path};
use crate::definition::plan::{BranchIndex, Performer, PlanBranch};
use crate::definition::template::{
    PATH_SEGMENTS_MAX, PATHS_MAX, ResultPath, Template, TemplateError, TemplateFault,
};

impl Check {
    /// Condition and branches of each step; of no use when a problem was found.
    pub(super) fn inputs(
        &mut self,
        definition: &Definition,
        names: &BTreeMap<Name, usize>,
        graph: &Graph,
    ) -> Vec<(Option<Condition>, Vec<PlanBranch>)> {
        let first_branches = first_branches(definition);
        let mut all = Vec::with_capacity(definition.steps.len());
        for (position, step) in definition.steps.iter().enumerate() {
            let mut place = Place {
                step,
                is_wanted: &|_| true,
                position,
                steps: &definition.steps,
                first_branches: &first_branches,
                names,
                ancestors: graph.ancestors.as_ref(),
            };
            let at = format!("steps[{position}]");
            let when = self.condition(&place, &at);
            let asks_for = |of: usize| asks_for(definition, when.as_ref(), &first_branches, position, of);
            place.is_wanted = &asks_for;
            let by = match (&step.participant, &step.definition) {
                (Some(participant), _) => Some((participant, Performer::Participant(participant.clone()))),
                (None, Some(child)) => Some((&child.name, Performer::Child(child.clone()))),
                (None, None) => None,
            };
            let own = by.into_iter().map(|(name, by)| (at.clone(), name.clone(), by, &step.input, &step.key));
            let grouped = step.branches.iter().flatten().enumerate().map(|(number, branch)| {
                let name = name_of(branch).clone();
                let by = Performer::Participant(branch.participant.clone());
                (format!("{at}.branches[{number}]"), name, by, &branch.input, &branch.key)
            });
            let branches = own.chain(grouped).map(|(at, name, by, input, key)| {
                let key = key.clone().map(ExactJson::Text);
                PlanBranch {
                    name,
                    by,
                    input: self.template(&place, &format!("{at}.input"), input.as_ref()),
                    key: self.template(&place, &format!("{at}.key"), key.as_ref()),
                }
            });
            let branches = branches.collect();
            all.push((when, branches));
        }
        all
    }

    fn condition(&mut self, place: &Place<'_>, at: &str) -> Option<Condition> {
        const SHOWN: usize = 24;
        let text = place.step.when.as_deref()?;
        match Condition::compile(text, &|step, next| place.resolve(step, next)) {
            Ok(condition) => Some(condition),
            Err(ConditionFault { cause: ConditionError::Step(why), .. }) => {
                self.add(why.code, format!("{at}.when"), why.message, why.help);
                None
            }
            Err(ConditionFault { at: offset, cause }) => {
                let rest: String = text[offset..].chars().take(SHOWN).collect();
                let place = if rest.is_empty() { "at its end".to_owned() } else { format!("at `{rest}`") };
                self.add(
                    ProblemCode::BadCondition,
                    format!("{at}.when"),
                    format!("the condition cannot be read {place}: {cause}"),
                    "write an expression that is true or false, such as input.total > 100 && has(steps.reserve.id)",
                );
                None
            }
        }
    }

    fn template(&mut self, place: &Place<'_>, field: &str, document: Option<&ExactJson>) -> Option<Template> {
        match Template::compile(document?, &|step, next| place.resolve(step, next)) {
            Ok(template) => Some(template),
            Err(faults) => {
                for TemplateFault { at, cause } in faults {
                    let Explanation { code, message, help } = explained(cause);
                    self.add(code, format!("{field}{at}"), message, help);
                }
                None
            }
        }
    }
}

/// Whether a step that is not skipped can rely on the result of another: that one has no condition, the very same, or is
/// asked for in its own.
fn asks_for(
    definition: &Definition,
    when: Option<&Condition>,
    first_branches: &[usize],
    position: usize,
    of: usize,
) -> bool {
    let (step, other) = (&definition.steps[position], &definition.steps[of]);
    let branches = first_branches[of]..first_branches[of] + other.branches.as_ref().map_or(1, Vec::len);
    let mut read = when.into_iter().flat_map(Condition::paths).filter_map(Path::branch);
    other.when.is_none() || other.when == step.when || read.any(|index| branches.contains(&index.position()))
}

/// By position of the step: how many branches stand before its first.
pub(super) fn first_branches(definition: &Definition) -> Vec<usize> {
    let mut next = 0;
    let first = |step: &Step| {
        let first = next;
        next += step.branches.as_ref().map_or(1, Vec::len);
        first
    };
    definition.steps.iter().map(first).collect()
}

/// Where a template stands, which says what results it can name.
struct Place<'a> {
    step: &'a Step,
    /// Whether a step, by its position, has not been skipped when this one runs.
    is_wanted: &'a dyn Fn(usize) -> bool,
    position: usize,
    steps: &'a [Step],
    first_branches: &'a [usize],
    names: &'a BTreeMap<Name, usize>,
    ancestors: Option<&'a Ancestors>,
}

/// What is said of a name.
#[derive(Debug)]
struct Explanation {
    code: ProblemCode,
    message: String,
    help: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Place<'_> {
    fn resolve(&self, name: &str, next: Option<&str>) -> Result<ResultPath, Explanation> {
        let found = name.parse().ok().and_then(|name: Name| Some((*self.names.get(&name)?, name)));
        let Some((position, name)) = found else {
            let (message, help) = unknown_step(name, self.names);
            return Err(Explanation { code: ProblemCode::UnknownStep, message, help });
        };
        let is_ancestor = self.ancestors.is_none_or(|ancestors| ancestors.has(self.position, position));
        if is_ancestor && (self.is_wanted)(position) {
            return self.branch_of(position, name, next);
        }
        let step = &self.step.name;
        if is_ancestor {
            return Err(Explanation {
                code: ProblemCode::MayBeSkipped,
                message: format!("`{name}` may be skipped, and then there is no result for `{step}`"),
                help: format!(
                    "give `{step}` the same `when`, or one that asks, such as has(steps[\"{name}\"].…)"
                ),
            });
        }
        let message = if position == self.position {
            format!("`{step}` reads its own result")
        } else {
            format!(
                "the result of `{name}` need not exist when `{step}` runs: it does not wait for it on any path"
            )
        };
        let help = format!("name a step that `{step}` waits for, or add `{name}` to its `after`");
        Err(Explanation { code: ProblemCode::NotAnAncestor, message, help })
    }

    fn branch_of(&self, position: usize, step: Name, next: Option<&str>) -> Result<ResultPath, Explanation> {
        let first = self.first_branches[position];
        let Some(branches) = &self.steps[position].branches else {
            return Ok(ResultPath { index: BranchIndex::from_position(first), step, branch: None });
        };
        let names: Vec<&Name> = branches.iter().map(name_of).collect();
        let found = next.and_then(|next| names.iter().position(|name| name.as_str() == next));
        if let Some(number) = found {
            let branch = Some(names[number].clone());
            return Ok(ResultPath { index: BranchIndex::from_position(first + number), step, branch });
        }
        let known = || names.iter().map(|name| name.as_str());
        let list = known().collect::<Vec<_>>().join(", ");
        let (message, near) = match next {
            Some(next) => (format!("step `{step}` has no branch `{next}`"), nearest(next, known())),
            None => (format!("`{step}` has a result for each branch, not one"), None),
        };
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write ${{steps.{step}.<branch>.…}}; the branches are {list}"),
        };
        Err(Explanation { code: ProblemCode::UnknownBranch, message, help })
    }
}

fn explained(cause: TemplateError<Explanation>) -> Explanation {
    let (message, help) = match cause {
        TemplateError::Step(explanation) => return explanation,
        TemplateError::Unclosed => (
            "`${` without `}`".to_owned(),
            "close the path with `}`, or write `$${` for the text `${`".to_owned(),
        ),
        TemplateError::Malformed(path) => (
            format!("`${{{path}}}` is not a path"),
            format!(
                "write names between single dots, as in ${{input.total}}, at most {PATH_SEGMENTS_MAX} of them"
            ),
        ),
        TemplateError::UnknownRoot(path) => {
            let roots = ["input", "steps", "transaction.id"];
            let root = path.split('.').next().unwrap_or_default();
            let help = match nearest(root, ["input", "steps", "transaction"].into_iter()) {
                Some("transaction") => {
                    "the one thing to know of the transaction is ${transaction.id}".to_owned()
                }
                Some("steps") => "write ${steps.<name of a step>.…}".to_owned(),
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a path begins with {}", roots.join(", ")),
            };
            (format!("`${{{path}}}` does not exist"), help)
        }
        TemplateError::TooManyPaths => (
            format!("more than {PATHS_MAX} paths in one template"),
            "take an object as a whole, such as ${input}, instead of each of its fields".to_owned(),
        ),
    };
    Explanation { code: ProblemCode::BadTemplate, message, help }
}

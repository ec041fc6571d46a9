//! The check of a definition, and the only way from a document to a [`Plan`].
//!
//! Every problem is found in one go: a rule that cannot be judged because of another problem (ancestors in a graph with
//! a cycle) says nothing rather than something wrong. A problem names its place as a path in the document, such as
//! `steps[2].retry.attempts`; `source` turns it into line and column.
//!
//! The rules are those of a saga with at most one pivot: what is not retriable happens before the pivot, what is
//! retriable happens after everything else. What a later level will allow is refused in one place, `later_level`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sagamore_schemas::definition::{Definition, ExactJson, STEPS_MAX, Step, StepKind, defaults};
use sagamore_schemas::ids::{Name, Span};

use super::plan::{Plan, PlanBranch, PlanStep, Retry, StepIndex};
use super::template::{PATH_SEGMENTS_MAX, PATHS_MAX, Template, TemplateError, TemplateFault};

/// Most attempts of one operation: more is a retriable step in disguise.
pub const ATTEMPTS_MAX: u32 = 1000;
/// Largest growth of the pause between attempts: above it the second pause is the longest one.
pub const FACTOR_MAX: u32 = 10;
/// Most steps that wait for one step, and most that one step waits for: one reply starts at most so many commands.
pub const FAN_OUT_MAX: usize = 64;

/// Something wrong in a definition, or a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which rule.
    pub code: ProblemCode,
    /// Where in the document, such as `steps[2].retry.attempts`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, path, message, help } = self;
        let place = if path.is_empty() { "definition" } else { path };
        write!(f, "{place}: {message} ({code}); {help}")
    }
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Which rule a definition breaks. The text is stable: scripts may look for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }

        impl ProblemCode {
            /// The stable text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

problem_codes! {
    /// Not YAML, or beyond the bounds of a file.
    Unreadable = "unreadable",
    /// A key that stands twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A field that there is not.
    UnknownField = "unknown-field",
    /// A field that has to be there.
    MissingField = "missing-field",
    /// A value of another type or form.
    BadValue = "bad-value",
    /// A number or a duration outside its bounds.
    OutOfBounds = "out-of-bounds",
    /// No steps, or too many.
    StepCount = "step-count",
    /// Two steps of one name.
    DuplicateStep = "duplicate-step",
    /// A step named in `after` or in a template that there is not.
    UnknownStep = "unknown-step",
    /// A step named twice in one `after`.
    DuplicateAfter = "duplicate-after",
    /// Steps that wait for each other.
    Cycle = "cycle",
    /// Too many steps wait for one, or one for too many.
    FanOut = "fan-out",
    /// A second pivot.
    SecondPivot = "second-pivot",
    /// A step that is not retriable and does not come before the pivot.
    NotBeforePivot = "not-before-pivot",
    /// A step that is not retriable and comes after a retriable one.
    AfterRetriable = "after-retriable",
    /// A finite number of attempts where there is no way back.
    FiniteAttempts = "finite-attempts",
    /// A template that cannot be read.
    BadTemplate = "bad-template",
    /// A result of a step that need not have succeeded before.
    NotAnAncestor = "not-an-ancestor",
    /// What a later level will allow.
    NotYetSupported = "not-yet-supported",
    /// Warning: the deadline can fall before the last attempt.
    DeadlineTooShort = "deadline-too-short",
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks a definition against every rule and compiles it.
///
/// ```
/// use sagamore_decider::definition::check::compile;
/// use sagamore_schemas::definition::Definition;
/// let definition = Definition::from_json(
///     r#"{"name":"order","version":1,"steps":[
///         {"name":"reserve","participant":"inventory"},
///         {"name":"ship","participant":"shipping","kind":"retriable","after":["reserv"]}]}"#,
/// ).unwrap();
/// let problems = compile(&definition).unwrap_err();
/// assert_eq!(
///     problems[0].to_string(),
///     "steps[1].after[0]: there is no step `reserv` (unknown-step); did you mean `reserve`?",
/// );
/// ```
pub fn compile(definition: &Definition) -> Result<Plan, Vec<Problem>> {
    let mut check = Check { problems: Vec::new() };
    check.later_level(definition);
    check.numbers(definition);
    let names = check.step_names(definition);
    let Some(graph) = check.graph(definition, &names) else { return Err(check.sorted()) };
    check.kinds(definition, &graph);
    let branches = check.branches(definition, &names, &graph);
    if !check.problems.is_empty() {
        return Err(check.sorted());
    }
    Ok(assembled(definition, &graph, branches))
}

/// What is allowed and probably not meant.
pub fn warnings(plan: &Plan) -> Vec<Problem> {
    deadline_warning(plan).into_iter().collect()
}

struct Check {
    problems: Vec<Problem>,
}

/// Who waits for whom, by position.
struct Graph {
    after: Vec<Vec<usize>>,
    before: Vec<Vec<usize>>,
    /// `None` when steps wait for each other.
    ancestors: Option<Ancestors>,
}

/// For each step, whether another has succeeded when it begins: a row of marks, since the largest graph has 500 steps
/// and thousands of edges.
struct Ancestors(Vec<Vec<bool>>);

impl Ancestors {
    fn of(order: &[usize], after: &[Vec<usize>]) -> Self {
        let mut all = vec![Vec::new(); after.len()];
        for &position in order {
            let mut own = vec![false; after.len()];
            for &earlier in &after[position] {
                own[earlier] = true;
                let inherited: &Vec<bool> = &all[earlier];
                own.iter_mut().zip(inherited).for_each(|(mark, inherited)| *mark |= inherited);
            }
            all[position] = own;
        }
        Self(all)
    }

    fn has(&self, step: usize, ancestor: usize) -> bool {
        self.0[step][ancestor]
    }
}

impl Check {
    fn add(
        &mut self,
        code: ProblemCode,
        path: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(Problem { code, path: path.into(), message: message.into(), help: help.into() });
    }

    /// In the order of the document's steps; what concerns the whole comes first.
    fn sorted(mut self) -> Vec<Problem> {
        let position = |problem: &Problem| {
            let (step, _) = problem.path.strip_prefix("steps[")?.split_once(']')?;
            step.parse::<usize>().ok()
        };
        self.problems.sort_by_cached_key(position);
        self.problems
    }

    /// The one place that refuses what the document can say and this level cannot do.
    fn later_level(&mut self, definition: &Definition) {
        let help = "use one `participant` per step, of kind compensatable, pivot or retriable";
        for (position, step) in definition.steps.iter().enumerate() {
            let later = [
                ("protocol", step.protocol.is_some()),
                ("branches", step.branches.is_some()),
                ("commit", step.commit.is_some()),
                ("kind", step.kind == StepKind::Reserved),
            ];
            for (field, _) in later.into_iter().filter(|(_, is_used)| *is_used) {
                let what = if field == "kind" { "kind `reserved`".to_owned() } else { format!("`{field}`") };
                self.add(
                    ProblemCode::NotYetSupported,
                    format!("steps[{position}].{field}"),
                    format!("{what} is not yet supported by this level"),
                    help,
                );
            }
        }
    }

    fn numbers(&mut self, definition: &Definition) {
        if definition.version == 0 {
            self.add(ProblemCode::OutOfBounds, "version", "the version is 0", "versions begin at 1");
        }
        self.positive("deadline", definition.deadline);
        for (position, step) in definition.steps.iter().enumerate() {
            self.positive(&format!("steps[{position}].timeout"), step.timeout);
            self.retry(&format!("steps[{position}].retry"), step);
        }
    }

    fn retry(&mut self, path: &str, step: &Step) {
        let Some(retry) = &step.retry else { return };
        self.positive(&format!("{path}.backoff"), retry.backoff);
        self.positive(&format!("{path}.max"), retry.max);
        for (field, number, max) in
            [("attempts", retry.attempts, ATTEMPTS_MAX), ("factor", retry.factor, FACTOR_MAX)]
        {
            if let Some(number) = number.filter(|number| !(1..=max).contains(number)) {
                self.add(
                    ProblemCode::OutOfBounds,
                    format!("{path}.{field}"),
                    format!("`{field}` is {number}"),
                    format!("write a number from 1 to {max}"),
                );
            }
        }
        let (backoff, max) =
            (retry.backoff.unwrap_or(defaults::BACKOFF), retry.max.unwrap_or(defaults::BACKOFF_MAX));
        if backoff > max && max > Span::default() {
            self.add(
                ProblemCode::OutOfBounds,
                path,
                format!("the first pause, {backoff}, is longer than the longest one, {max}"),
                "raise `max` or lower `backoff`",
            );
        }
        let until = match step.kind {
            StepKind::Pivot => "a pivot is asked until it answers",
            StepKind::Retriable => "a retriable step is tried until it succeeds",
            StepKind::Compensatable | StepKind::Reserved => return,
        };
        if let Some(attempts) = retry.attempts {
            self.add(
                ProblemCode::FiniteAttempts,
                format!("{path}.attempts"),
                format!("step `{}` has {attempts} attempts, but {until}", step.name),
                "remove `attempts`, or make the step compensatable",
            );
        }
    }

    fn positive(&mut self, path: &str, span: Option<Span>) {
        if span == Some(Span::default()) {
            self.add(
                ProblemCode::OutOfBounds,
                path,
                "a duration of 0",
                "write a duration above 0, such as 5s",
            );
        }
    }

    /// Every name with the position of the first step that has it.
    fn step_names(&mut self, definition: &Definition) -> BTreeMap<Name, usize> {
        let count = definition.steps.len();
        if !(1..=STEPS_MAX).contains(&count) {
            let help = format!("write 1 to {STEPS_MAX} steps");
            self.add(ProblemCode::StepCount, "steps", format!("the definition has {count} steps"), help);
        }
        let mut names = BTreeMap::new();
        for (position, step) in definition.steps.iter().enumerate() {
            let first = *names.entry(step.name.clone()).or_insert(position);
            if first != position {
                self.add(
                    ProblemCode::DuplicateStep,
                    format!("steps[{position}].name"),
                    format!("step {} is named `{}` already", first + 1, step.name),
                    "give every step its own name",
                );
            }
        }
        names
    }

    /// `None` when there are too many steps to look at them one by one.
    fn graph(&mut self, definition: &Definition, names: &BTreeMap<Name, usize>) -> Option<Graph> {
        let count = definition.steps.len();
        if count > STEPS_MAX {
            return None;
        }
        let mut after = Vec::with_capacity(count);
        for (position, step) in definition.steps.iter().enumerate() {
            after.push(match &step.after {
                None => position.checked_sub(1).into_iter().collect(),
                Some(listed) => self.listed_after(position, listed, names),
            });
        }
        let mut before = vec![Vec::new(); count];
        for (position, waited_for) in after.iter().enumerate() {
            for &earlier in waited_for {
                before[earlier].push(position);
            }
        }
        for (position, waiting) in
            before.iter().enumerate().filter(|(_, waiting)| waiting.len() > FAN_OUT_MAX)
        {
            self.add(
                ProblemCode::FanOut,
                format!("steps[{position}]"),
                format!("{} steps wait for step `{}`", waiting.len(), definition.steps[position].name),
                format!("let at most {FAN_OUT_MAX} steps wait for one"),
            );
        }
        let order = self.order(definition, &after, &before);
        let ancestors = order.map(|order| Ancestors::of(&order, &after));
        Some(Graph { after, before, ancestors })
    }

    fn listed_after(
        &mut self,
        position: usize,
        listed: &[Name],
        names: &BTreeMap<Name, usize>,
    ) -> Vec<usize> {
        let mut found = BTreeSet::new();
        for (index, name) in listed.iter().enumerate() {
            let path = format!("steps[{position}].after[{index}]");
            let Some(&earlier) = names.get(name) else {
                let (message, help) = unknown_step(name.as_str(), names);
                self.add(ProblemCode::UnknownStep, path, message, help);
                continue;
            };
            if !found.insert(earlier) {
                self.add(
                    ProblemCode::DuplicateAfter,
                    path,
                    format!("`{name}` stands here twice"),
                    "write it once",
                );
            }
        }
        if found.len() > FAN_OUT_MAX {
            self.add(
                ProblemCode::FanOut,
                format!("steps[{position}].after"),
                format!("the step waits for {} steps", found.len()),
                format!("let a step wait for at most {FAN_OUT_MAX}"),
            );
        }
        found.into_iter().collect()
    }

    /// The steps so that each comes after those it waits for. Names every cycle when there is no such order.
    fn order(
        &mut self,
        definition: &Definition,
        after: &[Vec<usize>],
        before: &[Vec<usize>],
    ) -> Option<Vec<usize>> {
        let mut open: Vec<BTreeSet<usize>> =
            after.iter().map(|list| list.iter().copied().collect()).collect();
        let mut order = Vec::with_capacity(after.len());
        let mut left: BTreeSet<usize> = (0..after.len()).collect();
        let mut has_cycle = false;
        loop {
            while let Some(next) = left.iter().copied().find(|&position| open[position].is_empty()) {
                left.remove(&next);
                for &later in &before[next] {
                    open[later].remove(&next);
                }
                order.push(next);
            }
            let Some(&first) = left.first() else { break };
            has_cycle = true;
            let cycle = cycle_from(first, &open);
            self.add_cycle(definition, &cycle);
            // Taken out, so that the next cycle is another one.
            for &position in &cycle {
                open[position].clear();
            }
        }
        (!has_cycle).then_some(order)
    }

    fn add_cycle(&mut self, definition: &Definition, cycle: &[usize]) {
        // It is told from the step that stands first in the file.
        let earliest =
            cycle.iter().enumerate().min_by_key(|(_, position)| **position).map_or(0, |(at, _)| at);
        let around = cycle.iter().cycle().skip(earliest).take(cycle.len() + 1);
        let names: Vec<&str> = around.map(|&position| definition.steps[position].name.as_str()).collect();
        let position = cycle[earliest];
        let field = if definition.steps[position].after.is_some() { ".after" } else { "" };
        self.add(
            ProblemCode::Cycle,
            format!("steps[{position}]{field}"),
            format!("steps wait for each other: {}", names.join(" -> ")),
            "take one of them out of an `after` (without `after` a step waits for the one before it)",
        );
    }

    fn kinds(&mut self, definition: &Definition, graph: &Graph) {
        let steps = &definition.steps;
        let pivots: Vec<usize> = (0..steps.len()).filter(|&at| steps[at].kind == StepKind::Pivot).collect();
        for &second in pivots.iter().skip(1) {
            self.add(
                ProblemCode::SecondPivot,
                format!("steps[{second}].kind"),
                format!("`{}` is a second pivot, after `{}`", steps[second].name, steps[pivots[0]].name),
                "there is one point of no return: make this step compensatable before it, or retriable after it",
            );
        }
        let Some(ancestors) = &graph.ancestors else { return };
        for (position, step) in steps.iter().enumerate().filter(|(_, step)| step.kind != StepKind::Retriable)
        {
            let retriable = (0..steps.len())
                .find(|&at| steps[at].kind == StepKind::Retriable && ancestors.has(position, at));
            if let Some(retriable) = retriable {
                self.add(
                    ProblemCode::AfterRetriable,
                    format!("steps[{position}]"),
                    format!(
                        "`{}` is {} and comes after the retriable step `{}`, which runs after the decision",
                        step.name, step.kind, steps[retriable].name
                    ),
                    "put it before, or make it retriable",
                );
            }
            let Some(&pivot) = pivots.first() else { continue };
            if step.kind != StepKind::Pivot && !ancestors.has(pivot, position) {
                let relation = if ancestors.has(position, pivot) { "comes after" } else { "runs beside" };
                self.add(
                    ProblemCode::NotBeforePivot,
                    format!("steps[{position}]"),
                    format!(
                        "`{}` is {} and {relation} the pivot `{}`",
                        step.name, step.kind, steps[pivot].name
                    ),
                    "let the pivot wait for it (`after`), or make it retriable",
                );
            }
        }
    }

    /// The branches of each step; of no use when a problem was found.
    fn branches(
        &mut self,
        definition: &Definition,
        names: &BTreeMap<Name, usize>,
        graph: &Graph,
    ) -> Vec<Vec<PlanBranch>> {
        let mut all = Vec::with_capacity(definition.steps.len());
        for (position, step) in definition.steps.iter().enumerate() {
            let mut place = TemplatePlace { step, position, names, ancestors: graph.ancestors.as_ref() };
            let key = step.key.clone().map(ExactJson::Text);
            let input = self.template(&mut place, "input", step.input.as_ref());
            let key = self.template(&mut place, "key", key.as_ref());
            let Some(participant) = step.participant.clone() else {
                if step.branches.is_none() {
                    self.add(
                        ProblemCode::MissingField,
                        format!("steps[{position}]"),
                        "this step has no `participant`",
                        "name the service that does it: `participant: …`",
                    );
                }
                continue;
            };
            all.push(vec![PlanBranch { name: participant.clone(), participant, input, key }]);
        }
        all
    }

    fn template(
        &mut self,
        place: &mut TemplatePlace<'_>,
        field: &str,
        document: Option<&ExactJson>,
    ) -> Option<Template> {
        match Template::compile(document?, &|name| place.resolve(name)) {
            Ok(template) => Some(template),
            Err(faults) => {
                for TemplateFault { at, cause } in faults {
                    let (code, message, help) = explained(cause);
                    self.add(code, format!("steps[{}].{field}{at}", place.position), message, help);
                }
                None
            }
        }
    }
}

/// Where a template stands, which says what steps it can name.
struct TemplatePlace<'a> {
    step: &'a Step,
    position: usize,
    names: &'a BTreeMap<Name, usize>,
    ancestors: Option<&'a Ancestors>,
}

type Explanation = (ProblemCode, String, String);

impl TemplatePlace<'_> {
    fn resolve(&self, name: &str) -> Result<(StepIndex, Name), Explanation> {
        let found = name.parse().ok().and_then(|name: Name| Some((*self.names.get(&name)?, name)));
        let Some((position, name)) = found else {
            let (message, help) = unknown_step(name, self.names);
            return Err((ProblemCode::UnknownStep, message, help));
        };
        let is_ancestor = self.ancestors.is_none_or(|ancestors| ancestors.has(self.position, position));
        if is_ancestor {
            return Ok((StepIndex::from_position(position), name));
        }
        let step = &self.step.name;
        let message = if position == self.position {
            format!("`{step}` reads its own result")
        } else {
            format!(
                "the result of `{name}` need not exist when `{step}` runs: it does not wait for it on any path"
            )
        };
        let help = format!("name a step that `{step}` waits for, or add `{name}` to its `after`");
        Err((ProblemCode::NotAnAncestor, message, help))
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
    (ProblemCode::BadTemplate, message, help)
}

fn unknown_step(name: &str, names: &BTreeMap<Name, usize>) -> (String, String) {
    const SHOWN: usize = 8;
    let known: Vec<&str> = names.keys().map(Name::as_str).take(SHOWN).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let help = match nearest(name, names.keys().map(Name::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the steps are {}{more}", known.join(", ")),
    };
    (format!("there is no step `{name}`"), help)
}

/// The known name that was probably meant: at most one typing error in three letters.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let bound = (name.chars().count() / 3).max(1);
    known
        .map(|other| (distance(other), other))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, other)| other)
}

/// Walks from step to a step it waits for until one comes again; every step left waits for one that is left.
fn cycle_from(first: usize, open: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut walked = vec![first];
    loop {
        let last = walked[walked.len() - 1];
        let Some(&next) = open[last].first() else {
            unreachable!("a step that waits for nothing has been taken out of the graph")
        };
        if let Some(begin) = walked.iter().position(|&step| step == next) {
            return walked.split_off(begin);
        }
        walked.push(next);
    }
}

fn assembled(definition: &Definition, graph: &Graph, branches: Vec<Vec<PlanBranch>>) -> Plan {
    let indexes = |list: &[usize]| list.iter().map(|&position| StepIndex::from_position(position)).collect();
    let step = |(position, (step, branches)): (usize, (&Step, Vec<PlanBranch>))| PlanStep {
        name: step.name.clone(),
        kind: step.kind,
        branches,
        after: indexes(&graph.after[position]),
        before: indexes(&graph.before[position]),
        timeout: step.timeout.unwrap_or(defaults::TIMEOUT),
        retry: retry_of(step),
    };
    Plan {
        name: definition.name.clone(),
        version: definition.version,
        deadline: definition.deadline.unwrap_or(defaults::DEADLINE),
        steps: definition.steps.iter().zip(branches).enumerate().map(step).collect(),
    }
}

fn retry_of(step: &Step) -> Retry {
    let retry = step.retry.clone().unwrap_or_default();
    let attempts = match step.kind {
        StepKind::Pivot | StepKind::Retriable => Retry::UNBOUNDED,
        StepKind::Compensatable | StepKind::Reserved => retry.attempts.unwrap_or(defaults::ATTEMPTS),
    };
    Retry {
        attempts,
        backoff: retry.backoff.unwrap_or(defaults::BACKOFF),
        factor: retry.factor.unwrap_or(defaults::FACTOR),
        max: retry.max.unwrap_or(defaults::BACKOFF_MAX),
    }
}

/// The longest way to the decision, every attempt timing out, against the deadline. The pivot is not counted: once it
/// is asked, the deadline is refused.
fn deadline_warning(plan: &Plan) -> Option<Problem> {
    // By position: milliseconds until the step has succeeded, and the step before it on that way.
    let mut ends: BTreeMap<StepIndex, (u64, Option<StepIndex>)> = BTreeMap::new();
    let counts = |step: &PlanStep| matches!(step.kind, StepKind::Compensatable | StepKind::Reserved);
    // Steps may stand before those they wait for; as many rounds as steps are enough, and a sorted file needs two.
    loop {
        let mut has_grown = false;
        for (index, step) in plan.indexed().filter(|(_, step)| counts(step)) {
            let earlier = step.after.iter().filter_map(|at| Some((ends.get(at)?.0, *at))).max();
            let (begin, from) = earlier.map_or((0, None), |(end, at)| (end, Some(at)));
            let end = begin.saturating_add(worst_case_ms(step));
            has_grown |= ends.insert(index, (end, from)) != Some((end, from));
        }
        if !has_grown {
            break;
        }
    }
    let (&last, &(worst_ms, _)) = ends.iter().max_by_key(|(_, (end, _))| *end)?;
    if worst_ms <= plan.deadline.as_ms() {
        return None;
    }
    let mut way = vec![last];
    while let Some(from) = ends[&way[way.len() - 1]].1 {
        way.push(from);
    }
    Some(Problem {
        code: ProblemCode::DeadlineTooShort,
        path: "deadline".to_owned(),
        message: format!(
            "the worst case, {}, is longer than the deadline, {}: {}",
            human(worst_ms),
            human(plan.deadline.as_ms()),
            arithmetic(plan, &way)
        ),
        help:
            "raise `deadline`, or lower `timeout` or `retry.attempts`; else the last attempts are never made"
                .to_owned(),
    })
}

fn worst_case_ms(step: &PlanStep) -> u64 {
    let attempts_ms = step.timeout.as_ms().saturating_mul(step.retry.attempts.into());
    attempts_ms.saturating_add(pauses_ms(step.retry))
}

fn pauses_ms(retry: Retry) -> u64 {
    (1..retry.attempts).map(|attempt| retry.delay(attempt).as_ms()).sum()
}

/// `reserve 5 x 5s + 1.5s of pauses = 26.5s; …`, from the first step to the last.
fn arithmetic(plan: &Plan, way_back: &[StepIndex]) -> String {
    const SHOWN: usize = 6;
    let part = |&index: &StepIndex| {
        let PlanStep { name, timeout, retry, .. } = plan.step(index);
        let (pauses, total) = (human(pauses_ms(*retry)), human(worst_case_ms(plan.step(index))));
        format!("{name} {} x {} + {pauses} of pauses = {total}", retry.attempts, human(timeout.as_ms()))
    };
    let mut parts: Vec<String> = way_back.iter().rev().take(SHOWN).map(part).collect();
    if way_back.len() > SHOWN {
        parts.push(format!("and {} more steps", way_back.len() - SHOWN));
    }
    parts.join("; ")
}

/// Milliseconds as a person writes them: `1m 1.5s`.
fn human(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, size) in units {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if rest > 0 || parts.is_empty() {
        let fraction = format!("{:03}", rest % 1000);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        parts.push(format!("{}{point}{fraction}s", rest / 1000));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sagamore_schemas::definition::{self as document, CommitPlace, Protocol};

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
        fn step()(
            name in name(),
            participant in proptest::option::weighted(0.9, name()),
            groups in proptest::option::weighted(0.1, Just((Protocol::TwoPhase, CommitPlace::AtEnd))),
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
            let (protocol, commit) = groups.unzip();
            Step { name, participant, protocol, branches: None, commit, kind, after, input, key, timeout, retry }
        }
    }

    prop_compose! {
        fn definition()(version in 0u32..3, deadline in span(), steps in proptest::collection::vec(step(), 0..6))
            -> Definition
        {
            Definition { name: "d".parse().unwrap(), version, deadline, steps }
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
                    prop_assert!(plan.steps.iter().all(|step| step.branches.len() == 1));
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
            participant: Some("p".parse().unwrap()),
            protocol: None,
            branches: None,
            commit: None,
            kind: StepKind::Compensatable,
            after: (position + 1 < STEPS_MAX).then(|| vec![format!("s{}", position + 1).parse().unwrap()]),
            input: None,
            key: None,
            timeout: None,
            retry: None,
        };
        let mut steps: Vec<Step> = (0..STEPS_MAX).map(step).collect();
        steps[STEPS_MAX - 1].after = Some(Vec::new());
        let definition = Definition { name: "d".parse().unwrap(), version: 1, deadline: None, steps };
        let plan = compile(&definition).unwrap();
        assert_eq!(warnings(&plan).len(), 1);
        assert_eq!(plan.step(StepIndex(0)).after, [StepIndex(1)]);
    }
}

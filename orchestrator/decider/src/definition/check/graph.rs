//! Who waits for whom: names that exist, no cycles, bounded fan-out.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::definition::{Definition, STEPS_MAX};
use sagamore_schemas::ids::Name;

use super::problem::ProblemCode;
use super::words::unknown_step;
use super::{Check, FAN_OUT_MAX};

/// Who waits for whom, by position.
pub(super) struct Graph {
    pub after: Vec<Vec<usize>>,
    pub before: Vec<Vec<usize>>,
    /// `None` when steps wait for each other.
    pub ancestors: Option<Ancestors>,
}

/// For each step, whether another has succeeded when it begins: a row of marks, since the largest graph has 500 steps
/// and thousands of edges.
pub(super) struct Ancestors(Vec<Vec<bool>>);

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

    pub fn has(&self, step: usize, ancestor: usize) -> bool {
        self.0[step][ancestor]
    }
}

impl Check {
    /// Every name with the position of the first step that has it.
    pub(super) fn step_names(&mut self, definition: &Definition) -> BTreeMap<Name, usize> {
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
    pub(super) fn graph(&mut self, definition: &Definition, names: &BTreeMap<Name, usize>) -> Option<Graph> {
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

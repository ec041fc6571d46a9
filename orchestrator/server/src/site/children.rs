//! What a definition names, found among files or in the topic, and judged.

use std::collections::BTreeMap;

use sagamore_decider::definition::check::{Problem, ProblemCode, children, compile};
use sagamore_decider::definition::plan::Plan;
use sagamore_schemas::definition::{Definition, DefinitionId};

/// The problems of what `plan` names: that it is there, can be undone where it may have to be, reads nothing that it is
/// not given, and never comes to begin `plan` itself.
pub fn judge(plan: &Plan, find: impl Fn(&DefinitionId) -> Option<Definition>) -> Vec<Problem> {
    let reached = reached_from(plan, find);
    let mut problems = children(plan, |id| reached.get(id));
    let own = DefinitionId { name: plan.name.clone(), version: plan.version };
    for (index, named) in plan.children() {
        if let Some(way) = way_to(&own, named, &reached) {
            problems.retain(|problem| problem.code != ProblemCode::TooDeep);
            let way: Vec<String> = [&own].into_iter().chain(&way).map(ToString::to_string).collect();
            problems.push(Problem {
                code: ProblemCode::Cycle,
                path: index.map_or("compensated_by".to_owned(), |index| format!("steps[{index}].definition")),
                message: format!("definitions begin each other: {}", way.join(" -> ")),
                help: "name another one: none of these could be applied first".to_owned(),
            });
        }
    }
    problems
}

/// Everything that comes to be begun, as far as it is there and sound.
fn reached_from(
    plan: &Plan,
    find: impl Fn(&DefinitionId) -> Option<Definition>,
) -> BTreeMap<DefinitionId, Plan> {
    let names = |plan: &Plan| plan.children().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    let mut reached = BTreeMap::new();
    let mut wanted = names(plan);
    while let Some(id) = wanted.pop() {
        if reached.contains_key(&id) {
            continue;
        }
        if let Some(found) = find(&id).and_then(|definition| compile(&definition).ok()) {
            wanted.extend(names(&found));
            reached.insert(id, found);
        }
    }
    reached
}

/// From `from` to `to`, along what they name.
fn way_to(
    to: &DefinitionId,
    from: &DefinitionId,
    reached: &BTreeMap<DefinitionId, Plan>,
) -> Option<Vec<DefinitionId>> {
    let mut came_from: BTreeMap<&DefinitionId, Option<&DefinitionId>> = BTreeMap::from([(from, None)]);
    let mut left = vec![from];
    while let Some(at) = left.pop() {
        if at == to {
            let mut way = vec![at.clone()];
            let mut step = at;
            while let Some(Some(before)) = came_from.get(step) {
                way.insert(0, (*before).clone());
                step = before;
            }
            return Some(way);
        }
        for (_, next) in reached.get(at).into_iter().flat_map(Plan::children) {
            if !came_from.contains_key(next) {
                came_from.insert(next, Some(at));
                left.push(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, child: &str) -> Definition {
        let does = if child.is_empty() {
            r#""participant":"p""#.to_owned()
        } else {
            format!(r#""definition":"{child}""#)
        };
        let text =
            format!(r#"{{"name":"{name}","version":1,"steps":[{{"name":"s","kind":"pivot",{does}}}]}}"#);
        Definition::from_json(&text).unwrap()
    }

    #[test]
    fn what_is_named_is_followed() {
        let all = [
            definition("a", "b@1"),
            definition("b", "c@1"),
            definition("c", "a@1"),
            definition("d", "e@1"),
            definition("e", ""),
            definition("f", "g@1"),
            definition("g", "a@1"),
        ];
        let find = |id: &DefinitionId| all.iter().find(|known| known.name == id.name).cloned();
        let check = |at: usize, then: &[&str]| {
            let problems = judge(&compile(&all[at]).unwrap(), find);
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), then);
        };
        let told = "definitions begin each other: a@1 -> b@1 -> c@1 -> a@1 (cycle); name another one: none of these \
                    could be applied first";
        check(0, &[&format!("steps[0].definition: {told}")]);
        check(3, &[]);
        check(4, &[]);
        // It begins what begins itself, and so would never come to an end either.
        let told = "more than 16 definitions begin each other in a row, down to a@1 (too-deep); do in one definition \
                    what several only pass on";
        check(5, &[&format!("steps: {told}")]);
        let alone = judge(&compile(&all[3]).unwrap(), |_| None);
        assert!(alone[0].to_string().contains("there is no e@1 (unknown-definition)"), "{}", alone[0]);
    }
}

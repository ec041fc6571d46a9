//! One transaction as a tree: each step with what was asked, how long it took and what came of it; why it waits, on whom
//! and until when; and what would free it.

use super::transactions::{Shown, ShownStep};
use super::tree::{Node, draw};

/// The whole text.
pub fn story(shown: &Shown) -> String {
    let mut lines = vec![format!("{} {}", shown.id, shown.status)];
    let fields = [
        ("reason", shown.reason.clone()),
        ("definition", shown.definition.clone()),
        ("parent", shown.parent.clone()),
        ("birth", shown.birth.clone()),
        ("revision", shown.revision.map(|revision| revision.to_string())),
        ("started", shown.started.clone()),
        ("updated", shown.updated.clone()),
        ("deadline", shown.deadline.clone()),
    ];
    lines.extend(fields.into_iter().filter_map(|(name, value)| Some(format!("{name:<11}{}", value?))));
    let mut text = lines.join("\n");
    let mut nodes: Vec<Node> = shown.steps.iter().map(|step| node(shown, step)).collect();
    nodes.extend(shown.decisions.iter().map(|decision| {
        let about = decision.step.as_ref().map(|step| format!(" of {step}")).unwrap_or_default();
        let why = decision.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        Node::leaf(format!("{}{about} by {}, {}{why}", decision.verb, decision.actor, decision.at))
    }));
    if !nodes.is_empty() {
        text.push('\n');
        draw(&nodes, &mut text);
    }
    text
}

fn node(shown: &Shown, step: &ShownStep) -> Node {
    let by = step.done_by();
    let by = if by.is_empty() { String::new() } else { format!(" ({by})") };
    let mut children: Vec<Node> = Vec::new();
    for (position, attempt) in step.attempts.iter().enumerate() {
        // The first three are kept, and the newest.
        if position == FIRST_KEPT
            && let Some(omitted) = step.omitted
        {
            children.push(Node::leaf(format!("… {omitted} more …")));
        }
        let number =
            if attempt.attempt > 1 { format!(", attempt {}", attempt.attempt) } else { String::new() };
        let came_to = attempt.came_to.as_deref().unwrap_or("under way");
        let took = attempt.took_ms.map(|ms| format!(" after {ms} ms")).unwrap_or_default();
        let why = attempt.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        children.push(Node::leaf(format!(
            "{}{number}, {}: {came_to}{took}{why}",
            attempt.operation, attempt.asked
        )));
    }
    children.extend(waits(shown, step).map(Node::leaf));
    children.extend(frees(shown, step).map(|what| Node::leaf(format!("to free it: {what}"))));
    let reason = step.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Node { title: format!("{}{by} {}{reason}", step.called(), step.phase), children }
}

/// As the view keeps them.
const FIRST_KEPT: usize = 3;

/// Why it waits, on whom and until when.
fn waits(shown: &Shown, step: &ShownStep) -> Option<String> {
    let whom = step.participant.as_deref().unwrap_or("its participant");
    let operation = step.operation.as_deref().unwrap_or("what was asked");
    let due = step.due.as_ref().map(|due| format!(" until {due}")).unwrap_or_default();
    match step.phase.as_str() {
        "pausing" if shown.status == "paused" => {
            Some(format!("{operation} is asked again when it is resumed"))
        }
        "asked" => Some(format!("waits for {whom} to answer {operation}{due}")),
        "pausing" => Some(format!("waits{due}, then {operation} is asked again")),
        "prepared" | "precommitted" => Some(match &shown.deadline {
            Some(deadline) => {
                format!("has voted yes; waits for the decision, which falls at {deadline} at the latest")
            }
            None => "has voted yes; waits for the decision".to_owned(),
        }),
        "stuck" => {
            let since = step.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
            Some(format!("waits for a person{since}: {operation} could not be done"))
        }
        "waiting" if matches!(shown.status.as_str(), "running" | "paused") => {
            let before = shown.steps.iter().take_while(|other| !std::ptr::eq(*other, step));
            let open: Vec<String> = before
                .filter(|other| matches!(other.phase.as_str(), "asked" | "pausing" | "stuck"))
                .map(ShownStep::called)
                .collect();
            (!open.is_empty())
                .then(|| format!("has not been asked; under way before it: {}", open.join(", ")))
        }
        _ => None,
    }
}

/// What would free it.
fn frees(shown: &Shown, step: &ShownStep) -> Option<String> {
    let (id, called) = (&shown.id, step.called());
    let whom = step.participant.as_deref().unwrap_or("its participant");
    match step.phase.as_str() {
        "asked" if step.child.is_some() => {
            Some(format!("the end of its child; sagamore get {}", step.child.as_deref().unwrap_or_default()))
        }
        "asked" => Some(format!("an answer of {whom}, or its timeout; see that {whom} runs")),
        "pausing" if shown.status == "paused" => Some(format!("sagamore resume {id} --reason …")),
        "pausing" => Some(format!("sagamore retry {id} --reason …, which asks now")),
        "stuck" => Some(format!(
            "sagamore retry {id} --reason …, when the cause is removed; \
             or sagamore resolve {id} --step {called} --as ok --reason …, when the books of {whom} say so"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_as_people_read_it() {
        let shown: Shown = serde_json::from_str(
            r#"{"id":"o-1","status":"stuck","birth":"0-7","revision":3,"definition":"order@1","reason":"ship: no-carrier",
                "steps":[{"step":"reserve","participant":"inventory","phase":"stuck","operation":"compensate","attempt":2,
                          "reason":"timeout","since":"2026-11-22T16:00:09Z","attempts":[
                            {"operation":"execute","attempt":1,"asked":"2026-11-22T16:00:00Z","took_ms":12,"came_to":"ok"},
                            {"operation":"compensate","attempt":1,"asked":"2026-11-22T16:00:01Z","took_ms":5000,"came_to":"timeout"},
                            {"operation":"compensate","attempt":2,"asked":"2026-11-22T16:00:07Z","took_ms":2000,"came_to":"error","reason":"down"}]},
                         {"step":"ship","participant":"shipping","phase":"refused","reason":"no-carrier: Norway"}],
                "decisions":[{"at":"2026-11-22T16:00:06Z","verb":"retry","actor":"eve","reason":"again"}]}"#,
        )
        .unwrap();
        assert_eq!(
            story(&shown),
            "o-1 stuck\nreason     ship: no-carrier\ndefinition order@1\nbirth      0-7\nrevision   3\n
├─ reserve (inventory) stuck: timeout
│  ├─ execute, 2026-11-22T16:00:00Z: ok after 12 ms
│  ├─ compensate, 2026-11-22T16:00:01Z: timeout after 5000 ms
│  ├─ compensate, attempt 2, 2026-11-22T16:00:07Z: error after 2000 ms: down
│  ├─ waits for a person since 2026-11-22T16:00:09Z: compensate could not be done
│  └─ to free it: sagamore retry o-1 --reason …, when the cause is removed; or sagamore resolve o-1 --step reserve --as ok --reason …, when the books of inventory say so
├─ ship (shipping) refused: no-carrier: Norway
└─ retry by eve, 2026-11-22T16:00:06Z: again"
        );
    }
}

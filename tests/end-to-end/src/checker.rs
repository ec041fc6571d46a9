//! The judge: what was asked, what was told, what was done. It believes none of the three.
//!
//! | promise | checked as |
//! |---|---|
//! | 1 one recorded decision | every accepted start has final outcomes of one id, and all records of that id agree |
//! | 2 effects at most once, as decided | committed: each wanted branch done once, in full, never undone or let go; else: nothing stands; nothing is held for ever |
//! | 3 a told outcome never changes | what HTTP told is what the topic says; no start is answered with an error |
//!
//! Deliberately absent: our own types. Documents are read by name, as the design's page writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::load::Intents;

const FINAL: [&str; 3] = ["committed", "compensated", "aborted"];
/// What a branch takes of an order; 0: by its condition it is skipped.
type Amount = fn(&Value) -> u64;
/// Every branch of our definitions: `step`, or in a group `step/branch`.
const BRANCHES: [(&str, Amount); 7] = [
    ("reserve", units),
    ("charge", cents),
    ("ship", parcels),
    ("hold", units),
    ("insure", insured_cents),
    ("pay/bank-a", cents),
    ("pay/bank-b", cents),
];

/// Everything there is to judge by.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What was asked, and answered.
    pub intents: Intents,
    /// The records of the outcomes topic.
    pub outcomes: Vec<Value>,
    /// The lines of the participants' journals of effects.
    pub effects: Vec<Value>,
    /// Causes of dead letters.
    pub dead_letters: Vec<String>,
}

/// What came of it, when nothing is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Final outcomes, by transaction id.
    pub ended: BTreeMap<String, String>,
    /// Outcomes told again, under the same id.
    pub repeats: usize,
    /// Effects applied.
    pub applied: usize,
    /// Effects undone.
    pub undone: usize,
    /// Votes for yes that were let go.
    pub released: usize,
    /// Outcomes told over HTTP.
    pub told: usize,
}

impl Tally {
    /// Orders in all.
    pub fn orders(&self) -> usize {
        self.ended.len()
    }

    /// Orders that ended so.
    pub fn of(&self, outcome: &str) -> usize {
        self.ended.values().filter(|ended| *ended == outcome).count()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ended, repeats, applied, undone, released, told } = self;
        let of = FINAL.map(|outcome| format!("{} {outcome}", self.of(outcome))).join(", ");
        write!(f, "{} orders: {of}; {told} told over HTTP, {repeats} told again, ", ended.len())?;
        write!(f, "{applied} effects, {undone} undone, {released} held and let go")
    }
}

/// Orders that were asked for and have no final outcome.
pub fn not_ended(intents: &Intents, outcomes: &[Value]) -> BTreeSet<String> {
    let ended: BTreeSet<&str> =
        outcomes.iter().filter(|outcome| is_final(outcome)).filter_map(|o| o["subject"].as_str()).collect();
    intents.keys().filter(|id| !ended.contains(id.as_str())).cloned().collect()
}

/// Every violation, or what came of it.
pub fn check(evidence: &Evidence) -> Result<Tally, Vec<String>> {
    let mut violations = Vec::new();
    let mut tally = Tally::default();
    violations.extend(evidence.dead_letters.iter().map(|cause| format!("a dead letter: {cause}")));
    let decisions = decisions(evidence, &mut tally, &mut violations);
    check_answers(evidence, &decisions, &mut tally, &mut violations);
    check_effects(evidence, &decisions, &mut tally, &mut violations);
    if violations.is_empty() { Ok(tally) } else { Err(violations) }
}

/// The one final outcome of each transaction.
fn decisions<'a>(
    evidence: &'a Evidence,
    tally: &mut Tally,
    violations: &mut Vec<String>,
) -> BTreeMap<&'a str, &'a Value> {
    let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut decisions: BTreeMap<&str, &Value> = BTreeMap::new();
    for outcome in &evidence.outcomes {
        let (Some(id), Some(subject)) = (outcome["id"].as_str(), outcome["subject"].as_str()) else {
            violations.push(format!("an outcome without an id: {outcome}"));
            continue;
        };
        if let Some(first) = by_id.get(id) {
            tally.repeats += 1;
            if ["outcome", "birth", "revision", "subject"].iter().any(|name| first[name] != outcome[name]) {
                violations.push(format!("{id} told two things: {first} and {outcome}"));
            }
            continue;
        }
        by_id.insert(id, outcome);
        if !evidence.intents.contains_key(subject) {
            violations.push(format!("an outcome of something nobody started: {outcome}"));
        }
        if !is_final(outcome) {
            violations.push(format!("neither refused nor stuck was to be expected: {outcome}"));
            continue;
        }
        if let Some(other) = decisions.insert(subject, outcome) {
            violations.push(format!("{subject} was decided twice: {other} and {outcome}"));
        }
    }
    for (id, intent) in &evidence.intents {
        match decisions.get(id.as_str()) {
            Some(outcome) => {
                tally.ended.insert(id.clone(), text(&outcome["outcome"]).to_owned());
            }
            None if intent.accepted => violations.push(format!("{id} was accepted and has not ended")),
            None => violations.push(format!("{id} was sent and has not ended")),
        }
    }
    decisions
}

fn check_answers(
    evidence: &Evidence,
    decisions: &BTreeMap<&str, &Value>,
    tally: &mut Tally,
    violations: &mut Vec<String>,
) {
    for (id, intent) in &evidence.intents {
        violations.extend(intent.wrong.iter().map(|answer| format!("{id} was answered {answer}")));
        for told in &intent.told {
            tally.told += 1;
            let differs = decisions
                .get(id.as_str())
                .is_none_or(|outcome| ["outcome", "birth", "revision"].iter().any(|n| outcome[n] != told[n]));
            if differs {
                violations
                    .push(format!("{id} was told {told}, the topic says {:?}", decisions.get(id.as_str())));
            }
        }
    }
}

/// Effects of one branch of one life of a transaction.
#[derive(Debug, Default)]
struct Marks {
    /// Done at once, or held and confirmed.
    applied: Vec<u64>,
    undone: Vec<u64>,
    was_held: bool,
    is_held: bool,
    was_released: bool,
}

fn check_effects(
    evidence: &Evidence,
    decisions: &BTreeMap<&str, &Value>,
    tally: &mut Tally,
    violations: &mut Vec<String>,
) {
    let mut marks: BTreeMap<(&str, &str, String), Marks> = BTreeMap::new();
    for effect in &evidence.effects {
        let parts: Vec<&str> = text(&effect["key"]).split('/').collect();
        let [_instance, subject, birth, step, branch] = parts[..] else {
            violations.push(format!("an effect without a key: {effect}"));
            continue;
        };
        let marks = marks.entry((subject, birth, name_of(step, branch))).or_default();
        let amount = effect["amount"].as_u64().unwrap_or_default();
        match text(&effect["effect"]) {
            "applied" => marks.applied.push(amount),
            "undone" if marks.applied.len() > marks.undone.len() => marks.undone.push(amount),
            "held" if !marks.was_held => (marks.was_held, marks.is_held) = (true, true),
            "confirmed" if marks.is_held => {
                marks.is_held = false;
                marks.applied.push(amount);
            }
            "released" if marks.is_held => (marks.is_held, marks.was_released) = (false, true),
            other => violations.push(format!("{other} what does not stand: {effect}")),
        }
    }
    for ((subject, birth, step), marks) in &marks {
        if marks.is_held {
            violations.push(format!("{step} of {subject} ({birth}) is still held"));
        }
        tally.released += usize::from(marks.was_released);
        tally.applied += marks.applied.len();
        tally.undone += marks.undone.len();
        let place = format!("{step} of {subject} ({birth})");
        if marks.applied.len() > 1 {
            violations.push(format!("{place} was applied {} times", marks.applied.len()));
        }
        let Some(decision) = decisions.get(subject) else {
            violations.push(format!("{place} was applied, and nothing was decided"));
            continue;
        };
        let (outcome, stands) = (text(&decision["outcome"]), marks.applied.len() > marks.undone.len());
        if text(&decision["birth"]) != *birth {
            violations.push(format!("{place} is of another life than {}", decision["birth"]));
        }
        match outcome {
            "committed" if !marks.undone.is_empty() => {
                violations.push(format!("{place} was undone: committed"));
            }
            "compensated" if stands => violations.push(format!("{place} stands: compensated")),
            "committed" if marks.was_released => {
                violations.push(format!("{place} was let go: committed"));
            }
            "aborted" if !marks.applied.is_empty() => {
                violations.push(format!("{place} was done: aborted"));
            }
            _ => {}
        }
        if marks.applied.iter().any(|applied| marks.undone.iter().any(|undone| undone != applied)) {
            violations.push(format!("{place}: {marks:?} undid another amount"));
        }
    }
    for (subject, decision) in decisions {
        let (Some(intent), "committed") = (evidence.intents.get(*subject), text(&decision["outcome"])) else {
            continue;
        };
        for (name, amount) in BRANCHES.into_iter().filter(|(name, _)| intent.branches.contains(name)) {
            let done = marks
                .get(&(*subject, text(&decision["birth"]), name.to_owned()))
                .map(|marks| marks.applied.clone());
            let expected = Some(amount(&intent.input)).filter(|amount| *amount > 0);
            if done != expected.map(|amount| vec![amount]) {
                violations.push(format!("{subject} is committed, and {name} did {done:?}"));
            }
        }
    }
}

/// As [`BRANCHES`] has it.
fn name_of(step: &str, branch: &str) -> String {
    let whole = format!("{step}/{branch}");
    if BRANCHES.iter().any(|(known, _)| *known == whole) { whole } else { step.to_owned() }
}

fn is_final(outcome: &Value) -> bool {
    FINAL.contains(&text(&outcome["outcome"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn units(order: &Value) -> u64 {
    let lines = order["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().filter_map(|line| line["quantity"].as_u64()).sum()
}

fn cents(order: &Value) -> u64 {
    order["total_cents"].as_u64().unwrap_or_default()
}

/// `insure` of `mixed.yaml` is wanted for dear orders only.
fn insured_cents(order: &Value) -> u64 {
    if cents(order) > 45_000 { cents(order) } else { 0 }
}

fn parcels(_: &Value) -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::load::{Intent, order};

    fn outcome(kind: &str, revision: u64) -> Value {
        json!({"id": format!("o-1/0-1/outcome/{revision}"), "subject": "o-1", "birth": "0-1", "revision": revision, "outcome": kind})
    }

    fn effect(effect: &str, step: &str, amount: u64) -> Value {
        json!({"effect": effect, "key": format!("i/o-1/0-1/{step}/p"), "amount": amount})
    }

    /// One order, ended so, with nothing wrong.
    fn right(kind: &str) -> Evidence {
        let input = order(4);
        let of_an_order = &BRANCHES[..3];
        let amount = |amount: Amount| amount(&input);
        let applied = of_an_order.iter().map(|(step, of)| effect("applied", step, amount(*of)));
        let undone = of_an_order.iter().map(|(step, of)| effect("undone", step, amount(*of)));
        let effects = match kind {
            "committed" => applied.collect(),
            "compensated" => applied.chain(undone).collect(),
            _ => Vec::new(),
        };
        let told = vec![outcome(kind, 5)];
        let intent = Intent { told, ..Intent::new(input, true) };
        Evidence {
            intents: [("o-1".to_owned(), intent)].into(),
            // Told twice, the second time without its data.
            outcomes: vec![outcome(kind, 5), outcome(kind, 5)],
            effects,
            dead_letters: Vec::new(),
        }
    }

    fn violations(evidence: &Evidence) -> String {
        check(evidence).expect_err("something is wrong").join("\n")
    }

    #[test]
    fn what_is_right_passes() {
        for kind in FINAL {
            let tally = check(&right(kind)).unwrap();
            assert_eq!((tally.orders(), tally.of(kind), tally.repeats, tally.told), (1, 1, 1, 1));
        }
    }

    #[test]
    fn every_wrong_is_found() {
        fn voted(e: &mut Evidence, then: &str) {
            e.effects.extend([effect("held", "hold", 3), effect(then, "hold", 3)]);
        }
        let check = |kind: &str, wrong: fn(&mut Evidence), expected: &str| {
            let mut evidence = right(kind);
            wrong(&mut evidence);
            let found = violations(&evidence);
            assert!(found.contains(expected), "{expected:?} is not in:\n{found}");
        };
        check("committed", |e| e.outcomes.clear(), "was accepted and has not ended");
        check("committed", |e| e.outcomes.push(outcome("compensated", 6)), "was decided twice");
        check("committed", |e| e.outcomes.push(outcome("aborted", 5)), "told two things");
        check("committed", |e| e.outcomes.push(outcome("stuck", 4)), "neither refused nor stuck");
        check("committed", |e| e.effects.push(effect("applied", "ship", 1)), "applied 2 times");
        check("committed", |e| e.effects.push(effect("undone", "ship", 1)), "was undone: committed");
        check("committed", |e| drop(e.effects.pop()), "and ship did None");
        check("committed", |e| e.effects[1]["amount"] = json!(1), "and charge did Some([1])");
        check("compensated", |e| drop(e.effects.pop()), "stands: compensated");
        check("compensated", |e| e.effects[5]["amount"] = json!(2), "undid another amount");
        check("compensated", |e| e.effects.push(effect("undone", "ship", 1)), "undone what does not stand");
        check("aborted", |e| e.effects.push(effect("applied", "ship", 1)), "was done: aborted");
        check("aborted", |e| voted(e, "confirmed"), "was done: aborted");
        check("compensated", |e| voted(e, "confirmed"), "stands: compensated");
        check("committed", |e| voted(e, "released"), "was let go: committed");
        check("committed", |e| e.effects.push(effect("held", "hold", 3)), "is still held");
        check("aborted", |e| voted(e, "held"), "held what does not stand");
        check("aborted", |e| e.effects.push(effect("confirmed", "hold", 3)), "confirmed what does not stand");
        check("aborted", |e| e.effects.push(effect("released", "hold", 3)), "released what does not stand");
        check("aborted", |e| e.dead_letters.push("why".to_owned()), "a dead letter: why");
        check("aborted", |e| e.intents.clear(), "nobody started");
        let told = |e: &mut Evidence| e.intents.get_mut("o-1").unwrap().told = vec![outcome("committed", 5)];
        check("aborted", told, "was told");
        let wrong = |e: &mut Evidence| e.intents.get_mut("o-1").unwrap().wrong.push("409".to_owned());
        check("aborted", wrong, "was answered 409");
    }
}

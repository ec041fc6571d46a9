//! What changes from one definition to another, in words.
//!
//! Steps are compared by name. A step's place in the file counts for what it says about `after`, and for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sagamore_schemas::definition::{Definition, Step};
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::Node;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The step; none is the definition itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The field; none is the whole step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What stood there, as JSON; none means nothing.
    pub before: Option<String>,
    /// What stands there now.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "step {step}")?;
        }
        match &self.field {
            Some(field) if self.step.is_some() => write!(f, ": {field} ")?,
            Some(field) => write!(f, "{field} ")?,
            None => write!(f, " ")?,
        }
        match (&self.before, &self.after) {
            (None, None) => f.write_str("unchanged"),
            (None, Some(_)) if self.field.is_none() => f.write_str("added"),
            (Some(_), None) if self.field.is_none() => f.write_str("removed"),
            (None, Some(after)) => write!(f, "is now {after} (was left out)"),
            (Some(before), None) => write!(f, "is now left out (was {before})"),
            (Some(before), Some(after)) => write!(f, "is now {after} (was {before})"),
        }
    }
}

/// Every difference: of the definition itself, then of the steps in the order of `after`, then of those removed.
pub fn changes(before: &Definition, after: &Definition) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    compare(None, &own_fields(before)?, &own_fields(after)?, &mut changes);
    let (old, new) = (steps(before)?, steps(after)?);
    for step in &after.steps {
        let name = step.name.as_str();
        match old.get(name) {
            Some(fields) => compare(Some(name), fields, &new[name], &mut changes),
            None => changes.push(whole(name, None, Some(step))),
        }
    }
    let removed = before.steps.iter().filter(|step| !new.contains_key(step.name.as_str()));
    changes.extend(removed.map(|step| whole(step.name.as_str(), Some(step), None)));
    Ok(changes)
}

type Fields = BTreeMap<String, String>;

fn own_fields(definition: &Definition) -> Result<Fields, Failure> {
    let without_steps = Definition { steps: Vec::new(), ..definition.clone() };
    let mut fields = fields(&without_steps)?;
    fields.remove("steps");
    Ok(fields)
}

fn steps(definition: &Definition) -> Result<BTreeMap<&str, Fields>, Failure> {
    let mut steps = BTreeMap::new();
    for (position, step) in definition.steps.iter().enumerate() {
        let mut fields = fields(step)?;
        // What is left out means the step before: said, so that a moved step shows and a step put before does not hide.
        let before = position.checked_sub(1).and_then(|position| definition.steps.get(position));
        let after =
            step.after.clone().unwrap_or_else(|| before.map(|step| step.name.clone()).into_iter().collect());
        let after: BTreeSet<_> = after.iter().map(ToString::to_string).collect();
        fields.insert("after".to_owned(), format!("[{}]", after.into_iter().collect::<Vec<_>>().join(", ")));
        fields.remove("name");
        steps.insert(step.name.as_str(), fields);
    }
    Ok(steps)
}

fn compare(step: Option<&str>, before: &Fields, after: &Fields, changes: &mut Vec<Change>) {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            changes.push(Change {
                step: step.map(str::to_owned),
                field: Some(name.clone()),
                before: old.cloned(),
                after: new.cloned(),
            });
        }
    }
}

fn whole(name: &str, before: Option<&Step>, after: Option<&Step>) -> Change {
    let text = |step: &Step| serde_json::to_string(step).unwrap_or_default();
    Change { step: Some(name.to_owned()), field: None, before: before.map(text), after: after.map(text) }
}

/// Every scalar with its path, such as `retry.attempts`; arrays as a whole.
fn fields<T: Serialize>(document: &T) -> Result<Fields, Failure> {
    let wrong = |error: serde_json::Error| Failure::new(Exit::Unexpected, error);
    let raw = serde_json::value::to_raw_value(document).map_err(wrong)?;
    let mut fields = Fields::new();
    flatten("", &Node::read(&raw).map_err(wrong)?, &mut fields);
    Ok(fields)
}

fn flatten(path: &str, node: &Node<'_>, fields: &mut Fields) {
    match node {
        Node::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, member, fields);
            }
        }
        node => {
            fields.insert(path.to_owned(), node.to_json_line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, then: &[&str]) {
        let read = |steps: &str| Definition::from_json(steps).unwrap();
        let told = changes(&read(before), &read(after)).unwrap();
        assert_eq!(told.iter().map(ToString::to_string).collect::<Vec<_>>(), then);
    }

    #[test]
    fn in_words() {
        let before = r#"{"name":"o","version":1,"steps":[
            {"name":"a","participant":"p","timeout":"5s","input":{"x":1.10}},
            {"name":"b","participant":"q","retry":{"attempts":3}},
            {"name":"c","participant":"q"}]}"#;
        check(before, before, &[]);
        let after = r#"{"name":"o","version":2,"deadline":"2m","steps":[
            {"name":"a","participant":"p","input":{"x":1.1,"y":[1,2]}},
            {"name":"n","participant":"z"},
            {"name":"b","participant":"q","retry":{"attempts":4},"kind":"pivot"}]}"#;
        check(
            before,
            after,
            &[
                "deadline is now \"2m\" (was left out)",
                "version is now 2 (was 1)",
                "step a: input.x is now 1.1 (was 1.10)",
                "step a: input.y is now [1,2] (was left out)",
                "step a: timeout is now left out (was \"5s\")",
                "step n added",
                "step b: after is now [n] (was [a])",
                "step b: kind is now \"pivot\" (was left out)",
                "step b: retry.attempts is now 4 (was 3)",
                "step c removed",
            ],
        );
    }
}

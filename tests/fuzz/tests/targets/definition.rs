//! Definitions: text, check, plan.

use sagamore_decider::definition::check::compile;
use sagamore_decider::definition::source::{Severity, read};
use sagamore_fuzz::Target;
use sagamore_schemas::definition::Definition;

#[test]
fn a_text_becomes_one_definition_or_problems_with_places() {
    Target { name: "definition", cases: 30_000 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        from_source(&text);
        from_topic(&text);
    });
}

fn from_source(text: &str) {
    let checked = read(text);
    // A carriage return ends a line in YAML, also alone; where something is missing, that is told of the line after.
    let lines = text.split(['\n', '\r']).count();
    let (definition, plan) = match checked.result {
        Ok(read) => read,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason: {text:?}");
            for problem in &problems {
                let place = checked.source.place(problem);
                assert!((1..=lines + 1).contains(&place.line), "line {} of {lines}: {problem}", place.line);
                let report = checked.source.report("f.yaml", Severity::Error, problem);
                assert!(report.starts_with(&format!("error[{}]: ", problem.code)), "{report}");
                assert!(!problem.help.is_empty(), "{problem}");
            }
            return;
        }
    };
    for warning in &checked.warnings {
        checked.source.report("f.yaml", Severity::Warning, warning);
    }
    let canonical = definition.to_canonical_json();
    let of_topic = Definition::from_json(&canonical).unwrap();
    assert_eq!(of_topic, definition, "{canonical}");
    assert_eq!(compile(&of_topic).as_ref(), Ok(&plan), "{canonical}");
    // JSON is YAML.
    let again = read(&canonical).result.unwrap_or_else(|problems| panic!("{problems:?}: {canonical}"));
    assert_eq!(again, (definition, plan));
}

fn from_topic(text: &str) {
    let Ok(definition) = Definition::from_json(text) else { return };
    let canonical = definition.to_canonical_json();
    let again = Definition::from_json(&canonical).unwrap_or_else(|error| panic!("{error}: {canonical}"));
    assert_eq!(again, definition, "{canonical}");
    assert_eq!(again.to_canonical_json(), canonical);
    match compile(&definition) {
        Ok(plan) => assert_eq!(plan.steps.len(), definition.steps.len()),
        Err(problems) => assert!(!problems.is_empty(), "{canonical}"),
    }
}

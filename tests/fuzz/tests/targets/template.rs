//! Templates over data: the first line is the template, the second the data, the third a result.

use sagamore_decider::definition::plan::BranchIndex;
use sagamore_decider::definition::template::{
    KEY_MAX_BYTES, PATH_SEGMENTS_MAX, PATHS_MAX, RENDERED_MAX_BYTES, RenderError, ResultPath, Scope, Template,
};
use sagamore_fuzz::Target;
use sagamore_schemas::definition::ExactJson;
use serde_json::value::RawValue;

#[test]
fn what_is_rendered_is_json_within_its_bound() {
    Target { name: "template", cases: 150_000 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let mut raw = || serde_json::from_str::<&RawValue>(lines.next().unwrap_or_default()).ok();
        let (Some(template), data, result) = (raw(), raw(), raw()) else { return };
        let Ok(document) = serde_json::from_str::<ExactJson>(template.get()) else { return };
        check(&document, data, result);
    });
}

fn check(document: &ExactJson, data: Option<&RawValue>, result: Option<&RawValue>) {
    let resolve = |name: &str, next: Option<&str>| -> Result<ResultPath, String> {
        let position = ["a", "b"].iter().position(|known| *known == name).ok_or("no such step")?;
        let index = BranchIndex(u16::try_from(position).unwrap());
        let branch = next.filter(|next| name == "b" && *next == "x").map(|next| next.parse().unwrap());
        Ok(ResultPath { index, step: name.parse().unwrap(), branch })
    };
    let template = match Template::compile(document, &resolve) {
        Ok(template) => template,
        Err(faults) => return assert!(!faults.is_empty()),
    };
    let paths: Vec<_> = template.paths().collect();
    assert!(paths.len() <= PATHS_MAX);
    for path in &paths {
        let printed = path.to_string();
        assert!(printed.matches('.').count() <= PATH_SEGMENTS_MAX + 2, "{printed}");
        let alone = Template::compile(&ExactJson::Text(printed.clone()), &resolve).unwrap();
        assert_eq!(alone.paths().collect::<Vec<_>>(), [*path], "{printed}");
    }
    let of_step = |index: BranchIndex| result.filter(|_| index == BranchIndex(0));
    let scope = Scope { transaction: &"t".parse().unwrap(), input: data, result: &of_step };
    match template.render(&scope) {
        Ok(json) => {
            assert!(json.len() <= RENDERED_MAX_BYTES);
            let parsed: Result<&RawValue, _> = serde_json::from_str(&json);
            assert!(parsed.is_ok(), "{document} renders as {json}");
            if paths.is_empty() && !document.to_string().contains("$${") {
                assert_eq!(json, document.to_string());
            }
        }
        Err(error) => is_told(&error, &paths.iter().map(ToString::to_string).collect::<Vec<_>>()),
    }
    match template.render_text(&scope) {
        Ok(key) => assert!(key.len() <= KEY_MAX_BYTES),
        Err(error) => is_told(&error, &paths.iter().map(ToString::to_string).collect::<Vec<_>>()),
    }
}

fn is_told(error: &RenderError, paths: &[String]) {
    match error {
        RenderError::Missing(path) | RenderError::Unreadable(path) => {
            assert!(paths.contains(path), "{path} is not among {paths:?}");
        }
        RenderError::TooLarge { .. } => {}
    }
}

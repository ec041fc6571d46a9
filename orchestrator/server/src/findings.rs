//! What the check says of the text of a definition, with its places: the same for `define check` and for the API.

use sagamore_decider::definition::check::Problem;
use sagamore_decider::definition::source::{Checked, Severity, Source};
use serde::Serialize;

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// Which kind.
    pub code: &'static str,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The same place as a path.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// With its line, as rustc prints it.
    #[serde(skip)]
    pub text: String,
}

/// Errors first, then warnings. `file` is what the text is called.
pub fn findings(file: &str, checked: &Checked) -> Vec<Finding> {
    let problems = checked.result.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    let errors = problems.iter().map(|problem| finding(file, &checked.source, Severity::Error, problem));
    let warnings =
        checked.warnings.iter().map(|problem| finding(file, &checked.source, Severity::Warning, problem));
    errors.chain(warnings).collect()
}

/// One problem of a text.
pub fn finding(file: &str, source: &Source, severity: Severity, problem: &Problem) -> Finding {
    let place = source.place(problem);
    Finding {
        severity: match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        code: problem.code.as_str(),
        line: place.line,
        column: place.column,
        path: problem.path.clone(),
        message: problem.message.clone(),
        help: problem.help.clone(),
        text: source.report(file, severity, problem),
    }
}

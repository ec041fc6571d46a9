//! A plan as a drawing, for Mermaid and for Graphviz.

use std::fmt::Write as _;

use sagamore_decider::definition::plan::{Plan, PlanStep};
use sagamore_schemas::definition::StepKind;

/// For which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Language {
    /// Mermaid, as in Markdown pages.
    #[default]
    Mermaid,
    /// Graphviz.
    Dot,
}

/// Draws the steps, each with its participants, and an arrow from what it waits for.
pub fn draw(plan: &Plan, language: Language) -> String {
    // Names may be words of the languages (`end`), so steps are called by their number.
    let mut text = match language {
        Language::Mermaid => "flowchart TD\n".to_owned(),
        Language::Dot => {
            format!("digraph \"{}@{}\" {{\n  node [shape=box, style=rounded];\n", plan.name, plan.version)
        }
    };
    for (index, step) in plan.indexed() {
        let line = match language {
            Language::Mermaid => {
                let (open, close) = mermaid_shape(step.kind);
                format!("  s{index}{open}\"{}\"{close}", label(step, "<br/>"))
            }
            Language::Dot => {
                format!("  s{index} [label=\"{}\"{}];", label(step, "\\n"), dot_style(step.kind))
            }
        };
        push_line(&mut text, &line);
    }
    for (index, step) in plan.indexed() {
        for earlier in &step.after {
            let line = match language {
                Language::Mermaid => format!("  s{earlier} --> s{index}"),
                Language::Dot => format!("  s{earlier} -> s{index};"),
            };
            push_line(&mut text, &line);
        }
    }
    if language == Language::Dot {
        text.push_str("}\n");
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    let written = writeln!(text, "{line}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

fn label(step: &PlanStep, line_break: &str) -> String {
    let participants: Vec<_> = step.branches.iter().map(|branch| branch.participant.as_str()).collect();
    let kind = match step.kind {
        StepKind::Compensatable => String::new(),
        kind => format!("{line_break}({kind})"),
    };
    format!("{}{line_break}{}{kind}", step.name, participants.join(", "))
}

fn mermaid_shape(kind: StepKind) -> (&'static str, &'static str) {
    match kind {
        StepKind::Compensatable => ("[", "]"),
        StepKind::Pivot => ("{{", "}}"),
        StepKind::Retriable => ("([", "])"),
        StepKind::Reserved => ("[/", "/]"),
    }
}

fn dot_style(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Compensatable => "",
        StepKind::Pivot => ", shape=hexagon, style=bold",
        StepKind::Retriable => ", shape=ellipse",
        StepKind::Reserved => ", style=dashed",
    }
}

#[cfg(test)]
mod tests {
    use sagamore_decider::definition::check::compile;
    use sagamore_schemas::definition::Definition;

    use super::*;

    #[test]
    fn a_diamond() {
        let definition = Definition::from_json(
            r#"{"name":"d","version":1,"steps":[{"name":"end","participant":"p"},
                {"name":"b","participant":"q","kind":"pivot"},
                {"name":"c","participant":"r","kind":"retriable","after":["b"]}]}"#,
        );
        let plan = compile(&definition.unwrap()).unwrap();
        assert_eq!(
            draw(&plan, Language::Mermaid),
            "flowchart TD\n  s0[\"end<br/>p\"]\n  s1{{\"b<br/>q<br/>(pivot)\"}}\n  s2([\"c<br/>r<br/>(retriable)\"])\n  s0 --> s1\n  s1 --> s2\n"
        );
        assert_eq!(
            draw(&plan, Language::Dot),
            "digraph \"d@1\" {\n  node [shape=box, style=rounded];\n  s0 [label=\"end\\np\"];\n  s1 [label=\"b\\nq\\n(pivot)\", shape=hexagon, style=bold];\n  s2 [label=\"c\\nr\\n(retriable)\", shape=ellipse];\n  s0 -> s1;\n  s1 -> s2;\n}\n"
        );
    }
}

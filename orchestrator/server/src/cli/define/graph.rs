//! A plan as a drawing: for Mermaid, for Graphviz, and as SVG.

use std::fmt::Write as _;

use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};
use sagamore_decider::definition::plan::{Plan, PlanStep};
use sagamore_schemas::definition::{Protocol, StepKind};

/// For which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Language {
    /// Mermaid, as in Markdown pages.
    #[default]
    Mermaid,
    /// Graphviz.
    Dot,
    /// A picture, for a browser.
    Svg,
}

/// Draws the steps, each with its participants, and an arrow from what it waits for.
pub fn draw(plan: &Plan, language: Language) -> Result<String, String> {
    match language {
        Language::Mermaid => Ok(mermaid(plan)),
        Language::Dot => Ok(dot(plan)),
        Language::Svg => svg(&dot(plan)),
    }
}

// Names may be words of the languages (`end`), so steps are called by their number.
fn mermaid(plan: &Plan) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for (index, step) in plan.indexed() {
        let (open, close) = mermaid_shape(step.kind);
        push_line(&mut text, format_args!("  s{index}{open}\"{}\"{close}", label(step, "<br/>", "&quot;")));
    }
    for (index, step) in plan.indexed() {
        for earlier in &step.after {
            push_line(&mut text, format_args!("  s{earlier} --> s{index}"));
        }
    }
    text
}

fn dot(plan: &Plan) -> String {
    let mut text =
        format!("digraph \"{}@{}\" {{\n  node [shape=box, style=rounded];\n", plan.name, plan.version);
    for (index, step) in plan.indexed() {
        let style = dot_style(step.kind);
        push_line(&mut text, format_args!("  s{index} [label=\"{}\"{style}];", label(step, "\\n", "\\\"")));
    }
    for (index, step) in plan.indexed() {
        for earlier in &step.after {
            push_line(&mut text, format_args!("  s{earlier} -> s{index};"));
        }
    }
    text.push_str("}\n");
    text
}

fn svg(dot: &str) -> Result<String, String> {
    let graph = DotParser::new(dot).process()?;
    let mut builder = GraphBuilder::new();
    builder.visit_graph(&graph);
    let mut writer = SVGWriter::new();
    builder.get().do_it(false, false, false, &mut writer);
    Ok(writer.finalize())
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{line}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

/// Name, participants, what it is, and its condition, on lines of their own.
fn label(step: &PlanStep, line_break: &str, quote: &str) -> String {
    let participants: Vec<_> = step.branches.iter().map(|branch| branch.by.to_string()).collect();
    let mut lines = vec![step.name.to_string(), participants.join(", ")];
    let protocol = step.protocol.filter(|_| step.is_group).map(|protocol| match protocol {
        Protocol::TwoPhase => "two-phase",
        Protocol::ThreePhase => "three-phase",
    });
    let place = match (step.kind, protocol) {
        (StepKind::Compensatable, None) => None,
        (StepKind::Reserved, Some(_)) => Some("at the end"),
        (StepKind::Pivot, Some(_)) => Some("in its place"),
        (StepKind::Compensatable, Some(_)) => Some("can be undone"),
        (StepKind::Pivot, None) => Some("pivot"),
        (StepKind::Retriable, _) => Some("retriable"),
        (StepKind::Reserved, None) => Some("reserved"),
    };
    let words: Vec<&str> = protocol.into_iter().chain(place).collect();
    if !words.is_empty() {
        lines.push(format!("({})", words.join(", ")));
    }
    if let Some(condition) = &step.when {
        lines.push(format!("when {condition}").replace('\\', "\\\\").replace('"', quote));
    }
    lines.join(line_break)
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
            draw(&plan, Language::Mermaid).unwrap(),
            "flowchart TD\n  s0[\"end<br/>p\"]\n  s1{{\"b<br/>q<br/>(pivot)\"}}\n  s2([\"c<br/>r<br/>(retriable)\"])\n  s0 --> s1\n  s1 --> s2\n"
        );
        assert_eq!(
            draw(&plan, Language::Dot).unwrap(),
            "digraph \"d@1\" {\n  node [shape=box, style=rounded];\n  s0 [label=\"end\\np\"];\n  s1 [label=\"b\\nq\\n(pivot)\", shape=hexagon, style=bold];\n  s2 [label=\"c\\nr\\n(retriable)\", shape=ellipse];\n  s0 -> s1;\n  s1 -> s2;\n}\n"
        );
    }

    #[test]
    fn groups_and_conditions() {
        let definition = Definition::from_json(
            r#"{"name":"d","version":1,"steps":[{"name":"hold","participant":"p","kind":"reserved","when":"input.a == \"b\""},
                {"name":"pay","protocol":"two-phase","branches":[{"participant":"x"},{"participant":"y"}]}]}"#,
        );
        let plan = compile(&definition.unwrap()).unwrap();
        assert_eq!(
            draw(&plan, Language::Mermaid).unwrap(),
            "flowchart TD\n  s0[/\"hold<br/>p<br/>(reserved)<br/>when input.a == &quot;b&quot;\"/]\n  s1{{\"pay<br/>x, y<br/>(two-phase, in its place)\"}}\n  s0 --> s1\n"
        );
        let picture = draw(&plan, Language::Svg).unwrap();
        assert!(
            picture.contains("<svg") && picture.contains("pay") && picture.contains("when input.a"),
            "{picture}"
        );
    }
}

//! Definitions in one line: `a; b after= attempts=2; c pivot; d retriable input={"x":"${steps.a.x}"}`, and with groups
//! `pay two-phase branches=x+y commit=at-end; hold reserved`, where `input` is the last branch's;
//! with children `name=refund; undo=recharge@1; pay` and `back child=refund@1`.

use std::fmt::Write as _;

/// The JSON of a definition `t@1`. Steps are separated by `;`, the participant is named like the step. A part that
/// begins with `deadline=` belongs to the definition.
pub fn definition(line: &str) -> String {
    let mut head = r#""name":"t","version":1"#.to_owned();
    let mut steps = Vec::new();
    for part in line.split(';').map(str::trim) {
        if let Some(deadline) = part.strip_prefix("deadline=") {
            write!(head, r#","deadline":"{deadline}""#).unwrap();
            continue;
        }
        if let Some(name) = part.strip_prefix("name=") {
            head = head.replace(r#""name":"t""#, &format!(r#""name":"{name}""#));
            continue;
        }
        if let Some(undoes) = part.strip_prefix("undo=") {
            write!(head, r#","compensated_by":"{undoes}""#).unwrap();
            continue;
        }
        if let Some(version) = part.strip_prefix("version=") {
            head = head.replace(r#""version":1"#, &format!(r#""version":{version}"#));
            continue;
        }
        steps.push(step(part));
    }
    format!(r#"{{{head},"steps":[{}]}}"#, steps.join(","))
}

fn step(part: &str) -> String {
    let mut words = part.split_whitespace();
    let name = words.next().unwrap();
    let mut fields = format!(r#""name":"{name}""#);
    if !part.contains("branches=") && !part.contains("child=") {
        write!(fields, r#","participant":"{name}""#).unwrap();
    }
    let mut retry = Vec::new();
    let own_input = part.split_whitespace().find_map(|word| word.strip_prefix("input="));
    let input = own_input.map(|json| format!(r#","input":{json}"#)).unwrap_or_default();
    let undone = if part.contains(" undone") { r#","compensate":true"# } else { "" };
    for word in words {
        match word.split_once('=') {
            None if word == "undone" => {}
            Some(("child", definition)) => write!(fields, r#","definition":"{definition}""#).unwrap(),
            None if word.ends_with("-phase") => write!(fields, r#","protocol":"{word}""#).unwrap(),
            Some(("branches", names)) => {
                let last = names.split('+').next_back().unwrap();
                let branch = |name: &str| {
                    let input = if name == last { input.as_str() } else { "" };
                    format!(r#"{{"participant":"{name}"{input}{undone}}}"#)
                };
                let all: Vec<String> = names.split('+').map(branch).collect();
                write!(fields, r#","branches":[{}]"#, all.join(",")).unwrap();
            }
            None => write!(fields, r#","kind":"{word}""#).unwrap(),
            Some(("after", names)) => {
                let names: Vec<String> =
                    names.split('+').filter(|n| !n.is_empty()).map(|n| format!("\"{n}\"")).collect();
                write!(fields, r#","after":[{}]"#, names.join(",")).unwrap();
            }
            Some(("input", _)) if part.contains("branches=") => {}
            Some(("input", json)) => write!(fields, r#","input":{json}"#).unwrap(),
            Some((name @ ("key" | "timeout" | "commit" | "when"), value)) => {
                write!(fields, r#","{name}":"{value}""#).unwrap();
            }
            Some((name @ ("attempts" | "factor"), value)) => retry.push(format!(r#""{name}":{value}"#)),
            Some((name @ ("backoff" | "max"), value)) => retry.push(format!(r#""{name}":"{value}""#)),
            Some((name, _)) => panic!("no field {name}"),
        }
    }
    if !retry.is_empty() {
        write!(fields, r#","retry":{{{}}}"#, retry.join(",")).unwrap();
    }
    format!("{{{fields}}}")
}

//! Definitions in one line: `a; b after= attempts=2; c pivot; d retriable input={"x":"${steps.a.x}"}`.

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
    let mut fields = format!(r#""name":"{name}","participant":"{name}""#);
    let mut retry = Vec::new();
    for word in words {
        match word.split_once('=') {
            None => write!(fields, r#","kind":"{word}""#).unwrap(),
            Some(("after", names)) => {
                let names: Vec<String> =
                    names.split('+').filter(|n| !n.is_empty()).map(|n| format!("\"{n}\"")).collect();
                write!(fields, r#","after":[{}]"#, names.join(",")).unwrap();
            }
            Some(("input", json)) => write!(fields, r#","input":{json}"#).unwrap(),
            Some((name @ ("key" | "timeout"), value)) => write!(fields, r#","{name}":"{value}""#).unwrap(),
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

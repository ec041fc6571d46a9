//! What runs came to, for people.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets};

use crate::defects;
use crate::faults::Fault;
use crate::run::{Summary, Told};
use crate::witness::Violation;
use crate::world::Plan;

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(head);
    table
}

/// The defects that can be planted.
pub fn defects() -> String {
    let mut table = table(&["defect", "what is wrong", "rule"]);
    for (name, _, text, rule) in defects::ALL {
        table.add_row([*name, *text, *rule]);
    }
    table.to_string()
}

/// One run.
pub fn one(told: &Told) -> String {
    let ended: Vec<String> = told.ended.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let all = accepted(told).chain([format!("{} inbox records; {}", told.records, ended.join(", "))]);
    all.collect::<Vec<_>>().join("\n")
}

fn accepted(told: &Told) -> impl Iterator<Item = String> {
    told.accepted.iter().map(|evidence| format!("accepted halt: {evidence}"))
}

/// What became of the hunt for a planted defect.
pub fn hunted(name: &str, text: &str, found: Option<&(u64, Violation)>) -> String {
    match found {
        Some((seed, violation)) => {
            let short: String = violation.seen.chars().take(120).collect();
            format!("{name}: seed {seed}, {} ({text}): {short}", violation.invariant.id)
        }
        None => format!("{name}: NOT FOUND ({text})"),
    }
}

/// Many runs.
pub fn many(summary: &Summary, took: Duration) -> String {
    let mut text = String::new();
    let mut kinds = table(&["fault", "times"]);
    for fault in Fault::ALL {
        kinds.add_row([
            fault.word().to_owned(),
            summary.told.faults.get(fault).copied().unwrap_or_default().to_string(),
        ]);
    }
    writeln!(text, "{kinds}").unwrap_or_default();
    let rows: Vec<&str> = summary.told.rows.iter().map(String::as_str).collect();
    writeln!(text, "rows taken: {}", rows.join(" ")).unwrap_or_default();
    for line in accepted(&summary.told) {
        writeln!(text, "{line}").unwrap_or_default();
    }
    let ended: Vec<String> =
        summary.told.ended.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let took = took.as_secs_f64();
    write!(
        text,
        "{} runs in {took:.1} s, {} inbox records; transactions: {}; {} violations",
        summary.runs,
        summary.told.records,
        ended.join(", "),
        summary.failures.len()
    )
    .unwrap_or_default();
    text
}

/// What must not be, and the line that shows it again.
pub fn violation(plan: &Plan, defect: Option<&str>, violation: &Violation) -> String {
    let mut line = format!("cargo sim --seed {} --transactions {}", plan.seed, plan.transactions);
    if !plan.without_orders.is_empty() {
        let numbers: Vec<String> = plan.without_orders.iter().map(ToString::to_string).collect();
        write!(line, " --without-orders {}", numbers.join(",")).unwrap_or_default();
    }
    if !plan.without_faults.is_empty() {
        let words: Vec<&str> = plan.without_faults.iter().map(|fault| fault.word()).collect();
        write!(line, " --without-faults {}", words.join(",")).unwrap_or_default();
    }
    if let Some(defect) = defect {
        write!(line, " --defect {defect}").unwrap_or_default();
    }
    let seen: String = violation.seen.chars().take(2_000).collect();
    format!("{} {}\n  seen: {seen}\n  again: {line}", violation.invariant.id, violation.invariant.text)
}

//! What dashboards and alerts ask for is what a server exports, and each alert says what to do.

use std::collections::BTreeSet;

use sagamore_tidy::{assert_none, read};
use saphyr_parser::{Event, Parser};
use serde_json::Value;

const DASHBOARD: &str = "deploy/grafana/sagamore.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";

/// Names of metrics as a query may have them.
fn exported() -> (BTreeSet<String>, BTreeSet<String>) {
    let source = read("orchestrator/server/src/metrics.rs");
    let after = |before: &str| -> Vec<String> {
        let rest = source.split(before).skip(1);
        rest.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let histograms = after("histogram!(\"");
    let plain: BTreeSet<String> =
        [after("counter!(\""), after("gauge!(\"")].concat().into_iter().chain(histograms.clone()).collect();
    let parts = ["_bucket", "_sum", "_count"];
    let queried = plain.iter().filter(|name| !histograms.contains(name)).cloned();
    let queried =
        queried.chain(histograms.iter().flat_map(|name| parts.map(|part| format!("{name}{part}")))).collect();
    (plain, queried)
}

fn named(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    text.split("sagamore_").skip(1).map(|rest| format!("sagamore_{}", word(rest))).collect()
}

/// Every `expr` of the dashboard.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("expr" | "definition", Value::String(query)) => found.push(query.clone()),
                    (_, value) => queries(value, found),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| queries(element, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_what_is_exported_and_all_of_it() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    let asked: BTreeSet<String> = found.iter().flat_map(|query| named(query)).collect();
    let (plain, queried) = exported();
    assert!(asked.len() > 15, "the queries were found: {asked:?}");
    let unknown: Vec<String> = asked.difference(&queried).cloned().collect();
    assert_none(&unknown, &format!("{DASHBOARD} asks for metrics that no server exports:"));
    let unseen = plain.iter().filter(|name| !asked.iter().any(|asked| asked.starts_with(*name)));
    assert_none(&unseen.cloned().collect::<Vec<_>>(), &format!("{DASHBOARD} does not show:"));
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64()), "{} has the number of another", panel["title"]);
    }
}

#[test]
fn every_alert_asks_for_what_is_exported_and_says_what_to_do() {
    let text = read(ALERTS);
    let mut scalars = Vec::new();
    for event in Parser::new_from_str(&text) {
        if let (Event::Scalar(scalar, ..), _) = event.expect("YAML") {
            scalars.push(scalar.into_owned());
        }
    }
    let after = |name: &str| -> Vec<&str> {
        let pairs = scalars.windows(2).filter(|pair| pair[0] == name);
        pairs.map(|pair| pair[1].as_str()).collect()
    };
    let (alerts, asked, pages) = (after("alert"), after("expr"), after("runbook"));
    assert!(alerts.len() > 8, "the alerts were found: {alerts:?}");
    for part in ["expr", "summary", "runbook", "severity"] {
        assert_eq!(after(part).len(), alerts.len(), "each alert has its {part}");
    }
    let (_, queried) = exported();
    let runbook = read("deploy/runbook/README.md");
    let mut wrong = Vec::new();
    for ((alert, query), page) in alerts.iter().zip(asked).zip(pages) {
        let names = named(query);
        if names.is_empty() {
            wrong.push(format!("{alert} asks for nothing of ours"));
        }
        wrong.extend(names.difference(&queried).map(|name| format!("{alert}: no server exports {name}")));
        let file = page.split('#').next().unwrap_or_default();
        if !sagamore_tidy::exists(file) {
            wrong.push(format!("{alert}: there is no {page}"));
        }
        if !runbook.contains(&format!("\n| `{alert}` | ")) {
            wrong.push(format!("{alert} has no line in the runbook"));
        }
    }
    assert_none(&wrong, "alerts:");
}

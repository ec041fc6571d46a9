//! Every model holds in every state, and breaks without each of its mechanisms. Run with `--nocapture` for the table.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use sagamore_model::{Refutation, Report, check_all, refute_all};

/// What the models visit together, at the least.
const UNIQUE_STATES_MIN: usize = 1_000_000;

#[test]
fn every_property_holds_in_every_state() {
    let reports = check_all();
    let mut table = table(["model", "unique states", "depth", "seconds", "holds", "happens", "complete"]);
    for report in &reports {
        table.add_row(row(report));
    }
    let total: usize = reports.iter().map(|report| report.unique_states).sum();
    println!("{table}\n{total} unique states in all\n");

    let failures: Vec<&str> =
        reports.iter().flat_map(|report| &report.failures).map(String::as_str).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let capped: Vec<&str> =
        reports.iter().filter(|report| !report.is_complete).map(|report| report.name).collect();
    assert!(capped.is_empty(), "states were left out: {capped:?}");
    assert!(total >= UNIQUE_STATES_MIN, "{total} states: the bounds have become too small");
}

fn row(report: &Report) -> Vec<String> {
    vec![
        report.name.to_owned(),
        report.unique_states.to_string(),
        report.depth.to_string(),
        format!("{:.1}", report.took.as_secs_f64()),
        report.holds.len().to_string(),
        report.happens.len().to_string(),
        if report.is_complete { "yes" } else { "no" }.to_owned(),
    ]
}

#[test]
fn without_any_one_mechanism_a_property_breaks() {
    let refutations = refute_all();
    let mut table = table(["model", "switched off", "broken", "actions", "unique states"]);
    for refutation in &refutations {
        let actions =
            refutation.found.as_ref().map_or_else(|| "holds".to_owned(), |(count, _)| count.to_string());
        table.add_row([
            refutation.name,
            refutation.missing.mechanism,
            refutation.missing.upholds,
            &actions,
            &refutation.unique_states.to_string(),
        ]);
    }
    println!("{table}\n");
    for refutation in &refutations {
        tell(refutation);
    }
}

/// Its story stands in `counterexamples/`. `INSTA_UPDATE=always` writes a new one.
fn tell(refutation: &Refutation) {
    let Some((_, story)) = &refutation.found else {
        panic!("{} holds without {}", refutation.name, refutation.missing.mechanism)
    };
    let name =
        format!("{}, without {}", refutation.name, refutation.missing.mechanism).replace([',', ' '], "-");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../counterexamples");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name.replace("--", "-"), story));
}

fn table<const COLUMNS: usize>(heads: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(heads);
    table
}

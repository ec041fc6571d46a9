//! `sagamore predict` as a process, without any Kafka: what it prints, draws, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::process::{Command, Stdio};

use serde_json::Value;

const ORDER: &str = "name: order\nversion: 2\ndeadline: 2s\nsteps:\n  - {name: reserve, participant: inventory, timeout: 500ms, retry: {attempts: 2, backoff: 50ms}}\n  - {name: charge, participant: payment, timeout: 500ms, retry: {attempts: 2, backoff: 50ms}}\n";

struct Said {
    exit: i32,
    stdout: String,
    stderr: String,
}

/// In a folder that has `order.yaml` and, when it is given, `model.yaml`.
fn run(model: Option<&str>, line: &str) -> (Said, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.yaml"), ORDER).unwrap();
    if let Some(model) = model {
        std::fs::write(folder.path().join("model.yaml"), model).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagamore"));
    command.arg("predict").args(line.split(' ')).current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    (Said { exit: output.status.code().unwrap(), stdout, stderr }, folder)
}

#[test]
fn the_numbers_of_a_file_and_of_flags() {
    let model = "default: {p: 0.5, latency: 20ms}\nsteps:\n  charge: {p: 0.8, refused: 0.1}\n";
    let (said, folder) =
        run(Some(model), "order.yaml --model model.yaml --step charge:refused=0.2 --svg order.svg -o json");
    assert_eq!(said.exit, 0, "{}", said.stderr);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["definition"], "order@2");
    let committed = report["committed"].as_f64().unwrap();
    assert!((committed - 0.75 * 0.8).abs() < 1e-9, "{committed}");
    assert_eq!(report["attempts"].as_array().unwrap().len(), 10);
    assert_eq!(report["branches"][1]["refused"], 0.2);
    let drawing = std::fs::read_to_string(folder.path().join("order.svg")).unwrap();
    assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
    assert_eq!(drawing.matches("<polyline ").count(), 2);
    assert_eq!(drawing.matches("<circle ").count(), 10);
}

#[test]
fn people_get_a_table() {
    let (said, _) = run(None, "order.yaml --default p=0.99,latency=20ms --want 0.999");
    assert_eq!(said.exit, 0, "{}", said.stderr);
    for part in ["ORDER@2 WITHIN 2S", "committed", "reserve", "20ms", "a deadline of"] {
        assert!(said.stdout.contains(part), "{part} in {}", said.stdout);
    }
}

#[test]
fn what_cannot_be_had_ends_with_10() {
    let (said, _) = run(None, "order.yaml --default p=0.9,latency=20ms --want 0.99999 -o json");
    assert_eq!(said.exit, 10, "{}", said.stderr);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["want"]["deadline"], Value::Null);
}

#[test]
fn wrong_input_is_told() {
    let check = |model: Option<&str>, line: &str, exit: i32, then: &str| {
        let (said, _) = run(model, line);
        assert_eq!(said.exit, exit, "{line}: {}", said.stderr);
        assert!(said.stderr.contains(then), "{line}: {}", said.stderr);
    };
    check(None, "order.yaml --step charge:p=2", 2, "charge: p = 2 is no probability (0 to 1)");
    check(None, "order.yaml --step refund:p=1", 2, "the definition has no step `refund`");
    check(None, "order.yaml --step p=1", 2, "a step and its numbers");
    check(None, "order.yaml --step charge:p=much", 2, "`p=much`: p=, refused=");
    check(None, "order.yaml --default p=0.9,refused=0.2", 2, "p + refused + error = 1.1 is more than 1");
    check(None, "order.yaml --want 1.5", 2, "--want 1.5: a probability between 0 and 1");
    check(None, "order.yaml --model model.yaml", 3, "model.yaml: ");
    check(Some("default: {often: 1}"), "order.yaml --model model.yaml", 2, "unknown field `often`");
    check(None, "order.yaml --measure", 2, "--kafka");
    check(None, "order.yaml --newest 5", 2, "--measure");
    check(None, "nothing.yaml", 3, "nothing.yaml: no such file");
    check(Some("name: order"), "model.yaml", 10, "missing");
}

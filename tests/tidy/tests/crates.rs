//! Crates import along the table in ARCHITECTURE.md, and pure ones name nothing that differs from run to run.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_tidy::{assert_none, code, quoted, read, table, tracked_texts};

/// Names of the dependencies in a manifest: of the crate, and of its tests and build script.
fn dependencies(manifest: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut own, mut of_tests) = (BTreeSet::new(), BTreeSet::new());
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        if section.ends_with("dev-dependencies") || section.ends_with("build-dependencies") {
            of_tests.insert(name.to_owned());
        } else if section.ends_with("dependencies") {
            own.insert(name.to_owned());
        }
    }
    (own, of_tests)
}

/// Manifests of the crates of the workspace, by the crates' names.
fn manifests() -> BTreeMap<String, String> {
    let members = read("Cargo.toml");
    let members =
        members.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    let folders = members.split('"').skip(1).step_by(2);
    let manifests = folders.map(|folder| {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or_default();
        (name.trim_matches('"').to_owned(), manifest)
    });
    manifests.collect()
}

#[test]
fn crates_import_along_the_table() {
    let rows = table(&read("ARCHITECTURE.md"), "### Who may import whom");
    let manifests = manifests();
    let mut wrong = Vec::new();
    let listed: BTreeSet<&str> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let present: BTreeSet<&str> = manifests.keys().map(String::as_str).collect();
    wrong.extend(present.difference(&listed).map(|name| format!("{name} is not in the table")));
    wrong.extend(listed.difference(&present).map(|name| format!("{name} is in the table, and nowhere else")));
    for row in &rows {
        let [name] = quoted(&row[0])[..] else { panic!("one crate a row: {row:?}") };
        let Some(manifest) = manifests.get(name) else { continue };
        let (own, of_tests) = dependencies(manifest);
        let (may, tests_may, never) = (quoted(&row[1]), quoted(&row[2]), quoted(&row[3]));
        let ours = |found: &&String| present.contains(found.as_str());
        for found in own.iter().filter(ours).filter(|found| !may.contains(&found.as_str())) {
            wrong.push(format!("{name} imports {found}"));
        }
        for found in of_tests.iter().filter(ours) {
            if !may.contains(&found.as_str()) && !tests_may.contains(&found.as_str()) {
                wrong.push(format!("the tests of {name} import {found}"));
            }
        }
        wrong.extend(
            own.iter()
                .filter(|found| never.contains(&found.as_str()))
                .map(|found| format!("{name} names {found}")),
        );
    }
    assert_none(
        &wrong,
        "an arrow that ARCHITECTURE.md does not have is a commit of its own, with its reason:",
    );
}

#[test]
fn versions_stand_in_one_place() {
    let mut wrong = Vec::new();
    for (name, manifest) in manifests() {
        let in_dependencies = |line: &str| line.contains("version = \"") || line.contains("path = \"");
        let lines = manifest.lines().skip_while(|line| !line.ends_with("dependencies]"));
        let lines = lines.take_while(|line| !line.starts_with("[[")).filter(|line| in_dependencies(line));
        wrong.extend(lines.map(|line| format!("{name}: {line}")));
    }
    assert_none(
        &wrong,
        "a dependency is `workspace = true`; its version stands in the workspace's Cargo.toml:",
    );
}

#[test]
fn pure_crates_name_nothing_that_differs_from_run_to_run() {
    /// What it is, and what to use instead.
    const BANNED: &[(&str, &str)] = &[
        ("tokio", "the server waits, the fold does not"),
        ("rdkafka", "records come as plain bytes"),
        ("SystemTime", "the clock is the record's timestamp"),
        ("Instant", "the clock is the record's timestamp"),
        ("Timestamp::now", "the clock is the record's timestamp"),
        ("rand::", "a hash of what stands in the log"),
        ("new_v4", "an id follows from the log"),
        ("HashMap", "BTreeMap: its order is the same in every run"),
        ("HashSet", "BTreeSet: its order is the same in every run"),
        ("std::env", "what the fold uses stands in the log"),
        ("std::fs", "no I/O"),
        ("std::net", "no I/O"),
        ("std::thread", "apply never waits"),
        ("std::process", "apply never fails"),
        ("println!", "outputs are returned"),
    ];
    let pure = ["schemas/src/", "orchestrator/decider/src/", "participants/library/src/barrier.rs"];
    let mut wrong = Vec::new();
    for (name, source) in tracked_texts(".rs") {
        if !pure.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let code = code(&source);
        let found = BANNED.iter().filter(|(word, _)| code.contains(word));
        wrong.extend(found.map(|(word, instead)| format!("{name}: {word} ({instead})")));
    }
    assert_none(&wrong, "the fold is a function of the log and of nothing else:");
}

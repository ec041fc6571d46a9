//! Sources stay small, safe and headed; nothing in the repository points to one machine.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_tidy::{assert_none, code, read, tracked, tracked_texts};

/// Longest source. The file that is regretted is always the largest one: cut it by protocol, by kind of record.
const LINES_MAX: usize = 700;
/// From here on somebody should think about where to cut.
const LINES_ASK: usize = 500;
#[test]
fn no_source_is_too_long() {
    let mut wrong = Vec::new();
    for (name, source) in tracked_texts(".rs") {
        let lines = source.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{name} has {lines} lines, {LINES_MAX} at most"));
        } else if lines > LINES_ASK {
            println!("{name} has {lines} lines: where would it be cut?");
        }
    }
    assert_none(&wrong, "sources that are too long:");
}

#[test]
fn nothing_is_unsafe() {
    const WORDS: [&str; 4] = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    let mut wrong = Vec::new();
    // This crate names the words to find them.
    for (name, source) in
        tracked_texts(".rs").into_iter().filter(|(name, _)| !name.starts_with("tests/tidy/"))
    {
        let code = code(&source);
        let found = WORDS.iter().filter(|word| code.contains(**word));
        wrong.extend(found.map(|word| format!("{name}: {word}")));
    }
    for (name, manifest) in tracked_texts("Cargo.toml") {
        if name != "Cargo.toml" && !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{name} does not take the lints of the workspace"));
        }
    }
    assert_none(&wrong, "no unsafe code:");
}

#[test]
fn every_source_says_what_it_is() {
    let headless = tracked_texts(".rs").into_iter().filter(|(_, source)| !source.starts_with("//!"));
    assert_none(
        &headless.map(|(name, _)| name).collect::<Vec<_>>(),
        "a source begins with what it is, why, and what is deliberately absent (//!):",
    );
}

#[test]
fn transition_tables_are_numbered_without_gaps() {
    let mut tables = 0;
    let mut wrong = Vec::new();
    for (name, source) in tracked_texts(".rs") {
        if !name.starts_with("orchestrator/decider/src/protocol/") {
            continue;
        }
        let mut last: BTreeMap<char, usize> = BTreeMap::new();
        for line in source.lines().take_while(|line| line.starts_with("//!")) {
            let cell = line.strip_prefix("//! | ").and_then(|row| row.split(" |").next()).unwrap_or_default();
            let mut characters = cell.chars();
            let Some(letter) = characters.next().filter(char::is_ascii_uppercase) else { continue };
            let Ok(number) = characters.as_str().parse::<usize>() else { continue };
            let expected = last.get(&letter).map_or(1, |last| last + 1);
            if number != expected {
                wrong.push(format!("{name}: row {cell} stands where {letter}{expected} should"));
            }
            last.insert(letter, number);
        }
        tables += last.len();
    }
    assert!(tables > 0, "no transition table was found");
    assert_none(&wrong, "rows are named by tests and people, in order:");
}

#[test]
fn nothing_points_to_one_machine() {
    /// Parts of paths that exist on somebody's machine only; in pieces, so that this file is free of them.
    const PATHS: &[&str] =
        &[concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Use", "rs/")];
    /// Hosts that anybody reaches, or nobody.
    const HOSTS: &[&str] = &[
        "127.0.0.1",
        "localhost",
        "github.com",
        "json-schema.org",
        "pypi.org",
        "www.apache.org",
        "www.w3.org",
        "HOST",
    ];
    let mut wrong = Vec::new();
    for name in tracked() {
        let Ok(text) = String::from_utf8(std::fs::read(sagamore_tidy::root().join(&name)).unwrap()) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let found = PATHS.iter().filter(|path| {
                // `~/…` and `$HOME/…` are nobody's; so is a longer word.
                line.match_indices(**path).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}~".contains(c))
                })
            });
            wrong.extend(found.map(|path| format!("{name}:{}: {path}", number + 1)));
            for scheme in ["http://", "https://"] {
                for rest in line.split(scheme).skip(1) {
                    let host = rest.split(|c: char| !(c.is_ascii_alphanumeric() || ".-_".contains(c))).next();
                    let host = host.unwrap_or_default().trim_end_matches('.');
                    if !host.is_empty() && !HOSTS.contains(&host) {
                        wrong.push(format!("{name}:{}: {scheme}{host}", number + 1));
                    }
                }
            }
        }
    }
    assert_none(
        &wrong,
        "no path of one machine, and no address that is not in the list (add it if anybody reaches it):",
    );
}

#[test]
fn cargo_fetches_from_where_everybody_does() {
    let wrong: Vec<String> = tracked()
        .into_iter()
        .filter(|name| name.starts_with(".cargo/"))
        .filter(|name| {
            ["replace-with", "[source", "[registries"].iter().any(|word| read(name).contains(word))
        })
        .collect();
    assert_none(&wrong, "a registry of somebody's own:");
    let lock = read("Cargo.lock");
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    assert_eq!(
        sources.into_iter().collect::<Vec<_>>(),
        ["\"registry+https://github.com/rust-lang/crates.io-index\""],
        "everything comes from crates.io"
    );
}

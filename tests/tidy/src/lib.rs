//! The repository as text, for tests that hold it to its own rules.
//!
//! Deliberately absent: the network, cargo, a parser of Rust. Rules are about what is written, line by line; what needs
//! more than that is a lint's business.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of a file, by its path from the top.
///
/// # Panics
/// If there is no such file, or it is no text.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether there is such a file or folder.
pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// The files that belong to the repository, by their paths from the top, in order.
///
/// # Panics
/// Without git there is no telling what belongs to it.
pub fn tracked() -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    let listed = listed.unwrap_or_else(|error| panic!("git ls-files: {error}"));
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8_lossy(&listed.stdout);
    names.split('\0').filter(|name| !name.is_empty() && exists(name)).map(str::to_owned).collect()
}

/// Those of them whose names end so, with their texts.
pub fn tracked_texts(ending: &str) -> Vec<(String, String)> {
    let names = tracked().into_iter().filter(|name| name.ends_with(ending));
    names.map(|name| (name.clone(), read(&name))).collect()
}

/// The cells of each row of the first Markdown table below the line that begins with `heading`, without its head.
///
/// # Panics
/// If there is no such heading.
pub fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(heading));
    assert!(lines.next().is_some(), "there is no {heading:?}");
    let rows = lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2)
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands between backticks.
pub fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A source without its comments and without the tests at its end.
pub fn code(source: &str) -> String {
    let lines = source.lines().take_while(|line| *line != "#[cfg(test)]");
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// Fails with all that is wrong, not only with the first.
///
/// # Panics
/// If anything is.
pub fn assert_none(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "{rule}\n  {}", wrong.join("\n  "));
}

//! What the documents say is so: links, codes, names, examples.

use std::collections::BTreeSet;

use sagamore_schemas::wire::{read_asked, read_command, read_input, read_outcome};
use sagamore_tidy::{assert_none, exists, quoted, read, table, tracked_texts};

/// The blocks of code of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opened = format!("```{language}\n");
    let blocks = text.split(&opened).skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

/// Names in string literals that follow `before`.
fn names_after(source: &str, before: &str) -> BTreeSet<String> {
    source.split(before).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for (name, text) in tracked_texts(".md") {
        let folder = name.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { name.clone() } else { format!("{folder}{path}") };
            if !exists(&target) {
                wrong.push(format!("{name}: {link}"));
            } else if !wanted.is_empty() {
                let text = read(&target);
                let headings = text.lines().filter(|line| line.starts_with('#'));
                if !headings
                    .map(|line| anchor(line.trim_start_matches('#').trim()))
                    .any(|found| found == wanted)
                {
                    wrong.push(format!("{name}: {link}, no such heading"));
                }
            }
        }
    }
    assert_none(&wrong, "links of documents are relative and lead somewhere:");
}

#[test]
fn every_code_has_its_page_and_every_page_its_code() {
    let sources = ["orchestrator/server/src/halt.rs", "participants/library/src/code.rs"].map(read);
    let codes: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| quoted_strings(source))
        .filter(|text| text.starts_with("SAG-"))
        .collect();
    assert!(codes.contains("SAG-001") && codes.contains("SAG-101"), "the codes were found: {codes:?}");
    let pages: BTreeSet<String> = tracked_texts(".md")
        .into_iter()
        .filter_map(|(name, text)| {
            let code = name.strip_prefix("deploy/runbook/")?.strip_suffix(".md")?.to_owned();
            if code == "README" {
                return None;
            }
            assert!(text.starts_with(&format!("# {code}: ")), "{name} begins with its code");
            for part in ["**What happened.**", "**What is safe.**", "**What to do.**"] {
                assert!(text.contains(part), "{name} has no {part}");
            }
            Some(code)
        })
        .collect();
    assert_eq!(codes, pages, "codes of halt.rs and code.rs, and pages in deploy/runbook");
    let index = read("deploy/runbook/README.md");
    let unlisted = codes.iter().filter(|code| !index.contains(&format!("[{code}]({code}.md)")));
    assert_none(&unlisted.cloned().collect::<Vec<_>>(), "codes that are not in the runbook's list:");
    for (name, text) in tracked_texts(".rs") {
        let number = |rest: &str| {
            rest.get(..3).filter(|number| number.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned)
        };
        let other = text.split("SAG-").skip(1).filter_map(number).map(|number| format!("SAG-{number}"));
        let unknown: Vec<String> = other.filter(|code| !codes.contains(code)).collect();
        assert_none(&unknown, &format!("{name} names codes that there are not:"));
    }
}

fn quoted_strings(source: &str) -> Vec<String> {
    source.lines().flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Name, id and text of each invariant in the decider's registry.
fn registry() -> Vec<(String, String, String)> {
    let source = read("orchestrator/decider/src/invariants.rs");
    let lines = source.lines().skip_while(|line| !line.starts_with("invariants! {")).skip(1);
    let rows = lines.take_while(|line| !line.starts_with('}')).filter_map(|line| {
        let (head, text) = line.trim().split_once('"')?;
        let (name, number) = head.trim().split_once(' ')?;
        let text = text.trim_end_matches('"').replace("\\\"", "\"");
        Some((name.to_owned(), format!("SAG-INV-{number}"), text))
    });
    rows.collect()
}

#[test]
fn invariants_are_listed_where_they_are_asserted() {
    let rows = table(&read("ARCHITECTURE.md"), "## Invariants");
    let listed: Vec<(&str, &str)> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let registry = registry();
    let registered: Vec<(&str, &str)> =
        registry.iter().map(|(_, id, text)| (id.as_str(), text.as_str())).collect();
    assert_eq!(listed, registered, "ARCHITECTURE.md lists the registry of invariants.rs, word for word");
    let mut asserted: BTreeSet<String> = BTreeSet::new();
    let mut simulator = String::new();
    let mut wrong = Vec::new();
    for (name, source) in tracked_texts(".rs") {
        if name.starts_with("tests/simulator/src/") {
            simulator += &source;
        }
        if !name.starts_with("orchestrator/decider/src/") || name.ends_with("/invariants.rs") {
            continue;
        }
        for (at, _) in source.match_indices("SAG-INV-") {
            let id: String =
                source[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            let row = rows.iter().find(|row| row[0] == id);
            let place = name.trim_start_matches("orchestrator/decider/src/");
            if !row.is_some_and(|row| quoted(&row[2]).contains(&place)) {
                wrong.push(format!("{id} is asserted in {place}, and ARCHITECTURE.md does not say so"));
            }
            asserted.insert(id);
        }
    }
    for (row, (name, id, _)) in rows.iter().zip(&registry) {
        let from_outside = simulator.contains(&format!("inv::{name}"));
        if !asserted.contains(id) && !from_outside {
            wrong.push(format!("{id} is neither asserted nor looked at by the simulator"));
        }
        if row[2].starts_with("simulator") {
            continue;
        }
        let words = quoted(&row[2]);
        let (Some(file), functions) = (words.first(), &words[1..]) else { continue };
        let source = read(&format!("orchestrator/decider/src/{file}"));
        let missing = functions.iter().filter(|function| !source.contains(&format!("fn {function}")));
        wrong.extend(missing.map(|function| format!("{id}: there is no {function} in {file}")));
    }
    assert_none(&wrong, "invariants:");
}

#[test]
fn the_sixteen_rules_name_files_that_are_there() {
    let text = read("ARCHITECTURE.md");
    let rows = table(&text, "## The sixteen rules");
    let numbers: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(numbers, (1..=16).map(|number| number.to_string()).collect::<Vec<_>>());
    let homes = [
        ("d", "orchestrator/decider"),
        ("s", "orchestrator/server"),
        ("k", "orchestrator/kafka"),
        ("p", "participants/library"),
        ("e", "tests/end-to-end"),
    ];
    let mut wrong = Vec::new();
    for row in &rows {
        for cell in &row[2..4] {
            for part in cell.split(", ") {
                let Some((letter, rest)) = part.split_once(" `") else { continue };
                let Some((_, home)) = homes.iter().find(|(known, _)| *known == letter) else { continue };
                let path = rest.split('`').next().unwrap_or_default();
                let place = if path.starts_with("tests/") {
                    format!("{home}/{path}")
                } else {
                    format!("{home}/src/{path}")
                };
                if !exists(&place) {
                    wrong.push(format!("rule {}: {place}", row[0]));
                }
            }
        }
    }
    assert_none(&wrong, "files that ARCHITECTURE.md names and that there are not:");
}

#[test]
fn the_readme_names_what_the_code_has() {
    let readme = read("README.md");
    let mut wrong = Vec::new();
    let metrics = read("orchestrator/server/src/metrics.rs");
    let names: BTreeSet<String> = ["counter!(\"", "gauge!(\"", "histogram!(\""]
        .into_iter()
        .flat_map(|before| names_after(&metrics, before))
        .collect();
    assert!(names.len() > 10, "the metrics were found: {names:?}");
    wrong.extend(
        names
            .iter()
            .filter(|name| !readme.contains(&format!("`{name}")))
            .map(|name| format!("metric {name}")),
    );
    let told = readme.split("`sagamore_").skip(1).filter_map(|rest| rest.split(['{', '`']).next());
    let gone = told.map(|name| format!("sagamore_{name}")).filter(|name| !names.contains(name));
    wrong.extend(gone.map(|name| format!("no such metric {name}")));

    let settings = read("orchestrator/decider/src/settings.rs");
    let fields = settings
        .split("pub struct Settings {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .unwrap_or_default();
    let fields = fields.split("pub ").skip(1).filter_map(|rest| rest.split(':').next());
    let missing = fields.filter(|field| !readme.contains(&format!("| `{field}` |")));
    wrong.extend(missing.map(|field| format!("setting {field}")));

    let exits = read("orchestrator/server/src/cli/exit.rs");
    let exits =
        exits.split("pub enum Exit {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let codes =
        exits.lines().filter_map(|line| line.split(" = ").nth(1)).map(|code| code.trim_end_matches(','));
    let missing = codes.filter(|code| !readme.contains(&format!("\n| {code} | ")));
    wrong.extend(missing.map(|code| format!("exit code {code}")));
    assert_none(&wrong, "README.md lacks, or invents:");
}

#[test]
fn the_examples_of_the_readme_are_true() {
    let readme = read("README.md");
    let yaml = blocks(&readme, "yaml");
    assert_eq!(
        yaml,
        ["order", "mixed", "return"].map(|name| read(&format!("schemas/samples/{name}.yaml"))),
        "the definitions are the samples, which the decider's tests compile"
    );

    let participants = read("participants/README.md");
    let program = read("participants/client/examples/transfer/banking.rs");
    let known: BTreeSet<&str> = participants.lines().chain(program.lines()).collect();
    let rust = blocks(&readme, "rust").join("");
    let unknown: Vec<String> = rust.lines().filter(|line| !known.contains(line)).map(str::to_owned).collect();
    assert_none(
        &unknown,
        "lines of Rust that neither participants/README.md nor the example of the client has, which are compiled:",
    );

    let mut kinds = Vec::new();
    for block in blocks(&readme, "json") {
        let record = Some(block.as_bytes());
        let value: serde_json::Value =
            serde_json::from_str(&block).unwrap_or_else(|error| panic!("{error}: {block}"));
        let kind = value["type"].as_str().unwrap_or_default().to_owned();
        let read = match kind.as_str() {
            "sagamore.command.v1" => read_command(record).map(drop),
            "sagamore.decision.v1" => read_asked(record).map(drop),
            "sagamore.outcome.v1" => read_outcome(record).map(drop),
            _ => read_input(record).map(drop),
        };
        assert!(read.is_ok(), "{kind}: {read:?}");
        kinds.push(kind);
    }
    let all = ["start", "command", "reply", "outcome", "decision"].map(|kind| format!("sagamore.{kind}.v1"));
    assert_eq!(kinds, all, "each kind of record has its example");
}

#[test]
fn sql_in_the_documents_is_what_a_test_runs() {
    let run = read("tests/end-to-end/tests/outbox/bank.sql");
    let mut wrong = Vec::new();
    let mut blocks = 0;
    for document in ["README.md", "participants/README.md"] {
        let text = read(document);
        for block in text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()) {
            blocks += 1;
            if !run.contains(block) {
                wrong.push(format!("{document}: {}", block.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(blocks > 0, "no block of SQL was found");
    assert_none(&wrong, "SQL that tests/end-to-end/tests/outbox/bank.sql does not have:");
}

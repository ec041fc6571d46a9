//! What an author reads: every problem of a text in one go, with its line.

use sagamore_decider::definition::source::{Severity, read};

/// The reports of a text, or its canonical form and the warnings.
fn told(given: &str) -> String {
    let checked = read(given);
    let report = |severity| move |problem| checked_report(given, severity, problem);
    match &checked.result {
        Ok((definition, _)) => {
            let warnings: String = checked.warnings.iter().map(report(Severity::Warning)).collect();
            format!("{}\n{warnings}", definition.to_canonical_json())
        }
        Err(problems) => problems.iter().map(report(Severity::Error)).collect(),
    }
}

fn checked_report(
    given: &str,
    severity: Severity,
    problem: &sagamore_decider::definition::check::Problem,
) -> String {
    read(given).source.report("f.yaml", severity, problem)
}

/// `code line:column message`, one per line: for tests that are about what is found, not how it looks.
fn listed(given: &str) -> Vec<String> {
    let checked = read(given);
    let problems = checked.result.err().unwrap_or(checked.warnings);
    let line = |problem: &sagamore_decider::definition::check::Problem| {
        let place = checked.source.place(problem);
        format!("{} {}:{} {}", problem.code, place.line, place.column, problem.message)
    };
    problems.iter().map(line).collect()
}

fn check(given: &str, then: &[&str]) {
    assert_eq!(listed(given), then, "given: {}", &given[..given.len().min(500)]);
}

/// A definition of these steps, each `name: { … }` on a line of its own from line 4 on.
fn check_steps(given: &[&str], then: &[&str]) {
    let steps: Vec<String> = given.iter().map(|step| format!("  - {{ participant: p, {step} }}")).collect();
    check(&format!("name: d\nversion: 1\nsteps:\n{}\n", steps.join("\n")), then);
}

/// The same without a participant of its own.
fn check_groups(given: &[&str], then: &[&str]) {
    let steps: Vec<String> = given.iter().map(|fields| format!("  - {{ {fields} }}\n")).collect();
    check(&format!("name: d\nversion: 1\ndeadline: 1h\nsteps:\n{}", steps.concat()), then);
}

#[test]
fn a_report_looks_like_that_of_a_compiler() {
    let given = "\
name: order
version: 1
deadline: 2m
steps:
  - name: reserve
    participant: inventory
    timeout: 5 s
    retry: { atempts: 5 }
  - name: charge
    participant: payment
    kind: pivt
    input:
      amount: ${input.total}
      receipt: \"${steps.ship.number\"
  - name: ship
";
    let then = "\
error[bad-value]: duration \"5 s\" must be an integer and ms, s, m, h or d, at most 365d
 --> f.yaml:7:14
  |
7 |     timeout: 5 s
  |              ^^^
  = help: write an integer and ms, s, m, h or d, such as 30s
error[unknown-field]: there is no field `atempts` here
 --> f.yaml:8:14
  |
8 |     retry: { atempts: 5 }
  |              ^^^^^^^
  = help: did you mean `attempts`?
error[bad-value]: `pivt` is not known here
  --> f.yaml:11:11
   |
11 |     kind: pivt
   |           ^^^^
   = help: did you mean `pivot`?
error[bad-template]: `${` without `}`
  --> f.yaml:14:16
   |
14 |       receipt: \"${steps.ship.number\"
   |                ^^^^^^^^^^^^^^^^^^^^^
   = help: close the path with `}`, or write `$${` for the text `${`
error[missing-field]: this step has no `participant`
  --> f.yaml:15:5
   |
15 |   - name: ship
   |     ^^^^^^^^^^
   = help: name the service that does it: `participant: …`
";
    assert_eq!(told(given), then);
}

#[test]
fn names_that_are_not_there_are_told_with_what_was_meant() {
    check_steps(
        &["name: reserve", "name: charge, after: [reserv, reserve, reserve]", "name: charge"],
        &[
            "unknown-step 5:45 there is no step `reserv`",
            "duplicate-after 5:62 `reserve` stands here twice",
            "duplicate-step 6:29 step 2 is named `charge` already",
        ],
    );
}

#[test]
fn a_misspelt_field_is_not_missing_as_well() {
    check(
        "nmae: d\nversion: 1\nsteps:\n  - nme: a\n    participnt: p\n  - x: b\n",
        &[
            "unknown-field 1:1 there is no field `nmae` here",
            "unknown-field 4:5 there is no field `nme` here",
            "unknown-field 5:5 there is no field `participnt` here",
            "unknown-field 6:5 there is no field `x` here",
            "missing-field 6:5 there is no `name` here",
            "missing-field 6:5 this step has no `participant`",
        ],
    );
}

#[test]
fn every_cycle_is_named() {
    check_steps(
        &["name: a, after: [c]", "name: b", "name: c", "name: d, after: [d]", "name: e, after: [d]"],
        &[
            "cycle 4:32 steps wait for each other: a -> c -> b -> a",
            "cycle 7:32 steps wait for each other: d -> d",
        ],
    );
}

#[test]
fn nothing_turns_back_after_the_point_of_no_return() {
    check_steps(
        &[
            "name: a",
            "name: b, kind: pivot",
            "name: c",
            "name: d, after: [a]",
            "name: e, kind: pivot, after: [b]",
        ],
        &[
            "not-before-pivot 6:5 `c` is compensatable and comes after the pivot `b`, so it could still say no after the decision",
            "not-before-pivot 7:5 `d` is compensatable and runs beside the pivot `b`, so it could still say no after the decision",
            "second-pivot 8:38 `e` is a second pivot, after `b`",
        ],
    );
    check_steps(
        &["name: a, kind: retriable", "name: b", "name: c, kind: pivot"],
        &[
            "after-retriable 5:5 `b` is compensatable and comes after the retriable step `a`, which runs after the decision",
            "after-retriable 6:5 `c` is pivot and comes after the retriable step `a`, which runs after the decision",
        ],
    );
    check_steps(
        &["name: a", "name: b, kind: pivot", "name: c, kind: retriable", "name: d, kind: retriable"],
        &[],
    );
    check_steps(&["name: a, after: []", "name: b, kind: retriable, after: []", "name: c, after: [a]"], &[]);
}

#[test]
fn an_input_exists_on_every_path() {
    check_steps(
        &[
            "name: a, after: []",
            "name: b, after: [], input: '${steps.a.x} ${steps.b}'",
            "name: c, after: [b], input: { x: ['${steps.b.x}', '${steps.a.x}'] }, key: '${steps.d.x}'",
            "name: d, input: '${steps.a}', after: [c, a]",
        ],
        &[
            "not-an-ancestor 5:50 the result of `a` need not exist when `b` runs: it does not wait for it on any path",
            "not-an-ancestor 5:50 `b` reads its own result",
            "not-an-ancestor 6:73 the result of `a` need not exist when `c` runs: it does not wait for it on any path",
            "not-an-ancestor 6:97 the result of `d` need not exist when `c` runs: it does not wait for it on any path",
        ],
    );
}

#[test]
fn templates_are_read_when_applied() {
    check_steps(
        &[
            "name: a, input: ['$$ $${x} $', '${}', '${input..x}', '${inputs.x}', '${transaction.time}', '${steps.b.x}']",
        ],
        &[
            "bad-template 4:54 `${}` is not a path",
            "bad-template 4:61 `${input..x}` is not a path",
            "bad-template 4:76 `${inputs.x}` does not exist",
            "bad-template 4:91 `${transaction.time}` does not exist",
            "unknown-step 4:114 there is no step `b`",
        ],
    );
}

#[test]
fn numbers_have_bounds() {
    check(
        "name: d\nversion: 0\ndeadline: 0s\nsteps: []",
        &[
            "out-of-bounds 2:10 the version is 0",
            "out-of-bounds 3:11 a duration of 0",
            "step-count 4:1 the definition has 0 steps",
        ],
    );
    check_steps(
        &["name: a, retry: { attempts: 1001, factor: 0, backoff: 40s }, timeout: 0ms"],
        &[
            "out-of-bounds 4:32 the first pause, 40s, is longer than the longest one, 30s",
            "out-of-bounds 4:51 `attempts` is 1001",
            "out-of-bounds 4:65 `factor` is 0",
            "out-of-bounds 4:93 a duration of 0",
        ],
    );
    check_steps(
        &["name: a, kind: pivot, retry: { attempts: 3 }", "name: b, kind: retriable, retry: { attempts: 3 }"],
        &[
            "finite-attempts 4:64 step `a` has 3 attempts, but a pivot is asked until it answers",
            "finite-attempts 5:68 step `b` has 3 attempts, but a retriable step is tried until it succeeds",
        ],
    );
}

#[test]
fn one_group_or_pivot_is_the_point_of_no_return() {
    let pair = "branches: [{ participant: x }, { participant: y }]";
    let undone = "branches: [{ participant: x, compensate: true }, { participant: y, compensate: true }]";
    check_groups(
        &[
            &format!("name: a, protocol: two-phase, {undone}"),
            &format!("name: b, protocol: three-phase, commit: at-end, {pair}"),
            "name: c, participant: p, kind: reserved",
            &format!("name: d, protocol: two-phase, {pair}"),
            "name: e, participant: p, kind: retriable",
        ],
        &[],
    );
    check_groups(
        &[
            "name: a, participant: p, kind: pivot",
            &format!("name: b, protocol: two-phase, {pair}"),
            &format!("name: c, protocol: two-phase, commit: at-end, {pair}"),
            &format!("name: d, protocol: two-phase, {undone}"),
            "name: e, participant: p, kind: reserved",
        ],
        &[
            "second-pivot 6:5 `b` commits in its place: a second point of no return, after `a`",
            "not-before-pivot 7:5 `c` is a group that commits at the end and comes after the pivot `a`, so it could still say no after the decision",
            "not-before-pivot 8:5 `d` is a compensatable group and comes after the pivot `a`, so it could still say no after the decision",
            "not-before-pivot 9:5 `e` is reserved and comes after the pivot `a`, so it could still say no after the decision",
        ],
    );
}

#[test]
fn fields_that_do_not_go_together_are_told_apart() {
    check_groups(
        &[
            "name: a, participant: p, protocol: two-phase",
            "name: b, branches: [{ participant: x }], commit: at-end",
            "name: c, participant: p, commit: at-end",
            "name: d, participant: p, input: 1, kind: reserved, protocol: two-phase, branches: [{ participant: x }], commit: at-end",
            "name: e, protocol: two-phase, commit: at-end, branches: [{ participant: x, compensate: true }]",
        ],
        &[
            "missing-field 5:42 `a` has a protocol and no `branches`",
            "missing-field 6:16 the branches of `b` have no `protocol`",
            "contradiction 7:40 `c` has no branches that commit together",
            "contradiction 8:29 `participant` of a step that has branches",
            "contradiction 8:39 `input` of a step that has branches",
            "contradiction 8:48 kind `reserved` of a step that has branches",
            "contradiction 9:94 `e` commits with the transaction's decision and is never undone",
        ],
    );
    check_groups(
        &[
            "name: a, protocol: two-phase, commit: at-end, branches: [{ participant: x }, { participant: x }, { participant: y, name: z }]",
            "name: b, protocol: two-phase, branches: [{ participant: x, compensate: true }, { participant: y }]",
            "name: c, protocol: two-phase, commit: at-end, branches: [], after: [a]",
        ],
        &[
            "duplicate-branch 5:84 branch 1 of `a` is named `x` already",
            "contradiction 6:78 1 of 2 branches of `b` can be undone",
            "not-before-pivot 7:5 `c` is a group that commits at the end and runs beside the pivot `b`, so it could still say no after the decision",
            "fan-out 7:53 `c` has 0 branches",
        ],
    );
}

#[test]
fn who_decides_alone_says_what_he_assumes() {
    let given = "protocol: three-phase, branches: [{ participant: x }]";
    check_groups(
        &[&format!("name: a, {given}, termination: unilateral, assumes_synchrony_ms: 500")],
        &[
            "unilateral 5:84 the branches of `a` decide by themselves after 500ms: one message or process slower than that, once, and some have committed while others have aborted",
        ],
    );
    check_groups(
        &[
            &format!("name: a, {given}, commit: at-end, termination: unilateral"),
            &format!("name: b, {given}, commit: at-end, assumes_synchrony_ms: 0"),
            "name: c, participant: p, termination: unilateral, assumes_synchrony_ms: 5",
        ],
        &[
            "missing-field 5:100 `termination: unilateral` without `assumes_synchrony_ms`",
            "contradiction 6:109 `assumes_synchrony_ms` without `termination: unilateral`",
            "out-of-bounds 6:109 messages that take no time",
            "contradiction 7:45 `termination` is for a step under `three-phase`",
        ],
    );
}

#[test]
fn what_may_be_skipped_has_a_result_for_those_who_ask() {
    check_groups(
        &[
            "name: a, participant: p",
            "name: b, participant: p, when: 'steps.a.n > 2'",
            "name: c, participant: p, when: 'steps.a.n > 2', input: '${steps.b}'",
            "name: d, participant: p, when: 'has(steps.b.x)', input: '${steps.b.x}'",
            "name: e, participant: p, input: '${steps.b.x}'",
        ],
        &["may-be-skipped 9:39 `b` may be skipped, and then there is no result for `e`"],
    );
    check_groups(
        &[
            "name: a, participant: p, when: 'steps.b.n > 2'",
            "name: b, participant: p, when: 'input.n >'",
            "name: c, participant: p, when: 'input.lines.map(l, l.n) == 3'",
        ],
        &[
            "not-an-ancestor 5:38 the result of `b` need not exist when `a` runs: it does not wait for it on any path",
            "bad-condition 6:38 the condition cannot be read at its end: something is missing at the end",
            "bad-condition 7:38 the condition cannot be read at `(l, l.n) == 3`: `map` or `filter` cannot be used in a condition: there are operators, has(), in, size, contains, startsWith, endsWith, int, uint, double, string, and on lists all, exists and exists_one",
        ],
    );
}

#[test]
fn a_group_has_a_result_for_each_branch() {
    check_groups(
        &[
            "name: a, protocol: two-phase, branches: [{ participant: x }, { participant: y, name: why }]",
            "name: b, participant: p, kind: retriable, input: '${steps.a.x.n} ${steps.a.why}'",
            "name: c, participant: p, kind: retriable, input: '${steps.a} ${steps.a.y.n} ${steps.a.wy}'",
        ],
        &[
            "unknown-branch 7:56 `a` has a result for each branch, not one",
            "unknown-branch 7:56 step `a` has no branch `y`",
            "unknown-branch 7:56 step `a` has no branch `wy`",
        ],
    );
}

#[test]
fn the_deadline_is_held_against_the_worst_case() {
    check(
        "name: d\nversion: 1\ndeadline: 1m\nsteps:\n  - { name: a, participant: p, timeout: 5s, retry: { attempts: 5 } }\n  - { name: b, participant: p, timeout: 20s, retry: { attempts: 2 }, after: [] }\n  - { name: c, participant: p, after: [a, b], timeout: 10s, retry: { attempts: 3 } }\n  - { name: d, participant: p, kind: pivot }\n  - { name: e, participant: p, kind: retriable }\n",
        &["deadline-too-short 3:11 the worst case, 1m 10.4s, is longer than the deadline, 1m: \
           b 2 x 20s + 0.1s of pauses = 40.1s; c 3 x 10s + 0.3s of pauses = 30.3s"],
    );
    check_steps(&["name: a", "name: b"], &[]);
}

#[test]
fn a_text_that_is_no_definition_says_where_it_ends_to_be_one() {
    check("", &["unreadable 1:1 there is nothing here"]);
    check("5", &["bad-value 1:1 invalid type: integer `5`, expected struct Definition"]);
    check("a: [", &["unreadable 2:1 not YAML: while parsing a node, did not find expected node content"]);
    check(
        "name: a\nname: b\n",
        &[
            "missing-field 1:1 there is no `version` here",
            "missing-field 1:1 there is no `steps` here",
            "duplicate-key 2:1 `name` stands on line 1 already",
        ],
    );
    check(
        "name: &a d\nversion: *a\nsteps: !!set [x]\n",
        &[
            "unreadable 1:7 anchors and aliases are not read",
            "unreadable 2:10 anchors and aliases are not read",
            "unreadable 3:1 tags are not read",
            "bad-value 3:15 invalid type: string \"x\", expected struct Step",
        ],
    );
    check(
        "name: d\nversion: 1\nsteps: [{ name: a, participant: p, after: }]\n",
        &["bad-value 3:36 `after` has no value"],
    );
    check(
        "name: d\nversion: 1\nsteps: [{ name: a, participant: p }]\n--- 1",
        &["unreadable 4:5 a second document begins here"],
    );
    check_steps(
        &["name: a, input: [0x1F, 007, .5, 1_000, -1.50, 1e3]"],
        &[
            "bad-value 4:40 `0x1F` is a number in YAML and not in JSON",
            "bad-value 4:46 `007` is a number in YAML and not in JSON",
            "bad-value 4:51 `.5` is a number in YAML and not in JSON",
        ],
    );
    let deep = |levels: usize| format!("name: a, input: {}1{}", "[".repeat(levels), "]".repeat(levels));
    check_steps(&[&deep(16)], &[]);
    check_steps(&[&deep(17)], &["bad-value 4:32 nested deeper than 16 levels"]);
    check_steps(&[&deep(40)], &["unreadable 4:68 nested deeper than 32 levels"]);
    let long = format!("name: {}", "x".repeat(64 * 1024));
    check(&long, &["unreadable 1:1 the text has 65542 bytes"]);
    let steps = "  - { name: a, participant: p, x: 1 }\n".repeat(60);
    let found = listed(&format!("name: d\nversion: 1\nsteps:\n{steps}"));
    assert_eq!(found.len(), 51, "{found:?}");
}

#[test]
fn a_long_line_is_shown_where_it_matters() {
    let given = format!(
        "{{\"name\":\"d\",\"version\":1,\"steps\":[{{\"name\":\"a\",\"participant\":\"p\",\"input\":\"{}\",\"kin\":1}}]}}",
        "x".repeat(500)
    );
    let then = format!(
        "error[unknown-field]: there is no field `kin` here\n --> f.yaml:1:575\n  |\n1 | {}\",\"kin\":1}}]}}\n  | {}^^^^^\n  = help: did you mean `kind`?\n",
        "x".repeat(58),
        " ".repeat(60)
    );
    assert_eq!(told(&given), then);
}

#[test]
fn json_is_yaml_here() {
    let json = "{\n\t\"name\": \"d\", \"version\": 1,\n\t\"steps\": [\n\t\t{\"name\":\"a\",\"participant\":\"p\",\"input\":{\"u\":\"\\u00e9\\/\\ud83d\\ude00\\n\", \"n\":1.10}}\n\t]\n}\n";
    let then = "{\"name\":\"d\",\"version\":1,\"steps\":[{\"name\":\"a\",\"participant\":\"p\",\"input\":{\"n\":1.10,\"u\":\"é/😀\\n\"}}]}\n";
    assert_eq!(told(json), then);
}

#[test]
fn the_samples_are_free_of_problems() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/samples");
    let mut count = 0;
    for entry in std::fs::read_dir(samples).expect("schemas/samples") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a sample");
        let checked = read(&text);
        let (definition, plan) =
            checked.result.unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
        assert_eq!(checked.warnings, [], "{}", path.display());
        let canonical = definition.to_canonical_json();
        let again = sagamore_schemas::definition::Definition::from_json(&canonical).expect("canonical JSON");
        assert_eq!(sagamore_decider::definition::check::compile(&again), Ok(plan), "{}", path.display());
        assert_eq!(again.to_canonical_json(), canonical, "{}", path.display());
        count += 1;
    }
    assert!(count >= 3, "{count} samples");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(name|version|steps|kind|after|retry|input|[-:{}\\[\\],&*!|>'\"# \n\t$0-9a.é]){0,60}") {
        told(&text);
    }

    #[test]
    fn no_broken_sample_makes_the_reader_panic(cut in 0usize..900, with in "[-:{}\\[\\], \n\"$x0]{0,4}", length in 0usize..8) {
        let text = include_str!("../../../schemas/samples/graph.yaml");
        let mut chars: Vec<char> = text.chars().collect();
        let begin = cut.min(chars.len());
        let end = (begin + length).min(chars.len());
        chars.splice(begin..end, with.chars());
        told(&chars.into_iter().collect::<String>());
    }
}

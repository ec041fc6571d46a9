//! Conditions over data: the first line is the data, the second a result, the rest the condition.

use std::time::Instant;

use sagamore_decider::definition::condition::{
    COMPARED_DEPTH_MAX, Condition, ConditionError, DEPTH_MAX, EvaluationError, NESTING_MAX, TEXT_MAX_BYTES,
    TOKENS_MAX,
};
use sagamore_decider::definition::plan::BranchIndex;
use sagamore_decider::definition::template::{PATH_SEGMENTS_MAX, ResultPath, Scope};
use sagamore_fuzz::Target;
use serde_json::value::RawValue;

/// A quarter of what a thread of the server has: a parse or an evaluation that needs more ends the test run.
const STACK_BYTES: usize = 512 * 1024;

#[test]
fn what_has_an_answer_has_it_again() {
    Target { name: "condition", cases: 60_000 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.splitn(3, '\n');
        let mut raw = || serde_json::from_str::<&RawValue>(parts.next().unwrap_or_default()).ok();
        let (data, result) = (raw(), raw());
        check(parts.next().unwrap_or_default(), data, result);
    });
}

fn resolve(name: &str, _: Option<&str>) -> Result<ResultPath, String> {
    let position = ["a", "b-c"].iter().position(|known| *known == name).ok_or("no such step")?;
    let index = BranchIndex(u16::try_from(position).unwrap());
    Ok(ResultPath { index, step: name.parse().unwrap(), branch: None })
}

fn check(text: &str, data: Option<&RawValue>, result: Option<&RawValue>) {
    let condition = match Condition::compile(text, &resolve) {
        Ok(condition) => condition,
        Err(fault) => return assert!(text.is_char_boundary(fault.at), "{fault:?}"),
    };
    let again = Condition::compile(text, &resolve).unwrap();
    assert_eq!((condition.to_string().as_str(), &condition), (text, &again));
    for path in condition.paths() {
        let alone = Condition::compile(&format!("{path} == 1"), &resolve).unwrap();
        assert_eq!(alone.paths().collect::<Vec<_>>(), [path]);
    }
    let of_step = |index: BranchIndex| result.filter(|_| index == BranchIndex(0));
    let scope = Scope { transaction: &"t".parse().unwrap(), input: data, result: &of_step };
    let answer = condition.evaluate(&scope);
    assert_eq!(again.evaluate(&scope), answer);
    if let Err(EvaluationError::Missing(path)) = answer {
        assert!(condition.paths().any(|read| read.to_string() == path), "{path}");
    }
}

fn evaluated(condition: &Condition, input: &str) -> Result<bool, EvaluationError> {
    let input: &RawValue = serde_json::from_str(input).unwrap();
    condition.evaluate(&Scope { transaction: &"t".parse().unwrap(), input: Some(input), result: &|_| None })
}

#[test]
fn a_condition_needs_little_stack() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let input = format!(
        "{{\"a\":{},\"deep\":{deep}}}",
        "[".repeat(COMPARED_DEPTH_MAX) + &"]".repeat(COMPARED_DEPTH_MAX)
    );
    let chains = [
        "1+",
        "1<",
        "-",
        "!",
        "a.",
        "a?b:",
        "1 in ",
        "a?(b?",
        "a[",
        "[",
        "(",
        "{1:",
        "f(",
        "a.all(x,",
        "has(",
        "input.a==(",
    ];
    let mut texts: Vec<String> = chains.iter().map(|piece| piece.repeat(TOKENS_MAX / 2)).collect();
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("-(", ")"),
        ("input.a[", "]"),
        ("size(", ")"),
        ("{1:", "}"),
        ("a.all(x,", ")"),
    ] {
        texts.push(format!("{}1{} == 1", open.repeat(NESTING_MAX), close.repeat(NESTING_MAX)));
    }
    texts.extend(chains.iter().map(|piece| format!("{}1", piece.repeat(TOKENS_MAX / 4))));
    texts.push(format!("{}input.a == input.a", "input.a == input.a && ".repeat(20)));
    texts.push("input.deep == input.deep".to_owned());
    let run = move || {
        for text in texts {
            if let Ok(condition) = Condition::compile(&text, &resolve) {
                let _ = evaluated(&condition, &input);
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_condition_is_so_long_and_so_deep() {
    let check = |fits: String, too_much: String, cause: ConditionError<String>| {
        if let Err(fault) = Condition::compile(&fits, &resolve) {
            panic!("{fits}: {fault:?}");
        }
        let fault = Condition::compile(&too_much, &resolve).unwrap_err();
        assert_eq!(fault.cause, cause, "{too_much}");
        assert!(too_much.is_char_boundary(fault.at));
    };
    let padded = |length: usize| format!("input.a == '{}'", "x".repeat(length - 13));
    check(padded(TEXT_MAX_BYTES), padded(TEXT_MAX_BYTES + 1), ConditionError::TooLong);
    let chain = |tokens: usize| {
        format!("true{}{}", " ".repeat(tokens % 3), "||a".replace('a', "true").repeat(tokens / 3))
    };
    check(chain(TOKENS_MAX - 1), chain(TOKENS_MAX + 2), ConditionError::TooManyTokens);
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    check(nested(NESTING_MAX), nested(NESTING_MAX + 1), ConditionError::TooManyBrackets);
    let deep = |depth: usize| format!("{}1 == 1", "1 + ".repeat(depth - 2));
    check(deep(DEPTH_MAX), deep(DEPTH_MAX + 1), ConditionError::TooDeep);
    let long = |segments: usize| format!("input{}", ".a".repeat(segments));
    check(long(PATH_SEGMENTS_MAX), long(PATH_SEGMENTS_MAX + 1), ConditionError::PathTooLong);
}

#[test]
fn a_condition_does_so_much_work() {
    let check = |given: &str, input: &str, then: Result<bool, EvaluationError>| {
        let since = Instant::now();
        assert_eq!(evaluated(&Condition::compile(given, &resolve).unwrap(), input), then, "{given}");
        println!("{:.1} ms for {given:.60}", since.elapsed().as_secs_f64() * 1000.0);
    };
    let list = |length: usize| format!("{{\"lines\":[{}0],\"x\":1}}", "0,".repeat(length - 1));
    check("input.lines.all(l, l < input.x)", &list(100_000), Ok(true));
    check("input.lines.all(l, l < input.x)", &list(200_000), Err(EvaluationError::TooMuchWork));
    check("input.lines.all(l, !(l in input.lines))", &list(3_000), Ok(false));
    check("input.lines.all(l, !(input.x in input.lines))", &list(3_000), Err(EvaluationError::TooMuchWork));
    check(
        "input.lines.exists(l, input.x in input.lines) || true",
        &list(3_000),
        Err(EvaluationError::TooMuchWork),
    );
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    check("input.a == input.a", &deep(COMPARED_DEPTH_MAX), Ok(true));
    check("input.a == input.a", &deep(COMPARED_DEPTH_MAX + 1), Err(EvaluationError::ComparedTooDeep));
    check("input.a == input.a", &deep(100_000), Err(EvaluationError::TooMuchWork));
    let long = format!("{{\"t\":\"{}\"}}", "\\u00e9".repeat(40_000));
    let sum = ["input.t"; 10].join(" + ");
    check(&format!("size({sum}) == 400000"), &long, Ok(true));
    let sums = [format!("size({sum}) == 400000"), format!("size({sum}) == 400000")].join(" && ");
    check(&sums, &long, Err(EvaluationError::TooMuchWork));
}

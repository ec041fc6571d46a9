//! What is to be done in a run: generated definitions of every protocol that there is, and orders for them.

use fastrand::Rng;

/// Participants there are: `p0`, `p1`, ….
pub const PARTICIPANTS: u8 = 4;
/// Longest pause between two attempts. Participants stay away for hours, and the thousandth attempt in a row shows
/// nothing that the tenth has not shown.
const PAUSE_MAX: &str = "5m";

/// One transaction, or several lives of one id.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// `name` or `name@version`.
    pub definition: String,
    /// The start's data.
    pub data: String,
    /// When it is first issued, in milliseconds since the beginning.
    pub at: i64,
    /// When the same start is sent again.
    pub again: Vec<i64>,
    /// When the same id is started with other data.
    pub conflict: Option<i64>,
    /// When somebody wants it undone.
    pub cancel: Option<i64>,
    /// When somebody wants it tried now.
    pub retry: Option<i64>,
    /// When the id begins another life.
    pub rebirth: Option<i64>,
    /// Sent to a partition that is not its home.
    pub astray: bool,
}

/// What a definition is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A saga over a random graph.
    Saga,
    /// Money from one account to another: debit, then credit.
    Transfer,
}

/// Definitions in the order in which they are applied, as JSON.
pub fn definitions(rng: &mut Rng) -> Vec<String> {
    let mut all = vec![definition(rng, "transfer", 1, Shape::Transfer)];
    for number in 0..rng.usize(1..=2) {
        all.push(definition(rng, &format!("saga-{number}"), 1, Shape::Saga));
    }
    if rng.u8(0..4) == 0 {
        all.push(definition(rng, "saga-0", 2, Shape::Saga));
    }
    all
}

/// `count` orders, each from a stream of its own: leaving one out changes no other.
pub fn orders(seed: u64, count: usize, definitions: &[String], trouble_ms: i64) -> Vec<Order> {
    let names: Vec<String> = definitions.iter().map(|json| name_of(json)).collect();
    let stream = |number: usize| crate::stream(seed, "order", number as u64);
    (0..count).map(|number| order(&mut stream(number), number, &names, trouble_ms)).collect()
}

fn order(rng: &mut Rng, number: usize, names: &[String], trouble_ms: i64) -> Order {
    let at = if rng.u8(0..4) == 0 { rng.i64(200..trouble_ms) } else { rng.i64(200..20_000) };
    let later = |rng: &mut Rng| {
        let most = [200, 5_000, 60_000][rng.usize(0..3)];
        at + rng.i64(0..most)
    };
    let some = |rng: &mut Rng, of: u8| (rng.u8(0..of) == 0).then(|| at + rng.i64(0..8_000));
    let whole = &names[rng.usize(0..names.len())];
    let pinned = rng.bool();
    Order {
        id: format!("order-{number}"),
        definition: if pinned { whole.clone() } else { whole.split('@').next().unwrap_or(whole).to_owned() },
        data: format!(r#"{{"n":{},"minus":-{0},"who":"customer-{}"}}"#, rng.u32(1..1000), rng.u8(0..3)),
        at,
        again: (0..rng.usize(0..3)).map(|_| later(rng)).collect(),
        conflict: some(rng, 8),
        cancel: some(rng, 6),
        retry: some(rng, 6),
        rebirth: (rng.u8(0..6) == 0).then(|| at + rng.i64(400_000..900_000)),
        astray: rng.u8(0..20) == 0,
    }
}

fn name_of(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    format!("{}@{}", value["name"].as_str().unwrap_or_default(), value["version"])
}

fn definition(rng: &mut Rng, name: &str, version: u32, shape: Shape) -> String {
    let steps = match shape {
        Shape::Saga => saga(rng),
        Shape::Transfer => transfer(rng),
    };
    let deadline = [3, 10, 60, 900][rng.usize(0..4)];
    format!(
        r#"{{"name":"{name}","version":{version},"deadline":"{deadline}s","steps":[{}]}}"#,
        steps.join(",")
    )
}

fn transfer(rng: &mut Rng) -> Vec<String> {
    let kind = ["pivot", "retriable"][rng.usize(0..2)];
    vec![
        step(rng, "debit", "compensatable", None, r#"{"delta":"${input.minus}"}"#),
        step(rng, "credit", kind, None, r#"{"delta":"${input.n}"}"#),
    ]
}

/// Compensatable steps in any order, perhaps a pivot after all of them, retriable steps after that.
fn saga(rng: &mut Rng) -> Vec<String> {
    let (forward, pivot, retriable) = (rng.usize(1..=4), rng.bool(), rng.usize(0..=2));
    let mut steps = Vec::new();
    let names =
        |from: usize, to: usize| -> Vec<String> { (from..to).map(|at| format!("\"s{at}\"")).collect() };
    for at in 0..forward {
        let after: Vec<String> = names(0, at).into_iter().filter(|_| rng.bool()).collect();
        let input = input(rng, &after);
        steps.push(step(rng, &format!("s{at}"), "compensatable", Some(&after.join(",")), &input));
    }
    if pivot {
        let after = names(0, forward).join(",");
        steps.push(step(rng, &format!("s{forward}"), "pivot", Some(&after), r#"{"delta":1}"#));
    }
    let decided = steps.len();
    for at in decided..decided + retriable {
        let after: Vec<String> = names(decided, at).into_iter().filter(|_| rng.bool()).collect();
        let after = if after.is_empty() { names(0, decided) } else { after };
        let input = input(rng, &after);
        steps.push(step(rng, &format!("s{at}"), "retriable", Some(&after.join(",")), &input));
    }
    steps
}

/// Maps a result of a step before it, now and then one that is not always there.
fn input(rng: &mut Rng, after: &[String]) -> String {
    match after.first().map(|name| name.trim_matches('"')) {
        Some(name) if rng.bool() => {
            let field = if rng.u8(0..4) == 0 { "sometimes" } else { "made" };
            format!(r#"{{"delta":3,"from":"${{steps.{name}.{field}}}"}}"#)
        }
        _ => r#"{"delta":2,"who":"${input.who}"}"#.to_owned(),
    }
}

fn step(rng: &mut Rng, name: &str, kind: &str, after: Option<&str>, input: &str) -> String {
    let after = after.map(|names| format!(r#""after":[{names}],"#)).unwrap_or_default();
    let attempts =
        if kind == "compensatable" { format!(r#""attempts":{},"#, rng.u8(1..=4)) } else { String::new() };
    format!(
        r#"{{"name":"{name}","participant":"p{}","kind":"{kind}",{after}"input":{input},"timeout":"{}ms","retry":{{{attempts}"backoff":"{}ms","max":"{PAUSE_MAX}"}}}}"#,
        rng.u8(0..PARTICIPANTS),
        rng.u32(500..5_000),
        rng.u32(50..1_000),
    )
}

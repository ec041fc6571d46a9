//! What is to be done in a run: generated definitions of every protocol that there is, and orders for them.

use fastrand::Rng;

mod children;

pub use self::children::children;

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

/// Definitions in the order in which they are applied, as JSON.
pub fn definitions(rng: &mut Rng) -> Vec<String> {
    let transfer = transfer(rng);
    let payment = payment(rng);
    let mut all = vec![definition(rng, "transfer", 1, &transfer), definition(rng, "payment", 1, &payment)];
    let versions = [("mixed-0", 1, 1), ("mixed-1", 1, 2), ("mixed-0", 2, 4)];
    for (name, version, once_in) in versions {
        if rng.u8(0..once_in) == 0 {
            let steps = mixed(rng, &[]);
            all.push(definition(rng, name, version, &steps));
        }
    }
    all
}

/// Whether a definition of that name moves money from one account to another.
pub fn moves_money(definition: &str) -> bool {
    ["transfer", "payment"].contains(&definition)
}

/// `count` orders, each from a stream of its own: leaving one out changes no other.
pub fn orders(seed: u64, count: usize, definitions: &[String], trouble_ms: i64) -> Vec<Order> {
    let names = children::names(definitions);
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

fn definition(rng: &mut Rng, name: &str, version: u32, steps: &[String]) -> String {
    let deadline = [3, 10, 60, 900][rng.usize(0..4)];
    let steps = steps.join(",");
    format!(r#"{{"name":"{name}","version":{version},"deadline":"{deadline}s","steps":[{steps}]}}"#)
}

const DEBIT: &str = r#"{"delta":"${input.minus}"}"#;
const CREDIT: &str = r#"{"delta":"${input.n}"}"#;

/// Money by a saga.
fn transfer(rng: &mut Rng) -> Vec<String> {
    let kind = [Kind::Pivot, Kind::Retriable][rng.usize(0..2)];
    vec![single(rng, "debit", Kind::Compensatable, DEBIT).json(), single(rng, "credit", kind, CREDIT).json()]
}

/// Money by a protocol: one group, or reserved steps, and in some of them a saga's step beside.
fn payment(rng: &mut Rng) -> Vec<String> {
    let check = r#"{"delta":0}"#;
    match rng.u8(0..6) {
        0..2 => vec![transaction(rng, Place::Pivot).json()],
        2 => vec![transaction(rng, Place::AtEnd).json(), single(rng, "check", Kind::Pivot, check).json()],
        3 => {
            vec![
                transaction(rng, Place::Undone).json(),
                single(rng, "check", Kind::Compensatable, check).json(),
            ]
        }
        4 => {
            let mut credit = single(rng, "hold-credit", Kind::Reserved, CREDIT);
            credit.after = Some(Vec::new());
            vec![single(rng, "hold-debit", Kind::Reserved, DEBIT).json(), credit.json()]
        }
        _ => {
            let kind = [Kind::Compensatable, Kind::Pivot, Kind::Retriable][rng.usize(0..3)];
            vec![
                single(rng, "hold-debit", Kind::Reserved, DEBIT).json(),
                single(rng, "credit", kind, CREDIT).json(),
            ]
        }
    }
}

fn transaction(rng: &mut Rng, place: Place) -> Draft {
    group(rng, "both", place, &[("debit", DEBIT.to_owned()), ("credit", CREDIT.to_owned())])
}

/// Steps of every shape in any order, perhaps a point of no return after all of them, retriable steps after that. Half
/// of the definitions are plain sagas. Some steps start one of the definitions in `named`, if there are any.
fn mixed(rng: &mut Rng, named: &[&'static str]) -> Vec<String> {
    let (forward, retriable, is_saga) = (rng.usize(1..=4), rng.usize(0..=2), rng.bool());
    let mut drafts: Vec<Draft> = Vec::new();
    for _ in 0..forward {
        let after: Vec<usize> = (0..drafts.len()).filter(|_| rng.bool()).collect();
        let shape = match rng.u8(0..8) {
            _ if is_saga => Shape::Single(Kind::Compensatable),
            0..3 => Shape::Single(Kind::Compensatable),
            3..5 => Shape::Single(Kind::Reserved),
            5 => Shape::Group(Place::AtEnd),
            _ => Shape::Group(Place::Undone),
        };
        let shape = children::or_child(rng, shape, named);
        let next = draft(rng, &drafts, shape, after);
        drafts.push(next);
    }
    let every: Vec<usize> = (0..drafts.len()).collect();
    let shape = match rng.u8(0..4) {
        0..2 => None,
        2 if !is_saga => Some(Shape::Group(Place::Pivot)),
        _ => Some(Shape::Single(Kind::Pivot)),
    };
    if let Some(shape) = shape {
        let shape = children::or_child(rng, shape, named);
        let next = draft(rng, &drafts, shape, every);
        drafts.push(next);
    }
    let decided = drafts.len();
    for _ in 0..retriable {
        let after: Vec<usize> = (decided..drafts.len()).filter(|_| rng.bool()).collect();
        let after = if after.is_empty() { (0..decided).collect() } else { after };
        let shape = children::or_child(rng, Shape::Single(Kind::Retriable), named);
        let next = draft(rng, &drafts, shape, after);
        drafts.push(next);
    }
    drafts.iter().map(Draft::json).collect()
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Single(Kind),
    Group(Place),
    /// Starts the definition of that name.
    Child(Kind, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Compensatable,
    Pivot,
    Retriable,
    Reserved,
}

/// Where a group commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In its place, which is the pivot's.
    Pivot,
    /// In its place, and it can be undone.
    Undone,
    /// With the transaction.
    AtEnd,
}

/// A step on its way into a definition.
#[derive(Debug)]
struct Draft {
    name: String,
    after: Option<Vec<String>>,
    when: Option<String>,
    /// Participants or branches, kind or protocol.
    shape: String,
    /// Timeout and retries.
    limits: String,
    /// How later steps name a result of it.
    result: String,
}

impl Draft {
    fn json(&self) -> String {
        let Self { name, shape, limits, .. } = self;
        let after = self.after.as_ref().map(|names| format!(r#""after":[{}],"#, names.join(",")));
        let when = self.when.as_ref().map(|text| format!(r#""when":{},"#, serde_json::Value::from(&**text)));
        let (after, when) = (after.unwrap_or_default(), when.unwrap_or_default());
        format!(r#"{{"name":"{name}",{after}{when}{shape},{limits}}}"#)
    }
}

/// A step of a mixed definition, after the drafts of those positions.
fn draft(rng: &mut Rng, before: &[Draft], shape: Shape, after: Vec<usize>) -> Draft {
    let at = before.len();
    let after: Vec<&Draft> = after.into_iter().map(|position| &before[position]).collect();
    let when = when(rng, &after);
    let names = after.iter().map(|draft| format!("\"{}\"", draft.name)).collect();
    let mut draft = match shape {
        // Rows are counted by the names of steps: those under a protocol have other names, in every definition.
        Shape::Single(Kind::Reserved) => {
            let input = input(rng, &after, when.as_deref());
            single(rng, &format!("g{at}"), Kind::Reserved, &input)
        }
        Shape::Single(kind) => {
            let input = input(rng, &after, when.as_deref());
            single(rng, &format!("s{at}"), kind, &input)
        }
        Shape::Group(place) => {
            let names = &["one", "two", "three"][..rng.usize(1..=3)];
            let branches: Vec<(&str, String)> =
                names.iter().map(|name| (*name, input(rng, &after, when.as_deref()))).collect();
            group(rng, &format!("g{at}"), place, &branches)
        }
        Shape::Child(kind, named) => children::child(rng, &format!("c{at}"), kind, named, &after, when.as_deref()),
    };
    draft.after = Some(names);
    draft.when = when;
    draft
}

/// Mostly none; true, false, about a result, and now and then without an answer.
fn when(rng: &mut Rng, after: &[&Draft]) -> Option<String> {
    let result = after.first().map(|draft| draft.result.as_str());
    Some(match (rng.u8(0..24), result) {
        (0..2, _) => "input.n > 0".to_owned(),
        (2..4, _) => "input.n > 300".to_owned(),
        (4, _) => "input.n < 0 && input.nothing".to_owned(),
        (5, _) => "has(input.nothing)".to_owned(),
        (6, None) => "input.nothing == 1".to_owned(),
        (6..8, Some(result)) => format!("{result}.sometimes == \"there\""),
        (8, Some(result)) => format!("has({result}.sometimes)"),
        (9, Some(result)) => format!("{result}.made > 2"),
        _ => return None,
    })
}

/// Maps a result of a step before it, now and then one that is not always there.
fn input(rng: &mut Rng, after: &[&Draft], when: Option<&str>) -> String {
    match after.first() {
        Some(Draft { result, when: other, .. })
            if (other.is_none() || when.is_some_and(|text| text.contains(result.as_str()))) && rng.bool() =>
        {
            let field = if rng.u8(0..4) == 0 { "sometimes" } else { "made" };
            format!(r#"{{"delta":3,"from":"${{{result}.{field}}}"}}"#)
        }
        _ => r#"{"delta":2,"who":"${input.who}"}"#.to_owned(),
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Compensatable => "compensatable",
            Self::Pivot => "pivot",
            Self::Retriable => "retriable",
            Self::Reserved => "reserved",
        }
    }
}

fn single(rng: &mut Rng, name: &str, kind: Kind, input: &str) -> Draft {
    let word = kind.word();
    let is_bounded = matches!(kind, Kind::Compensatable | Kind::Reserved);
    Draft {
        name: name.to_owned(),
        after: None,
        when: None,
        shape: format!(r#""participant":"{}","kind":"{word}","input":{input}"#, participant(rng)),
        limits: limits(rng, is_bounded),
        result: format!("steps.{name}"),
    }
}

fn group(rng: &mut Rng, name: &str, place: Place, branches: &[(&str, String)]) -> Draft {
    let protocol = ["two-phase", "three-phase"][rng.usize(0..2)];
    let commit = if place == Place::AtEnd { r#","commit":"at-end""# } else { "" };
    let undone = if place == Place::Undone { r#","compensate":true"# } else { "" };
    let mut branch = |(name, input): &(&str, String)| {
        format!(r#"{{"name":"{name}","participant":"{}","input":{input}{undone}}}"#, participant(rng))
    };
    let all: Vec<String> = branches.iter().map(&mut branch).collect();
    Draft {
        name: name.to_owned(),
        after: None,
        when: None,
        shape: format!(r#""protocol":"{protocol}"{commit},"branches":[{}]"#, all.join(",")),
        limits: limits(rng, true),
        result: format!("steps.{name}.{}", branches[0].0),
    }
}

fn participant(rng: &mut Rng) -> String {
    format!("p{}", rng.u8(0..PARTICIPANTS))
}

fn limits(rng: &mut Rng, is_bounded: bool) -> String {
    let attempts = if is_bounded { format!(r#""attempts":{},"#, rng.u8(1..=4)) } else { String::new() };
    let (timeout, backoff) = (rng.u32(500..5_000), rng.u32(50..1_000));
    format!(r#""timeout":"{timeout}ms","retry":{{{attempts}"backoff":"{backoff}ms","max":"{PAUSE_MAX}"}}"#)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sagamore_decider::definition::check;
    use sagamore_schemas::definition::{Definition, DefinitionId};

    use super::*;

    #[test]
    fn what_is_generated_passes_the_check() {
        for seed in 0..2_000 {
            let mut rng = Rng::with_seed(seed);
            let mut known = BTreeMap::new();
            for json in definitions(&mut rng).into_iter().chain(children(&mut rng)) {
                let definition =
                    Definition::from_json(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
                let plan =
                    check::compile(&definition).unwrap_or_else(|problems| panic!("{json}: {problems:?}"));
                let problems = check::children(&plan, |id| known.get(id));
                assert!(problems.is_empty(), "{json}: {problems:?}");
                let id = DefinitionId { name: definition.name, version: definition.version };
                known.insert(id, plan);
            }
        }
    }
}

//! What is answered from this server's own view of the journal: lists, counts, causes, and what has been forgotten.
//!
//! | parameter | of |
//! |---|---|
//! | `status` `definition` `step` `participant` `error` `id_prefix` `older_than` `newer_than` | all of them |
//! | `limit` `after` | a list |
//! | `by` | counts |
//!
//! Each answer says where the view stood: `as_of`, and how much it had not read.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as UrlQuery, State};
use axum::response::{IntoResponse, Json, Response};
use sagamore_schemas::ids::{Span, TransactionId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Api;
use super::problem::Problem;
use super::transactions::answer;
use crate::clock;
use crate::view::{By, Cursor, Filter, Position, Shown, ViewError, nearest, query};

/// Transactions on one page.
const PAGE_MAX: usize = 1_000;
/// Unless told otherwise.
const PAGE: usize = 100;
/// What a filter is made of.
const OF_FILTER: [&str; 8] =
    ["status", "definition", "step", "participant", "error", "id_prefix", "older_than", "newer_than"];

/// Parameters of a request, in the order given.
pub(super) type Pairs = Result<UrlQuery<Vec<(String, String)>>, QueryRejection>;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) filter: Filter,
    /// Whether statuses were named: otherwise they are those that are open.
    pub(super) has_statuses: bool,
    size: Option<usize>,
    after: Option<Cursor>,
    by: Vec<By>,
}

/// What the view says, and how far it has read.
#[derive(Serialize)]
struct Told<T> {
    #[serde(flatten)]
    answer: T,
    as_of: Vec<Position>,
    /// Journal records that are not in it yet; null while that is not known.
    lag_records: Option<i64>,
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        Self::unavailable(format!("the view does not answer: {error}"))
    }
}

/// `GET /v1/transactions`.
pub(super) async fn list(State(api): State<Api>, pairs: Pairs) -> Response {
    answer(async {
        let asked = asked(pairs, &["limit", "after"])?;
        is_known(&api, &asked.filter).await?;
        let size = asked.size.unwrap_or(PAGE).min(PAGE_MAX);
        let question = move |view: &_| query::list(view, &asked.filter, asked.after, size);
        Ok(tell(&api, api.0.view.ask(question).await?))
    })
    .await
}

/// `GET /v1/counts`.
pub(super) async fn counts(State(api): State<Api>, pairs: Pairs) -> Response {
    answer(async {
        let asked = asked(pairs, &["by"])?;
        is_known(&api, &asked.filter).await?;
        let question = move |view: &_| {
            let counts = query::count(view, &asked.filter, &asked.by)?;
            let total = query::count(view, &asked.filter, &[])?.first().map_or(0, |all| all.transactions);
            Ok(json!({"counts": counts, "total": total}))
        };
        Ok(tell(&api, api.0.view.ask(question).await?))
    })
    .await
}

/// `GET /v1/stuck`.
pub(super) async fn stuck(State(api): State<Api>, pairs: Pairs) -> Response {
    answer(async {
        let asked = asked(pairs, &[])?;
        is_known(&api, &asked.filter).await?;
        let question = move |view: &_| Ok(json!({"causes": query::stuck(view, &asked.filter)?}));
        Ok(tell(&api, api.0.view.ask(question).await?))
    })
    .await
}

fn tell<T: Serialize>(api: &Api, (answer, as_of): (T, Vec<Position>)) -> Response {
    Json(Told { answer, as_of, lag_records: api.0.view.lag() }).into_response()
}

/// A name that nobody has applied is a typing error, and no empty list.
async fn is_known(api: &Api, filter: &Filter) -> Result<(), Problem> {
    let Some((name, _)) = filter.definition.clone() else { return Ok(()) };
    let asked = name.clone();
    let (unknown, _) = api.0.view.ask(move |view| query::unknown_definition(view, &asked)).await?;
    match unknown {
        None => Ok(()),
        Some(near) => {
            let near = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
            Err(Problem::bad_request(format!("no definition is called {name:?}{near}")))
        }
    }
}

/// Reads the parameters of a request; `more` are those it takes besides a filter.
pub(super) fn asked(pairs: Pairs, more: &[&str]) -> Result<Asked, Problem> {
    let UrlQuery(pairs) = pairs?;
    let mut asked = Asked::default();
    let (mut older, mut newer) = (None, None);
    for (name, value) in &pairs {
        if !OF_FILTER.contains(&name.as_str()) && !more.contains(&name.as_str()) {
            return Err(unknown(name, more));
        }
        let wrong = |why: String| Problem::bad_request(format!("{name}: {why}"));
        let filter = &mut asked.filter;
        match name.as_str() {
            "status" => filter.statuses = Filter::statuses_of(value).map_err(wrong)?,
            "definition" => filter.definition = Some(Filter::definition_of(value).map_err(wrong)?),
            "step" => filter.step = Some(value.clone()),
            "participant" => filter.participant = Some(value.clone()),
            "error" => filter.error = Some(value.clone()),
            "id_prefix" => filter.id_prefix = Some(value.clone()),
            "older_than" => older = Some(span(value).map_err(wrong)?),
            "newer_than" => newer = Some(span(value).map_err(wrong)?),
            "limit" => {
                asked.size = Some(value.parse().map_err(|_| wrong("a number of transactions".to_owned()))?);
            }
            "after" => asked.after = Some(value.parse().map_err(wrong)?),
            "by" => {
                asked.by = value.split(',').map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
            }
            _ => return Err(unknown(name, more)),
        }
    }
    asked.has_statuses = pairs.iter().any(|(name, _)| name == "status");
    asked.filter.aged(clock::now(), older, newer);
    Ok(asked)
}

fn unknown(name: &str, more: &[&str]) -> Problem {
    let known: Vec<&str> = OF_FILTER.iter().chain(more).copied().collect();
    let near = nearest(name, known.iter().copied());
    let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    Problem::bad_request(format!("there is no parameter {name:?}: {near}one of {}", known.join(", ")))
}

fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error: sagamore_schemas::ids::IdError| error.to_string())
}

/// What the view knows of one transaction, and where it stands for its home.
pub(super) async fn seen(
    api: &Api,
    id: &TransactionId,
    partition: i32,
) -> Result<Option<(Shown, Option<Position>)>, Problem> {
    let id = id.clone();
    let (shown, positions) = api.0.view.ask(move |view| query::one(view, &id)).await?;
    let position = positions.into_iter().find(|position| position.partition == partition);
    Ok(shown.map(|shown| (shown, position)))
}

/// What the view alone says.
pub(super) fn alone(shown: &Shown, as_of: Option<&Position>) -> Value {
    let mut body = json!(shown);
    body["as_of"] = json!(as_of);
    body
}

/// What the owner says, with the history that the view has of the same life.
pub(super) fn with_history(mut told: Value, shown: &Shown, as_of: Option<&Position>) -> Value {
    if told["birth"] != shown.birth.as_str() {
        return told;
    }
    let Value::Object(mut history) = json!(shown) else { return told };
    let Some(body) = told.as_object_mut() else { return told };
    let seen_steps = history.remove("steps").and_then(|steps| match steps {
        Value::Array(steps) => Some(steps),
        _ => None,
    });
    // The owner knows best; what it has forgotten is added.
    for (name, value) in history {
        body.entry(name).or_insert(value);
    }
    body.insert("as_of".to_owned(), json!(as_of));
    let seen_steps = seen_steps.unwrap_or_default();
    match body.get_mut("steps") {
        Some(Value::Array(steps)) => steps.iter_mut().for_each(|step| add_attempts(step, &seen_steps)),
        Some(_) => {}
        None => drop(body.insert("steps".to_owned(), Value::Array(seen_steps))),
    }
    told
}

fn add_attempts(step: &mut Value, seen: &[Value]) {
    let same = |seen: &&Value| seen["step"] == step["step"] && seen["branch"] == step["branch"];
    let Some(Value::Object(seen)) = seen.iter().find(same) else { return };
    let is_there = ["phase", "operation", "attempt"].iter().all(|name| step.get(name) == seen.get(*name));
    let mut add: Map<String, Value> = Map::new();
    for name in ["attempts", "omitted", "since"] {
        if let Some(value) = seen.get(name)
            && (name != "since" || is_there)
        {
            add.insert(name.to_owned(), value.clone());
        }
    }
    if let Value::Object(step) = step {
        step.extend(add);
    }
}

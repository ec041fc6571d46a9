//! `POST /v1/transactions`: acknowledged once the home shard has applied the start, answered with the outcome under
//! `wait`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query as UrlQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use sagamore_decider::output::Notice;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Span, Time, TransactionId};
use sagamore_schemas::wire::{Occasion, Outcome, OutcomeKind, Payload, PayloadRef, Start, read_outcome};

use super::Api;
use super::owner::FORWARDED;
use super::problem::Problem;
use crate::clock::now;
use crate::waiters::{Told, Waiter};

/// How long a start may take to be applied before the caller is told that it is not known.
const APPLY_MAX: Duration = Duration::from_secs(10);
/// Longest wait of one request: proxies cut longer ones, and the caller can ask again.
const WAIT_MAX: Duration = Duration::from_mins(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    id: String,
    definition: String,
    #[serde(default)]
    input: Option<Box<RawValue>>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<String>,
}

pub(super) async fn start(
    State(api): State<Api>,
    query: Result<UrlQuery<Wait>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = async {
        let UrlQuery(query) = query?;
        begin(&api, &query, &headers, &body?).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

async fn begin(api: &Api, query: &Wait, headers: &HeaderMap, body: &Bytes) -> Result<Response, Problem> {
    let begun = Instant::now();
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the request: {error}")))?;
    let bad = |error: sagamore_schemas::ids::IdError| Problem::bad_request(error.to_string());
    let id: TransactionId = request.id.parse().map_err(bad)?;
    let definition = request.definition.parse().map_err(bad)?;
    let time: Time = match &request.time {
        Some(time) => time.parse().map_err(bad)?,
        None => now(),
    };
    let wait = match &query.wait {
        Some(text) => Some(Duration::from_millis(text.parse::<Span>().map_err(bad)?.as_ms()).min(WAIT_MAX)),
        None => None,
    };
    let partition = home(&id, api.0.installation.partitions).0;
    if api.0.directory.lane_of(partition).is_none() {
        return forward(api, partition, &request, time, query, headers, wait).await;
    }
    let mut waiter = api.0.waiters.register(id.as_str(), partition);
    let input = request.input.map_or(Payload::Absent, Payload::Json);
    let start = Start {
        subject: id.clone(),
        time,
        definition,
        traceparent: request.traceparent.map(Into::into),
        data: input.as_ref(),
    };
    let unknown = |detail: String| {
        Problem::unavailable(format!("{detail}; retry with the same id and time"))
            .with("id", id.as_str())
            .with("time", time.to_string())
    };
    let offset =
        api.append(partition, id.as_str(), &start.to_json("/sagamore/api")).await.map_err(unknown)?;
    let mut told_before = None;
    let applied =
        until_applied(&mut waiter, offset, begun + APPLY_MAX, &mut told_before).await.map_err(unknown)?;
    match applied {
        Notice::Refused { reason } => return Err(Problem::refused(&reason).with("id", id.as_str())),
        Notice::None | Notice::Accepted | Notice::VerbTaken | Notice::VerbRefused { .. } => {}
    }
    if let Some(wait) = wait {
        let outcome = match told_before {
            Some(outcome) => Some(outcome),
            None => until_outcome(&mut waiter, begun + wait).await,
        };
        if let Some(outcome) = outcome {
            return Ok((StatusCode::OK, Json(outcome)).into_response());
        }
    }
    let body = json!({"id": id.as_str(), "status": "accepted", "time": time.to_string()});
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

async fn forward(
    api: &Api,
    partition: i32,
    request: &Request,
    time: Time,
    query: &Wait,
    headers: &HeaderMap,
    wait: Option<Duration>,
) -> Result<Response, Problem> {
    let nobody = || {
        Problem::unavailable(format!("shard {partition} is not running yet; retry with the same id and time"))
            .with("id", request.id.as_str())
            .with("time", time.to_string())
    };
    if headers.contains_key(FORWARDED) {
        return Err(nobody());
    }
    let owner = api.0.owners.of(partition).await.map_err(|error| nobody().with("cause", error))?;
    let owner = owner.ok_or_else(nobody)?;
    let mut body = json!({"id": request.id, "definition": request.definition, "time": time.to_string()});
    if let Some(traceparent) = &request.traceparent {
        body["traceparent"] = json!(traceparent);
    }
    let mut text = body.to_string();
    if let Some(input) = &request.input {
        text.truncate(text.len() - 1);
        text.push_str(",\"input\":");
        text.push_str(input.get());
        text.push('}');
    }
    let path = match &query.wait {
        Some(wait) => format!("/v1/transactions?wait={wait}"),
        None => "/v1/transactions".to_owned(),
    };
    let patience = APPLY_MAX + wait.unwrap_or_default();
    Ok(api.0.owners.forward(&owner, Method::POST, &path, text.into(), patience).await)
}

async fn until_applied(
    waiter: &mut Waiter,
    mine: i64,
    deadline: Instant,
    outcome: &mut Option<Value>,
) -> Result<Notice, String> {
    loop {
        match timeout_at(deadline, waiter.told.recv()).await {
            Ok(Some(Told::Applied { offset, notice })) if offset == mine => return Ok(notice),
            // Another start of the same id, or what its transaction has told already.
            Ok(Some(Told::Applied { .. })) => {}
            Ok(Some(Told::Outcome(record))) => *outcome = outcome_json(&record).or(outcome.take()),
            Ok(Some(Told::Lost) | None) => return Err("the shard has left this server".to_owned()),
            Err(_) => return Err("the start has not been applied in time".to_owned()),
        }
    }
}

async fn until_outcome(waiter: &mut Waiter, deadline: Instant) -> Option<Value> {
    loop {
        match timeout_at(deadline, waiter.told.recv()).await {
            Ok(Some(Told::Outcome(record))) => {
                if let Some(outcome) = outcome_json(&record) {
                    return Some(outcome);
                }
            }
            Ok(Some(Told::Applied { .. })) => {}
            Ok(Some(Told::Lost) | None) | Err(_) => return None,
        }
    }
}

/// A transaction's outcome as the API tells it; the refusal of a start is told otherwise.
fn outcome_json(record: &[u8]) -> Option<Value> {
    let Outcome { subject, outcome, occasion, definition, reason, data, .. } =
        read_outcome(Some(record)).ok()?;
    let (Occasion::Transaction { birth, revision }, false) = (occasion, outcome == OutcomeKind::Refused)
    else {
        return None;
    };
    let mut body = json!({
        "id": subject.as_str(), "outcome": outcome, "birth": birth.to_string(), "revision": revision,
    });
    if let Some(definition) = definition {
        body["definition"] = json!(definition);
    }
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    if let PayloadRef::Json(raw) = data {
        body["data"] = serde_json::from_str(raw.get()).ok()?;
    }
    Some(body)
}

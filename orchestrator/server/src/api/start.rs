//! `POST /v1/transactions`: acknowledged once the home shard has applied the start, answered with the outcome under
//! `wait`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query as UrlQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
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
        let outcome = match told_before.take() {
            Some(outcome) => Some(outcome),
            None => until_outcome(&mut waiter, begun + wait).await,
        };
        if let Some(outcome) = outcome {
            return Ok((StatusCode::OK, Json(api.0.kept.in_full(outcome))).into_response());
        }
    }
    if told_before.is_none() {
        api.0.kept.listen(waiter);
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
    outcome: &mut Option<Ended>,
) -> Result<Notice, String> {
    loop {
        match timeout_at(deadline, waiter.told.recv()).await {
            Ok(Some(Told::Applied { offset, notice })) if offset == mine => return Ok(notice),
            // Another start of the same id, or what its transaction has told already.
            Ok(Some(Told::Applied { .. })) => {}
            Ok(Some(Told::Outcome(record))) => *outcome = ended(&record).or(outcome.take()),
            Ok(Some(Told::Lost) | None) => return Err("the shard has left this server".to_owned()),
            Err(_) => return Err("the start has not been applied in time".to_owned()),
        }
    }
}

pub(super) async fn until_outcome(waiter: &mut Waiter, deadline: Instant) -> Option<Ended> {
    loop {
        match timeout_at(deadline, waiter.told.recv()).await {
            Ok(Some(Told::Outcome(record))) => {
                if let Some(outcome) = ended(&record) {
                    return Some(outcome);
                }
            }
            Ok(Some(Told::Applied { .. })) => {}
            Ok(Some(Told::Lost) | None) | Err(_) => return None,
        }
    }
}

/// A transaction's outcome as the API tells it. `data` stays the text it was: a number keeps its digits, and no depth
/// or size of one is too much.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ended {
    pub id: String,
    pub outcome: OutcomeKind,
    pub birth: String,
    pub revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// The refusal of a start is told otherwise.
fn ended(record: &[u8]) -> Option<Ended> {
    let Outcome { subject, outcome, occasion, definition, reason, data, .. } =
        read_outcome(Some(record)).ok()?;
    let (Occasion::Transaction { birth, revision }, false) = (occasion, outcome == OutcomeKind::Refused)
    else {
        return None;
    };
    let data = match data {
        PayloadRef::Json(raw) => Some(raw.to_owned()),
        PayloadRef::Base64(_) | PayloadRef::Absent => None,
    };
    Some(Ended {
        id: subject.to_string(),
        outcome,
        birth: birth.to_string(),
        revision,
        definition: definition.map(Into::into),
        reason: reason.map(Into::into),
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_digit_for_digit_and_at_any_depth() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for data in [r#"{"steps":{"a":12345678901234567890.10}}"#, r#"{"steps":{"a":1e400}}"#, &deep] {
            let record = format!(
                r#"{{"specversion":"1.0","type":"sagamore.outcome.v1","subject":"t","birth":"0-1","revision":2,"instance":"00000000-0000-0000-0000-000000000007","outcome":"committed","data":{data}}}"#
            );
            let told = ended(record.as_bytes()).expect("an outcome");
            let body = serde_json::to_string(&told).expect("JSON");
            assert_eq!(
                body,
                format!(r#"{{"id":"t","outcome":"committed","birth":"0-1","revision":2,"data":{data}}}"#)
            );
        }
    }
}

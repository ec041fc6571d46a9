//! Looking at transactions, and verbs about them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use sagamore_decider::output::Notice;
use sagamore_decider::view::TransactionView;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::TransactionId;
use sagamore_schemas::wire::{Authority, PayloadRef, Resolution, Resolved, Verb, Wish};

use super::Api;
use super::owner::FORWARDED;
use super::problem::Problem;
use super::view::{alone, seen, with_history};
use crate::lane::Query;
use crate::view::{Shown, Status};
use crate::waiters::Told;

/// How long a lane or another server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerbRequest {
    reason: String,
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    revision: Option<u64>,
    /// What is resolved, and as what.
    #[serde(default)]
    step: Option<String>,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default)]
    outcome: Option<Resolved>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetQuery {
    #[serde(default)]
    history: bool,
}

/// With `history=true`, attempts and decisions are added from the view. What has ended and its owner has forgotten, or
/// cannot say because its shard does not run, is told from the view alone, with the place where it stood.
pub(super) async fn get(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    query: Result<UrlQuery<GetQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    answer(async {
        let Path(id) = path?;
        let UrlQuery(GetQuery { history }) = query?;
        let id = parsed(&id)?;
        let partition = home(&id, api.0.installation.partitions).0;
        let owners = told_by_owner(&api, partition, &headers, &id).await;
        if headers.contains_key(FORWARDED) {
            return owners.map(|told| Json(told).into_response());
        }
        let told = match owners {
            Ok(told) if !history => told,
            Ok(told) => match seen(&api, &id, partition).await? {
                Some((shown, as_of)) => with_history(told, &shown, as_of.as_ref()),
                None => told,
            },
            Err(problem) => match seen(&api, &id, partition).await {
                // An end stays. Of what is open the view may be late: for people who look, never for a program that waits.
                Ok(Some((shown, as_of))) if has_ended(&shown) || history && !problem.is_not_found() => {
                    alone(&shown, as_of.as_ref())
                }
                Ok(_) | Err(_) => return Err(problem),
            },
        };
        Ok(Json(told).into_response())
    })
    .await
}

fn has_ended(shown: &Shown) -> bool {
    shown.status.parse().is_ok_and(|status: Status| !status.is_open())
}

/// What the owner of its home says, here or elsewhere.
async fn told_by_owner(
    api: &Api,
    partition: i32,
    headers: &HeaderMap,
    id: &TransactionId,
) -> Result<Value, Problem> {
    let path = format!("/v1/transactions/{id}");
    if let Some(response) = elsewhere(api, partition, headers, Method::GET, &path, Bytes::new()).await? {
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        return match status {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => Err(not_known(id)),
            _ => Err(Problem::unavailable(body["detail"].as_str().unwrap_or("the owner does not answer"))),
        };
    }
    let view = view(api, partition, id.clone()).await?;
    view.map(|view| json!(view)).ok_or_else(|| not_known(id))
}

fn not_known(id: &TransactionId) -> Problem {
    Problem::not_found(format!("{id} is not known: it was never accepted, or has been forgotten"))
}

/// What every lane of this server says to a query.
pub(super) async fn told_by_lanes<T>(
    api: &Api,
    query: impl Fn(oneshot::Sender<T>) -> Query,
) -> Result<Vec<T>, Problem> {
    let mut all = Vec::with_capacity(api.0.lanes.len());
    for lane in &api.0.lanes {
        let (answer, told) = oneshot::channel();
        lane.send(query(answer)).map_err(|_| Problem::unavailable("a lane has ended"))?;
        let told = timeout(ANSWER_MAX, told).await.ok().and_then(Result::ok);
        all.push(told.ok_or_else(|| Problem::unavailable("a lane does not answer"))?);
    }
    Ok(all)
}

/// What every other server that owns shards says to a `GET`.
pub(super) async fn told_by_others(api: &Api, path: &str) -> Result<Vec<(String, Value)>, Problem> {
    let here = api.0.directory.shards();
    let elsewhere = (0..api.0.installation.partitions).any(|partition| !here.contains_key(&partition));
    if !elsewhere {
        return Ok(Vec::new());
    }
    let owners = api.0.owners.all().await.map_err(Problem::unavailable)?;
    let mut others: Vec<String> = owners
        .into_iter()
        .filter(|(partition, _)| !here.contains_key(partition))
        .map(|(_, owner)| owner)
        .collect();
    others.sort();
    others.dedup();
    let mut all = Vec::new();
    for owner in others {
        let response = api.0.owners.forward(&owner, Method::GET, path, Bytes::new(), ANSWER_MAX).await;
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
        let body = serde_json::from_slice(&body)
            .map_err(|_| Problem::unavailable(format!("the owner at {owner} does not answer")))?;
        all.push((owner, body));
    }
    Ok(all)
}

pub(super) async fn verb(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(async {
        let Path((id, verb)) = path?;
        let body = body?;
        let id = parsed(&id)?;
        let request: VerbRequest = serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request(format!("the request: {error}")))?;
        let wish = wish(&verb, &request)?;
        let partition = home(&id, api.0.installation.partitions).0;
        let path = format!("/v1/transactions/{id}/{verb}");
        if let Some(response) = elsewhere(&api, partition, &headers, Method::POST, &path, body).await? {
            return Ok(response);
        }
        let revision = match request.revision {
            Some(revision) => Some(revision),
            None => view(&api, partition, id.clone()).await?.map(|view| view.revision),
        };
        let authority = Authority {
            id: Uuid::new_v4().to_string().into(),
            actor: request.actor.as_deref().unwrap_or("api").into(),
            reason: request.reason.as_str().into(),
            revision,
        };
        take(&api, partition, &Verb { subject: id, wish, authority }).await
    })
    .await
}

/// What is wanted, by the last word of the path.
fn wish<'r>(verb: &str, request: &'r VerbRequest) -> Result<Wish<'r>, Problem> {
    let VerbRequest { step, branch, outcome, data, .. } = request;
    let says_more = step.is_some() || branch.is_some() || outcome.is_some() || data.is_some();
    match (verb, step, outcome) {
        ("cancel" | "retry" | "pause" | "resume", ..) if says_more => {
            Err(Problem::bad_request("step, branch, outcome and data belong to resolve".to_owned()))
        }
        ("cancel", ..) => Ok(Wish::Cancel),
        ("retry", ..) => Ok(Wish::Retry),
        ("pause", ..) => Ok(Wish::Pause),
        ("resume", ..) => Ok(Wish::Resume),
        ("resolve", Some(step), Some(outcome)) => Ok(Wish::Resolve(Resolution {
            step: step.into(),
            branch: branch.as_deref().map(Into::into),
            outcome: *outcome,
            data: data.as_deref().map_or(PayloadRef::Absent, PayloadRef::Json),
        })),
        ("resolve", ..) => {
            Err(Problem::bad_request("resolve needs a step, and outcome ok or refused".to_owned()))
        }
        (other, ..) => Err(Problem::not_found(format!(
            "there is no verb {other:?}: cancel, retry, pause, resume or resolve"
        ))),
    }
}

async fn take(api: &Api, partition: i32, verb: &Verb<'_>) -> Result<Response, Problem> {
    let id = &verb.subject;
    let mut waiter = api.0.waiters.register(id.as_str(), partition);
    let deadline = Instant::now() + ANSWER_MAX;
    let mine = api.append(partition, id.as_str(), &verb.to_json()).await.map_err(Problem::unavailable)?;
    loop {
        match timeout_at(deadline, waiter.told.recv()).await {
            Ok(Some(Told::Applied { offset, notice })) if offset == mine => {
                return match notice {
                    Notice::VerbRefused { reason } if reason == "no such transaction" => {
                        Err(Problem::not_found(reason))
                    }
                    Notice::VerbRefused { reason } => {
                        Err(Problem::new(StatusCode::CONFLICT, "wrong-state", reason))
                    }
                    Notice::None | Notice::Accepted | Notice::VerbTaken | Notice::Refused { .. } => {
                        Ok(Json(json!({"id": id.as_str(), "taken": true})).into_response())
                    }
                };
            }
            Ok(Some(Told::Applied { .. } | Told::Outcome(_))) => {}
            Ok(Some(Told::Lost) | None) | Err(_) => {
                return Err(Problem::unavailable(
                    "it is in the log, but what became of it is not known here",
                ));
            }
        }
    }
}

pub(super) async fn answer(work: impl Future<Output = Result<Response, Problem>>) -> Response {
    work.await.unwrap_or_else(IntoResponse::into_response)
}

pub(super) fn parsed(id: &str) -> Result<TransactionId, Problem> {
    id.parse().map_err(|error: sagamore_schemas::ids::IdError| Problem::bad_request(error.to_string()))
}

/// The owner's answer, when the shard is not here.
async fn elsewhere(
    api: &Api,
    partition: i32,
    headers: &HeaderMap,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Option<Response>, Problem> {
    if api.0.directory.lane_of(partition).is_some() {
        return Ok(None);
    }
    let nobody = || Problem::unavailable(format!("shard {partition} is not running yet"));
    if headers.contains_key(FORWARDED) {
        return Err(nobody());
    }
    let owner = api.0.owners.of(partition).await.map_err(Problem::unavailable)?.ok_or_else(nobody)?;
    Ok(Some(api.0.owners.forward(&owner, method, path, body, ANSWER_MAX * 2).await))
}

async fn view(api: &Api, partition: i32, id: TransactionId) -> Result<Option<TransactionView>, Problem> {
    let gone = || Problem::unavailable(format!("shard {partition} has just left this server"));
    let lane = api.0.directory.lane_of(partition).and_then(|lane| api.0.lanes.get(lane)).ok_or_else(gone)?;
    let (answer, told) = oneshot::channel();
    lane.send(Query::View { partition, id, answer }).map_err(|_| gone())?;
    match timeout(ANSWER_MAX, told).await {
        Ok(Ok(view)) => Ok(view),
        Ok(Err(_)) | Err(_) => Err(gone()),
    }
}

//! Definitions: which are in use, and new ones.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query as UrlQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use sagamore_decider::definition::source::{self, Severity};
use sagamore_kafka::topics::TopicsError;
use sagamore_schemas::ids::{IdError, Span};

use super::Api;
use super::owner::FORWARDED;
use super::problem::Problem;
use super::transactions::{answer, told_by_lanes, told_by_others};
use crate::findings::{Finding, finding, findings};
use crate::lane::Query;
use crate::site::SiteError;
use crate::site::apply::{Applied, ApplyError, CommandTopics, apply};

/// How long the shards may take to say that they have a definition, unless told otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(15);
/// Longest wait of one request: proxies cut longer ones, and the caller can ask again.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// Definitions that a server applies at a time: each takes a thread and three Kafka clients while it lasts.
pub(super) const APPLIES_MAX: usize = 2;

/// Open transactions of all servers, by definition and version.
pub(super) async fn open(State(api): State<Api>, headers: HeaderMap) -> Response {
    answer(async {
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        let counts = told_by_lanes(&api, |answer| Query::OpenByDefinition { answer }).await?;
        for (definition, count) in counts.into_iter().flatten() {
            *open.entry(definition).or_default() += count as u64;
        }
        if !headers.contains_key(FORWARDED) {
            for (owner, body) in told_by_others(&api, "/v1/definitions").await? {
                let Some(counts) = body["open"].as_object() else {
                    return Err(Problem::unavailable(format!("the owner at {owner} does not answer")));
                };
                for (definition, count) in counts {
                    *open.entry(definition.clone()).or_default() += count.as_u64().unwrap_or_default();
                }
            }
        }
        Ok(Json(json!({"open": open})).into_response())
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<String>,
}

/// What came of it, and what the check warns of.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    applied: &'a Applied,
    warnings: &'a [Finding],
}

/// Makes a definition known to every shard. Any server does: definitions have no home.
pub(super) async fn define(
    State(api): State<Api>,
    query: Result<UrlQuery<Wait>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(async {
        let UrlQuery(query) = query?;
        let body = body?;
        let wait = match &query.wait {
            None => WAIT_DEFAULT,
            Some(text) => {
                let bad = |error: IdError| Problem::bad_request(error.to_string());
                Duration::from_millis(text.parse::<Span>().map_err(bad)?.as_ms()).min(WAIT_MAX)
            }
        };
        let text = std::str::from_utf8(&body)
            .map_err(|error| Problem::bad_request(format!("the definition is no UTF-8: {error}")))?;
        let checked = source::read(text);
        let found = findings("definition", &checked);
        let source::Checked { source, result, .. } = checked;
        let Ok((definition, plan)) = result else { return Err(unsound(&found)) };
        let busy = || Problem::unavailable("other definitions are being applied; send it again");
        let turn = timeout(wait, api.0.applies.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.map_err(|_| busy())?;
        let config = &api.0.installation.config;
        let site = api.0.installation.site();
        let topics =
            if config.check_topics { CommandTopics::Create(None) } else { CommandTopics::LeaveAlone };
        let applying = move || apply(&site, &definition, &plan, topics, wait);
        let applied = tokio::task::spawn_blocking(applying)
            .await
            .map_err(|error| Problem::unexpected(error.to_string()))?
            .map_err(|error| problem_of(&error, &source))?;
        let status = match (applied.complete, applied.was_there) {
            (false, _) => StatusCode::ACCEPTED,
            (true, false) => StatusCode::CREATED,
            (true, true) => StatusCode::OK,
        };
        Ok((status, Json(Told { applied: &applied, warnings: &found })).into_response())
    })
    .await
}

fn unsound(found: &[Finding]) -> Problem {
    let errors: Vec<_> = found.iter().filter(|finding| finding.severity == "error").collect();
    let first = errors.first().map_or_else(String::new, |first| {
        format!("line {}, column {}: {}", first.line, first.column, first.message)
    });
    let more = match errors.len() {
        0 | 1 => String::new(),
        all => format!("; and {} more", all - 1),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unsound-definition", format!("{first}{more}"))
        .with("problems", json!(found))
}

fn problem_of(error: &ApplyError, source: &source::Source) -> Problem {
    let detail = error.to_string();
    match error {
        ApplyError::Conflict { .. } => Problem::new(StatusCode::CONFLICT, "conflict", detail),
        ApplyError::Children(problems) => {
            let found =
                problems.iter().map(|problem| finding("definition", source, Severity::Error, problem));
            unsound(&found.collect::<Vec<_>>())
        }
        ApplyError::Lost { .. } => Problem::unexpected(detail),
        ApplyError::Site(SiteError::Topics(TopicsError::Create { .. } | TopicsError::Alter { .. })) => {
            Problem::new(StatusCode::FORBIDDEN, "not-allowed", detail)
        }
        ApplyError::Site(_) => Problem::unavailable(detail),
    }
}

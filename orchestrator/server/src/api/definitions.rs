//! Which definitions are in use.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Api;
use super::owner::FORWARDED;
use super::problem::Problem;
use super::transactions::{ANSWER_MAX, answer, told_by_others};
use crate::lane::Query;

/// Open transactions of all servers, by definition and version.
pub(super) async fn open(State(api): State<Api>, headers: HeaderMap) -> Response {
    answer(async {
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        for lane in &api.0.lanes {
            let (answer, told) = oneshot::channel();
            let asked = lane.send(Query::OpenByDefinition { answer });
            asked.map_err(|_| Problem::unavailable("a lane has ended"))?;
            let counts = timeout(ANSWER_MAX, told).await.ok().and_then(Result::ok);
            let counts = counts.ok_or_else(|| Problem::unavailable("a lane does not answer"))?;
            for (definition, count) in counts {
                *open.entry(definition).or_default() += count as u64;
            }
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

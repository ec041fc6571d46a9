//! Which definitions are in use.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;

use super::Api;
use super::owner::FORWARDED;
use super::problem::Problem;
use super::transactions::{answer, told_by_lanes, told_by_others};
use crate::lane::Query;

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

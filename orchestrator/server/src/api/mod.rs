//! The HTTP API: any server answers for any transaction. What is not at home here is asked of its owner.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/transactions[?wait=30s]` | 202 applied, 200 with the outcome under `wait`, 4xx/503 problem |
//! | `GET /v1/transactions/{id}[?history=true]` | 200, from its owner, or from the view when it has forgotten; 404 |
//! | `GET /v1/transactions?status=…&after=…`, `/counts?by=…`, `GET /v1/stuck` | 200, from this server's view |
//! | `GET /v1/transactions/{id}/events`, `GET /v1/events?…` | 200, server-sent events |
//! | `POST /v1/transactions/{id}/cancel`, `…/retry`, `…/pause`, `…/resume`, `…/resolve` | 200 taken, 409 refused |
//! | `POST /v1/definitions[?wait=15s]` | 201 every shard has it, 200 it had been there, 202 some may not, 409, 422 |
//! | `GET /health/live`, `/health/ready`, `/metrics`, `/openapi.json` | |
//!
//! Errors are problem documents (RFC 9457). Deliberately absent: any decision; a verb is an inbox record like a reply.

mod definitions;
mod events;
mod kept;
pub mod owner;
mod problem;
mod start;
mod transactions;
mod view;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::CONTENT_TYPE;

use crate::config::Installation;
use crate::lane::{Directory, Query, ShardState};
use crate::view::View;
use crate::waiters::Waiters;
use crate::watch::Watch;

use kept::Kept;
use owner::Owners;
use problem::Problem;

/// Largest request: a payload of 1 MiB in Base64, with its frame.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long an inbox record may take to be in the log.
const APPEND_MAX: Duration = Duration::from_secs(10);

/// What requests are answered with.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    installation: Arc<Installation>,
    directory: Arc<Directory>,
    waiters: Waiters,
    lanes: Vec<Sender<Query>>,
    producer: FutureProducer,
    owners: Owners,
    applies: Semaphore,
    listeners: Arc<Semaphore>,
    kept: Kept,
    watch: Arc<Watch>,
    view: Arc<View>,
    metrics: Option<PrometheusHandle>,
}

impl Api {
    /// An API over these lanes.
    pub fn new(
        installation: Arc<Installation>,
        directory: Arc<Directory>,
        waiters: Waiters,
        lanes: Vec<Sender<Query>>,
        watch: Arc<Watch>,
        view: Arc<View>,
    ) -> Result<Self, KafkaError> {
        let producer = installation.config.kafka.client_producer("sagamore-api").create()?;
        let owners = Owners::new(&installation)?;
        // A second server in one process (tests) shares the first one's recorder, and prints nothing of its own.
        let metrics = crate::metrics::install().ok();
        Ok(Self(Arc::new(Inner {
            installation,
            directory,
            waiters,
            lanes,
            producer,
            owners,
            kept: Kept::default(),
            applies: Semaphore::new(definitions::APPLIES_MAX),
            listeners: Arc::new(Semaphore::new(events::LISTENERS)),
            watch,
            view,
            metrics,
        })))
    }

    /// Appends a record to an inbox partition; returns its offset.
    async fn append(&self, partition: i32, key: &str, value: &[u8]) -> Result<i64, String> {
        let (name, content_type) = CONTENT_TYPE;
        let inbox = self.0.installation.topic(Topic::Inbox);
        let record = FutureRecord::to(&inbox)
            .partition(partition)
            .key(key)
            .payload(value)
            .headers(OwnedHeaders::new().insert(Header { key: name, value: Some(content_type) }));
        match tokio::time::timeout(APPEND_MAX, self.0.producer.send(record, APPEND_MAX)).await {
            Ok(Ok(delivery)) => Ok(delivery.offset),
            Ok(Err((error, _))) => Err(error.to_string()),
            Err(_) => Err("the brokers did not acknowledge it in time".to_owned()),
        }
    }
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, api: Api) {
    let router = Router::new()
        .route("/v1/transactions", post(start::start).get(view::list))
        .route("/v1/counts", get(view::counts))
        .route("/v1/stuck", get(view::stuck))
        .route("/v1/transactions/{id}", get(transactions::get))
        .route("/v1/transactions/{id}/events", get(events::of_one))
        .route("/v1/events", get(events::of_filter))
        .route("/v1/transactions/{id}/{verb}", post(transactions::verb))
        .route("/v1/definitions", get(definitions::open).post(definitions::define))
        .route("/v1/shards", get(shards))
        .route("/health/live", get(|| async { Json(json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(print_metrics))
        .route("/openapi.json", get(openapi))
        .fallback(|uri: Uri| async move { Problem::not_found(format!("there is no {}", uri.path())) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let detail = format!("{} does not take {method}", uri.path());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the API has ended");
    }
}

/// Serves until it is dropped, while no broker has answered yet: alive, not ready, and nothing else is known. Each answer
/// closes its connection, so that the next request finds whoever serves by then.
pub async fn serve_waiting(listener: TcpListener) {
    if let Err(error) = axum::serve(listener, Router::new().fallback(waiting)).await {
        tracing::error!(%error, "the API has ended");
    }
}

async fn waiting(uri: Uri) -> Response {
    let mut response = match uri.path() {
        "/health/live" => Json(json!({"status": "live"})).into_response(),
        "/health/ready" => {
            let body = json!({"ready": false, "kafka_reachable": false, "shards": 0, "not_running": []});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
        _ => Problem::unavailable("no broker has answered yet").into_response(),
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn shards(State(api): State<Api>) -> Response {
    Json(json!({"instance": api.0.installation.instance, "partitions": api.0.installation.partitions, "shards": api.0.directory.shards()}))
        .into_response()
}

async fn ready(State(api): State<Api>) -> Response {
    let shards = api.0.directory.shards();
    let waiting: Vec<i32> = shards
        .iter()
        .filter(|(_, shard)| shard.state != ShardState::Running)
        .map(|(partition, _)| *partition)
        .collect();
    let reachable = api.0.watch.reachable();
    let ready = reachable && waiting.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body =
        json!({"ready": ready, "kafka_reachable": reachable, "shards": shards.len(), "not_running": waiting});
    (status, Json(body)).into_response()
}

async fn print_metrics(State(api): State<Api>) -> Response {
    match &api.0.metrics {
        Some(handle) => {
            handle.run_upkeep();
            ([("content-type", "text/plain; version=0.0.4")], handle.render()).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn openapi() -> Response {
    ([("content-type", "application/json")], include_str!("../../../../schemas/openapi.json")).into_response()
}

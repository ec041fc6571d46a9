//! Errors as problem documents (RFC 9457), `application/problem+json`.

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What went wrong, for a program and for a person.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), more: Map::new() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// What it says to a person.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether it says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    pub(super) fn unexpected(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected", detail)
    }

    /// A start that the home shard has refused: the word before the colon says which kind.
    pub(super) fn refused(reason: &str) -> Self {
        let (status, title) = match reason.split(':').next().unwrap_or_default() {
            "conflict" => (StatusCode::CONFLICT, "conflict"),
            "overloaded" => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
            "too-large" => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            "unknown-definition" => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-definition"),
            "missing-input" => (StatusCode::UNPROCESSABLE_ENTITY, "missing-input"),
            "too-old" => (StatusCode::UNPROCESSABLE_ENTITY, "too-old"),
            "too-early" => (StatusCode::UNPROCESSABLE_ENTITY, "too-early"),
            _ => (StatusCode::BAD_REQUEST, "refused"),
        };
        Self::new(status, title, reason)
    }

    /// One more member, such as the `time` to retry with.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", rejection.body_text())
            }
            _ => Self::bad_request(rejection.body_text()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:sagamore:problem:{}", self.title),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.more);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

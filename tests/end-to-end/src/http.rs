//! Requests, one at a time, from tests that know nothing of tasks.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

/// Where requests and loads run.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime can be made"));

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; a text when it is no JSON.
    pub body: Value,
}

/// `GET`.
pub fn get(url: &str, patience: Duration) -> Result<Answer, String> {
    RUNTIME.block_on(answer(CLIENT.get(url), patience))
}

/// `POST`.
pub fn post(url: &str, body: &Value, patience: Duration) -> Result<Answer, String> {
    RUNTIME.block_on(send(url, body.to_string(), patience))
}

/// `POST`, for tasks.
pub async fn send(url: &str, body: String, patience: Duration) -> Result<Answer, String> {
    answer(CLIENT.post(url).body(body), patience).await
}

/// `GET`, for tasks.
pub async fn fetch(url: &str, patience: Duration) -> Result<Answer, String> {
    answer(CLIENT.get(url), patience).await
}

async fn answer(request: reqwest::RequestBuilder, patience: Duration) -> Result<Answer, String> {
    let told = request.timeout(patience).send().await.map_err(|error| error.to_string())?;
    let status = told.status().as_u16();
    let text = told.text().await.map_err(|error| error.to_string())?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body })
}

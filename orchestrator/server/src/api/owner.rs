//! Who owns a shard: the group coordinator knows, and the name of each member says where its API is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupInfo;

use sagamore_kafka::client::Isolation;

use super::problem::Problem;
use crate::config::Installation;

/// What the client id of a member begins with; its API's address follows.
pub const CLIENT_ID_PREFIX: &str = "sagamore@";
/// Header of a request that one server passes to another: it is passed on once only.
pub(super) const FORWARDED: &str = "x-sagamore-forwarded";

/// How long what the coordinator said is believed.
const FRESH: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(3);

/// When it was told, and the API of each owner by partition.
type Known = (Instant, BTreeMap<i32, String>);

/// The owners of all shards, as the coordinator last told them.
pub(super) struct Owners {
    consumer: Arc<BaseConsumer>,
    group: String,
    known: Arc<Mutex<Option<Known>>>,
    http: reqwest::Client,
}

impl Owners {
    pub(super) fn new(installation: &Installation) -> Result<Self, KafkaError> {
        let consumer = installation.config.kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
        Ok(Self {
            consumer: Arc::new(consumer),
            group: installation.config.prefix.orchestrator_group(),
            known: Arc::default(),
            http: reqwest::Client::new(),
        })
    }

    /// The API of every owner, by partition.
    pub(super) async fn all(&self) -> Result<BTreeMap<i32, String>, String> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, owners)) = &*lock()
            && at.elapsed() < FRESH
        {
            return Ok(owners.clone());
        }
        let (consumer, group) = (Arc::clone(&self.consumer), self.group.clone());
        let asked = tokio::task::spawn_blocking(move || ask(&consumer, &group)).await;
        let owners = asked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        *lock() = Some((Instant::now(), owners.clone()));
        Ok(owners)
    }

    /// The API of a shard's owner.
    pub(super) async fn of(&self, partition: i32) -> Result<Option<String>, String> {
        Ok(self.all().await?.remove(&partition))
    }

    /// Passes a request on and gives back its answer.
    pub(super) async fn forward(
        &self,
        owner: &str,
        method: Method,
        path_and_query: &str,
        body: Bytes,
        patience: Duration,
    ) -> Response {
        let request = self
            .http
            .request(method, format!("http://{owner}{path_and_query}"))
            .header(FORWARDED, "1")
            .header(header::CONTENT_TYPE, "application/json")
            .timeout(patience)
            .body(body);
        let unavailable = |error: reqwest::Error| {
            Problem::unavailable(format!("the owner at {owner} does not answer: {error}")).into_response()
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return unavailable(error),
        };
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut headers = HeaderMap::new();
        for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
            if let Some(value) = answer.headers().get(name.as_str()) {
                headers.insert(name, value.clone());
            }
        }
        match answer.bytes().await {
            Ok(body) => (status, headers, body).into_response(),
            Err(error) => unavailable(error),
        }
    }
}

fn ask(consumer: &BaseConsumer, group: &str) -> Result<BTreeMap<i32, String>, KafkaError> {
    let list = consumer.fetch_group_list(Some(group), PATIENCE)?;
    let mut owners = BTreeMap::new();
    let group = list.groups().iter().find(|found| found.name() == group);
    for member in group.map(GroupInfo::members).unwrap_or_default() {
        let Some(address) = member.client_id().strip_prefix(CLIENT_ID_PREFIX) else { continue };
        let partitions = member.assignment().and_then(assigned).unwrap_or_default();
        owners.extend(partitions.into_iter().map(|partition| (partition, address.to_owned())));
    }
    Ok(owners)
}

/// The partitions in a member's assignment. Source: Kafka's consumer protocol, `ConsumerProtocolAssignment`:
/// version INT16, topics ARRAY(name STRING, partitions ARRAY(INT32)), user data.
fn assigned(bytes: &[u8]) -> Option<Vec<i32>> {
    let mut rest = bytes.get(2..)?;
    let mut partitions = Vec::new();
    for _ in 0..take_i32(&mut rest)? {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        rest = tail.get(usize::try_from(i16::from_be_bytes(*length)).ok()?..)?;
        for _ in 0..take_i32(&mut rest)? {
            partitions.push(take_i32(&mut rest)?);
        }
    }
    Some(partitions)
}

fn take_i32(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(i32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_a_damaged_one_is_not() {
        let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, 5];
        bytes.extend_from_slice(b"inbox");
        bytes.extend_from_slice(&[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(assigned(&bytes), Some(vec![1, 3]));
        for cut in 0..21 {
            assert_eq!(assigned(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(assigned(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }
}

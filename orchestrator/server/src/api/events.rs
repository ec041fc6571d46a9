//! What changes, as it changes: server-sent events (the HTML standard's `text/event-stream`) of one transaction, or of a
//! filter.
//!
//! ```text
//!  view ── changes (bounded) ──▶ one task per listener ── bounded ──▶ connection
//!                                      ▲ what has changed since `Last-Event-ID`, from the view's rows
//! ```
//! | event | data |
//! |---|---|
//! | `change` | an input of a transaction, and where it stands after it |
//! | `state` | after `Last-Event-ID`: a transaction that has changed meanwhile, once, as it stands |
//! | `lagged` | too slow: so many were missed, and the connection ends; come again with the last id |
//!
//! The id of an event is the place in the journal up to which all has been told, by partition: it means the same to every
//! server. Whoever comes again may hear the last of them twice.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::poll_fn;
use sagamore_schemas::home::home;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{Sender, channel};

use super::Api;
use super::problem::Problem;
use super::transactions::{answer, parsed};
use super::view::{Pairs, asked};
use crate::view::{Change, Filter, Place, query};

/// Events that wait for a connection: what is more waits in the view's own, which is bounded too.
const WAITING: usize = 64;
/// Listeners of one server at a time: each is a task and its events.
pub(super) const LISTENERS: usize = 256;
/// How often a quiet connection is told that it lives: proxies cut silent ones after 30 s and more.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Rows that are read at a time, for who comes again.
const ROWS: usize = 200;
/// Where the last event of before stood.
const LAST_EVENT_ID: &str = "last-event-id";

/// By partition, up to where all has been told.
type Places = BTreeMap<i32, i64>;

/// `GET /v1/transactions/{id}/events`.
pub(super) async fn of_one(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    answer(async {
        let Path(id) = path?;
        let id = parsed(&id)?;
        let partition = home(&id, api.0.installation.partitions).0;
        let statuses = Filter::statuses_of("all").map_err(Problem::bad_request)?;
        let listener = Listener {
            filter: Filter { statuses, id_prefix: Some(id.to_string()), ..Filter::default() },
            only: Some((id.to_string(), partition)),
            told: told_before(&headers)?,
        };
        listen(&api, listener)
    })
    .await
}

/// `GET /v1/events`.
pub(super) async fn of_filter(State(api): State<Api>, pairs: Pairs, headers: HeaderMap) -> Response {
    answer(async {
        let mut asked = asked(pairs, &[])?;
        if !asked.has_statuses {
            asked.filter.statuses = Filter::statuses_of("all").map_err(Problem::bad_request)?;
        }
        if asked.filter.participant.is_some() || asked.filter.from.is_some() || asked.filter.until.is_some() {
            let detail = "participant and age are no questions of what changes: status, definition, step, error, id_prefix";
            return Err(Problem::bad_request(detail));
        }
        listen(&api, Listener { filter: asked.filter, only: None, told: told_before(&headers)? })
    })
    .await
}

struct Listener {
    filter: Filter,
    /// One transaction, and its home.
    only: Option<(String, i32)>,
    /// Where somebody who comes again had been.
    told: Option<Places>,
}

fn listen(api: &Api, listener: Listener) -> Result<Response, Problem> {
    let place = Arc::clone(&api.0.listeners).try_acquire_owned().map_err(|_| {
        let detail = format!("{LISTENERS} listen already: try another server");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail)
    })?;
    // Before the rows are read: nothing falls between them.
    let changes = api.0.view.changes();
    let (to, mut from) = channel(WAITING);
    let api = api.clone();
    tokio::spawn(async move {
        let _place = place;
        listener.tell(&api, changes, &to).await;
    });
    let events = poll_fn(move |context| from.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

impl Listener {
    /// What has been missed, then what changes, until the connection ends or lags.
    async fn tell(self, api: &Api, changes: Receiver<Arc<Change>>, to: &Sender<Event>) {
        match self.catch_up(api, to).await {
            Ok(Some((places, told))) => self.follow(changes, places, &told, to).await,
            Ok(None) => {}
            Err(problem) => {
                // It has gone, or is told.
                drop(to.send(Event::default().event("unavailable").data(problem.detail())).await);
            }
        }
    }

    async fn follow(
        self,
        mut changes: Receiver<Arc<Change>>,
        mut places: Places,
        told: &Places,
        to: &Sender<Event>,
    ) {
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = to.closed() => return,
            };
            match change {
                Ok(change) => {
                    let (partition, offset, _) = change.place;
                    if told.get(&partition).is_some_and(|next| offset < *next) {
                        continue;
                    }
                    // What follows in the same record has not been told yet: its offset is not passed.
                    places.insert(partition, offset);
                    if self.is_wanted(&change)
                        && to.send(self.event("change", &places, &*change)).await.is_err()
                    {
                        return;
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    let data = json!({"missed": missed}).to_string();
                    drop(to.send(Event::default().event("lagged").data(data)).await);
                    return;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn is_wanted(&self, change: &Change) -> bool {
        match &self.only {
            Some((id, _)) => change.id == *id,
            None => change.is_of(&self.filter),
        }
    }

    /// What has changed since. Then where the rows stood, and below what all has been told with them: of changes that are
    /// still to come, too. None when the connection has ended.
    async fn catch_up(&self, api: &Api, to: &Sender<Event>) -> Result<Option<(Places, Places)>, Problem> {
        let ((), positions) = api.0.view.ask(|_| Ok(())).await?;
        let ends: Places = positions.iter().map(|position| (position.partition, position.offset)).collect();
        let Some(told) = &self.told else { return Ok(Some((ends, Places::new()))) };
        let mut places = told.clone();
        for (partition, end) in &ends {
            if self.only.as_ref().is_some_and(|(_, home)| home != partition) {
                continue;
            }
            let mut after = Place { offset: told.get(partition).copied().unwrap_or(*end), birth: 0 };
            loop {
                let (filter, partition, end) = (self.filter.clone(), *partition, *end);
                let question = move |view: &_| query::changed(view, &filter, partition, after, end, ROWS);
                let (rows, _) = api.0.view.ask(question).await?;
                let Some((last, _)) = rows.last() else { break };
                after = *last;
                for (place, shown) in rows {
                    places.insert(partition, place.offset);
                    let is_wanted = self.only.as_ref().is_none_or(|(id, _)| shown.id == *id);
                    if is_wanted && to.send(self.event("state", &places, &shown)).await.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some((ends.clone(), ends)))
    }

    fn event(&self, name: &str, places: &Places, data: &impl serde::Serialize) -> Event {
        let of_home = |partition: &i32| self.only.as_ref().is_none_or(|(_, home)| home == partition);
        let ids = places.iter().filter(|(partition, _)| of_home(partition));
        let id: Vec<String> = ids.map(|(partition, offset)| format!("{partition}:{offset}")).collect();
        let data = serde_json::to_string(data).unwrap_or_else(|error| unreachable!("plain data: {error}"));
        Event::default().event(name).id(id.join(",")).data(data)
    }
}

/// Reads `Last-Event-ID`.
fn told_before(headers: &HeaderMap) -> Result<Option<Places>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let place = |text: &str| {
        let (partition, offset) = text.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    let places = value.to_str().ok().and_then(|text| text.split(',').map(place).collect());
    places
        .map(Some)
        .ok_or_else(|| Problem::bad_request("Last-Event-ID is the id of an event, as it was given"))
}

#[cfg(test)]
mod tests {
    use sagamore_schemas::log::EntryRef;

    use super::*;
    use crate::view::Life;

    fn change(offset: i64) -> Arc<Change> {
        let entry = json!({
            "offset": offset, "sequence": 0, "at": "2026-11-22T16:00:00Z", "input": "start", "transaction": "o-1",
            "birth": "0-1", "definition": "order@1", "revision": 1,
        })
        .to_string();
        let entry: EntryRef<'_> = serde_json::from_str(&entry).unwrap();
        let life = Life::new("0-1".parse().unwrap(), "o-1".parse().unwrap(), &entry);
        Arc::new(Change::new(&life, &entry, (0, offset, 0)))
    }

    fn everything() -> Listener {
        let statuses = Filter::statuses_of("all").unwrap();
        Listener { filter: Filter { statuses, ..Filter::default() }, only: None, told: None }
    }

    async fn heard(told: &Places, changes: impl IntoIterator<Item = i64>, kept: usize) -> Vec<String> {
        let (from, receiver) = tokio::sync::broadcast::channel(kept);
        for offset in changes {
            from.send(change(offset)).unwrap();
        }
        drop(from);
        let (to, mut events) = channel(WAITING);
        everything().follow(receiver, Places::new(), told, &to).await;
        drop(to);
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(format!("{event:?}"));
        }
        heard
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_and_who_comes_again_hears_nothing_twice() {
        let all = heard(&Places::new(), 0..3, 8).await;
        assert!(all.len() == 3 && all.iter().all(|event| event.contains("change")), "{all:?}");
        let slow = heard(&Places::new(), 0..5, 2).await;
        assert!(slow.len() == 1 && slow[0].contains("lagged") && slow[0].contains("missed"), "{slow:?}");
        let again = heard(&[(0, 2)].into(), 0..3, 8).await;
        assert_eq!(again.len(), 1, "{again:?}");
    }

    #[test]
    fn where_somebody_had_been() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, value.parse().unwrap());
            told_before(&headers)
        };
        assert_eq!(read("0:7,12:99").unwrap(), Some([(0, 7), (12, 99)].into()));
        assert!(read("").is_err() && read("0:x").is_err() && read("7").is_err());
        assert_eq!(told_before(&HeaderMap::new()).unwrap(), None);
    }
}

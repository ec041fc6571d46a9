//! One connection of a client: two directions, each with a queue of what is due later.
//!
//! ```text
//!   client ──Frames──▶ judge ──▶ Queue (rises in time) ──▶ broker      the same the other way
//!                        │ hold        ▲
//!                        ▼             │ release
//!                      rule ───────────┘ or, when the connection has gone, `late`
//! ```
//! One task per connection, no hop for what no rule is about. A direction reads on only while its queue has room: a
//! slow broker slows its client down, as without a proxy.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{self, Head};
use super::frames::{Frames, Next, PREFIX_BYTES};
use super::pending::{Asked, Pending};
use super::rule::{Action, Direction, Held, InForce, Released};
use super::{Shared, late};

/// What waits in one direction, in bytes; past it nothing more is read. A frame may be larger than this by itself.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same in frames.
const QUEUE_FRAMES_MAX: usize = 1024;
/// How long a broker may take to read what was passed on before a cut.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// What both directions know.
struct Link {
    shared: Arc<Shared>,
    broker: usize,
    pending: Mutex<Pending>,
}

/// One direction.
struct Way<'a> {
    link: &'a Link,
    direction: Direction,
    frames: Frames<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    queue: Queue,
    /// Waits to be overtaken, up to that time.
    parked: Option<(Item, Instant)>,
    released: UnboundedReceiver<Released>,
    route: UnboundedSender<Released>,
    /// Nothing more will be read.
    at_end: bool,
}

/// How a direction ended.
enum Ended {
    /// Everything that was read has been passed on, and nothing more comes.
    End,
    /// The connection is to be closed.
    Cut,
    /// The same, when the broker has read everything.
    CutAfterBrokerRead,
}

/// A frame on its way.
struct Item {
    frame: Bytes,
    /// None of what could not be parsed.
    head: Option<Head>,
    due: Instant,
    mark: Mark,
}

/// What becomes true when an item is written.
enum Mark {
    Plain,
    Delayed(Arc<InForce>),
    /// Counted when it leaves its place, before it is written.
    Parked(Arc<InForce>),
    Released(Arc<InForce>),
    LastWords(Arc<InForce>),
}

/// Carries one client's connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, broker: usize, client: TcpStream, upstream: TcpStream) {
    let link = Link { shared, broker, pending: Mutex::default() };
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = upstream.into_split();
    let mut requests = Way::new(&link, Direction::Request, from_client, to_broker);
    let mut responses = Way::new(&link, Direction::Response, from_broker, to_client);
    let ended = {
        let (mut up, mut down) = (pin!(requests.run()), pin!(responses.run()));
        tokio::select! {
            // The client says no more; it may still listen.
            ended = &mut up => match ended {
                Ended::End => down.await,
                Ended::Cut | Ended::CutAfterBrokerRead => ended,
            },
            ended = &mut down => ended,
        }
    };
    requests.give_back();
    responses.give_back();
    let Way { mut writer, .. } = requests;
    let Way { frames: Frames { mut reader, .. }, writer: to_client, .. } = responses;
    drop(to_client);
    link.pending.lock().unwrap_or_else(PoisonError::into_inner).end();
    if matches!(ended, Ended::CutAfterBrokerRead) {
        // Closing with unread answers would reset the connection, and the broker might not read what it has.
        let _ = writer.shutdown().await;
        let _ = timeout(LAST_WORDS_WITHIN, copy(&mut reader, &mut sink())).await;
    }
}

impl<'a> Way<'a> {
    fn new(link: &'a Link, direction: Direction, reader: OwnedReadHalf, writer: OwnedWriteHalf) -> Self {
        let (route, released) = unbounded_channel();
        let frames = Frames::new(reader);
        let queue = Queue::default();
        Self { link, direction, frames, writer, queue, parked: None, released, route, at_end: false }
    }

    async fn run(&mut self) -> Ended {
        let ended = self.pass_on().await;
        self.give_back();
        ended
    }

    async fn pass_on(&mut self) -> Ended {
        loop {
            if self.at_end && self.queue.items.is_empty() && self.parked.is_none() {
                let _ = self.writer.shutdown().await;
                return Ended::End;
            }
            let now = Instant::now();
            let due = self.queue.items.front().map(|item| item.due);
            let parked_until = self.parked.as_ref().map(|(_, until)| *until);
            let done = tokio::select! {
                Some(released) = self.released.recv() => self.enqueue(released.into_item()).await,
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => self.write_due().await,
                () = sleep_until(parked_until.unwrap_or(now)), if parked_until.is_some() => {
                    self.unpark(false).await
                }
                next = self.frames.next(), if !self.at_end && self.queue.has_room() => match next {
                    Next::Frame(frame) => self.judge(frame).await,
                    Next::Opaque => self.pipe().await,
                    Next::End => {
                        self.at_end = true;
                        self.unpark(false).await
                    }
                },
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    async fn judge(&mut self, frame: Bytes) -> Result<(), Ended> {
        let due = Instant::now();
        let Some(head) = self.read(&frame) else {
            return self.pass(Item { frame, head: None, due, mark: Mark::Plain }).await;
        };
        let Some(rule) = self.link.shared.book.find(self.direction, self.link.broker, &head) else {
            return self.pass(Item::new(frame, head)).await;
        };
        match rule.action() {
            Action::DelayRequest(delay) | Action::DelayResponse(delay) => {
                let (due, mark) = (due + delay, Mark::Delayed(rule));
                self.pass(Item { frame, head: Some(head), due, mark }).await
            }
            Action::HoldRequest | Action::HoldResponse => self.hold(rule, head, frame).await.map(drop),
            Action::HoldRequestAndCut => {
                if !self.hold(Arc::clone(&rule), head, frame).await? {
                    return Ok(());
                }
                rule.count(|counts| counts.cut += 1);
                Err(Ended::Cut)
            }
            Action::CutBeforeRequest => {
                rule.count(|counts| counts.cut += 1);
                Err(Ended::Cut)
            }
            Action::CutAfterRequest => {
                self.pass(Item { frame, head: Some(head), due, mark: Mark::LastWords(rule) }).await
            }
            Action::DropResponse => {
                rule.count(|counts| counts.dropped += 1);
                Err(Ended::Cut)
            }
            Action::LetOvertake(patience) => {
                self.unpark(false).await?;
                self.parked =
                    Some((Item { mark: Mark::Parked(rule), ..Item::new(frame, head) }, due + patience));
                Ok(())
            }
        }
    }

    /// The head of the request that a frame is, or answers; none when that cannot be told.
    fn read(&self, frame: &Bytes) -> Option<Head> {
        let totals = self.link.shared.totals(self.link.broker);
        let body = &frame[PREFIX_BYTES..];
        match self.direction {
            Direction::Request => {
                totals.requests.fetch_add(1, Relaxed);
                let head = frame::head(body);
                totals.unparsed.fetch_add(u64::from(head.is_none()), Relaxed);
                head
            }
            Direction::Response => {
                totals.responses.fetch_add(1, Relaxed);
                let asked =
                    frame::correlation(body).and_then(|correlation| self.pending(|p| p.take(correlation)));
                totals.unmatched.fetch_add(u64::from(asked.is_none()), Relaxed);
                let Asked { head, held_by } = asked?;
                if let Some(rule) = held_by {
                    rule.count_answer(frame::error_code(head.api, head.version, body));
                }
                Some(head)
            }
        }
    }

    /// Whether it is held; passes it on if it cannot be.
    async fn hold(&mut self, rule: Arc<InForce>, head: Head, frame: Bytes) -> Result<bool, Ended> {
        let broker = self.link.broker;
        // A frame of its own: the buffer it was read into is shared with its neighbours.
        let frame = Bytes::copy_from_slice(&frame);
        let released = Released { broker, head, frame, rule: Arc::clone(&rule) };
        let Err(Released { head, frame, .. }) = rule.hold(Held { released, route: self.route.clone() })
        else {
            return Ok(true);
        };
        self.pass(Item::new(frame, head)).await?;
        Ok(false)
    }

    /// Passes it on: before what is parked, if that is of another kind.
    async fn pass(&mut self, item: Item) -> Result<(), Ended> {
        let api = |item: &Item| item.head.as_ref().map(|head| head.api);
        let overtakes = self
            .parked
            .as_ref()
            .is_some_and(|(parked, _)| api(&item).is_some_and(|kind| api(parked) != Some(kind)));
        if !overtakes {
            self.unpark(false).await?;
        }
        self.enqueue(item).await?;
        self.unpark(true).await
    }

    async fn unpark(&mut self, overtaken: bool) -> Result<(), Ended> {
        let Some((mut item, _)) = self.parked.take() else { return Ok(()) };
        if let Mark::Parked(rule) = std::mem::replace(&mut item.mark, Mark::Plain) {
            rule.count(|counts| {
                *(if overtaken { &mut counts.overtaken } else { &mut counts.not_overtaken }) += 1;
            });
        }
        item.due = Instant::now();
        self.enqueue(item).await
    }

    /// Behind everything that waits; at once when nothing does.
    async fn enqueue(&mut self, item: Item) -> Result<(), Ended> {
        self.queue.add(item);
        let due = self.queue.items.front().map(|item| item.due);
        if self.queue.items.len() == 1 && due.is_some_and(|due| due <= Instant::now()) {
            return self.write_due().await;
        }
        Ok(())
    }

    /// Writes the first in the queue. It leaves the queue once it is written: until then it can be given back.
    async fn write_due(&mut self) -> Result<(), Ended> {
        let Some(item) = self.queue.items.front() else { return Ok(()) };
        if self.writer.write_all(&item.frame).await.is_err() {
            return Err(Ended::Cut);
        }
        let Some(Item { head, mark, .. }) = self.queue.take() else { return Ok(()) };
        let held_by = match &mark {
            Mark::Released(rule) => Some(Arc::clone(rule)),
            Mark::Plain | Mark::Delayed(_) | Mark::Parked(_) | Mark::LastWords(_) => None,
        };
        if let (Direction::Request, Some(head)) = (self.direction, head) {
            self.pending(|pending| pending.add(Asked { head, held_by }));
        }
        match mark {
            Mark::Plain | Mark::Parked(_) => Ok(()),
            Mark::Delayed(rule) => {
                rule.count(|counts| counts.delayed += 1);
                Ok(())
            }
            Mark::Released(rule) => {
                rule.count(|counts| counts.released += 1);
                Ok(())
            }
            Mark::LastWords(rule) => {
                rule.count(|counts| counts.cut += 1);
                Err(Ended::CutAfterBrokerRead)
            }
        }
    }

    /// From here on bytes, not frames.
    async fn pipe(&mut self) -> Result<(), Ended> {
        self.link.shared.totals(self.link.broker).opaque.fetch_add(1, Relaxed);
        self.at_end = true;
        self.unpark(false).await?;
        while !self.queue.items.is_empty() {
            self.write_due().await?;
        }
        let rest = std::mem::take(&mut self.frames.buffer);
        let written = self.writer.write_all(&rest).await;
        if written.is_err() || copy(&mut self.frames.reader, &mut self.writer).await.is_err() {
            return Err(Ended::Cut);
        }
        Ok(())
    }

    /// What was released to this connection and can no longer be written to it.
    fn give_back(&mut self) {
        self.released.close();
        while let Ok(released) = self.released.try_recv() {
            late::deliver(&self.link.shared, released);
        }
        for Item { frame, head, mark, .. } in self.queue.items.drain(..) {
            if let (Mark::Released(rule), Some(head)) = (mark, head) {
                late::deliver(&self.link.shared, Released { broker: self.link.broker, head, frame, rule });
            }
        }
    }

    fn pending<T>(&self, look: impl FnOnce(&mut Pending) -> T) -> T {
        look(&mut self.link.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Item {
    fn new(frame: Bytes, head: Head) -> Self {
        Self { frame, head: Some(head), due: Instant::now(), mark: Mark::Plain }
    }
}

impl Released {
    fn into_item(self) -> Item {
        Item { mark: Mark::Released(self.rule), ..Item::new(self.frame, self.head) }
    }
}

/// First in, first out; nobody leaves before the one in front.
#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    fn add(&mut self, mut item: Item) {
        item.due = self.items.back().map_or(item.due, |last| item.due.max(last.due));
        self.bytes += item.frame.len();
        self.items.push_back(item);
    }

    fn take(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.frame.len();
        Some(item)
    }

    fn has_room(&self) -> bool {
        self.bytes < QUEUE_BYTES_MAX && self.items.len() < QUEUE_FRAMES_MAX
    }
}

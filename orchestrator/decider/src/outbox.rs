//! Outputs on their way: sent at once, kept until acknowledged, bounded per destination.
//!
//! A dead topic must not stop the others: each destination has its own credit, what is beyond it waits here, and what
//! waits too long is owed in the checkpoint. What can never be delivered becomes an input of the own inbox, and counts
//! as delivered when that input is in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sagamore_schemas::ids::{Span, Time};
use sagamore_schemas::wire::{Asked, Undeliverable, read_asked};

use crate::output::{Destination, Output};

/// Outputs of one destination handed to the producer and not yet acknowledged: far above what a crowd needs, far below
/// the producer's queue, so that no destination can fill it alone.
pub const CREDIT: usize = 20_000;
/// Outputs of one destination that a checkpoint may owe: beyond it the oldest commands become undeliverable.
pub const OWED_MAX: usize = 1_000;
/// Bytes of one destination that a checkpoint may owe.
pub const OWED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a destination waits for what is in flight before it gives up going another way for now: several round trips,
/// and no more, because one partition without a leader must not stop the others of its topic.
const TURN_PATIENCE: Span = Span::from_ms(100);

/// Number of an output, rising in the order of the log: even for the output itself, the odd one after it for the input
/// that says it cannot be delivered. So that input keeps its place, and a late report about the output is not about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Where an output goes after all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// To its destination.
    To(Destination),
    /// To the own inbox, as `undeliverable`.
    OwnInbox,
}

#[derive(Debug)]
struct Pending {
    route: Route,
    output: Output,
}

/// How an output leaves. Between two outputs of one destination that leave in different ways there is no order but the
/// one that [`Outbox::send`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Without waiting for others.
    #[default]
    AtOnce,
    /// In a request with others, after a little while.
    InCompany,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Ticket>,
    in_flight: BTreeSet<Ticket>,
    way: Way,
    /// Since when it waits for the end of what is in flight, to go another way.
    turning: Option<Time>,
}

impl Queue {
    /// Goes the way that is wished for as soon as nothing is in flight on the other: commands of one key stay in order.
    /// Whether it may send meanwhile: not until [`TURN_PATIENCE`] is over, and then the old way.
    fn turn(&mut self, now: Time, wish: Way) -> bool {
        if self.way == wish || self.in_flight.is_empty() {
            self.way = wish;
            self.turning = None;
            return true;
        }
        now.since(*self.turning.get_or_insert(now)) > TURN_PATIENCE
    }
}

/// The outputs of one shard that are not acknowledged.
#[derive(Debug, Default)]
pub struct Outbox {
    next: u64,
    pending: BTreeMap<Ticket, Pending>,
    queues: BTreeMap<Route, Queue>,
    bytes: usize,
}

impl Outbox {
    /// Takes an output.
    pub fn push(&mut self, output: Output) {
        let ticket = Ticket(self.next);
        self.next += 2;
        self.bytes += output.size_bytes();
        let route = Route::To(output.destination.clone());
        self.queue(&route).waiting.push_back(ticket);
        self.pending.insert(ticket, Pending { route, output });
    }

    /// The ticket that the next output will have.
    pub fn next_ticket(&self) -> Ticket {
        Ticket(self.next)
    }

    /// How many are not acknowledged.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether all are acknowledged.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes of what is not acknowledged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands to `send` what may go now; stops when `send` says that the producer is full. What goes to one destination
    /// leaves in its order, also when the way changes.
    pub fn send(&mut self, now: Time, wish: Way, mut send: impl FnMut(Ticket, &Route, &Output, Way) -> Sent) {
        for (route, queue) in &mut self.queues {
            if !queue.turn(now, wish) {
                continue;
            }
            while queue.in_flight.len() < CREDIT {
                let Some(ticket) = queue.waiting.pop_front() else { break };
                let Some(pending) = self.pending.get(&ticket) else { continue };
                match send(ticket, route, &pending.output, queue.way) {
                    Sent::Queued => {
                        queue.in_flight.insert(ticket);
                    }
                    Sent::Full => {
                        queue.waiting.push_front(ticket);
                        return;
                    }
                }
            }
        }
    }

    /// It is in the log of its destination.
    pub fn on_delivered(&mut self, ticket: Ticket) {
        if let Some(pending) = self.pending.remove(&ticket) {
            self.bytes -= pending.output.size_bytes();
            self.queue(&pending.route).in_flight.remove(&ticket);
        }
    }

    /// It was not delivered, but may be the next time.
    pub fn on_failed(&mut self, ticket: Ticket) {
        if let Some(route) = self.pending.get(&ticket).map(|pending| pending.route.clone()) {
            let queue = self.queue(&route);
            if queue.in_flight.remove(&ticket) {
                queue.waiting.push_back(ticket);
            }
        }
    }

    /// It can never be delivered. A command becomes an input that says so; `Err` names an output that nobody may lose.
    pub fn on_undeliverable(&mut self, ticket: Ticket, reason: &str) -> Result<(), Destination> {
        let Some(pending) = self.pending.get(&ticket) else { return Ok(()) };
        if !is_command(&pending.route) {
            let destination = pending.output.destination.clone();
            self.on_failed(ticket);
            return Err(destination);
        }
        self.give_up(ticket, reason);
        Ok(())
    }

    /// Turns a command into an input that says so, under the next ticket. The answer to an inquiry is dropped: whoever
    /// is in doubt asks again.
    fn give_up(&mut self, ticket: Ticket, reason: &str) {
        let Some(Pending { route, mut output }) = self.pending.remove(&ticket) else { return };
        let before = output.size_bytes();
        let lost = match read_asked(output.value.as_deref()) {
            Ok(Asked::Command(command)) => {
                let lost = Undeliverable { address: command.address, reason: reason.into() };
                (lost.address.subject.to_string(), lost.to_json())
            }
            Ok(Asked::Verdict(_)) => {
                self.bytes -= before;
                self.queue(&route).in_flight.remove(&ticket);
                return;
            }
            Err(error) => {
                unreachable!(
                    "SAG-INV-7 what goes to a participant is a command, or the answer to an inquiry: {error}"
                )
            }
        };
        let (key, value) = lost;
        output.key = Some(key.into_bytes());
        output.value = Some(value);
        self.bytes = self.bytes + output.size_bytes() - before;
        let lost = Ticket(ticket.0 + 1);
        self.pending.insert(lost, Pending { route: Route::OwnInbox, output });
        // Where it waits, `send` passes over it.
        self.queue(&route).in_flight.remove(&ticket);
        self.queue(&Route::OwnInbox).waiting.push_back(lost);
    }

    /// Whether everything before `ticket` is acknowledged.
    pub fn settled_before(&self, ticket: Ticket) -> bool {
        self.pending.first_key_value().is_none_or(|(first, _)| *first >= ticket)
    }

    /// What a checkpoint may owe of what stands before `ticket`; commands beyond the bound are turned into inputs
    /// first. `None`: there is more than may be owed, and it has to be waited for.
    pub fn owe_before(&mut self, ticket: Ticket) -> Option<Vec<&Output>> {
        let mut of: BTreeMap<Route, (VecDeque<Ticket>, usize)> = BTreeMap::new();
        for (ticket, pending) in self.pending.range(..ticket) {
            let (tickets, bytes) = of.entry(pending.route.clone()).or_default();
            tickets.push_back(*ticket);
            *bytes += pending.output.size_bytes();
        }
        let mut too_many = of.remove(&Route::OwnInbox).is_some();
        for (route, (mut tickets, mut bytes)) in of {
            while tickets.len() > OWED_MAX || bytes > OWED_BYTES_MAX {
                too_many = true;
                let Some(oldest) = tickets.pop_front().filter(|_| is_command(&route)) else { break };
                bytes -= self.pending.get(&oldest).map_or(0, |pending| pending.output.size_bytes());
                self.give_up(oldest, "the destination takes nothing, and more is owed to it than may be");
            }
        }
        (!too_many).then(|| self.pending.range(..ticket).map(|(_, pending)| &pending.output).collect())
    }

    fn queue(&mut self, route: &Route) -> &mut Queue {
        if !self.queues.contains_key(route) {
            self.queues.insert(route.clone(), Queue::default());
        }
        match self.queues.get_mut(route) {
            Some(queue) => queue,
            None => unreachable!("it was inserted just now"),
        }
    }
}

fn is_command(route: &Route) -> bool {
    match route {
        Route::To(Destination::Commands(_)) => true,
        Route::To(Destination::Inbox(_) | Destination::Outcomes | Destination::DeadLetters)
        | Route::OwnInbox => false,
    }
}

/// What the producer said to an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It will be delivered, or reported.
    Queued,
    /// Not now.
    Full,
}

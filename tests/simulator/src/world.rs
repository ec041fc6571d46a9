//! Virtual time, and the one queue of everything that is on its way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use fastrand::Rng;
use sagamore_decider::invariants as inv;
use sagamore_decider::outbox::Ticket;
use sagamore_decider::planted;
use sagamore_schemas::ids::Birth;

use crate::client::{Behind, Wish};
use crate::desk::Desk;
use crate::faults::{Fault, Faults};
use crate::hole::Hole;
use crate::kafka::{Kafka, Place, Record};
use crate::server::{Server, ToServer};
use crate::trouble::Trouble;
use crate::witness::{Violation, Witness, skip_of};
use crate::workload::{self, Order};

/// When every run begins: 2026-01-01T00:00:00Z.
pub const T0_MS: i64 = 1_767_225_600_000;
/// How long things go wrong: mostly a minute, sometimes hours.
const TROUBLE_MS: [i64; 6] = [60_000, 60_000, 60_000, 120_000, 2_000_000, 22_000_000];
/// In one of so many runs definitions start others.
const CHILDREN_IN: u8 = 3;
/// How long everything may take to end once nothing goes wrong any more.
const CALM_MS: i64 = 40_000_000;

/// What a run is made of: its seed, and what is left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Transactions.
    pub transactions: usize,
    /// Orders that are left out, by number.
    pub without_orders: Vec<usize>,
    /// Kinds of faults that are left out.
    pub without_faults: Vec<Fault>,
}

/// Who has sent something outside a Kafka transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// The server, in which life.
    pub server: usize,
    /// Which life of it.
    pub life: u32,
    /// The shard.
    pub partition: i32,
    /// The tenure.
    pub tenure: u64,
    /// What it is called there; `None` may be lost.
    pub ticket: Option<Ticket>,
}

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A record reaches the leader.
    Arrive(Place, Record, Option<Sender>),
    /// A record that has waited in its sender is sent, if he still lives.
    Resend(Place, Record, Option<Sender>),
    /// What stands below an offset is replicated, if that leader still leads.
    Replicate(Place, u32, i64),
    /// A server hears something, if it is still the same life.
    Server(usize, u32, ToServer),
    /// A request in a Kafka transaction reaches the broker.
    Transaction(crate::server::Request),
    /// A participant handles the command at this offset of its topic.
    Handle(u8, i64),
    /// A participant that voted yes to the command at this offset may be in doubt: how often it has come to this, and
    /// how long it has waited.
    Doubt(u8, i64, u32, i64),
    /// Somebody outside does something.
    Client(Wish),
    /// Something goes wrong.
    Trouble(Trouble),
}

struct Scheduled {
    at: i64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything.
pub struct World {
    /// Now, in milliseconds since the epoch.
    pub now: i64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    pub(crate) plan: Plan,
    pub(crate) partitions: i32,
    /// Whether there are definitions that start others.
    pub(crate) has_children: bool,
    pub(crate) behind: Option<Behind>,
    /// An inbox partition takes nothing before this.
    pub(crate) inbox_away: BTreeMap<i32, i64>,
    pub(crate) net: Rng,
    pub(crate) kafka: Kafka,
    pub(crate) servers: Vec<Server>,
    /// Who has which shard, as the group sees it.
    pub(crate) assigned: BTreeMap<i32, usize>,
    pub(crate) desks: Vec<Desk>,
    pub(crate) orders: Vec<Order>,
    pub(crate) definitions: Vec<String>,
    /// What goes wrong, and how often it has.
    pub faults: Faults,
    /// Who looks on.
    pub witness: Witness,
    last_arrival: BTreeMap<(Option<(usize, u32)>, Place), i64>,
    last_replication: BTreeMap<Place, i64>,
    pub(crate) trouble_ms: i64,
    pub(crate) retries: BTreeMap<Birth, u32>,
    pub(crate) standstill: u32,
    pub(crate) level: u32,
    /// Shards that an injected fault has brought to a lasting halt.
    pub(crate) doomed: BTreeMap<i32, Fault>,
    /// Shards whose state the cleaner has made unreadable.
    pub(crate) holes: BTreeMap<i32, Hole>,
    /// When the last takeover began that has left nothing hidden in the state of a shard.
    pub(crate) covered: BTreeMap<i32, i64>,
    /// Halts that no fault was meant to cause and that are accepted, with the evidence.
    pub(crate) accepted: BTreeMap<i32, String>,
    /// Rows of transition tables that the journal tells of.
    pub(crate) rows: BTreeSet<String>,
    /// Every event, for people; empty unless wanted.
    pub story: Option<Vec<String>>,
}

impl World {
    /// Before anything has happened.
    pub fn new(plan: Plan) -> Self {
        let mut rng = crate::stream(plan.seed, "scenario", 0);
        let mut partitions = rng.i32(1..=2);
        let servers = rng.usize(2..=3);
        let trouble_ms = TROUBLE_MS[rng.usize(0..TROUBLE_MS.len())];
        let mut definitions = workload::definitions(&mut rng);
        // From a stream of their own: what they bring changes no other run.
        let mut family = crate::stream(plan.seed, "children", 0);
        let has_children = family.u8(0..CHILDREN_IN) == 0;
        if has_children {
            partitions = [1, 2, 2, 3][family.usize(0..4)];
            definitions.extend(workload::children(&mut family));
        }
        let orders = workload::orders(plan.seed, plan.transactions, &definitions, trouble_ms);
        let faults = Faults::new(plan.seed, &plan.without_faults);
        let mut world = Self {
            now: T0_MS,
            queue: BinaryHeap::new(),
            number: 0,
            partitions,
            has_children,
            behind: None,
            inbox_away: BTreeMap::new(),
            net: crate::stream(plan.seed, "net", 0),
            kafka: Kafka::default(),
            servers: (0..servers).map(|_| Server::default()).collect(),
            assigned: BTreeMap::new(),
            desks: (0..workload::PARTICIPANTS).map(|_| Desk::default()).collect(),
            orders,
            definitions,
            faults,
            witness: Witness::new(partitions),
            last_arrival: BTreeMap::new(),
            last_replication: BTreeMap::new(),
            trouble_ms,
            retries: BTreeMap::new(),
            standstill: 0,
            level: 1,
            doomed: BTreeMap::new(),
            holes: BTreeMap::new(),
            covered: BTreeMap::new(),
            accepted: BTreeMap::new(),
            rows: BTreeSet::new(),
            story: None,
            plan,
        };
        world.begin_servers();
        world.begin_clients();
        world.begin_trouble();
        world
    }

    /// Something will happen.
    pub(crate) fn after(&mut self, ms: i64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Scheduled { at: self.now + ms.max(0), number: self.number, event }));
    }

    /// How long a message takes, in milliseconds.
    pub(crate) fn latency(&mut self) -> i64 {
        let most = [2, 5, 30][self.net.usize(0..3)];
        self.net.i64(0..most)
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        let at = self.now - T0_MS;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9} ms  {}", at, line()));
        }
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) -> Option<Violation> {
        self.run_until(T0_MS + self.trouble_ms);
        self.now = self.now.max(T0_MS + self.trouble_ms);
        if self.witness.violation.is_none() {
            self.calm_down();
            let until = self.now + CALM_MS;
            while self.witness.violation.is_none() && !self.is_over() {
                if self.now >= until {
                    let states = self.shard_states();
                    let open = self.witness.folds().map(|(partition, fold)| {
                        let open: Vec<String> = fold
                            .shard
                            .open_transactions()
                            .map(|t| format!("{} {:?} stuck {}", t.id, t.phase, t.is_stuck()))
                            .collect();
                        let due = fold.shard.timers().next_due().map(|due| due.epoch_ms() - T0_MS);
                        let next = fold.shard.next_offset();
                        format!(
                            "shard {partition} at {next}, held {:?}, next timer {due:?}: {}",
                            fold.held,
                            open.join(", ")
                        )
                    });
                    let text =
                        format!("still open: {}; shards {states:?}", open.collect::<Vec<_>>().join("; "));
                    self.witness.violated(&inv::ALL_ENDS, text);
                    break;
                }
                let next = self.queue.peek().map_or(0, |Reverse(next)| next.at);
                // What is to come hours later must not keep operators from looking.
                let step = next.clamp(self.now + 5_000, self.now + 300_000);
                self.run_until(step);
                self.now = self.now.max(step);
                self.help_the_stuck();
            }
        }
        if self.witness.violation.is_none() {
            self.check_the_end();
        }
        self.witness.violation.clone()
    }

    fn run_until(&mut self, until: i64) {
        while self.witness.violation.is_none() {
            let Some(Reverse(next)) = self.queue.peek() else { break };
            if next.at > until {
                break;
            }
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = next.at;
            self.happens(next.event);
        }
    }

    /// Whether nothing is still to come, beside what idle servers do and what only those in doubt would do.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.iter().all(|Reverse(next)| {
            matches!(
                next.event,
                Event::Server(_, _, ToServer::Wake(..)) | Event::Trouble(_) | Event::Doubt(..)
            )
        })
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrive(place, record, sender) => self.arrives(place, record, sender),
            Event::Resend(place, record, sender) => {
                if self.lives(sender) {
                    self.arrives(place, record, sender);
                }
            }
            Event::Replicate(place, leader, upto) => self.replicated(place, leader, upto),
            Event::Server(server, life, heard) => self.server_hears(server, life, heard),
            Event::Transaction(request) => self.transaction_request(request),
            Event::Handle(participant, offset) => self.handles(participant, offset),
            Event::Doubt(participant, offset, times, patience) => {
                self.doubts(participant, offset, times, patience);
            }
            Event::Client(wish) => self.client_does(wish),
            Event::Trouble(trouble) => self.goes_wrong(trouble),
        }
    }

    /// Sends a record outside any Kafka transaction. Those of one sender to one partition keep their order.
    pub(crate) fn send(&mut self, place: Place, record: Record, sender: Option<Sender>) {
        let mut delay = self.latency();
        if sender.is_some() && self.faults.strikes(Fault::LateDelivery, 60) {
            delay += self.faults.span(Fault::LateDelivery);
        }
        let line = (sender.map(|sender| (sender.server, sender.life)), place);
        let at = (self.now + delay).max(self.last_arrival.get(&line).copied().unwrap_or_default());
        self.last_arrival.insert(line, at);
        self.after(at - self.now, Event::Arrive(place, record, sender));
    }

    fn arrives(&mut self, place: Place, record: Record, sender: Option<Sender>) {
        if let Place::Commands(participant) = place {
            let desk = &self.desks[usize::from(participant)];
            if self.now < desk.missing_until {
                self.faults.note(Fault::Undeliverable);
                return self.answer_sender(sender, crate::server::Delivery::Never);
            }
            if self.now < desk.dead_until {
                self.faults.note(Fault::DeadTopic);
                let wait = desk.dead_until - self.now;
                return self.after(wait, Event::Resend(place, record, sender));
            }
        }
        if let Place::Inbox(partition) = place
            && let Some(until) = self.inbox_away.get(&partition).copied().filter(|until| self.now < *until)
        {
            self.faults.note(Fault::InboxAway);
            return self.after(until - self.now, Event::Resend(place, record, sender));
        }
        let offset = self.kafka.append(place, record.clone(), self.now);
        let leader = self.kafka.at(place).leader;
        let delay = self.latency();
        let at = (self.now + delay).max(self.last_replication.get(&place).copied().unwrap_or_default());
        self.last_replication.insert(place, at);
        self.after(at - self.now, Event::Replicate(place, leader, offset + 1));
        // What is not replicated when its leader goes is sent again by whoever still lives.
        self.kafka.at(place).waiting.push((offset, record, sender));
    }

    fn replicated(&mut self, place: Place, leader: u32, upto: i64) {
        let partition = self.kafka.at(place);
        if partition.leader != leader || !partition.replicate(upto) {
            return;
        }
        let count = partition.waiting.partition_point(|(offset, _, _)| *offset < upto);
        let arrived: Vec<_> = partition.waiting.drain(..count).collect();
        for (_, _, sender) in arrived {
            let false_failure = sender.is_some_and(|sender| sender.ticket.is_some())
                && self.faults.strikes(Fault::FalseFailure, 100);
            let delivery = if false_failure {
                crate::server::Delivery::Failed
            } else {
                crate::server::Delivery::Arrived
            };
            self.answer_sender(sender, delivery);
        }
        match place {
            Place::Inbox(partition) => {
                self.look_on(partition);
                self.wake_owners(partition);
            }
            Place::Commands(participant) => self.hand_out(participant),
            Place::State(_) | Place::Journal(_) | Place::Outcomes | Place::DeadLetters => {}
        }
    }

    fn answer_sender(&mut self, sender: Option<Sender>, delivery: crate::server::Delivery) {
        let Some(sender) = sender else { return };
        let Some(ticket) = sender.ticket else { return };
        let delay = self.latency();
        let heard = ToServer::Report(sender.partition, sender.tenure, ticket, delivery);
        self.after(delay, Event::Server(sender.server, sender.life, heard));
    }

    /// A new leader of a partition: what was not replicated is sent again by those who still live.
    pub(crate) fn elect(&mut self, place: Place, skew: i64) {
        let partition = self.kafka.at(place);
        partition.elect(skew);
        for (_, record, sender) in std::mem::take(&mut partition.waiting) {
            if self.lives(sender) {
                self.send(place, record, sender);
            }
        }
    }

    fn lives(&self, sender: Option<Sender>) -> bool {
        sender.is_none_or(|sender| {
            self.servers[sender.server].life == sender.life && self.servers[sender.server].up
        })
    }

    /// The witness folds what has become visible.
    pub(crate) fn look_on(&mut self, partition: i32) {
        loop {
            if self.witness.violation.is_some() || self.witness.fold(partition).cut {
                return;
            }
            let fold = self.witness.fold(partition);
            let next = fold.said.len();
            let inbox = self.kafka.at(Place::Inbox(partition));
            let Some(entry) = i64::try_from(next).ok().and_then(|next| inbox.get(next)).cloned() else {
                return;
            };
            let poisoned = planted::poisons(entry.record.value.as_deref());
            let skip = poisoned
                .then(|| {
                    inbox.visible().find_map(|later| skip_of(later.record.value.as_deref(), entry.offset))
                })
                .flatten();
            self.witness.sees(partition, &entry, poisoned, skip.as_ref());
            if self.witness.fold(partition).held.is_some() {
                return;
            }
        }
    }
}

//! The owner of one partition: takes it over, takes commands in batches, and begins anew with whatever is not as it should
//! be. One recovery path, and it is the one that a start takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagamore_kafka::client::SESSION_TIMEOUT_MS;
use tracing::{error, info, warn};

use super::members::Members;
use super::place::KafkaPlace;
use super::{KafkaOnlySettings, wait};
use crate::barrier::Branch;
use crate::doubt::Settled;
use crate::participant::Participant;
use crate::perform::{Answered, Work};
use crate::runtime::asker::{Asker, Rounds};
use crate::runtime::counters::count;
use crate::runtime::desk::{Desk, Done, Taken, Wish, Word};
use crate::runtime::doubts::Doubts;
use crate::runtime::progress::Token;
use crate::runtime::replies::{Replies, Shared};
use crate::runtime::{Trouble, hash_of};
use crate::store::Store;
use crate::store::kafka::{KafkaStore, LogFault};

/// How long a poll waits for a first command: what a stop waits for, and the thread's other duties.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Before a takeover after a failure; then twice as long, and so on.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// After being fenced: as long as it takes until the group says that the partition went elsewhere.
const PAUSE_FENCED: Duration = Duration::from_millis(SESSION_TIMEOUT_MS as u64);
/// While a person has to look.
const PAUSE_HALTED: Duration = Duration::from_secs(30);
/// A batch this large, in bytes, is written before more is taken into it.
const BATCH_BYTES_ENOUGH: usize = 512 * 1024;
/// How long the coordinator of the group may take to answer.
const GROUP_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Owner<P: Participant<Store = KafkaStore>> {
    partition: i32,
    participant: Arc<P>,
    settings: Arc<KafkaOnlySettings>,
    store: Arc<KafkaStore>,
    desk: Desk,
    replies: Arc<Replies>,
    shared: Arc<Shared>,
    is_over: Arc<AtomicBool>,
    /// Below this offset each command has a batch of its own: one among them cannot be written.
    alone_below: i64,
    /// The command that cannot be written, and why.
    refused: Option<(i64, String)>,
}

impl<P: Participant<Store = KafkaStore>> Owner<P> {
    pub(super) fn new(members: &Members<P>, partition: i32, is_over: Arc<AtomicBool>) -> Self {
        let Members { participant, settings, desk, replies, shared, partitions, .. } = members;
        let place = KafkaPlace::new(Arc::clone(settings), partition, *partitions);
        Self {
            partition,
            participant: Arc::clone(participant),
            settings: Arc::clone(settings),
            store: Arc::new(KafkaStore::new(place, settings.bounds)),
            desk: desk.clone(),
            replies: Arc::clone(replies),
            shared: Arc::clone(shared),
            is_over,
            alone_below: 0,
            refused: None,
        }
    }

    pub(super) fn run(mut self) {
        let partition = self.partition;
        let mut pause = PAUSE_FIRST;
        while !self.is_over() {
            let batches = self.shared.counts.batches.load(Ordering::Relaxed);
            let fault = match self.tenure() {
                Ok(()) => return,
                Err(fault) => fault,
            };
            if self.shared.counts.batches.load(Ordering::Relaxed) > batches {
                pause = PAUSE_FIRST;
            }
            count(&self.shared.counts.dropped);
            let rest = match &fault {
                LogFault::Fenced => {
                    info!(partition, "{fault}: this one is dropped");
                    PAUSE_FENCED
                }
                LogFault::Halted(_) => {
                    error!(partition, "stands still until a person has looked: {fault}");
                    PAUSE_HALTED
                }
                LogFault::Refused(_) | LogFault::Indefinite(_) => {
                    warn!(partition, %fault, "dropped, and taken over again");
                    pause
                }
            };
            pause = (2 * pause).min(PAUSE_LAST);
            wait(rest, || self.is_over());
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// From a takeover to the end of the ownership.
    fn tenure(&mut self) -> Result<(), LogFault> {
        let begun = Instant::now();
        let consumer: BaseConsumer = (self.settings.clients)
            .participant_partition_consumer(&self.settings.group())
            .create()
            .map_err(|failure| indefinite(&failure))?;
        // Before the takeover: afterwards, another owner may have come who has told more.
        let told = self.told(&consumer)?;
        let session = self.store.take_over()?;
        self.must_know(session.position(), told)?;
        let from = session.position().map_or(Offset::Beginning, Offset::Offset);
        let mut assignment = TopicPartitionList::new();
        let assigned = assignment.add_partition_offset(&self.desk.topic, self.partition, from);
        assigned.and_then(|()| consumer.assign(&assignment)).map_err(|failure| indefinite(&failure))?;
        let (partition, branches) = (self.partition, session.branches());
        let (position, took_ms) = (session.position(), begun.elapsed().as_millis());
        info!(partition, branches, ?position, took_ms, "taken over");
        self.shared.progress.assign([partition]);
        let doubts = Arc::new(Doubts::default());
        let mut tenure = Tenure {
            asker: Asker {
                participant: Arc::clone(&self.participant),
                store: Arc::clone(&self.store),
                session: Some(session),
                replies: Arc::clone(&self.replies),
                shared: Arc::clone(&self.shared),
                doubts: Arc::clone(&doubts),
                topic: Arc::clone(&self.desk.topic),
                name: self.settings.participant.clone(),
                rounds: Rounds::new(self.settings.asks_after),
            },
            doubts,
            open: Vec::new(),
        };
        let ended = self.work(&consumer, &mut tenure);
        tenure.asker.leave();
        self.shared.progress.revoke(&[partition], Duration::ZERO);
        // They belong to nobody now: no offset moves with them.
        tenure.open.into_iter().for_each(|token| self.shared.progress.finish(token));
        ended
    }

    /// How far the group says that commands have been answered.
    fn told(&self, consumer: &BaseConsumer) -> Result<i64, LogFault> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.desk.topic, self.partition);
        let known =
            consumer.committed_offsets(asked, GROUP_TIMEOUT).map_err(|failure| indefinite(&failure))?;
        let offset = known.elements().iter().find_map(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        Ok(offset.unwrap_or(0))
    }

    /// The group is told of what a memory had committed by then: one that knows less has lost something, and with it what
    /// must not be done twice.
    fn must_know(&self, position: Option<i64>, told: i64) -> Result<(), LogFault> {
        if position.unwrap_or(0) >= told {
            return Ok(());
        }
        let (topic, partition, group) = (&self.desk.topic, self.partition, self.settings.group());
        let knows = position.map_or("nothing".to_owned(), |position| format!("them up to {position}"));
        Err(LogFault::Halted(format!(
            "commands up to {told} of {topic}/{partition} have been answered, and the memory knows {knows}: it is not the \
             one they were answered with. Restore it; or, if it is meant to begin anew, delete the offsets of the group \
             {group} (kafka-consumer-groups --delete-offsets)"
        )))
    }

    fn work(&mut self, consumer: &BaseConsumer, tenure: &mut Tenure<P>) -> Result<(), LogFault> {
        let mut trouble = Trouble::default();
        while !self.is_over() {
            tenure.asker.turn();
            let batch = self.take(consumer, &mut trouble);
            if !batch.is_empty() {
                self.answer(&batch, tenure)?;
            }
        }
        Ok(())
    }

    /// What is there, bounded by count and bytes; waits for the first one only.
    fn take(&self, consumer: &BaseConsumer, trouble: &mut Trouble) -> Vec<Taken> {
        let (mut batch, mut bytes, mut timeout) = (Vec::new(), 0, IDLE_POLL);
        while batch.len() < self.settings.batch_max.get() && bytes < BATCH_BYTES_ENOUGH {
            match consumer.poll(timeout) {
                Some(Ok(message)) => {
                    trouble.over();
                    let Some(token) = self.shared.progress.take(self.partition, message.offset()) else {
                        continue;
                    };
                    let value = message.payload().unwrap_or_default().to_vec();
                    bytes += value.len();
                    batch.push(Taken {
                        token: Some(token),
                        partition: self.partition,
                        offset: message.offset(),
                        key_hash: hash_of(message.key()),
                        key: Vec::new(),
                        value,
                    });
                    timeout = Duration::ZERO;
                }
                Some(Err(failure)) => {
                    trouble.tell(&self.desk.topic, &failure);
                    break;
                }
                None => break,
            }
        }
        batch
    }

    /// One Kafka transaction, or several where the work is too large for one.
    fn answer(&mut self, batch: &[Taken], tenure: &mut Tenure<P>) -> Result<(), LogFault> {
        let mut began = batch.iter().map(Taken::token).collect();
        self.shared.progress.begin(&mut began, |token| *token);
        tenure.open.extend(began);
        let mut rest = batch;
        while let Some(first) = rest.first() {
            let (taken, written) = self.write(rest, tenure);
            match written {
                Ok(()) => {
                    count(&self.shared.counts.batches);
                    tenure.open.drain(..taken).for_each(|token| self.shared.progress.finish(token));
                }
                Err(LogFault::Refused(reason)) if taken == 1 => {
                    warn!(
                        partition = self.partition,
                        offset = first.offset,
                        reason,
                        "a command that cannot be written"
                    );
                    self.refused = Some((first.offset, reason.clone()));
                    return Err(LogFault::Refused(reason));
                }
                Err(fault) => {
                    if matches!(fault, LogFault::Refused(_)) {
                        self.alone_below = rest[taken - 1].offset + 1;
                    }
                    return Err(fault);
                }
            }
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// As many of these as fit, and what became of them.
    fn write(&self, batch: &[Taken], tenure: &mut Tenure<P>) -> (usize, Result<(), LogFault>) {
        let fault = |fault: crate::store::StoreFault| LogFault::Indefinite(fault.to_string());
        let Some(session) = tenure.asker.session.as_mut() else {
            return (1, Err(LogFault::Indefinite("the last Kafka transaction failed".into())));
        };
        let mut tx = match self.store.begin(session) {
            Ok(tx) => tx,
            Err(cause) => return (1, Err(fault(cause))),
        };
        let (mut taken, mut told) = (0, Vec::new());
        for one in batch {
            taken += 1;
            tx.taken_to(one.offset + 1);
            if let Some(wish) = self.desk.read(one) {
                if let Wish::Verdict(branch, _) = &wish {
                    tenure.doubts.answered(branch);
                }
                let done = match self.forbidden(one, &wish) {
                    Some(reason) => Ok(Done::Answered(Answered::error(reason))),
                    None => wish.carry_out(&*self.participant, &mut tx),
                };
                let done = match done {
                    Ok(done) => done,
                    Err(cause) => return (taken, Err(fault(cause))),
                };
                told.push(match (wish, done) {
                    (Wish::Command(_, command), Done::Answered(answered)) => {
                        tenure.doubts.on_command(one.token(), &command, &answered, Instant::now());
                        let replyto = command.replyto.to_string();
                        let (key, value) = self.desk.reply(command, &answered);
                        tx.reply(&replyto, &String::from_utf8_lossy(&key), value);
                        Told::Answered(answered.work)
                    }
                    (Wish::Verdict(branch, word), Done::Settled(settled)) => {
                        Told::Settled(branch, word, settled)
                    }
                    (Wish::Verdict(branch, word), Done::Answered(failed)) => {
                        Told::Settled(branch, word, Settled::Told(failed))
                    }
                    (Wish::Command(..), Done::Settled(_)) => unreachable!("a command is answered"),
                });
            }
            if one.offset < self.alone_below || tx.bytes() >= BATCH_BYTES_ENOUGH {
                break;
            }
        }
        let written = tx.write();
        if written.is_ok() {
            for one in told {
                match one {
                    Told::Answered(work) => self.desk.count(work),
                    Told::Settled(branch, word, settled) => {
                        self.desk.tell_settled(&branch, &word, settled);
                    }
                }
            }
        }
        (taken, written)
    }

    /// Why it is answered `error` without being tried.
    fn forbidden(&self, taken: &Taken, wish: &Wish<'_>) -> Option<String> {
        if let Some((offset, reason)) = &self.refused
            && *offset == taken.offset
        {
            return Some(reason.clone());
        }
        let Wish::Command(_, command) = wish else { return None };
        self.participant.before(command).err().map(|fault| fault.reason().to_owned())
    }
}

fn indefinite(failure: &KafkaError) -> LogFault {
    LogFault::Indefinite(format!("commands: {failure}"))
}

/// What is told once it is committed.
enum Told {
    Answered(Work),
    Settled(Branch, Word, Settled),
}

/// What lasts from one takeover to the next.
struct Tenure<P: Participant<Store = KafkaStore>> {
    /// It has the session, which the batches borrow.
    asker: Asker<P>,
    doubts: Arc<Doubts>,
    /// Begun, and not committed; in the order of their offsets.
    open: Vec<Token>,
}

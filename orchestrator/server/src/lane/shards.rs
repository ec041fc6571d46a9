//! The loop of a lane.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use sagamore_decider::outbox::Way;
use sagamore_decider::output::{Destination, Notice, Output, Record};
use sagamore_decider::owner::{Duty, Owner};
use sagamore_decider::restore::Restored;
use sagamore_decider::settings::LEVEL_MAX;
use sagamore_decider::takeover::check_secret;
use sagamore_kafka::crowd::{Crowd, Linger};
use sagamore_schemas::ids::Time;
use sagamore_schemas::topics::Topic;

use super::assignment::{Change, Membership};
use super::outputs::{OutputProducer, Refusal};
use super::slot::{Running, ShardState, ShardStatus, Slot, Stage};
use super::{Ending, LaneError, Query, Surroundings};
use crate::checkpointer::{Checkpointer, Event, Failure, Tenure, headers_of, timestamp_ms};
use crate::clock::now;
use crate::halt::{Code, Halt, panic_text};
use crate::metrics;
use crate::waiters::Told;

/// Records applied between two looks at everything else: a crowd must not delay checkpoints and rebalances.
const BATCH_MAX: usize = 500;
/// How long an idle lane waits for a record; timers and queries wait as long at most.
const IDLE: Duration = Duration::from_millis(5);
/// The same while acknowledgements are awaited.
const BUSY: Duration = Duration::from_millis(1);
/// First pause after a failure; it doubles up to [`REST_MAX`].
const REST_MIN: Duration = Duration::from_millis(100);
/// Longest pause after failures.
const REST_MAX: Duration = Duration::from_secs(5);
/// Pause after being fenced: the one who fenced us is about to be the owner, or we are told otherwise by then.
const REST_FENCED: Duration = Duration::from_secs(3);
/// Pause between two reports to directory and metrics.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// A definition that has been appended to the inbox and was not applied for so long is appended again.
const DEFINITION_REPEAT: Duration = Duration::from_secs(2);
/// Outputs on their way at which company is worth the wait: with so many the waits along a transaction's way, a tenth
/// of a second in sum, do not limit the rate.
const CROWD: usize = 1_500;
/// How long a graceful stop waits for last checkpoints.
const STOP_MAX: Duration = Duration::from_secs(10);

pub(super) struct Shards {
    lane: usize,
    surroundings: Surroundings,
    ending: Arc<AtomicU8>,
    consumer: BaseConsumer<Membership>,
    producer: OutputProducer,
    inbox: String,
    slots: BTreeMap<i32, Slot>,
    events_in: Sender<(Tenure, Event)>,
    events: Receiver<(Tenure, Event)>,
    crowd: Crowd,
    tenures: u64,
    reported: Instant,
}

impl Shards {
    pub(super) fn new(
        lane: usize,
        surroundings: Surroundings,
        ending: Arc<AtomicU8>,
    ) -> Result<Self, LaneError> {
        let installation = &surroundings.installation;
        let config = &installation.config;
        let group = config.prefix.orchestrator_group();
        let consumer: BaseConsumer<Membership> = config
            .kafka
            .inbox_consumer(&group, &installation.client_id)
            .create_with_context(Membership::default())?;
        let inbox = installation.topic(Topic::Inbox);
        consumer.subscribe(&[&inbox])?;
        let producer = OutputProducer::new(installation)?;
        let (events_in, events) = channel();
        Ok(Self {
            lane,
            surroundings,
            ending,
            consumer,
            producer,
            inbox,
            slots: BTreeMap::new(),
            events_in,
            events,
            crowd: Crowd::at(CROWD),
            tenures: 0,
            reported: Instant::now(),
        })
    }

    pub(super) fn run(&mut self, queries: &Receiver<Query>) {
        let mut stopping: Option<Instant> = None;
        loop {
            if stopping.is_none() && self.ending.load(Ordering::Acquire) == Ending::Graceful as u8 {
                tracing::info!(lane = self.lane, shards = self.slots.len(), "stopping");
                stopping = Some(Instant::now());
            }
            for query in queries.try_iter() {
                self.answer(query);
            }
            self.poll_inbox(stopping.is_some());
            for change in self.consumer.context().take_changes() {
                self.on_change(change);
            }
            while let Ok((tenure, event)) = self.events.try_recv() {
                self.on_event(tenure, event);
            }
            self.take_reports();
            self.poll_slots(stopping.is_some());
            if self.reported.elapsed() >= REPORT_EVERY {
                self.reported = Instant::now();
                self.report();
            }
            if stopping.is_some_and(|since| self.is_at_rest() || since.elapsed() > STOP_MAX) {
                break;
            }
        }
        let partitions: Vec<i32> = self.slots.keys().copied().collect();
        for partition in partitions {
            self.drop_slot(partition);
        }
        // Dropping the consumer leaves the group.
    }

    fn is_at_rest(&self) -> bool {
        self.slots.values().all(|slot| match &slot.stage {
            Stage::Running(running) => running.owner.is_at_rest(),
            Stage::Restoring(_) | Stage::Resting { .. } | Stage::Halted(..) => true,
        })
    }

    fn poll_inbox(&mut self, stopping: bool) {
        let busy = self.slots.values().any(|slot| match &slot.stage {
            Stage::Running(running) => !running.owner.outbox().is_empty() || !running.owner.is_live(),
            Stage::Restoring(_) | Stage::Resting { .. } | Stage::Halted(..) => false,
        });
        let mut patience = if busy || stopping { BUSY } else { IDLE };
        let mut broken: Vec<(i32, Halt)> = Vec::new();
        let time = now();
        for _ in 0..BATCH_MAX {
            let message = match self.consumer.poll(patience) {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    tracing::warn!(lane = self.lane, %error, "the inbox cannot be read; trying on");
                    break;
                }
                None => break,
            };
            patience = Duration::ZERO;
            let partition = message.partition();
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            // While stopping, what has been applied is stored; what has not is the successor's.
            if stopping || broken.iter().any(|(other, _)| *other == partition) {
                continue;
            }
            let skip = slot.skip.as_ref();
            let Stage::Running(running) = &mut slot.stage else { continue };
            if !running.fetched || message.offset() < running.owner.shard().next_offset() {
                continue;
            }
            if !running.owner.may_apply(time) {
                running.fetched = false;
                self.unfetch(partition);
                continue;
            }
            if let Err(halt) = apply(running, &message, time, skip, &self.surroundings) {
                broken.push((partition, halt));
            }
        }
        for (partition, halt) in broken {
            self.halt(partition, halt);
        }
    }

    fn on_change(&mut self, change: Change) {
        match change {
            Change::Given(partitions) => {
                tracing::info!(lane = self.lane, ?partitions, "given");
                for partition in partitions {
                    self.take_over(partition, 0, None);
                }
            }
            Change::Taken(partitions) => {
                tracing::info!(lane = self.lane, ?partitions, "taken");
                for partition in partitions {
                    // It is not fetched any more: the rebalance saw to that.
                    self.slots.remove(&partition);
                    self.surroundings.directory.remove(partition, self.lane);
                    self.surroundings.waiters.lose(partition);
                    metrics::gone(partition);
                }
            }
        }
    }

    fn take_over(&mut self, partition: i32, failures: u32, skip: Option<crate::checkpointer::Skip>) {
        self.tenures += 1;
        let tenure = Tenure { partition, number: self.tenures };
        let installation = Arc::clone(&self.surroundings.installation);
        let definitions = Arc::clone(&self.surroundings.definitions);
        let stage = match Checkpointer::spawn(installation, definitions, tenure, self.events_in.clone()) {
            Ok(checkpointer) => Stage::Restoring(checkpointer),
            Err(error) => {
                tracing::error!(shard = partition, %error, "no thread for a takeover; trying again");
                Stage::Resting { until: Instant::now() + REST_MAX }
            }
        };
        self.slots.insert(partition, Slot { tenure, stage, skip, failures });
        self.tell_directory(partition);
    }

    fn on_event(&mut self, tenure: Tenure, event: Event) {
        let partition = tenure.partition;
        let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.tenure == tenure) else { return };
        match event {
            Event::Restored { restored, inbox_end, took } => {
                self.on_restored(partition, *restored, inbox_end, took);
            }
            Event::Written { took, records } => {
                if let Stage::Running(running) = &mut slot.stage {
                    running.owner.on_written(now());
                    running.checkpoint_took = took;
                    slot.failures = 0;
                    metrics::checkpoint(partition, took, records);
                }
            }
            Event::Failed(Failure::Halt(halt)) => self.halt(partition, halt),
            Event::Failed(Failure::Fenced) => {
                tracing::warn!(shard = partition, "fenced: another owner has taken it over");
                metrics::retaken(partition, "fenced");
                self.rest(partition, Some(REST_FENCED));
            }
            Event::Failed(Failure::Indefinite(reason)) => {
                tracing::warn!(shard = partition, reason, "dropped, to be taken over again");
                metrics::retaken(partition, "indefinite");
                self.rest(partition, None);
            }
            Event::Skip(skip) => {
                tracing::warn!(
                    shard = partition,
                    offset = skip.offset,
                    actor = skip.actor,
                    "a record will be skipped"
                );
                self.take_over(partition, 0, Some(skip));
            }
        }
    }

    fn on_restored(&mut self, partition: i32, restored: Restored, inbox_end: i64, took: Duration) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let from = restored.shard.next_offset();
        let (open, owed) = (restored.shard.open_count(), restored.owed.len());
        let resting = Stage::Resting { until: Instant::now() };
        let Stage::Restoring(checkpointer) = std::mem::replace(&mut slot.stage, resting) else { return };
        tracing::info!(
            shard = partition,
            from,
            inbox_end,
            open,
            owed,
            took_ms = took.as_millis(),
            "restored"
        );
        metrics::takeover(partition, took);
        let pace = self.surroundings.installation.config.pace;
        slot.stage = Stage::Running(Box::new(Running {
            owner: Owner::new(restored, inbox_end, pace, now()),
            checkpointer,
            fetched: false,
            definitions_appended: None,
            told_live: false,
            checkpoint_took: Duration::ZERO,
            inputs: 0,
            outputs: metrics::Outputs::default(),
        }));
        // poll_slots begins to fetch.
    }

    fn halt(&mut self, partition: i32, halt: Halt) {
        tracing::error!(
            shard = partition,
            code = halt.code.as_str(),
            offset = halt.offset,
            reason = halt.reason,
            "halted: it needs an operator, see deploy/runbook"
        );
        self.unfetch(partition);
        self.surroundings.waiters.lose(partition);
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let looking = match (halt.code, halt.offset) {
            (Code::Panic, Some(offset)) => {
                let installation = Arc::clone(&self.surroundings.installation);
                let events = self.events_in.clone();
                Checkpointer::look_ahead(installation, slot.tenure, offset, events)
                    .inspect_err(
                        |error| tracing::error!(shard = partition, %error, "no thread to look ahead"),
                    )
                    .ok()
            }
            _ => None,
        };
        slot.stage = Stage::Halted(halt, looking);
        self.tell_directory(partition);
    }

    fn rest(&mut self, partition: i32, pause: Option<Duration>) {
        self.unfetch(partition);
        self.surroundings.waiters.lose(partition);
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.failures += 1;
            let grown = REST_MIN.saturating_mul(1 << slot.failures.min(10)).min(REST_MAX);
            slot.stage = Stage::Resting { until: Instant::now() + pause.unwrap_or(grown) };
        }
        self.tell_directory(partition);
    }

    fn drop_slot(&mut self, partition: i32) {
        self.unfetch(partition);
        self.slots.remove(&partition);
        self.surroundings.directory.remove(partition, self.lane);
        self.surroundings.waiters.lose(partition);
    }

    fn take_reports(&mut self) {
        for report in self.producer.take_reports() {
            let partition = report.tenure.partition;
            let slot = self.slots.get_mut(&partition).filter(|slot| slot.tenure == report.tenure);
            let Some(Slot { stage: Stage::Running(running), .. }) = slot else { continue };
            match report.result {
                Ok(()) => running.owner.on_delivered(report.ticket),
                Err(Refusal::Later(reason)) => {
                    tracing::debug!(shard = partition, reason, "an output is sent again");
                    running.owner.on_failed(report.ticket);
                }
                Err(Refusal::Never(reason)) => {
                    metrics::undeliverable(partition);
                    match running.owner.on_undeliverable(report.ticket, &reason) {
                        Ok(()) => tracing::warn!(shard = partition, reason, "a command cannot be delivered"),
                        Err(destination) => tracing::error!(
                            shard = partition,
                            reason,
                            ?destination,
                            "an output cannot be delivered and must not be lost: the shard goes no further"
                        ),
                    }
                }
            }
        }
        if let Some(reason) = self.producer.fatal_error() {
            tracing::error!(
                lane = self.lane,
                reason,
                "the output producer is dead: all shards are taken over again"
            );
            match OutputProducer::new(&self.surroundings.installation) {
                Ok(producer) => self.producer = producer,
                Err(error) => tracing::error!(lane = self.lane, %error, "no new output producer"),
            }
            let partitions: Vec<i32> = self.slots.keys().copied().collect();
            for partition in partitions {
                self.rest(partition, None);
            }
        }
    }

    /// How outputs are to leave, by how many of all shards are on their way.
    fn way(&mut self) -> Way {
        let on_their_way = self.slots.values().map(|slot| match &slot.stage {
            Stage::Running(running) => running.owner.outbox().len(),
            Stage::Restoring(_) | Stage::Resting { .. } | Stage::Halted(..) => 0,
        });
        match self.crowd.look(on_their_way.sum(), Instant::now()) {
            Linger::None => Way::AtOnce,
            Linger::Crowd => Way::InCompany,
        }
    }

    fn poll_slots(&mut self, stopping: bool) {
        let time = now();
        let mut due: Vec<i32> = Vec::new();
        let mut fetch: Vec<(i32, i64)> = Vec::new();
        let mut hopeless: Vec<i32> = Vec::new();
        let way = self.way();
        for (partition, slot) in &mut self.slots {
            match &mut slot.stage {
                Stage::Running(running) => {
                    let owner = &mut running.owner;
                    let installation = &self.surroundings.installation;
                    let producer = &mut self.producer;
                    owner.send(time, way, |ticket, route, output, way| {
                        producer.send(installation, slot.tenure, ticket, route, output, way)
                    });
                    for duty in owner.poll(time, stopping) {
                        match duty {
                            Duty::Write(checkpoint) => running.checkpointer.write(checkpoint),
                            Duty::Append { key, value } => self.producer.append(slot.tenure, &key, &value),
                        }
                    }
                    if running.owner.is_hopeless(time) {
                        hopeless.push(*partition);
                        continue;
                    }
                    if !running.fetched && running.owner.may_apply(time) {
                        running.fetched = true;
                        fetch.push((*partition, running.owner.shard().next_offset()));
                    }
                    if running.owner.is_live() && !stopping {
                        pass_on_definitions(running, slot.tenure, &self.producer, &self.surroundings);
                        if !running.told_live {
                            running.told_live = true;
                            tracing::info!(shard = partition, "caught up");
                            due.push(*partition);
                        }
                    }
                }
                Stage::Resting { until } if *until <= Instant::now() && !stopping => due.push(*partition),
                Stage::Resting { .. } | Stage::Restoring(_) | Stage::Halted(..) => {}
            }
        }
        for partition in hopeless {
            tracing::error!(
                shard = partition,
                "no checkpoint for three leases: dropped, to be taken over again"
            );
            metrics::retaken(partition, "overdue");
            self.rest(partition, None);
        }
        for partition in due {
            match self.slots.get_mut(&partition) {
                Some(Slot { stage: Stage::Resting { .. }, failures, skip, .. }) => {
                    let (failures, skip) = (*failures, skip.take());
                    self.take_over(partition, failures, skip);
                }
                _ => self.tell_directory(partition),
            }
        }
        for (partition, offset) in fetch {
            self.fetch(partition, offset);
        }
    }

    fn fetch(&mut self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        let begun = list
            .add_partition_offset(&self.inbox, partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.incremental_assign(&list));
        if let Err(error) = begun {
            tracing::warn!(shard = partition, %error, "its inbox cannot be fetched; taking it over again");
            self.rest(partition, None);
        }
    }

    fn unfetch(&self, partition: i32) {
        let fetched = self
            .consumer
            .assignment()
            .is_ok_and(|assignment| assignment.find_partition(&self.inbox, partition).is_some());
        if !fetched {
            return;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.inbox, partition);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(shard = partition, %error, "its inbox is still being fetched");
        }
    }

    fn answer(&mut self, query: Query) {
        // A client that has gone away does not want its answer.
        match query {
            Query::View { partition, id, answer } => {
                if let Some(Slot { stage: Stage::Running(running), .. }) = self.slots.get(&partition)
                    && running.owner.is_live()
                {
                    drop(answer.send(running.owner.shard().view(&id)));
                }
            }
            Query::OpenByDefinition { answer } => {
                let mut open: BTreeMap<String, usize> = BTreeMap::new();
                for slot in self.slots.values() {
                    if let Stage::Running(running) = &slot.stage {
                        for (definition, count) in running.owner.shard().open_by_definition() {
                            *open.entry(definition.to_string()).or_default() += count;
                        }
                    }
                }
                drop(answer.send(open));
            }
            Query::Crash { answer } => {
                let partitions: Vec<i32> = self.slots.keys().copied().collect();
                for partition in &partitions {
                    self.unfetch(*partition);
                    self.surroundings.waiters.lose(*partition);
                    self.take_over(*partition, 0, None);
                }
                answer.send(partitions.len()).ok();
            }
        }
    }

    fn report(&mut self) {
        let partitions: Vec<i32> = self.slots.keys().copied().collect();
        for partition in partitions {
            self.tell_directory(partition);
        }
    }

    fn tell_directory(&mut self, partition: i32) {
        let lane = self.lane;
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let nothing = |state| ShardStatus {
            state,
            lane,
            next_offset: 0,
            definitions_offset: -1,
            open: 0,
            finished: 0,
            unacknowledged: 0,
            checkpoint_age_ms: 0,
            oldest_open_ms: 0,
        };
        let status = match &mut slot.stage {
            Stage::Running(running) => {
                let owner = &running.owner;
                let shard = owner.shard();
                let live = owner.is_live() && !owner.is_past_lease(now());
                let status = ShardStatus {
                    state: if live { ShardState::Running } else { ShardState::Restoring },
                    lane,
                    next_offset: shard.next_offset(),
                    definitions_offset: shard.definitions().last_offset(),
                    open: shard.open_count(),
                    finished: shard.finished_count(),
                    unacknowledged: owner.outbox().len(),
                    checkpoint_age_ms: if owner.is_at_rest() {
                        0
                    } else {
                        now().since(owner.last_written()).as_ms()
                    },
                    oldest_open_ms: shard
                        .open_transactions()
                        .next()
                        .map_or(0, |oldest| now().since(oldest.born).as_ms()),
                };
                metrics::shard(partition, &status, std::mem::take(&mut running.inputs));
                running.outputs.tell();
                status
            }
            Stage::Restoring(_) | Stage::Resting { .. } => nothing(ShardState::Restoring),
            Stage::Halted(halt, _) => nothing(ShardState::Halted(halt.clone())),
        };
        self.surroundings.directory.put(partition, status);
    }
}

fn apply(
    running: &mut Running,
    message: &BorrowedMessage<'_>,
    time: Time,
    skip: Option<&crate::checkpointer::Skip>,
    surroundings: &Surroundings,
) -> Result<(), Halt> {
    let waiters = &surroundings.waiters;
    let secret = surroundings.installation.config.reply_secret.as_ref();
    let offset = message.offset();
    let timestamp = Time::from_epoch_ms(timestamp_ms(message.timestamp()));
    if !running.owner.trusts(timestamp, time) {
        let reason = format!("its time is {timestamp}, ours is {time}: one of the two clocks is wrong");
        return Err(Halt { code: Code::ClockAhead, reason, offset: Some(offset) });
    }
    let headers = headers_of(message);
    let record =
        Record { offset, timestamp, key: message.key(), value: message.payload(), headers: &headers };
    if let Some(skip) = skip.filter(|skip| skip.offset == offset) {
        running.owner.on_skip(&record, &skip.authority(), time);
        return Ok(());
    }
    let key = message.key().unwrap_or_default();
    let Running { owner, outputs, .. } = running;
    let told = |output: &Output| {
        outputs.count(&output.destination);
        if let (Destination::Outcomes, Some(key), Some(value)) =
            (&output.destination, &output.key, &output.value)
        {
            waiters.tell(key, || Told::Outcome(Arc::from(&**value)));
        }
    };
    let notice = catch_unwind(AssertUnwindSafe(|| owner.on_record(&record, time, told)));
    let notice = notice.map_err(|panic| Halt {
        code: Code::Panic,
        reason: panic_text(&*panic),
        offset: Some(offset),
    })?;
    running.inputs += 1;
    if !owner.shard().is_understood() {
        let reason =
            format!("the level was raised to {}, this binary knows {LEVEL_MAX}", owner.shard().level());
        return Err(Halt { code: Code::LevelUnknown, reason, offset: Some(offset) });
    }
    if notice == Notice::VerbTaken {
        check_secret(owner.shard().settings(), secret).map_err(|error| Halt {
            code: Code::WrongSecret,
            reason: error.to_string(),
            offset: Some(offset),
        })?;
    }
    if notice != Notice::None {
        metrics::notice(&notice);
        waiters.tell(key, || Told::Applied { offset, notice });
    }
    Ok(())
}

fn pass_on_definitions(
    running: &mut Running,
    tenure: Tenure,
    producer: &OutputProducer,
    surroundings: &Surroundings,
) {
    let known = running.owner.shard().definitions().last_offset();
    let last = surroundings.definitions.last_offset();
    if last <= known {
        return;
    }
    let from = match running.definitions_appended {
        Some((appended, at)) if at.elapsed() < DEFINITION_REPEAT => appended.max(known),
        Some(_) | None => known,
    };
    for (offset, value) in surroundings.definitions.after(from) {
        producer.append(tenure, "", &value);
        running.definitions_appended = Some((offset, Instant::now()));
    }
}

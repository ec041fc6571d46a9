//! What is counted, with bounded labels: shards, destinations, reasons; never ids.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use sagamore_decider::output::{Destination, Notice};
use sagamore_schemas::ids::Span;

use crate::lane::{ShardState, ShardStatus};

/// Seconds, from a lone checkpoint to a takeover over an open Kafka transaction.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Seconds, from one step on an idle machine to a saga that waits for a person.
const LONG_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 3_600.0, 86_400.0];

/// Makes this process count; the handle prints it in Prometheus' text format.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    begin();
    describe_counter!("sagamore_inputs_total", "Inbox records applied, by shard");
    describe_counter!("sagamore_outputs_total", "Records sent, by kind of destination");
    describe_counter!("sagamore_starts_refused_total", "Starts refused, by reason");
    describe_counter!("sagamore_undeliverable_total", "Outputs that can never be delivered, by shard");
    describe_counter!("sagamore_retaken_total", "Shards dropped to be taken over again, by shard and cause");
    describe_counter!("sagamore_checkpoint_records_total", "Records written by checkpoints, by shard");
    describe_gauge!("sagamore_open_transactions", "Open transactions, by shard");
    describe_gauge!("sagamore_finished_remembered", "Ended transactions remembered, by shard");
    describe_gauge!("sagamore_unacknowledged_outputs", "Outputs not yet acknowledged, by shard");
    describe_gauge!(
        "sagamore_checkpoint_age_seconds",
        "Time since the last checkpoint while one is due, by shard"
    );
    describe_gauge!("sagamore_lag_records", "Inbox records not yet applied, by shard");
    describe_gauge!(
        "sagamore_shard_state",
        "0 restoring, 1 running, 2 halted, -1 on another server, by shard"
    );
    describe_gauge!("sagamore_kafka_reachable", "1 while brokers answer");
    describe_counter!("sagamore_inputs_without_trace_total", "Inputs that changed nothing, by shard");
    describe_counter!("sagamore_verbs_refused_total", "Verbs of operators that were refused");
    describe_gauge!("sagamore_stuck_transactions", "Transactions that need a person, by definition");
    describe_gauge!("sagamore_oldest_open_seconds", "Age of the oldest open transaction, by shard");
    describe_histogram!("sagamore_transaction_seconds", "Start to end, by definition and outcome");
    describe_histogram!("sagamore_step_seconds", "Asked to answered, by participant and operation");
    describe_gauge!("sagamore_view_lag_records", "Journal records the view has not read yet, by shard");
    describe_counter!("sagamore_view_entries_total", "Journal entries the view has read");
    describe_counter!("sagamore_view_unreadable_total", "Journal records nobody can read");
    describe_histogram!("sagamore_checkpoint_seconds", "Duration of a checkpoint's Kafka transaction");
    describe_gauge!("sagamore_snapshot_age_seconds", "Age of the newest snapshot, by shard");
    describe_gauge!("sagamore_snapshot_bytes", "Size of the newest snapshot before compression, by shard");
    describe_histogram!("sagamore_snapshot_seconds", "Duration of a snapshot, from reading the state on");
    describe_histogram!("sagamore_takeover_seconds", "Duration of a takeover");
    Ok(handle)
}

/// Counters that alerts look at begin at zero: what comes into being with its first event cannot be seen to rise.
fn begin() {
    counter!("sagamore_starts_refused_total", "reason" => "overloaded").increment(0);
    counter!("sagamore_verbs_refused_total").increment(0);
    counter!("sagamore_view_unreadable_total").increment(0);
    counter!("sagamore_outputs_total", "destination" => "dead-letters").increment(0);
}

/// With the buckets of every histogram.
pub(crate) fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("sagamore_transaction_seconds".to_owned()), &LONG_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("sagamore_step_seconds".to_owned()), &LONG_SECONDS)
}

pub(crate) fn checkpoint(partition: i32, took: Duration, records: usize) {
    histogram!("sagamore_checkpoint_seconds", "shard" => partition.to_string()).record(took);
    counter!("sagamore_checkpoint_records_total", "shard" => partition.to_string()).increment(records as u64);
}

pub(crate) fn snapshot_age(partition: i32, age: Span) {
    let age = Duration::from_millis(age.as_ms());
    gauge!("sagamore_snapshot_age_seconds", "shard" => partition.to_string()).set(age.as_secs_f64());
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and sizes stay far below 2^52")]
pub(crate) fn snapshot(partition: i32, took: Duration, bytes: usize) {
    histogram!("sagamore_snapshot_seconds", "shard" => partition.to_string()).record(took);
    gauge!("sagamore_snapshot_bytes", "shard" => partition.to_string()).set(bytes as f64);
}

pub(crate) fn takeover(partition: i32, took: Duration) {
    // What comes into being with its first event cannot be seen to rise: an alert would miss that one.
    undelivered(partition, 0);
    for cause in RETAKEN {
        retaken_by(partition, cause, 0);
    }
    histogram!("sagamore_takeover_seconds", "shard" => partition.to_string()).record(took);
}

/// Why a shard is dropped to be taken over again.
const RETAKEN: [&str; 3] = ["fenced", "indefinite", "overdue"];

pub(crate) fn retaken(partition: i32, cause: &'static str) {
    retaken_by(partition, cause, 1);
}

fn retaken_by(partition: i32, cause: &'static str, times: u64) {
    counter!("sagamore_retaken_total", "shard" => partition.to_string(), "cause" => cause).increment(times);
}

pub(crate) fn undeliverable(partition: i32) {
    undelivered(partition, 1);
}

fn undelivered(partition: i32, outputs: u64) {
    counter!("sagamore_undeliverable_total", "shard" => partition.to_string()).increment(outputs);
}

/// Outputs by kind of destination since they were told last: a counter is looked up by its name each time.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    commands: u64,
    inbox: u64,
    outcomes: u64,
    dead_letters: u64,
}

impl Outputs {
    pub(crate) fn count(&mut self, destination: &Destination) {
        *match destination {
            Destination::Commands(_) => &mut self.commands,
            Destination::Inbox(_) => &mut self.inbox,
            Destination::Outcomes => &mut self.outcomes,
            Destination::DeadLetters => &mut self.dead_letters,
        } += 1;
    }

    pub(crate) fn tell(&mut self) {
        let Self { commands, inbox, outcomes, dead_letters } = std::mem::take(self);
        let kinds = [
            ("commands", commands),
            ("inbox", inbox),
            ("outcomes", outcomes),
            ("dead-letters", dead_letters),
        ];
        for (kind, count) in kinds {
            counter!("sagamore_outputs_total", "destination" => kind).increment(count);
        }
    }
}

pub(crate) fn notice(notice: &Notice) {
    match notice {
        Notice::Refused { reason } => {
            // The word before the colon: a closed list of reasons, never what a client wrote.
            let word = reason.split(':').next().unwrap_or_default().to_owned();
            counter!("sagamore_starts_refused_total", "reason" => word).increment(1);
        }
        Notice::VerbRefused { .. } => counter!("sagamore_verbs_refused_total").increment(1),
        Notice::None | Notice::Accepted | Notice::VerbTaken => {}
    }
}

pub(crate) fn transaction(definition: &str, outcome: &'static str, took_ms: u64) {
    let definition = definition.to_owned();
    histogram!("sagamore_transaction_seconds", "definition" => definition, "outcome" => outcome)
        .record(Duration::from_millis(took_ms));
}

pub(crate) fn step(participant: &str, operation: &'static str, took_ms: u64) {
    let participant = participant.to_owned();
    histogram!("sagamore_step_seconds", "participant" => participant, "operation" => operation)
        .record(Duration::from_millis(took_ms));
}

/// So many more are stuck, over all shards of this server.
pub(crate) fn stuck(definition: &str, more: f64) {
    gauge!("sagamore_stuck_transactions", "definition" => definition.to_owned()).increment(more);
}

pub(crate) fn without_trace(partition: i32, inputs: u64) {
    counter!("sagamore_inputs_without_trace_total", "shard" => partition.to_string()).increment(inputs);
}

/// The shard has gone to another server, which tells of it now.
pub(crate) fn gone(partition: i32) {
    let shard = partition.to_string();
    gauge!("sagamore_open_transactions", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_oldest_open_seconds", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_finished_remembered", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_unacknowledged_outputs", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_checkpoint_age_seconds", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_lag_records", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_snapshot_age_seconds", "shard" => shard.clone()).set(0.0);
    gauge!("sagamore_shard_state", "shard" => shard).set(-1.0);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and counts stay far below 2^52")]
pub(crate) fn shard(partition: i32, status: &ShardStatus, inputs: u64) {
    let shard = partition.to_string();
    counter!("sagamore_inputs_total", "shard" => shard.clone()).increment(inputs);
    gauge!("sagamore_open_transactions", "shard" => shard.clone()).set(status.open as f64);
    gauge!("sagamore_oldest_open_seconds", "shard" => shard.clone()).set(status.oldest_open_ms as f64 / 1e3);
    gauge!("sagamore_finished_remembered", "shard" => shard.clone()).set(status.finished as f64);
    gauge!("sagamore_unacknowledged_outputs", "shard" => shard.clone()).set(status.unacknowledged as f64);
    gauge!("sagamore_checkpoint_age_seconds", "shard" => shard.clone())
        .set(status.checkpoint_age_ms as f64 / 1e3);
    gauge!("sagamore_shard_state", "shard" => shard).set(match status.state {
        ShardState::Restoring => 0.0,
        ShardState::Running => 1.0,
        ShardState::Halted(_) => 2.0,
    });
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and counts stay far below 2^52")]
pub(crate) fn lag(partition: i32, records: i64) {
    gauge!("sagamore_lag_records", "shard" => partition.to_string()).set(records as f64);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and counts stay far below 2^52")]
pub(crate) fn view_lag(partition: i32, records: i64) {
    gauge!("sagamore_view_lag_records", "shard" => partition.to_string()).set(records as f64);
}

pub(crate) fn view_entries(entries: usize) {
    counter!("sagamore_view_entries_total").increment(entries as u64);
}

pub(crate) fn view_unreadable() {
    counter!("sagamore_view_unreadable_total").increment(1);
}

pub(crate) fn reachable(yes: bool) {
    gauge!("sagamore_kafka_reachable").set(if yes { 1.0 } else { 0.0 });
}

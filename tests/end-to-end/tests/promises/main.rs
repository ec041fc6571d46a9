//! One file per promise, named after it. All share one Kafka, but for those that do something to its brokers.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

use std::time::Duration;

use sagamore_end_to_end::KAFKA;
use sagamore_end_to_end::load::{Intents, Load};
use sagamore_end_to_end::process::Process;
use sagamore_end_to_end::stage::{Server, Stage};

mod a_broker_that_restarts_loses_nothing;
mod a_damaged_state_is_rebuilt;
mod a_decision_outlives_every_server;
mod a_fold_begins_at_a_snapshot;
mod a_graceful_stop_leaves_nothing_to_replay;
mod a_killed_server_loses_nothing;
mod a_participant_that_is_away_is_waited_for;
mod a_paused_server_that_wakes_up_changes_nothing;
mod a_program_starts_and_waits;
mod any_client_can_take_part;
mod bad_input_stops_nothing;
mod children_end_with_their_parent;
mod dead_letters_are_sent_again;
mod every_server_sees_everything;
mod mixed_transactions_end_as_one;
mod one_broker_of_three_may_die;
mod orders_through_two_servers_end_right;
mod the_demo_balances_on_a_real_kafka;
mod unfit_topics_are_refused;
mod what_was_altered_is_found;
mod wrong_configuration_is_told_once;

/// `sagamore`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sagamore-under-test");
/// Orders that a load has under way at a time: enough that every shard has some.
const AT_A_TIME: usize = 12;
/// More orders than any test gets to.
const NO_END: u64 = 1_000_000;

/// Topics under a prefix of their own, on the shared Kafka.
fn stage(prefix: &str) -> Stage {
    Stage::new(KAFKA.bootstrap(), PROGRAM, prefix)
}

/// Two servers that share the shards, the definition `order`, and the three examples.
fn two_servers(stage: &Stage) -> ([Server; 2], Vec<Process>) {
    let servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    stage.define("order");
    (servers, stage.participants())
}

/// Waits until so many more starts have been answered: how tests tell the time while a load runs.
fn after(load: &Load, more: u64, what: &str) {
    let goal = load.answered() + more;
    let what = format!("{more} more answers {what}");
    sagamore_end_to_end::wait::until(Duration::from_mins(1), &what, || load.answered() >= goal);
}

/// That every server tells the same of every order, and what the outcomes say.
fn assert_known_everywhere(stage: &Stage, intents: &Intents, servers: u64) {
    for id in intents.keys() {
        let told: Vec<_> =
            (0..servers).map(|nth| stage.view(nth, id).map(|answer| (answer.status, answer.body))).collect();
        let Ok((200, first)) = &told[0] else { panic!("{id}: {told:?}") };
        assert!(told.iter().all(|answer| answer.as_ref() == Ok(&(200, first.clone()))), "{id}: {told:?}");
    }
}

//! One suite for all stores: what a participant is promised, whatever it keeps its effects in.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod ask;
mod bed;
mod beds;
mod doubt;
mod kafka;
#[macro_use]
mod promises;
#[cfg(feature = "sqlite")]
mod sqlite;
mod suite;

keeps_the_promises!(in_memory: crate::beds::Memory);
// Not: `another_instance_sees_what_the_first_has_answered` and `execute_and_compensate_race_and_nothing_is_left`. A partition
// has one owner at a time, and a second one ends the first: `kafka.rs` has what is promised instead.
keeps_the_promises!(in_kafka: crate::beds::KafkaOnly =>
    a_duplicate_repeats_the_first_answer,
    an_undoing_that_comes_first_forbids_the_doing,
    refusals_are_stored_and_their_effects_are_not,
    errors_are_never_stored,
    a_vote_is_kept_until_its_decision,
    who_is_in_doubt_is_known_until_he_is_told,
    a_verdict_is_the_command_of_that_name,
    a_verdict_about_nothing_in_doubt_does_nothing,
    whose_time_is_up_decides_by_what_he_knows,
    a_failing_command_leaves_the_others_of_its_commit_alone,
    what_is_not_committed_has_not_happened,
    answers_come_back_as_they_were_given,
    each_part_of_a_key_counts,
    a_row_is_inserted_once,
    what_was_purged_is_expired,
    a_branch_goes_as_a_whole,
    what_is_in_doubt_is_never_purged,
    a_horizon_never_goes_back,
);
#[cfg(feature = "sqlite")]
keeps_the_promises!(in_sqlite: crate::beds::Sqlite);

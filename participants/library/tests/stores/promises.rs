//! The promises by their names.

/// The suite, once for each store. A new promise is a function in `suite` and its name here.
macro_rules! keeps_the_promises {
    ($store:ident: $bed:ty) => {
        keeps_the_promises!($store: $bed =>
            a_duplicate_repeats_the_first_answer,
            an_undoing_that_comes_first_forbids_the_doing,
            refusals_are_stored_and_their_effects_are_not,
            errors_are_never_stored,
            a_vote_is_kept_until_its_decision,
            who_is_in_doubt_is_known_until_he_is_told,
            a_verdict_is_the_command_of_that_name,
            a_verdict_about_nothing_in_doubt_does_nothing,
            whose_time_is_up_decides_by_what_he_knows,
            what_is_decided_by_hand_is_done_once_and_agreed_with,
            what_is_decided_by_hand_and_contradicted_is_mixed,
            what_is_mixed_is_repaired_by_hand_alone,
            a_failing_command_leaves_the_others_of_its_commit_alone,
            what_is_not_committed_has_not_happened,
            answers_come_back_as_they_were_given,
            each_part_of_a_key_counts,
            a_row_is_inserted_once,
            another_instance_sees_what_the_first_has_answered,
            what_was_purged_is_expired,
            a_branch_goes_as_a_whole,
            what_is_in_doubt_is_never_purged,
            a_horizon_never_goes_back,
            a_position_rises_and_stays_until_it_begins_anew,
            execute_and_compensate_race_and_nothing_is_left,
        );
    };
    ($store:ident: $bed:ty => $($promise:ident,)*) => {
        mod $store {
            $(
                #[test]
                fn $promise() {
                    crate::suite::$promise::<$bed>();
                }
            )*
        }
    };
}

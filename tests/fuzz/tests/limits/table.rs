//! Every limit of the product with a name, and the test that tries it at its edge; or why there is none.
//!
//! A limit is a constant one of whose words is in `WORDS`. A new one fails here until it has a case.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sagamore_fuzz::root;

/// Words that make a constant a limit.
const WORDS: [&str; 7] = ["MAX", "MIN", "LEAST", "LIMIT", "CREDIT", "LEASES", "BYTES"];
/// Where limits are looked for.
const FOLDERS: [&str; 8] = [
    "orchestrator/decider/src",
    "orchestrator/kafka/src",
    "orchestrator/server/src",
    "schemas/src",
    "participants/client/src",
    "participants/kit/src",
    "participants/library/src",
    "participants/outbox/src",
];
/// Not the product: what the demo does is bounded by itself.
const NOT: [&str; 1] = ["orchestrator/server/src/demo/"];

enum Case {
    /// A test of this name.
    Test(&'static str),
    /// No case, for this reason.
    None(&'static str),
}

use Case::{None, Test};

const PATIENCE: Case =
    None("a wait for somebody else, not a bound of what is taken: longer or shorter is no other answer");
const PORTION: Case = None("how much is done at a time; the rest follows at once");
const SIZE: Case = None("the size of something, not a bound of it");
const CLIENT: Case = None(
    "a property of the Kafka client, which librdkafka keeps; the test of each kind of client sees it accepted",
);
const EMBEDDED: Case =
    None("what librdkafka's embedded broker can hold: the demo's arithmetic, tested beside it");
const TOPIC: Case = Test("settings_of_topics_are_good_from_their_bound_on");

const TABLE: &[(&str, &str, Case)] = &[
    (
        "orchestrator/decider/src/checkpoint.rs",
        "OWED_RECORD_BYTES_MAX",
        Test("owed_outputs_are_stored_so_many_bytes_to_a_record"),
    ),
    (
        "orchestrator/decider/src/definition/check/mod.rs",
        "BRANCHES_MAX",
        Test("a_definition_has_so_many_branches_and_a_group"),
    ),
    (
        "orchestrator/decider/src/definition/check/mod.rs",
        "ATTEMPTS_MAX",
        Test("the_numbers_of_a_definition_keep_their_ranges"),
    ),
    (
        "orchestrator/decider/src/definition/check/mod.rs",
        "FACTOR_MAX",
        Test("the_numbers_of_a_definition_keep_their_ranges"),
    ),
    (
        "orchestrator/decider/src/definition/check/mod.rs",
        "FAN_OUT_MAX",
        Test("so_many_steps_wait_for_one_and_one_for_so_many"),
    ),
    (
        "orchestrator/decider/src/definition/check/mod.rs",
        "NESTING_MAX",
        Test("so_many_generations_may_be_below_a_definition"),
    ),
    (
        "orchestrator/decider/src/definition/condition/mod.rs",
        "TEXT_MAX_BYTES",
        Test("a_condition_is_so_long_and_so_deep"),
    ),
    (
        "orchestrator/decider/src/definition/condition/mod.rs",
        "TOKENS_MAX",
        Test("a_condition_is_so_long_and_so_deep"),
    ),
    (
        "orchestrator/decider/src/definition/condition/mod.rs",
        "NESTING_MAX",
        Test("a_condition_is_so_long_and_so_deep"),
    ),
    (
        "orchestrator/decider/src/definition/condition/mod.rs",
        "DEPTH_MAX",
        Test("a_condition_is_so_long_and_so_deep"),
    ),
    (
        "orchestrator/decider/src/definition/condition/mod.rs",
        "COMPARED_DEPTH_MAX",
        Test("a_condition_does_so_much_work"),
    ),
    (
        "orchestrator/decider/src/definition/condition/mod.rs",
        "WORK_MAX",
        Test("a_condition_does_so_much_work"),
    ),
    (
        "orchestrator/decider/src/definition/source/mod.rs",
        "TEXT_DEPTH_MAX",
        Test("a_text_of_a_definition_has_so_many_bytes_and_levels"),
    ),
    (
        "orchestrator/decider/src/definition/source/mod.rs",
        "SHAPE_FAULTS_MAX",
        Test("so_many_faults_of_shape_are_told"),
    ),
    (
        "orchestrator/decider/src/definition/template.rs",
        "RENDERED_MAX_BYTES",
        Test("what_is_rendered_has_so_many_bytes"),
    ),
    (
        "orchestrator/decider/src/definition/template.rs",
        "KEY_MAX_BYTES",
        Test("what_is_rendered_has_so_many_bytes"),
    ),
    (
        "orchestrator/decider/src/definition/template.rs",
        "PATHS_MAX",
        Test("an_input_is_so_deep_and_has_so_many_paths"),
    ),
    (
        "orchestrator/decider/src/definition/template.rs",
        "PATH_SEGMENTS_MAX",
        Test("an_input_is_so_deep_and_has_so_many_paths"),
    ),
    ("orchestrator/decider/src/finished.rs", "PACKED_BYTES", Test("endings_are_packed_so_many_to_a_record")),
    (
        "orchestrator/decider/src/finished.rs",
        "PACKED_RECORD_MAX",
        Test("endings_are_packed_so_many_to_a_record"),
    ),
    ("orchestrator/decider/src/identity.rs", "BYTES_MIN", Test("a_reply_secret_has_so_many_bytes_at_least")),
    ("orchestrator/decider/src/journal.rs", "PIECE_BYTES", SIZE),
    ("orchestrator/decider/src/journal.rs", "PIECE_REST_BYTES", SIZE),
    (
        "orchestrator/decider/src/journal.rs",
        "RECORD_BYTES_MAX",
        Test("a_record_of_the_journal_ends_with_the_entry_that_is_beyond_its_bound"),
    ),
    (
        "orchestrator/decider/src/outbox.rs",
        "CREDIT",
        Test("a_destination_has_so_much_credit_and_is_owed_so_much"),
    ),
    (
        "orchestrator/decider/src/outbox.rs",
        "OWED_MAX",
        Test("a_destination_has_so_much_credit_and_is_owed_so_much"),
    ),
    (
        "orchestrator/decider/src/outbox.rs",
        "OWED_BYTES_MAX",
        Test("a_destination_has_so_much_credit_and_is_owed_so_much"),
    ),
    (
        "orchestrator/decider/src/owner.rs",
        "PAUSE_MAX",
        Test("the_pause_follows_from_the_last_checkpoint_and_has_a_bound"),
    ),
    ("orchestrator/decider/src/owner.rs", "CLOCK_AHEAD_MAX", Test("a_record_lies_so_far_ahead_at_most")),
    (
        "orchestrator/decider/src/owner.rs",
        "HOPELESS_LEASES",
        Test("the_lease_and_hope_end_to_the_millisecond"),
    ),
    ("orchestrator/decider/src/settings.rs", "LEVEL_MAX", Test("no_level_beyond_the_highest_is_restored")),
    ("orchestrator/decider/src/shard.rs", "REASON_BYTES_MAX", Test("reasons_are_cut_at_their_bound")),
    (
        "orchestrator/decider/src/shard.rs",
        "CAUSE_BYTES_MAX",
        Test("causes_of_dead_letters_are_cut_at_their_bound"),
    ),
    (
        "orchestrator/decider/src/shard.rs",
        "TRACEPARENT_BYTES_MAX",
        Test("a_trace_context_beyond_its_bound_is_none"),
    ),
    (
        "orchestrator/decider/src/timers.rs",
        "REPEAT_AFTER_MAX",
        Test("timers_ring_so_many_at_once_and_again_after_so_long"),
    ),
    (
        "orchestrator/decider/src/timers.rs",
        "BURST_MAX",
        Test("timers_ring_so_many_at_once_and_again_after_so_long"),
    ),
    ("orchestrator/kafka/src/client.rs", "REQUEST_BYTES_MAX", CLIENT),
    ("orchestrator/kafka/src/client.rs", "QUEUED_RECORDS_MAX", CLIENT),
    ("orchestrator/kafka/src/client.rs", "QUEUED_KIBIBYTES_MAX", CLIENT),
    ("orchestrator/kafka/src/client.rs", "RECONNECT_BACKOFF_MAX_MS", CLIENT),
    ("orchestrator/kafka/src/embedded.rs", "PARTITION_BYTES_MAX", EMBEDDED),
    ("orchestrator/kafka/src/embedded.rs", "PARTITION_BATCHES_MAX", EMBEDDED),
    ("orchestrator/kafka/src/embedded.rs", "ENVELOPE_BYTES", EMBEDDED),
    ("orchestrator/kafka/src/embedded.rs", "FILL_PERCENT_MAX", EMBEDDED),
    ("orchestrator/server/src/api/definitions.rs", "WAIT_MAX", PATIENCE),
    (
        "orchestrator/server/src/api/definitions.rs",
        "APPLIES_MAX",
        None("others wait for their turn, as long as they said they would"),
    ),
    (
        "orchestrator/server/src/api/kept.rs",
        "LISTENED_MAX",
        None("beyond it an outcome is told without results"),
    ),
    ("orchestrator/server/src/api/kept.rs", "KEPT_MAX", None("older ones go; unit test beside it")),
    ("orchestrator/server/src/api/kept.rs", "KEPT_BYTES_MAX", None("older ones go; unit test beside it")),
    ("orchestrator/server/src/api/mod.rs", "BODY_BYTES_MAX", Test("a_body_has_so_many_bytes")),
    ("orchestrator/server/src/api/mod.rs", "APPEND_MAX", PATIENCE),
    ("orchestrator/server/src/api/start.rs", "APPLY_MAX", PATIENCE),
    (
        "orchestrator/server/src/api/start.rs",
        "WAIT_MAX",
        Test("a_wait_and_a_list_may_be_longer_than_they_become"),
    ),
    ("orchestrator/server/src/predict/measure.rs", "LEAST_MS", SIZE),
    ("orchestrator/server/src/predict/model.rs", "ANSWERED_LEAST", SIZE),
    (
        "orchestrator/server/src/cli/predict.rs",
        "JOURNAL_RECORDS_MAX",
        None("beyond it fewer transactions are measured, and their number is said"),
    ),
    (
        "orchestrator/server/src/predict/file.rs",
        "DEPTH_MAX",
        None("a file of the operator's own; a parser's bound, tested beside it"),
    ),
    (
        "orchestrator/server/src/predict/forward.rs",
        "KEYS_MAX",
        None("resolution of an estimate, not a bound of what is taken"),
    ),
    (
        "orchestrator/server/src/predict/model.rs",
        "REPLICAS_MAX",
        None("a flag of an estimate; its refusal is tested in orchestrator/server/tests/predict.rs"),
    ),
    ("participants/client/src/http.rs", "PAUSE_MIN", PATIENCE),
    ("participants/client/src/http.rs", "PAUSE_MAX", PATIENCE),
    ("participants/client/src/http.rs", "QUOTED_MAX", None("how much of an unknown answer a message quotes")),
    ("participants/client/src/start.rs", "WAIT_MAX", PATIENCE),
    ("participants/kit/src/branch.rs", "ERRORS_MAX", PATIENCE),
    ("participants/kit/src/branch.rs", "PENDINGS_MAX", PATIENCE),
    ("participants/kit/src/inbox.rs", "ARRIVED_MAX", Test("so_many_records_are_kept_and_no_more")),
    ("participants/kit/src/process.rs", "TAIL_BYTES", SIZE),
    ("participants/library/src/runtime/asker.rs", "PAUSE_MAX", PATIENCE),
    (
        "participants/library/src/runtime/asker.rs",
        "PAUSES_MAX",
        None("beyond it pauses begin anew; unit test beside it"),
    ),
    (
        "participants/library/src/runtime/doubts.rs",
        "INQUIRIES_MAX",
        None("more wait for their turn; unit test beside it"),
    ),
    (
        "participants/library/src/runtime/doubts.rs",
        "WATCHED_MAX",
        None("others ask instead; unit test beside it"),
    ),
    ("orchestrator/server/src/api/transactions.rs", "ANSWER_MAX", PATIENCE),
    ("orchestrator/server/src/view/feed.rs", "BATCH_BYTES", PORTION),
    ("orchestrator/server/src/view/store.rs", "HELD_MAX", Test("so_many_are_held_back_and_no_more")),
    (
        "orchestrator/server/src/api/view.rs",
        "PAGE_MAX",
        Test("a_wait_and_a_list_may_be_longer_than_they_become"),
    ),
    ("orchestrator/kafka/src/transactions.rs", "COMMIT_MAX", PATIENCE),
    ("orchestrator/kafka/src/transactions.rs", "DELIVERY_MAX", PATIENCE),
    ("orchestrator/kafka/src/transactions.rs", "INIT_MAX", PATIENCE),
    ("orchestrator/server/src/checkpointer/takeover.rs", "SILENCE_MAX", PATIENCE),
    (
        "orchestrator/server/src/cli/server.rs",
        "LANES_MAX_DEFAULT",
        None("a default; how many lanes run is for the operator to say"),
    ),
    (
        "orchestrator/server/src/lane/shards.rs",
        "BATCH_MAX",
        None("how many records a lane takes in turn: a fold does not know its batches"),
    ),
    ("orchestrator/server/src/lane/shards.rs", "REST_MIN", PATIENCE),
    ("orchestrator/server/src/lane/shards.rs", "REST_MAX", PATIENCE),
    ("orchestrator/server/src/lane/shards.rs", "STOP_MAX", PATIENCE),
    (
        "schemas/src/definition.rs",
        "DEFINITION_MAX_BYTES",
        Test("a_text_of_a_definition_has_so_many_bytes_and_levels"),
    ),
    ("schemas/src/definition.rs", "STEPS_MAX", Test("a_definition_has_so_many_steps")),
    ("schemas/src/definition.rs", "INPUT_DEPTH_MAX", Test("an_input_is_so_deep_and_has_so_many_paths")),
    ("schemas/src/definition.rs", "BACKOFF_MAX", None("a default; the bound of a duration is Span::MAX")),
    ("schemas/src/ids.rs", "TRANSACTION_ID_MAX_CHARS", Test("names_have_so_many_characters")),
    ("schemas/src/ids.rs", "NAME_MAX_CHARS", Test("names_have_so_many_characters")),
    ("schemas/src/ids.rs", "MAX", Test("numbers_of_the_wire_stop_at_their_types")),
    ("schemas/src/ids.rs", "MAX_CHARS", Test("errors_quote_so_many_characters")),
    ("schemas/src/snapshot.rs", "PART_BYTES_MAX", Test("a_snapshot_is_cut_into_pieces_of_so_many_bytes")),
    ("schemas/src/topics.rs", "STATE_TOMBSTONE_RETENTION_LEAST_MS", TOPIC),
    ("schemas/src/topics.rs", "RECORD_BYTES_MAX", TOPIC),
    ("schemas/src/topics.rs", "DEAD_LETTER_BYTES_MAX", TOPIC),
    ("schemas/src/topics.rs", "STATE_SEGMENT_BYTES_MIN", TOPIC),
    ("schemas/src/topics.rs", "STATE_SEGMENT_BYTES_MAX", TOPIC),
    ("schemas/src/topics.rs", "REPLICATION_LEAST", TOPIC),
    ("schemas/src/topics.rs", "IN_SYNC_LEAST", TOPIC),
    ("schemas/src/topics/kafka_only.rs", "BATCH_RECORD_BYTES_MAX", TOPIC),
    ("schemas/src/topics.rs", "PREFIX_CHARACTERS_MAX", Test("names_have_so_many_characters")),
    ("schemas/src/topics.rs", "MIN_IN_SYNC", None("the name of a topic setting")),
    ("schemas/src/wire/write.rs", "TYPICAL_BYTES", SIZE),
    (
        "participants/library/src/perform.rs",
        "CONFLICTS_MAX",
        None("how often a store may lose a race before the command is answered `error` and asked again"),
    ),
    ("participants/library/src/runtime.rs", "KEPT_BYTES", SIZE),
    (
        "participants/library/src/runtime.rs",
        "IN_FLIGHT_MAX_DEFAULT",
        None(
            "more is taken when some are finished; without_room_nothing_is_taken_and_the_member_stays, of the library",
        ),
    ),
    (
        "participants/library/src/runtime.rs",
        "BATCH_MAX_DEFAULT",
        None("what is more stands in the next local transaction, and no other answer"),
    ),
    ("participants/library/src/runtime/desk.rs", "ENVELOPE_BYTES", SIZE),
    (
        "participants/library/src/store/memory.rs",
        "BRANCHES_MAX_DEFAULT",
        Test("a_store_in_memory_remembers_so_many_branches"),
    ),
    ("participants/library/src/store/operations.rs", "INSTANCE_BYTES", SIZE),
    ("participants/library/src/store/operations.rs", "PARTITION_BYTES", SIZE),
    ("participants/library/src/store/operations.rs", "OFFSET_BYTES", SIZE),
    ("participants/library/src/store/operations.rs", "LENGTH_BYTES", SIZE),
    (
        "participants/library/src/store/kafka.rs",
        "BRANCHES_MAX_DEFAULT",
        None("so_many_branches_are_remembered_and_beyond_it_is_an_error, beside the suite of the stores"),
    ),
    (
        "participants/library/src/store/kafka.rs",
        "TABLE_BYTES_MAX_DEFAULT",
        None("the_table_is_full_and_says_so, beside the suite of the stores"),
    ),
    (
        "participants/library/src/store/kafka/transaction.rs",
        "COMMAND_BYTES_MAX",
        None("one_command_may_write_so_much, beside the suite of the stores"),
    ),
    ("participants/library/src/store/kafka/transaction.rs", "KEY_BYTES", SIZE),
    (
        "participants/library/src/store/kafka/batch.rs",
        "BATCH_BYTES_MAX",
        None("a_batch_that_is_too_large_is_refused, beside the suite of the stores"),
    ),
    (
        "participants/library/src/runtime/kafka_only/owner.rs",
        "BATCH_BYTES_ENOUGH",
        None("what is larger is two Kafka transactions, and no other answer"),
    ),
    ("participants/library/src/runtime/kafka_only/table.rs", "SILENCE_MAX", PATIENCE),
    (
        "orchestrator/kafka/src/doctor/judge.rs",
        "OFFSETS_RETENTION_LEAST_MINUTES",
        Test("settings_of_brokers_at_their_edges"),
    ),
    (
        "orchestrator/kafka/src/doctor/judge.rs",
        "TRANSACTIONAL_ID_LEAST_MS",
        Test("settings_of_brokers_at_their_edges"),
    ),
    ("orchestrator/kafka/src/doctor/judge.rs", "INIT_PRODUCER_ID_LEAST", Test("what_the_probe_has_seen")),
    (
        "orchestrator/kafka/src/doctor/probe.rs",
        "BROKERS_MAX",
        None("how many brokers the probe has a partition for; the settings of all are looked at"),
    ),
    (
        "orchestrator/server/src/cli/dead_letters.rs",
        "LISTED_MAX_DEFAULT",
        None("a default of the command line"),
    ),
    (
        "orchestrator/server/src/cli/dead_letters.rs",
        "SENTENCE_SHOWN_MAX",
        None("how much of a sentence a table shows; a test beside it has it at its edge"),
    ),
    (
        "orchestrator/server/src/telemetry/labels.rs",
        "VALUES_MAX",
        None("how many values a label has; a test beside it has it at its edge"),
    ),
    ("orchestrator/server/src/dead_letters/resend.rs", "BATCH_RECORDS_MAX", PORTION),
    ("orchestrator/server/src/dead_letters/resend.rs", "BATCH_BYTES_MAX", PORTION),
    ("orchestrator/server/src/audit/topics.rs", "SILENCE_MAX", PATIENCE),
    (
        "orchestrator/server/src/audit/verify.rs",
        "FINDINGS_TOLD_MAX",
        None("how many are told one by one; all are counted, and the verdict is of all"),
    ),
    (
        "orchestrator/server/src/audit/verify.rs",
        "TOLD_BYTES_MAX",
        None("how much of a record is printed; the comparison is of all of it"),
    ),
    (
        "orchestrator/server/src/audit/export.rs",
        "SEEN_MAX",
        None(
            "what stands twice stands close together: a part of a checkpoint, and its repetition by the next owner",
        ),
    ),
    (
        "orchestrator/server/src/audit/what_if/mod.rs",
        "TOLD_MAX",
        None("how many are told one by one; all are counted, and the verdict is of all"),
    ),
    (
        "orchestrator/server/src/audit/what_if/play.rs",
        "INPUTS_MAX",
        None("a play that does not end counts as stuck, which is what it is"),
    ),
    ("participants/library/src/runtime/kafka_only/place.rs", "SILENCE_MAX", PATIENCE),
    (
        "participants/outbox/src/chores.rs",
        "INQUIRIES_MAX",
        None("how many ask at a time; the others ask a second later"),
    ),
    ("participants/outbox/src/chores.rs", "PAUSE_MAX_SECONDS", PATIENCE),
    ("participants/outbox/src/chores.rs", "PORTIONS_MAX", PORTION),
    ("participants/outbox/src/commands.rs", "BATCH_RECORDS_MAX", PORTION),
    ("participants/outbox/src/commands.rs", "BATCH_BYTES_MAX", PORTION),
    (
        "participants/outbox/src/commands.rs",
        "HELD_MAX",
        None("commands beyond it have been answered `pending`, and come again by themselves"),
    ),
    (
        "participants/outbox/src/handover.rs",
        "BATCH_ROWS_MAX",
        Test("rows_leave_in_order_and_those_that_cannot_stand_aside"),
    ),
    ("participants/outbox/src/handover.rs", "BATCH_BYTES_MAX", PORTION),
    ("participants/outbox/src/inbox.rs", "OPEN_MAX", Test("so_many_may_be_open_and_what_undoes_passes")),
    ("participants/outbox/src/lookup.rs", "SILENCE_MAX", PATIENCE),
    ("participants/outbox/src/relay.rs", "SILENCE_MAX", PATIENCE),
    (
        "participants/outbox/src/route.rs",
        "TOPIC_CHARACTERS_MAX",
        Test("everything_else_goes_to_a_topic_of_its_own"),
    ),
    ("participants/outbox/src/schema.rs", "NAME_CHARACTERS_MAX", Test("a_schema_is_a_plain_name")),
    ("participants/outbox/src/schema.rs", "FRAME_BYTES", SIZE),
    ("participants/outbox/src/schema.rs", "VALUE_BYTES_MAX", Test("a_value_has_so_many_bytes")),
];

#[test]
fn every_limit_has_a_case() {
    let found = limits();
    let known: BTreeSet<(String, String)> =
        TABLE.iter().map(|(file, name, _)| ((*file).to_owned(), (*name).to_owned())).collect();
    assert_eq!(known.len(), TABLE.len(), "a limit stands in the table once");
    let new: Vec<_> = found.difference(&known).collect();
    assert!(
        new.is_empty(),
        "limits without a case at their edge (add one, and a line to the table): {new:#?}"
    );
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "limits that are not there any more: {gone:#?}");
    let sources: String = tests().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for (file, name, case) in TABLE {
        match case {
            Test(test) => {
                assert!(sources.contains(&format!("fn {test}()")), "{file} {name}: there is no test {test}");
            }
            None(reason) => assert!(reason.len() > 10, "{file} {name}"),
        }
    }
}

/// The constants that are limits, by file.
fn limits() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for path in FOLDERS.iter().flat_map(|folder| sources(&root().join(folder))) {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if NOT.iter().any(|not| file.starts_with(not)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in product.lines() {
            let Some((_, declared)) = line.split_once("const ") else { continue };
            let Some((name, _)) = declared.split_once(':') else { continue };
            let is_limit = name.split('_').any(|word| WORDS.contains(&word));
            if is_limit
                && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            {
                found.insert((file.clone(), name.to_owned()));
            }
        }
    }
    found
}

/// Files in which a case may stand.
fn tests() -> Vec<PathBuf> {
    let folders = [
        "orchestrator/decider/tests",
        "orchestrator/kafka",
        "orchestrator/server/src/view",
        "participants/kit",
        "participants/outbox",
        "tests/fuzz/tests",
        "schemas/src",
    ];
    folders.iter().flat_map(|folder| sources(&root().join(folder))).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

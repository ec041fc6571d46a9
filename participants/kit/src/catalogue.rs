//! The rows of a verdict: what is promised, which rule of participants/README.md says so, and what to do about it.
//!
//! A row is data; the function that looks at it is in `checks`. Its id never changes, because people select by it and
//! programs read it.

/// What must be there for a row to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The participant knows `execute` and `compensate`.
    Saga,
    /// It knows `prepare`, `commit` and `abort`.
    TwoPhase,
    /// It knows `precommit`.
    ThreePhase,
    /// An input that the business refuses.
    Refused,
    /// A way to see effects.
    Observe,
    /// A way to start it, so that it can be killed.
    Command,
}

/// One row.
#[derive(Debug)]
pub struct Row {
    /// `<group>/<name>`.
    pub id: &'static str,
    /// What a participant promises.
    pub promise: &'static str,
    /// The rule of participants/README.md, "In any other language".
    pub rule: u8,
    /// What to do when it does not.
    pub remedy: &'static str,
    /// Without these the row is skipped.
    pub needs: &'static [Need],
}

impl Row {
    /// What stands before the slash.
    pub fn group(&self) -> &'static str {
        self.id.split('/').next().unwrap_or(self.id)
    }
}

use Need::{Command, Observe, Refused, Saga, ThreePhase, TwoPhase};

const fn row(
    id: &'static str,
    rule: u8,
    needs: &'static [Need],
    promise: &'static str,
    remedy: &'static str,
) -> Row {
    Row { id, promise, rule, remedy, needs }
}

/// Every row, group by group.
pub const ROWS: &[Row] = &[
    row(
        "answers/ok",
        6,
        &[],
        "A command is answered, and --input succeeds.",
        "Read <prefix>.commands.<name> in the group <prefix>.<name> from the earliest offset, and answer to the inbox. If \
         it was refused, give an --input that succeeds.",
    ),
    row(
        "answers/effect",
        5,
        &[Observe],
        "What --input does can be seen by --observe.",
        "Give an --observe that prints what an effect changes, or have the effect durable before the answer leaves.",
    ),
    row(
        "answers/echo",
        6,
        &[],
        "A reply echoes instance, subject, birth, step, branch, operation, attempt and replytoken of the command it \
         answers; no token where there was none.",
        "Copy these attributes from the very command that is answered, also when the answer is a stored one.",
    ),
    row(
        "answers/partition",
        6,
        &[],
        "A reply goes to the partition that replyto names.",
        "Send to that partition explicitly; do not let the client's partitioner choose.",
    ),
    row("answers/key", 6, &[], "The key of a reply is the subject.", "Send the subject as the record's key."),
    row(
        "answers/readable",
        6,
        &[],
        "Whatever is written to the inbox is a sagamore.reply.v1 or sagamore.inquiry.v1 that can be read, about a \
         transaction that there is.",
        "Structured CloudEvents in JSON: specversion \"1.0\", type, id, source, and the attributes of the table.",
    ),
    row(
        "answers/plain",
        6,
        &[],
        "Replies are not in a Kafka transaction.",
        "Send with an idempotent producer without transactional.id. If the work is a Kafka transaction, reply to a topic \
         of your own and let a relay forward what is committed.",
    ),
    row(
        "answers/elsewhere",
        6,
        &[],
        "A command whose replyto is not in <prefix>.inbox is passed over.",
        "Compare the topic in replyto with <prefix>.inbox; log and pass over what differs.",
    ),
    row(
        "answers/unknown-attributes",
        6,
        &[],
        "Attributes that are not known, and attributes in another order, change nothing.",
        "Ignore what is not known: newer coordinators say more.",
    ),
    row(
        "duplicates/same-answer",
        2,
        &[],
        "A duplicate is answered as the first was.",
        "Store the answer in the row of (instance, subject, birth, step, branch, operation), and repeat it.",
    ),
    row(
        "duplicates/one-effect",
        2,
        &[Observe],
        "A duplicate has no second effect.",
        "Look for the row before doing anything, in the same local transaction that does it.",
    ),
    row(
        "duplicates/burst",
        2,
        &[],
        "50 duplicates at once get 50 equal answers and have one effect.",
        "The row needs a unique key: two workers may look for it at the same time.",
    ),
    row(
        "duplicates/another-birth",
        2,
        &[],
        "The same subject with another birth is another transaction.",
        "The birth belongs to the key of a row: ids of transactions are used again.",
    ),
    row(
        "duplicates/another-branch",
        2,
        &[],
        "Another step, or another branch of a step, is another operation.",
        "Step and branch belong to the key of a row: one transaction may ask a participant twice.",
    ),
    row(
        "duplicates/another-instance",
        2,
        &[],
        "The same names from another instance are another transaction.",
        "The instance belongs to the key of a row: a new installation begins its births again.",
    ),
    row(
        "saga/undo",
        4,
        &[Saga],
        "compensate after execute answers ok and undoes the effect.",
        "Undo what the stored row of execute says; no business reason refuses a compensate.",
    ),
    row(
        "saga/undo-once",
        2,
        &[Saga],
        "A duplicate compensate, and a duplicate execute after it, do nothing and are answered as before.",
        "compensate has a row of its own; execute's row stays as it was.",
    ),
    row(
        "saga/empty",
        4,
        &[Saga],
        "compensate of what never came answers ok and changes nothing.",
        "Insert the row of execute as cancelled; with nothing there to undo, answer ok.",
    ),
    row(
        "saga/late",
        4,
        &[Saga],
        "An execute that comes after its compensate is refused, and not done.",
        "compensate inserts the row of execute as cancelled; the late execute finds it.",
    ),
    row(
        "saga/refused",
        2,
        &[Saga, Refused],
        "What was refused stays refused, whatever a repetition asks for, and has no effect.",
        "A refusal is stored as an answer like any other; what was written before it is rolled back.",
    ),
    row(
        "saga/refused-undo",
        4,
        &[Saga, Refused],
        "compensate of what was refused answers ok and changes nothing.",
        "Undo only when the row of execute says ok.",
    ),
    row(
        "commitment/commit",
        5,
        &[TwoPhase],
        "prepare and commit answer ok, and the effect is there.",
        "prepare makes sure that commit cannot fail, and writes its vote with its row.",
    ),
    row(
        "commitment/duplicates",
        2,
        &[TwoPhase],
        "A second prepare and a second commit are answered as the first, and do nothing.",
        "Each operation has a row of its own, written together with what it does.",
    ),
    row(
        "commitment/abort",
        4,
        &[TwoPhase],
        "abort after prepare answers ok and leaves nothing behind; a second one as well.",
        "Let go what prepare holds, once.",
    ),
    row(
        "commitment/abort-first",
        4,
        &[TwoPhase],
        "abort before prepare answers ok; the prepare that comes then is refused, and holds nothing.",
        "abort inserts the row of prepare as cancelled; the late prepare finds it.",
    ),
    row(
        "commitment/unprepared",
        4,
        &[TwoPhase],
        "commit without a prepare is refused, and does nothing.",
        "A commit without a row of prepare that says ok means lost memory on one side: refuse it as not-prepared.",
    ),
    row(
        "commitment/refused",
        4,
        &[TwoPhase, Refused],
        "A vote of no stays no, and its abort answers ok and changes nothing.",
        "A refused prepare is stored; abort undoes only what says ok.",
    ),
    row(
        "commitment/precommit",
        2,
        &[ThreePhase],
        "precommit after prepare answers ok, twice as well; commit then has its one effect.",
        "precommit has a row of its own.",
    ),
    row(
        "commitment/precommit-unprepared",
        4,
        &[ThreePhase],
        "precommit without a prepare is refused.",
        "Refuse it as not-prepared.",
    ),
    row(
        "order/one-branch",
        1,
        &[],
        "What is asked of a branch is done and answered in its order.",
        "Give all commands of one key to one worker.",
    ),
    row(
        "order/one-key",
        1,
        &[],
        "Transactions that share a key are done and answered in their order.",
        "Give all commands of one key to one worker: the key of the record, not the subject.",
    ),
    row(
        "watermark/expired",
        3,
        &[],
        "What is not remembered and was issued before the watermark is refused as expired, and not done.",
        "Keep the largest watermark; a command issued before it, of whose branch no row is there, may have been done and \
         forgotten.",
    ),
    row(
        "watermark/seen",
        3,
        &[],
        "A remembered operation behind the watermark is answered from its row, or as expired; it is never done again.",
        "Look for the row first; delete rows only behind the watermark.",
    ),
    row(
        "watermark/home",
        3,
        &[],
        "A watermark counts for its own instance and home partition only.",
        "Keep one for each instance and partition in birth: homes have clocks of their own.",
    ),
    row(
        "watermark/vote",
        9,
        &[TwoPhase],
        "A vote that waits for its decision outlives the watermark.",
        "Never delete a prepare without its commit or abort; a row of the branch that is there means nothing has expired.",
    ),
    row(
        "kafka/aborted",
        1,
        &[],
        "A command of an aborted Kafka transaction is not done.",
        "Read with isolation.level=read_committed.",
    ),
    row(
        "kafka/committed",
        1,
        &[],
        "A command of a committed Kafka transaction is done, and markers in the topic hold up nothing.",
        "Do not count offsets: markers leave gaps. Commit the offset behind the last record that was taken.",
    ),
    row(
        "doubt/asks",
        8,
        &[TwoPhase],
        "A vote that is left alone asks, with a sagamore.inquiry.v1 that names it.",
        "Go through the votes without commit or abort from time to time, and send the inquiry to the partition in the \
         prepare's replyto, key = subject.",
    ),
    row(
        "doubt/commit",
        8,
        &[TwoPhase, Observe],
        "A decision commit is carried out as the command would be, once.",
        "Take sagamore.decision.v1 from the command topic, and do what rule 5 says.",
    ),
    row(
        "doubt/abort",
        8,
        &[TwoPhase, Observe],
        "A decision abort is carried out as the command would be, once.",
        "Take sagamore.decision.v1 from the command topic, and do what rule 4 says.",
    ),
    row(
        "doubt/waits",
        8,
        &[TwoPhase],
        "undecided and forgotten change nothing: a commit that comes then is done.",
        "Wait; for forgotten, alarm a person. Never decide alone.",
    ),
    row(
        "doubt/silent",
        8,
        &[TwoPhase],
        "A decision gets no reply; the command that comes later does.",
        "A decision is the answer to an inquiry: carry it out, and say nothing.",
    ),
    row(
        "crash/redelivered",
        7,
        &[Command],
        "What a killed process had not answered, the next one answers without being asked again.",
        "Commit offsets by hand, and only once the reply is acknowledged; enable.auto.commit=false.",
    ),
    row(
        "crash/once",
        5,
        &[Command, Observe],
        "What was asked around the kill, and again after it, has one effect.",
        "Effect and row in one local transaction, committed before the reply leaves.",
    ),
    row(
        "crash/answers",
        5,
        &[Command],
        "What was answered before the kill is answered the same after it, and not done again.",
        "The row is durable before the reply leaves.",
    ),
    row(
        "crash/cancelled",
        4,
        &[Command],
        "An execute (prepare) that was cancelled before the kill is refused after it.",
        "A cancelled row is as durable as any other.",
    ),
    row(
        "crash/refused",
        2,
        &[Command, Refused],
        "What was refused before the kill stays refused after it.",
        "A refusal is as durable as any other answer.",
    ),
    row(
        "crash/undo",
        4,
        &[Command, Saga, Observe],
        "What was done before the kill is undone after it.",
        "The effect and what is needed to undo it are durable before the reply leaves.",
    ),
    row(
        "crash/vote",
        5,
        &[Command, TwoPhase],
        "A vote outlives the kill: commit and abort after it answer ok and do what they say.",
        "What prepare holds, and its row, are durable before the vote leaves.",
    ),
    row(
        "crash/asks",
        8,
        &[Command, TwoPhase],
        "A vote of a killed process asks from the next one.",
        "Look for votes without a decision in the store, not in the process.",
    ),
    row(
        "malformed/shape",
        6,
        &[],
        "Business data of a wrong shape is answered, and holds up nothing.",
        "Catch what the business code throws: answer refused when asking again is no use, error otherwise.",
    ),
    row(
        "malformed/headers",
        6,
        &[],
        "Headers of others, and a record without a key, change nothing.",
        "Read the record's value only.",
    ),
    row(
        "malformed/json",
        7,
        &[],
        "What is no JSON object is passed over.",
        "Catch the parser's error, log it, go on.",
    ),
    row(
        "malformed/nested",
        7,
        &[],
        "JSON that is nested very deeply is passed over.",
        "Catch the parser's recursion error or stack overflow, too.",
    ),
    row(
        "malformed/tombstone",
        7,
        &[],
        "A record without a value is passed over.",
        "Look for null before parsing.",
    ),
    row(
        "malformed/attributes",
        7,
        &[],
        "A command with an attribute missing, or of a wrong type, is passed over or refused, and holds up nothing.",
        "Check every attribute before doing anything; catch what is thrown.",
    ),
    row(
        "malformed/type",
        7,
        &[],
        "What is not a sagamore.command.v1 with specversion 1.0 is not done.",
        "Compare type and specversion.",
    ),
    row(
        "malformed/decision",
        8,
        &[],
        "A decision about a branch that is not there, or for somebody else, is passed over.",
        "Look for the vote; without one there is nothing to do.",
    ),
    row(
        "malformed/huge",
        7,
        &[],
        "A command as large as the topic takes holds up nothing.",
        "Let fetch and parser take 2 MiB.",
    ),
    row(
        "run/stays",
        7,
        &[Command],
        "The process does not end by itself.",
        "See its log for what it said last.",
    ),
];

/// The row of this id.
///
/// # Panics
/// If there is none: ids stand in our own sources only.
pub fn by_id(id: &str) -> &'static Row {
    match ROWS.iter().find(|row| row.id == id) {
        Some(row) => row,
        None => unreachable!("no row is called {id}"),
    }
}

/// The groups, in their order.
pub fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = ROWS.iter().map(Row::group).collect();
    groups.dedup();
    groups
}

/// Whether a row or a group is called so.
pub fn is_known(name: &str) -> bool {
    ROWS.iter().any(|row| row.id == name || row.group() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_groups_stand_together() {
        let mut ids: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROWS.len());
        let mut of_groups = groups();
        of_groups.sort_unstable();
        of_groups.dedup();
        assert_eq!(of_groups.len(), groups().len(), "each group stands in one place");
        assert!(ROWS.iter().all(|row| (1..=9).contains(&row.rule)), "there are nine rules");
    }
}

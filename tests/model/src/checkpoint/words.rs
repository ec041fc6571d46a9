//! The checkpoint model in words.

use super::{
    Action, Checkpoint, END, Head, INBOX, Input, Key, NO_HALT, NOTHING_LOST, Open, Output, Phase, Record,
    STATE_IS_THE_FOLD, State, Value, Without, fold,
};
use crate::Missing;

pub(super) fn missing(without: Without) -> Missing {
    let (mechanism, upholds) = match without {
        Without::Fencing => ("fencing", NO_HALT),
        Without::Acknowledgement => ("acknowledgement before the checkpoint", NOTHING_LOST),
        Without::OwnBarrier => ("reading to the own barrier", NO_HALT),
        Without::AsOf => ("as-of at takeover", STATE_IS_THE_FOLD),
        Without::WritingAgain => ("writing ignored keys again", NO_HALT),
        Without::AsOfBefore => ("keeping as-of when writing again", NO_HALT),
        Without::TombstoneAsOf => ("as-of of tombstones", NO_HALT),
        Without::HeadLast => ("the checkpoint record last", NO_HALT),
        Without::CompactionLag => ("the lag of compaction", NO_HALT),
        Without::SendingOwed => ("sending owed outputs again", NOTHING_LOST),
    };
    Missing { mechanism, upholds }
}

fn owner(epoch: u8) -> String {
    format!("Owner {}", epoch + 1)
}

fn key_name(key: Key) -> &'static str {
    ["A", "B"][key]
}

fn input(offset: u8) -> String {
    let (what, key) = INBOX[usize::from(offset)];
    let what = match what {
        Input::Start => "start",
        Input::Step => "step",
        Input::End => "end",
    };
    format!("input {offset} ({what} of {})", key_name(key))
}

fn value(value: Value) -> String {
    match value {
        Value::Open(taken) => format!("open after {taken} of its inputs"),
        Value::Ended => "ended".to_owned(),
        Value::Tombstone => "a tombstone".to_owned(),
    }
}

fn record(record: &Record) -> String {
    match record {
        Record::Version(version) => {
            format!("{} {} (as of {})", key_name(version.key), value(version.value), version.as_of)
        }
        Record::Checkpoint(head) => format!("checkpoint X={}{}", head.next, counted(head)),
        Record::Barrier { epoch } => format!("barrier of owner {}", epoch + 1),
        Record::Covered => "everything before that had been taken over once".to_owned(),
    }
}

fn counted(head: &Head) -> String {
    let keys = head.stored.iter().enumerate();
    let keys: Vec<String> = keys
        .filter_map(|(key, as_of)| as_of.map(|as_of| format!("{} as of {as_of}", key_name(key))))
        .collect();
    let owed: Vec<String> = head.owed.iter().map(|output| output.input.to_string()).collect();
    let owed = if owed.is_empty() { String::new() } else { format!(", owed: {}", owed.join(", ")) };
    format!(" [{}{owed}]", if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") })
}

fn records(found: &[Record]) -> String {
    let found = found.iter().filter(|found| **found != Record::Covered);
    let found: Vec<String> = found.map(record).collect();
    if found.is_empty() { "nothing".to_owned() } else { found.join("; ") }
}

fn held(open: Open) -> String {
    let keys = open.iter().enumerate().map(|(key, taken)| match taken {
        Some(taken) => format!("{} open after {taken} of its inputs", key_name(key)),
        None => format!("{} not open", key_name(key)),
    });
    keys.collect::<Vec<_>>().join(", ")
}

pub(super) fn tell(before: &State, action: &Action, after: &State) -> String {
    match *action {
        Action::TakeOver => {
            let cleared = if before.open.is_empty() { "" } else { "; the checkpoint left open is aborted" };
            format!("{} is told to take over and calls init_transactions{cleared}.", owner(after.epoch))
        }
        Action::Barrier { epoch, repeated } => {
            format!("{} commits its barrier to the state topic{}.", owner(epoch), twice(repeated))
        }
        Action::Read { epoch, end } => read(before, after, epoch, end),
        Action::Apply { epoch } => {
            format!("{} applies {} and sends its output.", owner(epoch), applied(after, epoch))
        }
        Action::Acknowledge { epoch, output } => {
            format!("{} learns that its output of {} stands in its topic.", owner(epoch), input(output.input))
        }
        Action::Draft { epoch } => {
            format!("{} begins a checkpoint as of X={}.", owner(epoch), next_of(after, epoch))
        }
        Action::WriteAgain { epoch, .. } => {
            let written = after.open.last().map(record).unwrap_or_default();
            format!("{} writes once more what counts: {written}.", owner(epoch))
        }
        Action::CommitAgain { epoch, repeated } => {
            format!("{} commits{}: {}; now it runs.", owner(epoch), twice(repeated), records(&before.open))
        }
        Action::WriteVersion { epoch, .. } | Action::WriteHead { epoch } => {
            let written = after.open.last().map(record).unwrap_or_default();
            format!("{} writes {written}.", owner(epoch))
        }
        Action::Commit { epoch, repeated } => {
            format!("{} commits{}: {}.", owner(epoch), twice(repeated), records(&before.open))
        }
        Action::GiveUp { epoch } => {
            format!("{} sends EndTxn, hears nothing for 2 s and drops the shard.", owner(epoch))
        }
        Action::LateEnd if before.open.is_empty() || before.open == after.open => {
            "A late EndTxn arrives and ends nothing.".to_owned()
        }
        Action::LateEnd => {
            format!("A late EndTxn arrives and commits what is there: {}.", records(&before.open))
        }
        Action::Compact { key } => {
            let gone = before.log.iter().filter(|record| !after.log.contains(record)).cloned();
            let gone: Vec<Record> = gone.collect();
            format!("Kafka compacts {}: gone is {}.", key_name(key), records(&gone))
        }
    }
}

fn twice(repeated: bool) -> &'static str {
    if repeated { "; its client sends EndTxn twice, the second is on its way" } else { "" }
}

fn read(before: &State, after: &State, epoch: u8, end: Option<usize>) -> String {
    let who = owner(epoch);
    let to = match end {
        Some(end) => format!("only up to an old end, where stands: {}", records(&before.log[..end])),
        None => "up to its barrier".to_owned(),
    };
    let run = after.owners.iter().find_map(|owner| match &owner.phase {
        Phase::Running(run) if owner.epoch == epoch => Some((run, "goes on")),
        Phase::WritingAgain(restored) if owner.epoch == epoch => Some((&restored.run, "will go on")),
        Phase::Running(_) | Phase::Fenced | Phase::Reading | Phase::WritingAgain(_) => None,
    });
    match run {
        Some((run, how)) => {
            format!("{who} reads the state {to}; it {how} from X={} with {}.", run.next, held(run.open))
        }
        None => {
            format!("{who} reads the state {to}; it does not find what the checkpoint counts, and halts.")
        }
    }
}

fn next_of(state: &State, epoch: u8) -> u8 {
    state
        .owners
        .iter()
        .find_map(|owner| match &owner.phase {
            Phase::Running(run) if owner.epoch == epoch => Some(run.next),
            Phase::Running(_) | Phase::Fenced | Phase::Reading | Phase::WritingAgain(_) => None,
        })
        .unwrap_or_default()
}

fn applied(after: &State, epoch: u8) -> String {
    input(next_of(after, epoch) - 1)
}

pub(super) fn tell_end(model: &Checkpoint, state: &State) -> String {
    if let Some(output) = state.contradiction {
        return contradiction(output);
    }
    if state.halted {
        return "The shard halts, and every later takeover halts in the same place.".to_owned();
    }
    let Some(mut run) = state.successor(model) else {
        return format!(
            "Whoever takes over next finds {}; a key that the checkpoint counts is missing or is another version, so the shard halts.",
            records(&state.log)
        );
    };
    for open in state.runs().map(|run| (run.next, run.open)).chain([(run.next, run.open)]) {
        let (next, open) = open;
        if open != fold(next).0 {
            return format!(
                "Whoever takes over next holds at X={next}: {}. The inputs below X make: {}.",
                held(open),
                held(fold(next).0)
            );
        }
    }
    let from = run.next;
    while run.next < END {
        run.apply();
    }
    let (_, outputs) = fold(END);
    let lost: Vec<String> = outputs
        .into_iter()
        .filter(|output| !state.told[usize::from(output.input)] && !run.sent.contains(output))
        .map(|output| input(output.input))
        .collect();
    format!(
        "Whoever takes over next begins at X={from}, and nobody ever sends the output of {}.",
        lost.join(" and of ")
    )
}

fn contradiction(output: Output) -> String {
    format!(
        "The output of {} was told, made from another state than the inputs before it make.",
        input(output.input)
    )
}

//! Whether it answers at all, what a reply looks like and where it goes.

use std::time::{Duration, Instant};

use sagamore_schemas::wire::Operation;
use serde_json::{Value, json};

use super::Findings;
use crate::bench::{Bench, Forward, PARTITIONS, Units};
use crate::branch::Branch;
use crate::error::{Broken, Stop};
use crate::inbox::Answered;
use crate::process;

/// Rows that the run itself judges.
#[cfg(test)]
pub(super) const ROWS_OF_THE_RUN: [&str; 5] =
    ["answers/ok", "answers/effect", "answers/readable", "answers/plain", "run/stays"];
/// How long markers may follow the last reply.
const MARKERS_WITHIN: Duration = Duration::from_secs(2);

/// The first command, answered while the participant starts; whether there is any use in going on.
pub(crate) fn probe(bench: &Bench<'_>, findings: &mut Findings) -> Result<bool, Stop> {
    let came = answer(bench);
    let came = match came {
        Err(Stop::Ended(status)) => {
            let printed = process::tail(&bench.settings.log);
            let came = format!("its process has ended ({status}); it printed: {printed}");
            Err(Broken { sent: "the first command".to_owned(), expected: "an answer".to_owned(), came }
                .into())
        }
        came => came,
    };
    let units = match came {
        Ok(units) => units,
        Err(stop) => {
            findings.take("answers/ok", Err(stop))?;
            return Ok(false);
        }
    };
    findings.take("answers/ok", Ok(()))?;
    if bench.settings.observe.is_some() {
        findings.take("answers/effect", units.clone().map(|_| ()).map_err(Stop::Broken))?;
    }
    bench.calibrate(units.ok());
    Ok(true)
}

/// An answer; then what one effect changes, or that it changes nothing.
fn answer(bench: &Bench<'_>) -> Result<Result<Units, Broken>, Stop> {
    // Its store may not be there to be looked at before it is at work.
    let mut branch = bench.branch("answers/ok");
    let first = bench.forward().first();
    let (answered, _) = branch.ask_within(first, bench.settings.start_timeout)?;
    branch.is_ok(first, &answered)?;
    branch.ask(bench.forward().undo())?;

    let protocols = bench.settings.protocols;
    let mut units = Units::default();
    let ways = [(protocols.saga, Forward::Execute), (protocols.two_phase, Forward::Commit)];
    for (_, forward) in ways.into_iter().filter(|(is_known, _)| *is_known) {
        let mut branch = bench.branch("answers/effect");
        let before = branch.see()?;
        branch.carry_out(forward)?;
        let (Some(before), Some(after)) = (before, branch.see()?) else { continue };
        if before == after {
            let expected = format!("an effect changes what --observe prints from {}", before.told());
            return Ok(Err(Broken { sent: branch.told(), expected, came: after.told() }));
        }
        match forward {
            Forward::Execute => units.execute = after.since(&before),
            Forward::Commit => units.commit = after.since(&before),
        }
    }
    Ok(Ok(units))
}

pub(super) fn echo(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    for token in [Some("a \"token\" / of=60+characters"), None] {
        let mut branch = bench.branch("answers/echo");
        branch.replytoken = token.map(str::to_owned);
        for attempt in 1..=2 {
            branch.send(operation)?;
            let answered = branch.hear(operation)?;
            compare(&branch, &answered, attempt)?;
        }
        branch.ask(bench.forward().undo())?;
    }
    Ok(())
}

fn compare(branch: &Branch<'_, '_>, answered: &Answered, attempt: u32) -> Result<(), Stop> {
    let token = |token: &Option<String>| token.clone().unwrap_or_else(|| "none".to_owned());
    let pairs = [
        ("instance", branch.instance.to_string(), answered.instance.to_string()),
        ("birth", branch.birth.to_string(), answered.birth.to_string()),
        ("step", branch.step.clone(), answered.step.clone()),
        ("branch", branch.name.clone(), answered.branch.clone()),
        ("attempt", attempt.to_string(), answered.attempt.to_string()),
        ("replytoken", token(&branch.replytoken), token(&answered.replytoken)),
    ];
    match pairs.iter().find(|(_, sent, came)| sent != came) {
        Some((name, sent, came)) => Err(branch.broken(&format!("{name} {sent}"), &format!("{name} {came}"))),
        None => Ok(()),
    }
}

pub(super) fn place(bench: &Bench<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let (mut partition, mut key) = (Ok(()), Ok(()));
    for home in 0..i32::from(PARTITIONS) {
        let mut branch = bench.branch("answers/partition");
        branch.birth.partition.0 = home;
        let operation = bench.forward().first();
        let (_, arrived) = match branch.ask_within(operation, bench.settings.answer_timeout) {
            Ok(asked) => asked,
            Err(stop) => {
                findings.take("answers/partition", Err(stop))?;
                return findings.take("answers/key", Err(Stop::Skipped("nothing came".to_owned())));
            }
        };
        if arrived.partition != home {
            let came = format!("a reply in partition {}", arrived.partition);
            partition = Err(branch.broken(&format!("a reply in partition {home}, as replyto says"), &came));
        }
        if arrived.key.as_deref() != Some(branch.subject.as_str().as_bytes()) {
            let came = arrived.key.map(|key| format!("key {}", String::from_utf8_lossy(&key)));
            let came = came.unwrap_or_else(|| "no key".to_owned());
            key = Err(branch.broken(&format!("key {}", branch.subject), &came));
        }
        branch.ask(bench.forward().undo())?;
    }
    findings.take("answers/partition", partition)?;
    findings.take("answers/key", key)
}

pub(super) fn elsewhere(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("answers/elsewhere");
    let partition = bench.desk.partition_of(&branch.key);
    let begin = bench.desk.end_of(partition)?;
    let operation = bench.forward().first();
    let elsewhere = format!("{}/{partition}", bench.desk.topic());
    let value = altered(&branch, operation, |fields| fields["replyto"] = elsewhere.clone().into());
    branch.say(format!("{operation} with replyto {elsewhere}"));
    branch.put(value)?;
    let last = fence(bench, &branch)?;
    let answers = bench.desk.read_back(partition, begin, &last)?.into_iter().filter(|value| {
        let read: Option<Value> = serde_json::from_slice(value).ok();
        read.is_some_and(|read| read["type"] == "sagamore.reply.v1")
    });
    match answers.count() {
        0 => Ok(()),
        count => Err(branch
            .broken("nothing in a topic that is not the inbox", &format!("{count} replies in {elsewhere}"))),
    }
}

pub(super) fn unknown_attributes(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("answers/unknown-attributes");
    let operation = bench.forward().first();
    // As a value, the attributes stand in alphabetical order.
    let value = altered(&branch, operation, |fields| {
        fields["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        fields["priority"] = 7.into();
        fields["com.example.nested"] = json!({"data": {"operation": "abort"}, "list": [null, true, 1.5e3]});
        fields["time"] = "2026-11-22T16:00:00+01:00".into();
    });
    branch.say(format!("{operation} with attributes nobody knows"));
    branch.put(value)?;
    let answered = branch.hear(operation)?;
    branch.is_ok(operation, &answered)?;
    branch.ask(bench.forward().undo()).map(|_| ())
}

/// Judges the inbox as a whole, once all has been said.
pub(crate) fn at_the_end(bench: &Bench<'_>, findings: &mut Findings) -> Result<(), Stop> {
    bench.inbox.look_behind_the_last(Instant::now() + MARKERS_WITHIN)?;
    let known = bench.subjects();
    let (strays, marker) =
        bench.inbox.look(|shelf| (shelf.strays(&known), shelf.marker().map(str::to_owned)));
    let judge = |expected: &str, came: Option<String>| match came {
        None => Ok(()),
        Some(came) => {
            Err(Stop::Broken(Broken { sent: "everything".to_owned(), expected: expected.to_owned(), came }))
        }
    };
    findings.take("answers/readable", judge("nothing in the inbox that a coordinator cannot use", strays))?;
    findings.take("answers/plain", judge("offsets of the inbox without gaps", marker))
}

/// The first attempt of an operation, with its attributes altered.
pub(super) fn altered(
    branch: &Branch<'_, '_>,
    operation: Operation,
    alter: impl FnOnce(&mut Value),
) -> Vec<u8> {
    let record = branch.record(operation, 1);
    let mut fields: Value = match serde_json::from_slice(&record) {
        Ok(fields) => fields,
        Err(error) => unreachable!("a command is JSON: {error}"),
    };
    alter(&mut fields);
    fields.to_string().into_bytes()
}

/// A good command behind others, on their partition: once it is answered, they have been passed. Returns the last record
/// of it.
pub(super) fn fence(bench: &Bench<'_>, behind: &Branch<'_, '_>) -> Result<Vec<u8>, Stop> {
    // Another key will do, if it is bound to its business, as long as it is on this partition.
    let partition = bench.desk.partition_of(&behind.key);
    let mut fence = match bench.settings.key {
        None => bench.branch("fence"),
        Some(_) => bench.branch_on(partition, "fence"),
    };
    if bench.settings.key.is_none() {
        fence.key.clone_from(&behind.key);
    }
    fence.say(format!("{}, and behind it", behind.told()));
    fence.ask_ok(bench.forward().first())?;
    fence.ask_ok(bench.forward().undo())?;
    Ok(fence.record(bench.forward().undo(), 1))
}

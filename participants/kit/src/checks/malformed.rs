//! What no coordinator sends, and what stands in a topic all the same. Each is followed by a good command of the same key,
//! which must be answered.

use rdkafka::message::{Header, OwnedHeaders};
use sagamore_schemas::topics::RECORD_BYTES_MAX;
use sagamore_schemas::wire::{Decided, Operation, Payload, Verdict};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::branch::{Branch, Effects};
use crate::checks::answers::{altered, fence};
use crate::error::Stop;

/// Deeper than any parser goes by recursion.
const NESTED: usize = 100_000;
/// Without one of these nothing can be done.
const NEEDED: [&str; 10] = [
    "instance",
    "subject",
    "birth",
    "step",
    "branch",
    "operation",
    "attempt",
    "issued",
    "watermark",
    "replyto",
];
/// What is left of a record for its envelope.
const ENVELOPE: usize = 8 * 1024;

pub(super) fn shape(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    let shapes =
        ["null", "[]", "42", "\"text\"", "{}", r#"{"unexpected":[{"deep":null}]}"#, r#"[{"n":-1e308}]"#];
    let shapes = shapes.map(|text| (text, Payload::from_json(text.to_owned()).unwrap_or_default()));
    let others = [("nothing", Payload::Absent), ("Base64", Payload::Base64("AP9zaGFwZQ==".into()))];
    let mut branches = Vec::new();
    for (name, input) in shapes.into_iter().chain(others) {
        let mut branch = bench.branch("malformed/shape");
        "malformed.shape".clone_into(&mut branch.key);
        branch.with_input(&format!("with {name} as data"), input);
        branch.send(operation)?;
        branches.push(branch);
    }
    if let Some(first) = branches.first() {
        fence(bench, first)?;
    }
    for branch in &mut branches {
        // Any answer will do: the coordinator decides by it.
        branch.hear(operation)?;
        branch.send(bench.forward().undo())?;
    }
    Ok(())
}

pub(super) fn headers(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    for is_keyed in [true, false] {
        let mut branch = bench.branch("malformed/headers");
        branch.say(format!(
            "{operation} with headers of others{}",
            if is_keyed { "" } else { ", without a key" }
        ));
        let mut sending = branch.sending(branch.record(operation, 1));
        let none: Option<&[u8]> = None;
        sending.headers = Some(
            OwnedHeaders::new()
                .insert(Header { key: "content-type", value: Some("application/json") })
                .insert(Header { key: "ce_specversion", value: Some("0.3") })
                .insert(Header { key: "traceparent", value: none })
                .insert(Header { key: "x", value: Some([0xff, 0x00, 0xfe].as_slice()) })
                .insert(Header { key: "x", value: Some([0; 2000].as_slice()) }),
        );
        if !is_keyed {
            sending.key = None;
        }
        bench.desk.send(sending)?;
        let answered = branch.hear(operation)?;
        branch.is_ok(operation, &answered)?;
        branch.ask(bench.forward().undo())?;
    }
    Ok(())
}

pub(super) fn json(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("malformed/json");
    let record = branch.record(bench.forward().first(), 1);
    branch
        .say("half a command, garbage, an empty record, text that is not UTF-8, and JSON that is no object");
    let broken: [&[u8]; 9] = [
        &record[..record.len() / 2],
        b"\0\x01garbage",
        b"",
        b"{\"type\":\"\xff\xfe\"}",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b"\"text\"",
    ];
    broken.into_iter().try_for_each(|value| branch.put(value.to_vec()))?;
    fence(bench, &branch).map(|_| ())
}

pub(super) fn nested(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("malformed/nested");
    branch.say(format!("{NESTED} brackets, and a command with them as data"));
    let nested = format!("{}{}", "[".repeat(NESTED), "]".repeat(NESTED));
    branch.put(nested.clone().into_bytes())?;
    let mark = "the place of the brackets";
    let value = altered(&branch, bench.forward().first(), |fields| fields["data"] = mark.into());
    let value = String::from_utf8_lossy(&value).replace(&format!("\"{mark}\""), &nested);
    branch.put(value.into_bytes())?;
    fence(bench, &branch).map(|_| ())
}

pub(super) fn tombstone(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("malformed/tombstone");
    branch.say("a record without a value, and one without key and value");
    let mut sending = branch.sending(Vec::new());
    sending.value = None;
    bench.desk.send(sending.clone())?;
    sending.key = None;
    bench.desk.send(sending)?;
    fence(bench, &branch).map(|_| ())
}

pub(super) fn attributes(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    let mut branch = bench.branch("malformed/attributes");
    branch.say("commands without an attribute each, and with one of a wrong type");
    for name in NEEDED {
        let value = altered(&branch, operation, |fields| {
            if let Some(fields) = fields.as_object_mut() {
                fields.remove(name);
            }
        });
        branch.put(value)?;
        for wrong in [Value::Null, json!({"a": []}), json!([name])] {
            branch.put(altered(&branch, operation, |fields| fields[name] = wrong.clone()))?;
        }
    }
    let wrong = [
        ("birth", json!(7)),
        ("birth", json!("first")),
        ("operation", json!("explode")),
        ("attempt", json!("one")),
        ("issued", json!("yesterday")),
        ("watermark", json!("2026-13-45T99:00:00Z")),
        ("instance", json!("")),
        ("replyto", json!("nowhere")),
        ("replyto", json!(format!("{}x", bench.replyto(0)))),
    ];
    for (name, wrong) in wrong {
        branch.put(altered(&branch, operation, |fields| fields[name] = wrong))?;
    }
    fence(bench, &branch).map(|_| ())
}

pub(super) fn kind(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    let mut branch = bench.branch("malformed/type");
    branch.mark()?;
    branch.say("commands whose type is another, or whose specversion is");
    let others = [
        ("type", "sagamore.command.v9"),
        ("type", "com.example.other"),
        ("type", "sagamore.reply.v1"),
        ("specversion", "2.0"),
    ];
    for (name, other) in others {
        branch.put(altered(&branch, operation, |fields| fields[name] = other.into()))?;
    }
    fence(bench, &branch)?;
    if let Some(reply) = branch.replies(operation).first() {
        return Err(branch.broken("no answer", &reply.told()));
    }
    branch.expect(bench.forward(), Effects::None)
}

pub(super) fn decision(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("malformed/decision");
    branch.mark()?;
    branch.say("decisions about nothing, for somebody else, and without sense");
    for decision in Decided::ALL {
        let mut inquiry = branch.inquiry();
        branch.put(Verdict { inquiry: inquiry.clone(), decision, heuristic: None }.to_json())?;
        if let Ok(somebody_else) = "somebody-else".parse() {
            inquiry.participant = somebody_else;
        }
        branch.put(Verdict { inquiry, decision, heuristic: None }.to_json())?;
    }
    let verdict = Verdict { inquiry: branch.inquiry(), decision: Decided::Commit, heuristic: None }.to_json();
    let text = String::from_utf8_lossy(&verdict).into_owned();
    branch.put(text.replace("\"commit\"", "\"maybe\"").into_bytes())?;
    branch.put(text.replace("\"birth\"", "\"death\"").into_bytes())?;
    fence(bench, &branch)?;
    for operation in [Operation::Commit, Operation::Abort] {
        if let Some(reply) = branch.replies(operation).first() {
            return Err(branch.broken("no reply to a decision", &format!("{operation}: {}", reply.told())));
        }
    }
    branch.expect(bench.forward(), Effects::None)
}

pub(super) fn huge(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("malformed/huge");
    let bytes = usize::try_from(RECORD_BYTES_MAX).unwrap_or(0).saturating_sub(ENVELOPE);
    let input = Payload::from_json(format!("{{\"huge\":\"{}\"}}", "x".repeat(bytes))).unwrap_or_default();
    branch.with_input(&format!("with {bytes} bytes of data"), input);
    branch.put(branch.record(bench.forward().first(), 1))?;
    fence(bench, &branch)?;
    with_undo(bench, branch)
}

/// If it has been done after all, it is undone.
fn with_undo(bench: &Bench<'_>, mut branch: Branch<'_, '_>) -> Result<(), Stop> {
    branch.input = Payload::Absent;
    branch.ask(bench.forward().undo()).map(|_| ())
}

//! Twice the input takes twice the time, not four times, and memory stays within a multiple of it: of everything that
//! reads what others wrote, in the shapes that readers are slow at.

#![expect(clippy::unwrap_used, reason = "the harness belongs to the tests")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use sagamore_decider::definition::plan::BranchIndex;
use sagamore_decider::definition::source::{Severity, read};
use sagamore_decider::definition::template::{Scope, Template};
use sagamore_decider::finished::Finished;
use sagamore_decider::output::Record;
use sagamore_decider::restore::StateReader;
use sagamore_decider::settings::Settings;
use sagamore_decider::shard::Shard;
use sagamore_schemas::definition::{DEFINITION_MAX_BYTES, ExactJson};
use sagamore_schemas::ids::{Partition, Time, TransactionId};
use sagamore_schemas::wire::{read_command, read_input, read_outcome};
use serde_json::value::RawValue;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Between linear, 2, and quadratic, 4.
const RATIO_MAX: f64 = 3.0;
/// Measured in turn so often; the quickest counts.
const ROUNDS: usize = 5;
/// A machine that is busy with something else gets another chance.
const CHANCES: usize = 4;
/// What is quicker than this says nothing.
const MEASURABLE: Duration = Duration::from_micros(500);
/// Bytes of memory for a byte of input, and for no input at all.
const MEMORY_FACTOR_MAX: usize = 64;
const MEMORY_BASE_MAX: usize = 4 * 1024 * 1024;

/// Makes an input of about so many bytes.
type Make = fn(usize) -> Vec<u8>;
/// Reads one.
type Read = fn(&[u8]);

struct Shape {
    name: &'static str,
    /// The larger of the two inputs.
    bytes: usize,
    make: Make,
    read: Read,
}

const MIB: usize = 1024 * 1024;

fn shapes() -> Vec<Shape> {
    let wire: [(&str, Make); 9] = [
        ("wire: deep data", |bytes| record(&format!("{}{}", "[".repeat(bytes / 2), "]".repeat(bytes / 2)))),
        ("wire: deep and open", |bytes| record(&"[".repeat(bytes))),
        ("wire: one long string", |bytes| record(&format!("\"{}\"", "x".repeat(bytes)))),
        ("wire: escapes", |bytes| record(&format!("\"{}\"", "\\u00e9".repeat(bytes / 6)))),
        ("wire: a long reason", |bytes| attribute("reason", &"\\n".repeat(bytes / 2))),
        ("wire: a long subject", |bytes| attribute("subject", &"x".repeat(bytes))),
        ("wire: unknown attributes", |bytes| attribute(&"x\":1,\"".repeat(bytes / 6), "1")),
        ("wire: a long operation", |bytes| attribute("operation", &"x".repeat(bytes))),
        ("wire: spaces", |bytes| record(&format!("[{}]", " ".repeat(bytes)))),
    ];
    let definition: [(&str, Make); 9] = [
        ("definition: steps", |bytes| steps(bytes, "{name: sN, participant: p}")),
        ("definition: unknown fields", |bytes| steps(bytes, "{name: sN, xN: 1}")),
        ("definition: the same key", |bytes| steps(bytes, "{name: sN, participant: p, participant: p}")),
        ("definition: templates", |bytes| steps(bytes, "{name: sN, participant: p, input: '${input.a.b}'}")),
        ("definition: an open list", |bytes| b"[".repeat(bytes)),
        ("definition: an indent", |bytes| "- ".repeat(bytes / 2).into()),
        ("definition: one line", |bytes| format!("name: \"{}\"", "\\x41".repeat(bytes / 4)).into()),
        ("definition: a comment", |bytes| {
            format!("#{}\n: {}", "x".repeat(bytes / 2), "é".repeat(bytes / 4)).into()
        }),
        ("definition: wide input", |bytes| {
            let fields = numbered(bytes / 14, "kN: 1, ");
            format!("{{name: t, version: 1, steps: [{{name: a, participant: p, input: {{{fields}}}}}]}}")
                .into()
        }),
    ];
    let template: [(&str, Make); 3] = [
        ("template: a wide object", |bytes| {
            let fields = numbered(bytes / 12, "\"kN\":1,");
            format!("{{{fields}\"a\":1}}").into()
        }),
        ("template: a long array", |bytes| format!("{{\"a\":[{}0]}}", "0,".repeat(bytes / 2)).into()),
        ("template: a deep array", |bytes| {
            format!("{{\"a\":{}{}}}", "[".repeat(bytes / 2), "]".repeat(bytes / 2)).into()
        }),
    ];
    let mut shapes = Vec::new();
    shapes.extend(wire.map(|(name, make)| Shape { name, bytes: MIB, make, read: read_wire }));
    shapes.extend(definition.map(|(name, make)| Shape {
        name,
        bytes: DEFINITION_MAX_BYTES - 6_000,
        make,
        read: read_definition,
    }));
    shapes.extend(template.map(|(name, make)| Shape { name, bytes: MIB, make, read: read_template }));
    let rest: [(&str, Make, Read); 5] = [
        (
            "settings: many",
            |bytes| format!("{{{}\"x\":1}}", "\"open_max\":1,".repeat(bytes / 13)).into(),
            read_settings,
        ),
        ("ids: long", |bytes| b"9".repeat(bytes), read_ids),
        ("state: endings", |bytes| endings(bytes), read_endings),
        ("state: keys", |bytes| numbered(bytes / 8, "N\n").into(), read_keys),
        (
            "shard: garbage",
            |bytes| {
                b"garbage, and a good deal of it: no shard has a use for such a record.\n".repeat(bytes / 72)
            },
            read_garbage,
        ),
    ];
    shapes.extend(rest.map(|(name, make, read)| Shape { name, bytes: MIB, make, read }));
    shapes
}

#[test]
fn twice_the_input_takes_twice_the_time_and_memory() {
    let mut wrong = Vec::new();
    for shape in shapes() {
        let (half, whole) = ((shape.make)(shape.bytes / 2), (shape.make)(shape.bytes));
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        (shape.read)(&whole);
        let peak = MEMORY.peak_usage().saturating_sub(before);
        if peak > MEMORY_BASE_MAX + whole.len() * MEMORY_FACTOR_MAX {
            wrong.push(format!("{}: {peak} bytes of memory for {} bytes", shape.name, whole.len()));
        }
        let mut best = (f64::MAX, Duration::ZERO);
        for _ in 0..CHANCES {
            let (less, more) = (quickest(&half, shape.read), quickest(&whole, shape.read));
            let ratio = more.as_secs_f64() / less.as_secs_f64().max(f64::MIN_POSITIVE);
            if ratio < best.0 {
                best = (ratio, more);
            }
            if best.0 <= RATIO_MAX || best.1 < MEASURABLE {
                break;
            }
        }
        let (ratio, took) = best;
        println!(
            "{:<30} {took:>12.3?} for {:>7} bytes, {ratio:.2} times the half, {peak} bytes",
            shape.name,
            whole.len()
        );
        if ratio > RATIO_MAX && took >= MEASURABLE {
            wrong.push(format!("{}: {took:?}, {ratio:.1} times what half of it takes", shape.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn quickest(bytes: &[u8], read: Read) -> Duration {
    let once = || {
        let since = Instant::now();
        read(black_box(bytes));
        since.elapsed()
    };
    (0..ROUNDS).map(|_| once()).min().unwrap_or_default()
}

fn record(data: &str) -> Vec<u8> {
    format!(
        r#"{{"specversion":"1.0","type":"sagamore.start.v1","source":"/g","time":"2026-01-01T00:00:00Z","subject":"t","definition":"t","data":{data}}}"#
    )
    .into()
}

fn attribute(name: &str, value: &str) -> Vec<u8> {
    format!(r#"{{"specversion":"1.0","type":"sagamore.reply.v1","{name}":"{value}"}}"#).into()
}

/// A piece so many times, with a number of six digits for each `N`.
fn numbered(count: usize, piece: &str) -> String {
    let pieces: Vec<String> = (0..count).map(|at| piece.replace('N', &format!("{at:06}"))).collect();
    pieces.concat()
}

fn steps(bytes: usize, step: &str) -> Vec<u8> {
    // Three digits for each number.
    let count = bytes / (step.len() + 2 + 2 * step.matches('N').count());
    let steps: Vec<String> = (0..count).map(|at| step.replace('N', &at.to_string())).collect();
    format!("{{name: t, version: 1, steps: [{}]}}", steps.join(", ")).into()
}

fn endings(bytes: usize) -> Vec<u8> {
    (0..bytes / 48)
        .flat_map(|at| {
            let mut ending = [0u8; 48];
            ending[..8].copy_from_slice(&at.to_be_bytes());
            ending[44] = 1;
            ending
        })
        .collect()
}

fn read_wire(bytes: &[u8]) {
    drop(black_box(read_input(Some(bytes))));
    drop(black_box(read_command(Some(bytes))));
    drop(black_box(read_outcome(Some(bytes))));
}

fn read_definition(bytes: &[u8]) {
    let checked = read(std::str::from_utf8(bytes).unwrap());
    if let Err(problems) = &checked.result {
        for problem in problems.iter().take(10) {
            black_box(checked.source.report("f", Severity::Error, problem));
        }
    }
}

fn read_template(bytes: &[u8]) {
    let data: &RawValue = serde_json::from_slice(bytes).unwrap();
    let document: ExactJson =
        serde_json::from_str(r#"["${input.a}","<${input.a.5}>","${input.zz}"]"#).unwrap();
    let resolve = |_: &str, _: Option<&str>| Err(());
    let template = Template::compile(&document, &resolve).unwrap();
    let id: TransactionId = "t".parse().unwrap();
    let result = |_: BranchIndex| None;
    drop(black_box(template.render(&Scope { transaction: &id, input: Some(data), result: &result })));
}

fn read_settings(bytes: &[u8]) {
    drop(black_box(Settings::default().changed_by(std::str::from_utf8(bytes).unwrap())));
}

fn read_ids(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    black_box(text.parse::<TransactionId>().is_ok());
    black_box(text.parse::<Time>().is_ok());
    black_box(text.parse::<sagamore_schemas::ids::Span>().is_ok());
    black_box(text.parse::<sagamore_schemas::ids::Birth>().is_ok());
}

fn read_endings(bytes: &[u8]) {
    let whole = bytes.len() / 48 * 48;
    black_box(Finished::default().load(&bytes[..whole]));
}

fn identity() -> sagamore_decider::identity::Identity {
    sagamore_decider::identity::Identity {
        instance: uuid::Uuid::from_u128(7),
        partition: Partition(0),
        partitions: 1,
        replyto: "sagamore.inbox/0".into(),
        inbox: "sagamore.inbox".into(),
        secret: None,
    }
}

fn read_keys(bytes: &[u8]) {
    let mut reader = StateReader::default();
    for key in bytes.split(|byte| *byte == b'\n') {
        reader.read(key, Some(b"1"), Some(b"{}"));
        reader.read(key, Some(b"2"), Some(b""));
    }
    black_box(reader.finish(identity()).is_ok());
}

fn read_garbage(bytes: &[u8]) {
    let mut shard = Shard::new(identity());
    let mut outputs = Vec::new();
    for (offset, value) in (0..).zip(bytes.split(|byte| *byte == b'\n')) {
        let record =
            Record { offset, timestamp: Time::default(), key: None, value: Some(value), headers: &[] };
        shard.apply(&record, &mut outputs);
        outputs.clear();
    }
    black_box(shard.draft(0).is_some());
}

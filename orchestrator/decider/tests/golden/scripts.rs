//! What the goldens show, one per protocol and fault. A new protocol adds its scripts here and blesses them.

use sagamore_decider::identity::ReplySecret;

use super::scribe::{SECRET, Scribe, Script};

#[path = "atomic.rs"]
mod atomic;
#[path = "children.rs"]
mod children;

/// Every script.
pub const SCRIPTS: &[Script] = &[
    script("saga-commit", "steps in turn, a pivot, what is retriable after it", commit),
    script("saga-compensation", "a later step is refused: what is done is undone, last first", compensation),
    script("saga-abort", "the first step is refused, or its input cannot be mapped: nothing was done", abort),
    script("saga-pivot", "asked until it answers; refused, it turns back; expired, it is stuck", pivot),
    script("saga-deadline", "before the pivot it turns back, after it is asked it means nothing", deadline),
    script("saga-cancel", "taken, refused, and with a revision", cancel),
    script("saga-retries", "errors and silence: pauses with jitter, tries that run out, `retry`", retries),
    script("saga-stuck", "compensations and retriable steps that are refused; a retry frees them", stuck),
    script("saga-pending", "the timeout starts anew, for the latest attempt only", pending),
    script("saga-late-replies", "to earlier attempts, to what has been undone, to the ended", late_replies),
    script("saga-undeliverable", "a command that never arrived is unknown, not refused", undeliverable),
    script("saga-graph", "branches that meet, several roots, compensation in reverse", graph),
    script(
        "saga-data",
        "paths into the input and results; digits kept; Base64; keys; what is too large",
        data,
    ),
    script(
        "pause",
        "held and let go on; a refusal, a cancel and the deadline end it; what is too late",
        pause,
    ),
    script("duplicates", "every record twice, and what has ended is told again", duplicates),
    script("dead-letters", "garbage, foreign, misplaced, nothing at all; a record passed over", dead_letters),
    script("definitions", "two names, several versions, the highest is meant, another content", definitions),
    script("settings", "taken, refused, and what they change; the level does not fall", settings),
    script("overload", "bounds of a shard: open, remembered, bytes, definitions", overload),
    script("dedupe-window", "too old, too early, forgotten, a second life", dedupe_window),
    script("conflict", "the same id with other data or another definition, open and ended", conflict),
    script("reply-tokens", "demanded from a settings record on", reply_tokens),
    script("owed", "checkpoints with outputs nobody has acknowledged, and with fewer of them later", owed),
    Script { partitions: 2, ..script("wrong-home", "starts and replies in another partition", wrong_home) },
    script(
        "two-phase",
        "votes, and one decision: commit, abort, by silence, by the deadline",
        atomic::two_phase,
    ),
    script("two-phase-undone", "a group that commits in its place and is compensated later", atomic::undone),
    script("two-phase-stuck", "what is decided is asked without end; refused, it is stuck", atomic::stuck),
    script(
        "three-phase",
        "precommit between votes and commit; from then on there is no way back",
        atomic::three_phase,
    ),
    script("children", "a step starts a definition: done, undone, called off, away", children::children),
    script("reserved", "prepared in its place, told the transaction's decision", atomic::reserved),
    script(
        "at-end",
        "a group that commits with the transaction, beside a pivot and what is retriable",
        atomic::at_end,
    ),
    script("mixed", "all protocols in one transaction, forth and back", atomic::mixed),
    script("conditions", "steps that are skipped, refused and stuck by their `when`", atomic::conditions),
    script(
        "inquiries",
        "who is in doubt asks: undecided, commit, abort, forgotten, and no answer at all",
        atomic::inquiries,
    ),
    script(
        "atomic-data",
        "results of branches, keys, what is too large, what cannot be mapped",
        atomic::data,
    ),
    script("atomic-crowd", "many transactions of every shape at once", atomic::crowd),
    script("crowd", "many transactions at once, with everything that can happen to them", crowd),
];

const fn script(name: &'static str, shows: &'static str, play: fn(&mut Scribe)) -> Script {
    Script { name, shows, partitions: 1, play }
}

fn all(s: &mut Scribe, answers: &[&str]) {
    for line in answers {
        s.answer(line);
    }
}

fn commit(s: &mut Scribe) {
    s.define("a; b pivot; c retriable; d retriable after=b");
    s.start("t", r#"{"n":1}"#);
    all(s, &[r#"t a ok {"r":1}"#, "t b ok"]);
    s.checkpoint(0);
    all(s, &["t d ok", r#"t c ok {"x":"y"}"#]);
}

fn compensation(s: &mut Scribe) {
    s.define("a; b; c");
    s.start("t", r#"{"n":1}"#);
    all(s, &[r#"t a ok {"r":1}"#, r#"t b ok {"r":2}"#, "t c refused no money"]);
    s.checkpoint(0);
    all(s, &["t b ok", "t a ok"]);
}

fn abort(s: &mut Scribe) {
    s.define(r#"a input={"x":"${input.x}"}; b input={"y":"${steps.a.y}"}"#);
    s.start("one", r#"{"x":1}"#);
    s.answer("one a refused sold out");
    s.start("two", r#"{"x":1}"#);
    all(s, &["two a ok {}", "two a ok"]);
    s.start("three", r#"{"z":1}"#);
}

fn pivot(s: &mut Scribe) {
    s.define("a; b pivot timeout=5s backoff=1s; c retriable");
    for id in ["one", "two", "three"] {
        s.start(id, "{}");
        s.answer(&format!("{id} a ok"));
    }
    s.ring();
    s.checkpoint(0);
    s.cancel("one", "changed my mind", None);
    s.ring();
    all(s, &["one b error not now", "two b refused no", "three b expired"]);
    s.ring();
    all(s, &["one b ok", "one c ok", "two a ok"]);
    s.checkpoint(0);
    s.retry("three", "the purge was a mistake");
    all(s, &["three b ok", "three c ok"]);
}

fn deadline(s: &mut Scribe) {
    s.define("deadline=10s; a timeout=1m; b pivot timeout=1m");
    for id in ["one", "two", "three"] {
        s.start(id, "{}");
    }
    all(s, &["two a ok", "three a ok"]);
    s.answer("three b ok");
    s.checkpoint(0);
    s.ring();
    s.answer("one a ok");
    s.ring();
    s.ring();
    s.answer("two b ok");
}

fn cancel(s: &mut Scribe) {
    s.define("a attempts=3; b pivot");
    s.start("one", "{}");
    s.answer("one a error disk full");
    s.cancel("one", "stale", Some(1));
    s.cancel("one", "good", Some(2));
    s.checkpoint(0);
    s.cancel("one", "again", None);
    s.answer("one a ok");
    s.cancel("one", "it has ended", None);
    s.cancel("nobody", "who", None);
    s.start("two", "{}");
    s.answer("two a ok");
    s.cancel("two", "too late", None);
    s.answer("two b ok");
}

fn retries(s: &mut Scribe) {
    s.define("a attempts=4 backoff=1s factor=3 max=4s timeout=2s; b attempts=1");
    s.start("one", "{}");
    s.answer("one a error disk full");
    s.ring();
    s.checkpoint(0);
    s.ring();
    s.ring();
    s.answer("one a error still full");
    s.retry("one", "cleaned up");
    s.answer("one a ok");
    s.ring();
    s.answer("one b ok");
    s.answer("one a ok");
    s.start("two", "{}");
    for _ in 0..8 {
        s.ring();
    }
    s.answer("two a ok");
}

fn stuck(s: &mut Scribe) {
    s.define("a attempts=2; b; c");
    s.start("one", "{}");
    all(s, &["one a ok", "one b ok", "one c refused no"]);
    s.answer("one b refused cannot");
    s.checkpoint(0);
    s.answer("one a expired");
    s.retry("one", "mended");
    all(s, &["one a ok", "one b error", "one b:compensate@1 ok"]);
    s.define("version=2; a pivot; b retriable; c retriable after=a");
    s.start("two", "{}");
    all(s, &["two a ok", "two b refused no such address", "two c ok"]);
    s.checkpoint(0);
    s.retry("two", "address mended");
    s.answer("two b ok");
    s.define(r#"version=3; a pivot; b retriable input={"x":"${steps.a.x}"}"#);
    s.start("three", "{}");
    s.answer("three a ok {}");
    s.retry("three", "perhaps");
}

fn pending(s: &mut Scribe) {
    s.define("a timeout=10s attempts=2");
    s.start("t", "{}");
    s.pass("9s");
    s.answer("t a pending");
    s.pass("9s");
    s.answer("t a pending still at it");
    s.checkpoint(0);
    s.ring();
    s.answer("t a pending");
    s.ring();
    s.answer("t a@1 pending");
    s.answer("t a ok");
}

fn late_replies(s: &mut Scribe) {
    s.define("a attempts=2 timeout=1s; b attempts=2");
    s.start("one", "{}");
    s.ring();
    s.ring();
    all(s, &["one a@1 ok", "one a@2 ok", "one a@2 refused", "one b refused no"]);
    s.checkpoint(0);
    all(
        s,
        &["one a:execute@2 ok", "one b ok", "one a:compensate@1 ok", "one a:compensate@1 error", "one b ok"],
    );
    s.define("version=2; a pivot");
    s.start("two", "{}");
    s.ring();
    s.ring();
    all(s, &["two a@2 expired", "two a@1 ok", "two a@1 refused"]);
}

fn undeliverable(s: &mut Scribe) {
    s.define("a attempts=2; b attempts=1");
    s.start("one", "{}");
    all(s, &["one a lost", "one a lost"]);
    s.ring();
    s.checkpoint(0);
    all(s, &["one a@1 lost", "one a ok", "one b lost"]);
    s.answer("one a lost");
    s.ring();
    all(s, &["one b ok", "one a ok"]);
    s.answer("one a lost");
}

fn graph(s: &mut Scribe) {
    s.define("a after=; b after=; c after=a; d after=b+c; e retriable after=d; f retriable after=");
    s.start("one", "{}");
    all(s, &["one b ok", "one a ok"]);
    s.checkpoint(0);
    all(s, &["one c ok", "one d ok", "one f ok", "one e ok"]);
    s.start("two", "{}");
    all(s, &["two a ok", "two b ok", "two c ok"]);
    s.answer("two d refused no");
    s.checkpoint(0);
    all(s, &["two c ok", "two b ok", "two a ok"]);
    s.start("three", "{}");
    all(s, &["three a ok", "three b refused no", "three c ok"]);
    all(s, &["three c ok", "three a ok"]);
}

fn data(s: &mut Scribe) {
    s.define(
        r#"a input={"sku":"${input.sku}","all":"${input}","n":1.10} key=${input.sku}; b input={"t":"<${transaction.id}:${input.big}>","r":"${steps.a.r}","e":"${steps.a.list.1}"}; c input="${steps.b}" key=${input.sku}/${steps.a.r}"#,
    );
    s.settings(r#"{"transaction_bytes_max":1024}"#);
    s.start("one", r#"{"sku":"Ä \"1\"", "big":12345678901234567890.00, "u":"\u00e9"}"#);
    s.answer(r#"one a ok {"r":0.10,"list":[1, {"x":[]} ]}"#);
    s.checkpoint(0);
    s.answer(r#"one b ok {"deep":[[[1e400]]]}"#);
    s.answer("one c ok base64:AAEC");
    s.define("version=2; a; b");
    s.start("two", "[]");
    s.answer("two a ok base64:////");
    s.answer(&format!("two b ok \"{}\"", "x".repeat(1100)));
    s.answer("two b ok");
    s.answer("two a ok");
    s.start("three", &format!("\"{}\"", "x".repeat(1100)));
    s.append(br#"{"specversion":"1.0","type":"sagamore.start.v1","id":"i","source":"/s","time":"2026-01-01T00:00:00Z","subject":"four","definition":"t","data_base64":"AAEC","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#);
    s.answer("four a ok");
    s.answer("four b refused no");
    s.answer("four a ok");
}

fn pause(s: &mut Scribe) {
    s.define("deadline=1m; a after= timeout=5s; b after= timeout=5s attempts=2; c after=a+b");
    s.start("one", "{}");
    s.pause("one", "look first");
    s.pause("one", "twice");
    s.checkpoint(0);
    s.answer("one a ok");
    s.retry("one", "now");
    s.answer("one b error down");
    s.pass("9s");
    s.checkpoint(0);
    s.resume("one", "looked");
    s.resume("one", "twice");
    s.ring();
    all(s, &["one b ok", "one c ok"]);
    s.start("two", "{}");
    s.pause("two", "look first");
    s.checkpoint(0);
    all(s, &["two a ok", "two b refused no", "two a ok"]);
    s.start("three", "{}");
    s.pause("three", "for good");
    s.checkpoint(0);
    s.ring();
    all(s, &["three a ok", "three b ok"]);
    s.start("four", "{}");
    s.pause("four", "look first");
    s.cancel("four", "after all", None);
    all(s, &["four a ok", "four b ok"]);
    s.define("version=2; a pivot");
    s.start("five", "{}");
    s.pause("five", "too late");
    s.answer("five a ok");
    s.resume("five", "it has ended");
}

fn duplicates(s: &mut Scribe) {
    s.define("a; b");
    let begun = s.now();
    for _ in 0..2 {
        s.start_of("t", r#"{"n":1}"#, "t", begun);
    }
    all(s, &["t a ok {}", "t a ok {}"]);
    s.checkpoint(0);
    all(s, &["t b refused no", "t b refused no", "t a:compensate ok", "t a:compensate ok"]);
    s.start_of("t", r#"{"n":1}"#, "t", begun);
    s.start_of("t", r#"{"n":1}"#, "t@1", begun);
}

fn dead_letters(s: &mut Scribe) {
    s.define("a");
    s.start("t", "{}");
    s.record(None, None, &[]);
    s.record(Some(b"k\xff"), Some(b"\xff\xfe"), &[("h", b"v"), ("h", b"\xff")]);
    s.append(b"");
    s.append(b"not json");
    s.append(br#"{"specversion":"0.3","type":"sagamore.reply.v1"}"#);
    s.append(br#"{"specversion":"1.0","type":"sagamore.nonsense.v1"}"#);
    s.append(br#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"no id at all"}"#);
    s.append(br#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"u"}"#);
    s.append(br#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"u","time":7}"#);
    s.append(br#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"u","time":"2026-01-01T00:00:00Z","definition":"t","data_base64":"?"}"#);
    let base = r#""specversion":"1.0","type":"sagamore.reply.v1","source":"/x","outcome":"ok","branch":"a","operation":"execute","attempt":1"#;
    let ours = "00000000-0000-0000-0000-000000000007";
    for (instance, subject, birth, step) in [
        ("00000000-0000-0000-0000-000000000008", "t", "0-1", "a"),
        (ours, "t", "1-1", "a"),
        (ours, "t", "0-7", "a"),
        (ours, "u", "0-1", "a"),
        (ours, "t", "0-1", "b"),
        (ours, "t", "0-01", "a"),
    ] {
        let text = format!(
            r#"{{{base},"instance":"{instance}","subject":"{subject}","birth":"{birth}","step":"{step}"}}"#
        );
        s.append(text.as_bytes());
    }
    s.checkpoint(0);
    s.append(br#"{"specversion":"1.0","type":"sagamore.timer.v1","subject":"t","birth":"0-1","due":"2026-01-01T00:00:00Z"}"#);
    s.append(br#"{"specversion":"1.0","type":"sagamore.skip.v1","id":"v","actor":"ann","reason":"r","target":"0/3"}"#);
    s.skip(b"poison", "it panics");
    s.leap();
    s.answer("t a ok");
}

fn definitions(s: &mut Scribe) {
    s.define("a");
    s.define("version=3; a; b");
    s.define("version=2; b");
    s.define_json(
        r#"{"name":"u","version":1,"steps":[{"name":"x","participant":"a","kind":"pivot","timeout":"1h"}]}"#,
    );
    s.define("version=2; c");
    s.define("a");
    s.define_json(r#"{"name":"u","version":2,"steps":[{"name":"x","participant":"a","after":["y"]}]}"#);
    s.define_json(r#"{"nonsense":true}"#);
    s.checkpoint(0);
    let now = s.now();
    for (id, definition) in
        [("one", "t"), ("two", "t@1"), ("three", "t@2"), ("four", "u"), ("five", "u@2"), ("six", "v")]
    {
        s.start_of(id, "{}", definition, now);
    }
    s.append(
        br#"{"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":2,"data":{"late":1}}"#,
    );
    all(s, &["one a ok", "one b ok", "two a ok", "three b ok", "four x ok"]);
}

fn settings(s: &mut Scribe) {
    s.define("a");
    s.settings(r#"{"dedupe_window":"30s","watermark_age":"1m"}"#);
    s.start("one", "{}");
    s.answer("one a ok");
    s.settings(r#"{"dedupe_windows":"30s"}"#);
    s.settings(r#"{"dedupe_window":"31d"}"#);
    s.settings("[]");
    s.checkpoint(0);
    s.pass("29s");
    s.settings(r#"{"dedupe_window":"1h"}"#);
    s.start("one", "{}");
    s.pass("10s");
    s.start("two", "{}");
    s.answer("two a ok");
    s.level(1);
    s.level(0);
}

fn overload(s: &mut Scribe) {
    s.define("a");
    s.settings(r#"{"open_max":2,"finished_max":4,"definitions_max":2}"#);
    for id in ["one", "two", "three"] {
        s.start(id, "{}");
    }
    s.answer("one a ok");
    s.checkpoint(0);
    for id in ["three", "four"] {
        s.start(id, "{}");
    }
    all(s, &["two a ok", "three a ok"]);
    for id in ["five", "six", "seven"] {
        s.start(id, "{}");
    }
    s.define("version=2; a");
    s.define("version=3; a");
    s.settings(r#"{"open_max":100,"finished_max":100,"open_bytes_max":1024}"#);
    s.start("eight", &format!("\"{}\"", "x".repeat(1020)));
    s.start("nine", &format!("\"{}\"", "x".repeat(1000)));
    s.start("ten", "{}");
}

fn dedupe_window(s: &mut Scribe) {
    s.define("a");
    s.settings(r#"{"dedupe_window":"1m"}"#);
    let begun = s.now();
    s.start("t", "{}");
    s.answer("t a ok");
    s.checkpoint(0);
    s.pass("1m");
    s.start_of("t", "{}", "t", begun);
    s.pass("1ms");
    s.start_of("t", "{}", "t", begun);
    s.pass("2s");
    s.start_of("t", "{}", "t", begun);
    s.checkpoint(0);
    s.start("t", r#"{"another":"life"}"#);
    s.answer("t a refused no");
    let ahead = s.now().after("60s".parse().unwrap());
    s.start_of("u", "{}", "t", ahead);
    s.start_of("v", "{}", "t", ahead.after("1ms".parse().unwrap()));
    s.pass("1h");
    s.start_of("w", "{}", "t", ahead);
    s.answer("u a ok");
}

fn conflict(s: &mut Scribe) {
    s.define("a");
    s.define("version=2; a");
    let now = s.now();
    s.start("t", r#"{"n":1}"#);
    let again = |s: &mut Scribe| {
        for (json, definition) in [
            (r#"{"n":1}"#, "t"),
            (r#"{"n":1}"#, "t@2"),
            (r#"{"n":1}"#, "t@1"),
            (r#"{ "n":1}"#, "t"),
            (r#"{"n":1}"#, "u"),
        ] {
            s.start_of("t", json, definition, now);
        }
    };
    again(s);
    s.answer("t a ok");
    s.checkpoint(0);
    again(s);
}

fn reply_tokens(s: &mut Scribe) {
    s.define("a; b");
    s.start("one", "{}");
    let fingerprint = ReplySecret::new(SECRET.into()).unwrap().fingerprint();
    s.settings(&format!(r#"{{"reply_token":"{fingerprint}"}}"#));
    s.answer("one a ok");
    s.start("two", "{}");
    s.checkpoint(0);
    all(s, &["two a ok forged", "two a ok", "two b ok"]);
    s.settings(r#"{"reply_token":null}"#);
    all(s, &["one a ok", "one b ok"]);
}

fn owed(s: &mut Scribe) {
    s.define("a after=; b after=; c after=");
    s.start("one", "{}");
    s.append(b"garbage");
    s.checkpoint(4);
    s.answer("one a ok");
    s.answer("one b ok");
    s.checkpoint(1);
    s.answer("one c ok");
    s.checkpoint(0);
    s.start("two", "{}");
    s.checkpoint(2);
    all(s, &["two a refused no", "two c ok", "two b refused no"]);
    all(s, &["two b ok", "two c:compensate ok"]);
}

fn wrong_home(s: &mut Scribe) {
    s.define("a");
    let (here, elsewhere) = (s.id("order", true), s.id("order", false));
    s.start(&elsewhere, "{}");
    s.start(&here, "{}");
    s.checkpoint(0);
    s.answer(&format!("{here} a ok"));
}

/// Chooses by a linear congruential generator (Knuth, MMIX), so that the script is always the same.
fn crowd(s: &mut Scribe) {
    s.define("deadline=30s; a after= timeout=2s attempts=3 backoff=500ms; b after= timeout=2s; c pivot after=a+b timeout=2s; d retriable timeout=2s");
    s.define("version=2; deadline=20s; a timeout=1s attempts=2; b after=a timeout=1s; c retriable after=");
    s.settings(r#"{"dedupe_window":"20s"}"#);
    let mut state = 7u64;
    let mut roll = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    let ids = ["one", "two", "three", "four", "five", "six"];
    for number in 0..240 {
        match roll(16) {
            0..=2 => {
                let definition = ["t", "t@1", "t@2"][roll(3)];
                s.start_of(ids[roll(ids.len())], "{}", definition, s.now());
            }
            3..=10 if !s.asked().is_empty() => {
                let asked = s.asked();
                let whom = &asked[roll(asked.len())];
                let said =
                    ["ok", "ok", "ok {}", "ok", "refused no", "error", "pending", "expired", "lost"][roll(9)];
                s.answer(&format!("{whom} {said}"));
            }
            11 | 12 => s.ring(),
            13 => s.pass(["10ms", "700ms", "2s"][roll(3)]),
            14 => s.cancel(ids[roll(ids.len())], "why not", None),
            _ => s.retry(ids[roll(ids.len())], "why not"),
        }
        if number % 60 == 59 {
            s.checkpoint(0);
        }
    }
}

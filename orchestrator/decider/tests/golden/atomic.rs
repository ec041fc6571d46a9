//! Scripts of everything that is voted on, and of conditions and inquiries.

use super::super::scribe::Scribe;
use super::all;

pub fn two_phase(s: &mut Scribe) {
    s.define("deadline=1m; pay two-phase branches=x+y attempts=2 timeout=5s backoff=1s; ship retriable");
    s.start("commit", r#"{"n":1}"#);
    all(s, &[r#"commit pay/x ok {"r":1}"#, r#"commit pay/x ok {"r":2}"#, "commit pay/y pending"]);
    s.checkpoint(0);
    all(s, &[r#"commit pay/y ok {"r":3}"#, "commit pay/x:prepare ok", "commit pay/y ok", "commit pay/x ok"]);
    s.answer("commit ship ok");
    s.start("abort", "{}");
    all(s, &["abort pay/y ok", "abort pay/x refused no money"]);
    s.checkpoint(0);
    all(s, &["abort pay/x:prepare ok", "abort pay/y error", "abort pay/y ok"]);
    s.ring();
    s.answer("abort pay/y ok");
    s.start("unknown", "{}");
    all(s, &["unknown pay/x expired", "unknown pay/y lost"]);
    all(s, &["unknown pay/y ok", "unknown pay/x lost"]);
    s.answer("unknown pay/x:prepare ok");
    s.answer("unknown pay/x ok");
    s.start("silent", "{}");
    s.answer("silent pay/x ok");
    for _ in 0..4 {
        s.ring();
    }
    all(s, &["silent pay/x ok", "silent pay/y ok"]);
    s.define("version=2; deadline=10s; pay two-phase branches=x+y+z timeout=1m");
    s.start("late", "{}");
    s.answer("late pay/x ok");
    s.ring();
    s.checkpoint(0);
    s.cancel("late", "too late", None);
    all(
        s,
        &["late pay/y:prepare ok", "late pay/x ok", "late pay/y ok", "late pay/z refused", "late pay/z ok"],
    );
    s.retry("late", "answered by somebody else");
    s.answer("late pay/z ok");
    s.start("cancelled", "{}");
    s.cancel("cancelled", "changed my mind", None);
    all(s, &["cancelled pay/x ok", "cancelled pay/y ok", "cancelled pay/z ok"]);
}

pub fn undone(s: &mut Scribe) {
    s.define("deadline=1m; pay two-phase undone branches=x+y timeout=2m; b attempts=1 timeout=2m");
    s.start("one", "{}");
    all(s, &["one pay/x ok", "one pay/y ok", "one pay/x ok"]);
    s.checkpoint(0);
    all(s, &["one pay/y ok", "one b refused no"]);
    all(s, &["one pay/y ok", "one pay/x expired"]);
    s.retry("one", "remembered after all");
    s.answer("one pay/x ok");
    s.start("two", "{}");
    all(s, &["two pay/x ok", "two pay/y ok", "two pay/y ok"]);
    s.cancel("two", "while it commits", None);
    s.checkpoint(0);
    all(s, &["two pay/x ok", "two pay/x ok", "two pay/y ok"]);
    s.start("three", "{}");
    all(s, &["three pay/x ok", "three pay/y refused no", "three pay/x ok"]);
    s.define("version=2; pay three-phase undone branches=x+y; b");
    s.start("four", "{}");
    all(s, &["four pay/x ok", "four pay/y ok", "four pay/x ok"]);
    s.cancel("four", "between precommit and commit", None);
    s.checkpoint(0);
    all(s, &["four pay/y ok", "four pay/y ok", "four pay/x ok", "four pay/y ok", "four pay/x ok"]);
}

pub fn stuck(s: &mut Scribe) {
    s.define("pay two-phase branches=x+y attempts=1 timeout=1s backoff=1s max=4s; ship retriable");
    s.start("one", "{}");
    all(s, &["one pay/x ok", "one pay/y ok", "one pay/x refused cannot", "one pay/y error"]);
    s.checkpoint(0);
    for _ in 0..6 {
        s.ring();
    }
    s.answer("one pay/y:commit@1 ok");
    s.cancel("one", "no way back", None);
    s.retry("one", "mended");
    s.answer("one pay/x expired");
    s.retry("one", "mended again");
    all(s, &["one pay/x ok", "one ship ok"]);
    s.start("two", "{}");
    all(s, &["two pay/x ok", "two pay/y refused no", "two pay/x refused cannot"]);
    s.checkpoint(0);
    s.retry("two", "mended");
    s.answer("two pay/x ok");
}

pub fn three_phase(s: &mut Scribe) {
    s.define("deadline=1m; pay three-phase branches=x+y timeout=2m attempts=1 backoff=1s; ship retriable");
    s.start("commit", "{}");
    all(s, &["commit pay/x ok", "commit pay/y ok", "commit pay/y ok"]);
    s.cancel("commit", "too late", None);
    s.checkpoint(0);
    all(s, &["commit pay/x error", "commit pay/x:prepare ok"]);
    s.ring();
    all(s, &["commit pay/x ok", "commit pay/x ok", "commit pay/y ok", "commit ship ok"]);
    s.start("abort", "{}");
    all(s, &["abort pay/x ok", "abort pay/y refused no", "abort pay/x ok"]);
    s.start("late", "{}");
    s.answer("late pay/x ok");
    s.ring();
    all(s, &["late pay/x ok", "late pay/y ok"]);
    s.start("stuck", "{}");
    all(s, &["stuck pay/x ok", "stuck pay/y ok", "stuck pay/x ok", "stuck pay/y refused cannot"]);
    s.checkpoint(0);
    s.retry("stuck", "mended");
    all(s, &["stuck pay/y expired"]);
    s.answer("stuck pay/y:precommit@1 ok");
    all(s, &["stuck pay/y ok", "stuck pay/x ok", "stuck ship ok"]);
    s.start("alone", "{}");
    all(s, &["alone pay/y lost", "alone pay/x ok", "alone pay/y ok"]);
    s.define("version=2; pay three-phase branches=x");
    s.start("one", "{}");
    all(s, &["one pay/x ok", "one pay/x ok"]);
    s.checkpoint(0);
    s.answer("one pay/x ok");
}

pub fn reserved(s: &mut Scribe) {
    s.define("a; hold reserved; more reserved after=a; b pivot after=hold+more; ship retriable");
    s.define("version=2; hold reserved attempts=2 timeout=1s backoff=1s");
    s.start_of("commit", "{}", "t@1", s.now());
    all(s, &["commit a ok", r#"commit hold ok {"seat":7}"#, "commit more ok", "commit b ok"]);
    s.checkpoint(0);
    all(s, &["commit ship ok", "commit more ok", "commit hold error", "commit hold ok"]);
    s.start_of("abort", "{}", "t@1", s.now());
    all(s, &["abort a ok", "abort hold ok", "abort more ok", "abort b refused no"]);
    s.checkpoint(0);
    all(s, &["abort more ok", "abort hold ok", "abort a ok"]);
    s.start_of("full", "{}", "t@1", s.now());
    all(s, &["full a ok", "full hold refused full", "full more ok", "full a ok"]);
    s.start("alone", "{}");
    all(s, &["alone hold ok", "alone hold ok"]);
    s.start("silent", "{}");
    for _ in 0..4 {
        s.ring();
    }
    s.answer("silent hold ok");
}

pub fn at_end(s: &mut Scribe) {
    s.define("pay two-phase branches=x+y commit=at-end; charge pivot; ship retriable after=pay");
    s.define("version=2; pay three-phase branches=x+y commit=at-end; hold reserved after=; ship retriable");
    s.start_of("one", "{}", "t@1", s.now());
    all(s, &["one pay/x ok", "one pay/y ok"]);
    s.checkpoint(0);
    all(s, &["one charge ok", "one pay/y ok", "one pay/x ok", "one ship lost"]);
    s.ring();
    s.answer("one ship ok");
    s.start_of("two", "{}", "t@1", s.now());
    all(s, &["two pay/x ok", "two pay/y ok", "two charge refused no", "two pay/x ok", "two pay/y ok"]);
    s.start("three", "{}");
    all(s, &["three hold ok", "three pay/y ok", "three pay/x ok"]);
    s.checkpoint(0);
    all(s, &["three pay/y ok", "three hold ok", "three pay/x ok", "three pay/x ok", "three pay/y ok"]);
    s.answer("three ship ok");
    s.start("four", "{}");
    all(s, &["four hold refused full", "four pay/x ok", "four pay/y ok"]);
}

pub fn mixed(s: &mut Scribe) {
    s.define(
        "deadline=1m; a; hold reserved timeout=2m; group two-phase undone branches=x+y timeout=2m; end three-phase branches=x+y commit=at-end timeout=2m; pay two-phase branches=x+y timeout=2m; ship retriable",
    );
    let forth = |s: &mut Scribe, id: &str, until: usize| {
        let branches = ["a", "hold", "group/x", "group/y", "group/y", "group/x", "end/x", "end/y", "pay/x"];
        for branch in &branches[..until] {
            s.answer(&format!("{id} {branch} ok"));
        }
    };
    s.start("commit", "{}");
    forth(s, "commit", 9);
    s.checkpoint(0);
    forth_rest(s, "commit");
    s.start("back", "{}");
    forth(s, "back", 9);
    s.answer("back pay/y refused no");
    s.checkpoint(0);
    for answer in ["pay/x", "end/y", "end/x", "group/x", "group/y", "hold", "a"] {
        s.answer(&format!("back {answer} ok"));
    }
    s.start("half", "{}");
    forth(s, "half", 5);
    s.ring();
    s.checkpoint(0);
    for answer in ["group/x", "group/x", "group/y", "hold", "a"] {
        s.answer(&format!("half {answer} ok"));
    }
}

fn forth_rest(s: &mut Scribe, id: &str) {
    let rest = ["pay/y", "pay/y", "end/y", "end/x", "hold", "pay/x", "ship", "end/x", "end/y"];
    for branch in rest {
        s.answer(&format!("{id} {branch} ok"));
    }
}

pub fn conditions(s: &mut Scribe) {
    s.define("a; hold reserved when=input.hold; pay two-phase branches=x+y undone when=input.pay; b; c retriable when=steps.a.n>2");
    s.start("all", r#"{"hold":true,"pay":true}"#);
    all(
        s,
        &[
            r#"all a ok {"n":3}"#,
            "all hold ok",
            "all pay/x ok",
            "all pay/y ok",
            "all pay/x ok",
            "all pay/y ok",
        ],
    );
    all(s, &["all b ok", "all c ok", "all hold ok"]);
    s.start("none", r#"{"hold":false,"pay":false}"#);
    s.answer(r#"none a ok {"n":2}"#);
    s.checkpoint(0);
    s.answer("none b ok");
    s.start("back", r#"{"hold":false,"pay":true}"#);
    all(s, &[r#"back a ok {"n":2}"#, "back pay/x ok", "back pay/y ok", "back pay/x ok", "back pay/y ok"]);
    all(s, &["back b refused no", "back pay/x ok", "back pay/y ok", "back a ok"]);
    s.start("no-answer", r#"{"hold":"perhaps"}"#);
    all(s, &[r#"no-answer a ok {"n":2}"#, "no-answer a ok"]);
    s.start("later", r#"{"hold":false,"pay":false}"#);
    all(s, &["later a ok", "later b ok"]);
    s.checkpoint(0);
    s.retry("later", "perhaps");
    s.define_json(
        r#"{"name":"u","version":1,"steps":[
            {"name":"a","participant":"a","when":"input.items.all(i, i.price <= 9.50) && size(input.items) > 0"},
            {"name":"b","participant":"b","kind":"pivot","when":"has(input.gift) && input.gift in ['book', \"rose\"]"},
            {"name":"c","participant":"c","kind":"retriable","when":"has(steps.a) ? steps.a.n % 2 == 1 : transaction.id.startsWith('z')"}]}"#,
    );
    let starts = [
        ("u1", r#"{"items":[{"price":9.5},{"price":1}],"gift":"book"}"#),
        ("u2", r#"{"items":[],"gift":"car"}"#),
        ("z3", r#"{"items":[{"price":9.51}]}"#),
        ("u4", r#"{"items":[{"price":"9"}]}"#),
    ];
    for (id, json) in starts {
        s.start_of(id, json, "u", s.now());
    }
    s.checkpoint(0);
    all(s, &[r#"u1 a ok {"n":9007199254740993}"#, "u1 b ok", "u1 c ok", "z3 c ok"]);
}

pub fn inquiries(s: &mut Scribe) {
    s.define("a; pay two-phase branches=x+y; ship retriable");
    s.settings(r#"{"dedupe_window":"1m"}"#);
    s.start("one", "{}");
    s.answer("one a ok");
    s.inquire("one pay/x");
    s.answer("one pay/x ok");
    s.inquire("one pay/x");
    s.checkpoint(0);
    s.answer("one pay/y ok");
    s.inquire("one pay/x");
    s.answer("one pay/x ok");
    s.inquire("one pay/x");
    s.inquire_as("one pay/x", Some("y"));
    s.inquire("one a");
    all(s, &["one pay/y ok", "one ship ok"]);
    s.inquire("one pay/y");
    s.start("two", "{}");
    all(s, &["two a ok", "two pay/x ok", "two pay/y refused no"]);
    s.inquire("two pay/x");
    s.inquire("two pay/y");
    s.checkpoint(1);
    all(s, &["two pay/x ok", "two a ok"]);
    s.inquire("two pay/x");
    s.define("version=2; pay three-phase branches=x+y");
    s.start("three", "{}");
    all(s, &["three pay/x ok", "three pay/y ok"]);
    s.inquire("three pay/x");
    s.answer("three pay/x ok");
    s.inquire("three pay/x");
    s.answer("three pay/y ok");
    s.inquire("three pay/x");
    all(s, &["three pay/y ok", "three pay/x ok"]);
    s.start("four", "{}");
    all(s, &["four pay/x ok", "four pay/y refused no", "four pay/x ok"]);
    s.inquire("four pay/x");
    s.checkpoint(0);
    s.pass("2m");
    s.settings(r#"{"dedupe_window":"30s"}"#);
    for line in ["one pay/x", "two pay/x", "three pay/x", "four pay/x"] {
        s.inquire(line);
    }
}

pub fn data(s: &mut Scribe) {
    s.define(
        r#"pay two-phase branches=x+y undone input={"n":"${input.n}"}; hold reserved input={"r":"${steps.pay.x.r}","y":"${steps.pay.y}"} key=${steps.pay.x.r}/${input.n}; b"#,
    );
    s.settings(r#"{"transaction_bytes_max":1024}"#);
    s.start("one", r#"{"n":1.10}"#);
    all(
        s,
        &[
            r#"one pay/x ok {"r":"Ä"}"#,
            "one pay/y ok [1e400]",
            "one pay/x ok",
            r#"one pay/y ok {"not":"kept"}"#,
        ],
    );
    s.checkpoint(0);
    all(s, &[r#"one hold ok {"seat":7}"#, "one b ok", "one hold ok"]);
    s.start("two", r#"{"n":2}"#);
    all(
        s,
        &["two pay/x ok {}", "two pay/y ok", "two pay/x ok", "two pay/y ok", "two pay/x ok", "two pay/y ok"],
    );
    s.start("three", r#"{"n":3}"#);
    s.answer("three pay/x ok");
    s.answer(&format!("three pay/y ok \"{}\"", "x".repeat(1100)));
    s.checkpoint(0);
    all(s, &["three pay/x ok", "three pay/y ok"]);
}

/// Chooses by a linear congruential generator (Knuth, MMIX), so that the script is always the same.
pub fn crowd(s: &mut Scribe) {
    s.define("deadline=30s; a timeout=2s attempts=3 backoff=500ms; pay two-phase branches=x+y timeout=2s attempts=3 backoff=500ms; ship retriable timeout=2s");
    s.define("version=2; deadline=20s; hold reserved timeout=2s attempts=2; pay three-phase branches=x+y+z commit=at-end timeout=2s; b pivot timeout=2s; ship retriable after=b timeout=2s");
    s.define("version=3; deadline=20s; pay three-phase branches=x+y undone timeout=2s; more two-phase branches=x+y undone after= timeout=2s; b attempts=1 timeout=2s");
    s.settings(r#"{"dedupe_window":"20s"}"#);
    let mut state = 11u64;
    let mut roll = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    let ids = ["one", "two", "three", "four", "five", "six"];
    for number in 0..320 {
        match roll(24) {
            0..=2 => {
                let definition = ["t@1", "t@2", "t@3"][roll(3)];
                s.start_of(ids[roll(ids.len())], "{}", definition, s.now());
            }
            3..=16 if !s.asked().is_empty() => {
                let asked = s.asked();
                let whom = &asked[roll(asked.len())];
                let said =
                    ["ok", "ok", "ok {}", "ok", "ok", "refused no", "error", "pending", "expired", "lost"]
                        [roll(10)];
                s.answer(&format!("{whom} {said}"));
            }
            17 | 18 => s.ring(),
            19 => s.pass(["10ms", "700ms", "2s"][roll(3)]),
            20 => s.cancel(ids[roll(ids.len())], "why not", None),
            21 | 22 if !s.asked().is_empty() => {
                let asked = s.asked();
                s.inquire(&asked[roll(asked.len())]);
            }
            _ => s.retry(ids[roll(ids.len())], "why not"),
        }
        if number % 80 == 79 {
            s.checkpoint(0);
        }
    }
}

//! The failure model against what it speaks of: the real fold, in virtual time, with participants that answer as the
//! model says, some 20,000 transactions of each definition.
//!
//! Every probability and mean must lie in the 99.9 % interval around what was seen, widened by the model's own resolution.
//! Answers that come late are delivered all the same: the fold decides what they mean.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use sagamore::predict::journal::{Observer, Rate};
use sagamore::predict::model::{Model, one_of};
use sagamore::predict::{predict, with_attempts};
use sagamore_decider::definition::plan::Plan;
use sagamore_decider::definition::source::read;
use sagamore_schemas::ids::Span;

#[path = "predict/simulation.rs"]
mod simulation;

use simulation::{Seen, journal_of, simulate};

const TRANSACTIONS: u32 = 20_000;
/// Two-sided 99.9 % of a normal distribution.
const QUANTILE: f64 = 3.291;
/// Part of a mean by which the model may be off: point masses 0.3 % wide, the log's clock in whole milliseconds.
const RESOLUTION: f64 = 0.002;

fn plan(text: &str) -> Plan {
    read(text).result.unwrap_or_else(|problems| panic!("{problems:?}")).1
}

fn model(steps: &[(&str, &str)]) -> Model {
    let mut model = Model::default();
    for (step, numbers) in steps {
        model.say((*step != "*").then_some(*step), numbers).unwrap();
    }
    model
}

fn check(text: &str, steps: &[(&str, &str)]) {
    let (plan, model) = (plan(text), model(steps));
    let prediction = predict(&plan, &model).unwrap();
    let seen = simulate(text, &plan, &model.assumed(&plan).unwrap(), TRANSACTIONS);
    let mut wrong = Vec::new();
    let mut compare = |name: &str, predicted: f64, seen: &Seen| {
        let half = QUANTILE * seen.deviation / f64::from(seen.count.max(1)).sqrt();
        // Of something seen never or hardly ever the deviation says nothing: three more or less, then.
        let tolerance = half.max(3.0 / f64::from(TRANSACTIONS)) + RESOLUTION * predicted.abs();
        let line = format!("{name}: predicted {predicted:.5}, seen {:.5} ± {half:.5}", seen.mean);
        println!("{line}");
        if (predicted - seen.mean).abs() > tolerance {
            wrong.push(line);
        }
    };
    compare("committed", prediction.committed, &seen.committed);
    compare("compensated", prediction.compensated, &seen.compensated);
    compare("aborted", prediction.aborted, &seen.aborted);
    compare("stuck", prediction.stuck, &seen.stuck);
    compare("commands", prediction.commands, &seen.commands);
    compare("to the decision", prediction.decision_ms, &seen.decision_ms);
    compare("to the end", prediction.end_ms, &seen.end_ms);
    let sum = prediction.committed + prediction.compensated + prediction.aborted + prediction.stuck;
    assert!((sum - 1.0).abs() < RESOLUTION / 4.0, "one of them happens: {sum}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_chain() {
    check(
        "{name: chain, version: 1, steps: [
          {name: reserve, participant: a, timeout: 300ms, retry: {attempts: 3, backoff: 40ms}},
          {name: charge, participant: b, timeout: 200ms, retry: {attempts: 2, backoff: 100ms}},
          {name: ship, participant: c, timeout: 400ms, retry: {attempts: 4, backoff: 50ms, factor: 3, max: 200ms}}]}",
        &[
            ("reserve", "p=0.7,refused=0.05,error=0.1,latency=20ms/60ms"),
            ("charge", "p=0.75,refused=0.1,error=0.15,undo=0.8,latency=30ms/90ms"),
            ("ship", "p=0.5,refused=0.05,error=0.25,latency=10ms"),
        ],
    );
}

#[test]
fn steps_beside_each_other() {
    check(
        "{name: parallel, version: 1, steps: [
          {name: a, participant: a, timeout: 200ms, retry: {attempts: 3, backoff: 40ms}},
          {name: b, participant: b, after: [a], timeout: 200ms, retry: {attempts: 2, backoff: 40ms}},
          {name: b2, participant: b, after: [b], timeout: 200ms, retry: {attempts: 3, backoff: 40ms}},
          {name: c, participant: c, after: [a], timeout: 200ms, retry: {attempts: 3, backoff: 40ms}},
          {name: d, participant: d, after: [a], timeout: 300ms, retry: {attempts: 2, backoff: 80ms}},
          {name: d2, participant: d, after: [d], timeout: 300ms, retry: {attempts: 2, backoff: 80ms}},
          {name: e, participant: e, after: [b2, c, d2], timeout: 200ms, retry: {attempts: 2, backoff: 40ms}}]}",
        &[
            ("*", "p=0.8,refused=0.05,error=0.05,latency=20ms/60ms"),
            ("c", "p=0.6,refused=0.1,error=0.1,undo=0.7,latency=30ms/80ms"),
            ("d2", "p=0.7,refused=0.2,latency=60ms/90ms"),
        ],
    );
}

#[test]
fn a_pivot_and_what_is_retriable() {
    check(
        "{name: pivot, version: 1, deadline: 600ms, steps: [
          {name: reserve, participant: a, timeout: 150ms, retry: {attempts: 4, backoff: 40ms}},
          {name: pay, participant: b, kind: pivot, timeout: 200ms, retry: {backoff: 100ms}},
          {name: ship, participant: c, kind: retriable, timeout: 200ms, retry: {backoff: 50ms, max: 300ms}},
          {name: mail, participant: d, kind: retriable, after: [pay], timeout: 200ms, retry: {backoff: 50ms}},
          {name: book, participant: e, kind: retriable, after: [ship, mail], timeout: 200ms, retry: {backoff: 50ms}}]}",
        &[
            ("*", "p=0.7,error=0.1,latency=20ms/60ms"),
            ("reserve", "p=0.4,refused=0.05,undo=0.6"),
            ("pay", "p=0.6,refused=0.1"),
            ("ship", "p=0.8,refused=0.02"),
        ],
    );
}

#[test]
fn a_group_in_the_place_of_the_pivot() {
    check(
        "{name: group, version: 1, deadline: 900ms, steps: [
          {name: reserve, participant: a, timeout: 200ms, retry: {attempts: 3, backoff: 40ms}},
          {name: seat, participant: s, kind: reserved, after: [], timeout: 200ms, retry: {attempts: 3, backoff: 40ms}},
          {name: pay, protocol: two-phase, after: [reserve, seat], timeout: 200ms, retry: {attempts: 3, backoff: 60ms},
           branches: [{participant: x}, {participant: y}, {participant: z}]},
          {name: ship, participant: c, kind: retriable, timeout: 200ms, retry: {backoff: 50ms}}]}",
        &[
            ("*", "p=0.75,refused=0.05,error=0.05,latency=20ms/60ms"),
            ("pay/y", "p=0.8,refused=0.1,undo=0.7,latency=40ms/80ms"),
            ("ship", "p=0.9,latency=15ms"),
        ],
    );
}

#[test]
fn reserved_at_the_end_and_a_retriable_tail() {
    check(
        "{name: tail, version: 1, steps: [
          {name: seat, participant: s, kind: reserved, timeout: 200ms, retry: {attempts: 2, backoff: 40ms}},
          {name: pay, protocol: three-phase, commit: at-end, after: [], timeout: 200ms,
           retry: {attempts: 3, backoff: 60ms}, branches: [{participant: x}, {participant: y}]},
          {name: hold, participant: h, after: [seat], timeout: 200ms, retry: {attempts: 3, backoff: 60ms}},
          {name: ship, participant: c, kind: retriable, after: [pay], timeout: 200ms, retry: {backoff: 50ms}},
          {name: mail, participant: d, kind: retriable, after: [ship], timeout: 200ms, retry: {backoff: 50ms}},
          {name: book, participant: e, kind: retriable, after: [hold], timeout: 200ms, retry: {backoff: 50ms}}]}",
        &[
            ("*", "p=0.7,refused=0.05,error=0.1,latency=20ms/60ms"),
            ("ship", "p=0.6,refused=0.01,error=0.2"),
            ("book", "p=0.8,error=0.15"),
        ],
    );
}

#[test]
fn a_short_deadline() {
    check(
        "{name: short, version: 1, deadline: 180ms, steps: [
          {name: a, participant: a, timeout: 100ms, retry: {attempts: 3, backoff: 20ms}},
          {name: b, participant: b, timeout: 150ms, retry: {attempts: 2, backoff: 30ms}},
          {name: c, participant: c, after: [a], timeout: 100ms, retry: {attempts: 3, backoff: 20ms}},
          {name: d, participant: d, after: [b, c], timeout: 150ms, retry: {attempts: 2, backoff: 30ms}}]}",
        &[("*", "p=0.85,refused=0.02,error=0.08,undo=0.8,latency=25ms/60ms"), ("c", "latency=40ms/90ms")],
    );
}

#[test]
fn a_group_that_can_be_compensated() {
    check(
        "{name: undone, version: 1, steps: [
          {name: move, protocol: three-phase, timeout: 400ms, retry: {attempts: 3, backoff: 60ms},
           branches: [{participant: x, compensate: true}, {participant: y, compensate: true}]},
          {name: tell, protocol: two-phase, after: [], timeout: 400ms, retry: {attempts: 3, backoff: 60ms},
           branches: [{participant: v, compensate: true}, {participant: w, compensate: true}]},
          {name: ship, participant: c, after: [move], timeout: 400ms, retry: {attempts: 2, backoff: 60ms}}]}",
        &[
            ("*", "p=0.9,refused=0.1,undo=1,latency=30ms/90ms"),
            ("ship", "p=0.6,refused=0.3,undo=0.9,latency=30ms/90ms"),
        ],
    );
}

/// One step of `p` per attempt, tried `attempts` times.
fn committed(steps: u32, attempts: u32, numbers: &str) -> f64 {
    let step =
        |n: u32| format!("{{name: s{n}, participant: p, retry: {{attempts: {attempts}, backoff: 1ms}}}}");
    let steps: Vec<String> = (0..steps).map(step).collect();
    let plan = plan(&format!("{{name: d, version: 1, deadline: 30d, steps: [{}]}}", steps.join(",")));
    predict(&plan, &model(&[("*", numbers)])).unwrap().committed
}

fn same(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9, "{left} and {right}");
}

#[test]
fn of_n_tries_or_replicas_one_is_enough() {
    for p in [0.1, 0.5, 0.9, 0.999] {
        for n in 1..=6 {
            let expected = 1.0 - (1.0_f64 - p).powi(i32::try_from(n).unwrap());
            same(one_of(p, n), expected);
            same(committed(1, n, &format!("p={p},latency=20ms")), expected);
            same(committed(1, 1, &format!("p={p},latency=20ms,replicas={n}")), expected);
        }
    }
}

#[test]
fn a_chain_is_the_product_of_its_steps() {
    for steps in [1, 2, 5, 20] {
        same(committed(steps, 1, "p=0.97,latency=20ms"), 0.97_f64.powi(i32::try_from(steps).unwrap()));
        let one = 0.7 / 0.8 * (1.0 - 0.2_f64.powi(3));
        same(
            committed(steps, 3, "p=0.7,refused=0.1,latency=20ms/50ms"),
            one.powi(i32::try_from(steps).unwrap()),
        );
    }
}

#[test]
fn other_attempts_are_those_of_the_steps_that_have_a_bound() {
    let plan = plan(
        "{name: d, version: 1, steps: [{name: a, participant: p}, {name: b, participant: p, kind: pivot},
          {name: c, participant: p, kind: retriable}]}",
    );
    let model = model(&[("*", "p=0.6,latency=10ms")]);
    same(predict(&with_attempts(&plan, 2), &model).unwrap().committed, 0.84);
    same(predict(&with_attempts(&plan, 4), &model).unwrap().committed, 1.0 - 0.4_f64.powi(4));
}

#[test]
fn the_deadline_that_is_wanted_is_the_least_that_is_enough() {
    let text = |deadline: Span| {
        format!(
            "{{name: d, version: 1, deadline: {deadline}, steps: [
              {{name: a, participant: p, timeout: 1s, retry: {{attempts: 5, backoff: 50ms}}}},
              {{name: b, participant: p, timeout: 1s, retry: {{attempts: 5, backoff: 50ms}}}}]}}"
        )
    };
    let model = model(&[("*", "p=0.95,error=0.02,latency=20ms/100ms")]);
    let at = |deadline: Span| predict(&plan(&text(deadline)), &model).unwrap();
    let whole = at(Span::from_secs(60));
    for want in [0.1, 0.5, 0.9, 0.99, 0.999, 0.999_9] {
        let least = whole.deadline_for(want).unwrap();
        assert!(at(least).committed >= want - 1e-12, "{want}: {least} is enough");
        assert!(at(Span::from_ms(least.as_ms() - 1)).committed < want, "{want}: less than {least} is not");
    }
    assert_eq!(whole.deadline_for(0.999_999_999), None, "five tries of 0.97 are not enough, however long");
    let constant =
        predict(&plan(&text(Span::from_ms(40))), &self::model(&[("*", "p=1,latency=20ms")])).unwrap();
    same(constant.committed, 1.0);
    assert_eq!(constant.deadline_for(1.0), Some(Span::from_ms(40)));
}

#[test]
fn an_order_that_is_no_series_and_no_parallel_is_never_said_to_be_too_fast() {
    let text = "{name: n, version: 1, deadline: 130ms, steps: [
          {name: a, participant: a, after: [], timeout: 1s, retry: {attempts: 1}},
          {name: b, participant: b, after: [], timeout: 1s, retry: {attempts: 1}},
          {name: c, participant: c, after: [a], timeout: 1s, retry: {attempts: 1}},
          {name: d, participant: d, after: [a, b], timeout: 1s, retry: {attempts: 1}}]}";
    let (plan, model) = (plan(text), model(&[("*", "p=0.99,latency=40ms/120ms")]));
    let prediction = predict(&plan, &model).unwrap();
    assert!(prediction.notes.iter().any(|note| note.contains("stages")), "{:?}", prediction.notes);
    let seen = simulate(text, &plan, &model.assumed(&plan).unwrap(), TRANSACTIONS).committed;
    assert!(prediction.committed < seen.mean, "{} < {}", prediction.committed, seen.mean);
    assert!(prediction.committed > seen.mean - 0.15, "{} and {}", prediction.committed, seen.mean);
}

/// A journal that the fold has written, with participants that answer at known rates, gives these rates back.
#[test]
fn what_is_measured_is_what_was_there() {
    let text = "{name: measured, version: 3, steps: [
          {name: reserve, participant: a, timeout: 300ms, retry: {attempts: 3, backoff: 40ms}},
          {name: pay, protocol: two-phase, timeout: 400ms, retry: {attempts: 2, backoff: 50ms},
           branches: [{participant: b}, {participant: c}]}]}";
    let plan = plan(text);
    let steps = [
        ("reserve", "p=0.7,refused=0.1,error=0.15,undo=0.8,latency=20ms/60ms"),
        ("pay/b", "p=0.9,refused=0.02,undo=0.95,latency=10ms"),
        ("pay/c", "p=0.8,refused=0.1,error=0.1,latency=30ms/90ms"),
    ];
    let assumed = model(&steps).assumed(&plan).unwrap();
    let mut observer = Observer::new(&plan);
    for (_, value) in journal_of(text, &plan, &assumed, 6_000) {
        observer.read(&value).unwrap();
    }
    let measured = observer.measured(5_000);
    assert_eq!(measured.transactions, 5_000);
    for (branch, assumed) in measured.branches.iter().zip(&assumed) {
        println!("{branch:?}");
        // Twice the 95 % interval on each side: of a dozen rates none falls out of it by chance, and the seed is fixed.
        let check = |what: &str, rate: Rate, is: f64| {
            let seen = rate.rate.unwrap();
            let (least, most) = (seen - 2.0 * (seen - rate.least), seen + 2.0 * (rate.most - seen));
            assert!((least..=most).contains(&is), "{} {what}: {is} is not in {rate:?}", branch.name);
        };
        assert!(branch.attempts > 2_000 && branch.undo_attempts > 400 && branch.doubts().is_none());
        check("p", branch.p, assumed.p);
        check("refused", branch.refused, assumed.refused);
        check("error", branch.error, assumed.error);
        check("undo", branch.undo, assumed.undo);
        let (told, was) = (branch.latency.unwrap(), assumed.latency);
        let near =
            |told: Span, was: Span, part: u64| told.as_ms().abs_diff(was.as_ms()) <= 1 + was.as_ms() / part;
        assert!(near(told.p50, was.p50, 20) && near(told.p99, was.p99, 8), "{told} instead of {was}");
    }
    // The same computation as with the numbers by hand, and near what these give.
    let mut measured_model = Model::default();
    measured_model.measure(&plan, &measured.branches);
    let (by_hand, by_journal) =
        (predict(&plan, &model(&steps)).unwrap(), predict(&plan, &measured_model).unwrap());
    assert!(
        (by_hand.committed - by_journal.committed).abs() < 0.03,
        "{} {}",
        by_hand.committed,
        by_journal.committed
    );
    assert!(
        (by_hand.commands - by_journal.commands).abs() < 0.15,
        "{} {}",
        by_hand.commands,
        by_journal.commands
    );
}

#[test]
fn few_observations_are_said_and_none_is_no_number() {
    let text = "{name: few, version: 1, steps: [{name: a, participant: a}, {name: b, participant: b}]}";
    let plan = plan(text);
    let assumed = model(&[("a", "p=0.5,refused=0.5")]).assumed(&plan).unwrap();
    let mut observer = Observer::new(&plan);
    for (_, value) in journal_of(text, &plan, &assumed, 20) {
        observer.read(&value).unwrap();
    }
    let measured = observer.measured(1_000);
    assert_eq!((measured.transactions, measured.branches[0].attempts), (20, 20));
    let said = measured.branches[0].doubts().unwrap();
    assert!(said.starts_with("a: 20 attempts are few: p = "), "{said}");
    let other = self::plan("{name: few, version: 2, steps: [{name: a, participant: a}]}");
    let mut nothing = Observer::new(&other);
    for (_, value) in journal_of(text, &plan, &assumed, 20) {
        nothing.read(&value).unwrap();
    }
    let nothing = nothing.measured(1_000);
    assert_eq!((nothing.transactions, nothing.branches[0].numbers().p), (0, None), "another version");
    let mut unsaid = Model::default();
    unsaid.measure(&other, &nothing.branches);
    assert_eq!(unsaid.unsaid(&other), ["a"]);
    // What is said by hand goes before what was measured.
    let mut said = model(&[("a", "p=0.25,refused=0.25")]);
    said.measure(&plan, &measured.branches);
    assert_eq!(said.steps["a"].p, Some(0.25));
    assert_eq!(said.steps["b"].p, measured.branches[1].p.rate);
}

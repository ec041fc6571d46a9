//! One operation, asked until it is answered or no try is left: rows S4 to S13 and P4 to P9 of the protocols' tables.
//!
//! An attempt is answered `ok`, `refused` or `error` after its latency, or its timeout falls. After `error` and timeout
//! comes the pause of [`Retry::delay`], half of it certain and half of it uniform (`Turn::pause`), and the next attempt.
//! Attempts are independent, so n of them are answered with `1-(1-a)^n` (Bernoulli trials), and the time of the k-th is
//! the sum of independent times (a convolution).
//!
//! Deliberately absent: answers that come after their attempt's timeout. The coordinator still takes them.

use sagamore_decider::definition::plan::Retry;
use sagamore_schemas::ids::Span;

use super::measure::{Measure, float, ms};
use super::model::Answers;

/// What is left open of an operation that is tried without end, before it counts as answered.
const OPEN_MASS: f64 = 1e-12;
/// Parts in which the uniform half of a pause is cut.
const PAUSE_PARTS: u32 = 16;

/// What becomes of an operation, by the time since it was first asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Answered `ok`.
    pub ok: Measure,
    /// Answered `refused`.
    pub refused: Measure,
    /// No try is left.
    pub unknown: Measure,
    /// Commands: its mass is how many there are on average.
    pub commands: Measure,
}

impl Asked {
    /// An operation of which each attempt has these answers. `attempts` as in [`Retry::attempts`].
    pub fn of(answers: &Answers, timeout: Span, retry: Retry, attempts: u32) -> Self {
        let latency = answers.latency.cut(ms(timeout));
        let late = (1.0 - latency.mass() * (answers.ok + answers.refused + answers.error)).max(0.0);
        let failed = latency.scaled(answers.error).plus(&Measure::at(ms(timeout), late));
        let mut asked = Measure::now();
        let mut commands = asked.clone();
        let mut unknown = Measure::default();
        for tries in 1.. {
            let unanswered = asked.then(&failed);
            if tries >= attempts || unanswered.mass() < OPEN_MASS {
                unknown = unanswered;
                break;
            }
            asked = unanswered.then(&pause(retry, tries));
            commands = commands.plus(&asked);
        }
        if attempts == Retry::UNBOUNDED {
            unknown = Measure::default();
        }
        let answered = commands.then(&latency);
        Self { ok: answered.scaled(answers.ok), refused: answered.scaled(answers.refused), unknown, commands }
    }
}

fn pause(retry: Retry, tries: u32) -> Measure {
    let delay_ms = ms(retry.delay(tries));
    let half_ms = float(retry.delay(tries).as_ms() / 2);
    let parts = f64::from(PAUSE_PARTS);
    let middle = |part: u32| (f64::from(part) + 0.5) / parts;
    Measure::gathered((0..PAUSE_PARTS).map(|part| (delay_ms - half_ms + half_ms * middle(part), 1.0 / parts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ok: f64, refused: f64, error: f64, attempts: u32) -> Asked {
        let answers = Answers { ok, refused, error, latency: Measure::at(10.0, 1.0) };
        let retry = Retry { attempts, backoff: Span::from_ms(100), factor: 2, max: Span::from_ms(400) };
        Asked::of(&answers, Span::from_secs(1), retry, attempts)
    }

    fn same(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} and {right}");
    }

    #[test]
    fn of_n_tries_one_is_enough() {
        for (p, tries) in [(0.5, 1), (0.5, 3), (0.9, 4), (0.01, 10), (1.0, 2)] {
            let asked = check(p, 0.0, 0.0, tries);
            let all_fail = (1.0 - p).powi(i32::try_from(tries).unwrap_or(i32::MAX));
            same(asked.ok.mass(), 1.0 - all_fail);
            same(asked.unknown.mass(), all_fail);
            same(asked.commands.mass(), (1.0 - all_fail) / p);
        }
    }

    #[test]
    fn the_first_answer_counts() {
        let asked = check(0.6, 0.2, 0.0, 3);
        same(asked.ok.mass(), 0.75 * (1.0 - 0.008));
        same(asked.refused.mass(), 0.25 * (1.0 - 0.008));
    }

    #[test]
    fn without_end_it_is_answered() {
        let asked = check(0.3, 0.1, 0.6, Retry::UNBOUNDED);
        same(asked.ok.mass(), 0.75);
        same(asked.refused.mass(), 0.25);
        same(asked.commands.mass(), 2.5);
        same(asked.unknown.mass(), 0.0);
    }

    #[test]
    fn an_error_is_followed_by_a_pause_and_silence_by_the_timeout_first() {
        // The second attempt begins 75 ms after the first failed, on average; the third 150 ms after the second.
        let asked = check(0.5, 0.0, 0.5, 3);
        same(
            asked.ok.moment(),
            0.5 * 10.0 + 0.25 * (10.0 + 75.0 + 10.0) + 0.125 * (20.0 + 75.0 + 150.0 + 10.0),
        );
        let asked = check(0.5, 0.0, 0.0, 2);
        same(asked.ok.moment(), 0.5 * 10.0 + 0.25 * (1000.0 + 75.0 + 10.0));
        same(asked.unknown.mean(), 2075.0);
    }

    #[test]
    fn what_takes_longer_than_the_timeout_is_not_answered() {
        let answers = Answers {
            ok: 1.0,
            refused: 0.0,
            error: 0.0,
            latency: Measure::gathered([(10.0, 0.5), (30.0, 0.5)]),
        };
        let retry = Retry { attempts: 1, backoff: Span::from_ms(100), factor: 2, max: Span::from_ms(400) };
        same(Asked::of(&answers, Span::from_ms(20), retry, 1).ok.mass(), 0.5);
    }
}

//! Numbers and durations within their bounds.

use sagamore_schemas::definition::{Definition, Step, StepKind, defaults};
use sagamore_schemas::ids::Span;

use super::problem::ProblemCode;
use super::{ATTEMPTS_MAX, Check, FACTOR_MAX};

impl Check {
    pub(super) fn numbers(&mut self, definition: &Definition) {
        if definition.version == 0 {
            self.add(ProblemCode::OutOfBounds, "version", "the version is 0", "versions begin at 1");
        }
        self.positive("deadline", definition.deadline);
        for (position, step) in definition.steps.iter().enumerate() {
            self.positive(&format!("steps[{position}].timeout"), step.timeout);
            self.retry(&format!("steps[{position}].retry"), step);
            if step.assumes_synchrony_ms == Some(0) {
                self.add(
                    ProblemCode::OutOfBounds,
                    format!("steps[{position}].assumes_synchrony_ms"),
                    "messages that take no time",
                    "write a number above 0, in milliseconds",
                );
            }
        }
    }

    fn retry(&mut self, path: &str, step: &Step) {
        let Some(retry) = &step.retry else { return };
        self.positive(&format!("{path}.backoff"), retry.backoff);
        self.positive(&format!("{path}.max"), retry.max);
        for (field, number, max) in
            [("attempts", retry.attempts, ATTEMPTS_MAX), ("factor", retry.factor, FACTOR_MAX)]
        {
            if let Some(number) = number.filter(|number| !(1..=max).contains(number)) {
                self.add(
                    ProblemCode::OutOfBounds,
                    format!("{path}.{field}"),
                    format!("`{field}` is {number}"),
                    format!("write a number from 1 to {max}"),
                );
            }
        }
        let (backoff, max) =
            (retry.backoff.unwrap_or(defaults::BACKOFF), retry.max.unwrap_or(defaults::BACKOFF_MAX));
        if backoff > max && max > Span::default() {
            self.add(
                ProblemCode::OutOfBounds,
                path,
                format!("the first pause, {backoff}, is longer than the longest one, {max}"),
                "raise `max` or lower `backoff`",
            );
        }
        let until = match step.kind {
            StepKind::Pivot => "a pivot is asked until it answers",
            StepKind::Retriable => "a retriable step is tried until it succeeds",
            StepKind::Compensatable | StepKind::Reserved if step.definition.is_some() => {
                "a child is asked until it has ended: its own deadline bounds it"
            }
            StepKind::Compensatable | StepKind::Reserved => return,
        };
        if let Some(attempts) = retry.attempts {
            self.add(
                ProblemCode::FiniteAttempts,
                format!("{path}.attempts"),
                format!("step `{}` has {attempts} attempts, but {until}", step.name),
                if step.definition.is_some() {
                    "remove `attempts`"
                } else {
                    "remove `attempts`, or make the step compensatable"
                },
            );
        }
    }

    fn positive(&mut self, path: &str, span: Option<Span>) {
        if span == Some(Span::default()) {
            self.add(
                ProblemCode::OutOfBounds,
                path,
                "a duration of 0",
                "write a duration above 0, such as 5s",
            );
        }
    }
}

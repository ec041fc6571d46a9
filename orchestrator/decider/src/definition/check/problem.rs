//! What the check says: one rule broken, with its place in the document and what to do.

use std::fmt;

/// Something wrong in a definition, or a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which rule.
    pub code: ProblemCode,
    /// Where in the document, such as `steps[2].retry.attempts`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, path, message, help } = self;
        let place = if path.is_empty() { "definition" } else { path };
        write!(f, "{place}: {message} ({code}); {help}")
    }
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Which rule a definition breaks. The text is stable: scripts may look for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }

        impl ProblemCode {
            /// The stable text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

problem_codes! {
    /// Not YAML, or beyond the bounds of a file.
    Unreadable = "unreadable",
    /// A key that stands twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A field that there is not.
    UnknownField = "unknown-field",
    /// A field that has to be there.
    MissingField = "missing-field",
    /// A value of another type or form.
    BadValue = "bad-value",
    /// A number or a duration outside its bounds.
    OutOfBounds = "out-of-bounds",
    /// No steps, or too many.
    StepCount = "step-count",
    /// Two steps of one name.
    DuplicateStep = "duplicate-step",
    /// A step named in `after` or in a template that there is not.
    UnknownStep = "unknown-step",
    /// A step named twice in one `after`.
    DuplicateAfter = "duplicate-after",
    /// Steps that wait for each other.
    Cycle = "cycle",
    /// Too many steps wait for one, or one for too many.
    FanOut = "fan-out",
    /// Two branches of one name in one step.
    DuplicateBranch = "duplicate-branch",
    /// A result of a group without the branch whose it is, or of a branch that there is not.
    UnknownBranch = "unknown-branch",
    /// Fields of a step that do not go together.
    Contradiction = "contradiction",
    /// A second pivot, or group in the pivot's place.
    SecondPivot = "second-pivot",
    /// A step that is not retriable and does not come before the pivot.
    NotBeforePivot = "not-before-pivot",
    /// A step that is not retriable and comes after a retriable one.
    AfterRetriable = "after-retriable",
    /// A finite number of attempts where there is no way back.
    FiniteAttempts = "finite-attempts",
    /// A template that cannot be read.
    BadTemplate = "bad-template",
    /// A result of a step that need not have succeeded before.
    NotAnAncestor = "not-an-ancestor",
    /// A result of a step that may have been skipped.
    MayBeSkipped = "may-be-skipped",
    /// A definition that has not been applied.
    UnknownDefinition = "unknown-definition",
    /// A child that cannot be undone, where it may have to be.
    NoWayBack = "no-way-back",
    /// Children within children within children.
    TooDeep = "too-deep",
    /// An input of a child that lacks what the child reads.
    MissingInput = "missing-input",
    /// A condition that cannot be read.
    BadCondition = "bad-condition",
    /// Warning: branches may decide by themselves, and differently when the assumption fails.
    Unilateral = "unilateral",
    /// Warning: the deadline can fall before the last attempt.
    DeadlineTooShort = "deadline-too-short",
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

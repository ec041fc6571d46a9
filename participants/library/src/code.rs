//! What a participant says that an operator must read. Each code has its page in `deploy/runbook`.

/// A stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The store has forgotten commands that were answered with its knowledge.
    StoreForgotten,
    /// The coordinator has decided against what an operator had decided by hand.
    HeuristicMixed,
    /// In doubt for ever: the coordinator no longer remembers what was decided.
    DecisionForgotten,
    /// The coordinator's verdict is the opposite of what the branch has done.
    Contradicted,
}

impl Code {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StoreForgotten => "SAG-101",
            Self::HeuristicMixed => "SAG-102",
            Self::DecisionForgotten => "SAG-103",
            Self::Contradicted => "SAG-104",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

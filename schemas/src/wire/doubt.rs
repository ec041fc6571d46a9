//! What is said of a branch in doubt: its question, the coordinator's answer, an operator's decision by hand.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Birth, Name, Time, TransactionId};

/// `sagamore.inquiry.v1`: a branch that is prepared, and has waited too long, asks what has been decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry<'a> {
    /// The installation.
    pub instance: Uuid,
    /// Transaction id.
    pub subject: TransactionId,
    /// Which life of that id.
    pub birth: Birth,
    /// Step of the definition.
    pub step: Cow<'a, str>,
    /// Branch of the step.
    pub branch: Cow<'a, str>,
    /// Who asks: the answer goes to its command topic.
    pub participant: Name,
}

/// `sagamore.decision.v1`: the answer to an inquiry, or an operator's decision by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The inquiry, field by field.
    pub inquiry: Inquiry<'a>,
    /// What has been decided.
    pub decision: Decided,
    /// Not from the coordinator's log: an operator says so. Then the decision is `commit` or `abort`.
    pub heuristic: Option<Heuristic<'a>>,
}

/// Who says by hand what becomes of a branch in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heuristic<'a> {
    /// What is asked of the participant.
    pub wish: HeuristicWish,
    /// Who.
    pub actor: Cow<'a, str>,
    /// Why.
    pub reason: Cow<'a, str>,
    /// When.
    pub time: Time,
}

/// What an operator asks of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeuristicWish {
    /// End the branch so, before the coordinator's decision is known.
    Decided,
    /// The coordinator has decided against it, and the books have been set right by hand: take it for done so.
    Repaired,
}

impl HeuristicWish {
    /// Every wish.
    pub const ALL: [Self; 2] = [Self::Decided, Self::Repaired];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Repaired => "repaired",
        }
    }
}

/// What has been decided about a branch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decided {
    /// It is told to commit, or has been.
    Commit,
    /// It is told to abort, or has been.
    Abort,
    /// Nothing yet that it may act on: it goes on waiting.
    Undecided,
    /// It has ended, and is no longer remembered. Never a guess.
    Forgotten,
}

impl Decided {
    /// Every word, in the order of the wire's documentation.
    pub const ALL: [Self; 4] = [Self::Commit, Self::Abort, Self::Undecided, Self::Forgotten];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Abort => "abort",
            Self::Undecided => "undecided",
            Self::Forgotten => "forgotten",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Asked, read_asked};
    use super::*;

    #[test]
    fn a_decision_reads_back_with_who_has_made_it() {
        let inquiry = Inquiry {
            instance: Uuid::nil(),
            subject: "order-1234".parse().unwrap(),
            birth: "3-88121".parse().unwrap(),
            step: "pay".into(),
            branch: "bank-a".into(),
            participant: "bank-a".parse().unwrap(),
        };
        let by_hand = |wish| Heuristic {
            wish,
            actor: "anna".into(),
            reason: "rows \"held\" for 2 h".into(),
            time: "2026-11-22T18:00:00Z".parse().unwrap(),
        };
        for heuristic in [None, Some(by_hand(HeuristicWish::Decided)), Some(by_hand(HeuristicWish::Repaired))]
        {
            let verdict = Verdict { inquiry: inquiry.clone(), decision: Decided::Abort, heuristic };
            let written = verdict.to_json();
            let Asked::Verdict(read) = read_asked(Some(&written)).unwrap() else { panic!("a verdict") };
            assert_eq!(read, verdict, "{}", String::from_utf8_lossy(&written));
        }
        let written = |decision| {
            let heuristic = Some(by_hand(HeuristicWish::Decided));
            String::from_utf8(Verdict { inquiry: inquiry.clone(), decision, heuristic }.to_json()).unwrap()
        };
        let refused = |text: &str| read_asked(Some(text.as_bytes())).unwrap_err().to_string();
        assert!(refused(&written(Decided::Undecided)).contains("decision"));
        let abort = written(Decided::Abort);
        assert!(refused(&abort.replace("decided", "guessed")).contains("heuristic"));
        for name in ["actor", "reason", "time"] {
            assert!(refused(&abort.replace(name, "other")).contains(name), "{name}");
        }
    }
}

//! Defects that can be planted, in words, and how they are switched on.

use sagamore_decider::planted::{self as fold, Defect as Fold};
use sagamore_participant::planted::{self as barrier, Defect as Barrier};

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// In the decider.
    Fold(Fold),
    /// In the participant's barrier.
    Barrier(Barrier),
}

/// All of them: name, mechanism, and the rule of DESIGN.md's section 6 or 7 that it breaks.
pub static ALL: &[(&str, Defect, &str, &str)] = &[
    (
        "no-fencing",
        Defect::Fold(Fold::NoFencing),
        "a takeover does not fence the former owner",
        "6: takeover",
    ),
    (
        "stale-end",
        Defect::Fold(Fold::StaleEnd),
        "the state is read to any barrier, not to the own one",
        "6.1",
    ),
    (
        "state-not-counted",
        Defect::Fold(Fold::StateNotCounted),
        "count and XOR of the state are not compared",
        "6.1",
    ),
    (
        "newest-version",
        Defect::Fold(Fold::NewestVersion),
        "the newest version counts, whatever it is as of",
        "6.2",
    ),
    (
        "ignored-not-rewritten",
        Defect::Fold(Fold::IgnoredNotRewritten),
        "ignored keys are not written again",
        "6.2",
    ),
    (
        "checkpoint-record-first",
        Defect::Fold(Fold::CheckpointRecordFirst),
        "the checkpoint record is sent before the others",
        "6.2",
    ),
    (
        "inbox-not-compared",
        Defect::Fold(Fold::InboxNotCompared),
        "the last applied record is not compared",
        "6.3",
    ),
    (
        "watermark-ignores-open",
        Defect::Fold(Fold::WatermarkIgnoresOpen),
        "the watermark passes open transactions",
        "6.4, 4",
    ),
    (
        "clock-steps-back",
        Defect::Fold(Fold::ClockStepsBack),
        "the clock is the last timestamp, not the largest",
        "6.5",
    ),
    ("clock-not-from-log", Defect::Fold(Fold::ClockNotFromLog), "the fold looks at the process's clock", "2"),
    (
        "checkpoint-before-acknowledgement",
        Defect::Fold(Fold::CheckpointBeforeAcknowledgement),
        "a checkpoint does not wait for its outputs",
        "6: checkpoint",
    ),
    ("owed-forgotten", Defect::Fold(Fold::OwedForgotten), "owed outputs are not written down", "6.10"),
    ("lease-ignored", Defect::Fold(Fold::LeaseIgnored), "an owner past its lease goes on sending", "6.16"),
    (
        "timer-not-proved",
        Defect::Fold(Fold::TimerNotProved),
        "a timer counts although it does not stand any more",
        "6: timers",
    ),
    (
        "timer-not-due",
        Defect::Fold(Fold::TimerNotDue),
        "a timer counts before the log's clock has come to it",
        "6: timers",
    ),
    ("error-means-no", Defect::Fold(Fold::ErrorMeansNo), "a technical error is taken for a no", "4"),
    ("ending-forgotten", Defect::Fold(Fold::EndingForgotten), "endings are not remembered", "6: finished"),
    (
        "ending-not-stored",
        Defect::Fold(Fold::EndingNotStored),
        "endings are not in the checkpoint",
        "6: finished",
    ),
    ("pivot-turns-back", Defect::Fold(Fold::PivotTurnsBack), "a pivot that was asked is turned back", "5"),
    ("answer-to-anything", Defect::Fold(Fold::AnswerToAnything), "a reply counts for another operation", "4"),
    (
        "votes-as-numbers",
        Defect::Fold(Fold::VotesAsNumbers),
        "a repeated vote counts for another branch",
        "5",
    ),
    (
        "commit-before-last-vote",
        Defect::Fold(Fold::CommitBeforeLastVote),
        "all but one vote are taken for all",
        "5, 2",
    ),
    (
        "late-yes-forgotten",
        Defect::Fold(Fold::LateYesForgotten),
        "what may have voted yes is not told to abort",
        "4",
    ),
    (
        "maybe-done-skipped",
        Defect::Fold(Fold::MaybeDoneSkipped),
        "what may have been done is not compensated",
        "4",
    ),
    (
        "precommit-skipped",
        Defect::Fold(Fold::PrecommitSkipped),
        "three phases are two: nobody is told that all votes were yes",
        "5",
    ),
    (
        "inquiry-guessed",
        Defect::Fold(Fold::InquiryGuessed),
        "what is no longer remembered is answered `abort`",
        "6.7",
    ),
    (
        "answer-of-another-child",
        Defect::Fold(Fold::AnswerOfAnotherChild),
        "the end of a former child counts for the present one",
        "5: children",
    ),
    (
        "child-forgotten-at-end",
        Defect::Fold(Fold::ChildForgottenAtEnd),
        "a child that has ended is not kept until its parent has heard of it",
        "5: children",
    ),
    (
        "call-off-forgotten",
        Defect::Fold(Fold::CallOffForgotten),
        "what was called off before it began is not remembered",
        "5: children",
    ),
    (
        "child-begun-again",
        Defect::Fold(Fold::ChildBegunAgain),
        "a child that is remembered is begun again",
        "5: children",
    ),
    (
        "old-child-begins",
        Defect::Fold(Fold::OldChildBegins),
        "a child begins although it may have run and be forgotten",
        "5: children",
    ),
    (
        "no-tombstone",
        Defect::Barrier(Barrier::NoTombstone),
        "an empty compensation leaves no row",
        "6.6, 7.2",
    ),
    ("no-horizon", Defect::Barrier(Barrier::NoHorizon), "what is older than the purge is done again", "6.4"),
    (
        "answer-not-remembered",
        Defect::Barrier(Barrier::AnswerNotRemembered),
        "an answer is not remembered",
        "7.1",
    ),
    ("birth-ignored", Defect::Barrier(Barrier::BirthIgnored), "two lives of one id share their rows", "6.4"),
    (
        "refusal-keeps-effect",
        Defect::Barrier(Barrier::RefusalKeepsEffect),
        "a refused effect is not rolled back",
        "7.1",
    ),
];

/// Plants one, or none, in everything that this thread runs.
pub fn plant(defect: Option<Defect>) {
    fold::plant(match defect {
        Some(Defect::Fold(defect)) => Some(defect),
        _ => None,
    });
    barrier::plant(match defect {
        Some(Defect::Barrier(defect)) => Some(defect),
        _ => None,
    });
}

/// The one of this name.
pub fn named(name: &str) -> Option<Defect> {
    ALL.iter().find(|(known, ..)| *known == name).map(|(_, defect, ..)| *defect)
}

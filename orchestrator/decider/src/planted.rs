//! Defects that the simulator switches on, one at a time, to see that it finds them. Only the copy of this crate that the
//! simulator builds has them (feature `planted`); everywhere else [`is`] is `false` when it is compiled.

/// One mechanism taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say which mechanism; the simulator's table says it in words")]
pub enum Defect {
    NoFencing,
    StaleEnd,
    InboxNotCompared,
    StateNotCounted,
    NewestVersion,
    IgnoredNotRewritten,
    CheckpointBeforeAcknowledgement,
    CheckpointRecordFirst,
    OwedForgotten,
    LeaseIgnored,
    TimerNotProved,
    TimerNotDue,
    ClockStepsBack,
    ClockNotFromLog,
    ErrorMeansNo,
    EndingForgotten,
    EndingNotStored,
    PivotTurnsBack,
    WatermarkIgnoresOpen,
    AnswerToAnything,
    VotesAsNumbers,
    CommitBeforeLastVote,
    LateYesForgotten,
    MaybeDoneSkipped,
    PrecommitSkipped,
    InquiryGuessed,
    AnswerOfAnotherChild,
    ChildForgottenAtEnd,
    CallOffForgotten,
    ChildBegunAgain,
    OldChildBegins,
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use sagamore_schemas::ids::Time;

    use super::Defect;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
        static LEVEL_MAX_NOW: Cell<u32> = const { Cell::new(crate::settings::LEVEL_MAX) };
        static OWN_CLOCK: Cell<Option<Time>> = const { Cell::new(None) };
    }

    /// Plants a defect in everything this thread runs, or none.
    pub fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }

    /// What the process that runs now believes the time to be: only [`Defect::ClockNotFromLog`] looks.
    pub fn set_own_clock(now: Option<Time>) {
        OWN_CLOCK.set(now);
    }

    /// Whether this defect is planted.
    pub fn is(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }

    pub(crate) fn own_clock() -> Option<Time> {
        OWN_CLOCK.get()
    }

    /// The highest level that the binary which runs now knows: how the simulator has older ones beside newer ones.
    pub fn set_level_max(level: u32) {
        LEVEL_MAX_NOW.set(level);
    }

    pub(crate) fn level_max() -> u32 {
        LEVEL_MAX_NOW.get()
    }

    /// A record on which `apply` panics: any that contains this.
    const POISON: &[u8] = b"\"poison\"";

    /// Whether `apply` panics on a record with this value.
    pub fn poisons(value: Option<&[u8]>) -> bool {
        value.is_some_and(|value| value.windows(POISON.len()).any(|bytes| bytes == POISON))
    }
}

#[cfg(feature = "planted")]
pub use switch::*;

/// Whether this defect is planted.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Defect) -> bool {
    false
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn level_max() -> u32 {
    crate::settings::LEVEL_MAX
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn poisons(_: Option<&[u8]>) -> bool {
    false
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn own_clock() -> Option<sagamore_schemas::ids::Time> {
    None
}

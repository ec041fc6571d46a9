//! Defects that the simulator switches on, one at a time, to see that it finds them. Only the copy of this crate that the
//! simulator builds has them (feature `planted`); everywhere else [`is`] is `false` when it is compiled.

/// One mechanism taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say which mechanism; the simulator's table says it in words")]
pub enum Defect {
    NoTombstone,
    NoHorizon,
    AnswerNotRemembered,
    BirthIgnored,
    RefusalKeepsEffect,
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Defect;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Plants a defect in everything this thread runs, or none.
    pub fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }

    /// Whether this defect is planted.
    pub fn is(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }
}

#[cfg(feature = "planted")]
pub use switch::*;

/// Whether this defect is planted.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Defect) -> bool {
    false
}

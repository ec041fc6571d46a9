//! What a runtime has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a runtime has done since it was spawned, in commands where nothing else is said.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Taken, with the reply not yet delivered.
            pub in_flight: u64,
        }

        #[derive(Default)]
        pub(super) struct Counts {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counts {
            pub(super) fn snapshot(&self, in_flight: usize) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    in_flight: u64::try_from(in_flight).unwrap_or(u64::MAX),
                }
            }
        }
    };
}

counters! {
    /// Read from the command topic.
    taken,
    /// Business code ran, and its effect is kept.
    effects,
    /// Business code said no.
    refusals,
    /// Duplicates: the stored answer was repeated.
    repeated,
    /// Nothing to undo, or refused by the barrier.
    nothing,
    /// Answered `error`.
    failed,
    /// Not answered, because the store could not be reached.
    silent,
    /// Not a command; logged with its place and passed over.
    undecodable,
    /// Wanting their reply anywhere but in the inbox; logged with their place and passed over.
    misdirected,
    /// Replies delivered.
    delivered,
    /// Replies sent again after a failed delivery.
    resent,
    /// Replies that can never be delivered; logged.
    undeliverable,
    /// Inquiries sent: branches that had waited too long for their decision.
    inquiries,
    /// Branches committed or aborted by the answer to an inquiry.
    settled,
    /// Inquiries answered `undecided`: the branch goes on waiting.
    undecided,
    /// Inquiries answered `forgotten`: a person has to say what became of the branch. Logged as errors, SAG-103.
    forgotten,
    /// Verdicts that say the opposite of what the branch has done. Logged as errors, SAG-104.
    contradicted,
    /// Branches that have decided by themselves, under `termination: unilateral`. Logged as warnings.
    alone,
    /// Branches that an operator has ended by hand. Logged as warnings.
    by_hand,
    /// Commands and verdicts of the coordinator against what an operator had decided by hand. Logged as errors, SAG-102.
    mixed,
    /// Kafka transactions committed, by a participant that has nothing else.
    batches,
    /// Partitions dropped by such a participant, to be taken over again. Logged with the cause.
    dropped,
    /// Branches in doubt now that have asked at least once, as of the last look at all of them.
    in_doubt,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

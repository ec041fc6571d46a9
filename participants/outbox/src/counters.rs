//! What a relay has done.

use serde::Serialize;

/// What a relay has done since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Whether it is the one that is active.
    pub active: bool,
    /// Rows of the outbox that Kafka has acknowledged.
    pub sent: u64,
    /// Rows that can never leave.
    pub refused: u64,
    /// Rows that were handed over, and are to be handed over once more.
    pub resent: u64,
    /// Starts that a former relay may have sent, found in the inbox and not sent again.
    pub found: u64,
    /// Commands that became open.
    pub opened: u64,
    /// Commands answered from a stored answer.
    pub repeated: u64,
    /// Commands that were open already, or that undo what a worker holds.
    pub pending: u64,
    /// Commands answered without work: nothing to undo, or refused by the barrier.
    pub settled: u64,
    /// Commands answered `error`: too many are open.
    pub crowded: u64,
    /// Inquiries of branches in doubt.
    pub inquiries: u64,
    /// Verdicts that became open, as a commit or abort.
    pub verdicts: u64,
    /// Verdicts that nothing can be done about: a person is asked for.
    pub alarms: u64,
    /// Records that are neither command nor verdict, or not for this participant.
    pub passed_over: u64,
}

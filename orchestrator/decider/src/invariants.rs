//! What must never be otherwise, by id: production asserts some of it, simulator, chaos and audit look at the rest from
//! outside. The table in ARCHITECTURE.md says where.

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Invariant {
    /// `SAG-INV-<n>`: what a panic or a report names.
    pub id: &'static str,
    /// What always holds.
    pub text: &'static str,
}

macro_rules! invariants {
    ($($name:ident $id:literal $text:literal)*) => {
        $(
            #[doc = $text]
            pub static $name: Invariant = Invariant { id: concat!("SAG-INV-", $id), text: $text };
        )*
        /// All of them, by number.
        pub static ALL: &[&Invariant] = &[$(&$name),*];
    };
}

invariants! {
    DECIDED_ONCE 1 "A transaction is decided once: a decision is taken in phase `forward` only."
    CALLS_HAVE_TIMERS 2 "Only a call (asked, pausing) has a timer."
    OFFSETS_RISE 3 "Offsets rise: no inbox record is applied twice or out of order."
    ONLY_OPEN_ENDS 4 "A turn is an open transaction's; only what is open ends."
    DEFINITIONS_STAY 5 "A definition in use is never forgotten."
    ENDED_BEFORE_TOMBSTONE 6 "A tombstone follows a record that says \"ended\", of an earlier checkpoint."
    COMMANDS_TO_PARTICIPANTS 7 "What goes to a participant is a command, or the answer to an inquiry."
    ONE_CHECKPOINT 8 "Only a checkpoint that is being written is written."
    STAGES_IN_ORDER 9 "The stages of a takeover come in their order."
    ONE_STORY 10 "Whoever folds a record says the same, byte for byte."
    STATE_IS_THE_FOLD 11 "What a takeover finds in the state as of X is the fold as of X."
    CLOCK_RISES 12 "The log's clock never falls."
    SOMEBODY_ACTS 13 "An open transaction has a timer, or is stuck with a reason, or waits for its parent."
    ONE_EFFECT 14 "An operation's effect happens once at most; what is undone was done, and stays undone."
    EFFECTS_AGREE 15 "Effects agree with the outcome: committed, each step once; otherwise none."
    OUTCOME_STAYS 16 "A final outcome never changes."
    OUTPUTS_ARRIVE 17 "Every output reaches its topic, or is known to be undeliverable."
    ALL_ENDS 18 "Every accepted start ends, or is stuck with a reason."
    ONE_LIFE 19 "One start, one life: what was issued once is born once."
    ALONG_THE_GRAPH 20 "Commands follow the graph: attempts one by one, nothing new after rollback, no pivot undone, what comes later undone first."
    WATERMARK_WAITS 21 "No watermark passes the birth of an open transaction."
    TIMERS_ARE_DUE 22 "A timer changes nothing before the log's clock has come to it."
    LEASE_ENDS 23 "An owner past its lease sends nothing."
    JOURNAL_IS_THE_FOLD 24 "The journal is the fold's: each entry, in order, the chain unbroken."
    HALTS_HAVE_CAUSES 25 "A shard halts for a cause, and then says which."
    MONEY_STAYS 26 "What transfers move is neither made nor lost."
    ONE_VERDICT 27 "The branches of a group are told the same: no commit before the last vote or the last precommit, none beside an abort; and no answer to an inquiry contradicts it."
    CHILD_AGREES 28 "A child agrees with its parent: one for each step of what committed, none that stands for what did not; born once, never after its call-off was answered; its end is told, and forgotten once heard."
}

/// The one that a panic's text names.
pub fn named_in(text: &str) -> Option<&'static Invariant> {
    ALL.iter().copied().rev().find(|invariant| text.contains(invariant.id))
}

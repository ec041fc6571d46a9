//! Which fault begins when, on whom and for how long: a function of the seed. What follows from it in real time is not.
//!
//! Rounds: each has every kind at least once, in an order of its own, so that a run that is long enough has all of
//! them. Faults overlap; after each round a short calm lets what has piled up end.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Between the begins of two faults, in ms.
const GAP_MS: std::ops::Range<u64> = 1_500..5_500;
/// The same when everything is to happen in half a minute.
const GAP_DENSE_MS: std::ops::Range<u64> = 500..2_500;
/// Nothing begins for so long after a round.
const CALM_MS: u64 = 8_000;
/// Before the first fault: something is under way by then.
const LEAD_MS: u64 = 4_000;

macro_rules! kinds {
    ($($variant:ident $name:literal $weight:literal $from_ms:literal .. $to_ms:literal, $doc:literal;)*) => {
        /// What goes wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $(#[doc = $doc] $variant,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As in reports and on the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// How often in a round.
            const fn weight(self) -> usize {
                match self { $(Self::$variant => $weight),* }
            }

            /// How long it lasts, in ms.
            const fn lasts_ms(self) -> std::ops::Range<u64> {
                match self { $(Self::$variant => $from_ms..$to_ms),* }
            }
        }
    };
}

kinds! {
    ServerKilled "server-killed" 2 100..6_000, "`kill -9` of a server, and a new one after a while.";
    ServerPaused "server-paused" 1 300..3_000, "SIGSTOP of a server, shorter than any timeout.";
    ServerPausedPastSession "server-paused-past-session" 1 7_500..9_500, "The group has given its shards away by then.";
    ServerPausedPastLease "server-paused-past-lease" 1 12_000..16_000, "Its lease is over, and its Kafka transaction timed out.";
    ParticipantKilled "participant-killed" 3 100..8_000, "`kill -9` of one instance of a participant.";
    ParticipantPaused "participant-paused" 1 300..3_000, "SIGSTOP of one instance, in the middle of a local transaction or not.";
    ParticipantPausedPastSession "participant-paused-past-session" 1 7_500..12_000, "Its partitions are the other's by then.";
    BrokerKilled "broker-killed" 2 500..8_000, "`kill -9` of a broker.";
    TwoBrokersKilled "two-brokers-killed" 1 200..2_000, "Two of three: nothing can be written until one is back.";
    BrokerPaused "broker-paused" 1 1_000..7_000, "SIGSTOP of a broker, which wakes up as a leader that is none.";
    EverythingKilled "everything-killed" 1 200..1_500, "Every server, participant and broker at once.";
    LeadersMoved "leaders-moved" 1 0..1, "Replicas in another order, and the preferred leaders elected.";
    OffsetsDeleted "offsets-deleted" 1 0..1, "The committed offsets of a participant: it reads every command again.";
    DiskFull "disk-full" 1 3_000..9_000, "No room for the store of a participant.";
    ClockStepped "clock-stepped" 1 4_000..12_000, "The clock of one server is ahead or behind by a minute or so.";
    ProduceDelayed "produce-delayed" 1 3_000..9_000, "Every other Produce arrives late.";
    ProduceCutBefore "produce-cut-before" 1 2_000..5_000, "Some Produce never arrive, and their connections end.";
    ProduceCutAfter "produce-cut-after" 1 2_000..5_000, "Some Produce arrive, and nobody learns so.";
    ProduceHeld "produce-held" 1 4_000..9_000, "Some Produce arrive when their sender has long asked again.";
    RequestsOvertaken "requests-overtaken" 1 3_000..8_000, "A later request of another kind goes first.";
    FetchDelayed "fetch-delayed" 1 3_000..9_000, "Answers to Fetch come late.";
    FetchDropped "fetch-dropped" 1 2_000..5_000, "Answers to Fetch are lost with their connections.";
    InitProducerIdDelayed "init-producer-id-delayed" 1 5_000..9_000, "A server is taken off its shards, and takeovers wait.";
    InitProducerIdDropped "init-producer-id-dropped" 1 3_000..6_000, "The same, and the answer is lost.";
    EndTxnDelayed "end-txn-delayed" 1 3_000..9_000, "A commit takes longer than its owner waits for it.";
    EndTxnDropped "end-txn-dropped" 1 2_000..5_000, "A commit is done, and its owner does not learn so.";
    EndTxnCutBefore "end-txn-cut-before" 1 2_000..5_000, "A commit does not arrive.";
    EndTxnHeld "end-txn-held" 2 4_000..14_000, "A commit arrives when the shard has been taken over: by its owner, or by another.";
    GarbageToInbox "garbage-to-inbox" 2 0..1, "Bytes, cut JSON, foreign replies, malformed starts.";
    GarbageToCommands "garbage-to-commands" 2 0..1, "The same for participants.";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|kind| kind.as_str() == text);
        found.copied().ok_or_else(|| format!("no fault is called {text:?}: {}", known()))
    }
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// After the begin of the run.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// How long.
    pub lasts: Duration,
    /// On whom and how, as a number from which whoever does it takes what it needs.
    pub die: u64,
}

/// How often each kind comes in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// Each as often as its place in the table says.
    AsUsual,
    /// Once.
    Alike,
}

/// How soon one fault follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Density {
    /// Most of the time one or two go on.
    AsUsual,
    /// Several.
    Dense,
}

/// All faults of a run of that length, in the order of their begins; each is over by its end.
pub fn plan(seed: u64, length: Duration, kinds: &[Kind], weights: Weights, density: Density) -> Vec<Fault> {
    let gap_ms = match density {
        Density::AsUsual => GAP_MS,
        Density::Dense => GAP_DENSE_MS,
    };
    let mut random = Rng::with_seed(seed);
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut faults = Vec::new();
    let mut at_ms = LEAD_MS;
    while at_ms < length_ms && !kinds.is_empty() {
        let weight = |kind: &Kind| match weights {
            Weights::AsUsual => kind.weight(),
            Weights::Alike => 1,
        };
        let mut round: Vec<Kind> =
            kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, weight(kind))).collect();
        random.shuffle(&mut round);
        for kind in round {
            let lasts_ms = random.u64(kind.lasts_ms());
            let die = random.u64(..);
            if at_ms + lasts_ms < length_ms {
                let (at, lasts) = (Duration::from_millis(at_ms), Duration::from_millis(lasts_ms));
                faults.push(Fault { at, kind, lasts, die });
            }
            at_ms += random.u64(gap_ms.clone());
        }
        at_ms += CALM_MS;
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Duration = Duration::from_mins(5);

    fn usual(seed: u64) -> Vec<Fault> {
        plan(seed, FIVE_MINUTES, Kind::ALL, Weights::AsUsual, Density::AsUsual)
    }

    #[test]
    fn the_same_seed_is_the_same_schedule() {
        assert_eq!(usual(7), usual(7));
        assert_ne!(usual(7), usual(8));
    }

    #[test]
    fn five_minutes_have_every_kind() {
        for seed in 0..200 {
            let faults = usual(seed);
            for kind in Kind::ALL {
                assert!(faults.iter().any(|fault| fault.kind == *kind), "{kind} is missing, seed {seed}");
            }
            assert!(faults.iter().all(|fault| fault.at + fault.lasts < FIVE_MINUTES));
        }
    }
}

//! What goes wrong. Each kind has its own stream of chance, so that switching one off changes no other.

use fastrand::Rng;

macro_rules! faults {
    ($($name:ident $word:literal $text:literal)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $text] $name,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// For the command line.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// For people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

faults! {
    Crash "crash" "a server is killed, at any moment, and started again"
    Pause "pause" "a server stands still and wakes up, seconds or hours later, still believing what it believed"
    Outage "outage" "all servers are killed at once, and stay away"
    GracefulStop "graceful-stop" "a server is stopped in order"
    Upgrade "upgrade" "servers are replaced by ones that know the next level; an operator raises it, sometimes too early"
    Rebalance "rebalance" "shards move, at any moment"
    OwnClock "own-clock" "a server's own clock is off"
    LateEndTxn "late-end-txn" "an `EndTxn` comes late: after the client gave up, or after another owner came"
    RepeatedEndTxn "repeated-end-txn" "an `EndTxn` comes twice, and ends a part of the next checkpoint"
    SlowCommit "slow-commit" "a commit goes well, and nobody is told in time"
    SlowCheckpoint "slow-checkpoint" "records of a checkpoint are acknowledged late"
    StaleEnd "stale-end" "a deposed leader shows an old end of the state"
    Compaction "compaction" "the cleaner comes by"
    TombstonesGone "tombstones-gone" "the cleaner takes tombstones away"
    StateLost "state-lost" "a record of the state is gone"
    InboxCut "inbox-cut" "the end of the inbox is gone, as after an unclean election"
    LeaderChange "leader-change" "a new leader lacks what was not replicated; its clock may be behind"
    ClockJump "clock-jump" "a leader's clock is hours ahead"
    LateDelivery "late-delivery" "an output stands in the network for minutes or hours"
    FalseFailure "false-failure" "an output is reported as failed, and has arrived"
    Undeliverable "undeliverable" "a command topic does not exist for a while"
    DeadTopic "dead-topic" "a command topic takes nothing for a while"
    LostTimer "lost-timer" "a timer record is lost on its way"
    RepeatedCommand "repeated-command" "a command is handled twice, the second time late"
    LateCommand "late-command" "a command is handled late, after later ones"
    RepeatedReply "repeated-reply" "a reply comes twice, the second time late"
    LateReply "late-reply" "a reply comes late"
    ParticipantAway "participant-away" "a participant handles nothing for a while, then everything again"
    TechnicalError "technical-error" "business code fails technically, after it has begun"
    Pending "pending" "a participant says that it is still at it"
    BusinessNo "business-no" "a participant refuses"
    RudeAnswer "rude-answer" "a foreign participant refuses what it may not, or answers `expired`"
    LargeResult "large-result" "a result does not fit in the transaction"
    MissingField "missing-field" "a result lacks a field that a later step maps"
    Garbage "garbage" "records that nobody can read, or that are for somebody else"
    Poison "poison" "a record on which apply panics; an operator skips it"
    LateDefinition "late-definition" "definitions come again, older ones after newer, or late to one of the shards"
    SettingsChange "settings-change" "the settings change in the middle"
    InboxAway "inbox-away" "an inbox partition takes nothing for a while"
}

/// Chance, kind by kind, and what has really happened.
#[derive(Debug)]
pub struct Faults {
    streams: Vec<Rng>,
    active: Vec<bool>,
    fired: Vec<u64>,
    /// No more faults: what has begun is to come to its end.
    pub calm: bool,
}

impl Faults {
    /// For one run: a third of the kinds, chosen by the seed, but those in `without`.
    pub fn new(seed: u64, without: &[Fault]) -> Self {
        let mut choice = crate::stream(seed, "faults", 0);
        let streams = Fault::ALL.iter().map(|fault| crate::stream(seed, fault.word(), 1)).collect();
        let dense = choice.u8(0..4);
        let active =
            Fault::ALL.iter().map(|fault| (choice.u8(0..4) <= dense) & !without.contains(fault)).collect();
        Self { streams, active, fired: vec![0; Fault::ALL.len()], calm: false }
    }

    /// Whether this kind belongs to the run.
    pub fn has(&self, fault: Fault) -> bool {
        !self.calm && self.active[fault as usize]
    }

    /// Whether it strikes now: once in `of` times.
    pub fn strikes(&mut self, fault: Fault, of: u32) -> bool {
        let strikes = self.has(fault) && self.streams[fault as usize].u32(0..of) == 0;
        if strikes {
            self.fired[fault as usize] += 1;
        }
        strikes
    }

    /// It has happened.
    pub fn note(&mut self, fault: Fault) {
        self.fired[fault as usize] += 1;
    }

    /// Its stream of chance.
    pub fn rng(&mut self, fault: Fault) -> &mut Rng {
        &mut self.streams[fault as usize]
    }

    /// Now and then long, mostly short, in milliseconds.
    pub fn span(&mut self, fault: Fault) -> i64 {
        let rng = self.rng(fault);
        let most = [300, 3_000, 15_000, 60_000, 1_200_000, 20_000_000][rng.usize(0..6)];
        rng.i64(1..most)
    }

    /// How often each kind has happened.
    pub fn fired(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().copied().zip(self.fired.iter().copied())
    }

    /// The kinds that belong to this run.
    pub fn active(&self) -> Vec<Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.active[*fault as usize]).collect()
    }
}

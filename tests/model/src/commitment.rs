//! Atomic commitment of two participants, with one or two rounds before `commit`: what `two_phase` and `three_phase`
//! have in common.
//!
//! **What is in it.** Every input of the coordinator is a record of its log: votes, acknowledgements, the deadline. It
//! is a fold of that log, so all that has been applied is one value; a coordinator that crashes and replays, or a
//! zombie, stands at an earlier place of the same fold and sends what was sent before, which is why commands arrive
//! any number of times, in any order, however late, or never. So do replies. Participants keep what they have
//! answered, across crashes, and ask when they are in doubt; a question and its answer may be late, too.
//!
//! **What is left out.** Which attempt a reply answers; purging at the participants (`barrier`); other steps.

use crate::Missing;

/// Nobody commits while another one aborts.
pub const ATOMIC: &str = "nobody commits while another aborts";
/// The decision follows from the log before a `commit` leaves.
pub const DURABLE_FIRST: &str = "the decision is in the log before a commit leaves";
/// What has been forgotten was acknowledged by everybody.
pub const REMEMBERED: &str = "a decision is remembered until everybody has acknowledged it";
/// An answer to a participant in doubt is the decision, or none.
pub const NO_GUESS: &str = "an answer to one in doubt is never a guess";
/// From every state on, everybody can come to an end.
pub const ENDS: &str = "everybody can come to an end";

pub(crate) const PARTICIPANTS: usize = 2;
/// Replies that are in the log and not yet applied. Duplicates beyond it wait outside.
const PENDING_MAX: usize = 3;

/// Participants, as a set: a duplicate changes nothing.
type Set = [bool; PARTICIPANTS];
const ALL: Set = [true; PARTICIPANTS];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Record {
    Yes(usize),
    No(usize),
    Precommitted(usize),
    Acknowledged(usize),
    Deadline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Preparing,
    Precommitting,
    Committing,
    Aborting,
    Forgotten,
}

/// The coordinator: the fold of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fold {
    pub(crate) phase: Phase,
    yes: Set,
    tally: u8,
    precommitted: Set,
    acknowledged: Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Participant {
    Idle,
    Prepared,
    Precommitted,
    Committed,
    /// It has voted no.
    Refused,
    Aborted {
        was_prepared: bool,
    },
}

/// A command, to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    Prepare,
    Precommit,
    Commit,
    Abort,
}

const COMMANDS: [Command; 4] = [Command::Prepare, Command::Precommit, Command::Commit, Command::Abort];

/// An answer to an inquiry. `undecided` and `forgotten` change nothing, and are not modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Commit,
    Abort,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// What a replay of the log makes.
    pub(crate) fold: Fold,
    /// What the coordinator believes that does not wait for its log; `None` when it does wait.
    pub(crate) belief: Option<Fold>,
    /// In the log and not applied.
    pub(crate) pending: Vec<Record>,
    /// Commands that have left once.
    pub(crate) sent: [bool; 4],
    pub(crate) participants: [Participant; PARTICIPANTS],
    pub(crate) asked: Set,
    pub(crate) answers: [Option<Answer>; PARTICIPANTS],
    /// The decision that has left.
    pub(crate) decided: Option<Answer>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A command arrives; asked to prepare, business may say no.
    Deliver { to: usize, command: Command, refuses: bool },
    /// A reply is appended to the log.
    Reply { record: Record },
    /// The deadline's timer record is appended.
    Deadline,
    /// The coordinator applies the next record, and sends what follows.
    Apply,
    /// The coordinator forgets what has ended.
    Forget,
    /// A participant in doubt asks.
    Ask { from: usize },
    /// The coordinator answers.
    Answer { to: usize },
    /// The answer arrives.
    Hear { to: usize },
    /// A vote is counted off the wire, before it is in the log.
    Overhear { from: usize },
    /// The coordinator crashes, and replays its log.
    Crash,
    /// A participant decides by its own timeout.
    DecideAlone { who: usize },
}

/// The mechanism that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// A decision is forgotten as soon as it has left.
    Remembering,
    /// About what it does not know, the coordinator answers `abort`.
    Forgotten,
    /// Both: presumed abort, with the decision purged before it is acknowledged.
    Acknowledgements,
    /// Votes are numbers, not sets of participants.
    Sets,
    /// A vote counts as soon as it is heard.
    VotesInLog,
    /// Participants in doubt wait for the coordinator (three-phase).
    Waiting,
}

impl Without {
    /// Each.
    pub const ALL: [Self; 6] = [
        Self::Remembering,
        Self::Forgotten,
        Self::Acknowledgements,
        Self::Sets,
        Self::VotesInLog,
        Self::Waiting,
    ];
}

impl Without {
    pub(crate) fn missing(self) -> Missing {
        let (mechanism, upholds) = match self {
            Self::Remembering => ("remembering until acknowledged", ENDS),
            Self::Forgotten => ("the answer forgotten", NO_GUESS),
            Self::Acknowledgements => ("acknowledgements, presuming abort", ATOMIC),
            Self::Sets => ("votes as sets", ATOMIC),
            Self::VotesInLog => ("votes in the log before the decision", ATOMIC),
            Self::Waiting => ("waiting when in doubt", ATOMIC),
        };
        Missing { mechanism, upholds }
    }
}

/// The rules, with or without a second round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    pub(crate) has_precommit: bool,
    pub(crate) without: Option<Without>,
}

impl Rules {
    fn lacks(self, mechanism: Without) -> bool {
        self.without == Some(mechanism)
    }

    fn apply(self, fold: &mut Fold, record: Record) {
        match record {
            Record::Yes(from) => {
                fold.yes[from] = true;
                fold.tally = (fold.tally + 1).min(2);
            }
            Record::Precommitted(from) => fold.precommitted[from] = true,
            Record::Acknowledged(from) => fold.acknowledged[from] = true,
            Record::No(_) | Record::Deadline => {}
        }
        let is_unanimous = if self.lacks(Without::Sets) { fold.tally == 2 } else { fold.yes == ALL };
        fold.phase = match (fold.phase, record) {
            (Phase::Preparing, Record::Yes(_)) if is_unanimous && self.has_precommit => Phase::Precommitting,
            (Phase::Preparing, Record::Yes(_)) if is_unanimous => Phase::Committing,
            (Phase::Preparing, Record::No(_) | Record::Deadline) => Phase::Aborting,
            (Phase::Precommitting, Record::Precommitted(_)) if fold.precommitted == ALL => Phase::Committing,
            (phase, _) => phase,
        };
    }

    pub(crate) fn init(self) -> State {
        let fold = Fold {
            phase: Phase::Preparing,
            yes: [false; 2],
            tally: 0,
            precommitted: [false; 2],
            acknowledged: [false; 2],
        };
        State {
            fold,
            belief: self.lacks(Without::VotesInLog).then_some(fold),
            pending: Vec::new(),
            sent: [true, false, false, false],
            participants: [Participant::Idle; PARTICIPANTS],
            asked: [false; PARTICIPANTS],
            answers: [None; PARTICIPANTS],
            decided: None,
        }
    }

    pub(crate) fn actions(self, state: &State, actions: &mut Vec<Action>) {
        for (who, participant) in state.participants.iter().enumerate() {
            for command in COMMANDS.into_iter().filter(|command| state.sent[*command as usize]) {
                actions.push(Action::Deliver { to: who, command, refuses: false });
                if *participant == Participant::Idle && command == Command::Prepare {
                    actions.push(Action::Deliver { to: who, command, refuses: true });
                }
            }
            if state.pending.len() < PENDING_MAX {
                actions.extend(state.replies(who).into_iter().map(|record| Action::Reply { record }));
            }
            if state.belief.is_some() && *participant == Participant::Prepared {
                actions.push(Action::Overhear { from: who });
            }
            if participant.is_in_doubt() {
                if !state.asked[who] {
                    actions.push(Action::Ask { from: who });
                }
                if self.lacks(Without::Waiting) {
                    actions.push(Action::DecideAlone { who });
                }
            }
            if state.asked[who] {
                actions.push(Action::Answer { to: who });
            }
            if state.answers[who].is_some() {
                actions.push(Action::Hear { to: who });
            }
        }
        if !state.pending.contains(&Record::Deadline) && state.pending.len() < PENDING_MAX {
            actions.push(Action::Deadline);
        }
        if !state.pending.is_empty() {
            actions.push(Action::Apply);
        }
        if self.may_forget(state) {
            actions.push(Action::Forget);
        }
        if state.belief.is_some() {
            actions.push(Action::Crash);
        }
    }

    fn may_forget(self, state: &State) -> bool {
        let is_decided = matches!(state.fold.phase, Phase::Committing | Phase::Aborting);
        let at_once = self.lacks(Without::Remembering) || self.lacks(Without::Acknowledgements);
        is_decided && (state.fold.acknowledged == ALL || at_once)
    }

    pub(crate) fn next(self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver { to, command, refuses } => {
                state.participants[to] = state.participants[to].take(command, refuses);
            }
            Action::Reply { record } => state.pending.push(record),
            Action::Deadline => state.pending.push(Record::Deadline),
            Action::Apply => {
                let record = state.pending.remove(0);
                self.apply(&mut state.fold, record);
                if let Some(belief) = &mut state.belief {
                    self.apply(belief, record);
                }
                state.send();
            }
            Action::Forget => state.fold.phase = Phase::Forgotten,
            Action::Ask { from } => state.asked[from] = true,
            Action::Answer { to } => {
                state.asked[to] = false;
                state.answers[to] = self.answer(&state);
            }
            Action::Hear { to } => {
                let answer = state.answers[to].take()?;
                let command = if answer == Answer::Commit { Command::Commit } else { Command::Abort };
                state.participants[to] = state.participants[to].take(command, false);
            }
            Action::Overhear { from } => {
                self.apply(state.belief.as_mut()?, Record::Yes(from));
                state.send();
            }
            Action::Crash => {
                state.belief = Some(state.fold);
                state.send();
            }
            Action::DecideAlone { who } => {
                state.participants[who] = match state.participants[who] {
                    Participant::Precommitted => Participant::Committed,
                    other => other.take(Command::Abort, false),
                };
            }
        }
        (state != *last).then_some(state)
    }

    fn answer(self, state: &State) -> Option<Answer> {
        match state.fold.phase {
            Phase::Committing => Some(Answer::Commit),
            Phase::Aborting => Some(Answer::Abort),
            Phase::Preparing | Phase::Precommitting => None,
            Phase::Forgotten => {
                let guesses = self.lacks(Without::Forgotten) || self.lacks(Without::Acknowledgements);
                guesses.then_some(Answer::Abort)
            }
        }
    }

    /// Left in peace, with nothing lost any more, everybody ends, and in the same way.
    pub(crate) fn ends(self, state: &State) -> bool {
        let mut state = state.clone();
        // Each round brings somebody one phase further, or nothing is left to do.
        for _ in 0..8 {
            state.pending.push(Record::Deadline);
            for record in std::mem::take(&mut state.pending) {
                self.apply(&mut state.fold, record);
                state.send();
            }
            for who in 0..PARTICIPANTS {
                // Once forgotten, nothing is sent again.
                let commands = COMMANDS.into_iter().filter(|command| state.sent[*command as usize]);
                for command in commands.filter(|_| state.fold.phase != Phase::Forgotten) {
                    state.participants[who] = state.participants[who].take(command, false);
                }
                let replies = state.replies(who);
                state.pending.extend(replies);
            }
        }
        !state.is_split() && state.participants.iter().all(|participant| participant.has_ended())
    }
}

impl Participant {
    pub(crate) fn is_in_doubt(self) -> bool {
        matches!(self, Self::Prepared | Self::Precommitted)
    }

    fn take(self, command: Command, refuses: bool) -> Self {
        match (command, self) {
            (Command::Prepare, Self::Idle) if refuses => Self::Refused,
            (Command::Prepare, Self::Idle) => Self::Prepared,
            (Command::Precommit, Self::Prepared) => Self::Precommitted,
            (Command::Commit, Self::Prepared | Self::Precommitted) => Self::Committed,
            // What was never prepared is remembered as cancelled.
            (Command::Abort, Self::Idle | Self::Refused) => Self::Aborted { was_prepared: false },
            (Command::Abort, Self::Prepared | Self::Precommitted) => Self::Aborted { was_prepared: true },
            (_, repeated) => repeated,
        }
    }

    fn has_ended(self) -> bool {
        matches!(self, Self::Committed | Self::Refused | Self::Aborted { .. })
    }
}

impl State {
    fn send(&mut self) {
        let phase = self.belief.unwrap_or(self.fold).phase;
        let (command, decided) = match phase {
            Phase::Preparing | Phase::Forgotten => return,
            Phase::Precommitting => (Command::Precommit, None),
            Phase::Committing => (Command::Commit, Some(Answer::Commit)),
            Phase::Aborting => (Command::Abort, Some(Answer::Abort)),
        };
        self.sent[command as usize] = true;
        self.decided = self.decided.or(decided);
    }

    /// Every reply that a participant has given so far: any of them may arrive once more.
    fn replies(&self, from: usize) -> Vec<Record> {
        let is_told = self.sent[Command::Commit as usize] || self.sent[Command::Abort as usize];
        let acknowledged = Some(Record::Acknowledged(from)).filter(|_| is_told);
        let precommitted =
            Some(Record::Precommitted(from)).filter(|_| self.sent[Command::Precommit as usize]);
        let (yes, no) = (Some(Record::Yes(from)), Some(Record::No(from)));
        let replies = match self.participants[from] {
            Participant::Idle => [None; 3],
            Participant::Prepared => [yes, None, None],
            Participant::Precommitted => [yes, precommitted, None],
            Participant::Committed => [yes, precommitted, acknowledged],
            Participant::Refused => [no, None, None],
            Participant::Aborted { was_prepared } => {
                [if was_prepared { yes } else { no }, acknowledged, None]
            }
        };
        replies.into_iter().flatten().collect()
    }

    pub(crate) fn is_split(&self) -> bool {
        let is_aborted = |p: &Participant| matches!(p, Participant::Refused | Participant::Aborted { .. });
        self.participants.contains(&Participant::Committed) && self.participants.iter().any(is_aborted)
    }

    /// The log says commit.
    pub(crate) fn is_commit_durable(&self, rules: Rules) -> bool {
        let precommitted = !rules.has_precommit || self.fold.precommitted == ALL;
        self.fold.yes == ALL && precommitted && self.decided == Some(Answer::Commit)
    }
}

/// The words for what both models do.
pub(crate) fn tell(before: &State, action: Action, after: &State) -> String {
    let name = |who: usize| ["Bank a", "Bank b"][who];
    match action {
        Action::Deliver { to, command, refuses } => {
            let command = match command {
                Command::Prepare => "prepare",
                Command::Precommit => "precommit",
                Command::Commit => "commit",
                Command::Abort => "abort",
            };
            let does = if refuses { "votes no" } else { is(after.participants[to]) };
            format!("{} gets {command} and {does}.", name(to))
        }
        Action::Reply { record } => format!("Appended to the log: {}.", words(record)),
        Action::Deadline => "The deadline is appended to the log.".to_owned(),
        Action::Apply => {
            let applied = before.pending.first().map(|record| words(*record)).unwrap_or_default();
            format!("The coordinator applies: {applied}{}.", leaves(before, after))
        }
        Action::Forget => "The coordinator forgets the transaction.".to_owned(),
        Action::Ask { from } => format!("{}, in doubt, asks.", name(from)),
        Action::Answer { to } => match after.answers[to] {
            Some(Answer::Commit) => format!("The coordinator answers {}: commit.", name(to)),
            Some(Answer::Abort) => format!("The coordinator answers {}: abort.", name(to)),
            None => format!("The coordinator answers {} nothing that it may act on.", name(to)),
        },
        Action::Hear { to } => {
            format!("{} hears the answer and {}.", name(to), is(after.participants[to]))
        }
        Action::Overhear { from } => format!(
            "The coordinator hears {}'s yes, which is not in the log{}.",
            name(from),
            leaves(before, after)
        ),
        Action::Crash => format!("The coordinator crashes and replays its log{}.", leaves(before, after)),
        Action::DecideAlone { who } => {
            format!("{} has waited long enough and {} by itself.", name(who), is(after.participants[who]))
        }
    }
}

fn leaves(before: &State, after: &State) -> &'static str {
    let new = |command: Command| after.sent[command as usize] && !before.sent[command as usize];
    if new(Command::Commit) {
        "; it sends commit"
    } else if new(Command::Abort) {
        "; it sends abort"
    } else if new(Command::Precommit) {
        "; it sends precommit"
    } else {
        ""
    }
}

fn words(record: Record) -> String {
    let name = |who: usize| ["bank a", "bank b"][who];
    match record {
        Record::Yes(who) => format!("the yes of {}", name(who)),
        Record::No(who) => format!("the no of {}", name(who)),
        Record::Precommitted(who) => format!("the ok of {} to precommit", name(who)),
        Record::Acknowledged(who) => format!("the acknowledgement of {}", name(who)),
        Record::Deadline => "the deadline".to_owned(),
    }
}

fn is(participant: Participant) -> &'static str {
    match participant {
        Participant::Idle => "has done nothing",
        Participant::Prepared => "is prepared",
        Participant::Precommitted => "is precommitted",
        Participant::Committed => "commits",
        Participant::Refused => "has voted no",
        Participant::Aborted { .. } => "aborts",
    }
}

pub(crate) fn tell_end(state: &State) -> String {
    let [a, b] = state.participants;
    format!("In the end bank a {}, bank b {}.", is(a), is(b))
}

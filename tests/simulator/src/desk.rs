//! Participants: the library's own barrier and memory store, behind a topic, with a ledger as business.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sagamore_participant::memory::{Cell, MemoryStore, State, Table, Undo};
use sagamore_participant::participant::{Effect, Fault as TechnicalFault, Participant};
use sagamore_participant::perform::{Answered, perform};
use sagamore_participant::store::Store;
use sagamore_participant::{Command, Payload};

/// What a participant has done: per branch how often, and how much.
#[derive(Default)]
pub struct Ledger {
    /// Under `birth/step/branch`: what stands of its effect.
    pub effects: Table<String, Standing>,
    /// Sum of all that stands.
    pub money: Cell<i64>,
}

/// What stands of one branch's effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Prepared: 1, until it is told to commit or to abort.
    pub held: i64,
    /// Done: 1, or 0 after it was undone.
    pub count: i64,
    /// How much.
    pub delta: i64,
    /// How often it was undone.
    pub undone: i64,
}

impl State for Ledger {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.effects);
        visit(&mut self.money);
    }
}

/// What chance has decided about one handling of one command.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mood {
    /// Business code fails after its effect.
    pub fails: bool,
    /// Bytes that the result is larger than it needs to be.
    pub large_bytes: usize,
    /// The result lacks a field.
    pub lacks: bool,
    /// Says no, whenever it is asked.
    pub refuses: bool,
}

/// Business code.
pub struct Business {
    mood: Mutex<Mood>,
    broken: Arc<Mutex<Vec<String>>>,
}

/// One participant.
pub struct Desk {
    business: Business,
    store: MemoryStore<Ledger>,
    broken: Arc<Mutex<Vec<String>>>,
    /// By branch, as in the ledger: where in its topic the command stands that it voted yes to.
    pub votes: BTreeMap<String, i64>,
    /// Commands up to here have been handed out.
    pub position: i64,
    /// It handles nothing before this.
    pub away_until: i64,
    /// Its topic does not exist before this.
    pub missing_until: i64,
    /// Its topic takes nothing before this.
    pub dead_until: i64,
}

impl Default for Desk {
    fn default() -> Self {
        let broken = Arc::new(Mutex::new(Vec::new()));
        Self {
            business: Business { mood: Mutex::default(), broken: Arc::clone(&broken) },
            store: MemoryStore::new(Ledger::default()),
            broken,
            votes: BTreeMap::new(),
            position: 0,
            away_until: 0,
            missing_until: 0,
            dead_until: 0,
        }
    }
}

impl Desk {
    /// Handles one command, in a local transaction of its own.
    pub fn handle(&self, command: &Command<'_>, mood: Mood) -> Answered {
        *self.business.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        let mut session = ();
        let answered = self.store.begin(&mut session).and_then(|mut tx| {
            let answered = perform(&self.business, &mut tx, command)?;
            sagamore_participant::store::LocalTransaction::commit(tx)?;
            Ok(answered)
        });
        match answered {
            Ok(answered) => answered,
            Err(fault) => unreachable!("memory does not fail: {fault}"),
        }
    }

    /// Looks at the ledger.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        self.store.read(look)
    }

    /// Whether a branch is prepared and has not been told what was decided.
    pub fn is_in_doubt(&self, branch: &str) -> bool {
        self.read(|ledger| ledger.effects.get(&branch.to_owned()).is_some_and(|standing| standing.held > 0))
    }

    /// What must never be, and was seen by business code.
    pub fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut *self.broken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Business {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaks(&self, text: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// What `execute` and `prepare` come to, after their effect.
    fn forward(&self, delta: i64) -> Result<Effect, TechnicalFault> {
        let mood = self.mood();
        if mood.fails {
            return Err(TechnicalFault::new("planned"));
        }
        if mood.refuses {
            return Ok(Effect::refused("planned"));
        }
        let mut result = serde_json::json!({"made": delta});
        if !mood.lacks {
            result["sometimes"] = "there".into();
        }
        if mood.large_bytes > 0 {
            result["large"] = "x".repeat(mood.large_bytes).into();
        }
        Effect::done(&result)
    }

    /// What the others come to.
    fn follow(&self) -> Result<(), TechnicalFault> {
        if self.mood().fails { Err(TechnicalFault::new("planned")) } else { Ok(()) }
    }

    fn change(&self, tx: &mut Ledger, command: &Command<'_>, change: impl FnOnce(&mut Standing)) -> Standing {
        let key = key(command);
        let mut standing = tx.effects.get(&key).copied().unwrap_or_default();
        let before = standing.count * standing.delta;
        change(&mut standing);
        let is_once = |times: i64| (0..=1).contains(&times);
        if !(is_once(standing.held + standing.count) && is_once(standing.held) && is_once(standing.undone)) {
            self.breaks(format!("{key} stands as {standing:?}"));
        }
        *tx.money.change() += standing.count * standing.delta - before;
        tx.effects.put(key, standing);
        standing
    }
}

/// Under what a branch stands in the ledger.
pub fn key(command: &Command<'_>) -> String {
    let address = &command.address;
    format!("{}/{}/{}", address.birth, address.step, address.branch)
}

impl Participant for Business {
    type Store = MemoryStore<Ledger>;

    fn execute(&self, tx: &mut Ledger, command: &Command<'_>) -> Result<Effect, TechnicalFault> {
        let delta = delta(command)?;
        self.change(tx, command, |standing| {
            standing.count += 1;
            standing.delta = delta;
        });
        self.forward(delta)
    }

    fn compensate(&self, tx: &mut Ledger, command: &Command<'_>, _: &Payload) -> Result<(), TechnicalFault> {
        self.change(tx, command, |standing| {
            standing.count -= 1;
            standing.undone += 1;
        });
        self.follow()
    }

    fn prepare(&self, tx: &mut Ledger, command: &Command<'_>) -> Result<Effect, TechnicalFault> {
        let delta = delta(command)?;
        self.change(tx, command, |standing| {
            standing.held += 1;
            standing.delta = delta;
        });
        self.forward(delta)
    }

    fn precommit(&self, tx: &mut Ledger, command: &Command<'_>, _: &Payload) -> Result<(), TechnicalFault> {
        let standing = tx.effects.get(&key(command)).copied().unwrap_or_default();
        if standing.held != 1 {
            self.breaks(format!("{} is to commit soon, and stands as {standing:?}", key(command)));
        }
        self.follow()
    }

    fn commit(&self, tx: &mut Ledger, command: &Command<'_>, _: &Payload) -> Result<(), TechnicalFault> {
        self.change(tx, command, |standing| {
            standing.held -= 1;
            standing.count += 1;
        });
        self.follow()
    }

    fn abort(&self, tx: &mut Ledger, command: &Command<'_>, _: &Payload) -> Result<(), TechnicalFault> {
        self.change(tx, command, |standing| standing.held -= 1);
        self.follow()
    }
}

fn delta(command: &Command<'_>) -> Result<i64, TechnicalFault> {
    let data: serde_json::Value = serde_json::from_str(command.data.json().unwrap_or("{}"))?;
    Ok(data["delta"].as_i64().unwrap_or_default())
}

//! What a store to be tested has to say of itself, and a participant that does as it is told.

use std::marker::PhantomData;

use sagamore_participant::store::Store;
use sagamore_participant::{Command, Effect, Fault, Open, Participant, Payload};

/// A place where one participant keeps its effects: a number for each transaction.
pub(crate) trait Bed: Default + Sync + 'static {
    type Store: Store;
    /// A vote is held back until it is decided: nobody sees it, and an abort has nothing to undo.
    const HOLDS_VOTES: bool = false;

    /// An instance of the participant opens its store there.
    fn open(&self) -> Self::Store;

    /// The effect of an operation.
    fn add(
        business: &mut <Self::Store as Store>::Business<'_>,
        subject: &str,
        change: i64,
    ) -> Result<(), Fault>;

    /// All that is committed.
    fn net(&self, subject: &str) -> i64;

    /// How many branches are remembered.
    fn branches(&self) -> usize;
}

/// Does what the command's `data` says: `"done"`, `"refused"`, `"fault"` or `"panic"`, each after its effect; `"slip"`
/// fails when it comes back as the input of what follows a vote.
pub(crate) struct Obedient<B>(PhantomData<fn() -> B>);

impl<B> Obedient<B> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<B: Bed> Obedient<B> {
    fn obey(tx: &mut Open<'_, Self>, change: i64, command: &Command<'_>) -> Result<Effect, Fault> {
        B::add(tx, command.address.subject.as_str(), change)?;
        match command.data.json() {
            Some("\"refused\"") => Ok(Effect::refused("told-to")),
            Some("\"fault\"" | r#"{"input":"slip","result":"result"}"#) => Err(Fault::new("told to")),
            Some("\"panic\"") => panic!("told to"),
            _ => Effect::done(&"result"),
        }
    }
}

impl<B: Bed> Participant for Obedient<B> {
    type Store = B::Store;

    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::obey(tx, 1, command)
    }

    fn compensate(
        &self,
        tx: &mut Open<'_, Self>,
        command: &Command<'_>,
        done: &Payload,
    ) -> Result<(), Fault> {
        assert_eq!(done.as_ref().json(), Some("\"result\""));
        Self::obey(tx, -1, command).map(|_| ())
    }

    fn prepare(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::obey(tx, 1, command)
    }

    fn commit(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::obey(tx, 10, command).map(|_| ())
    }

    fn abort(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::obey(tx, if B::HOLDS_VOTES { 0 } else { -1 }, command).map(|_| ())
    }
}

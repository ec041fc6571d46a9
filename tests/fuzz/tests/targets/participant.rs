//! The participant's side: a command as it came, done on a store in memory.

use std::collections::BTreeMap;

use sagamore_fuzz::Target;
use sagamore_participant::perform::{Answered, perform};
use sagamore_participant::store::memory::{Cell, MemoryStore, State, Undo};
use sagamore_participant::store::{LocalTransaction as _, Store as _};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, read_data};
use sagamore_schemas::wire::{Answer, Input, Operation, Reply, read_command, read_input};

#[derive(Default)]
struct Counts {
    done: Cell<i64>,
    undone: Cell<i64>,
}

impl State for Counts {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.done);
        visit(&mut self.undone);
    }
}

/// Takes what is an object, refuses all else.
struct Picky;

impl Participant for Picky {
    type Store = MemoryStore<Counts>;

    fn execute(&self, tx: &mut Counts, command: &Command<'_>) -> Result<Effect, Fault> {
        *tx.done.change() += 1;
        match read_data::<BTreeMap<String, serde_json::Value>>(command) {
            Ok(fields) => Effect::done(&fields.len()),
            Err(refusal) => Ok(refusal),
        }
    }

    fn compensate(&self, tx: &mut Counts, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        *tx.undone.change() += 1;
        Ok(())
    }

    fn prepare(&self, tx: &mut Counts, command: &Command<'_>) -> Result<Effect, Fault> {
        self.execute(tx, command)
    }

    fn commit(&self, _: &mut Counts, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }

    fn abort(&self, tx: &mut Counts, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        self.compensate(tx, command, done)
    }
}

#[test]
fn a_command_has_one_answer_and_one_effect_at_most() {
    Target { name: "participant", cases: 50_000 }.run(|bytes| {
        let Ok(command) = read_command(Some(bytes)) else { return };
        let store = MemoryStore::new(Counts::default());
        // What the branch has lived through before follows from the input, so that a finding is one every time.
        for turn in 0..bytes.len() % 4 {
            let mut before = read_command(Some(bytes)).unwrap();
            before.address.operation = Operation::ALL[(bytes.len() / 4 + turn * 5) % Operation::ALL.len()];
            asked(&store, &before);
        }
        let (done, undone) = store.read(|counts| (*counts.done.get(), *counts.undone.get()));
        assert!(undone <= done && done <= 2, "{done} done, {undone} undone");
        let first = asked(&store, &command);
        let second = asked(&store, &command);
        assert_eq!(
            (first.outcome, &first.reason, first.data.as_ref().json()),
            (second.outcome, &second.reason, second.data.as_ref().json()),
            "asked twice"
        );
        let (done, undone) = store.read(|counts| (counts.done.get() - done, counts.undone.get() - undone));
        assert!(done <= 1 && undone <= 1, "{done} done, {undone} undone");
        if first.outcome != Answer::Ok {
            assert_eq!((done, undone), (0, 0), "what is not done leaves nothing");
        }
        if matches!(command.address.operation, Operation::Compensate | Operation::Abort) {
            assert_eq!(done, 0);
        }
        is_own(&command, &first);
    });
}

fn asked(store: &MemoryStore<Counts>, command: &Command<'_>) -> Answered {
    let mut session = ();
    let mut tx = store.begin(&mut session).unwrap();
    let answered = perform(&Picky, &mut tx, command).unwrap();
    tx.commit().unwrap();
    answered
}

/// The reply that leaves is one to this very command.
fn is_own(command: &Command<'_>, answered: &Answered) {
    let reply = Reply {
        address: command.address.clone(),
        instance: command.instance,
        source: "/picky".into(),
        outcome: answered.outcome,
        reason: answered.reason.clone(),
        replytoken: command.replytoken.clone(),
        data: answered.data.as_ref(),
    };
    let written = reply.to_json();
    let Input::Reply(read) = read_input(Some(&written)).unwrap() else { panic!("a reply") };
    assert_eq!(read.address, command.address);
    assert_eq!((read.instance, read.replytoken), (command.instance, command.replytoken.clone()));
}

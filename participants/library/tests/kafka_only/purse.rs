//! Points in purses, each a row of the table; every change is told to whoever listens.

use sagamore_participant::store::kafka::{KafkaStore, Tx};
use sagamore_participant::{Command, Effect, Fault, Open, Participant, Payload, read_data};
use serde::Deserialize;

#[derive(Deserialize)]
struct Wish {
    owner: String,
    points: i64,
}

/// What follows a vote has it as its input.
#[derive(Deserialize)]
struct Later {
    input: Wish,
}

pub struct Purse {
    events: String,
}

/// With so many points the change is told to a topic that does not exist.
pub const NOWHERE: i64 = 404;
/// With so many points business code fails.
pub const FAULT: i64 = 500;

impl Purse {
    pub fn new(events: String) -> Self {
        Self { events }
    }

    fn change(&self, tx: &mut Tx<'_>, owner: &str, points: i64, command: &Command<'_>) -> Result<(), Fault> {
        let net = tx.read::<i64>(owner)?.unwrap_or_default() + points;
        if net == 0 {
            tx.remove(owner.as_bytes())?;
        } else {
            tx.write(owner, &net)?;
        }
        let topic = if points == NOWHERE { "no-such-topic" } else { &self.events };
        let told = format!("{} {points:+}", command.address.subject);
        tx.emit(topic, owner.as_bytes(), told.as_bytes())?;
        if points == FAULT {
            return Err(Fault::new("told to"));
        }
        Ok(())
    }
}

impl Participant for Purse {
    type Store = KafkaStore;

    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        let Wish { owner, points } = match read_data(command) {
            Ok(wish) => wish,
            Err(refusal) => return Ok(refusal),
        };
        self.change(tx, &owner, points, command)?;
        if points < 0 {
            return Ok(Effect::refused("less than nothing"));
        }
        Effect::done(&serde_json::json!({ "owner": owner, "points": points }))
    }

    fn compensate(
        &self,
        tx: &mut Open<'_, Self>,
        command: &Command<'_>,
        done: &Payload,
    ) -> Result<(), Fault> {
        let Wish { owner, points } = serde_json::from_str(done.as_ref().json().unwrap_or_default())?;
        self.change(tx, &owner, -points, command)
    }

    fn prepare(&self, _: &mut Open<'_, Self>, _: &Command<'_>) -> Result<Effect, Fault> {
        Effect::done(&())
    }

    fn commit(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Later { input: Wish { owner, points } } =
            serde_json::from_str(command.data.json().unwrap_or_default())?;
        self.change(tx, &owner, points, command)
    }

    fn abort(&self, _: &mut Open<'_, Self>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

//! Takeover: in which order the former owner is fenced, the state read and the inbox compared. Without I/O: the server's
//! checkpointer and the simulator do what it asks, and tell it what came of it.
//!
//! | stage | asks | on | becomes |
//! |---|---|---|---|
//! | fencing | `Fence` | fenced | barrier |
//! | barrier | `WriteBarrier` | committed | reading |
//! | reading | `ReadState` | our own barrier; nothing is ignored | comparing |
//! | reading | `ReadState` | our own barrier; a part of a checkpoint is ignored | writing again |
//! | writing again | `WriteAgain` | committed | comparing |
//! | comparing | `LookIntoInbox` | what the inbox holds | the shard, restored |
//! | any | | anything indefinite | it is dropped, and begun anew |
//!
//! What is ignored costs what counts, once the cleaner comes by ([`crate::restore`]). So it is covered as soon as the
//! state is proved, before the shard can halt: for its level, its secret, its inbox, or at the first record.

use uuid::Uuid;

use sagamore_schemas::log::{AppliedRecord, BARRIER_KEY, BarrierRecord};

use crate::checkpoint::StateRecord;
use crate::identity::{Identity, ReplySecret};
use crate::planted::{self, Defect};
use crate::restore::{Proved, RestoreError, Restored, StateReader};
use crate::settings::Settings;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Fence the former owner, which also ends his open Kafka transaction.
    Fence,
    /// Write this barrier to the state and to the journal, in one Kafka transaction.
    WriteBarrier(Vec<u8>),
    /// Read the state, committed records only, from its beginning until something else is asked.
    ReadState,
    /// Write these records to the state once more, in one Kafka transaction; their order does not matter.
    WriteAgain(Vec<StateRecord>),
    /// Say which offsets the inbox holds, and read the record at this one, if any.
    LookIntoInbox(Option<i64>),
}

/// What the inbox holds.
#[derive(Debug, Clone)]
pub struct InboxSeen {
    /// Its first offset.
    pub low: i64,
    /// The offset after its last.
    pub high: i64,
    /// The record that was asked for, where it is there.
    pub record: Option<AppliedRecord>,
}

/// Why a shard cannot be taken over. It halts: none of these heals by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeoverError {
    /// The state is not what the checkpoint says.
    #[error(transparent)]
    State(#[from] RestoreError),
    /// The inbox is not the one the checkpoint was made of.
    #[error("{reason}")]
    Inbox {
        /// What is wrong.
        reason: String,
        /// The last applied record.
        offset: i64,
    },
    /// Other tokens would be other outputs.
    #[error("the settings name another reply-token secret than this server has")]
    Secret,
}

/// One takeover of one shard.
#[derive(Debug)]
pub struct Takeover {
    identity: Identity,
    barrier: BarrierRecord,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Fencing,
    Barrier,
    Reading(Box<StateReader>),
    WritingAgain(Box<Proved>),
    Comparing(Box<Restored>),
}

impl Takeover {
    /// Begins one. `token` is one that nobody else has; `owner` is for people who read the topic.
    pub fn new(identity: Identity, token: Uuid, owner: String) -> Self {
        let stage = if planted::is(Defect::NoFencing) { Stage::Barrier } else { Stage::Fencing };
        Self { identity, barrier: BarrierRecord { token, owner }, stage }
    }

    /// What is to be done now.
    pub fn ask(&self) -> Ask {
        match &self.stage {
            Stage::Fencing => Ask::Fence,
            Stage::Barrier => match serde_json::to_vec(&self.barrier) {
                Ok(value) => Ask::WriteBarrier(value),
                Err(error) => unreachable!("a barrier is JSON: {error}"),
            },
            Stage::Reading(_) => Ask::ReadState,
            Stage::WritingAgain(proved) => Ask::WriteAgain(proved.again().to_vec()),
            Stage::Comparing(restored) => {
                Ask::LookIntoInbox(restored.applied.as_ref().map(|applied| applied.offset))
            }
        }
    }

    /// The former owner is fenced.
    pub fn on_fenced(&mut self) {
        self.stage = Stage::Barrier;
    }

    /// The barrier is committed.
    pub fn on_barrier(&mut self) {
        self.stage = Stage::Reading(Box::default());
    }

    /// The next committed record of the state. `as_of` is the value of its header.
    pub fn on_state(
        &mut self,
        key: &[u8],
        as_of: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), TakeoverError> {
        let Stage::Reading(reader) = &mut self.stage else {
            unreachable!("SAG-INV-9 the state is read in its turn")
        };
        if key != BARRIER_KEY {
            reader.read(key, as_of, value);
            return Ok(());
        }
        let found: Option<BarrierRecord> = value.and_then(|value| serde_json::from_slice(value).ok());
        let any = planted::is(Defect::StaleEnd);
        if any || found.is_some_and(|found| found.token == self.barrier.token) {
            let proved = std::mem::take(&mut **reader).prove(&self.identity)?;
            if proved.again().is_empty() {
                return self.restore(proved);
            }
            self.stage = Stage::WritingAgain(Box::new(proved));
        }
        Ok(())
    }

    /// What was to be written again is committed.
    pub fn on_written_again(&mut self) -> Result<(), TakeoverError> {
        let Stage::WritingAgain(proved) = &mut self.stage else {
            unreachable!("SAG-INV-9 the state is written again in its turn")
        };
        let proved = std::mem::take(&mut **proved);
        self.restore(proved)
    }

    fn restore(&mut self, proved: Proved) -> Result<(), TakeoverError> {
        let restored = proved.restore(self.identity.clone())?;
        check_secret(restored.shard.settings(), self.identity.secret.as_ref())?;
        self.stage = Stage::Comparing(Box::new(restored));
        Ok(())
    }

    /// What the inbox holds. Returns the shard, and the end of its inbox.
    pub fn on_inbox(self, seen: &InboxSeen) -> Result<(Restored, i64), TakeoverError> {
        let Stage::Comparing(restored) = self.stage else {
            unreachable!("SAG-INV-9 the inbox is compared in its turn")
        };
        let name = &self.identity.replyto;
        let InboxSeen { low, high, record } = seen;
        let offset = restored.applied.as_ref().map_or(0, |applied| applied.offset);
        let reason = match &restored.applied {
            None if *low > 0 => {
                Some(format!("there is no checkpoint, and {name} begins at {low} instead of 0"))
            }
            None => None,
            Some(_) if offset < *low || offset >= *high => Some(format!(
                "the last applied record is at {offset}, and {name} holds {low} to {}",
                high - 1
            )),
            Some(applied) if record.as_ref() == Some(applied) => None,
            Some(_) => Some(format!("{name} holds another record at {offset} than the one that was applied")),
        };
        match reason.filter(|_| !planted::is(Defect::InboxNotCompared)) {
            Some(reason) => Err(TakeoverError::Inbox { reason, offset }),
            None => Ok((*restored, *high)),
        }
    }
}

/// The secret must be the one that the settings name.
pub fn check_secret(settings: &Settings, ours: Option<&ReplySecret>) -> Result<(), TakeoverError> {
    if settings.reply_token.is_some() && settings.reply_token != ours.map(ReplySecret::fingerprint) {
        return Err(TakeoverError::Secret);
    }
    Ok(())
}

//! The topics of a partition in memory, with everything that can go wrong on Kafka: for tests of business code, and of this
//! library. Nothing of it lasts longer than the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Destination, Found, Log, LogFault, Place, Record, Territory};

type Written = (Vec<u8>, Option<Vec<u8>>);

/// The topics. Clones are the same ones.
#[derive(Clone)]
pub struct Topics {
    territory: Territory,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    memory: Vec<Written>,
    table: Vec<Written>,
    others: BTreeMap<String, Vec<Written>>,
    epoch: u64,
    cut: Option<usize>,
}

impl Default for Topics {
    fn default() -> Self {
        Self::of(Territory { partition: 0, partitions: 1, reserved: "sagamore.".into() })
    }
}

impl Topics {
    /// One partition of several.
    pub fn of(territory: Territory) -> Self {
        Self { territory, state: Arc::default() }
    }

    /// The next Kafka transaction fails, and its first `records` records are committed all the same.
    pub fn cut_next(&self, records: usize) {
        self.state().cut = Some(records);
    }

    /// Nothing is cut any more.
    pub fn uncut(&self) {
        self.state().cut = None;
    }

    /// A record of somebody else's.
    pub fn write_to_memory(&self, key: &[u8], value: &[u8]) {
        self.state().memory.push((key.to_vec(), Some(value.to_vec())));
    }

    /// The table, as anybody reads it.
    pub fn table(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = BTreeMap::new();
        for (key, value) in &self.state().table {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        rows
    }

    /// Keys and values of what stands in a topic that was emitted to; `replies` for the replies.
    pub fn records(&self, topic: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.state();
        let records = state.others.get(topic).into_iter().flatten();
        records.map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place for Topics {
    fn territory(&self) -> &Territory {
        &self.territory
    }

    fn take_over(&self, found: &mut Found) -> Result<Box<dyn Log>, LogFault> {
        let mut state = self.state();
        state.epoch += 1;
        for (key, value) in &state.memory {
            found.on_memory(key, value.as_deref())?;
        }
        for (key, value) in &state.table {
            found.on_table(key, value.as_deref());
        }
        Ok(Box::new(Writer { topics: self.clone(), epoch: state.epoch }))
    }
}

struct Writer {
    topics: Topics,
    epoch: u64,
}

impl Log for Writer {
    fn write(&mut self, batch: &Batch) -> Result<(), LogFault> {
        let mut records = Vec::new();
        batch.write(
            &mut records,
            |records, Record { to, key, value, .. }| {
                records.push((to.clone(), (key.to_vec(), value.map(<[u8]>::to_vec))));
                Ok(())
            },
            |_| Ok(()),
        )?;
        let mut state = self.topics.state();
        if state.epoch != self.epoch {
            return Err(LogFault::Fenced);
        }
        let cut = state.cut.take();
        for (to, record) in records.into_iter().take(cut.unwrap_or(usize::MAX)) {
            match to {
                Destination::Memory => state.memory.push(record),
                Destination::Table => state.table.push(record),
                Destination::Replies => state.others.entry("replies".into()).or_default().push(record),
                Destination::Topic(name) => state.others.entry(name.into()).or_default().push(record),
            }
        }
        match cut {
            Some(_) => Err(LogFault::Indefinite("cut".into())),
            None => Ok(()),
        }
    }
}

//! The journal as the fold writes it: entries in the order of the log, each sealed to the one before.
//!
//! A repeated prefix changes nothing: the chain is a function of the entries, and those of the inbox alone.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use sagamore_schemas::log::{ChainHead, JournalEntry, Sealed, seal};

/// Entries not yet in the journal topic, and the head of the chain.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    head: ChainHead,
    /// By key of the record they will stand in; the shard's own under an empty key.
    unstored: BTreeMap<String, Vec<Sealed>>,
    bytes: usize,
}

impl Journal {
    /// Continues a chain.
    pub fn at(head: ChainHead) -> Self {
        Self { head, ..Self::default() }
    }

    /// The head of the chain.
    pub fn head(&self) -> &ChainHead {
        &self.head
    }

    /// Bytes that wait for the next checkpoint.
    pub fn unstored_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry; its sequence is set here.
    pub(crate) fn append(&mut self, mut entry: JournalEntry) {
        entry.sequence = if entry.offset == self.head.offset { self.head.sequence + 1 } else { 0 };
        let key = entry.transaction.as_ref().map(ToString::to_string).unwrap_or_default();
        let Ok(text) = serde_json::to_string(&entry).and_then(RawValue::from_string) else {
            unreachable!("a journal entry holds nothing that JSON cannot")
        };
        let chain = seal(self.head.hash, text.get());
        self.head = ChainHead { offset: entry.offset, sequence: entry.sequence, hash: chain };
        self.bytes += text.get().len();
        self.unstored.entry(key).or_default().push(Sealed { entry: text, chain });
    }

    /// Takes what is not yet stored: key and value of each record.
    pub(crate) fn take_unstored(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        /// Entries of one transaction in one record: bounded, so that the record is.
        const RECORD_BYTES_MAX: usize = 256 * 1024;
        self.bytes = 0;
        let mut records = Vec::new();
        for (key, entries) in std::mem::take(&mut self.unstored) {
            let mut open = String::new();
            for sealed in entries {
                if open.len() > RECORD_BYTES_MAX {
                    open.push(']');
                    records.push((key.clone().into_bytes(), std::mem::take(&mut open).into_bytes()));
                }
                open.push(if open.is_empty() { '[' } else { ',' });
                let Ok(text) = serde_json::to_string(&sealed) else {
                    unreachable!("a sealed entry holds nothing that JSON cannot")
                };
                open.push_str(&text);
            }
            open.push(']');
            records.push((key.into_bytes(), open.into_bytes()));
        }
        records
    }
}

//! The journal as the fold writes it: entries in the order of the log, each sealed to the one before.
//!
//! A repeated prefix changes nothing: the chain is a function of the entries, and those of the inbox alone.

use std::collections::BTreeMap;

use sagamore_schemas::log::{ChainHead, Digest256, JournalEntry, seal};

/// Entries not yet in the journal topic, and the head of the chain.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    head: ChainHead,
    /// By key of the record they will stand in; the shard's own under an empty key.
    unstored: BTreeMap<String, Vec<Link>>,
}

/// An entry fits without growing.
const TYPICAL_ENTRY_BYTES: usize = 512;

/// One entry with its place in the chain: what a `Sealed` of the journal's records is made of.
#[derive(Debug, Clone)]
struct Link {
    text: String,
    chain: Digest256,
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

    /// Adds an entry; its sequence is set here.
    pub(crate) fn append(&mut self, mut entry: JournalEntry) {
        entry.sequence = if entry.offset == self.head.offset { self.head.sequence + 1 } else { 0 };
        let key = entry.transaction.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut text = Vec::with_capacity(TYPICAL_ENTRY_BYTES);
        let Some(text) =
            serde_json::to_writer(&mut text, &entry).ok().and_then(|()| String::from_utf8(text).ok())
        else {
            unreachable!("a journal entry holds nothing that JSON cannot")
        };
        let chain = seal(self.head.hash, &text);
        self.head = ChainHead { offset: entry.offset, sequence: entry.sequence, hash: chain };
        self.unstored.entry(key).or_default().push(Link { text, chain });
    }

    /// Takes what is not yet stored: key and value of each record.
    pub(crate) fn take_unstored(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        /// Entries of one transaction in one record: bounded, so that the record is.
        const RECORD_BYTES_MAX: usize = 256 * 1024;
        let mut records = Vec::new();
        for (key, entries) in std::mem::take(&mut self.unstored) {
            let mut open = String::new();
            for Link { text, chain } in entries {
                if open.len() > RECORD_BYTES_MAX {
                    open.push(']');
                    records.push((key.clone().into_bytes(), std::mem::take(&mut open).into_bytes()));
                }
                // A `Sealed`, written around the text that was hashed.
                open.push_str(if open.is_empty() { "[{\"entry\":" } else { ",{\"entry\":" });
                open.push_str(&text);
                open.push_str(",\"chain\":\"");
                open.push_str(&chain.to_string());
                open.push_str("\"}");
            }
            open.push(']');
            records.push((key.into_bytes(), open.into_bytes()));
        }
        records
    }
}

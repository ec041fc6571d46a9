//! The journal as the fold writes it: entries in the order of the log, each sealed to the one before.
//!
//! A repeated prefix changes nothing: the chain is a function of the entries, and those of the inbox alone.

use std::ops::Range;

use sagamore_schemas::ids::TransactionId;
use sagamore_schemas::log::{ChainHead, JournalEntry, StepChange, seal};

/// Entries not yet in the journal topic, and the head of the chain.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    head: ChainHead,
    /// One `Sealed` after the other, in the order of the log, in pieces that never move.
    pieces: Vec<String>,
    /// Where they stand, with the transaction that is the key of their record; the shard's own under an empty key.
    unstored: Vec<(Option<TransactionId>, Place)>,
    /// Empty pieces, to be used again.
    spare: Vec<String>,
    /// The list of the entry before, to be used again.
    spare_changes: Vec<StepChange>,
}

/// Bytes of a piece: hundreds of entries.
const PIECE_BYTES: usize = 64 * 1024;
/// What a piece has left when it counts as full: nearly every entry still fits without growing.
const PIECE_REST_BYTES: usize = 2 * 1024;

/// Pieces that are kept for the time after a checkpoint.
const SPARE_PIECES: usize = 32;

/// Where a `Sealed` stands.
#[derive(Debug, Clone)]
struct Place {
    piece: usize,
    bytes: Range<usize>,
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

    /// An empty list of changes for the next entry.
    pub(crate) fn changes(&mut self) -> Vec<StepChange> {
        std::mem::take(&mut self.spare_changes)
    }

    /// Adds an entry; its sequence is set here.
    pub(crate) fn append(&mut self, mut entry: JournalEntry) {
        entry.sequence = if entry.offset == self.head.offset { self.head.sequence + 1 } else { 0 };
        if self.pieces.last().is_none_or(|piece| piece.len() + PIECE_REST_BYTES > PIECE_BYTES) {
            self.pieces.push(self.spare.pop().unwrap_or_else(|| String::with_capacity(PIECE_BYTES)));
        }
        let last = self.pieces.len() - 1;
        let text = &mut self.pieces[last];
        let begin = text.len();
        text.push_str("{\"entry\":");
        let entry_begin = text.len();
        entry.push_json(text);
        let chain = seal(self.head.hash, &text[entry_begin..]);
        text.push_str(",\"chain\":\"");
        text.push_str(chain.hexadecimal(&mut [0; 64]));
        text.push_str("\"}");
        self.head = ChainHead { offset: entry.offset, sequence: entry.sequence, hash: chain };
        let place = Place { piece: last, bytes: begin..text.len() };
        self.unstored.push((entry.transaction, place));
        entry.changes.clear();
        self.spare_changes = entry.changes;
    }

    /// Takes what is not yet stored: key and value of each record.
    pub(crate) fn take_unstored(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        /// Entries of one transaction in one record: bounded, so that the record is.
        const RECORD_BYTES_MAX: usize = 256 * 1024;
        let mut unstored = std::mem::take(&mut self.unstored);
        // Stable: those of one transaction stay in the order of the log.
        unstored.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut records = Vec::new();
        for places in unstored.chunk_by(|(one, _), (other, _)| one == other) {
            let key = places[0].0.as_ref().map(|id| id.as_str().into()).unwrap_or_default();
            let bytes = places.iter().map(|(_, place)| place.bytes.len() + 1).sum::<usize>() + 1;
            let mut open = Vec::with_capacity(bytes.min(RECORD_BYTES_MAX));
            for (_, Place { piece, bytes }) in places {
                if open.len() > RECORD_BYTES_MAX {
                    open.push(b']');
                    records.push((Vec::clone(&key), std::mem::take(&mut open)));
                }
                open.push(if open.is_empty() { b'[' } else { b',' });
                open.extend_from_slice(self.pieces[*piece][bytes.clone()].as_bytes());
            }
            open.push(b']');
            records.push((key, open));
        }
        self.spare.append(&mut self.pieces);
        self.spare.truncate(SPARE_PIECES);
        self.spare.iter_mut().for_each(String::clear);
        records
    }
}

//! The journal as an auditor reads it: the chain is computed again, link by link. A prefix that was committed twice says
//! the same twice.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::evidence::text;

#[derive(Deserialize)]
struct Sealed {
    entry: Box<RawValue>,
    chain: String,
}

/// One entry, as much of it as is judged.
#[derive(Debug, Clone)]
struct Entry {
    text: String,
    chain: String,
}

/// Everything that was journaled.
#[derive(Debug, Default)]
pub struct Journal {
    /// By partition, then by inbox offset and sequence.
    entries: BTreeMap<i32, BTreeMap<(i64, u64), Entry>>,
    /// What is wrong so far.
    pub wrong: Vec<String>,
    /// Entries that stand there more than once.
    pub repeated: u64,
}

/// What the journal says of one life.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Whose.
    pub subject: String,
    /// `commit` or `rollback`, each time it says so.
    pub decisions: Vec<String>,
    /// What was told, with the revision.
    pub outcomes: Vec<(String, u64)>,
}

impl Journal {
    /// Takes one record.
    pub fn take(&mut self, partition: i32, value: &[u8]) {
        let Ok(sealed) = serde_json::from_slice::<Vec<Sealed>>(value) else {
            // The barrier of a takeover.
            return;
        };
        let entries = self.entries.entry(partition).or_default();
        for Sealed { entry, chain } in sealed {
            let document: Value = serde_json::from_str(entry.get()).unwrap_or_default();
            let (Some(offset), Some(sequence)) = (document["offset"].as_i64(), document["sequence"].as_u64())
            else {
                self.wrong.push(format!("an entry without a place: {entry}"));
                continue;
            };
            let entry = Entry { text: entry.get().to_owned(), chain };
            match entries.get(&(offset, sequence)) {
                Some(first) if first.text == entry.text && first.chain == entry.chain => self.repeated += 1,
                Some(first) => {
                    let wrong =
                        format!("{partition}-{offset}/{sequence} stands twice: {first:?} and {entry:?}");
                    self.wrong.push(wrong);
                }
                None => drop(entries.insert((offset, sequence), entry)),
            }
        }
    }

    /// How many entries.
    pub fn count(&self) -> usize {
        self.entries.values().map(BTreeMap::len).sum()
    }

    /// Follows the chain of every partition; says what does not fit, and the last link of each.
    pub fn verify(&self) -> (Vec<String>, BTreeMap<i32, String>) {
        let (mut wrong, mut heads) = (Vec::new(), BTreeMap::new());
        for (partition, entries) in &self.entries {
            let mut link = [0_u8; 32];
            let mut head = hexadecimal(&link);
            for ((offset, sequence), entry) in entries {
                link = Sha256::new().chain_update(link).chain_update(&entry.text).finalize().into();
                head = hexadecimal(&link);
                if head != entry.chain {
                    wrong
                        .push(format!("the chain breaks at {partition}-{offset}/{sequence}: {}", entry.text));
                    break;
                }
            }
            heads.insert(*partition, head);
        }
        (wrong, heads)
    }

    /// By birth.
    pub fn lives(&self) -> BTreeMap<String, Life> {
        let mut lives: BTreeMap<String, Life> = BTreeMap::new();
        for entry in self.entries.values().flat_map(BTreeMap::values) {
            let document: Value = serde_json::from_str(&entry.text).unwrap_or_default();
            let Some(birth) = document["birth"].as_str() else { continue };
            let life = lives.entry(birth.to_owned()).or_default();
            text(&document, "transaction").clone_into(&mut life.subject);
            life.decisions.extend(document["decision"].as_str().map(str::to_owned));
            if let Some(outcome) = document["outcome"].as_str() {
                life.outcomes.push((outcome.to_owned(), document["revision"].as_u64().unwrap_or_default()));
            }
        }
        lives
    }
}

/// As the journal writes bytes.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

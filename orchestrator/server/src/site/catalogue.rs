//! The definitions topic: of the records of one name and version the first one holds.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use sagamore_schemas::definition::{Definition, DefinitionId};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::DefinitionRef;
use serde::Serialize;

use super::apply::id_of;
use super::{Site, SiteError};

/// Everything that has been applied.
#[derive(Debug, Default)]
pub struct Catalogue {
    by_id: BTreeMap<(Name, u32), Entry>,
}

/// No such definition has been applied.
#[derive(Debug, thiserror::Error)]
#[error("no definition {wanted} has been applied; {there_is}")]
pub struct NotApplied {
    wanted: DefinitionRef,
    there_is: String,
}

/// One applied definition.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its place among all definitions.
    pub offset: i64,
    /// What it says.
    pub definition: Definition,
}

impl Catalogue {
    /// Reads the topic to its present end.
    pub fn read(site: &Site) -> Result<Self, SiteError> {
        let mut catalogue = Self::default();
        site.read_all(Topic::Definitions, |record| {
            catalogue.see(record.offset(), record.payload().unwrap_or_default());
        })?;
        Ok(catalogue)
    }

    /// What is no definition is passed over, as the shards do.
    fn see(&mut self, offset: i64, value: &[u8]) {
        if let Ok(definition) = serde_json::from_slice::<Definition>(value) {
            let id = (definition.name.clone(), definition.version);
            self.by_id.entry(id).or_insert(Entry { offset, definition });
        }
    }

    /// All of them, by name and version.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values()
    }

    /// What has been applied under the name and version of this one.
    pub fn same_id(&self, definition: &Definition) -> Option<&Entry> {
        self.by_id.get(&(definition.name.clone(), definition.version))
    }

    /// That very version.
    pub fn definition(&self, id: &DefinitionId) -> Option<&Definition> {
        self.by_id.get(&(id.name.clone(), id.version)).map(|entry| &entry.definition)
    }

    /// The one of that version; without one, the highest.
    pub fn find(&self, wanted: &DefinitionRef) -> Result<&Entry, NotApplied> {
        let (least, most) = wanted.version.map_or((0, u32::MAX), |version| (version, version));
        let found = self.by_id.range((wanted.name.clone(), least)..=(wanted.name.clone(), most)).next_back();
        found.map(|(_, entry)| entry).ok_or_else(|| self.not_found(wanted))
    }

    fn not_found(&self, wanted: &DefinitionRef) -> NotApplied {
        let versions = self.by_id.keys().filter(|(name, _)| *name == wanted.name);
        let versions: Vec<_> = versions.map(|(_, version)| version.to_string()).collect();
        let there_is = match versions.as_slice() {
            [] => "`sagamore define list` shows what there is".to_owned(),
            versions => format!("there is version {}", versions.join(", ")),
        };
        NotApplied { wanted: wanted.clone(), there_is }
    }
}

impl Entry {
    /// `name@version`.
    pub fn id(&self) -> String {
        id_of(&self.definition)
    }

    /// Who takes part, in the order of the steps.
    pub fn participants(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for step in &self.definition.steps {
            let branches = step.branches.iter().flatten().map(|branch| &branch.participant);
            for name in step.participant.iter().chain(branches) {
                if !names.contains(&name.as_str()) {
                    names.push(name.as_str());
                }
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, version: u32, participant: &str) -> String {
        format!(
            r#"{{"name":"{name}","version":{version},"steps":[{{"name":"s","participant":"{participant}"}}]}}"#
        )
    }

    #[test]
    fn the_first_record_of_an_id_wins() {
        let mut catalogue = Catalogue::default();
        let records =
            [text("a", 1, "p"), "garbage".into(), text("a", 1, "q"), text("a", 10, "r"), text("b", 2, "s")];
        for (offset, value) in (0..).zip(&records) {
            catalogue.see(offset, value.as_bytes());
        }
        let check = |wanted: &str, then: &str| {
            let told = match catalogue.find(&wanted.parse().unwrap()) {
                Ok(entry) => {
                    format!("{} at {} of {}", entry.id(), entry.offset, entry.participants().join(" "))
                }
                Err(failure) => failure.to_string(),
            };
            assert_eq!(told, then);
        };
        check("a@1", "a@1 at 0 of p");
        check("a", "a@10 at 3 of r");
        check("b", "b@2 at 4 of s");
        check("a@2", "no definition a@2 has been applied; there is version 1, 10");
        check("c", "no definition c has been applied; `sagamore define list` shows what there is");
    }
}

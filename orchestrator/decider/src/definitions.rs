//! The definitions a shard knows, in the order of the definitions topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use sagamore_schemas::definition::Definition;
use sagamore_schemas::wire::DefinitionRef;

use crate::definition::check::{Problem, children, compile};
use crate::definition::plan::Plan;
use crate::transaction::DefinitionId;

/// The definitions of a shard. None is ever forgotten: an audit may need it.
#[derive(Debug, Clone)]
pub struct Definitions {
    by_id: BTreeMap<DefinitionId, Adoption>,
    /// Offset in `definitions` of the last one; -1 before the first.
    last_offset: i64,
}

#[derive(Debug, Clone)]
struct Adoption {
    plan: Arc<Plan>,
    json: Arc<str>,
    stored: bool,
}

impl Default for Definitions {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), last_offset: -1 }
    }
}

/// What became of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Adopted {
    New(DefinitionId),
    Known,
    No(String),
}

impl Definitions {
    /// Offset in `definitions` of the last one adopted or passed over; -1 before the first.
    pub fn last_offset(&self) -> i64 {
        self.last_offset
    }

    /// Every one with its canonical JSON.
    pub fn iter(&self) -> impl Iterator<Item = (&DefinitionId, &Plan, &str)> {
        self.by_id.iter().map(|(id, adoption)| (id, &*adoption.plan, &*adoption.json))
    }

    /// The plan of a transaction's definition, which is there as long as the transaction.
    pub fn plan(&self, id: &DefinitionId) -> Arc<Plan> {
        match self.by_id.get(id) {
            Some(adoption) => Arc::clone(&adoption.plan),
            None => unreachable!("SAG-INV-5 a definition in use is never forgotten: {id}"),
        }
    }

    /// The plan of a definition, if it has been applied here.
    pub(crate) fn known(&self, id: &DefinitionId) -> Option<&Plan> {
        self.by_id.get(id).map(|adoption| &*adoption.plan)
    }

    /// The version a start is pinned to: the one asked for, or the highest.
    pub(crate) fn resolve(&self, asked: &DefinitionRef) -> Option<DefinitionId> {
        let id = |version| DefinitionId { name: asked.name.clone(), version };
        match asked.version {
            Some(version) => Some(id(version)).filter(|id| self.by_id.contains_key(id)),
            None => self.by_id.range(id(0)..=id(u32::MAX)).next_back().map(|(id, _)| id.clone()),
        }
    }

    /// Takes a definition that stands at `offset` of the definitions topic.
    pub(crate) fn adopt(&mut self, offset: i64, json: &str, most: u64) -> Adopted {
        if offset <= self.last_offset {
            return Adopted::Known;
        }
        self.last_offset = offset;
        self.take(json, most, |plan, known| children(plan, |id| known.known(id)))
    }

    fn take(&mut self, json: &str, most: u64, judge: impl FnOnce(&Plan, &Self) -> Vec<Problem>) -> Adopted {
        let definition = match Definition::from_json(json) {
            Ok(definition) => definition,
            // What the library says of it may be another text in another version, and this one is kept in the log.
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                return Adopted::No(format!("not a definition, at line {line} column {column}"));
            }
        };
        let id = DefinitionId { name: definition.name.clone(), version: definition.version };
        let json: Arc<str> = definition.to_canonical_json().into();
        if let Some(known) = self.by_id.get(&id) {
            return if known.json == json {
                Adopted::Known
            } else {
                Adopted::No(format!(
                    "{id} has been applied with other content: it is immutable, raise the version"
                ))
            };
        }
        if self.by_id.len() as u64 >= most {
            return Adopted::No(format!(
                "{id}: there are {most} definitions already (setting definitions_max)"
            ));
        }
        let compiled = compile(&definition).and_then(|plan| {
            let problems = judge(&plan, self);
            if problems.is_empty() { Ok(plan) } else { Err(problems) }
        });
        match compiled {
            Ok(plan) => {
                self.by_id.insert(id.clone(), Adoption { plan: Arc::new(plan), json, stored: false });
                Adopted::New(id)
            }
            Err(problems) => {
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Adopted::No(format!("{id}: {}", all.join("; ")))
            }
        }
    }

    /// Takes what no checkpoint holds yet.
    pub(crate) fn take_unstored(&mut self) -> Vec<(DefinitionId, Arc<str>)> {
        let unstored = self.by_id.iter_mut().filter(|(_, adoption)| !adoption.stored);
        unstored
            .map(|(id, adoption)| {
                adoption.stored = true;
                (id.clone(), Arc::clone(&adoption.json))
            })
            .collect()
    }

    /// Loads one from the state.
    pub(crate) fn load(&mut self, json: &str) -> Result<(), String> {
        // What was stored had been adopted; what it names may be loaded after it.
        match self.take(json, u64::MAX, |_, _| Vec::new()) {
            Adopted::New(id) => {
                if let Some(adoption) = self.by_id.get_mut(&id) {
                    adoption.stored = true;
                }
                Ok(())
            }
            Adopted::Known => Ok(()),
            Adopted::No(cause) => Err(cause),
        }
    }

    /// Continues at an offset of the definitions topic.
    pub(crate) fn continue_at(&mut self, last_offset: i64) {
        self.last_offset = last_offset;
    }
}

//! What is checked, and how: valid by type, so that nothing is found wrong once a participant runs.

use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sagamore_kafka::client::ClientSettings;
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::Prefix;
use sagamore_schemas::wire::Payload;

use crate::catalogue;

/// What an input has in place of a number that differs from transaction to transaction.
const NUMBER: &str = "{n}";

/// One run of the kit.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the cluster is.
    pub clients: ClientSettings,
    /// What the names of the topics begin with: nobody else's, because the kit plays the coordinator there.
    pub prefix: Prefix,
    /// How many copies the topics get.
    pub replication: NonZeroU16,
    /// Whose commands are sent.
    pub participant: Name,
    /// How it is started, for `sh -c`; none for one that runs already, which then cannot be killed.
    pub command: Option<String>,
    /// Prints the state that its effects change, for `sh -c`.
    pub observe: Option<String>,
    /// An input that succeeds.
    pub input: Template,
    /// An input that the business refuses.
    pub refused: Option<Template>,
    /// The key of a transaction's commands, with `{n}` as in the input; none: its id, as in a definition without `key`.
    pub key: Option<String>,
    /// The operations it knows.
    pub protocols: Protocols,
    /// How many checks run side by side.
    pub workers: NonZeroUsize,
    /// How many keys are used where order and crashes are looked at.
    pub keys: NonZeroUsize,
    /// How long an answer may take.
    pub answer_timeout: Duration,
    /// How long a participant may take from its start, or from its group's loss of a killed member, to an answer.
    pub start_timeout: Duration,
    /// How long a vote is left alone before the participant has to ask.
    pub asks_within: Duration,
    /// How often it is killed.
    pub kills: u32,
    /// What the moments of the kills follow from.
    pub seed: u64,
    /// Takes what it prints.
    pub log: PathBuf,
    /// Whether the topics stay.
    pub keeps_topics: bool,
    /// Which rows are looked at.
    pub selection: Selection,
    /// Set from outside: ends the run.
    pub interrupt: Interrupt,
}

/// A wish to end, from another thread.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends the run at its next look.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// JSON in which `{n}` stands for a number of its own in each transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

/// Why a text is no [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not JSON once {NUMBER} is a number: {0}")]
pub struct TemplateError(String);

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Payload::from_json(text.trim().replace(NUMBER, "1"))
            .map_err(|error| TemplateError(error.to_string()))?;
        Ok(Self(text.trim().to_owned()))
    }
}

impl Template {
    /// With this number.
    pub(crate) fn fill(&self, number: u64) -> Payload {
        match Payload::from_json(self.0.replace(NUMBER, &number.to_string())) {
            Ok(payload) => payload,
            Err(error) => unreachable!("it was JSON with the number 1: {error}"),
        }
    }
}

/// Which operations a participant knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// `execute` and `compensate`.
    pub saga: bool,
    /// `prepare`, `commit` and `abort`.
    pub two_phase: bool,
    /// `precommit` as well.
    pub three_phase: bool,
}

/// Not a protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of saga, two-phase, three-phase and all")]
pub struct ProtocolsError(String);

impl FromStr for Protocols {
    type Err = ProtocolsError;

    fn from_str(text: &str) -> Result<Self, ProtocolsError> {
        let mut protocols = Self { saga: false, two_phase: false, three_phase: false };
        for word in text.split(',') {
            match word {
                "saga" => protocols.saga = true,
                "two-phase" => protocols.two_phase = true,
                "three-phase" => (protocols.two_phase, protocols.three_phase) = (true, true),
                "all" => protocols = Self { saga: true, two_phase: true, three_phase: true },
                _ => return Err(ProtocolsError(word.to_owned())),
            }
        }
        Ok(protocols)
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saga, two_phase, three_phase } = *self;
        let words = [("saga", saga), ("two-phase", two_phase && !three_phase), ("three-phase", three_phase)];
        let words: Vec<&str> =
            words.into_iter().filter(|(_, is_known)| *is_known).map(|(word, _)| word).collect();
        f.write_str(&words.join(","))
    }
}

/// Which rows are looked at: none named is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    only: BTreeSet<String>,
    skip: BTreeSet<String>,
}

/// Not a row, nor a group of rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no check or group is called {name:?}; the groups are {}", catalogue::groups().join(", "))]
pub struct SelectionError {
    name: String,
}

impl Selection {
    /// By the names of rows (`duplicates/burst`) and groups (`crash`).
    pub fn new(
        only: impl IntoIterator<Item = String>,
        skip: impl IntoIterator<Item = String>,
    ) -> Result<Self, SelectionError> {
        let selection = Self { only: only.into_iter().collect(), skip: skip.into_iter().collect() };
        let unknown = selection.only.iter().chain(&selection.skip).find(|name| !catalogue::is_known(name));
        match unknown {
            Some(name) => Err(SelectionError { name: name.clone() }),
            None => Ok(selection),
        }
    }

    pub(crate) fn takes(&self, row: &catalogue::Row) -> bool {
        let names = |set: &BTreeSet<String>| set.contains(row.id) || set.contains(row.group());
        (self.only.is_empty() || names(&self.only)) && !names(&self.skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_json_with_a_number_of_its_own() {
        let template: Template = r#" {"seat": "A{n}", "row": {n}} "#.parse().unwrap();
        assert_eq!(template.fill(17).as_ref().json(), Some(r#"{"seat": "A17", "row": 17}"#));
        for wrong in ["", "{n", "seat {n}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn protocols_are_words_with_commas_between() {
        let check = |text: &str, said: &str| {
            assert_eq!(text.parse::<Protocols>().map(|protocols| protocols.to_string()), Ok(said.to_owned()));
        };
        check("saga", "saga");
        check("saga,two-phase", "saga,two-phase");
        check("three-phase", "three-phase");
        check("all", "saga,three-phase");
        assert!("".parse::<Protocols>().is_err());
        assert!("saga,tcc".parse::<Protocols>().is_err());
    }

    #[test]
    fn rows_are_selected_by_name_and_by_group() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let row = |id: &str| catalogue::by_id(id);
        let some = Selection::new(names(&["crash", "saga/undo"]), names(&["crash/vote"])).unwrap();
        let taken = ["crash/once", "crash/vote", "saga/undo", "saga/late"].map(|id| some.takes(row(id)));
        assert_eq!(taken, [true, false, true, false]);
        assert!(Selection::default().takes(row("saga/late")));
        assert!(Selection::new(names(&["crush"]), names(&[])).is_err());
    }
}

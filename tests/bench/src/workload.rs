//! What is run: definitions, and the fate of each id. The same plan is what participants do and what the gate demands.
//!
//! Of 30 ids in a row 27 commit, 2 are refused early and 1 late; who refuses follows from the id alone.

use sagamore_schemas::ids::Name;
use sagamore_schemas::wire::OutcomeKind;
use serde::Serialize;

/// After so many ids the plan repeats.
const CYCLE: u64 = 30;
const EARLY: [u64; 2] = [9, 19];
const LATE: u64 = 29;
/// Bytes of the input of a transaction.
const ORDER_BYTES: usize = 200;
const PARTICIPANTS: [&str; 3] = ["reserve", "charge", "book"];

/// A kind of transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// A saga: reserve, charge, book, one after the other.
    Order,
    /// One group of three branches.
    TwoPhase,
    /// A saga step, a reserved one, a condition, a two-phase group of two, a retriable one.
    Mixed,
    /// Twenty steps, four abreast.
    Graph,
}

/// One branch of a step: where an effect happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Step of the definition.
    pub step: &'static str,
    /// Branch of the step.
    pub branch: &'static str,
    /// Whether it prepares, and then commits or aborts.
    pub votes: bool,
}

/// What becomes of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Everything is done.
    Commits,
    /// This place refuses it.
    Refused(usize),
}

const fn place(step: &'static str, branch: &'static str, votes: bool) -> Place {
    Place { step, branch, votes }
}

const ORDER: [Place; 3] =
    [place("reserve", "reserve", false), place("charge", "charge", false), place("book", "book", false)];
const TWO_PHASE: [Place; 3] =
    [place("pay", "reserve", true), place("pay", "charge", true), place("pay", "book", true)];
const MIXED: [Place; 6] = [
    place("reserve", "reserve", false),
    place("hold", "charge", true),
    place("insure", "book", false),
    place("pay", "reserve", true),
    place("pay", "book", true),
    place("ship", "charge", false),
];
const GRAPH: [Place; 20] = {
    const STEPS: [&str; 20] = [
        "s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09", "s10", "s11", "s12", "s13", "s14",
        "s15", "s16", "s17", "s18", "s19", "s20",
    ];
    let mut places = [place("", "", false); 20];
    let mut index = 0;
    while index < STEPS.len() {
        places[index] = place(STEPS[index], PARTICIPANTS[index % 3], false);
        index += 1;
    }
    places
};

impl Workload {
    /// Its name, which is also its definition's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::TwoPhase => "two-phase",
            Self::Mixed => "mixed",
            Self::Graph => "graph",
        }
    }

    /// The definition, as it is applied.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Order => include_str!("../definitions/order.json"),
            Self::TwoPhase => include_str!("../definitions/two-phase.json"),
            Self::Mixed => include_str!("../definitions/mixed.json"),
            Self::Graph => include_str!("../definitions/graph.json"),
        }
    }

    /// Where its effects happen, in the order of the definition.
    pub fn places(self) -> &'static [Place] {
        match self {
            Self::Order => &ORDER,
            Self::TwoPhase => &TWO_PHASE,
            Self::Mixed => &MIXED,
            Self::Graph => &GRAPH,
        }
    }

    /// Which place a command is about.
    pub fn place_of(self, step: &str, branch: &str) -> Option<usize> {
        self.places().iter().position(|place| place.step == step && place.branch == branch)
    }

    /// What becomes of the transaction with this number.
    pub fn fate(self, index: u64) -> Fate {
        let (early, late) = match self {
            Self::Order | Self::TwoPhase => (1, 2),
            Self::Mixed => (1, 4),
            Self::Graph => (9, 19),
        };
        match index % CYCLE {
            at if EARLY.contains(&at) => Fate::Refused(early),
            LATE => Fate::Refused(late),
            _ => Fate::Commits,
        }
    }

    /// How the planned fate is told. A branch that was refused may have been the first one asked.
    pub fn allows(self, index: u64, told: OutcomeKind) -> bool {
        match (self.fate(index), self) {
            (Fate::Commits, _) => told == OutcomeKind::Committed,
            (Fate::Refused(_), Self::TwoPhase) => {
                matches!(told, OutcomeKind::Aborted | OutcomeKind::Compensated)
            }
            (Fate::Refused(_), Self::Order | Self::Mixed | Self::Graph) => told == OutcomeKind::Compensated,
        }
    }
}

/// Whoever takes part in some workload.
pub fn participant_names() -> Vec<Name> {
    PARTICIPANTS.iter().filter_map(|name| name.parse().ok()).collect()
}

/// The input of every transaction: [`ORDER_BYTES`] of JSON.
pub fn order_data() -> String {
    format!("{{\"order\":\"{}\"}}", "x".repeat(ORDER_BYTES - r#"{"order":""}"#.len()))
}

#[cfg(test)]
mod tests {
    use sagamore_decider::definition::check::compile;
    use sagamore_schemas::definition::Definition;

    use super::*;

    #[test]
    fn of_thirty_ids_twenty_seven_commit() {
        for workload in [Workload::Order, Workload::TwoPhase, Workload::Mixed, Workload::Graph] {
            let commits = (0..CYCLE).filter(|index| workload.fate(*index) == Fate::Commits).count();
            assert_eq!(commits, 27, "{workload:?}");
        }
    }

    #[test]
    fn the_places_are_those_of_the_definition() {
        for workload in [Workload::Order, Workload::TwoPhase, Workload::Mixed, Workload::Graph] {
            let plan = compile(&Definition::from_json(workload.definition()).unwrap()).unwrap();
            let branches: Vec<(String, String)> = plan
                .indexed()
                .flat_map(|(_, step)| {
                    step.branches.iter().map(|branch| (step.name.to_string(), branch.name.to_string()))
                })
                .collect();
            let places: Vec<(String, String)> = workload
                .places()
                .iter()
                .map(|place| (place.step.to_owned(), place.branch.to_owned()))
                .collect();
            assert_eq!(branches, places, "{workload:?}");
        }
    }
}

//! `sagamore participant compare`: whether replicas are equal, row by row.

use clap::Args;
use sagamore_examples::replica::{Comparison, Difference, Found, Place, PlaceError, compare};

use sagamore_participant::TableError;

use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Printer};

/// Which ones.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// URLs of PostgreSQL, files of SQLite, tables that are topics (kafka://HOST:PORT/TOPIC): two or more.
    #[arg(value_name = "REPLICA", required = true, num_args = 2..)]
    replicas: Vec<Place>,
    /// A property of librdkafka for topics, such as `security.protocol=ssl`; in the variable, one per line.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n')]
    kafka_config: Vec<String>,
}

/// Looks at each row of each; ends with 10 if any is different.
pub fn run(args: &CompareArgs, printer: Printer) -> Outcome {
    let mut places = args.replicas.clone();
    for place in &mut places {
        if let Place::Topic(clients, _) = place {
            let overrides = args.kafka_config.iter().map(String::as_str).filter(|text| !text.is_empty());
            **clients = clients.as_ref().clone().with_overrides(overrides)?;
        }
    }
    let comparison = compare(&places).map_err(|error| {
        let exit = match &error {
            PlaceError::Postgres(error) if error.is_away() => Exit::Unreachable,
            PlaceError::Topic(TableError::Missing(_)) => Exit::NotFound,
            PlaceError::Topic(_) => Exit::Unreachable,
            PlaceError::NoTopic(_) => Exit::Usage,
            PlaceError::Postgres(_) | PlaceError::Sqlite(_) => Exit::Unexpected,
        };
        Failure::new(exit, error)
    })?;
    printer.one(&comparison, || table(&comparison))?;
    Ok(if comparison.different == 0 { Exit::Done } else { Exit::CheckNegative })
}

fn table(comparison: &Comparison) -> String {
    let Comparison { replicas, rows, different, held, differences } = comparison;
    let mut lines = vec![format!("{rows} rows in {} replicas, {different} different", replicas.len())];
    let held = replicas.iter().zip(held).filter(|(_, held)| **held > 0);
    lines.extend(
        held.map(|(replica, held)| format!("{replica}: {held} held by changes not yet decided here")),
    );
    if !differences.is_empty() {
        let told = differences.iter().flat_map(|Difference { row, found }| {
            replicas.iter().zip(found).map(|(replica, found)| {
                let (version, value) = match found {
                    None => ("-".into(), String::new()),
                    Some(Found { version, value: None }) => (version.to_string(), "removed".into()),
                    Some(Found { version, value: Some(value) }) => (version.to_string(), value.clone()),
                };
                [row.clone(), replica.clone(), version, value]
            })
        });
        lines.push(output::table(["row", "replica", "version", "value"], told));
    }
    lines.join("\n")
}

//! `positions`, `rewind` and `accept`: a store that has forgotten what it has answered.

use clap::Args;
use sagamore_participant::restore::{self, Compared, Gone, Place, RestoreError};
use sagamore_schemas::ids::Name;
use serde::Serialize;

use super::{Opened, StoreArgs, failure};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::kafka::KafkaArgs;
use crate::cli::output::{self, Printer};

/// Whose store.
#[derive(Debug, Args)]
pub struct RestoredArgs {
    /// What definitions call the participant.
    #[arg(long, value_name = "NAME")]
    name: Name,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Whose store, and what if not all can be taken again.
#[derive(Debug, Args)]
pub struct RewindArgs {
    #[command(flatten)]
    restored: RestoredArgs,
    /// Take again what is left, although the topic no longer has all that was forgotten.
    #[arg(long)]
    although_gone: bool,
}

#[derive(Debug, Serialize)]
struct Partition {
    #[serde(flatten)]
    compared: Compared,
    forgotten: i64,
    gone: i64,
}

/// `participant positions`: 10 when something is forgotten.
pub(super) fn positions(args: &RestoredArgs, printer: Printer) -> Outcome {
    let place = place(args)?;
    let compared = match args.store.opened()? {
        Opened::Postgres(store) => restore::compare(&place, &store),
        Opened::Sqlite(store) => restore::compare(&place, &store),
    };
    let forgotten = print(args, compared, printer)?;
    Ok(if forgotten > 0 { Exit::CheckNegative } else { Exit::Done })
}

/// `participant rewind`.
pub(super) fn rewind(RewindArgs { restored: args, although_gone }: &RewindArgs, printer: Printer) -> Outcome {
    let gone = if *although_gone { Gone::Accept } else { Gone::Refuse };
    let place = place(args)?;
    let compared = match args.store.opened()? {
        Opened::Postgres(store) => restore::rewind(&place, &store, gone),
        Opened::Sqlite(store) => restore::rewind(&place, &store, gone),
    };
    let forgotten = print(args, compared, printer)?;
    eprintln!("{forgotten} commands will be taken again when the participant starts");
    Ok(Exit::Done)
}

/// `participant accept`.
pub(super) fn accept(args: &RestoredArgs, printer: Printer) -> Outcome {
    let place = place(args)?;
    let compared = match args.store.opened()? {
        Opened::Postgres(store) => restore::accept(&place, &store),
        Opened::Sqlite(store) => restore::accept(&place, &store),
    };
    let forgotten = print(args, compared, printer)?;
    eprintln!("{forgotten} commands stay forgotten; the participant may start");
    Ok(Exit::Done)
}

fn place(args: &RestoredArgs) -> Result<Place, Failure> {
    let site = args.kafka.site()?;
    Ok(Place { clients: site.settings, prefix: site.prefix, participant: args.name.clone() })
}

/// The partitions as they were found; how many commands are forgotten.
fn print(
    args: &RestoredArgs,
    compared: Result<Vec<Compared>, RestoreError>,
    printer: Printer,
) -> Result<i64, Failure> {
    let compared = compared.map_err(|error| match error {
        RestoreError::Kafka(cause) => Failure::kafka("compare the positions", &args.kafka.kafka, &cause),
        RestoreError::Store(fault) => failure(&fault),
        RestoreError::NoTopic(_) => Failure::new(Exit::NotFound, &error),
        RestoreError::Running => Failure::new(Exit::Conflict, &error),
        RestoreError::Gone { .. } => {
            Failure::new(Exit::CheckNegative, format_args!("{error}: --although-gone"))
        }
    })?;
    let partitions: Vec<Partition> = compared
        .into_iter()
        .map(|compared| Partition { forgotten: compared.forgotten(), gone: compared.gone(), compared })
        .collect();
    printer.list(&partitions, || {
        let text = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        output::table(
            ["partition", "committed", "known", "earliest", "forgotten", "gone"],
            partitions.iter().map(|one| {
                let Compared { partition, committed, known, earliest } = one.compared;
                [
                    partition.to_string(),
                    text(committed),
                    text(known),
                    earliest.to_string(),
                    one.forgotten.to_string(),
                    one.gone.to_string(),
                ]
            }),
        )
    })?;
    Ok(partitions.iter().map(|one| one.forgotten).sum())
}

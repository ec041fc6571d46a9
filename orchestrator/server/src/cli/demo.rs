//! `sagamore demo`: printed and judged here, played in `crate::demo`.

use rdkafka::error::KafkaError;

use super::exit::{Exit, Failure, Outcome};
use super::output::Printer;
use crate::demo::{DemoArgs, DemoError, play};

/// Runs it.
pub fn run(args: &DemoArgs, printer: Printer) -> Outcome {
    let bootstrap = args.kafka.as_deref().unwrap_or("the embedded broker");
    let report = play(args).map_err(|error| failure(error, bootstrap))?;
    printer.one(&report, || report.text())?;
    Ok(if report.good { Exit::Done } else { Exit::CheckNegative })
}

fn failure(error: DemoError, bootstrap: &str) -> Failure {
    match error {
        DemoError::File { .. }
        | DemoError::TooMuch(_)
        | DemoError::TooMany(_)
        | DemoError::NoOrders
        | DemoError::Override(_) => Failure::usage(error),
        DemoError::Topics(error) => error.into(),
        DemoError::Server(error) => error.into(),
        DemoError::Example(error) => super::participant::failure(&error),
        DemoError::Kafka(error) => kafka(&error, bootstrap),
        DemoError::NotReady(_) => Failure::new(Exit::Timeout, error),
        DemoError::Embedded(_) => Failure::new(Exit::Unexpected, error),
    }
}

fn kafka(error: &KafkaError, bootstrap: &str) -> Failure {
    Failure::kafka("run the demo", bootstrap, error)
}

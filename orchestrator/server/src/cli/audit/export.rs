//! `sagamore audit export` and `audit sign`: the journal, and where its chain stands, for keeping elsewhere.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clap::Args;
use sagamore_schemas::ids::Time;

use crate::audit::export::{ExportError, Lines, Sink, export};
use crate::audit::{KeyError, Span, sign};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::folding::{advance, progress_bar};
use crate::cli::kafka::KafkaArgs;
use crate::cli::output::{self, Printer};

/// What goes where.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Entries of this time and later, such as 2026-11-22T16:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Entries before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
    /// As what.
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
    /// A file that is not there yet; left out, standard output.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// A form of the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line.
    #[default]
    Jsonl,
    /// Apache Parquet, in a program that was built with `--features parquet`.
    Parquet,
}

/// Whose key.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// A private key in PEM: `openssl genpkey -algorithm ed25519 -out key.pem`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Exports.
pub fn run_export(args: &ExportArgs) -> Outcome {
    let site = args.kafka.site()?;
    let sink = match &args.file {
        Some(path) => {
            let file = File::create_new(path).map_err(|error| unwritable(path, &error))?;
            sink(args.format, BufWriter::new(file))
        }
        None => sink(args.format, BufWriter::new(io::stdout())),
    }?;
    let bar = progress_bar();
    let span = Span { from: args.from, to: args.to };
    let count = export(&site, span, sink, &|more, total| advance(&bar, more, total));
    bar.finish_and_clear();
    eprintln!("{} entries", count?);
    Ok(Exit::Done)
}

fn sink<W: io::Write + Send + 'static>(format: ExportFormat, to: W) -> Result<Box<dyn Sink>, Failure> {
    match format {
        ExportFormat::Jsonl => Ok(Box::new(Lines(to))),
        #[cfg(feature = "parquet")]
        ExportFormat::Parquet => {
            crate::audit::export::parquet(to).map_err(|error| Failure::new(Exit::Unexpected, error))
        }
        #[cfg(not(feature = "parquet"))]
        ExportFormat::Parquet => Err(Failure::usage(
            "this program writes no Parquet: `cargo build --release --features sagamore/parquet` makes one that does",
        )),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format_args!("{}: {error}", path.display()))
}

/// Signs.
pub fn run_sign(args: &SignArgs, printer: Printer) -> Outcome {
    let heads = sign(&args.kafka.site()?, &args.key)??;
    printer.list(&heads, || {
        let rows = heads.iter().map(|head| {
            [
                head.partition.to_string(),
                format!("{}/{}", head.offset, head.sequence),
                head.at.to_string(),
                head.hash.to_string(),
                head.signature.clone(),
            ]
        });
        output::table(["shard", "last entry", "at", "chain", "signature"], rows)
    })?;
    Ok(Exit::Done)
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let exit = match error {
            KeyError::File { .. } | KeyError::Key { .. } | KeyError::Line { .. } => Exit::Usage,
            KeyError::Signature { .. } => Exit::CheckNegative,
        };
        Self::new(exit, error)
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Audit(error) => error.into(),
            ExportError::Write(error) => Self::new(Exit::Unexpected, format_args!("{error}")),
        }
    }
}

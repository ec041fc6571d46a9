//! `sagamore audit what-if`: recorded transactions under another definition.

use std::path::PathBuf;

use clap::Args;
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::DefinitionRef;

use super::{progress_bar, threads};
use crate::audit::Span;
use crate::audit::what_if::{Change, Changed, Supposition, WhatIf, what_if};
use crate::cli::define;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::kafka::KafkaArgs;
use crate::cli::output::{self, Printer};
use crate::cli::server::read_secret;

/// What is supposed, and of which transactions.
#[derive(Debug, Args)]
pub struct WhatIfArgs {
    /// The other definition: a file, YAML or JSON. It need not be applied anywhere.
    #[arg(long, value_name = "FILE")]
    definition: String,
    /// Transactions of this definition; with a version, of that one. Left out, those of the same name.
    #[arg(long, value_name = "NAME[@V]")]
    instead_of: Option<DefinitionRef>,
    /// Those that were started at this time and later, such as 2026-11-22T16:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Those that were started before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// The secret under which reply tokens are made, as servers have it.
    #[arg(long, value_name = "FILE")]
    reply_token_secret_file: Option<PathBuf>,
}

/// Plays them again; ends with 10 if any would have ended otherwise.
pub fn run(args: &WhatIfArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let secret = args.reply_token_secret_file.as_deref().map(read_secret).transpose()?;
    let (definition, plan) = define::accepted_file(&args.definition)?;
    let instead_of = args.instead_of.clone();
    let instead_of = instead_of.unwrap_or_else(|| DefinitionRef { name: plan.name.clone(), version: None });
    let definition =
        serde_json::to_string(&definition).map_err(|error| Failure::new(Exit::Unexpected, error))?;
    let span = Span { from: args.from, to: args.to };
    let supposition = Supposition { definition, plan, instead_of, span };
    let bar = progress_bar();
    let told = what_if(&site, secret.as_ref(), &supposition, threads(None), &|more, total| {
        bar.set_length(total);
        bar.inc(more);
    });
    bar.finish_and_clear();
    let told = told?;
    printer.one(&told, || table(&told))?;
    Ok(if told.different == 0 { Exit::Done } else { Exit::CheckNegative })
}

fn table(told: &WhatIf) -> String {
    let WhatIf { played, same, different, with_assumptions, open, changes, .. } = told;
    let WhatIf { assumed, transactions, stopped, took_ms, .. } = told;
    let mut parts = vec![format!(
        "{played} transactions played again in {took_ms} ms: {same} would have ended the same, {different} otherwise; \
         {open} are still open"
    )];
    parts.extend(stopped.iter().map(|cause| format!("what comes behind was not played: {cause}")));
    if !changes.is_empty() {
        let rows = changes.iter().map(|Change { was, would_be, count }| {
            [was.as_str().to_owned(), would_be.as_str().to_owned(), count.to_string()]
        });
        parts.push(output::table(["was", "would be", "transactions"], rows));
    }
    if !assumed.is_empty() {
        let rows = assumed.iter().map(|(what, count)| [what.clone(), count.to_string()]);
        parts.push(format!(
            "{with_assumptions} of them only if this goes well, which nobody was asked then:\n{}",
            output::table(["step, operation", "times"], rows)
        ));
    }
    if !transactions.is_empty() {
        let text = |reason: &Option<String>| reason.clone().unwrap_or_default();
        let rows = transactions.iter().map(|changed| {
            let Changed { id, was, reason, would_be, would_be_reason, with_assumptions, .. } = changed;
            let assumed = if *with_assumptions { "yes" } else { "" };
            [
                id.clone(),
                was.as_str().to_owned(),
                text(reason),
                would_be.as_str().to_owned(),
                text(would_be_reason),
                assumed.to_owned(),
            ]
        });
        let head = ["transaction", "was", "because", "would be", "because", "assumed"];
        parts.push(output::table(head, rows));
    }
    parts.join("\n\n")
}

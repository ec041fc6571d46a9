//! `sagamore audit what-if`: recorded transactions under another definition.

use clap::Args;
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::DefinitionRef;

use crate::audit::Span;
use crate::audit::what_if::{Change, Changed, Supposition, WhatIf, what_if};
use crate::cli::define;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::folding::{FoldingArgs, beginning, tell_passed_over};
use crate::cli::kafka::KafkaArgs;
use crate::cli::output::{self, Printer};

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
    #[command(flatten)]
    folding: FoldingArgs,
}

/// Plays them again; ends with 10 if any would have ended otherwise.
pub fn run(args: &WhatIfArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let (definition, plan) = define::accepted_file(&args.definition)?;
    let instead_of = args.instead_of.clone();
    let instead_of = instead_of.unwrap_or_else(|| DefinitionRef { name: plan.name.clone(), version: None });
    let definition =
        serde_json::to_string(&definition).map_err(|error| Failure::new(Exit::Unexpected, error))?;
    let span = Span { from: args.from, to: args.to };
    let supposition = Supposition { definition, plan, instead_of, span };
    let told = args.folding.with(|how| what_if(&site, &supposition, how))??;
    tell_passed_over(&told.began);
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
    let late = told.began.iter().filter(|began| began.at > 0);
    parts.extend(late.map(|began| {
        format!("shard {}: what was started before {} was not played", began.partition, beginning(began))
    }));
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

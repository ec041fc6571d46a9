//! `sagamore topics`: plan, apply, check.

use std::num::NonZeroU16;

use clap::{Args, Subcommand};
use sagamore_kafka::topics::{self, Change, Finding, Layout};
use sagamore_schemas::topics::Severity;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::output::{self, Printer};
use crate::site::Site;

/// What about the topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// What `apply` would do.
    Plan(LayoutArgs),
    /// Create what is missing, alter what is wrong; a second time does nothing.
    Apply(LayoutArgs),
    /// Name everything that breaks a promise; then the exit code is 10.
    Check(CheckArgs),
}

/// What the topics should look like.
#[derive(Debug, Args)]
pub struct LayoutArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// How many shards: partitions of inbox, state and journal. It can never be changed.
    #[arg(long, value_name = "N", default_value = "4")]
    partitions: NonZeroU16,
    /// How many copies new topics get.
    #[arg(long, value_name = "N", default_value = "3")]
    replication: NonZeroU16,
}

/// What is expected of the topics.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Tolerate what only a development server runs on, such as a single broker.
    #[arg(long)]
    development: bool,
}

/// Runs it.
pub fn run(command: TopicsCommand, printer: Printer) -> Outcome {
    match command {
        TopicsCommand::Plan(args) => {
            let (site, layout) = args.layout()?;
            changes(&topics::plan(&site.settings, &layout)?, printer, "nothing to do")
        }
        TopicsCommand::Apply(args) => {
            let (site, layout) = args.layout()?;
            changes(&topics::apply(&site.settings, &layout)?, printer, "nothing was to be done")
        }
        TopicsCommand::Check(args) => check(&args, printer),
    }
}

impl LayoutArgs {
    fn layout(&self) -> Result<(Site, Layout), Failure> {
        let site = self.kafka.site()?;
        let layout = Layout {
            prefix: site.prefix.clone(),
            partitions: self.partitions,
            replication: self.replication,
        };
        Ok((site, layout))
    }
}

fn changes(changes: &[Change], printer: Printer, nothing: &str) -> Outcome {
    if changes.is_empty() {
        eprintln!("{nothing}");
    }
    printer.list(changes, || output::table(["topic", "change", "why"], changes.iter().map(row)))?;
    Ok(Exit::Done)
}

fn row(change: &Change) -> [String; 3] {
    match change {
        Change::CreateTopic { topic, partitions, replication, settings } => {
            let settings: Vec<_> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let change =
                format!("create, {partitions} partitions, {replication} copies, {}", settings.join(" "));
            [topic.clone(), change, "missing".to_owned()]
        }
        Change::AlterSetting { topic, setting, from, to, reason } => {
            let from = from.as_deref().unwrap_or("not told");
            [topic.clone(), format!("{setting}: {from} -> {to}"), reason.clone()]
        }
        Change::WriteInstance { topic, instance } => {
            let instance = instance.map_or_else(|| "a new one".to_owned(), |instance| instance.to_string());
            let why = "every partition says to which installation it belongs".to_owned();
            [topic.clone(), format!("write the instance, {instance}"), why]
        }
    }
}

fn check(args: &CheckArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let findings = topics::check(&site.settings, &site.prefix)?;
    printer.list(&findings, || {
        output::table(
            ["severity", "topic", "setting", "value", "wanted", "why", "remedy"],
            findings.iter().map(finding_row),
        )
    })?;
    let refused = findings.iter().filter(|finding| is_refused(finding.severity, args.development)).count();
    if refused == 0 {
        eprintln!("the topics keep what is promised");
        return Ok(Exit::Done);
    }
    let advice =
        if args.development { "" } else { " (one broker and the like are tolerated with --development)" };
    eprintln!("{refused} findings because of which a server would not run{advice}");
    Ok(Exit::CheckNegative)
}

/// Whether a server refuses to run because of it.
pub fn is_refused(severity: Severity, development: bool) -> bool {
    match severity {
        Severity::BreaksAPromise => true,
        Severity::DevelopmentOnly => !development,
        Severity::Advice => false,
    }
}

/// As it is written.
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::BreaksAPromise => "breaks-a-promise",
        Severity::DevelopmentOnly => "development-only",
        Severity::Advice => "advice",
    }
}

fn finding_row(finding: &Finding) -> [String; 7] {
    let Finding { topic, setting, value, wanted, reason, remedy, severity } = finding.clone();
    [severity_word(severity).to_owned(), topic, setting, value, wanted, reason, remedy]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_refuses() {
        let refused = |severity| [is_refused(severity, false), is_refused(severity, true)];
        assert_eq!(refused(Severity::BreaksAPromise), [true, true]);
        assert_eq!(refused(Severity::DevelopmentOnly), [true, false]);
        assert_eq!(refused(Severity::Advice), [false, false]);
    }
}

//! The command line: what is asked, in which form the answer is printed, how the process ends.
//!
//! ```text
//!   server, participant, dev, demo     stay up
//!   topics, doctor, define             talk to Kafka
//!   predict                            reckons
//!   config                             says what commands are set to
//!   audit                              folds the log again
//!   skip, level, settings              write operators' decisions to the inbox: they work without a server
//!   snapshot                           writes where a fold may begin
//!   dead-letters                       reads what was set aside, and sends it again: without a server, too
//!   start, get, wait, list, cancel, …  ask a server
//!   completions, man                   tell of this command line
//! ```
//!
//! Every flag `--some-flag` is also a variable `SAGAMORE_SOME_FLAG`: one function sees to it, for all of them. Data goes
//! to stdout, everything else to stderr. Deliberately absent: what a command does besides asking and printing; that is
//! the business of the modules it calls.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use exit::{Exit, Failure, Outcome};
use output::{Format, Printer};

pub mod config_file;
pub mod exit;
pub mod output;

mod api;
mod audit;
mod compare;
mod config;
mod dead_letters;
mod define;
mod demo;
mod dev;
mod doctor;
mod doubt;
mod folding;
mod kafka;
mod kafka_only;
mod logs;
mod looking;
mod manual;
mod operator;
mod outbox;
mod participant;
mod participant_check;
mod predict;
mod rebuild;
mod reload;
mod server;
mod shard;
mod signals;
mod snapshot;
mod story;
mod topics;
mod transactions;
pub mod tree;
mod variables;
mod verbs;
mod which;

/// Sagamore coordinates distributed transactions on Apache Kafka: services behind topics commit together or roll back
/// together.
#[derive(Debug, Parser)]
#[command(name = "sagamore", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// How data is printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    /// How the log is written, to stderr.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: logs::LogFormat,
    /// What is logged, such as `info` or `info,sagamore=debug`; left out, what `RUST_LOG` says, or what people need.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole pipeline in one process, then a report.
    Demo(crate::demo::DemoArgs),
    /// A server and the example participants to play with; stays up.
    Dev(dev::DevArgs),
    /// A server.
    Server(server::ServerArgs),
    /// The topics Sagamore needs.
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// What commands are set to, and by what.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// What a cluster lacks for what is promised, and what to do about it; then the exit code is 10.
    Doctor(doctor::DoctorArgs),
    /// Definitions of transactions.
    #[command(subcommand)]
    Define(define::DefineCommand),
    /// How probably a definition commits, how many commands it takes and how long.
    Predict(predict::PredictArgs),
    /// Fold the log again, compare, and tell the story of a transaction.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Start a transaction.
    Start(transactions::StartArgs),
    /// What is known of a transaction.
    Get(transactions::GetArgs),
    /// Wait until transactions have ended, or are stuck.
    Wait(transactions::WaitArgs),
    /// Transactions: those that are open, unless told otherwise.
    List(looking::ListArgs),
    /// How many transactions there are: of those that are open, by status, unless told otherwise.
    Count(looking::CountArgs),
    /// Transactions that need a person.
    Stuck(looking::StuckArgs),
    /// Have transactions go back, if there still is a way back.
    Cancel(verbs::VerbArgs),
    /// Try again now what is stuck or waits.
    Retry(verbs::VerbArgs),
    /// Ask for nothing more of transactions that are not decided, until they are resumed; their deadlines hold.
    Pause(verbs::VerbArgs),
    /// Let paused transactions go on; what came due meanwhile is done at once.
    Resume(verbs::VerbArgs),
    /// Answer in the place of a participant, for a step that is stuck.
    Resolve(verbs::ResolveArgs),
    /// Pass over one inbox record on which a shard halted.
    Skip(shard::SkipArgs),
    /// What no shard could take: look at it, send it again, discard it.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Write the state of a shard anew, from its inbox: for one that has halted with SAG-001.
    Rebuild(rebuild::RebuildArgs),
    /// Write a snapshot of each shard now, from which `audit` and `rebuild` can begin.
    Snapshot(snapshot::SnapshotArgs),
    /// Raise the level of all shards, after every server has been rolled out.
    Level(shard::LevelArgs),
    /// The numbers the shards use.
    #[command(subcommand)]
    Settings(shard::SettingsCommand),
    /// Outbox and inbox in a service's own PostgreSQL: it starts transactions and answers commands by SQL alone.
    Outbox(outbox::OutboxArgs),
    /// Example participants, and what judges participants.
    #[command(subcommand)]
    Participant(participant::ParticipantCommand),
    /// A script that completes commands and flags in a shell.
    Completions(manual::CompletionsArgs),
    /// A manual page in roff, as `man -l -` takes it.
    Man(manual::ManArgs),
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect()).into()
}

fn run(arguments: Vec<OsString>) -> Exit {
    for warning in variables::unknown(&command(), std::env::vars_os()) {
        eprintln!("warning: {warning}");
    }
    let file = config_file::named(command(), &arguments);
    let command = match with_file(file.as_deref()) {
        Ok((command, _)) => command,
        Err(failure) => return failed(&failure),
    };
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let exit = told(&error);
            if let Some(file) = file.filter(|_| exit != Exit::Done) {
                eprintln!("(what is not given as flag or variable comes from {})", file.display());
            }
            return exit;
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    if let Err(failure) =
        logs::begin(cli.global.log_format, cli.global.log.as_deref(), cli.command.is_long_lived())
    {
        return failed(&failure);
    }
    match cli.command.run(Printer { format: cli.global.output }) {
        Ok(exit) => exit,
        Err(failure) => failed(&failure),
    }
}

/// The command line with what stands in this file, and that.
fn with_file(file: Option<&Path>) -> Result<(clap::Command, Vec<config_file::Entry>), Failure> {
    let Some(file) = file else { return Ok((command(), Vec::new())) };
    let entries = config_file::read(file)?;
    Ok((config_file::apply(command(), file, &entries)?, entries))
}

fn failed(failure: &Failure) -> Exit {
    eprintln!("error: {failure}");
    failure.exit
}

/// Help goes to stdout, errors to stderr.
fn told(error: &clap::Error) -> Exit {
    // Nobody left to read it: nothing to do about it.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// The command line as clap knows it.
pub fn command() -> clap::Command {
    with_variables(Cli::command())
}

/// Gives every flag its variable.
fn with_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_long() {
            Some(long) => {
                let variable = format!("SAGAMORE_{}", long.replace('-', "_").to_uppercase());
                arg.env(variable)
            }
            None => arg,
        })
        .mut_subcommands(with_variables)
}

impl Command {
    /// Whether its log is what people look at.
    fn is_long_lived(&self) -> bool {
        match self {
            Self::Participant(command) => command.is_long_lived(),
            other => matches!(other, Self::Server(_) | Self::Dev(_) | Self::Outbox(_)),
        }
    }

    fn run(self, printer: Printer) -> Outcome {
        match self {
            Self::Demo(args) => demo::run(&args, printer),
            Self::Dev(args) => dev::run(&args),
            Self::Server(args) => server::run(&args),
            Self::Topics(command) => topics::run(command, printer),
            Self::Config(command) => config::run(&command, printer),
            Self::Doctor(args) => doctor::run(&args, printer),
            Self::Define(command) => define::run(command, printer),
            Self::Predict(args) => predict::run(&args, printer),
            Self::Start(args) => transactions::start(&args, printer),
            Self::Get(args) => transactions::get(&args, printer),
            Self::Wait(args) => transactions::wait(&args, printer),
            Self::List(args) => looking::list(&args, printer),
            Self::Count(args) => looking::count(&args, printer),
            Self::Stuck(args) => looking::stuck(&args, printer),
            Self::Cancel(args) => verbs::verb(verbs::Verb::Cancel, &args, printer),
            Self::Retry(args) => verbs::verb(verbs::Verb::Retry, &args, printer),
            Self::Pause(args) => verbs::verb(verbs::Verb::Pause, &args, printer),
            Self::Resume(args) => verbs::verb(verbs::Verb::Resume, &args, printer),
            Self::Resolve(args) => verbs::resolve(&args, printer),
            Self::Skip(args) => shard::skip(&args, printer),
            Self::DeadLetters(command) => dead_letters::run(&command, printer),
            Self::Rebuild(args) => rebuild::run(&args, printer),
            Self::Snapshot(args) => snapshot::run(&args, printer),
            Self::Level(args) => shard::level(&args, printer),
            Self::Settings(command) => shard::settings(command, printer),
            Self::Outbox(args) => outbox::run(args, printer),
            Self::Audit(command) => audit::run(&command, printer),
            Self::Participant(args) => participant::run(&args, printer),
            Self::Completions(args) => manual::completions(&args),
            Self::Man(args) => manual::man(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_contradiction() {
        command().debug_assert();
    }

    #[test]
    fn no_command_has_a_flag_that_every_command_has() {
        fn check(command: &clap::Command, global: &[&str]) {
            for own in command.get_arguments().map(|arg| arg.get_id().as_str()) {
                assert!(!global.contains(&own), "--{own} of {}", command.get_name());
            }
            command.get_subcommands().for_each(|command| check(command, global));
        }
        let command = command();
        let global: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        assert!(global.contains(&"output"), "{global:?}");
        command.get_subcommands().for_each(|command| check(command, &global));
    }

    #[test]
    fn every_flag_has_its_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| !matches!(*long, "help" | "version")) else {
                    continue;
                };
                let variable = arg.get_env().unwrap_or_else(|| panic!("--{long} of {}", command.get_name()));
                let expected = format!("SAGAMORE_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(variable.to_str(), Some(expected.as_str()));
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = command();
        command.build();
        check(&command);
    }

    fn exit(line: &str) -> Exit {
        run(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn a_wrong_command_line_is_usage_and_help_is_done() {
        for line in ["sagamore", "sagamore frob", "sagamore start order", "sagamore -o xml list"] {
            assert_eq!(exit(line), Exit::Usage, "{line}");
        }
        for line in ["sagamore --help", "sagamore define graph --help", "sagamore --version"] {
            assert_eq!(exit(line), Exit::Done, "{line}");
        }
    }
}

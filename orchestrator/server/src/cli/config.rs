//! `sagamore config show`: what a command is set to, and which of flag, variable, file and default says so.
//!
//! The command line is read by the very parser that runs commands, with the very file: what is shown is what would run.
//! Secrets are hidden by name; a file with a secret is named, never read.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};
use sagamore_kafka::client::is_secret;
use serde::Serialize;

use super::config_file::{self, Entry};
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Printer};
use super::with_file;

const HIDDEN: &str = "(hidden)";

/// What about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// What a command is set to, and by what.
    Show(ShowArgs),
}

/// Of which command.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Also what nobody has set: defaults, and what has none.
    #[arg(long)]
    effective: bool,
    /// The command with its flags, such as `server --config FILE`; left out, `server`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    line: Vec<OsString>,
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Flag,
    Variable,
    File,
    Default,
    NotSet,
}

/// One setting.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Setting {
    #[serde(rename = "setting")]
    name: String,
    values: Vec<String>,
    source: Source,
    /// The variable, or file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// Shows it.
pub fn run(command: &ConfigCommand, printer: Printer) -> Outcome {
    let ConfigCommand::Show(args) = command;
    let settings = settings(&args.line, args.effective)?;
    printer.list(&settings, || {
        let rows = settings.iter().map(|setting| {
            let source = match setting.source {
                Source::Flag => "flag",
                Source::Variable => "variable",
                Source::File => "file",
                Source::Default => "default",
                Source::NotSet => "not set",
            };
            let place = setting.place.as_ref().map(|place| format!(" {place}")).unwrap_or_default();
            [setting.name.clone(), setting.values.join(" "), format!("{source}{place}")]
        });
        output::table(["setting", "value", "by"], rows)
    })?;
    Ok(Exit::Done)
}

fn settings(line: &[OsString], effective: bool) -> Result<Vec<Setting>, Failure> {
    let mut arguments = vec![OsString::from("sagamore")];
    if line.first().is_none_or(|first| first.to_str().is_some_and(|first| first.starts_with('-'))) {
        arguments.push("server".into());
    }
    arguments.extend(line.iter().cloned());
    let file = config_file::named(super::command(), &arguments);
    let (mut command, entries) = with_file(file.as_deref())?;
    command.build();
    let matches = match command.clone().try_get_matches_from(&arguments) {
        // What is required and missing is shown as not set.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            command.clone().ignore_errors(true).try_get_matches_from(&arguments)
        }
        matches => matches,
    };
    let matches = matches.map_err(|error| Failure::usage(error.render()))?;
    let (mut leaf, mut of_leaf): (&clap::Command, &ArgMatches) = (&command, &matches);
    while let Some((name, of_next)) = of_leaf.subcommand() {
        let next = leaf.find_subcommand(name);
        leaf = next.ok_or_else(|| Failure::new(Exit::Unexpected, format_args!("no command {name}")))?;
        of_leaf = of_next;
    }
    let file = file.map(|file| file.display().to_string());
    let shown = leaf.get_arguments().filter_map(|arg| setting(arg, of_leaf, &entries, file.as_deref()));
    Ok(shown
        .filter(|setting| effective || !matches!(setting.source, Source::Default | Source::NotSet))
        .collect())
}

fn setting(arg: &clap::Arg, matches: &ArgMatches, entries: &[Entry], file: Option<&str>) -> Option<Setting> {
    let name = arg.get_long().filter(|name| !matches!(*name, "help" | "version"))?;
    let id = arg.get_id().as_str();
    let values = matches.try_get_raw(id).ok().flatten().into_iter().flatten();
    let values = values.map(|value| shown(name, &value.to_string_lossy())).collect();
    let entry = entries.iter().find(|entry| entry.name == name);
    let (source, place) = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => (Source::Flag, None),
        Some(ValueSource::EnvVariable) => {
            (Source::Variable, arg.get_env().map(|variable| variable.to_string_lossy().into_owned()))
        }
        Some(_) => match (entry, file) {
            (Some(entry), Some(file)) => (Source::File, Some(format!("{file}, line {}", entry.line))),
            _ => (Source::Default, None),
        },
        None => (Source::NotSet, None),
    };
    Some(Setting { name: name.to_owned(), values, source, place })
}

/// The value, but for what must not be seen.
fn shown(name: &str, value: &str) -> String {
    if is_secret(name) && !name.ends_with("-file") && name != "key" {
        return HIDDEN.to_owned();
    }
    if let Some((key, _)) = value.split_once('=')
        && name == "kafka-config"
        && is_secret(key)
    {
        return format!("{key}={HIDDEN}");
    }
    // A password in an address: scheme://user:password@host, or key=value pairs as PostgreSQL takes them.
    if let Some((scheme, rest)) = value.split_once("://")
        && let Some((who, host)) = rest.rsplit_once('@')
        && let Some((user, _)) = who.split_once(':')
    {
        return format!("{scheme}://{user}:{HIDDEN}@{host}");
    }
    let words = value.split(' ').map(|word| match word.split_once('=') {
        Some((key, _)) if key == "password" => format!("{key}={HIDDEN}"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &[&str], effective: bool) -> Vec<String> {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        let told = |setting: Setting| {
            let Setting { name, values, source, place } = setting;
            format!("{name}={} {source:?} {}", values.join("|"), place.unwrap_or_default())
        };
        settings(&line, effective).unwrap().into_iter().map(told).collect()
    }

    #[test]
    fn flags_file_and_defaults_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        std::fs::write(
            &file,
            "kafka = 'h:1'\nlanes = 3\n\nkafka-config = ['sasl.password=x', 'linger.ms=1']\n",
        )
        .unwrap();
        let file = file.display().to_string();
        let line = ["server", "--config", &file, "--lanes", "5"];
        assert_eq!(
            told(&line, false),
            [
                format!("kafka=h:1 File {file}, line 1"),
                format!("kafka-config=sasl.password=(hidden)|linger.ms=1 File {file}, line 4"),
                "lanes=5 Flag ".to_owned(),
                format!("config={file} Flag "),
            ]
        );
        let all = told(&line, true);
        assert!(all.contains(&"listen=127.0.0.1:8088 Default ".to_owned()), "{all:#?}");
        assert!(all.contains(&"advertise= NotSet ".to_owned()), "{all:#?}");
        assert!(all.contains(&"log-format=text Default ".to_owned()), "{all:#?}");
        assert!(told(&[], true).contains(&"kafka= NotSet ".to_owned()), "the server, and what it lacks");
        assert!(
            told(&["topics", "apply", "--kafka", "h:1"], true).contains(&"partitions=4 Default ".to_owned())
        );
    }

    #[test]
    fn secrets_are_hidden() {
        for (name, value, then) in [
            ("kafka-config", "sasl.password=x=y", "sasl.password=(hidden)"),
            ("kafka-config", "ssl.key.pem=---", "ssl.key.pem=(hidden)"),
            ("kafka-config", "linger.ms=5", "linger.ms=5"),
            ("postgres", "postgresql://anna:geheim@h/db", "postgresql://anna:(hidden)@h/db"),
            ("postgres", "host=h user=anna password=geheim", "host=h user=anna password=(hidden)"),
            ("postgres", "postgresql://h/db", "postgresql://h/db"),
            ("some-password", "x", "(hidden)"),
            ("reply-token-secret-file", "a/b", "a/b"),
        ] {
            assert_eq!(shown(name, value), then);
        }
    }
}

//! `sagamore server --config FILE`: TOML, or YAML when the name ends so. Its names are those of the flags, the global ones
//! for the log included.
//!
//! What stands in the file takes the place of the defaults before the arguments are read again: so a flag goes before a
//! variable, a variable before the file, and every value is checked where the flag's is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, ArgMatches};
use saphyr_parser::{Event, Parser, ScalarStyle};

use super::exit::{Exit, Failure};

/// Flags that make no sense in the file.
const NOT_IN_FILE: &[&str] = &["config", "help", "version", "output"];

/// One name of the file with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the flag is called.
    pub name: String,
    /// Its values; several where the flag may be given several times.
    pub values: Vec<String>,
    /// Where it stands, from 1.
    pub line: usize,
}

/// The file these arguments, or the variable, name. Whatever else is wrong with them is told later.
pub fn named(command: clap::Command, arguments: &[OsString]) -> Option<PathBuf> {
    let matches: ArgMatches = command.ignore_errors(true).try_get_matches_from(arguments).ok()?;
    matches.subcommand_matches("server")?.get_one::<PathBuf>("config").cloned()
}

/// What stands in the file, with the names of the flags.
pub fn read(file: &Path) -> Result<Vec<Entry>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Usage };
        Failure::new(exit, format_args!("{}: {error}", file.display()))
    })?;
    let is_yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let entries = if is_yaml { read_yaml(&text) } else { read_toml(&text) };
    let mut entries = entries.map_err(|message| wrong(file, message))?;
    for entry in &mut entries {
        entry.name = entry.name.replace('_', "-");
    }
    entries.sort_by_key(|entry| entry.line);
    let twice =
        (1..entries.len()).find(|at| entries[..*at].iter().any(|known| known.name == entries[*at].name));
    match twice {
        Some(at) => {
            let Entry { name, line, .. } = &entries[at];
            Err(wrong(file, format_args!("line {line}: `{name}` stands there twice")))
        }
        None => Ok(entries),
    }
}

fn wrong(file: &Path, message: impl std::fmt::Display) -> Failure {
    Failure::usage(format_args!("{}: {message}", file.display()))
}

/// The command line with the values of the file for defaults.
pub fn apply(mut command: clap::Command, file: &Path, entries: &[Entry]) -> Result<clap::Command, Failure> {
    let mut server = command.find_subcommand("server").expect("there is a command `server`").clone();
    for entry in entries {
        let known: Vec<String> = [names(&server), names(&command)].concat();
        if !known.contains(&entry.name) {
            let message = unknown(&entry.name, &known);
            return Err(wrong(file, format_args!("line {}: {message}", entry.line)));
        }
        let is_own = |arg: &&clap::Arg| arg.get_long() == Some(&entry.name);
        let flag = server.get_arguments().chain(command.get_arguments()).find(is_own);
        let takes_many = flag.is_some_and(|flag| matches!(flag.get_action(), ArgAction::Append));
        if entry.values.len() > 1 && !takes_many {
            return Err(wrong(file, format_args!("line {}: `{}` takes one value", entry.line, entry.name)));
        }
        let given = |arg: clap::Arg| {
            if arg.get_long() == Some(&entry.name) {
                arg.default_values(entry.values.clone()).required(false)
            } else {
                arg
            }
        };
        server = server.mut_args(given);
        command = command.mut_args(given);
    }
    Ok(command.mut_subcommand("server", |_| server))
}

fn names(command: &clap::Command) -> Vec<String> {
    let long = command.get_arguments().filter_map(|arg| arg.get_long());
    long.filter(|name| !NOT_IN_FILE.contains(name)).map(str::to_owned).collect()
}

fn unknown(name: &str, flags: &[String]) -> String {
    match similar(name, flags) {
        Some(flag) => format!("there is no setting `{name}`; did you mean `{flag}`?"),
        None => format!("there is no setting `{name}`; there are {}", flags.join(", ")),
    }
}

/// Which of these was meant, most likely.
pub fn similar<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let similar = known.iter().map(|known| (strsim::jaro_winkler(known, name), known));
    let best = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(similarity, _)| *similarity > 0.8).map(|(_, known)| known.as_str())
}

fn read_toml(text: &str) -> Result<Vec<Entry>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let places = toml::de::DeTable::parse(text).map_err(|error| error.to_string())?;
    let line_of = |name: &str| {
        let place =
            places.get_ref().keys().find(|key| key.get_ref() == name).map_or(0, |key| key.span().start);
        text[..place].matches('\n').count() + 1
    };
    let entry = |(name, value): (String, toml::Value)| {
        let line = line_of(&name);
        let values = match value {
            toml::Value::Array(elements) => {
                elements.iter().map(|element| toml_scalar(&name, element)).collect::<Result<_, _>>()?
            }
            value => vec![toml_scalar(&name, &value)?],
        };
        Ok(Entry { name, values, line })
    };
    table.into_iter().map(entry).collect()
}

fn toml_scalar(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(value) => Ok(value.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            Err(format!("`{name}` must be a text, a whole number, true, false, or a list of texts"))
        }
    }
}

/// One mapping of names to scalars and lists of scalars; every scalar is taken as the text that it is.
fn read_yaml(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut place = Place::Outside;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("not YAML: {error}"))?;
        let line = span.start.line();
        place = match (place, event) {
            (
                place,
                Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing,
            ) => place,
            (Place::Outside, Event::MappingStart(..)) | (Place::InList, Event::SequenceEnd) => Place::AtName,
            // An empty file, or one of comments only.
            (Place::Outside, Event::Scalar(text, ScalarStyle::Plain, ..)) if matches!(&*text, "" | "~") => {
                Place::Outside
            }
            (Place::AtName, Event::MappingEnd) => Place::Outside,
            (Place::AtName, Event::Scalar(name, ..)) => {
                if entries.iter().any(|entry| entry.name == name) {
                    return Err(format!("line {line}: `{name}` stands there twice"));
                }
                entries.push(Entry { name: name.into_owned(), values: Vec::new(), line });
                Place::AtValue
            }
            (Place::AtValue, Event::SequenceStart(..)) => Place::InList,
            (place @ (Place::AtValue | Place::InList), Event::Scalar(text, ..)) => {
                entries.last_mut().expect("a value follows its name").values.push(text.into_owned());
                if matches!(place, Place::InList) { Place::InList } else { Place::AtName }
            }
            _ => {
                return Err(format!(
                    "line {line}: a setting is a text, a number, true, false, or a list of texts"
                ));
            }
        };
    }
    Ok(entries)
}

/// Where the reader of YAML is.
enum Place {
    Outside,
    AtName,
    AtValue,
    InList,
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::cli::{Cli, command};

    fn entries(read: Result<Vec<Entry>, String>) -> String {
        match read {
            Err(message) => message,
            Ok(mut entries) => {
                entries.sort_by(|one, other| one.name.cmp(&other.name));
                let text = |entry: &Entry| format!("{}={}", entry.name, entry.values.join("|"));
                entries.iter().map(text).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn both_languages_say_the_same() {
        let then = "development=true kafka=h:9092 kafka-config=a=1|b=2 lanes=2";
        let toml = "kafka = 'h:9092'\nlanes = 2\ndevelopment = true\nkafka-config = ['a=1', 'b=2']\n";
        let yaml =
            "# a comment\nkafka: h:9092\nlanes: 2\ndevelopment: true\nkafka-config:\n  - a=1\n  - b=2\n";
        assert_eq!(entries(read_toml(toml)), then);
        assert_eq!(entries(read_yaml(yaml)), then);
        assert_eq!(entries(read_yaml("# nothing\n")), "");
    }

    #[test]
    fn lines_are_told() {
        let lines = |entries: Result<Vec<Entry>, String>| {
            let entries = entries.unwrap();
            entries
                .iter()
                .map(|entry| format!("{} {}", entry.name, entry.line))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(lines(read_toml("# one\nkafka = 'ä'\n\n\"lanes\" = 2\n")), "kafka 2, lanes 4");
        assert_eq!(lines(read_yaml("# one\nkafka: ä\n\nlanes: 2\n")), "kafka 2, lanes 4");
    }

    #[test]
    fn the_log_may_be_set_too() {
        let text = "kafka: h:1\nlog: debug\nlog-format: json\n";
        assert!(given("s.yaml", text, &[]).is_ok());
        assert!(
            given("s.yaml", "kafka: h:1\noutput: json\n", &[]).unwrap_err().contains("no setting `output`")
        );
    }

    #[test]
    fn what_is_no_setting_is_told() {
        assert_eq!(
            entries(read_toml("lanes = 1.5")),
            "`lanes` must be a text, a whole number, true, false, or a list of texts"
        );
        assert_eq!(entries(read_yaml("a: 1\na: 2\n")), "line 2: `a` stands there twice");
        assert_eq!(
            entries(read_yaml("a:\n  b: 1\n")),
            "line 2: a setting is a text, a number, true, false, or a list of texts"
        );
    }

    /// The server's arguments with a file, or what is wrong.
    fn given(name: &str, text: &str, arguments: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let arguments = [&["sagamore", "server", "--config", file.to_str().unwrap()], arguments].concat();
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        let file = named(command(), &arguments).expect("named");
        let shown = |message: &str| message.replace(folder.path().to_str().unwrap(), "");
        let entries = read(&file).map_err(|failure| shown(&failure.message))?;
        let command = apply(command(), &file, &entries).map_err(|failure| shown(&failure.message))?;
        let matches = command.try_get_matches_from(&arguments).map_err(|error| error.to_string())?;
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        Ok(format!("{:?}", cli.command))
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let text = "kafka: h:9092\nprefix: shop\nlanes: 3\ndevelopment: true\nkafka_config: [linger.ms=1]\n";
        let told = given("s.yaml", text, &["--lanes", "5"]).unwrap();
        for part in [
            "kafka: \"h:9092\"",
            "Prefix(\"shop\")",
            "lanes: Some(5)",
            "development: true",
            "[\"linger.ms=1\"]",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert!(told.contains("listen: 127.0.0.1:8088"), "{told}");
    }

    #[test]
    fn an_unknown_setting_is_an_error_with_a_suggestion() {
        assert_eq!(
            given("s.toml", "kafka = 'h:1'\nlane = 3\n", &[]).unwrap_err(),
            "/s.toml: line 2: there is no setting `lane`; did you mean `lanes`?"
        );
        assert_eq!(
            given("s.toml", "reply-token-secret-file = 'x'\nreply_token_secret_file = 'y'\n", &[])
                .unwrap_err(),
            "/s.toml: line 2: `reply-token-secret-file` stands there twice"
        );
        assert!(given("s.toml", "config = 'x'\n", &[]).unwrap_err().contains("no setting `config`"));
        assert!(given("s.toml", "lanes = 'many'\n", &["--kafka", "h:1"]).unwrap_err().contains("--lanes"));
        assert!(given("s.toml", "", &[]).unwrap_err().contains("--kafka"));
    }
}

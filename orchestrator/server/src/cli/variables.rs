//! Variables that begin with `SAGAMORE_` and that nobody reads: most likely a typing error, so they are told, with what was
//! meant. They are no error, because an environment is shared: tests have their own, and Kubernetes sets some for a service
//! of this name.

use std::ffi::OsString;

use super::config_file::similar;

const BEGIN: &str = "SAGAMORE_";
/// Read by this program without being a flag: where the local Kafka's jars are.
const MORE: &[&str] = &["SAGAMORE_CACHE"];
/// Read by the tests and by what they start.
const OF_TESTS: &[&str] = &[
    "SAGAMORE_BLESS",
    "SAGAMORE_FUZZ_SECONDS",
    "SAGAMORE_FUZZ_SEED",
    "SAGAMORE_KILLS",
    "SAGAMORE_KIT",
    "SAGAMORE_PYTHON",
    "SAGAMORE_TRANSACTIONS",
];

/// A line for each that nobody reads.
pub fn unknown(
    command: &clap::Command,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let mut known: Vec<String> = MORE.iter().map(|name| (*name).to_owned()).collect();
    collect(command, &mut known);
    let names = variables.into_iter().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(BEGIN)).collect();
    names.sort_unstable();
    let is_unknown = |name: &&String| {
        !known.contains(name) && !OF_TESTS.contains(&name.as_str()) && !is_of_kubernetes(name)
    };
    // What all begin with makes none of them similar.
    let ends: Vec<String> = known.iter().map(|name| name.trim_start_matches(BEGIN).to_owned()).collect();
    names
        .iter()
        .filter(is_unknown)
        .map(|name| match similar(name.trim_start_matches(BEGIN), &ends) {
            Some(meant) => format!("nobody reads {name}; did you mean {BEGIN}{meant}?"),
            None => format!("nobody reads {name}"),
        })
        .collect()
}

fn collect(command: &clap::Command, known: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(variables.map(str::to_owned));
    command.get_subcommands().for_each(|command| collect(command, known));
}

/// What Kubernetes sets in every container beside a service that is called `sagamore`, or `sagamore-…`.
fn is_of_kubernetes(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| name.ends_with(end))
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_told_with_what_was_meant() {
        let check = |name: &str, then: &[&str]| {
            let told = unknown(&crate::cli::command(), [(name.into(), "x".into())]);
            assert_eq!(told, then, "{name}");
        };
        check("SAGAMORE_LANE", &["nobody reads SAGAMORE_LANE; did you mean SAGAMORE_LANES?"]);
        check("SAGAMORE_KAFAK", &["nobody reads SAGAMORE_KAFAK; did you mean SAGAMORE_KAFKA?"]);
        check("SAGAMORE_", &["nobody reads SAGAMORE_"]);
        for known in [
            "SAGAMORE_LANES",
            "SAGAMORE_LOG",
            "SAGAMORE_REPLY_TOKEN_SECRET_FILE",
            "SAGAMORE_CACHE",
            "SAGAMORE_KILLS",
            "SAGAMORE_SERVICE_HOST",
            "SAGAMORE_SERVICE_PORT_HTTP",
            "SAGAMORE_PORT",
            "SAGAMORE_PORT_8088_TCP_ADDR",
            "PATH",
        ] {
            check(known, &[]);
        }
    }
}

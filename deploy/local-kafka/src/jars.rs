//! Java, and the jars of Kafka: found, or fetched once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use sagamore_launcher::find_on_path;
use sagamore_launcher::maven::{Fetch, FetchError, Shape};

use crate::LaunchError;

/// The version of Kafka that is run.
pub const KAFKA_VERSION: &str = "4.3.0";
const SCALA_VERSION: &str = "2.13";
const LOG4J_VERSION: &str = "2.24.3";
/// The oldest Java this Kafka runs on.
const JAVA_LEAST: u32 = 17;

/// The `java` to use: of `JAVA_HOME`, else the first on the PATH.
pub(crate) fn find_java() -> Result<PathBuf, LaunchError> {
    let of_home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let java =
        of_home.filter(|java| java.is_file()).or_else(|| find_on_path("java")).ok_or(LaunchError::NoJava)?;
    let output =
        Command::new(&java).arg("-version").output().map_err(LaunchError::io("start java -version"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = said.split('"').nth(1).unwrap_or("unknown").to_owned();
    if major(&version).is_none_or(|major| major < JAVA_LEAST) {
        return Err(LaunchError::JavaTooOld { found: version });
    }
    Ok(java)
}

/// The class path of the brokers; fetches the jars if they are not there.
pub(crate) fn classpath() -> Result<String, LaunchError> {
    let fetch = Fetch {
        name: &format!("kafka-{KAFKA_VERSION}"),
        artifacts: &[
            ["org.apache.kafka", &format!("kafka_{SCALA_VERSION}"), KAFKA_VERSION],
            ["org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION],
        ],
        shape: Shape::Jars,
    };
    let jars = fetch.folder(|_| Ok(())).map_err(|error| match error {
        FetchError::NoMaven => LaunchError::NoMaven,
        FetchError::NoCache => LaunchError::NoCache,
        FetchError::Maven { output } => LaunchError::Fetch { output },
        FetchError::Io { doing, cause } => LaunchError::Io { doing, cause },
    })?;
    Ok(jars.join("*").display().to_string())
}

/// `17.0.15` is 17; before Java 9 there was a `1.` in front.
fn major(version: &str) -> Option<u32> {
    let version = version.strip_prefix("1.").unwrap_or(version);
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions() {
        for (version, expected) in [
            ("17.0.15", Some(17)),
            ("21", Some(21)),
            ("1.8.0_392", Some(8)),
            ("25-ea", Some(25)),
            ("unknown", None),
        ] {
            assert_eq!(major(version), expected, "{version}");
        }
    }
}

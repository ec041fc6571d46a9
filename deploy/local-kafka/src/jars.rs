//! Java, and the jars of Kafka: found, or fetched once.
//!
//! The cache is `$SAGAMORE_CACHE`, else `$XDG_CACHE_HOME/sagamore`, else `~/.cache/sagamore`. Whoever fetches holds a
//! file lock, works in a folder of another name, and renames it at the end: a folder of the right name is complete.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::LaunchError;

/// The version of Kafka that is run.
pub const KAFKA_VERSION: &str = "4.3.0";
const SCALA_VERSION: &str = "2.13";
const LOG4J_VERSION: &str = "2.24.3";
/// The oldest Java this Kafka runs on.
const JAVA_LEAST: u32 = 17;
/// How much of Maven's output stands in an error, in characters.
const OUTPUT_TAIL_CHARACTERS: usize = 2_000;

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
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).map_err(LaunchError::io(format!("make {}", cache.display())))?;
    let jars = cache.join(format!("kafka-{KAFKA_VERSION}"));
    if !jars.is_dir() {
        fetch(&cache, &jars)?;
    }
    Ok(jars.join("*").display().to_string())
}

fn cache_dir() -> Result<PathBuf, LaunchError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SAGAMORE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("sagamore")))
        .or_else(|| Some(set("HOME")?.join(".cache/sagamore")))
        .ok_or(LaunchError::NoCache)
}

fn fetch(cache: &Path, jars: &Path) -> Result<(), LaunchError> {
    let lock_file = cache.join(format!("kafka-{KAFKA_VERSION}.lock"));
    let lock = File::create(&lock_file).map_err(LaunchError::io(format!("write {}", lock_file.display())))?;
    lock.lock().map_err(LaunchError::io(format!("lock {}", lock_file.display())))?;
    if jars.is_dir() {
        return Ok(()); // somebody else fetched them while we waited for the lock
    }
    let maven = find_on_path("mvn").ok_or(LaunchError::NoMaven)?;
    let partial = cache.join(format!("kafka-{KAFKA_VERSION}.partial"));
    if partial.exists() {
        // Whoever began it died: we hold the lock.
        fs::remove_dir_all(&partial).map_err(LaunchError::io(format!("remove {}", partial.display())))?;
    }
    fs::create_dir(&partial).map_err(LaunchError::io(format!("make {}", partial.display())))?;
    let pom = partial.join("pom.xml");
    fs::write(&pom, pom_xml()).map_err(LaunchError::io(format!("write {}", pom.display())))?;
    tracing::info!(version = KAFKA_VERSION, into = %jars.display(), "fetching Kafka, once");
    let output = Command::new(maven)
        .args(["-q", "-B", "-Dstyle.color=never", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.join("jars").display()))
        .arg("-f")
        .arg(&pom)
        .stdin(Stdio::null())
        .output()
        .map_err(LaunchError::io("start mvn"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(LaunchError::Fetch { output: tail(&String::from_utf8_lossy(&said)) });
    }
    fs::rename(partial.join("jars"), jars).map_err(LaunchError::io(format!("make {}", jars.display())))?;
    fs::remove_dir_all(&partial).map_err(LaunchError::io(format!("remove {}", partial.display())))
}

fn pom_xml() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>sagamore</groupId>\
         <artifactId>local-kafka</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", &format!("kafka_{SCALA_VERSION}"), KAFKA_VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    )
}

fn find_on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// `17.0.15` is 17; before Java 9 there was a `1.` in front.
fn major(version: &str) -> Option<u32> {
    let version = version.strip_prefix("1.").unwrap_or(version);
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn tail(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(OUTPUT_TAIL_CHARACTERS);
    text.chars().skip(skipped).collect()
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

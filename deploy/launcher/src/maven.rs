//! Artifacts from a Maven repository, fetched once.
//!
//! The cache is `$SAGAMORE_CACHE`, else `$XDG_CACHE_HOME/sagamore`, else `~/.cache/sagamore`. Whoever fetches holds a
//! file lock, works in a folder of another name, and renames it at the end: a folder of the right name is complete.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::find_on_path;

/// How much of Maven's output stands in an error, in characters.
const OUTPUT_TAIL_CHARACTERS: usize = 2_000;

/// What is fetched, and as what.
pub struct Fetch<'a> {
    /// Name of the folder in the cache, with the version.
    pub name: &'a str,
    /// Group, artifact and version of each; what they need comes with them.
    pub artifacts: &'a [[&'a str; 3]],
    /// As jars, or what is in them.
    pub shape: Shape,
}

/// What a folder of the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Jars.
    Jars,
    /// The contents of the jars.
    Contents,
}

/// Why there is no such folder.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not cached, and there is no Maven to fetch it.
    #[error("no `mvn` on the PATH: install Maven (Debian: apt-get install maven)")]
    NoMaven,
    /// There is no place to keep it.
    #[error("no place for a cache: set SAGAMORE_CACHE (or HOME)")]
    NoCache,
    /// Maven could not fetch it.
    #[error("Maven could not fetch it; is a repository reachable?\n{output}")]
    Maven {
        /// The end of what it said.
        output: String,
    },
    /// A file could not be written, or Maven not be started.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system says.
        cause: io::Error,
    },
}

impl FetchError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |cause| Self::Io { doing: doing.into(), cause }
    }
}

impl Fetch<'_> {
    /// The folder, fetched if it is not there; `finish` then makes what is kept of what has come.
    pub fn folder(&self, finish: impl FnOnce(&Path) -> io::Result<()>) -> Result<PathBuf, FetchError> {
        let cache = cache_dir()?;
        fs::create_dir_all(&cache).map_err(FetchError::io(format!("make {}", cache.display())))?;
        let folder = cache.join(self.name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let lock_file = cache.join(format!("{}.lock", self.name));
        let lock =
            File::create(&lock_file).map_err(FetchError::io(format!("write {}", lock_file.display())))?;
        lock.lock().map_err(FetchError::io(format!("lock {}", lock_file.display())))?;
        if folder.is_dir() {
            return Ok(folder); // somebody else fetched it while we waited for the lock
        }
        let partial = cache.join(format!("{}.partial", self.name));
        if partial.exists() {
            // Whoever began it died: we hold the lock.
            fs::remove_dir_all(&partial).map_err(FetchError::io(format!("remove {}", partial.display())))?;
        }
        fs::create_dir(&partial).map_err(FetchError::io(format!("make {}", partial.display())))?;
        let fetched = partial.join("fetched");
        self.run_maven(&partial, &fetched)?;
        finish(&fetched).map_err(FetchError::io(format!("unpack {}", self.name)))?;
        fs::rename(&fetched, &folder).map_err(FetchError::io(format!("make {}", folder.display())))?;
        fs::remove_dir_all(&partial).map_err(FetchError::io(format!("remove {}", partial.display())))?;
        Ok(folder)
    }

    fn run_maven(&self, partial: &Path, into: &Path) -> Result<(), FetchError> {
        let maven = find_on_path("mvn").ok_or(FetchError::NoMaven)?;
        let pom = partial.join("pom.xml");
        fs::write(&pom, self.pom_xml()).map_err(FetchError::io(format!("write {}", pom.display())))?;
        tracing::info!(name = self.name, "fetching, once");
        let goal = match self.shape {
            Shape::Jars => "dependency:copy-dependencies",
            Shape::Contents => "dependency:unpack-dependencies",
        };
        let output = Command::new(maven)
            .args(["-q", "-B", "-Dstyle.color=never", goal, "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", into.display()))
            .arg("-f")
            .arg(&pom)
            .stdin(Stdio::null())
            .output()
            .map_err(FetchError::io("start mvn"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(FetchError::Maven { output: tail(&String::from_utf8_lossy(&said)) })
    }

    fn pom_xml(&self) -> String {
        let dependency = |[group, artifact, version]: &[&str; 3]| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        };
        let dependencies: String = self.artifacts.iter().map(dependency).collect();
        format!(
            "<project><modelVersion>4.0.0</modelVersion><groupId>sagamore</groupId>\
             <artifactId>launcher</artifactId><version>1</version><packaging>pom</packaging>\
             <dependencies>{dependencies}</dependencies></project>\n"
        )
    }
}

fn cache_dir() -> Result<PathBuf, FetchError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SAGAMORE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("sagamore")))
        .or_else(|| Some(set("HOME")?.join(".cache/sagamore")))
        .ok_or(FetchError::NoCache)
}

fn tail(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(OUTPUT_TAIL_CHARACTERS);
    text.chars().skip(skipped).collect()
}

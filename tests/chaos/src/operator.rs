//! What an operator does with the tools of Kafka: leaders that move, groups that are forgotten. librdkafka can ask for
//! neither: it has no reassignment, and its `DeleteGroups` ends the whole process on an assertion when the coordinator
//! dies meanwhile. The Java client can; a small program for it is run on the JDK that runs the brokers, with their jars.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::World;

const PROGRAM: &str = include_str!("Operator.java");

/// Does it; says how much of it was done.
pub fn operate(world: &World, verb: &str, on: &str) -> Result<u64, String> {
    // Two at a time have a file each.
    let folder = world.path().join(format!("operator-{verb}-{on}"));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let file = folder.join("Operator.java");
    std::fs::write(&file, PROGRAM).map_err(|error| error.to_string())?;
    let data = world.kafka().data_dir();
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &classpath(&data)?])
        .arg(&file)
        .args([world.bootstrap(), verb, on])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let why = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
    said.lines().last().unwrap_or_default().parse().map_err(|_| format!("{said} {why}"))
}

/// The one of a broker: it stands in its command line.
fn classpath(kafka_data: &Path) -> Result<String, String> {
    let processes = std::fs::read_dir("/proc").map_err(|error| error.to_string())?;
    let data = kafka_data.display().to_string();
    for process in processes.flatten() {
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        if words.contains(&"kafka.Kafka") && line.contains(&data) {
            let at = words.iter().position(|word| *word == "-cp");
            if let Some(found) = at.and_then(|at| words.get(at + 1)) {
                return Ok((*found).to_owned());
            }
        }
    }
    Err("no broker runs".to_owned())
}

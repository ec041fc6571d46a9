//! Leaders that move: replicas in another order, and the preferred ones elected. librdkafka cannot ask for that, the
//! Java client can: a small program for it is run on the JDK that runs the brokers, with their jars.

use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = include_str!("MoveLeaders.java");

/// Turns the replicas of every partition of our topics by one place. Says how many leaders moved.
pub fn turn(folder: &Path, kafka_data: &Path, bootstrap: &str, prefix: &str) -> Result<u64, String> {
    let file = folder.join("MoveLeaders.java");
    std::fs::write(&file, PROGRAM).map_err(|error| error.to_string())?;
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &classpath(kafka_data)?])
        .arg(&file)
        .args([bootstrap, prefix])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let last = said.lines().last().unwrap_or_default().parse();
    last.map_err(|_| format!("{said}\n{}", String::from_utf8_lossy(&output.stderr)))
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

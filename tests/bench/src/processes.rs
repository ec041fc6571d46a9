//! Processes beside the driver, and what they have cost so far, as Linux counts it.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sagamore_kafka::client::ClientSettings;

/// How Linux counts processor time: hundredths of a second, whatever the kernel does inside.
const TICKS_PER_S: f64 = 100.0;

/// A role of this very program, in a process of its own: lines in, lines out, and it ends with its input.
pub(crate) struct Role {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Role {
    pub fn spawn(name: &str, kafka: &ClientSettings, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([name, "--kafka", kafka.bootstrap()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Ok(Self { child, to, from: BufReader::new(from.ok_or("no pipe")?) })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line it says.
    pub fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err("a process of the bench has ended; its log says why".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Says a line, and waits for the one that answers it.
    pub fn ask(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        writeln!(self.to.as_mut().ok_or("its input is closed")?, "{line}")?;
        self.line()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.to.take());
        self.child.wait().ok();
    }
}

/// `kill -9`. Whoever started the process waits for it.
pub(crate) fn kill(process: u32) -> Result<(), Box<dyn Error>> {
    let status = Command::new("kill").args(["-9", &process.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill -9 {process}: {status}").into()) }
}

/// User and system seconds of a process so far: fields 14 and 15 of `/proc/<pid>/stat`.
pub(crate) fn processor_s(process: u32) -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is a name and may hold anything: count from behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).ok_or("/proc/<pid>/stat has no processor times")?;
    Ok((user + system) / TICKS_PER_S)
}

/// Largest resident memory since [`reset_peak`], in bytes.
pub(crate) fn peak_bytes(process: u32) -> Result<u64, Box<dyn Error>> {
    status_bytes(process, "VmHWM:")
}

/// Resident memory now, in bytes.
pub(crate) fn resident_bytes(process: u32) -> Result<u64, Box<dyn Error>> {
    status_bytes(process, "VmRSS:")
}

/// Lets the peak begin anew; where it may not be written, the peak is that of the process's whole life.
pub(crate) fn reset_peak(process: u32) {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").ok();
}

fn status_bytes(process: u32, label: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(label)).ok_or("no memory in its status")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let own = std::process::id();
        let before = processor_s(own).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 100 {
            std::hint::black_box(begun.elapsed());
        }
        let spent = processor_s(own).unwrap() - before;
        assert!((0.02..2.0).contains(&spent), "{spent} s");
        let resident = resident_bytes(own).unwrap();
        assert!(resident > 100_000 && peak_bytes(own).unwrap() >= resident / 2, "{resident}");
    }
}

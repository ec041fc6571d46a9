//! Processes beside the driver, and what they have cost so far, as Linux counts it.

use std::collections::HashSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sagamore_kafka::client::ClientSettings;
use serde::Serialize;

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

/// User and system seconds of a process so far.
pub(crate) fn processor_s(process: u32) -> Result<f64, Box<dyn Error>> {
    Ok(Stat::of(process)?.own_ticks / TICKS_PER_S)
}

/// The same of a process and of all it has started itself, those that have ended included: a database has a process
/// for each connection.
pub(crate) fn processor_with_children_s(parent: u32) -> Result<f64, Box<dyn Error>> {
    let own = Stat::of(parent)?;
    let others = std::fs::read_dir("/proc")?.flatten();
    // One that ends while this looks has been added to its parent's a moment later.
    let stats = others
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|other| Stat::of(other).ok());
    let children: f64 = stats.filter(|stat| stat.parent == parent).map(|stat| stat.own_ticks).sum();
    Ok((own.own_ticks + own.ended_children_ticks + children) / TICKS_PER_S)
}

/// What `/proc/<pid>/stat` says: fields 4, 14 to 17.
struct Stat {
    parent: u32,
    own_ticks: f64,
    ended_children_ticks: f64,
}

impl Stat {
    fn of(process: u32) -> Result<Self, Box<dyn Error>> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field is a name and may hold anything: count from behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
        let parent = fields.get(1).and_then(|text| text.parse().ok());
        let ticks = |index: usize| Some(number(index)? + number(index + 1)?);
        let (parent, own_ticks, ended_children_ticks) = parent
            .zip(ticks(11))
            .zip(ticks(13))
            .map(|((parent, own), ended)| (parent, own, ended))
            .ok_or("/proc/<pid>/stat has no parent or no processor times")?;
        Ok(Self { parent, own_ticks, ended_children_ticks })
    }
}

/// What a process holds of the system besides memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Footprint {
    pub threads: usize,
    /// Established TCP connections, to brokers and from clients of its API.
    pub connections: usize,
}

impl Footprint {
    pub fn of(process: u32) -> Result<Self, Box<dyn Error>> {
        let threads = std::fs::read_dir(format!("/proc/{process}/task"))?.count();
        let own: HashSet<String> = std::fs::read_dir(format!("/proc/{process}/fd"))?
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter_map(|target| {
                Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            })
            .collect();
        let mut connections = 0;
        for family in ["tcp", "tcp6"] {
            // A machine without IPv6 has no such file.
            let table = std::fs::read_to_string(format!("/proc/{process}/net/{family}")).unwrap_or_default();
            connections += established(&table).filter(|inode| own.contains(*inode)).count();
        }
        Ok(Self { threads, connections })
    }
}

/// Inodes of the established connections in `/proc/net/tcp`: state in the fourth column, inode in the tenth.
fn established(table: &str) -> impl Iterator<Item = &str> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(3) == Some(&"01")).filter_map(|row| row.get(9).copied())
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
    fn a_child_counts_while_it_runs_and_after_its_end() {
        let own = std::process::id();
        let before = processor_with_children_s(own).unwrap();
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; read _";
        let mut child = Command::new("sh")
            .args(["-c", busy])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child_s = processor_s(child.id()).unwrap();
        let running = processor_with_children_s(own).unwrap();
        assert!(child_s > 0.02 && running >= before + child_s, "{before} {child_s} {running}");
        drop(child.stdin.take());
        child.wait().unwrap();
        let ended = processor_with_children_s(own).unwrap();
        assert!(ended >= before + child_s, "{before} {child_s} {ended}");
    }

    #[test]
    fn connections_are_counted_while_they_stand() {
        let own = std::process::id();
        let before = Footprint::of(own).unwrap();
        assert!(before.threads >= 1);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap();
        // Other tests of this process may connect as well.
        assert!(Footprint::of(own).unwrap().connections >= before.connections + 2);
        drop((client, server));
    }

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
        let all = processor_with_children_s(own).unwrap();
        assert!(all >= spent, "{all} s");
        let resident = resident_bytes(own).unwrap();
        assert!(resident > 100_000 && peak_bytes(own).unwrap() >= resident / 2, "{resident}");
    }
}

//! One broker: its folder, its process, and the guard that ends it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::LaunchError;
use crate::properties::{self, Ports};

/// How much of a log stands in an error, in bytes.
const LOG_TAIL_BYTES: u64 = 4_096;

/// `$1` is the folder of the cluster, `$2` the file for what the broker prints, the rest is the broker's command.
/// Says the broker's process id, then nothing. When standard input ends, the broker is killed; when it ends without
/// a word, this process's owner died, and the folder goes too. Ctrl-C is for the owner; it ends us by its end.
const GUARD: &str = r#"
data=$1 console=$2; shift 2
trap '' INT HUP
exec 3<&0
"$@" </dev/null >"$console" 2>&1 3<&- & broker=$!
echo $broker
(
    word=$(cat <&3)
    [ -n "$word" ] || : >"$console.orphaned"
    kill -9 $broker
) >/dev/null 2>&1 & guard=$!
exec 3<&- </dev/null >/dev/null 2>&1
wait $broker
status=$?
# Whoever has the broker's process id next is none of our business.
kill -9 $guard
[ ! -e "$console.orphaned" ] || rm -rf -- "$data"
exit $status
"#;

pub(crate) struct Broker {
    index: usize,
    ports: Ports,
    java: PathBuf,
    classpath: String,
    data: PathBuf,
    folder: PathBuf,
    running: Option<Running>,
}

struct Running {
    guard: Child,
    /// Open as long as the broker shall live.
    lifeline: ChildStdin,
    pid: u32,
}

impl Broker {
    /// Writes the files of the broker at `index` of these; starts nothing.
    pub(crate) fn prepare(
        index: usize,
        cluster: &[Ports],
        data: &Path,
        java: &Path,
        classpath: &str,
    ) -> Result<Self, LaunchError> {
        let folder = data.join(format!("broker-{}", index + 1));
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            std::fs::write(&file, text).map_err(LaunchError::io(format!("write {}", file.display())))
        };
        std::fs::create_dir(&folder).map_err(LaunchError::io(format!("make {}", folder.display())))?;
        write("server.properties", properties::server(index, cluster, &folder.join("log")))?;
        write("log4j2.properties", properties::log4j(&folder.join("kafka.log")))?;
        Ok(Self {
            index,
            ports: cluster[index],
            java: java.to_owned(),
            classpath: classpath.to_owned(),
            data: data.to_owned(),
            folder,
            running: None,
        })
    }

    /// Its node id, counted from 1.
    pub(crate) fn id(&self) -> usize {
        self.index + 1
    }

    /// Every port that answers requests of clients.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        [Some(self.ports.broker), self.ports.client.map(|client| client.port)].into_iter().flatten()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    pub(crate) fn format(&self, cluster_id: &str) -> Result<(), LaunchError> {
        let mut command = Command::new(&self.java);
        command
            .args(self.java_arguments())
            .arg("kafka.tools.StorageTool")
            .args(["format", "-t", cluster_id, "-c"])
            .arg(self.folder.join("server.properties"));
        let output = command.output().map_err(LaunchError::io("start java"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(LaunchError::Format { output: String::from_utf8_lossy(&said).into_owned() })
    }

    pub(crate) fn spawn(&mut self) -> Result<(), LaunchError> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sagamore-kafka-guard"]);
        command.arg(&self.data).arg(self.folder.join("console.log"));
        command.arg(&self.java).args(self.java_arguments());
        command.arg("kafka.Kafka").arg(self.folder.join("server.properties"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = command.spawn().map_err(LaunchError::io("start sh"))?;
        let lifeline = guard.stdin.take().expect("standard input is piped");
        let mut line = String::new();
        BufReader::new(guard.stdout.take().expect("standard output is piped"))
            .read_line(&mut line)
            .map_err(LaunchError::io("read from sh"))?;
        let pid = line.trim().parse().map_err(|cause| {
            LaunchError::io("learn the process id of a broker")(std::io::Error::other(cause))
        })?;
        self.running = Some(Running { guard, lifeline, pid });
        Ok(())
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_none_or(|running| !matches!(running.guard.try_wait(), Ok(None)))
    }

    /// Kills the broker and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let Some(Running { mut guard, mut lifeline, .. }) = self.running.take() else { return };
        // The word says that the folder is still wanted. If it cannot be said, the guard is gone, and the broker too.
        let _ = lifeline.write_all(b"keep\n");
        drop(lifeline);
        if let Err(cause) = guard.wait() {
            tracing::warn!(%cause, broker = self.id(), "the guard of a broker cannot be waited for");
        }
    }

    /// The end of its log, or of what it printed if it did not get as far as a log.
    pub(crate) fn log_tail(&self) -> String {
        let tail = |name| tail_of(&self.folder.join(name)).unwrap_or_default();
        let log = tail("kafka.log");
        if log.is_empty() { tail("console.log") } else { log }
    }

    fn java_arguments(&self) -> Vec<String> {
        vec![
            "-Xmx512m".to_owned(),
            // One collector thread: the machine has other things to do.
            "-XX:+UseSerialGC".to_owned(),
            format!("-Dlog4j2.configurationFile={}", self.folder.join("log4j2.properties").display()),
            "-cp".to_owned(),
            self.classpath.clone(),
        ]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn tail_of(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! One broker: its folder, and its process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use sagamore_launcher::guard::{Guarded, Guarding};
use sagamore_launcher::tail_of;

use crate::LaunchError;
use crate::properties::{self, Ports};

pub(crate) struct Broker {
    index: usize,
    ports: Ports,
    java: PathBuf,
    classpath: String,
    data: PathBuf,
    folder: PathBuf,
    running: Option<Guarded>,
}

impl Broker {
    /// Writes the files of the broker at `index` of these; starts nothing.
    pub(crate) fn prepare(
        index: usize,
        cluster: &[Ports],
        more: &[(&str, &str)],
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
        write("server.properties", properties::server(index, cluster, &folder.join("log"), more))?;
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
        self.running.as_ref().map(Guarded::pid)
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
        let mut command: Vec<OsString> = vec![self.java.clone().into()];
        command.extend(self.java_arguments().into_iter().map(OsString::from));
        command.push("kafka.Kafka".into());
        command.push(self.folder.join("server.properties").into());
        let guarding = Guarding {
            name: "sagamore-kafka-guard",
            folder: &self.data,
            console: &self.folder.join("console.log"),
            ends: "KILL",
            user: None,
        };
        let running = guarding.spawn(command.iter().map(OsString::as_os_str));
        self.running = Some(running.map_err(LaunchError::io("start a broker"))?);
        Ok(())
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_none_or(Guarded::has_ended)
    }

    /// Kills the broker and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
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

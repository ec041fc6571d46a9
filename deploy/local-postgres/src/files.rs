//! PostgreSQL's program, its user, and its processes.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use sagamore_launcher::guard::User;
use sagamore_launcher::maven::{Fetch, Shape};

use crate::LaunchError;

/// The version that is run.
pub const POSTGRES_VERSION: &str = "17.6.0";

/// The folder with `bin`, `lib` and `share`; fetches it if it is not there.
pub(crate) fn program() -> Result<PathBuf, LaunchError> {
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let build = match (os, architecture) {
        ("linux", "x86_64") => "linux-amd64",
        ("linux", "aarch64") => "linux-arm64v8",
        ("macos", "x86_64") => "darwin-amd64",
        ("macos", "aarch64") => "darwin-arm64v8",
        _ => return Err(LaunchError::NoBuild { os, architecture }),
    };
    let artifact = format!("embedded-postgres-binaries-{build}");
    let fetch = Fetch {
        name: &format!("postgres-{POSTGRES_VERSION}"),
        artifacts: &[["io.zonky.test.postgres", &artifact, POSTGRES_VERSION]],
        shape: Shape::Contents,
    };
    Ok(fetch.folder(unpack)?)
}

/// The jar holds one archive, `.txz`.
fn unpack(folder: &Path) -> io::Result<()> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "txz");
    let archive = entries.into_iter().map(|entry| entry.path()).find(is_archive);
    let archive = archive.ok_or_else(|| io::Error::other("there is no .txz in the jar"))?;
    let file = io::BufReader::new(fs::File::open(&archive)?);
    tar::Archive::new(lzma_rust2::XzReader::new(file, true)).unpack(folder)?;
    fs::remove_file(archive)
}

/// Who runs PostgreSQL: we ourselves (`None`), or `nobody` where we are root.
pub(crate) fn user() -> Result<Option<User>, LaunchError> {
    let own = fs::metadata("/proc/self").or_else(|_| fs::metadata(std::env::temp_dir()));
    if own.map_err(LaunchError::io("see who we are"))?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(LaunchError::io("read /etc/passwd"))?;
    let nobody = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let nobody = nobody.into_iter().find_map(|fields| match fields[..] {
        ["nobody", _, uid, gid, ..] => Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? }),
        _ => None,
    });
    nobody.map(Some).ok_or(LaunchError::NoUser)
}

/// The program where its user can reach it; the folder becomes that user's.
pub(crate) fn within_reach(
    program: &Path,
    folder: &Path,
    user: Option<User>,
) -> Result<PathBuf, LaunchError> {
    let Some(User { uid, gid }) = user else { return Ok(program.to_owned()) };
    chown(folder, Some(uid), Some(gid))
        .map_err(LaunchError::io(format!("give away {}", folder.display())))?;
    let copy = folder.join("program");
    copy_tree(program, &copy).map_err(LaunchError::io(format!("copy {}", program.display())))?;
    Ok(copy)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if fs::hard_link(entry.path(), &target).is_err() {
            // Another file system.
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

pub(crate) fn as_user<'c>(command: &'c mut Command, user: Option<User>, folder: &Path) -> &'c mut Command {
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command.current_dir(folder).stdin(Stdio::null())
}

/// The processes that this one has started.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// `kill -9` of what has lost its parent, and waits until it is gone.
pub(crate) fn kill(processes: &[u32]) {
    let is_there = |pid: &&u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    for _ in 0..500 {
        let left: Vec<String> = processes.iter().filter(is_there).map(u32::to_string).collect();
        if left.is_empty() {
            return;
        }
        // Some have ended by themselves meanwhile.
        let _ = Command::new("sh")
            .args(["-c", "kill -9 \"$@\"", "kill"])
            .args(left)
            .stderr(Stdio::null())
            .status();
        thread::sleep(Duration::from_millis(10));
    }
}

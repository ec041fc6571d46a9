//! Where the view's file lies: a folder of the operator, or one that goes with the process.
//!
//! A folder belongs to one process, by a lock that the system gives up with it. So two servers never write one file, and
//! whoever starts finds the temporary folders of those that were killed, and removes them.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::ViewError;

/// What temporary folders are called.
const PREFIX: &str = "sagamore-view-";
/// The file that is locked.
const LOCK: &str = "lock";

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
    _temporary: Option<TempDir>,
}

impl Folder {
    /// The folder that was named, or a temporary one.
    pub(super) fn open(named: Option<&Path>) -> Result<Self, ViewError> {
        let Some(path) = named else { return Self::temporary(&std::env::temp_dir()) };
        let cannot = |cause| ViewError::Folder { path: path.to_owned(), cause };
        fs::create_dir_all(path).map_err(cannot)?;
        let lock = lock(path).map_err(cannot)?.ok_or_else(|| ViewError::InUse(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), _lock: lock, _temporary: None })
    }

    fn temporary(among: &Path) -> Result<Self, ViewError> {
        let cannot = |cause| ViewError::Folder { path: among.to_owned(), cause };
        sweep(among);
        loop {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(among).map_err(cannot)?;
            let path = folder.path().to_owned();
            // Before it is locked it looks like one that was left behind: who starts at the same time removes it.
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock, _temporary: Some(folder) }),
                Ok(None) => {}
                Err(cause) if cause.kind() == ErrorKind::NotFound => {}
                Err(cause) => return Err(ViewError::Folder { path, cause }),
            }
        }
    }

    /// The database.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join("view.sqlite")
    }
}

/// The lock of a folder; none when somebody else has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = folder.join(LOCK);
    let lock = File::create(&file)?;
    match lock.try_lock() {
        // What was locked may have been removed meanwhile.
        Ok(()) => file.symlink_metadata().map(|_| Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Removes what killed processes have left. What cannot be removed is somebody else's, and no trouble of ours.
fn sweep(among: &Path) {
    for entry in fs::read_dir(among).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // One without a lock is just being made.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, folder = %entry.path().display(), "a view that was left behind stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_process_and_what_is_left_behind_goes() {
        let named = tempfile::tempdir().unwrap();
        let first = Folder::open(Some(named.path())).unwrap();
        assert!(matches!(Folder::open(Some(named.path())), Err(ViewError::InUse(_))));
        drop(first);
        Folder::open(Some(named.path())).unwrap();

        let among = tempfile::tempdir().unwrap();
        let left = among.path().join(format!("{PREFIX}left"));
        let in_use = among.path().join(format!("{PREFIX}in-use"));
        for folder in [&left, &in_use] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(LOCK), "").unwrap();
        }
        let lock = File::open(in_use.join(LOCK)).unwrap();
        lock.try_lock().unwrap();
        sweep(among.path());
        assert_eq!((left.exists(), in_use.exists()), (false, true));
    }

    #[test]
    fn those_who_start_at_the_same_time_keep_their_folders() {
        let among = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let folder = Folder::temporary(among.path()).unwrap();
                        fs::write(folder.file(), "rows").unwrap();
                        sweep(among.path());
                        assert!(folder.file().exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(among.path()).unwrap().count(), 0);
    }
}

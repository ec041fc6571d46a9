//! Where the view's file lies: a folder of the operator, or one that goes with the process.
//!
//! A folder belongs to one process, by a lock that the system gives up with it. So two servers never write one file, and
//! whoever starts finds the temporary folders of those that were killed, and removes them.

use std::fs::{self, File, TryLockError};
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
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |cause| ViewError::Folder { path, cause }
        };
        let (path, temporary) = if let Some(path) = named {
            fs::create_dir_all(path).map_err(cannot(path))?;
            (path.to_owned(), None)
        } else {
            let among = std::env::temp_dir();
            sweep(&among);
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&among);
            let folder = folder.map_err(cannot(&among))?;
            (folder.path().to_owned(), Some(folder))
        };
        let lock = File::create(path.join(LOCK)).map_err(cannot(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock, _temporary: temporary }),
            Err(TryLockError::WouldBlock) => Err(ViewError::InUse(path)),
            Err(TryLockError::Error(cause)) => Err(ViewError::Folder { path, cause }),
        }
    }

    /// The database.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join("view.sqlite")
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
}

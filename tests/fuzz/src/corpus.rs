//! What is mutated: small files in `corpus/<target>/`, made once from the samples and the goldens, and everything that
//! was ever found. Findings stay: each ordinary run begins with them.

use std::path::PathBuf;

use crate::root;

/// The files of one target.
#[derive(Debug)]
pub struct Corpus {
    folder: PathBuf,
    /// Name and bytes, by name.
    pub seeds: Vec<(String, Vec<u8>)>,
}

impl Corpus {
    /// Reads the folder of a target.
    pub fn of(target: &str) -> Self {
        let folder = root().join("tests/fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut seeds: Vec<(String, Vec<u8>)> = entries
            .filter_map(|entry| {
                Some((entry.file_name().into_string().ok()?, std::fs::read(entry.path()).ok()?))
            })
            .collect();
        seeds.sort();
        Self { folder, seeds }
    }

    /// Keeps what broke a property.
    pub fn keep(&self, bytes: &[u8]) -> PathBuf {
        // FNV-1a: the same finding gets the same name.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let path = self.folder.join(format!("found-{hash:016x}"));
        // A folder that cannot be written to must not hide the finding, which is printed as well.
        drop(std::fs::create_dir_all(&self.folder).and_then(|()| std::fs::write(&path, bytes)));
        path
    }
}

//! Versions of files, used to detect changes.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Identifies a version of a file: its device, inode and size, and the times of its last change.
///
/// The modification time alone is not sufficient. Tools can preserve it, and a link can be replaced with a link to
/// another file that has the same modification time. In contrast, programs cannot set the change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// Returns the version of a file, or `None` if the file does not exist.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from_metadata(&metadata))
    }

    /// Returns the version of a file with this metadata.
    #[must_use]
    pub fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_file_of_the_same_age_and_size_has_a_different_version() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, link] =
            ["first", "second", "link"].map(|name| directory.path().join(name));
        for path in [&first, &second] {
            fs::write(path, "same size").unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        }
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let before = FileVersion::read(&link);
        assert_eq!(FileVersion::read(&link), before);
        fs::remove_file(&link).unwrap();
        assert_eq!(FileVersion::read(&link), None);
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert_ne!(FileVersion::read(&link), before);
    }
}

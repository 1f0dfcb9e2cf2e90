//! A directory that only its owner can access. It is removed together with its contents when the value is dropped.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The permissions of the directory.
const MODE: u32 = 0o700;
/// The file that is locked while the directory is in use. The kernel releases the lock when the process exits.
const LOCK: &str = ".fjord-run-lock";
/// The minimum age of an abandoned directory. The lock file of a younger directory may not exist yet.
const ABANDONED_AGE: Duration = Duration::from_mins(1);
/// The number of random characters in the name of a temporary directory.
const RANDOM_CHARACTERS: usize = 12;

/// A directory that is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct PrivateDirectory {
    path: PathBuf,
    _lock: File,
}

impl PrivateDirectory {
    /// Creates a directory with a random name in the system's directory for temporary files.
    ///
    /// # Errors
    /// Returns a message that names the directory.
    pub(super) fn temporary(prefix: &str) -> Result<Self, String> {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let random = random.get(..RANDOM_CHARACTERS).unwrap_or_default();
        let path = std::env::temp_dir().join(format!("{prefix}-{random}"));
        create(&path).map_err(|error| format!("{}: cannot be created: {error}", path.display()))
    }

    /// Removes the temporary directories that were left behind by killed processes of this user.
    pub(super) fn remove_abandoned(prefix: &str) {
        remove_abandoned_in(&std::env::temp_dir(), prefix);
    }

    /// Creates a directory with this path. A directory that was left behind by a killed process is replaced. Any other
    /// existing directory is an error.
    ///
    /// # Errors
    /// Returns a message that names the directory.
    pub(super) fn named(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: cannot be created: {error}", path.display());
        let path = std::path::absolute(path).map_err(failed)?;
        match create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let lock = abandoned(&path)?;
                fs::remove_dir_all(&path).map_err(failed)?;
                drop(lock);
                create(&path).map_err(failed)
            }
            created => created.map_err(failed),
        }
    }

    /// Returns the absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // A failure is ignored. The owner may have removed the directory, and no caller could handle any other failure.
        fs::remove_dir_all(&self.path).ok();
    }
}

fn create(path: &Path) -> io::Result<PrivateDirectory> {
    DirBuilder::new().mode(MODE).create(path)?;
    let lock = File::create_new(path.join(LOCK))?;
    lock.lock()?;
    Ok(PrivateDirectory { path: path.to_owned(), _lock: lock })
}

fn remove_abandoned_in(home: &Path, prefix: &str) {
    // Abandoned directories only occupy disk space, so those that cannot be read or removed are left for the next run.
    let Ok(entries) = fs::read_dir(home) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_prefix('-'));
        let is_temporary = random.is_some_and(|random| random.len() == RANDOM_CHARACTERS);
        let changed = entry.metadata().and_then(|directory| directory.modified());
        let is_old = || changed.is_ok_and(|it| it.elapsed().is_ok_and(|age| age > ABANDONED_AGE));
        if is_temporary
            && is_old()
            && let Ok(lock) = abandoned(&entry.path())
        {
            fs::remove_dir_all(entry.path()).ok();
            drop(lock);
        }
    }
}

/// Locks an existing directory that is no longer used by any process, and returns the lock. The directory must be
/// private, belong to this user and contain the lock file, because its contents will be removed.
fn abandoned(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let exists = || format!("{shown}: already exists; expected the name of a new directory");
    let (directory, own) = (fs::symlink_metadata(path), fs::metadata("/proc/self"));
    let is_own = directory.is_ok_and(|directory| {
        let is_owner = own.is_ok_and(|own| own.uid() == directory.uid());
        is_owner && directory.is_dir() && directory.mode() & 0o777 == MODE
    });
    if !is_own {
        return Err(exists());
    }
    // The file is opened only after these checks, because opening a file in another user's directory could block.
    let lock = File::open(path.join(LOCK)).map_err(|_| exists())?;
    match lock.try_lock() {
        // Another process may have replaced the directory before this process locked the file.
        Ok(()) => match (fs::metadata(path.join(LOCK)), lock.metadata()) {
            (Ok(named), Ok(locked)) if named.ino() == locked.ino() => Ok(lock),
            _ => Err(format!("{shown}: another process is using it")),
        },
        Err(TryLockError::WouldBlock) => Err(format!("{shown}: another process is using it")),
        Err(TryLockError::Error(error)) => Err(format!("{shown}: cannot be locked: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_temporary_directory_is_private_and_removed() {
        let directory = PrivateDirectory::temporary("fjord-test").unwrap();
        let path = directory.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        fs::write(path.join("key"), "secret").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn only_an_abandoned_directory_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run");
        let first = PrivateDirectory::named(&path).unwrap();
        let error = PrivateDirectory::named(&path).unwrap_err();
        assert!(error.ends_with("another process is using it"), "{error}");

        drop(first);

        // SIGKILL leaves this state behind: the files exist, but no process holds the lock.
        DirBuilder::new().mode(MODE).create(&path).unwrap();
        fs::write(path.join(LOCK), "").unwrap();
        fs::write(path.join("token"), "old").unwrap();
        let second = PrivateDirectory::named(&path).unwrap();
        assert!(!path.join("token").exists());
        drop(second);

        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "").unwrap();
        for lock in ["lock", LOCK] {
            // A directory that others can read was not created by this type.
            fs::write(path.join(lock), "").unwrap();
            let error = PrivateDirectory::named(&path).unwrap_err();
            assert!(error.contains("already exists"), "{error}");
            assert!(path.join("precious").exists());
        }
    }

    #[test]
    fn directories_of_killed_processes_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let directory = |name: &str, age: Duration| {
            let path = home.path().join(name);
            DirBuilder::new().mode(MODE).create(&path).unwrap();
            fs::write(path.join(LOCK), "").unwrap();
            fs::write(path.join("0.db"), "").unwrap();
            let time = std::time::SystemTime::now() - age;
            File::open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let old = 2 * ABANDONED_AGE;
        let removed = directory("fjord-test-0123456789ab", old);
        let kept = [
            directory("fjord-test-young56789ab", Duration::ZERO),
            directory("fjord-test-other", old),
            directory("fjord-dev-0123456789ab", old),
            directory("fjord-test-locked6789a1", old),
        ];
        let lock = File::open(kept[3].join(LOCK)).unwrap();
        lock.lock().unwrap();
        remove_abandoned_in(home.path(), "fjord-test");
        assert!(!removed.exists());
        assert!(kept.iter().all(|path| path.join("0.db").exists()));
    }
}

//! Creates files either completely or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{self as unix, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The permissions of a file that only its owner may read.
pub const PRIVATE: u32 = 0o600;
/// The permissions of other files, which the umask restricts.
const PUBLIC: u32 = 0o666;

/// A new or replacement file that gets its name once its text is complete. Until then, it is a hidden file with a
/// random name in the same directory. The hidden file is removed when this value is dropped.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    hidden: PathBuf,
    file: File,
}

impl PendingFile {
    /// Creates the hidden file. If the named file exists, copies its permissions and, if this user may set it, its
    /// owner.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub fn create(path: &Path) -> io::Result<Self> {
        let old = match fs::metadata(path) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
        let hidden = path.with_file_name(name);
        let mode = if old.is_some() { PRIVATE } else { PUBLIC };
        let file = File::options().write(true).create_new(true).mode(mode).open(&hidden)?;
        let pending = Self { path: path.to_owned(), hidden, file };
        if let Some(old) = old {
            // Only root may change the owner of a file. Otherwise, the new file belongs to this user.
            if unix::fchown(&pending.file, Some(old.uid()), Some(old.gid())).is_err() {
                unix::fchown(&pending.file, None, Some(old.gid())).ok();
            }
            pending.file.set_permissions(old.permissions())?;
        }
        Ok(pending)
    }

    /// Writes the text and gives the file its name atomically. A process that reads the file gets either the old or the
    /// new text, even after a power failure.
    ///
    /// # Errors
    /// Returns the operating system's error. An existing file is then left unchanged.
    pub fn publish(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.hidden, &self.path)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // The file already has its name, and some file systems cannot sync a directory.
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .ok();
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        // After a successful `publish`, the hidden file no longer exists. Otherwise, the error of `publish` is
        // reported.
        fs::remove_file(&self.hidden).ok();
    }
}

/// Creates a file. If the text cannot be written completely, removes the file again.
///
/// # Errors
/// Returns the operating system's error. If the file exists, returns `AlreadyExists` and leaves the file unchanged.
pub fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        // An error here is ignored in favour of the error that caused the removal.
        fs::remove_file(path).ok();
    })
}

/// Creates or replaces a file that only its owner may read. A process that reads the file gets either the old or the
/// new text.
///
/// # Errors
/// Returns the operating system's error. The file is then not changed.
pub fn replace_private(path: &Path, text: &str) -> io::Result<()> {
    let mut name = OsString::from(path);
    name.push(".new");
    let new = PathBuf::from(name);
    // A killed process may have left this file behind.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&new, text, PRIVATE)?;
    fs::rename(&new, path)
}

/// Replaces an existing file atomically, as `PendingFile` does.
///
/// # Errors
/// Returns the operating system's error. The file is then not changed.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::metadata(path)?;
    PendingFile::create(path)?.publish(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_existing_file_is_replaced_only_on_request() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        create(&path, "first", 0o644).unwrap();
        let error = create(&path, "second", PRIVATE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        fs::write(directory.path().join("token.new"), "left behind").unwrap();
        replace_private(&path, "third").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        create(&path, "first", 0o640).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        // An attacker could guess this name.
        let other = directory.path().join("other");
        fs::write(&other, "other").unwrap();
        unix::symlink(&other, directory.path().join(".a.json.new")).unwrap();
        replace(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        assert!(replace(&directory.path().join("missing"), "x").is_err());
        drop(PendingFile::create(&directory.path().join("missing")).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        PendingFile::create(&directory.path().join("new")).unwrap().publish("x").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("new")).unwrap(), "x");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }
}

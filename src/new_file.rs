//! Creates files completely or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{self as unix, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The permissions of a file that only its owner may read.
pub const PRIVATE: u32 = 0o600;

/// Creates a file. If it cannot be written completely, it is removed again.
///
/// # Errors
/// The operating system's error. `AlreadyExists` if the file exists; it is left unchanged.
pub fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        // The error that caused the removal is reported.
        fs::remove_file(path).ok();
    })
}

/// Creates or replaces a file that only its owner may read. A process that reads it gets either the old or the new text.
///
/// # Errors
/// The operating system's error. The file is then not changed.
pub fn replace_private(path: &Path, text: &str) -> io::Result<()> {
    let mut name = OsString::from(path);
    name.push(".new");
    let new = PathBuf::from(name);
    // A process that was killed may have left the file behind.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&new, text, PRIVATE)?;
    fs::rename(&new, path)
}

/// Replaces a file in one step: a process that reads it gets either the old or the new text, even
/// after a power failure. The permissions and, if this user may set it, the owner stay the same.
/// The text is first written into a hidden file with a random name in the same directory.
///
/// # Errors
/// The operating system's error. The file is then not changed.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let new = path.with_file_name(name);
    let mut file = File::options().write(true).create_new(true).mode(PRIVATE).open(&new)?;
    let mut written = || {
        // Only root may change the owner of a file. If this user is not root, the new file belongs
        // to this user.
        if unix::fchown(&file, Some(old.uid()), Some(old.gid())).is_err() {
            unix::fchown(&file, None, Some(old.gid())).ok();
        }
        file.set_permissions(old.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().inspect_err(|_| {
        // The error that caused the removal is reported.
        fs::remove_file(&new).ok();
    })?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // The file is already replaced, and not every file system can sync a directory.
    File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all()).ok();
    Ok(())
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
        // The name that an attacker could guess.
        let other = directory.path().join("other");
        fs::write(&other, "other").unwrap();
        unix::symlink(&other, directory.path().join(".a.json.new")).unwrap();
        replace(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        assert!(replace(&directory.path().join("missing"), "x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}

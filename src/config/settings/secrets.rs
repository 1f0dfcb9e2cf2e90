//! Paths, files that have to be there, and secrets.

use std::path::{Path, PathBuf};

use super::{Entry, Kind, Origin, Table};
use crate::config::layers::{read_text, reason};
use crate::config::{Secret, limits};

/// What is shown in a secret's place.
const REDACTED: &str = "\"[secret]\"";

impl Table<'_> {
    /// A path; a relative one is taken from the configuration directory.
    pub(in crate::config) fn path_to(&mut self, name: &str) -> Option<PathBuf> {
        self.get::<PathBuf>(name).map(|path| self.settings.directory.join(path))
    }

    /// A path with a default.
    pub(in crate::config) fn path_or(&mut self, name: &str, default: &str) -> PathBuf {
        let path = self.get_or(name, PathBuf::from(default));
        self.settings.directory.join(path)
    }

    /// A file that has to be readable, found among systemd's credentials first. Without it nothing.
    pub(in crate::config) fn file(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.path_to(name)?;
        let path =
            path.file_name().and_then(|file| self.credential(Path::new(file))).unwrap_or(path);
        if self.looks_at_files
            && let Err(error) = std::fs::File::open(&path)
        {
            self.error(name, format!("{}: {}", path.display(), reason(&error)));
        }
        Some(path)
    }

    /// A file that has to be readable and that only we should read.
    pub(in crate::config) fn secret_file(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.file(name)?;
        self.check_mode(name, &path);
        Some(path)
    }

    /// A secret: from systemd's credentials, else from the file that `<name>_file` names, else as it stands.
    ///
    /// The credential is called as the file of `<name>_file`, or without one as the key, with `-` for dots.
    pub(in crate::config) fn secret(&mut self, name: &str) -> Option<Secret> {
        let file_key = format!("{name}_file");
        let file = self.path_to(&file_key);
        let written = self.take(name);
        let inline: Option<String> = written.and_then(|value| self.convert(name, value));
        if written.is_some() && file.is_some() {
            self.error(name, format!("expected either {name} or {file_key}, found both"));
        }
        let credential_name = match &file {
            Some(path) => path.file_name().map(PathBuf::from).unwrap_or_default(),
            None => PathBuf::from(self.path(name).replace('.', "-")),
        };
        let credential = self.credential(&credential_name);
        let (secret, origin) = match (credential.or(file), inline) {
            (Some(path), _) => {
                let origin = Origin::Layer(path.display().to_string());
                (self.read_secret(&file_key, &path), origin)
            }
            (None, Some(text)) => {
                self.warn(name, "a secret stands in the configuration itself: a file is safer");
                (Some(Secret::new(text)), Origin::Layer(self.place(name)))
            }
            (None, None) => (None, Origin::Default),
        };
        let value = secret.as_ref().map(|_| REDACTED.to_owned());
        let entry = Entry { key: self.path(name), value, origin };
        self.settings.findings.borrow_mut().entries.push(entry);
        secret.filter(|secret| {
            let empty = self.looks_at_files && secret.expose().is_empty();
            if empty {
                self.error(name, "expected a secret, found nothing in it".to_owned());
            }
            !empty
        })
    }

    /// Whether a secret is given in some way, as far as this process can know.
    pub(in crate::config) fn has_secret(&self, name: &str) -> bool {
        let credential = PathBuf::from(self.path(name).replace('.', "-"));
        !self.looks_at_files
            || self.has(name)
            || self.has(&format!("{name}_file"))
            || self.credential(&credential).is_some()
    }

    /// Texts that are not shown, such as hashes of keys.
    pub(in crate::config) fn hidden_list(&mut self, name: &str) -> Vec<String> {
        let value = self.take(name);
        let list: Option<Vec<String>> = value.and_then(|value| self.convert(name, value));
        let shown = list.as_ref().map(|list| vec!["[hidden]".to_owned(); list.len()].show());
        self.note(name, shown, value);
        list.unwrap_or_default()
    }

    /// A list that is shown only while no item has a character that secrets come with.
    pub(in crate::config) fn list_without(
        &mut self,
        name: &str,
        mark: char,
    ) -> Option<Vec<String>> {
        let value = self.take(name);
        let list: Option<Vec<String>> = value.and_then(|value| self.convert(name, value));
        let safe = list.as_ref().filter(|list| !list.iter().any(|item| item.contains(mark)));
        self.note(name, safe.map(Kind::show), value);
        list
    }

    fn credential(&self, name: &Path) -> Option<PathBuf> {
        let directory = self.settings.credentials.as_ref().filter(|_| self.looks_at_files)?;
        Some(directory.join(name)).filter(|path| path.is_file())
    }

    fn read_secret(&self, key: &str, path: &Path) -> Option<Secret> {
        if !self.looks_at_files {
            return Some(Secret::new(String::new()));
        }
        match read_text(path, limits::SECRET_FILE_BYTES_MAX) {
            Ok(text) => {
                self.check_mode(key, path);
                Some(Secret::in_file(path, &text))
            }
            Err(why) => {
                self.error(key, format!("{}: {why}", path.display()));
                None
            }
        }
    }

    fn check_mode(&self, name: &str, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let readable_by_others = |mode: u32| mode & 0o004 != 0;
        let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
        if self.looks_at_files && mode.is_ok_and(readable_by_others) {
            self.warn(name, &format!("{}: every user of this host may read it", path.display()));
        }
    }
}

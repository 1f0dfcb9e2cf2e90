//! Reads paths, files and secrets from the settings.

use std::path::{Path, PathBuf};

use super::{ConfiguredFile, SettingEntry, SettingOrigin, SettingValue, SettingsTable};
use crate::config::layers::{io_error_message, read_text};
use crate::config::{Secret, limits};

/// The value that is shown instead of a secret.
const REDACTED: &str = "\"[secret]\"";

/// The permission bits of users other than the owner and the group.
const MODE_OTHERS: u32 = 0o007;

impl SettingsTable<'_> {
    /// Returns a path, resolved against the configuration directory.
    pub(in crate::config) fn get_path(&mut self, name: &str) -> Option<PathBuf> {
        self.get::<PathBuf>(name).map(|path| self.settings.directory.join(path))
    }

    /// Returns a path, or its default.
    pub(in crate::config) fn get_path_or(&mut self, name: &str, default: &str) -> PathBuf {
        let path = self.get_or(name, PathBuf::from(default));
        self.settings.directory.join(path)
    }

    /// Returns the path of a directory, which must be readable.
    pub(in crate::config) fn get_directory(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.get_path(name)?;
        if self.checks_files
            && let Err(error) = std::fs::read_dir(&path)
        {
            let reason = match error.kind() {
                std::io::ErrorKind::NotADirectory => "expected a directory".to_owned(),
                std::io::ErrorKind::NotFound => "no such directory".to_owned(),
                _ => io_error_message(&error),
            };
            self.error(name, format!("{}: {reason}", path.display()));
        }
        Some(path)
    }

    /// Returns the path of a file, which must be readable. If there is a systemd credential with
    /// the file's name, returns the credential's path instead.
    pub(in crate::config) fn get_file(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.get_path(name)?;
        let path =
            path.file_name().and_then(|file| self.credential(Path::new(file))).unwrap_or(path);
        if !self.checks_files {
            return Some(path);
        }
        match std::fs::File::open(&path) {
            Ok(_) => {
                let (key, location) = (self.full_key(name), self.location(name));
                let file = ConfiguredFile { path: path.clone(), key, location };
                self.settings.diagnostics.borrow_mut().files.push(file);
            }
            Err(error) => {
                self.error(name, format!("{}: {}", path.display(), io_error_message(&error)));
            }
        }
        Some(path)
    }

    /// Returns the path of a secret file. Warns if every user can access it.
    pub(in crate::config) fn get_secret_file(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.get_file(name)?;
        self.check_mode(name, &path);
        Some(path)
    }

    /// Returns a secret. The sources are, in order of precedence, a systemd credential,
    /// `<name>_file` and `<name>`.
    ///
    /// The credential has the same name as the file in `<name>_file`. If `<name>_file` is not set,
    /// the credential's name is the full key with `-` instead of dots.
    pub(in crate::config) fn get_secret(&mut self, name: &str) -> Option<Secret> {
        let file_key = format!("{name}_file");
        let file = self.get_path(&file_key);
        let written = self.lookup(name);
        let inline: Option<String> = written.and_then(|value| self.convert(name, value));
        if written.is_some() && file.is_some() {
            self.error(name, format!("expected either {name} or {file_key}, found both"));
        }
        let credential_name = match &file {
            Some(path) => path.file_name().map(PathBuf::from).unwrap_or_default(),
            None => PathBuf::from(self.full_key(name).replace('.', "-")),
        };
        let credential = self.credential(&credential_name);
        let (secret, origin) = match (credential.or(file), inline) {
            (Some(path), _) => {
                let origin = SettingOrigin::Layer(path.display().to_string());
                (self.read_secret(&file_key, &path), origin)
            }
            (None, Some(text)) => {
                self.warn(name, "the secret is in the configuration itself: a file is safer");
                (Some(Secret::new(text)), SettingOrigin::Layer(self.location(name)))
            }
            (None, None) => (None, SettingOrigin::Default),
        };
        let value = secret.as_ref().map(|_| REDACTED.to_owned());
        let entry = SettingEntry { key: self.full_key(name), value, origin };
        self.settings.diagnostics.borrow_mut().entries.push(entry);
        secret.filter(|secret| {
            let empty = self.checks_files && secret.expose().is_empty();
            if empty {
                self.error(name, "expected a secret, found an empty string".to_owned());
            }
            !empty
        })
    }

    /// Returns whether `get_secret` would find a secret. Returns true if files are not checked.
    pub(in crate::config) fn has_secret(&self, name: &str) -> bool {
        let credential = PathBuf::from(self.full_key(name).replace('.', "-"));
        !self.checks_files
            || self.has(name)
            || self.has(&format!("{name}_file"))
            || self.credential(&credential).is_some()
    }

    /// Returns a list that `fjord config` does not show, such as key hashes.
    pub(in crate::config) fn get_hidden_list(&mut self, name: &str) -> Vec<String> {
        let value = self.lookup(name);
        let list: Option<Vec<String>> = value.and_then(|value| self.convert(name, value));
        let shown = list.as_ref().map(|list| vec!["[hidden]".to_owned(); list.len()].to_toml());
        self.record(name, shown, value);
        list.unwrap_or_default()
    }

    /// Returns a list that `fjord config` hides if an item contains `mark`, which indicates a
    /// secret.
    pub(in crate::config) fn get_list_without(
        &mut self,
        name: &str,
        mark: char,
    ) -> Option<Vec<String>> {
        let value = self.lookup(name);
        let list: Option<Vec<String>> = value.and_then(|value| self.convert(name, value));
        let safe = list.as_ref().filter(|list| !list.iter().any(|item| item.contains(mark)));
        self.record(name, safe.map(SettingValue::to_toml), value);
        list
    }

    fn credential(&self, name: &Path) -> Option<PathBuf> {
        let directory = self.settings.credentials.as_ref().filter(|_| self.checks_files)?;
        Some(directory.join(name)).filter(|path| path.is_file())
    }

    fn read_secret(&self, key: &str, path: &Path) -> Option<Secret> {
        if !self.checks_files {
            return Some(Secret::new(String::new()));
        }
        match read_text(path, limits::SECRET_FILE_BYTES_MAX) {
            Ok(text) => {
                self.check_mode(key, path);
                Some(Secret::from_file(path, &text))
            }
            Err(error) => {
                self.error(key, format!("{}: {error}", path.display()));
                None
            }
        }
    }

    fn check_mode(&self, name: &str, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o7777;
        if self.checks_files && mode & MODE_OTHERS != 0 {
            let text = "every user of this host can access it; expected mode 0640 or stricter";
            self.warn(name, &format!("{}: its mode is {mode:04o}: {text}", path.display()));
        }
    }
}

//! Replaces certificates while connections stay open. Invalid files change nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::config::tls::{ClientAuth, ServerTlsConfig};
use crate::lifecycle::Cancel;
use crate::telemetry::{self, names};

use super::{PreparedReload, ServerTls, TlsError};

/// How often the files are checked for changes. A change is used once the files have stayed the
/// same for one interval, so that a certificate is not read before its key has been replaced.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Identifies a version of a file; `None` while the file is missing.
pub(super) type FileVersion = Option<(SystemTime, u64, u64)>;

impl ServerTls {
    /// Reads the given files, or the current ones again, and uses them if they are valid. Returns
    /// whether they are. Logs and counts the result.
    #[must_use = "the old files may still be in use"]
    pub fn reload(&self, files: Option<&ServerTlsConfig>) -> bool {
        self.prepare(files).map(|reload| reload.apply(|| ())).is_ok()
    }

    /// Reads the given files, or the current ones again, for `PreparedReload::apply`.
    ///
    /// # Errors
    /// Returns `TlsError`, which names a file that cannot be used. It is logged and counted here.
    pub fn prepare(&self, files: Option<&ServerTlsConfig>) -> Result<PreparedReload<'_>, TlsError> {
        self.read(files).inspect_err(|error| {
            tracing::error!(
                file = %error.file.display(),
                error = %error.kind,
                source = error.source.as_ref().map(tracing::field::display),
                "cannot use new TLS files; the old ones stay in use"
            );
            count("failed");
        })
    }

    /// Checks the files every `interval` and reloads changed ones until `stop` is set. Cancel safe.
    ///
    /// Compares modification time, inode and size. Unlike a watch on an inode, this detects atomic
    /// renames and replaced links on every file system.
    pub async fn watch(self, interval: Duration, stop: Cancel) {
        let mut loaded = versions(&self.files());
        let mut before = loaded.clone();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = versions(&self.files());
            if now != loaded && now == before {
                let _is_valid = self.reload(None);
                loaded.clone_from(&now);
            }
            before = now;
        }
    }
}

impl PreparedReload<'_> {
    /// Puts the new files into use, then runs `then`. Code that sees the effect of `then` also sees
    /// the new files.
    pub fn apply(self, then: impl FnOnce()) {
        self.store();
        then();
        tracing::info!("using new TLS files");
        count("ok");
    }
}

fn count(result: &str) {
    telemetry::counter(&names::TLS_RELOADS, &[(names::RESULT, result.to_owned())]).increment(1);
}

fn versions(files: &ServerTlsConfig) -> Vec<FileVersion> {
    let pairs = files.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let ca = match &files.client_auth {
        ClientAuth::Off => None,
        ClientAuth::Optional { ca } | ClientAuth::Required { ca } => Some(ca),
    };
    pairs.chain(ca).map(|file| version(file)).collect()
}

pub(super) fn version(file: &Path) -> FileVersion {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
}

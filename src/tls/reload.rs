//! Takes new certificates while connections stay open; a broken file changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::config::tls::{ClientCertificates, ServerTlsConfig};
use crate::lifecycle::Cancel;
use crate::telemetry::{self, names};

use super::{NewFiles, ServerTls, TlsError};

/// How often the files are looked at. A change is taken when it has stood still for one such interval,
/// so that a certificate is not read before its key is there.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// What tells one version of a file from the next; `None` while it is missing.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

impl ServerTls {
    /// Reads every file again, or these in their place. Says whether they were taken; what was before stays otherwise.
    ///
    /// The outcome is logged and counted here.
    #[must_use = "what was before may have stayed"]
    pub fn reload(&self, files: Option<&ServerTlsConfig>) -> bool {
        self.prepare(files).map(|new| new.take(|| ())).is_ok()
    }

    /// Reads every file again, or these in their place, for `NewFiles::take`.
    ///
    /// # Errors
    /// `TlsError` says which cannot be used; it is logged and counted here.
    pub fn prepare(&self, files: Option<&ServerTlsConfig>) -> Result<NewFiles<'_>, TlsError> {
        self.read(files).inspect_err(|error| {
            tracing::error!(
                file = %error.file.display(),
                error = %error.kind,
                source = error.source.as_ref().map(tracing::field::display),
                "cannot take new TLS files; the old ones stay in use"
            );
            count("failed");
        })
    }

    /// Looks at the files every `interval` and reloads when they have changed, until `stop`.
    ///
    /// Safe to drop. By mtime, inode and size: that sees atomic renames and swapped links on every
    /// file system, which a watch on an inode does not.
    pub async fn watch(self, interval: Duration, stop: Cancel) {
        let mut taken = stamps(&self.files());
        let mut before = taken.clone();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = stamps(&self.files());
            if now != taken && now == before {
                let _taken = self.reload(None);
                taken.clone_from(&now);
            }
            before = now;
        }
    }
}

impl NewFiles<'_> {
    /// Stores the files, then runs `then`: whoever sees its effect also sees the new files.
    pub fn take(self, then: impl FnOnce()) {
        self.store();
        then();
        tracing::info!("took new TLS files");
        count("ok");
    }
}

fn count(word: &str) {
    telemetry::counter(&names::TLS_RELOADS, &[(names::RESULT, word.to_owned())]).increment(1);
}

fn stamps(files: &ServerTlsConfig) -> Vec<Stamp> {
    let pairs = files.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let ca = match &files.client_certificates {
        ClientCertificates::Off => None,
        ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => Some(ca),
    };
    pairs.chain(ca).map(|file| stamp(file)).collect()
}

/// The version of a file that is there now.
pub(super) fn stamp(file: &Path) -> Stamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
}

//! Replaces certificates while connections stay open. Invalid files have no effect.

use std::time::Duration;

use crate::config::tls::ServerTlsConfig;
use crate::lifecycle::Cancel;
use crate::telemetry::{self, names};

use super::server_files::server_versions;
use super::{PreparedReload, ServerTls, TlsErrors};

/// The interval at which the files are checked for changes. A change is applied after the files have stayed the same
/// for one interval, so that a certificate is not read before its key has been replaced.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);

impl ServerTls {
    /// Reads the given files, or the current ones again, and puts them into use if they are valid. Returns whether they
    /// are valid. Logs and counts the result.
    #[must_use = "the old files may still be in use"]
    pub fn reload(&self, files: Option<&ServerTlsConfig>) -> bool {
        self.prepare(files).map(|reload| reload.apply(|| ())).is_ok()
    }

    /// Reads the given files, or the current ones again, for `PreparedReload::apply`.
    ///
    /// # Errors
    /// Returns `TlsErrors`, which names each unusable file. The errors have already been logged and counted.
    pub fn prepare(
        &self,
        files: Option<&ServerTlsConfig>,
    ) -> Result<PreparedReload<'_>, TlsErrors> {
        self.read(files).inspect_err(|errors| {
            for error in &errors.0 {
                tracing::error!(
                    file = %error.file.display(),
                    error = %error.kind,
                    source = error.source.as_ref().map(tracing::field::display),
                    "cannot use new TLS files; the old ones stay in use"
                );
            }
            count("failed");
        })
    }

    /// Until `stop` is set, checks the files every `interval` and reloads them if they have changed. Cancel safe.
    ///
    /// Changes are detected by comparing file versions. Unlike a watch on an inode, this works for atomic renames and
    /// replaced links on every file system.
    pub async fn watch(self, interval: Duration, stop: Cancel) {
        let (_, mut before) = self.files_and_versions();
        // Unusable files are not read again until they change.
        let mut unusable = None;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let (files, loaded) = self.files_and_versions();
            let now = server_versions(&files);
            if now != loaded && now == before && unusable.as_ref() != Some(&now) {
                unusable = (!self.reload(None)).then(|| now.clone());
            }
            before = now;
        }
    }
}

impl PreparedReload<'_> {
    /// Puts the new files into use and then runs `then`. Code that observes the effect of `then` also uses the new
    /// files.
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

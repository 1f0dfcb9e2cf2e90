//! Versions of TLS files, by which changes are noticed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::config::tls::{ClientAuth, ServerTlsConfig};

/// Identifies a version of a file; `None` while the file is missing.
pub(super) type FileVersion = Option<(SystemTime, u64, u64)>;

/// Returns the version of a file: its modification time, inode and size.
pub(super) fn version(file: &Path) -> FileVersion {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
}

/// Returns the versions of all files of a listener.
pub(super) fn server_versions(files: &ServerTlsConfig) -> Vec<FileVersion> {
    let pairs = files.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let ca = match &files.client_auth {
        ClientAuth::Off => None,
        ClientAuth::Optional { ca } | ClientAuth::Required { ca } => Some(ca),
    };
    pairs.chain(ca).map(|file| version(file)).collect()
}

//! Versions of the TLS files of a listener, by which changes are detected.

use crate::config::tls::{ClientAuth, ServerTlsConfig};
use crate::file_version::FileVersion;

/// Returns the versions of all files of a listener.
pub(super) fn server_versions(files: &ServerTlsConfig) -> Vec<Option<FileVersion>> {
    let pairs = files.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let ca = match &files.client_auth {
        ClientAuth::Off => None,
        ClientAuth::Optional { ca } | ClientAuth::Required { ca } => Some(ca),
    };
    pairs.chain(ca).map(|file| FileVersion::read(file)).collect()
}

//! The rustls configuration of a client, from its files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::tls::ClientTlsConfig;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A configuration that checks the server's certificate and name.
pub(super) fn client_config(files: &ClientTlsConfig) -> Result<ClientConfig, Cause> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(file) => {
            for certificate in chain(file)? {
                roots.add(certificate)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match &files.identity {
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_file(&identity.key)?;
            Ok(builder.with_client_auth_cert(chain(&identity.certificate)?, key)?)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Cause> {
    Ok(CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?)
}

//! TLS for the served APIs: rustls over futures, from two PEM files.
//!
//! TLS 1.2 and 1.3 only, HTTP/1.1 by ALPN. Certificate and key are read once, when the daemon starts.

use crate::error::{Error, Result};
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::ServerConfig;
use futures_rustls::TlsAcceptor;
use std::path::Path;
use std::sync::Arc;

/// Largest certificate or key file that is read, bytes.
const MAX_PEM: u64 = 1 << 20;

/// An acceptor for this certificate chain and key.
///
/// # Errors
/// `error loading TLS certificate/key: …`, naming the file and what is wrong with it.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    load(certificate, key).map_err(|e| e.context("error loading TLS certificate/key"))
}

fn load(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::invalid(format!("{} is not a PEM certificate: {e}", certificate.display())))?;
    if chain.is_empty() {
        return Err(Error::invalid(format!("{} holds no PEM certificate", certificate.display())));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|e| Error::invalid(format!("{} is not a PEM private key: {e}", key.display())))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|e| {
            Error::invalid(format!("{} and {} do not go together: {e}", certificate.display(), key.display()))
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let io = |e: &std::io::Error| Error::from_io(path.display(), e);
    let length = std::fs::metadata(path).map_err(|e| io(&e))?.len();
    if length > MAX_PEM {
        return Err(Error::invalid(format!(
            "{} is too large for a PEM file ({length} bytes)",
            path.display()
        )));
    }
    std::fs::read(path).map_err(|e| io(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_are_named() {
        let dir = tempfile::tempdir().expect("dir");
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let message =
            |cert: &Path, key: &Path| acceptor(cert, key).err().expect("error").message().to_owned();
        let text = message(&cert, &key);
        assert!(text.starts_with("error loading TLS certificate/key: ") && text.contains("c.pem"), "{text}");
        std::fs::write(&cert, "garbage").expect("write");
        assert!(message(&cert, &key).contains("c.pem holds no PEM certificate"));
    }
}

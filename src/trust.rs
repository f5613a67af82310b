//! Trust for HTTPS as a client (the command line, a daemon behind TLS): the machine's own certificates, or none asked for.
//!
//! A board's certificate is often signed by a home-made authority that was added to the machine's
//! bundle, so that bundle decides. `$SSL_CERT_FILE` names another.

use crate::clock::Timestamp;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{ring, CryptoProvider};
use futures_rustls::rustls::pki_types::{pem::PemObject, CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::error::Error;
use std::sync::Arc;

/// Where systems keep the certificates they trust; the first that exists counts.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificates this machine trusts; `None` when it keeps none.
pub(crate) fn system_roots() -> Option<Vec<CertificateDer<'static>>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let file = named.into_iter().chain(BUNDLES.iter().map(Into::into)).find(|f| f.is_file())?;
    let roots: Vec<_> = CertificateDer::pem_file_iter(file).ok()?.filter_map(Result::ok).collect();
    (!roots.is_empty()).then_some(roots)
}

/// A TLS configuration that verifies, or not.
pub(crate) fn config(verify: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    if !verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_roots().unwrap_or_default());
    if roots.is_empty() {
        return Err("this machine keeps no trusted certificates; name a bundle with SSL_CERT_FILE, or pass \
                    --no-check-certificate"
            .into());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What is wrong with the server's certificate, if that is what went wrong.
pub(super) fn trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let rustls::Error::InvalidCertificate(why) = tls_error(error)? else { return None };
    let at = |time: &UnixTime| {
        let secs = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        format!("{} UTC", Timestamp::from_secs(secs).plain())
    };
    const ACCEPT: &str = "--no-check-certificate accepts any certificate";
    Some(match why {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the certificate of the server expired on {}: renew it there ({ACCEPT})",
            at(not_after)
        ),
        CertificateError::Expired => format!("the certificate of the server expired: renew it there ({ACCEPT})"),
        CertificateError::NotValidYetContext { not_before, time } => format!(
            "the certificate of the server is not valid before {}, and this machine's clock says {}: set the clock \
             that is wrong ({ACCEPT})",
            at(not_before),
            at(time)
        ),
        CertificateError::NotValidYet => {
            format!("the certificate of the server is not valid yet: set the clock that is wrong ({ACCEPT})")
        }
        CertificateError::UnknownIssuer => format!(
            "the certificate of the server is signed by nobody whom this machine trusts: add its authority to the \
             machine's, or name it with SSL_CERT_FILE ({ACCEPT})"
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the certificate of the server is for {}, not for {}: ask under a name that it has ({ACCEPT})",
            presented.join(", "),
            expected.to_str()
        ),
        CertificateError::NotValidForName => {
            format!("the certificate of the server is for another name: ask under a name that it has ({ACCEPT})")
        }
        _ => return None,
    })
}

/// rustls's own error inside what ureq and the system wrap around it.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    // An input/output error passes over its content when asked for its source.
    let content = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(found) = content.and_then(|content| tls_error(content as &(dyn Error + 'static))) {
        return Some(found);
    }
    match error.downcast_ref::<ureq::Error>() {
        Some(ureq::Error::Io(inner)) => tls_error(inner),
        Some(ureq::Error::Rustls(inner)) => Some(inner),
        _ => error.source().and_then(tls_error),
    }
}

/// Accepts any certificate (`--no-check-certificate`); the handshake itself is still verified.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

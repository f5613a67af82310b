//! TLS for the served APIs: rustls over futures, from two PEM files, followed when they change.
//!
//! TLS 1.2 and 1.3 only, HTTP/1.1 by ALPN. Certificates are renewed by programs that know nothing of us, so nobody has
//! to tell us: at a handshake, and every [`LOOK_IDLE`] without one, the files' time, size and inode are compared with what
//! was loaded (at most every [`LOOK_BUSY`]), and new ones serve from that handshake on. What runs goes on under the
//! old ones. A pair that does not load leaves the old one serving, and is complained of once, when it has stayed
//! bad for [`SETTLE`]: two files are never replaced in the same moment.
//!
//! A certificate that expired, is about to, or whose time has not come is told in the log, at start and daily. It is served
//! all the same: a client that checks no certificates is better served than with silence.
//!
//! It must never: log anything of a key, or stop serving because a file changed.

mod certificate;

pub use certificate::{Standing, Validity, SOON};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::runtime;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::{self, ServerConfig};
use futures_rustls::TlsAcceptor;
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Largest certificate or key file that is read, bytes.
const MAX_PEM: u64 = 1 << 20;
/// Shortest time between two looks at the files, however many handshakes there are.
const LOOK_BUSY: Duration = Duration::from_secs(1);
/// Between two looks without any handshake.
const LOOK_IDLE: Duration = Duration::from_secs(3600);
/// How long new files may be bad before that is worth a word.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the same trouble with the certificate's time is told, by the wall clock.
const COMPLAIN: i64 = 24 * 3600;

/// A certificate and its key, as two files. A clone is the same.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    /// What is served with it, for the log: `REST API`.
    what: String,
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    serving: Loaded,
    looked: Instant,
    /// Files that do not load: what they looked like, since when, and whether that was told.
    bad: Option<(Stamps, Instant, bool)>,
    /// When, by the wall clock, the certificate's time was complained of.
    complained: Option<i64>,
}

#[derive(Clone)]
struct Loaded {
    stamps: Stamps,
    config: Arc<ServerConfig>,
    validity: Validity,
}

/// What tells that a file is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

/// Certificate and key. `None`: not there at this moment.
type Stamps = [Option<Stamp>; 2];

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.inner.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// Loads the pair for `what` (`REST API`), complains of the certificate's time if there is reason to, and follows
    /// the files from here on.
    ///
    /// # Errors
    /// `error loading TLS certificate/key: …`, naming the file and what is wrong with it.
    pub async fn open(what: &str, certificate: &Path, key: &Path) -> Result<Tls> {
        let (what, certificate, key) = (what.to_owned(), certificate.to_owned(), key.to_owned());
        let tls = runtime::unblock(move || {
            let serving = load(&certificate, &key)?;
            let state = State { serving, looked: Instant::now(), bad: None, complained: None };
            let inner = Inner { what, certificate, key, state: Mutex::new(state) };
            inner.complain(Timestamp::now());
            inner.warn_of_readers();
            Ok::<_, Error>(Tls { inner: Arc::new(inner) })
        })
        .await?;
        runtime::spawn(follow(Arc::downgrade(&tls.inner))).detach();
        Ok(tls)
    }

    /// What the next handshake is done with.
    pub async fn acceptor(&self) -> TlsAcceptor {
        let due = self.inner.state.lock().looked.elapsed() >= LOOK_BUSY;
        if due {
            let inner = self.inner.clone();
            runtime::unblock(move || inner.look()).await;
        }
        TlsAcceptor::from(self.inner.state.lock().serving.config.clone())
    }
}

/// Looks at the files for as long as they are served.
async fn follow(inner: Weak<Inner>) {
    loop {
        runtime::sleep(LOOK_IDLE).await;
        let Some(inner) = inner.upgrade() else { return };
        runtime::unblock(move || inner.look()).await;
    }
}

impl Inner {
    /// Loads the files if they changed. Blocks.
    fn look(&self) {
        let stamps = [stamp(&self.certificate), stamp(&self.key)];
        {
            let mut state = self.state.lock();
            state.looked = Instant::now();
            if stamps == state.serving.stamps {
                state.bad = None;
                drop(state);
                return self.complain(Timestamp::now());
            }
            if matches!(state.bad, Some((bad, _, true)) if bad == stamps) {
                return;
            }
        }
        match load(&self.certificate, &self.key) {
            Ok(loaded) => {
                log::info!(
                    "{}: the certificate {} changed and serves from now on",
                    self.what,
                    self.certificate.display()
                );
                let mut state = self.state.lock();
                (state.serving, state.bad, state.complained) = (loaded, None, None);
            }
            Err(error) => self.keep_old(stamps, &error),
        }
        self.complain(Timestamp::now());
    }

    fn keep_old(&self, stamps: Stamps, error: &Error) {
        let mut state = self.state.lock();
        let since = match state.bad {
            Some((bad, since, _)) if bad == stamps => since,
            _ => Instant::now(),
        };
        let told = since.elapsed() >= SETTLE;
        state.bad = Some((stamps, since, told));
        drop(state);
        if told {
            log::warn!(
                "{}: the changed certificate is not used, the old one goes on serving: {error}",
                self.what
            );
        }
    }

    /// Says in words that other users can read the key.
    fn warn_of_readers(&self) {
        let key = self.key.display();
        if std::fs::metadata(&self.key).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
            log::warn!(
                "{}: {key} is a private key and other users can read it; close it with: chmod 600 {key}",
                self.what
            );
        }
    }

    /// Says in words that the certificate's time is over, or nearly, or not yet; daily at most.
    fn complain(&self, now: Timestamp) {
        let mut state = self.state.lock();
        if state.complained.is_some_and(|at| (now.secs - at).abs() < COMPLAIN) {
            return;
        }
        if let Some(complaint) = state.serving.validity.complaint(now) {
            state.complained = Some(now.secs);
            drop(state);
            log::warn!("{}: the certificate {} {complaint}", self.what, self.certificate.display());
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: (meta.mtime(), meta.mtime_nsec()),
        size: meta.len(),
        inode: (meta.dev(), meta.ino()),
    })
}

/// When the certificate of a pair of files is good; the pair is checked as for serving.
///
/// # Errors
/// As [`Tls::open`].
pub fn inspect(certificate: &Path, key: &Path) -> Result<Validity> {
    load(certificate, key).map(|loaded| loaded.validity)
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded> {
    // Taken before reading: a file that changes meanwhile is looked at again.
    let stamps = [stamp(certificate), stamp(key)];
    let read = || {
        let (chain, validity) = chain(certificate)?;
        Ok(Loaded { stamps, config: Arc::new(config(chain, certificate, key)?), validity })
    };
    read().map_err(|e: Error| e.context("error loading TLS certificate/key"))
}

fn chain(certificate: &Path) -> Result<(Vec<CertificateDer<'static>>, Validity)> {
    let shown = certificate.display();
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::invalid(format!("{shown} is not a PEM certificate: {e}")))?;
    let Some(first) = chain.first() else {
        return Err(Error::invalid(format!("{shown} holds no PEM certificate")));
    };
    let validity = Validity::read(first).map_err(|e| e.context(shown))?;
    Ok((chain, validity))
}

fn config(chain: Vec<CertificateDer<'static>>, certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| {
        Error::invalid(format!(
            "{} holds no private key in PEM that can be used (is it the certificate, or is it encrypted?)",
            key.display()
        ))
    })?;
    let (shown, secret_file) = (certificate.display(), key.display());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => Error::invalid(format!(
                "{secret_file} is not the private key of the certificate {shown}; give the two files that were made together"
            )),
            e => Error::invalid(format!("{shown} and {secret_file} cannot be served: {e}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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
        let message = || inspect(&cert, &key).expect_err("error").message().to_owned();
        let text = message();
        assert!(text.starts_with("error loading TLS certificate/key: ") && text.contains("c.pem"), "{text}");
        std::fs::write(&cert, "garbage").expect("write");
        assert!(message().contains("c.pem holds no PEM certificate"));
        std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
            .expect("write");
        assert!(message().contains("c.pem: the certificate cannot be read"), "{}", message());
    }
}

//! Certificates for tests, made by `openssl`, good between any two times.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate and its key.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `YYYYMMDDHHMMSSZ`, so many days from now.
pub fn days_from_now(days: i64) -> String {
    let secs = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_secs();
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{}", secs as i64 + days * 86_400), "+%Y%m%d%H%M%SZ"])
        .output()
        .expect("date");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Makes a pair for `localhost` and 127.0.0.1 that signs itself. `None`, having said so, without openssl.
pub fn make(folder: &Path, name: &str, from: i64, to: i64) -> Option<Pair> {
    let work = folder.join(format!("{name}.ca"));
    std::fs::create_dir(&work).expect("folder");
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let at = work.display();
    let config = format!(
        "[ca]\ndefault_ca = x\n[x]\ndatabase = {at}/index\nserial = {at}/serial\nnew_certs_dir = {at}\n\
         default_md = sha256\npolicy = p\nx509_extensions = e\nunique_subject = no\n[p]\ncommonName = supplied\n\
         [e]\nsubjectAltName = DNS:localhost,IP:127.0.0.1\n[req]\ndistinguished_name = d\n[d]\n"
    );
    for (file, text) in [("conf", config.as_str()), ("index", ""), ("serial", "01\n")] {
        std::fs::write(work.join(file), text).expect("written");
    }
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(&work).output();
        let Ok(output) = output else { return false };
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        true
    };
    let key_text = key.to_str().expect("path");
    let subject = format!("/CN={name}");
    let made = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key_text])
        && openssl(&["req", "-new", "-config", "conf", "-key", key_text, "-subj", &subject, "-out", "csr"])
        && openssl(&[
            "ca", "-batch", "-notext", "-selfsign", "-config", "conf", "-keyfile", key_text, "-in", "csr", "-out",
            certificate.to_str().expect("path"), "-startdate", &days_from_now(from), "-enddate", &days_from_now(to),
        ]);
    if !made {
        crate::support::skip("there is no openssl to make certificates with");
        return None;
    }
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    Some(Pair { certificate, key })
}

//! The folder of the peer and what is written in it: modes, service.json, secret, identity, certificate.

use super::{quoted, Finding};
use crate::api::tls::{self, Standing};
use crate::clock::Timestamp;
use crate::config::{Config, Env, Folder, Identity, IpfsSection};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Looks at all of it; gives the configuration if it can be used.
pub(super) fn look(folder: &Folder, env: &Env) -> (Vec<Finding>, Option<Config>) {
    let mut findings = Vec::new();
    let at = quoted(folder.path());
    if !folder.path().is_dir() {
        findings.push(Finding::fail(
            "folder",
            format!("{} does not exist: there is no peer here", folder.path().display()),
            format!("pinfold up -c {at}    (or `pinfold join TOKEN -c {at}`; -c names another folder)"),
        ));
        return (findings, None);
    }
    let (config, warnings) = match Config::load(folder, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            let missing = !folder.service_json().exists();
            let fix = if missing { format!("pinfold up -c {at}") } else { editor(folder) };
            findings.push(Finding::fail("config", error.to_string(), fix));
            return (findings, None);
        }
    };
    modes(folder, &config, &mut findings);
    let warnings: Vec<String> = warnings.into_iter().filter(|w| !w.contains("chmod 600")).collect();
    for warning in &warnings {
        findings.push(Finding::warn("config", warning.clone(), editor(folder)));
    }
    match config.check_exposure(config.cluster.secret.is_none()) {
        Err(error) => findings.push(Finding::fail("config", error.to_string(), editor(folder))),
        Ok(()) if warnings.is_empty() => {
            findings.push(Finding::ok("config", format!("{} is good", folder.service_json().display())));
        }
        Ok(()) => {}
    }
    secret(folder, &config, &mut findings);
    identity(folder, &config, env, &mut findings);
    certificates(folder, &config, &mut findings);
    (findings, Some(config))
}

fn editor(folder: &Folder) -> String {
    format!("edit {}", quoted(&folder.service_json()))
}

/// Files with secrets, and who can read them.
fn modes(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    let mut files: Vec<PathBuf> = vec![folder.service_json(), folder.identity_json()];
    for api in [&config.restapi, &config.pinsvcapi].into_iter().flatten().filter(|api| api.tls()) {
        files.push(config.resolve(folder, &api.ssl_key_file));
    }
    if let IpfsSection::Embedded(node) = &config.ipfs {
        if !node.swarm_key_file.is_empty() {
            files.push(config.resolve(folder, &node.swarm_key_file));
        }
    }
    let open = |path: &Path| path.metadata().is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
    let before = findings.len();
    for path in files.iter().filter(|path| open(path)) {
        findings.push(Finding::warn(
            "folder",
            format!("{} holds a secret and other users of this machine can read it", path.display()),
            format!("chmod 600 {}", quoted(path)),
        ));
    }
    if findings.len() == before {
        findings.push(Finding::ok("folder", "only its owner can read the secrets in it"));
    }
}

fn secret(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    if !config.cluster.secret.is_none() {
        findings.push(Finding::ok("secret", "the cluster has a secret"));
        return;
    }
    let fix = format!(
        "put 64 hexadecimal digits into cluster.secret of {} on every peer; make them with: od -vN 32 -An -tx1 /dev/urandom | tr -d ' \\n'",
        quoted(&folder.service_json())
    );
    let what = "cluster.secret is empty";
    findings.push(match config.check_exposure(false) {
        Err(_) => Finding::fail("secret", format!("{what}: anyone who reaches the cluster port would be a peer"), fix),
        Ok(()) => Finding::warn("secret", format!("{what}: only peers on this machine can be members"), fix),
    });
}

fn identity(folder: &Folder, config: &Config, env: &Env, findings: &mut Vec<Finding>) {
    let file = folder.identity_json();
    if !file.exists() && config.old_identity.is_some() {
        findings.push(Finding::ok(
            "identity",
            "it is in service.json, as in old files; the daemon will copy it to identity.json",
        ));
        return;
    }
    findings.push(match Identity::load(folder, None, env) {
        Ok((identity, _)) => Finding::ok("identity", format!("this is peer {}", identity.peer_id())),
        Err(error) if !file.exists() => Finding::fail(
            "identity",
            error.to_string(),
            format!("copy identity.json back from a backup to {}, or: pinfold init -c {}", quoted(&file), quoted(folder.path())),
        ),
        Err(error) => Finding::fail(
            "identity",
            error.to_string(),
            format!("copy identity.json back from a backup to {}", quoted(&file)),
        ),
    });
}

fn certificates(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    for (section, api) in [("api.restapi", &config.restapi), ("api.pinsvcapi", &config.pinsvcapi)] {
        let Some(api) = api.as_ref().filter(|api| api.tls()) else { continue };
        let (cert, key) =
            (config.resolve(folder, &api.ssl_cert_file), config.resolve(folder, &api.ssl_key_file));
        let renew = format!(
            "put a new certificate at {} and its key at {}; a running daemon takes them by itself",
            quoted(&cert),
            quoted(&key)
        );
        let validity = match tls::inspect(&cert, &key) {
            Ok(validity) => validity,
            Err(error) => {
                findings.push(Finding::fail("certificate", format!("{section}: {error}"), renew));
                continue;
            }
        };
        let now = Timestamp::now();
        let what = |complaint: &str| format!("{section}: the certificate {} {complaint}", cert.display());
        let complaint = validity.complaint(now).unwrap_or_default();
        findings.push(match validity.at(now) {
            Standing::Good => {
                Finding::ok("certificate", what(&format!("is good until {} UTC", validity.not_after.plain())))
            }
            Standing::EndsSoon => Finding::warn("certificate", what(&complaint), renew),
            Standing::Expired => Finding::fail("certificate", what(&complaint), renew),
            Standing::NotYet => {
                Finding::fail("certificate", what(&complaint), format!("timedatectl set-ntp true, or: {renew}"))
            }
        });
    }
}

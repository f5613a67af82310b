//! What a folder holds: service.json of all ages, identity.json, swarm.key, peerstore.

use super::{Config, Env, Folder, Identity, SwarmKey, Upgrade};
use crate::fuzz::folder;

/// Any text as service.json: what is understood, written down, is understood the same and does not change any more; what is
/// old can be upgraded, means the same afterwards, and needs it no more.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let env = Env::empty();
    let Ok((config, _)) = Config::parse("service.json", &text, &env) else { return };
    let written = config.to_text().expect("a configuration is text");
    let (again, _) = Config::parse("service.json", &written, &env).expect("what was written can be read");
    assert!(again.means(&config), "it means something else now:\n{written}");
    assert_eq!(again.to_text().expect("text"), written, "written again it is another file");
    let _ = (config.check_exposure(false), config.check_exposure(true), format!("{config:?}"));

    let base = folder("config");
    let here = Folder::new(&base);
    std::fs::write(here.service_json(), text.as_bytes()).expect("written");
    match Upgrade::plan(&here) {
        Ok(plan) => {
            if plan.is_needed() {
                plan.apply(&here).expect("what was planned can be done");
                let (upgraded, _) = Config::load(&here, &env).expect("it loads");
                assert!(
                    Config { crdt: config.crdt.clone(), ..upgraded }.means(&config),
                    "upgrading has changed what it means"
                );
                assert!(!Upgrade::plan(&here).expect("once more").is_needed(), "done twice it is not done");
            }
        }
        // A file may carry an identity that is none: that is for its owner to mend.
        Err(error) => assert_ne!(error.kind(), crate::Kind::Internal, "{error}"),
    }
    let _ = std::fs::remove_dir_all(&base);
}

/// Any text as identity.json, as a private key, as swarm.key and as peerstore.
pub(crate) fn identity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(key) = SwarmKey::parse(&text) {
        assert_eq!(SwarmKey::parse(&key.to_text()), Some(key));
    }
    if let Ok(identity) = crate::net::Identity::from_base64(&text) {
        let _ = identity.peer_id();
    }
    let base = folder("identity");
    let here = Folder::new(&base);
    std::fs::write(here.identity_json(), text.as_bytes()).expect("written");
    match Identity::load(&here, None, &Env::empty()) {
        Ok((identity, _)) => {
            std::fs::remove_file(here.identity_json()).expect("moved away");
            identity.save_new(&here).expect("saved");
            let (again, _) = Identity::load(&here, None, &Env::empty()).expect("what was saved can be read");
            assert_eq!(again.peer_id(), identity.peer_id());
        }
        Err(error) => assert!(!error.message().is_empty()),
    }
    std::fs::write(here.peerstore(), text.as_bytes()).expect("written");
    if let Ok((addresses, _)) = here.read_peerstore() {
        here.write_peerstore(&addresses).expect("written");
        let (again, warnings) = here.read_peerstore().expect("read again");
        assert_eq!(again, addresses);
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let _ = std::fs::remove_dir_all(&base);
}

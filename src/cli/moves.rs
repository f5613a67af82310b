//! `drain` and `rebalance`: a peer does the work and tells how far it is; this prints it.
//!
//! In text, a line appears when the numbers have changed, so that a log of the output reads well; in JSON every line
//! that the peer sends.

use super::args;
use super::client::{escape, Query};
use super::ctl::Ctl;
use super::failure::{Failure, Outcome};
use super::output::Encoding;
use super::text::plain;
use crate::cluster::MoveProgress;
use hyper::Method;

/// `drain`.
///
/// # Errors
/// What is no peer id, what the API says.
pub fn drain(ctl: &mut Ctl<'_>, args: &args::Drain) -> Outcome {
    let id: libp2p::PeerId = args.peer.parse().map_err(|e| {
        Failure::argument("parsing peer ID", format!("\"{}\" is not a peer ID: {e}", args.peer))
    })?;
    let mut query = Query::default();
    query.switch("undo", args.undo);
    follow(ctl, &query.on(&format!("/peers/{}/drain", escape(id.to_string().as_bytes()))))
}

/// `rebalance`.
///
/// # Errors
/// What the API says.
pub fn rebalance(ctl: &mut Ctl<'_>, args: &args::Rebalance) -> Outcome {
    let mut query = Query::default();
    query.switch("dry-run", args.dry_run);
    follow(ctl, &query.on("/rebalance"))
}

fn follow(ctl: &mut Ctl<'_>, path: &str) -> Outcome {
    let mut answer = ctl.client.open(&Method::POST, path)?;
    let mut last = String::new();
    while let Some(line) = answer.next_line()? {
        let odd = |e| Failure::Transport(format!("the answer to POST {path} is not what it should be: {e}"));
        match ctl.out.encoding {
            Encoding::Json => ctl.out.json(&serde_json::from_slice(&line).map_err(odd)?)?,
            Encoding::Text => {
                let progress: MoveProgress = serde_json::from_slice(&line).map_err(odd)?;
                let words = text(&progress);
                if words != last {
                    ctl.out.text(&words)?;
                    last = words;
                }
            }
        }
        ctl.out.flush()?;
    }
    Ok(())
}

fn text(progress: &MoveProgress) -> String {
    let mut words = String::new();
    for share in &progress.peers {
        let (name, peer) = (plain(&share.peername), plain(&share.peer));
        let (before, after) = (share.before, share.after);
        words.push_str(&format!("{peer} | {name}: {before} copies -> {after}\n"));
    }
    words.push_str(&format!("{}\n", plain(&progress.message)));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PeerShare;

    #[test]
    fn the_last_line_of_a_rebalance_tells_the_shares() {
        let share = PeerShare { peer: "12D3x".into(), peername: "attic\n".into(), before: 9, after: 3 };
        let progress =
            MoveProgress { message: "6 pins would move".into(), peers: vec![share], ..Default::default() };
        let words = text(&progress);
        assert!(words.starts_with("12D3x | attic"), "{words}");
        assert!(words.ends_with(": 9 copies -> 3\n6 pins would move\n"), "{words}");
        assert_eq!(words.lines().count(), 2, "what a peer calls itself breaks no line");
    }
}

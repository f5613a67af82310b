//! `add`: files, folders and URLs to the cluster.
//!
//! Results are printed while the rest is still on its way. The exit code is 0 only when the server said
//! so at the very end: an error in the trailer counts even after a hundred "added" lines.

use super::args::{self, Waiting};
use super::client::Query;
use super::ctl::{pin_options, Ctl};
use super::failure::{Failure, Outcome};
use super::output::Encoding;
use super::progress::{Progress, Unit};
use super::upload::{self, Rules, Source};
use super::{text, wait};
use crate::api::types::{AddedOutput, PinJson};
use crate::tracker::Status;
use hyper::Method;
use serde_json::Value;

/// Answers of `--no-stream` longer than this are refused (16 million files).
const MAX_COLLECTED: u64 = 256 << 20;
/// What ipfs-cluster-ctl sends as the size of a shard; it shows in the pin.
const SHARD_SIZE: u64 = 100 << 20;

/// Runs `add`.
///
/// # Errors
/// As every command.
pub fn run(ctl: &mut Ctl<'_>, args: &args::Add) -> Outcome {
    let rules = Rules { folders: args.recursive || ctl.folders, hidden: args.hidden, nocopy: args.nocopy };
    let waiting = Waiting {
        no_status: true,
        wait: args.wait && !args.no_pin,
        limit: args.wait_limit.unwrap_or(0),
        timeout: args.wait_timeout.clone(),
    };
    let limit = wait::timeout(&waiting)?;
    let query = query(args)?;
    let sources = args.paths.iter().map(|word| Source::of(word, rules)).collect::<Outcome<Vec<_>>>()?;

    let total = if Progress::wanted() { upload::total(&sources, rules) } else { 0 };
    let mut progress = Progress::start("adding", Unit::Bytes, total);
    let upload = upload::start(sources, rules, progress.counter())?;
    let mut answer = ctl.client.upload(&query.on("/add"), upload)?;

    let mut last = None;
    if args.no_stream {
        let whole = answer.read_whole(MAX_COLLECTED)?;
        progress = Progress::none();
        let value: Value = serde_json::from_slice(&whole).map_err(odd)?;
        let items: Vec<AddedOutput> =
            serde_json::from_value::<Option<_>>(value.clone()).map_err(odd)?.unwrap_or_default();
        if ctl.out.encoding == Encoding::Json {
            ctl.out.json(&value)?;
        }
        for item in items {
            show(ctl, args, &item, None)?;
            last = item.cid.or(last);
        }
    } else {
        while let Some(line) = answer.next_line()? {
            let value: Value = serde_json::from_slice(&line).map_err(odd)?;
            let item: AddedOutput = serde_json::from_value(value.clone()).map_err(odd)?;
            if item.cid.is_none() {
                continue;
            }
            progress.print(|| {
                show(ctl, args, &item, Some(&value))?;
                if answer.has_line() {
                    Ok(())
                } else {
                    ctl.out.flush()
                }
            })?;
            last = item.cid;
        }
    }
    drop(progress);
    if args.quieter && ctl.out.encoding == Encoding::Text {
        if let Some(cid) = &last {
            ctl.out.text(&format!("{}\n", text::plain(cid)))?;
        }
    }
    if let (true, Some(cid)) = (waiting.wait, last) {
        ctl.out.flush()?;
        let (pin, _) = ctl.client.ask::<PinJson>(&Method::GET, &format!("/allocations/{cid}"))?;
        wait::until(ctl.client, &pin, Status::Pinned, waiting.limit, limit)?;
    }
    Ok(())
}

fn odd(error: serde_json::Error) -> Failure {
    Failure::Transport(format!("the answer to POST /add is not what it should be: {error}"))
}

/// Prints one result; in JSON `value` as it came.
fn show(ctl: &mut Ctl<'_>, args: &args::Add, item: &AddedOutput, value: Option<&Value>) -> Outcome {
    match (ctl.out.encoding, value) {
        (Encoding::Json, Some(value)) => ctl.out.json(value),
        (Encoding::Json, None) => Ok(()),
        (Encoding::Text, _) if args.quieter => Ok(()),
        (Encoding::Text, _) => {
            let cid = text::plain(item.cid.as_deref().unwrap_or_default());
            if args.quiet {
                ctl.out.text(&format!("{cid}\n"))
            } else {
                ctl.out.text(&format!("added {cid} {}\n", text::plain(&item.name)))
            }
        }
    }
}

fn query(args: &args::Add) -> Outcome<Query> {
    let wrap = args.wrap_with_directory || args.paths.len() > 1;
    let format = args.format.as_deref().unwrap_or("unixfs");
    if format == "car" && wrap {
        return Err(Failure::argument(
            "adding",
            "a CAR file cannot be wrapped in a folder; leave -w out and add one file",
        ));
    }
    let hash = args.hash.as_deref().unwrap_or("sha2-256");
    let cid_version = args.cid_version.unwrap_or(u8::from(hash != "sha2-256"));
    let raw_leaves = args.raw_leaves || cid_version > 0 || args.nocopy;
    let mut query = Query::default();
    pin_options(
        &mut query,
        args.name.as_deref(),
        args.replication_min,
        args.replication_max,
        args.allocations.as_deref(),
        args.expire_in.as_deref(),
        &args.metadata,
    )?;
    query.add("shard-size", &SHARD_SIZE.to_string());
    query.add("format", format);
    query.option("layout", args.layout.as_deref());
    query.option("chunker", args.chunker.as_deref());
    query.add("hash", hash);
    query.add("cid-version", &cid_version.to_string());
    query.add("raw-leaves", if raw_leaves { "true" } else { "false" });
    query.switch("hidden", args.hidden);
    query.switch("wrap-with-directory", wrap);
    query.switch("recursive", true);
    query.switch("local", args.local);
    query.switch("no-pin", args.no_pin);
    query.switch("nocopy", args.nocopy);
    query.add("stream-channels", if args.no_stream { "false" } else { "true" });
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_imply_one_another() {
        let text = |args: &args::Add| query(args).expect("query").on("");
        let base = args::Add { paths: vec!["a".into()], ..args::Add::default() };
        assert!(text(&base).contains("cid-version=0&raw-leaves=false"));
        assert!(text(&args::Add { hash: Some("sha3-512".into()), ..base.clone() })
            .contains("cid-version=1&raw-leaves=true"));
        assert!(text(&args::Add { paths: vec!["a".into(), "b".into()], ..base.clone() })
            .contains("wrap-with-directory=true"));
        let car = args::Add { format: Some("car".into()), wrap_with_directory: true, ..base };
        assert!(query(&car).is_err());
    }
}

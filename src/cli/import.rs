//! `pin import`: a list of pins from a file or from standard input, in one request.
//!
//! A thread of its own reads and hands pieces to the connection, which takes them as fast as the cluster commits: memory
//! does not grow with the list. What the lines say is the peer's to judge; refused lines are printed with their numbers,
//! and make the exit code 1 although the others are done.

use super::args;
use super::client::stream::{Upload, UPLOAD_PIECES};
use super::client::Query;
use super::ctl::{pin_options, Ctl};
use super::failure::{Failure, Outcome};
use super::output::Encoding;
use super::progress::{Counter, Progress, Unit};
use super::text::plain;
use crate::cluster::Imported;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read};

/// Bytes in one piece of the body.
const PIECE: usize = 64 << 10;
/// The answer is one object with a bounded number of refused lines; a longer one is not from a peer.
const MAX_ANSWER: u64 = 1 << 20;
/// Standard input, as a file name.
const STDIN: &str = "-";

/// Runs `pin import`.
///
/// # Errors
/// As every command; [`Failure::Found`] when lines were refused, after they were printed.
pub fn run(ctl: &mut Ctl<'_>, args: &args::PinImport) -> Outcome {
    let mut query = Query::default();
    let both = args.replication.filter(|r| *r != 0);
    pin_options(
        &mut query,
        args.name.as_deref(),
        both.or(args.replication_min),
        both.or(args.replication_max),
        args.allocations.as_deref(),
        args.expire_in.as_deref(),
        &args.metadata,
    )?;
    let failed = |e: io::Error| Failure::argument(format!("reading {}", args.file), e);
    let (source, total): (Box<dyn Read + Send>, u64) = match args.file.as_str() {
        STDIN => (Box::new(io::stdin()), 0),
        path => {
            let file = File::open(path).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            if about.is_dir() {
                return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
            }
            (Box::new(file), about.len())
        }
    };
    let progress = Progress::start("importing", Unit::Bytes, total);
    let upload = read(source, &args.file, progress.counter())?;
    let mut answer = ctl.client.upload(&query.on("/pins"), upload)?;
    let whole = answer.read_whole(MAX_ANSWER)?;
    drop(progress);
    let odd = |e| Failure::Transport(format!("the answer to POST /pins is not what it should be: {e}"));
    let done: Imported = serde_json::from_slice(&whole).map_err(odd)?;
    match ctl.out.encoding {
        Encoding::Json => ctl.out.json(&serde_json::from_slice(&whole).map_err(odd)?)?,
        Encoding::Text => ctl.out.text(&text(&done))?,
    }
    match done.refused {
        0 => Ok(()),
        _ => Err(Failure::Found),
    }
}

/// Starts reading; the body comes out of what is returned.
fn read(mut source: Box<dyn Read + Send>, name: &str, counter: Counter) -> Outcome<Upload> {
    let (sender, pieces) = async_channel::bounded(UPLOAD_PIECES);
    let name = name.to_owned();
    let work = move || loop {
        let mut piece = vec![0; PIECE];
        let next = match source.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => {
                counter.add(read as u64);
                piece.truncate(read);
                Ok(Bytes::from(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(io::Error::other(format!("{name}: {error}"))),
        };
        let over = next.is_err();
        // Nobody listening any more means that the answer came first.
        if sender.send_blocking(next).is_err() || over {
            return;
        }
    };
    std::thread::Builder::new()
        .name("import".into())
        .spawn(work)
        .map_err(|e| Failure::argument("importing", format!("no thread: {e}")))?;
    Ok(Upload { content_type: "application/x-ndjson".to_owned(), pieces })
}

fn text(done: &Imported) -> String {
    let mut words = String::new();
    for refused in &done.errors {
        words.push_str(&format!("line {}: {}\n", refused.line, plain(&refused.error)));
    }
    let more = done.refused.saturating_sub(done.errors.len() as u64);
    if more > 0 {
        words.push_str(&format!("and {more} more\n"));
    }
    words.push_str(&format!(
        "{} added, {} changed, {} there already, {} refused\n",
        done.added, done.changed, done.unchanged, done.refused
    ));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Refused;

    #[test]
    fn the_words_of_an_import() {
        let mut done = Imported { lines: 9, added: 5, changed: 1, unchanged: 1, ..Imported::default() };
        assert_eq!(text(&done), "5 added, 1 changed, 1 there already, 0 refused\n");
        done.refused = 2;
        done.errors = vec![Refused { line: 3, error: "no\x1b[1m CID".into() }];
        assert_eq!(
            text(&done),
            "line 3: no\\u{1b}[1m CID\nand 1 more\n5 added, 1 changed, 1 there already, 2 refused\n"
        );
    }
}

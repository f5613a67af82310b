//! `POST /pins` (pinfold's own): many pins in one request.
//!
//! The body is a list of lines: a CID, or a pin as `GET /allocations` and `state export` write it. It is read as it
//! comes and committed batch by batch (see [`crate::cluster`]'s `bulk`), however long it is; reading waits for
//! committing, so that a fast client is slowed down and never buffered. The query has the options of `POST /pins/CID`,
//! for the lines that are a CID alone. The answer is one object, [`crate::cluster::Imported`].
//!
//! A list that is cut off ends with an error, and its last, incomplete line is never taken for a whole one.

use super::{answer, Call, Rest};
use crate::api::http::Response;
use crate::cluster::Line;
use crate::error::{Error, Result};
use crate::state::transfer::MAX_OBJECT;
use bytes::{Buf, Bytes, BytesMut};
use futures::{stream, Stream, StreamExt};
use hyper::header::CONTENT_TYPE;

/// Bytes of one line; a longer one is refused, and skipped without being kept.
const MAX_LINE: usize = MAX_OBJECT as usize;

impl Rest {
    pub(super) async fn pin_list(&self, call: Call) -> Result<Response> {
        let options = call.query.pin_options()?;
        let kind = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if kind.starts_with("multipart/") {
            return Err(Error::invalid(
                "the list goes into the body as it is, not into a form: curl --data-binary @FILE",
            ));
        }
        let lines = Box::pin(lines(call.body, MAX_LINE));
        answer(&self.cluster.import(lines, options).await?)
    }
}

/// Cuts a body into its lines that are not blank.
fn lines(
    body: impl Stream<Item = Result<Bytes>> + Unpin + Send,
    most: usize,
) -> impl Stream<Item = Result<Line>> + Send {
    let cutter = Cutter { body, most, gathered: BytesMut::new(), skipping: 0, number: 0, done: false };
    stream::unfold(cutter, |mut cutter| async move { Some((cutter.next().await?, cutter)) })
}

struct Cutter<B> {
    body: B,
    most: usize,
    /// What came and is no line yet.
    gathered: BytesMut,
    /// Bytes of a line that is too long, thrown away so far; 0: there is none.
    skipping: usize,
    number: u64,
    done: bool,
}

impl<B: Stream<Item = Result<Bytes>> + Unpin> Cutter<B> {
    async fn next(&mut self) -> Option<Result<Line>> {
        // Where the search for the end of the line goes on.
        let mut looked = 0;
        while !self.done {
            if let Some(end) = self.gathered[looked..].iter().position(|b| *b == b'\n').map(|at| looked + at)
            {
                let text = self.gathered.split_to(end).freeze();
                self.gathered.advance(1);
                looked = 0;
                match self.line(text) {
                    Some(line) => return Some(Ok(line)),
                    None => continue,
                }
            }
            looked = self.gathered.len();
            if looked > self.most {
                self.skipping += looked;
                self.gathered.clear();
                looked = 0;
            }
            match self.body.next().await {
                Some(Ok(more)) => self.gathered.extend_from_slice(&more),
                Some(Err(error)) => {
                    self.done = true;
                    return Some(Err(error));
                }
                None => {
                    self.done = true;
                    let text = self.gathered.split().freeze();
                    return self.line(text).map(Ok);
                }
            }
        }
        None
    }

    /// A line that has ended; `None` when it is blank.
    fn line(&mut self, text: Bytes) -> Option<Line> {
        self.number += 1;
        let bytes = std::mem::take(&mut self.skipping) + text.len();
        if bytes > self.most {
            let why = format!("it has {bytes} bytes, more than the limit of {}", self.most);
            return Some(Line { number: self.number, text: Err(why) });
        }
        let blank = text.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(Line { number: self.number, text: Ok(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a body that comes in these pieces, with a limit of 8 bytes; `!` is an error of the connection.
    fn cut(pieces: &[&'static str]) -> String {
        let pieces = pieces.iter().map(|p| match *p {
            "!" => Err(Error::invalid("cut off")),
            p => Ok(Bytes::from_static(p.as_bytes())),
        });
        let lines: Vec<_> = crate::runtime::block_on(lines(stream::iter(pieces), 8).collect());
        let words = lines.into_iter().map(|line| match line {
            Ok(Line { number, text: Ok(text) }) => format!("{number}:{}", String::from_utf8_lossy(&text)),
            Ok(Line { number, text: Err(why) }) => format!("{number}? {why}"),
            Err(error) => format!("! {error}"),
        });
        words.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn a_body_is_cut_at_the_ends_of_its_lines() {
        assert_eq!(cut(&[]), "");
        assert_eq!(cut(&["\n \n\r\n"]), "");
        assert_eq!(cut(&["a\nb", "c\n", "\n", "d"]), "1:a | 2:bc | 4:d");
        assert_eq!(cut(&["a\r\nb"]), "1:a\r | 2:b");
        assert_eq!(
            cut(&["12345678\n123456789\nx"]),
            "1:12345678 | 2? it has 9 bytes, more than the limit of 8 | 3:x"
        );
        assert_eq!(
            cut(&["1234567890", "1234567890", "1234567890\nx\n"]),
            "1? it has 30 bytes, more than the limit of 8 | 2:x"
        );
        assert_eq!(cut(&["1234567890", "1"]), "1? it has 11 bytes, more than the limit of 8");
    }

    #[test]
    fn what_was_cut_off_is_no_line() {
        assert_eq!(cut(&["a\nbc", "!"]), "1:a | ! cut off");
        assert_eq!(cut(&["a\n", "!", "b\n"]), "1:a | ! cut off");
    }
}

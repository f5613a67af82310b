//! Uploads: `multipart/form-data` as IPFS clients send it, taken apart while it arrives.
//!
//! Files, folders (`application/x-directory`) and symbolic links (`application/symlink`) come as parts whose
//! file name is a URL-encoded path. The parser yields [`AddPart`]s and holds at most one network chunk, one part's
//! headers and one link target. An upload that does not end with its closing boundary is an error: what came
//! before must not pass for the whole.
//!
//! Paths are checked here, once, for everybody behind: relative, `/`-separated, no `.`, `..` or empty
//! component, no NUL, bounded in length.
//!
//! It must never: look at a byte of content, trust a length, or keep an upload in memory.

use super::query::decode;
use crate::cluster::{AddPart, PartKind};
use crate::error::{Error, Result};
use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

/// Longest boundary that is accepted (RFC 2046 allows 70 characters), bytes.
const MAX_BOUNDARY: usize = 200;
/// Longest headers of one part, bytes.
const MAX_PART_HEADERS: usize = 16 << 10;
/// Most that may come before the first boundary, bytes.
const MAX_PREAMBLE: usize = 16 << 10;
/// Longest path of an uploaded file, bytes.
pub const MAX_PATH: usize = 4096;
/// Longest component of that path, bytes; more does not fit a directory of any common file system.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, bytes.
const MAX_TARGET: usize = 4096;
/// Most parts in one upload. Every one becomes an entry that the importer has to remember.
const MAX_PARTS: usize = 2_000_000;

/// The boundary of a `Content-Type: multipart/form-data; boundary=…`.
///
/// # Errors
/// [`crate::Kind::Invalid`] when it is another type, or has no usable boundary.
pub fn boundary(content_type: Option<&str>) -> Result<String> {
    let text = content_type.unwrap_or("");
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(Error::invalid(format!(
            "request Content-Type isn't multipart/form-data but \"{}\"; send the files as a form",
            kind.trim()
        )));
    }
    match parameter(parameters, "boundary") {
        Some(b)
            if !b.is_empty() && b.len() <= MAX_BOUNDARY && b.bytes().all(|c| (0x20..0x7f).contains(&c)) =>
        {
            Ok(b)
        }
        Some(b) => Err(Error::invalid(format!(
            "the multipart boundary must be 1 to {MAX_BOUNDARY} printable characters, not {}",
            b.len()
        ))),
        None => Err(Error::invalid("no multipart boundary param in Content-Type")),
    }
}

/// Takes a body apart.
pub fn parts<S>(body: S, boundary: &str) -> BoxStream<'static, Result<AddPart>>
where
    S: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
{
    let parser = Parser::new(body, boundary);
    futures::stream::unfold(Some(parser), |parser| async move {
        let mut parser = parser?;
        match parser.next().await {
            Ok(Some(part)) => Some((Ok(part), Some(parser))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// What comes next in the stream.
#[derive(Debug, PartialEq, Eq)]
enum At {
    Preamble,
    /// Just behind a boundary.
    Boundary,
    /// In the content of a file.
    File,
    End,
}

struct Parser<S> {
    body: S,
    buffer: BytesMut,
    needle: Needle,
    at: At,
    parts: usize,
    /// For messages: the part that came last.
    last: String,
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Parser<S> {
    fn new(body: S, boundary: &str) -> Self {
        // The first boundary may have no line break before it; with one in front all look the same.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        let needle = Needle::new(format!("\r\n--{boundary}").into_bytes());
        Parser { body, buffer, needle, at: At::Preamble, parts: 0, last: String::new() }
    }

    async fn next(&mut self) -> Result<Option<AddPart>> {
        loop {
            match self.at {
                At::End => return Ok(None),
                At::Preamble => {
                    if let Some(at) = self.needle.find(&self.buffer) {
                        self.buffer.advance(at + self.needle.len());
                        self.at = At::Boundary;
                    } else if self.buffer.len() > MAX_PREAMBLE {
                        return Err(Error::invalid("multipart: no boundary at the beginning of the body"));
                    } else {
                        self.fill().await?;
                    }
                }
                At::Boundary => {
                    if self.closing().await? {
                        self.at = At::End;
                        if self.parts == 0 {
                            return Err(Error::invalid("the upload holds no file"));
                        }
                        // Nothing after the closing boundary counts.
                        continue;
                    }
                    let headers = PartHeaders::parse(&self.header_block().await?)?;
                    self.parts += 1;
                    if self.parts > MAX_PARTS {
                        return Err(Error::too_large(format!(
                            "the upload has more than {MAX_PARTS} files; add it in several requests"
                        )));
                    }
                    self.last.clone_from(&headers.path);
                    let kind = match headers.kind {
                        Kind::File => {
                            self.at = At::File;
                            PartKind::File
                        }
                        Kind::Directory => {
                            self.small_content(0, "a folder").await?;
                            PartKind::Directory
                        }
                        Kind::Symlink => {
                            let target = self.small_content(MAX_TARGET, "a symbolic link").await?;
                            let target = String::from_utf8(target.to_vec())
                                .ok()
                                .filter(|t| !t.is_empty() && !t.contains('\0'));
                            PartKind::Symlink(target.ok_or_else(|| {
                                Error::invalid(format!("the target of the link \"{}\" is no path", self.last))
                            })?)
                        }
                    };
                    return Ok(Some(AddPart::Begin { path: headers.path, kind }));
                }
                At::File => {
                    if let Some(data) = self.content().await? {
                        return Ok(Some(AddPart::Data(data)));
                    }
                }
            }
        }
    }

    /// More bytes, or the error that there are none.
    async fn fill(&mut self) -> Result<()> {
        match self.body.next().await {
            Some(data) => {
                self.buffer.extend_from_slice(&data?);
                Ok(())
            }
            None if self.parts == 0 => Err(Error::invalid(
                "multipart: NextPart: EOF: the body ended before the first part; was it sent whole?",
            )),
            None => Err(Error::invalid(format!(
                "multipart: NextPart: EOF: the upload ended in the middle of \"{}\"",
                self.last
            ))),
        }
    }

    /// Content of the current part; `None` at its end.
    async fn content(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = self.needle.find(&self.buffer) {
                let data = self.buffer.split_to(at).freeze();
                if data.is_empty() {
                    self.buffer.advance(self.needle.len());
                    self.at = At::Boundary;
                    return Ok(None);
                }
                return Ok(Some(data));
            }
            // The last bytes may be the beginning of a boundary.
            let safe = self.buffer.len().saturating_sub(self.needle.len() - 1);
            if safe > 0 {
                return Ok(Some(self.buffer.split_to(safe).freeze()));
            }
            self.fill().await?;
        }
    }

    /// Whole content of a part that must be small.
    async fn small_content(&mut self, limit: usize, what: &str) -> Result<BytesMut> {
        let mut all = BytesMut::new();
        while let Some(data) = self.content().await? {
            all.extend_from_slice(&data);
            if all.len() > limit {
                return Err(Error::invalid(format!(
                    "\"{}\" is {what} but carries more than {limit} bytes of content",
                    self.last
                )));
            }
        }
        Ok(all)
    }

    /// Reads what follows a boundary: `--` (true) or the end of the line (false).
    async fn closing(&mut self) -> Result<bool> {
        loop {
            if self.buffer.starts_with(b"--") {
                return Ok(true);
            }
            if let Some(at) = self.buffer.iter().position(|b| *b != b' ' && *b != b'\t') {
                let rest = &self.buffer[at..];
                if rest.starts_with(b"\r\n") {
                    self.buffer.advance(at + 2);
                    return Ok(false);
                }
                if !(rest == b"\r" || (at == 0 && rest == b"-")) {
                    return Err(Error::invalid("multipart: a boundary line does not end where it should"));
                }
            }
            if self.buffer.len() > MAX_PART_HEADERS {
                return Err(Error::invalid("multipart: a boundary line is too long"));
            }
            self.fill().await?;
        }
    }

    /// The header lines of a part, up to and without the blank line.
    async fn header_block(&mut self) -> Result<Bytes> {
        let blank = Needle::new(b"\r\n\r\n".to_vec());
        loop {
            if self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
                return Ok(Bytes::new());
            }
            if let Some(at) = blank.find(&self.buffer) {
                if at <= MAX_PART_HEADERS {
                    let block = self.buffer.split_to(at).freeze();
                    self.buffer.advance(4);
                    return Ok(block);
                }
            }
            if self.buffer.len() > MAX_PART_HEADERS {
                return Err(Error::too_large(format!(
                    "multipart: the headers of a part are longer than {MAX_PART_HEADERS} bytes"
                )));
            }
            self.fill().await?;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
}

#[derive(Debug, PartialEq, Eq)]
struct PartHeaders {
    path: String,
    kind: Kind,
}

impl PartHeaders {
    fn parse(block: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(block)
            .map_err(|_| Error::invalid("multipart: the headers of a part are not UTF-8"))?;
        let mut headers = PartHeaders { path: String::new(), kind: Kind::File };
        for line in text.split("\r\n").filter(|l| !l.is_empty()) {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| Error::invalid(format!("multipart: \"{line}\" is not a header line")))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-disposition" => {
                    let parameters = value.split_once(';').map_or("", |(_, p)| p);
                    if let Some(name) = parameter(parameters, "filename") {
                        headers.path = path(&name)?;
                    }
                }
                "content-type" => {
                    let kind = value.split(';').next().unwrap_or("").trim();
                    if kind.eq_ignore_ascii_case("application/x-directory") {
                        headers.kind = Kind::Directory;
                    } else if kind.eq_ignore_ascii_case("application/symlink") {
                        headers.kind = Kind::Symlink;
                    } else if kind.to_ascii_lowercase().starts_with("multipart/") {
                        return Err(Error::invalid("multipart: a part inside a part is not understood"));
                    }
                }
                "content-transfer-encoding"
                    if !["binary", "8bit", "7bit"].iter().any(|e| e.eq_ignore_ascii_case(value)) =>
                {
                    return Err(Error::invalid(format!(
                        "multipart: Content-Transfer-Encoding \"{value}\" is not understood; send \"binary\""
                    )));
                }
                _ => {}
            }
        }
        if headers.path.is_empty() && headers.kind != Kind::File {
            return Err(Error::invalid(
                "multipart: a folder or link needs a filename in Content-Disposition",
            ));
        }
        Ok(headers)
    }
}

/// A file name as a checked path. The empty one is a file without a name.
fn path(encoded: &str) -> Result<String> {
    let bad = |why: &str| Error::invalid(format!("the file name \"{encoded}\" {why}"));
    let path = decode(encoded, true).ok_or_else(|| bad("is not valid percent-encoding of UTF-8"))?;
    if path.is_empty() {
        return Ok(path);
    }
    if path.len() > MAX_PATH {
        return Err(Error::invalid(format!(
            "a file name of {} bytes is longer than the longest, {MAX_PATH}",
            path.len()
        )));
    }
    if path.starts_with('/') {
        return Err(bad("is absolute; send it relative to the folder that is added"));
    }
    for component in path.split('/') {
        match component {
            "" | "." | ".." => return Err(bad("has an empty, \".\" or \"..\" component; send it clean")),
            _ if component.len() > MAX_NAME => return Err(bad("has a component of more than 255 bytes")),
            _ if component.contains('\0') => return Err(bad("holds a NUL byte")),
            _ => {}
        }
    }
    Ok(path)
}

/// The value of a parameter in `; name="va\"lue"; other=x`.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['=', ';']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let mut value = String::new();
        rest = match after.strip_prefix('=') {
            None => after,
            Some(after) => match after.trim_start().strip_prefix('"') {
                None => {
                    let end = after.find(';').unwrap_or(after.len());
                    value.push_str(after[..end].trim());
                    &after[end..]
                }
                Some(quoted) => {
                    let mut chars = quoted.chars();
                    while let Some(c) = chars.next() {
                        match c {
                            '"' => break,
                            // Only quotes and backslashes are escaped: Windows browsers send plain ones.
                            '\\' => match chars.clone().next() {
                                Some(next @ ('"' | '\\')) => {
                                    chars.next();
                                    value.push(next);
                                }
                                _ => value.push(c),
                            },
                            _ => value.push(c),
                        }
                    }
                    chars.as_str()
                }
            },
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
}

/// Searches bytes by Horspool's method: it looks at about one byte in a boundary's length.
struct Needle {
    bytes: Vec<u8>,
    skip: [u8; 256],
}

impl Needle {
    fn new(bytes: Vec<u8>) -> Self {
        let clamp = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let mut skip = [clamp(bytes.len()); 256];
        for (at, byte) in bytes.iter().enumerate().take(bytes.len() - 1) {
            skip[usize::from(*byte)] = clamp(bytes.len() - 1 - at);
        }
        Needle { bytes, skip }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn find(&self, hay: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(window) = hay.get(at..at + self.bytes.len()) {
            if window == self.bytes {
                return Some(at);
            }
            at += usize::from(self.skip[usize::from(window[window.len() - 1])]);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;
    use futures::stream;

    /// Parts as lines: `path kind`, then the content joined.
    fn play_in(body: &[u8], step: usize) -> Result<Vec<(String, PartKind, Vec<u8>)>> {
        let chunks: Vec<_> = body.chunks(step.max(1)).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let mut parts = parts(stream::iter(chunks), "b");
        let mut out: Vec<(String, PartKind, Vec<u8>)> = Vec::new();
        block_on(async {
            while let Some(part) = parts.next().await {
                match part? {
                    AddPart::Begin { path, kind } => out.push((path, kind, Vec::new())),
                    AddPart::Data(data) => {
                        assert!(!data.is_empty());
                        out.last_mut().expect("a part began").2.extend_from_slice(&data);
                    }
                }
            }
            Ok(out)
        })
    }

    fn part(disposition: &str, kind: &str, content: &str) -> String {
        let disposition = format!("Content-Disposition: form-data; name=\"file\"; {disposition}");
        format!("--b\r\n{disposition}\r\nContent-Type: {kind}\r\n\r\n{content}\r\n")
    }

    fn upload() -> String {
        [
            part("filename=\"d\"", "application/x-directory", ""),
            part("filename=\"d%2Fa+b.txt\"", "application/octet-stream", "one\r\n--bogus\r\n-"),
            part("filename=\"d%2Fempty\"", "application/octet-stream", ""),
            part("filename=\"d%2Flink\"", "application/symlink", "a b.txt"),
            "--b--\r\nepilogue".to_owned(),
        ]
        .concat()
        .replace("--bogus", "--xogus")
    }

    #[test]
    fn an_upload_is_taken_apart_however_it_arrives() {
        let want = vec![
            ("d".to_owned(), PartKind::Directory, vec![]),
            ("d/a b.txt".to_owned(), PartKind::File, b"one\r\n--xogus\r\n-".to_vec()),
            ("d/empty".to_owned(), PartKind::File, vec![]),
            ("d/link".to_owned(), PartKind::Symlink("a b.txt".into()), vec![]),
        ];
        let body = upload();
        for step in 1..=body.len() {
            assert_eq!(play_in(body.as_bytes(), step).expect("upload"), want, "in steps of {step}");
        }
    }

    #[test]
    fn a_truncated_upload_is_an_error_wherever_it_ends() {
        let body = upload();
        let closing = body.find("--b--").expect("closing") + "--b--".len();
        for end in 0..closing {
            for step in [1, 7, body.len()] {
                let error = play_in(&body.as_bytes()[..end], step).expect_err("truncated");
                assert_eq!(error.kind(), crate::Kind::Invalid, "{end}: {error}");
            }
        }
        play_in(&body.as_bytes()[..closing], 5).expect("whole");
    }

    #[test]
    fn garbage_and_mutations_never_panic() {
        let body = upload().into_bytes();
        // A small linear congruential generator: the same mutations on every run.
        let mut seed = 0x5eed_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below.max(1)
        };
        for round in 0..3_000 {
            let mut mutant = body.clone();
            for _ in 0..=random(4) {
                if mutant.is_empty() {
                    break;
                }
                let at = random(mutant.len());
                match random(4) {
                    0 => mutant[at] = random(256) as u8,
                    1 => drop(mutant.drain(at..(at + random(9)).min(mutant.len()))),
                    2 => mutant.insert(at, b"\r\n-b\"\0"[random(6)]),
                    _ => mutant.truncate(at + 1),
                }
            }
            let step = 1 + random(40);
            let together = play_in(&mutant, mutant.len());
            let apart = play_in(&mutant, step);
            match (together, apart) {
                (Ok(a), Ok(b)) => assert_eq!(a, b, "round {round}"),
                (Err(_), Err(_)) => {}
                (a, b) => panic!("round {round}: how it arrives must not matter: {a:?} {b:?}"),
            }
        }
    }

    #[test]
    fn names_that_could_escape_are_refused() {
        for bad in ["%2Fetc%2Fpasswd", "..", "a%2F..%2Fb", "a%2F%2Fb", "a%2F", ".", "a%00b", "%zz", "%ff"] {
            let body = part(&format!("filename=\"{bad}\""), "text/plain", "x") + "--b--";
            let error = play_in(body.as_bytes(), 1000).expect_err(bad);
            assert!(error.message().contains(bad), "{error}");
        }
        for bad in ["x".repeat(256), "x/".repeat(3000) + "x"] {
            let body = part(&format!("filename=\"{bad}\""), "text/plain", "x") + "--b--";
            play_in(body.as_bytes(), 1000).expect_err("too long");
        }
    }

    #[test]
    fn limits_hold() {
        let long = format!("--b\r\nX: {}", "x".repeat(MAX_PART_HEADERS + 1));
        assert_eq!(play_in(long.as_bytes(), 999).expect_err("headers").kind(), crate::Kind::TooLarge);
        play_in(&vec![b'x'; MAX_PREAMBLE + 10], 999).expect_err("preamble");
        let target = part("filename=\"l\"", "application/symlink", &"t".repeat(MAX_TARGET + 1)) + "--b--";
        play_in(target.as_bytes(), 999).expect_err("link target");
        let folder = part("filename=\"f\"", "application/x-directory", "content") + "--b--";
        play_in(folder.as_bytes(), 999).expect_err("folder with content");
        play_in(b"--b--\r\n", 3).expect_err("no part");
        let quoted = "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nx\r\n--b--";
        play_in(quoted.as_bytes(), 3).expect_err("encoding");
    }

    #[test]
    fn a_part_without_headers_or_name_is_a_nameless_file() {
        let want = vec![(String::new(), PartKind::File, b"x".to_vec())];
        assert_eq!(play_in(b"--b\r\n\r\nx\r\n--b--", 2).expect("no headers"), want);
        let body = b"--b  \r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nx\r\n--b--";
        assert_eq!(play_in(body, 2).expect("no name"), want);
    }

    #[test]
    fn boundaries() {
        let of = |text| boundary(Some(text));
        assert_eq!(of("multipart/form-data; boundary=abc").expect("plain"), "abc");
        assert_eq!(of("Multipart/Form-Data; charset=x; Boundary=\"a b\\\"c\"").expect("quoted"), "a b\"c");
        for bad in ["text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed"]
        {
            of(bad).expect_err(bad);
        }
        boundary(None).expect_err("none");
    }
}

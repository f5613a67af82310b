//! Files and folders as a multipart body, piece by piece.
//!
//! A thread of its own walks the paths in the order of their names, reads, and hands pieces of bounded
//! size to the connection: memory does not grow with what is added. What cannot be read ends the upload
//! with an error that names it; nothing is left out silently except hidden files that were not asked for.
//! Sockets, devices and pipes are refused: reading them might never end.

use super::client::{self, escape, stream::UPLOAD_PIECES};
use super::failure::{Failure, Outcome};
use super::progress::Counter;
use bytes::{Bytes, BytesMut};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes in one piece of the body.
const PIECE: usize = 128 << 10;
/// Folders nested deeper than this are refused: nobody made them by hand.
const MAX_DEPTH: usize = 512;

/// One thing to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, folder or symbolic link, and the name it gets.
    Path(PathBuf, Vec<u8>),
    /// A URL, and the name it gets.
    Url(String, Vec<u8>),
}

/// What to take and how to call it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Take folders.
    pub folders: bool,
    /// Take hidden files.
    pub hidden: bool,
    /// Refer to URLs instead of storing their content.
    pub nocopy: bool,
}

impl Source {
    /// Reads an argument of `add`, and checks that it is there and of a kind that can be added.
    ///
    /// # Errors
    /// [`Failure::Argument`] naming it.
    pub fn of(word: &str, rules: Rules) -> Outcome<Source> {
        let odd = |why: String| Failure::argument(format!("adding {word}"), why);
        if word.starts_with("http://") || word.starts_with("https://") {
            let path = word.split(['?', '#']).next().unwrap_or(word).trim_end_matches('/');
            let name = path.rsplit('/').next().unwrap_or(path);
            return Ok(Source::Url(word.to_string(), name.as_bytes().to_vec()));
        }
        if rules.nocopy {
            return Err(odd("--nocopy is for URLs only".into()));
        }
        let path = PathBuf::from(word);
        let kind = fs::symlink_metadata(&path).map_err(|e| odd(e.to_string()))?.file_type();
        if kind.is_dir() && !rules.folders {
            return Err(odd("it is a folder; -r adds folders with everything in them".into()));
        }
        if !kind.is_dir() && !kind.is_file() && !kind.is_symlink() {
            return Err(odd("it is neither a file nor a folder nor a symbolic link".into()));
        }
        let name = match path.file_name() {
            Some(name) => name.as_bytes().to_vec(),
            // `.`, `..` and `/`: the folder's real name.
            None => fs::canonicalize(&path)
                .map_err(|e| odd(e.to_string()))?
                .file_name()
                .ok_or_else(|| odd("it has no name; add the things in it".into()))?
                .as_bytes()
                .to_vec(),
        };
        Ok(Source::Path(path, name))
    }
}

/// Bytes of all files below `sources`, as far as they can be known beforehand.
pub fn total(sources: &[Source], rules: Rules) -> u64 {
    fn below(path: &Path, hidden: bool, depth: usize) -> u64 {
        let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
        if meta.is_file() {
            return meta.len();
        }
        if !meta.is_dir() || depth > MAX_DEPTH {
            return 0;
        }
        let Ok(entries) = fs::read_dir(path) else { return 0 };
        entries
            .filter_map(Result::ok)
            .filter(|e| hidden || !e.file_name().as_bytes().starts_with(b"."))
            .map(|e| below(&e.path(), hidden, depth + 1))
            .sum()
    }
    sources
        .iter()
        .map(|s| match s {
            Source::Path(path, _) => below(path, rules.hidden, 0),
            Source::Url(..) => 0,
        })
        .sum()
}

/// Starts reading. The body of the upload comes out of what is returned.
///
/// # Errors
/// When there is no randomness or no thread.
pub fn start(sources: Vec<Source>, rules: Rules, counter: Counter) -> Outcome<client::stream::Upload> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|e| Failure::argument("adding", format!("no randomness: {e}")))?;
    let boundary = format!("pinfold-{}", data_encoding::HEXLOWER.encode(&random));
    let (sender, pieces) = async_channel::bounded(UPLOAD_PIECES);
    let content_type = format!("multipart/form-data; boundary={boundary}");
    std::thread::Builder::new()
        .name("upload".into())
        .spawn(move || {
            let mut writer = Writer { sender, boundary, rules, counter, piece: BytesMut::new(), first: true };
            if let Err(error) = writer.all(&sources) {
                // Nobody listening any more means that the answer came first: not our error to tell.
                let _ = writer.sender.send_blocking(Err(error));
            }
        })
        .map_err(|e| Failure::argument("adding", format!("no thread: {e}")))?;
    Ok(client::stream::Upload { content_type, pieces })
}

struct Writer {
    sender: async_channel::Sender<io::Result<Bytes>>,
    boundary: String,
    rules: Rules,
    counter: Counter,
    piece: BytesMut,
    first: bool,
}

/// An I/O error that names what it is about.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

impl Writer {
    fn all(&mut self, sources: &[Source]) -> io::Result<()> {
        for source in sources {
            match source {
                Source::Path(path, name) => self.path(path, name, 0)?,
                Source::Url(url, name) => self.url(url, name)?,
            }
        }
        let end = format!("{}--{}--\r\n", if self.first { "" } else { "\r\n" }, self.boundary);
        self.write(end.as_bytes())?;
        self.flush()
    }

    fn path(&mut self, path: &Path, name: &[u8], depth: usize) -> io::Result<()> {
        let kind = fs::symlink_metadata(path).map_err(|e| about(path, &e))?.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|e| about(path, &e))?;
            self.part(name, "application/symlink", None)?;
            return self.write(target.as_os_str().as_bytes());
        }
        if kind.is_file() {
            let file = fs::File::open(path).map_err(|e| about(path, &e))?;
            self.part(name, "application/octet-stream", None)?;
            return self.content(file).map_err(|e| about(path, &e));
        }
        if !kind.is_dir() {
            return Err(about(path, &io::Error::other("neither a file nor a folder nor a symbolic link")));
        }
        if depth >= MAX_DEPTH {
            return Err(about(
                path,
                &io::Error::other(format!("folders are nested deeper than {MAX_DEPTH}")),
            ));
        }
        self.part(name, "application/x-directory", None)?;
        let mut names = fs::read_dir(path)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(|e| about(path, &e))?;
        names.sort_unstable();
        for entry in names {
            if !self.rules.hidden && entry.as_bytes().starts_with(b".") {
                continue;
            }
            let below = [name, b"/", entry.as_bytes()].concat();
            self.path(&path.join(&entry), &below, depth + 1)?;
        }
        Ok(())
    }

    fn url(&mut self, url: &str, name: &[u8]) -> io::Result<()> {
        let failed = |why: String| io::Error::other(format!("{url}: {why}"));
        let mut answer = client::web_agent().get(url).call().map_err(|e| failed(e.to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("the server answers {}", answer.status())));
        }
        self.part(name, "application/octet-stream", self.rules.nocopy.then_some(url))?;
        // The size of what others serve is theirs to choose; only the cluster's own limits apply.
        let reader = answer.body_mut().with_config().limit(u64::MAX).reader();
        self.content(reader).map_err(|e| failed(e.to_string()))
    }

    fn part(&mut self, name: &[u8], kind: &str, abspath: Option<&str>) -> io::Result<()> {
        let gap = if std::mem::take(&mut self.first) { "" } else { "\r\n" };
        let mut head = format!(
            "{gap}--{}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: {kind}\r\n",
            self.boundary,
            escape(name)
        );
        if let Some(abspath) = abspath.filter(|a| !a.contains(['\r', '\n'])) {
            head.push_str(&format!("Abspath: {abspath}\r\n"));
        }
        head.push_str("\r\n");
        self.write(head.as_bytes())
    }

    fn content(&mut self, mut reader: impl Read) -> io::Result<()> {
        loop {
            let start = self.piece.len();
            self.piece.resize(PIECE.max(start), 0);
            if start == self.piece.len() {
                self.flush()?;
                continue;
            }
            let read = loop {
                match reader.read(&mut self.piece[start..]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.piece.truncate(start + *read.as_ref().unwrap_or(&0));
            match read? {
                0 => return Ok(()),
                n => self.counter.add(n as u64),
            }
            if self.piece.len() >= PIECE {
                self.flush()?;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.sender.send_blocking(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

//! `get`, `cat` and `ls`: content out of the cluster, through the API of one peer.
//!
//! `get` unpacks a tar stream beside the destination and moves it into place at the end, so that a
//! download that breaks off leaves nothing that looks finished. The stream comes from a peer and is not
//! trusted: names must be relative and without `..`, nothing is written through a link of the stream's
//! own making (links are made last), and nothing that exists is replaced unless `--force` says so.

#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/tar.rs"]
pub(crate) mod fuzz;

use super::args;
use super::client::{escape, stream::Reader};
use super::ctl::{parse_cid, Ctl};
use super::failure::{Failure, Outcome};
use super::output::Encoding;
use super::progress::{Progress, Unit};
use super::{humanize, text};
use hyper::Method;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links in one download: they are remembered until its end.
const MAX_LINKS: usize = 100_000;
/// Largest listing of a folder: about two million entries.
const MAX_LISTING: u64 = 256 << 20;
/// Longest name or target of a link, in bytes.
const MAX_NAME: usize = 64 << 10;
/// Bytes copied at a time.
const BUFFER: usize = 64 << 10;

/// `/ipfs/<cid>/…`, escaped, from `CID`, `CID/path` or `/ipfs/CID/path`; and its last part.
fn content_path(word: &str) -> Outcome<(String, String)> {
    let below = word.strip_prefix("/ipfs/").or_else(|| word.strip_prefix("ipfs://")).unwrap_or(word);
    let mut parts = below.split('/').filter(|p| !p.is_empty());
    let cid = parse_cid(parts.next().unwrap_or_default())?.to_string();
    let mut path = format!("/ipfs/{cid}");
    let mut last = cid;
    for part in parts {
        path.push('/');
        path.push_str(&escape(part.as_bytes()));
        last = part.to_string();
    }
    if last == "." || last == ".." {
        return Err(Failure::argument("parsing path", format!("\"{word}\" ends in \"{last}\"")));
    }
    Ok((path, last))
}

/// `cat`
///
/// # Errors
/// As every command.
pub fn cat(ctl: &mut Ctl<'_>, words: &[String]) -> Outcome {
    let paths = words.iter().map(|w| content_path(w)).collect::<Outcome<Vec<_>>>()?;
    for (path, _) in paths {
        let mut answer = ctl.client.open(&Method::GET, &path)?;
        while let Some(piece) = answer.next_piece()? {
            ctl.out.bytes(&piece)?;
        }
    }
    Ok(())
}

/// One entry of a folder, as the API lists it.
#[derive(Clone, Debug, Deserialize)]
struct Entry {
    name: String,
    cid: String,
    #[serde(default)]
    size: u64,
    kind: String,
    #[serde(default)]
    target: Option<String>,
}

/// `<cid> <size> <name>`; folders end in `/` and have no size, links show where they point.
fn entry_line(entry: &Entry) -> String {
    let (cid, name) = (text::plain(&entry.cid), text::plain(&entry.name));
    match (entry.kind.as_str(), &entry.target) {
        ("directory", _) => format!("{cid} - {name}/\n"),
        (_, Some(target)) => format!("{cid} {} {name} -> {}\n", entry.size, text::plain(target)),
        _ => format!("{cid} {} {name}\n", entry.size),
    }
}

/// What `format=json` answers: the thing itself and, for a folder, its entries.
#[derive(Clone, Debug, Deserialize)]
struct Listing {
    cid: String,
    #[serde(default)]
    size: u64,
    kind: String,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    entries: Vec<Entry>,
}

/// `ls`
///
/// # Errors
/// As every command.
pub fn ls(ctl: &mut Ctl<'_>, word: &str) -> Outcome {
    let (path, name) = content_path(word)?;
    let path = format!("{path}?format=json");
    let mut answer = ctl.client.open(&Method::GET, &path)?;
    let whole = answer.read_whole(MAX_LISTING)?;
    let odd = |e| Failure::Transport(format!("the answer to GET {path} is not what it should be: {e}"));
    if ctl.out.encoding == Encoding::Json {
        return ctl.out.json(&serde_json::from_slice(&whole).map_err(odd)?);
    }
    let listing: Listing = serde_json::from_slice(&whole).map_err(odd)?;
    if listing.kind != "directory" {
        let Listing { cid, size, kind, target, .. } = listing;
        return ctl.out.text(&entry_line(&Entry { name, cid, size, kind, target }));
    }
    listing.entries.iter().try_for_each(|entry| ctl.out.text(&entry_line(entry)))
}

/// `get`
///
/// # Errors
/// As every command.
pub fn get(ctl: &mut Ctl<'_>, args: &args::Get) -> Outcome {
    let (path, name) = content_path(&args.what)?;
    let target = destination(args.output.as_deref(), &name);
    if !args.force && fs::symlink_metadata(&target).is_ok() {
        return Err(Failure::argument(
            format!("writing {}", target.display()),
            "it exists already; -o names another place, --force replaces it",
        ));
    }
    let mut answer = ctl.client.open(&Method::GET, &format!("{path}?format=tar"))?;
    let progress = Progress::start("getting", Unit::Bytes, answer.length().unwrap_or(0));
    let counter = progress.counter();
    let mut reader = Reader::new(&mut answer, Box::new(move |n| counter.add(n)));
    let unpacked = Beside::new(&target).and_then(|beside| {
        let what = unpack(&mut reader, &beside.path)?;
        // The end of the body is where the server says whether it was all.
        io::copy(&mut reader, &mut io::sink())?;
        beside.into_place(&target, args.force)?;
        Ok(what)
    });
    let failure = reader.failure.take();
    drop(reader);
    drop(progress);
    let what = match (unpacked, failure) {
        (_, Some(failure)) => return Err(failure),
        (Err(e), None) => return Err(Failure::argument(format!("writing {}", target.display()), e)),
        (Ok(what), None) => what,
    };
    let files = if what.files == 1 { "1 file".into() } else { format!("{} files", what.files) };
    ctl.out.text(&format!(
        "Saved {} ({files}, {})\n",
        text::plain(&target.display().to_string()),
        humanize::bytes(what.bytes)
    ))
}

/// Where a download goes: `-o` itself, or into `-o` when that is a folder.
fn destination(output: Option<&str>, name: &str) -> PathBuf {
    match output {
        None => PathBuf::from(name),
        Some(output) => {
            let path = PathBuf::from(output);
            if path.is_dir() {
                path.join(name)
            } else {
                path
            }
        }
    }
}

/// A place next to the target, taken away again unless the download is moved into place.
struct Beside {
    path: PathBuf,
    done: bool,
}

impl Beside {
    fn new(target: &Path) -> io::Result<Beside> {
        let mut random = [0u8; 6];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().ok_or_else(|| io::Error::other("it has no name"))?);
        name.push(format!(".{}.part", data_encoding::HEXLOWER.encode(&random)));
        Ok(Beside { path: target.with_file_name(name), done: false })
    }

    fn into_place(mut self, target: &Path, force: bool) -> io::Result<()> {
        if force {
            remove(target)?;
        } else if fs::symlink_metadata(target).is_ok() {
            return Err(io::Error::other("it came into being during the download; --force replaces it"));
        }
        fs::rename(&self.path, target)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed is hidden and named .part: it deceives nobody.
            let _ = remove(&self.path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unpacked {
    files: u64,
    bytes: u64,
}

/// Unpacks a tar stream with one root, a file or a folder, as `place`.
fn unpack(reader: &mut dyn Read, place: &Path) -> io::Result<Unpacked> {
    let mut archive = tar::Archive::new(reader);
    let mut what = Unpacked::default();
    let mut root: Option<Vec<u8>> = None;
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut buffer = vec![0u8; BUFFER];
    // Names that do not fit a header come in entries of their own. They are read here, with a limit,
    // because the library would read them whole, whatever their size.
    let (mut long_name, mut long_target) = (None, None);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            tar::EntryType::GNULongName => {
                long_name = Some(long(&mut entry)?);
                continue;
            }
            tar::EntryType::GNULongLink => {
                long_target = Some(long(&mut entry)?);
                continue;
            }
            _ => {}
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let target = long_target.take();
        let (first, below) = inside(&name)?;
        if *root.get_or_insert_with(|| first.clone()) != first {
            return Err(bad(&name, "it is outside of what was asked for"));
        }
        let path = if below.as_os_str().is_empty() { place.to_path_buf() } else { place.join(&below) };
        match entry.header().entry_type() {
            tar::EntryType::Directory => make_folder(&path)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if let (false, Some(parent)) = (below.as_os_str().is_empty(), path.parent()) {
                    make_folder(parent)?;
                }
                let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
                loop {
                    let n = entry.read(&mut buffer)?;
                    if n == 0 {
                        break;
                    }
                    file.write_all(&buffer[..n])?;
                    what.bytes += n as u64;
                }
                what.files += 1;
            }
            tar::EntryType::Symlink => {
                let target = target
                    .or_else(|| entry.link_name_bytes().map(|t| t.into_owned()))
                    .ok_or_else(|| bad(&name, "a link without a target"))?;
                if links.len() >= MAX_LINKS {
                    return Err(bad(&name, "too many symbolic links"));
                }
                links.push((path, PathBuf::from(std::ffi::OsStr::from_bytes(&target))));
            }
            // Whatever else there is has no place in IPFS, or is a kind of header that peers do not send.
            _ => return Err(bad(&name, "neither a file nor a folder nor a symbolic link")),
        }
    }
    // A link below a link would be made wherever that one points to.
    let all: BTreeSet<&Path> = links.iter().map(|(path, _)| path.as_path()).collect();
    if let Some(path) = all.iter().find(|path| path.ancestors().skip(1).any(|above| all.contains(above))) {
        return Err(bad(path.as_os_str().as_bytes(), "it is below a symbolic link"));
    }
    for (path, target) in links {
        if let (true, Some(parent)) = (path != place, path.parent()) {
            make_folder(parent)?;
        }
        std::os::unix::fs::symlink(target, &path)?;
    }
    if root.is_none() {
        return Err(io::Error::other("the peer sent nothing"));
    }
    Ok(what)
}

/// A name that did not fit a header.
fn long(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    entry.take(MAX_NAME as u64 + 1).read_to_end(&mut name)?;
    if name.len() > MAX_NAME {
        return Err(io::Error::other(format!("the peer sent a name of more than {MAX_NAME} bytes")));
    }
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    name.truncate(end);
    Ok(name)
}

/// Makes a folder and those above it. No component can be a link: links are made last.
fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// The first part of a name in the stream, and the rest; only plain parts are allowed.
fn inside(name: &[u8]) -> io::Result<(Vec<u8>, PathBuf)> {
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return Err(bad(name, "the name would lead elsewhere")),
        }
    }
    let Some((first, rest)) = parts.split_first() else {
        return Err(bad(name, "an empty name"));
    };
    Ok((first.as_bytes().to_vec(), rest.iter().collect()))
}

fn bad(name: &[u8], why: &str) -> io::Error {
    let name = String::from_utf8_lossy(name);
    io::Error::other(format!("the peer sent \"{}\", which is refused: {why}", text::plain(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            // Written by hand: the library refuses the names that are tested here.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let body = if *kind == tar::EntryType::Symlink {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
                ""
            } else {
                content
            };
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body.as_bytes()).expect("append");
        }
        builder.into_inner().expect("tar")
    }

    use tar::EntryType::{Char, Directory, Regular, Symlink};

    #[test]
    fn a_folder_is_unpacked_as_it_was() {
        let dir = tempfile::tempdir().expect("dir");
        let place = dir.path().join("out");
        let tar = tar_of(&[
            ("root", Directory, ""),
            ("root/link", Symlink, "a.txt"),
            ("root/a.txt", Regular, "hello"),
            ("root/sub/b", Regular, "b"),
            ("root/empty", Directory, ""),
        ]);
        let what = unpack(&mut tar.as_slice(), &place).expect("unpack");
        assert_eq!(what, Unpacked { files: 2, bytes: 6 });
        assert_eq!(fs::read(place.join("link")).expect("through the link"), b"hello");
        assert_eq!(fs::read(place.join("sub/b")).expect("sub"), b"b");
        assert!(place.join("empty").is_dir());
    }

    #[test]
    fn no_link_is_made_through_another_one() {
        let dir = tempfile::tempdir().expect("dir");
        let place = dir.path().join("in").join("out");
        fs::create_dir(dir.path().join("in")).expect("a folder");
        for entries in [
            [("root", Symlink, "../"), ("root/a", Symlink, "b")],
            [("root/a/b", Symlink, "c"), ("root/a", Symlink, "../../..")],
        ] {
            let refused = unpack(&mut tar_of(&entries).as_slice(), &place).expect_err("refused");
            assert!(refused.to_string().contains("below a symbolic link"), "{refused}");
            let _ = fs::remove_dir_all(&place);
            assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing outside");
            assert_eq!(fs::read_dir(dir.path().join("in")).expect("listed").count(), 0);
        }
    }

    #[test]
    fn a_single_file_takes_the_place_itself() {
        let dir = tempfile::tempdir().expect("dir");
        let place = dir.path().join("f");
        unpack(&mut tar_of(&[("QmX", Regular, "x")]).as_slice(), &place).expect("unpack");
        assert_eq!(fs::read(&place).expect("file"), b"x");
    }

    #[test]
    fn long_names_are_read_up_to_a_limit() {
        use tar::EntryType::{GNULongLink, GNULongName};
        let dir = tempfile::tempdir().expect("dir");
        let name = format!("root/{}", "n".repeat(150));
        let target = "t".repeat(150);
        let tar = tar_of(&[
            ("././@LongLink", GNULongName, &format!("{name}\0")),
            ("root/cut", Regular, "x"),
            ("././@LongLink", GNULongLink, &target),
            ("root/l", Symlink, "cut"),
            ("root/m", Symlink, "short"),
        ]);
        let place = dir.path().join("a");
        unpack(&mut tar.as_slice(), &place).expect("unpack");
        assert_eq!(fs::read(place.join("n".repeat(150))).expect("file"), b"x");
        assert_eq!(fs::read_link(place.join("l")).expect("link"), PathBuf::from(&target));
        assert_eq!(fs::read_link(place.join("m")).expect("link"), PathBuf::from("short"));
        let tar =
            tar_of(&[("././@LongLink", GNULongName, &"n".repeat(MAX_NAME + 1)), ("root", Regular, "x")]);
        assert!(unpack(&mut tar.as_slice(), &dir.path().join("b")).is_err());
    }

    #[test]
    fn nothing_leaves_the_destination() {
        for entries in [
            &[("../evil", Regular, "x")][..],
            &[("root/../../evil", Regular, "x")],
            &[("/evil", Regular, "x")],
            &[("root/a", Regular, "x"), ("other/a", Regular, "x")],
            &[("root/a", Regular, "x"), ("root/a", Regular, "y")],
            &[("root/d", Char, "")],
            &[("root/l", Symlink, ".."), ("root/l/evil", Regular, "x")],
            &[],
        ] {
            let dir = tempfile::tempdir().expect("dir");
            let place = dir.path().join("in/out");
            fs::create_dir_all(dir.path().join("in")).expect("in");
            assert!(unpack(&mut tar_of(entries).as_slice(), &place).is_err(), "{entries:?}");
            assert!(!dir.path().join("in/evil").exists() && !dir.path().join("evil").exists(), "{entries:?}");
        }
    }

    #[test]
    fn content_paths_are_checked() {
        const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
        assert_eq!(content_path(CID).expect("cid"), (format!("/ipfs/{CID}"), CID.to_string()));
        let (path, last) = content_path(&format!("/ipfs/{CID}/a b/c")).expect("path");
        assert_eq!((path.as_str(), last.as_str()), (format!("/ipfs/{CID}/a%20b/c").as_str(), "c"));
        for bad in ["", "nosuch", "/ipns/x", &format!("{CID}/..")] {
            assert!(content_path(bad).is_err(), "{bad}");
        }
    }
}

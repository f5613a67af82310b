//! A folder as a tar archive, made while it is sent.
//!
//! Depth first, in stored order, with one open listing per level of nesting and no file in memory. Names come out of
//! content that strangers made, so each is checked before it goes into an archive that somebody unpacks: no
//! separators, no `.` or `..`, nothing empty. All times are the one that was given; with zero the same content gives the
//! same archive.

use crate::api::multipart::MAX_PATH;
use crate::error::{Error, Result};
use crate::ipfs::{DirEntry, NodeKind};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use std::sync::Arc;
use tar::{EntryType, Header};

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 256;
/// Small pieces are gathered up to this many bytes before they are sent.
const GATHER: usize = 32 << 10;
/// Tar's unit.
const BLOCK: usize = 512;
/// Longest name that fits a header.
const SHORT: usize = 100;

/// Where the content comes from.
#[async_trait]
pub(super) trait Source: Send + Sync + 'static {
    /// What a path points to, and a folder's entries.
    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)>;
    /// A file's content.
    async fn cat(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes>>>;
}

/// A folder whose entries are being written.
struct Level {
    path: String,
    entries: BoxStream<'static, Result<DirEntry>>,
}

/// A file whose content is being written.
struct Content {
    path: String,
    size: u64,
    left: u64,
    bytes: BoxStream<'static, Result<Bytes>>,
}

/// An archive under way.
pub(super) struct Archive {
    source: Arc<dyn Source>,
    out: BytesMut,
    root: Option<(String, DirEntry, BoxStream<'static, Result<DirEntry>>)>,
    levels: Vec<Level>,
    content: Option<Content>,
    ended: bool,
    /// Modification time of everything, seconds since 1970.
    time: u64,
}

impl Archive {
    /// An archive of one thing, which is called `name` in it and was changed at `time`.
    pub(super) fn new(
        source: Arc<dyn Source>,
        name: &str,
        time: u64,
        entry: DirEntry,
        entries: BoxStream<'static, Result<DirEntry>>,
    ) -> Self {
        let root = Some((name.to_owned(), entry, entries));
        Archive { source, out: BytesMut::new(), root, levels: Vec::new(), content: None, ended: false, time }
    }

    /// Its bytes.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::unfold(Some(self), |archive| async move {
            let mut archive = archive?;
            match archive.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(archive))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.out.len() < GATHER {
            if self.content.is_some() {
                self.copy().await?;
            } else if let Some((name, entry, entries)) = self.root.take() {
                self.begin(name, entry, Some(entries)).await?;
            } else if let Some(level) = self.levels.last_mut() {
                match level.entries.next().await {
                    None => drop(self.levels.pop()),
                    Some(entry) => {
                        let entry = entry?;
                        let path = format!("{}/{}", level.path, safe(&level.path, &entry.name)?);
                        self.begin(path, entry, None).await?;
                    }
                }
            } else if self.ended {
                break;
            } else {
                // Two empty blocks end an archive.
                self.out.resize(self.out.len() + 2 * BLOCK, 0);
                self.ended = true;
            }
        }
        Ok((!self.out.is_empty()).then(|| self.out.split().freeze()))
    }

    async fn begin(
        &mut self,
        path: String,
        entry: DirEntry,
        entries: Option<BoxStream<'static, Result<DirEntry>>>,
    ) -> Result<()> {
        if path.len() > MAX_PATH || self.levels.len() >= MAX_DEPTH {
            return Err(Error::invalid(format!("\"{path}\" is nested too deeply for an archive")));
        }
        let cid = entry.cid.to_string();
        match entry.kind {
            NodeKind::File => {
                self.header(&path, EntryType::Regular, entry.size, None);
                if entry.size > 0 {
                    let bytes = self.source.cat(&cid).await?;
                    self.content = Some(Content { path, size: entry.size, left: entry.size, bytes });
                }
            }
            NodeKind::Symlink => {
                self.header(&path, EntryType::Symlink, 0, Some(entry.target.as_deref().unwrap_or_default()));
            }
            NodeKind::Directory => {
                // Without a slash at the end: the type says it, and the `ipfs` command refuses a root of two components.
                self.header(&path, EntryType::Directory, 0, None);
                let entries = match entries {
                    Some(entries) => entries,
                    None => self.source.ls(&cid).await?.1,
                };
                self.levels.push(Level { path, entries });
            }
        }
        Ok(())
    }

    /// Copies one piece of the current file, which must be exactly as long as its header says.
    async fn copy(&mut self) -> Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        match content.bytes.next().await {
            Some(data) => {
                let data = data?;
                content.left = content.left.checked_sub(data.len() as u64).ok_or_else(|| {
                    Error::corrupt(format!("\"{}\" is longer than its size, {}", content.path, content.size))
                })?;
                self.out.extend_from_slice(&data);
            }
            None if content.left > 0 => {
                return Err(Error::corrupt(format!(
                    "\"{}\" ended {} bytes before its size, {}",
                    content.path, content.left, content.size
                )));
            }
            None => {
                let over = (content.size % BLOCK as u64) as usize;
                self.content = None;
                if over > 0 {
                    self.out.resize(self.out.len() + BLOCK - over, 0);
                }
            }
        }
        Ok(())
    }

    fn header(&mut self, path: &str, kind: EntryType, size: u64, target: Option<&str>) {
        if path.len() > SHORT {
            self.long(EntryType::GNULongName, path);
        }
        if let Some(target) = target.filter(|t| t.len() > SHORT) {
            self.long(EntryType::GNULongLink, target);
        }
        self.block(path, kind, size, target.unwrap_or_default());
    }

    /// GNU's way to say a name that does not fit: as the content of an entry in front.
    fn long(&mut self, kind: EntryType, name: &str) {
        self.block("././@LongLink", kind, name.len() as u64 + 1, "");
        self.out.extend_from_slice(name.as_bytes());
        // At least one NUL, then up to the next block.
        let length = name.len() + BLOCK - name.len() % BLOCK;
        self.out.resize(self.out.len() + length - name.len(), 0);
    }

    fn block(&mut self, path: &str, kind: EntryType, size: u64, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(match kind {
            EntryType::Directory => 0o755,
            EntryType::Symlink => 0o777,
            _ => 0o644,
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        let put = |field: &mut [u8; SHORT], text: &str| {
            let n = text.len().min(SHORT);
            field[..n].copy_from_slice(&text.as_bytes()[..n]);
        };
        // The fields are written directly: the crate's setters refuse and rewrite paths by the rules of this
        // machine's file system, which is not where the archive is unpacked.
        if let Some(gnu) = header.as_gnu_mut() {
            put(&mut gnu.name, path);
            put(&mut gnu.linkname, target);
        }
        header.set_cksum();
        self.out.extend_from_slice(header.as_bytes());
    }
}

/// A name that is safe to unpack.
fn safe<'a>(folder: &str, name: &'a str) -> Result<&'a str> {
    if ["", ".", ".."].contains(&name) || name.contains(['/', '\0']) {
        return Err(Error::invalid(format!(
            "the folder \"{folder}\" has an entry named \"{}\", which is not safe to unpack",
            name.escape_default()
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cid::Cid;
    use std::collections::HashMap;
    use std::io::Read;

    /// A tree by CID: a file's content or a folder's entries.
    #[derive(Default)]
    struct Fake {
        files: HashMap<String, Vec<u8>>,
        folders: HashMap<String, Vec<DirEntry>>,
    }

    impl Fake {
        fn cid(text: &str) -> Cid {
            use sha2::Digest;
            let hash = cid::multihash::Multihash::wrap(0x12, &sha2::Sha256::digest(text)).expect("hash");
            Cid::new_v1(0x55, hash)
        }
        fn file(&mut self, name: &str, content: Vec<u8>, claimed: usize) -> DirEntry {
            let cid = Self::cid(&format!("{name}{}", content.len()));
            self.files.insert(cid.to_string(), content);
            DirEntry { name: name.into(), cid, size: claimed as u64, kind: NodeKind::File, target: None }
        }
        fn folder(&mut self, name: &str, entries: Vec<DirEntry>) -> DirEntry {
            let cid = Self::cid(name);
            self.folders.insert(cid.to_string(), entries);
            DirEntry { name: name.into(), cid, size: 0, kind: NodeKind::Directory, target: None }
        }
    }

    #[async_trait]
    impl Source for Fake {
        async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
            let entries = self.folders.get(path).cloned().ok_or_else(|| Error::not_found(path))?;
            let this = DirEntry {
                name: String::new(),
                cid: path.parse().expect("cid"),
                size: 0,
                kind: NodeKind::Directory,
                target: None,
            };
            Ok((this, stream::iter(entries.into_iter().map(Ok)).boxed()))
        }
        async fn cat(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
            let bytes = self.files.get(path).ok_or_else(|| Error::not_found(path))?;
            let chunks: Vec<_> = bytes.chunks(1000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            Ok(stream::iter(chunks).boxed())
        }
    }

    fn archive(fake: Fake, root: DirEntry) -> Result<Vec<u8>> {
        crate::runtime::block_on(async {
            let fake = Arc::new(fake);
            let entries = match root.kind {
                NodeKind::Directory => fake.ls(&root.cid.to_string()).await?.1,
                _ => stream::empty().boxed(),
            };
            let name = root.name.clone();
            let mut chunks = std::pin::pin!(Archive::new(fake, &name, 0, root, entries).into_stream());
            let mut all = Vec::new();
            while let Some(chunk) = chunks.next().await {
                all.extend_from_slice(&chunk?);
            }
            Ok(all)
        })
    }

    #[test]
    fn an_archive_unpacks_to_what_went_in() {
        let mut fake = Fake::default();
        let long = "n".repeat(150);
        let target = "t".repeat(120);
        let link = DirEntry {
            name: "link".into(),
            cid: Fake::cid("link"),
            size: 0,
            kind: NodeKind::Symlink,
            target: Some(target.clone()),
        };
        let big = fake.file(&long, vec![7; 100_000], 100_000);
        let inner = fake.folder("inner", vec![big, link]);
        let empty = fake.file("empty", vec![], 0);
        let exact = fake.file("exact", vec![1; 512], 512);
        let root = fake.folder("root", vec![empty, inner, exact]);
        let bytes = archive(fake, root).expect("archive");
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut seen = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            let link = entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned());
            seen.push((String::from_utf8_lossy(&entry.path_bytes()).into_owned(), content.len(), link));
        }
        let want = [
            ("root".to_owned(), 0, None),
            ("root/empty".to_owned(), 0, None),
            ("root/inner".to_owned(), 0, None),
            (format!("root/inner/{long}"), 100_000, None),
            ("root/inner/link".to_owned(), 0, Some(target)),
            ("root/exact".to_owned(), 512, None),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn unsafe_names_and_wrong_sizes_end_it() {
        for name in ["..", ".", "", "a/b", "/etc/passwd", "a\0b"] {
            let mut fake = Fake::default();
            let file = fake.file(name, vec![1], 1);
            let root = fake.folder("root", vec![file]);
            assert_eq!(archive(fake, root).expect_err(name).kind(), crate::Kind::Invalid);
        }
        for claimed in [9, 11] {
            let mut fake = Fake::default();
            let file = fake.file("f", vec![1; 10], claimed);
            assert_eq!(archive(fake, file).expect_err("size").kind(), crate::Kind::Corrupt, "{claimed}");
        }
    }
}

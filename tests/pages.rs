//! Databases made with memory pages of 16 KiB, as on a Raspberry Pi 5, under a kernel with pages of 4 KiB, and the other
//! way round: a card or a disk may go from one board to the other and back.
//!
//! The page size of this machine's kernel cannot be changed, but LMDB asks for it once, when it makes a file: a preloaded
//! library answers. What follows is LMDB's own work with real pages of that size.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::cluster::{ok, Peer, SECRET};

/// Where the meta page of a 64-bit LMDB file tells the page size: behind page header, magic, version, address and size.
const PAGE_SIZE_AT: usize = 16 + 8 + 8 + 8;

/// The library; `None`, having said so, where there is no C compiler, or none for this kind of executable.
fn sixteen(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("sixteen.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/sixteen.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .output();
    match built {
        Ok(output) if output.status.success() => Some(library),
        other => {
            support::skip(&format!("a library to be preloaded cannot be built: {other:?}"));
            None
        }
    }
}

/// The page size of each database in a peer's folder.
fn page_sizes(peer: &Peer) -> Vec<u32> {
    let (raft, mut files) = (peer.folder.join("raft"), vec![peer.folder.join("ipfs/data.mdb")]);
    let mut folders = vec![raft];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("raft") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.ends_with("data.mdb") => files.push(path),
                false => {}
            }
        }
    }
    assert!(files.len() >= 3, "log, state and blocks: {files:?}");
    let size = |file: &PathBuf| {
        let bytes = std::fs::read(file).expect("a database");
        u32::from_le_bytes(bytes[PAGE_SIZE_AT..PAGE_SIZE_AT + 4].try_into().expect("four bytes"))
    };
    files.iter().map(size).collect()
}

/// A CID that has its content in itself, so that pinning it is done at once.
fn inline(n: usize) -> String {
    let content = format!("{n:08}");
    let bytes = [&[1, 0x55, 0, content.len() as u8], content.as_bytes()].concat();
    format!("b{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase())
}

/// A peer, and the library for its life under large pages.
struct Board {
    peer: Peer,
    library: PathBuf,
    _tmp: tempfile::TempDir,
}

impl Board {
    fn new() -> Option<Board> {
        let tmp = tempfile::tempdir().expect("folder");
        let library = sixteen(tmp.path())?;
        Some(Board { peer: Peer::init(tmp.path().join("p"), "p", SECRET), library, _tmp: tmp })
    }

    /// Runs under pages of this many KiB: looks at what earlier lives have left, and adds to it.
    fn live(&mut self, kibibytes: u32, contents: &mut Vec<(String, String)>) {
        let library = self.library.clone();
        self.peer.spawn_with(&["daemon"], |command| {
            if kibibytes == 16 {
                command.env("LD_PRELOAD", library);
            }
        });
        self.peer.wait_ready();
        self.peer.wait_candidates(1);
        for (cid, content) in contents.iter() {
            assert!(ok(self.peer.ctl(&["cat", cid])) == *content, "{cid}");
            self.peer.wait_status(cid, "pinned", 1);
        }
        let n = contents.len();
        let content = format!("content {n} {}", "x".repeat(700_000 + n));
        let file = self._tmp.path().join("file");
        std::fs::write(&file, &content).expect("file");
        let added = ok(self.peer.ctl(&["add", "-Q", file.to_str().expect("UTF-8")]));
        self.peer.wait_status(added.trim(), "pinned", 1);
        contents.push((added.trim().to_owned(), content));
        for m in 0..150 {
            self.peer.json("POST", &format!("/pins/{}?name={}", inline(n * 1_000 + m), "n".repeat(m % 200)));
        }
        for m in 0..50 {
            self.peer.json("DELETE", &format!("/pins/{}", inline(n * 1_000 + m * 2)));
        }
        let (status, _) = self.peer.stop();
        assert!(status.success(), "{}", self.peer.log());
        let checked = self.peer.ctl(&["state", "check", "--blocks"]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        assert!(!self.peer.log().contains("panic"));
    }
}

fn wander(first: u32) {
    let Some(mut board) = Board::new() else { return };
    let mut contents = Vec::new();
    for kibibytes in [first, 20 - first, first, 20 - first] {
        board.live(kibibytes, &mut contents);
        let made = page_sizes(&board.peer);
        assert!(made.iter().all(|size| *size == first << 10), "{made:?} under {kibibytes} KiB");
    }
    assert_eq!(contents.len(), 4);
}

#[test]
fn what_was_made_with_pages_of_16_kib_works_with_pages_of_4() {
    wander(16);
}

#[test]
fn what_was_made_with_pages_of_4_kib_works_with_pages_of_16() {
    wander(4);
}

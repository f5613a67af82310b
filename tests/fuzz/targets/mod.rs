//! What strangers, broken peers and damaged disks may hand to pinfold, as functions of bytes.
//!
//! Each [`Target`] takes any bytes whatever, gives them to the code that ships exactly where untrusted bytes enter it, and
//! checks more than that nothing panics: what was read is written and read again and must be the same; what arrives in
//! pieces must mean what it means in one; limits must hold; nothing wrong may be served. A failed check is a panic.
//!
//! The same functions run in two ways: behind libFuzzer (`tests/fuzz/run`, which compiles this crate with
//! `--cfg fuzzing`), and over the corpus in `tests/fuzz/corpus` with every `cargo test` ([`replay`]). This module is
//! compiled for these two and is in no release. Targets that need what is private to a room are modules of that room
//! (`mod fuzz` there), so that nothing is made public for their sake; their text stands here all the same.

mod cluster;
mod content;
mod names;
mod raft_driver;
mod raft_frames;
#[cfg(test)]
mod replay;
mod seeds;
mod state;

pub use seeds::seeds;

/// One place where untrusted bytes enter.
pub struct Target {
    /// Its name: of its corpus, too.
    pub name: &'static str,
    /// Gives it an input and checks what must hold.
    pub run: fn(&[u8]),
    /// Longest input that is tried, bytes.
    pub max_len: usize,
    /// Bytes that any input may make the process hold.
    pub memory: usize,
    /// … and so many more for each byte of it.
    pub per_byte: usize,
}

impl Target {
    const fn new(name: &'static str, run: fn(&[u8])) -> Self {
        Target { name, run, max_len: 4 << 10, memory: 1 << 20, per_byte: 64 }
    }

    const fn up_to(self, max_len: usize) -> Self {
        Target { max_len, ..self }
    }

    const fn holding(self, memory: usize) -> Self {
        Target { memory, ..self }
    }

    /// The bytes that an input of this length may make the process hold.
    pub fn allowed(&self, length: usize) -> usize {
        self.memory + self.per_byte * length
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    // Between peers of a cluster.
    Target::new("rpc_frames", crate::net::rpc::fuzz::frames).holding(2 << 20),
    Target::new("cluster_calls", cluster::messages).holding(4 << 20),
    Target::new("raft_frames", raft_frames::frames),
    Target::new("raft_driver", raft_driver::driver).holding(16 << 20).up_to(1 << 10),
    Target::new("snapshot", state::snapshot).holding(4 << 20),
    Target::new("founding", cluster::founding).holding(4 << 20),
    Target::new("calls", crate::daemon::run::fuzz::calls).holding(32 << 20),
    // What a disk or a log gives back.
    Target::new("records", state::records).holding(4 << 20),
    Target::new("commands", state::commands).holding(8 << 20),
    Target::new("log_entries", crate::store::lmdb::log::fuzz::entries),
    Target::new("segments", content::segments).holding(32 << 20),
    // Files that people write or copy.
    Target::new("config", crate::config::fuzz::config).holding(8 << 20),
    Target::new("identity", crate::config::fuzz::identity),
    Target::new("import", state::import).holding(4 << 20),
    // What clients send and type.
    Target::new("rest", crate::daemon::run::fuzz::rest).holding(32 << 20),
    Target::new("proxy", crate::daemon::run::fuzz::proxy).holding(32 << 20),
    Target::new("query", names::query),
    Target::new("names", names::names),
    Target::new("multipart", names::multipart),
    Target::new("tokens", crate::api::auth::fuzz::tokens),
    Target::new("arguments", crate::cli::fuzz::arguments).holding(2 << 20),
    Target::new("node_calls", crate::api::proxy::node::call::fuzz::calls),
    // Content.
    Target::new("car", content::car).holding(4 << 20),
    Target::new("unixfs", content::unixfs).holding(16 << 20),
    Target::new("ipld", content::ipld),
    Target::new("bitswap", crate::ipfs::embedded::bitswap::fuzz::messages).holding(2 << 20),
    Target::new("tar", crate::cli::get::fuzz::unpack).holding(2 << 20).up_to(8 << 10),
    Target::new("kubo", content::kubo).holding(8 << 20),
];

/// Bytes, taken from the front: decisions first, text last. At the end everything is zero.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// One byte.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// True or false.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Exactly `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number of the kind that code trips over: small, near a power of two, at the end, or any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            n @ 0..=199 => u64::from(n),
            n @ 200..=231 => 1 << (2 * (n - 200)),
            n @ 232..=247 => u64::MAX - u64::from(n - 232),
            _ => u64::from_le_bytes(self.array()),
        }
    }

    /// Some bytes: their length comes first.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte());
        self.take(length)
    }

    /// At most that many bytes.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Everything that is left, as text.
    pub(crate) fn text(&mut self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.rest())
    }
}

/// `data` in pieces whose lengths follow from `seed`.
pub(crate) fn pieces(data: &[u8], seed: u8) -> Vec<crate::Result<bytes::Bytes>> {
    let (mut out, mut rest, mut state) = (Vec::new(), data, u32::from(seed) | 1);
    while !rest.is_empty() {
        state = state.wrapping_mul(0x9e37_79b1).rotate_left(7);
        let (piece, after) = rest.split_at((1 + state as usize % 37).min(rest.len()));
        out.push(Ok(bytes::Bytes::copy_from_slice(piece)));
        rest = after;
    }
    out
}

/// Where the inputs of this process have their folders: in memory, where `tests/fuzz/run` finds a place for that.
fn folders() -> std::path::PathBuf {
    let base = std::env::var_os("PINFOLD_FUZZ_DIR").map_or_else(std::env::temp_dir, Into::into);
    base.join(format!("pinfold-fuzz-{}", std::process::id()))
}

/// An empty folder, made anew for each input.
pub(crate) fn folder(name: &str) -> std::path::PathBuf {
    let folder = folders().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for an input");
    folder
}

//! LMDB's file, read page by page with safe code of our own: is it whole?
//!
//! LMDB maps its file and trusts it. It keeps no checksums: a byte that a card gave back wrong can make it follow a page
//! number into nowhere (and the process dies of a signal), or overlook a key without a word. So the structure is
//! verified here, by `pread` and bounds-checked slices, before LMDB is let at it: meta pages, every page reachable from
//! them, every node on it, the order of keys within and across pages, the counters of each tree, and that every page is
//! used once or free once: a page that is both would be overwritten while it is needed.
//!
//! The layout is that of LMDB's data version 1 (`mdb.c`): words of the machine, little-endian here as everywhere that
//! pinfold runs. What is in the values is the reader's matter; rows are handed out in key order, table by table.
//!
//! It must never: panic on any bytes, read beyond the file, loop, or hold more than one page per level of a tree in
//! memory. Beside a running daemon it reads the pages of one transaction, which somebody holds open meanwhile.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
/// Bytes of a word in the file: page numbers and sizes are the machine's.
const WORD: usize = size_of::<usize>();
/// Bytes in front of a page's pointers to its nodes.
const HEADER: usize = WORD + 8;
/// Bytes in front of a node's key.
const NODE: usize = 8;
/// Bytes of a tree's description.
const TREE: usize = 8 + 5 * WORD;
/// Bytes of a meta page that mean something.
const META: usize = HEADER + 8 + 2 * WORD + 2 * TREE + 2 * WORD;
/// The root of an empty tree.
const NO_PAGE: u64 = usize::MAX as u64;
/// Page flag of a branch.
const BRANCH: u16 = 1;
/// Page flag of a leaf.
const LEAF: u16 = 2;
/// Page flag of the first page of a long value.
const OVERFLOW: u16 = 4;
/// Page flag of a meta page.
const META_PAGE: u16 = 8;
/// Node flag: the value lies on pages of its own.
const LONG: u16 = 1;
/// Node flag: the value describes a tree.
const SUBTREE: u16 = 2;
/// Tree flag: keys are words.
const INTEGER_KEYS: u16 = 8;
/// Deepest tree that LMDB itself can walk.
const MAX_DEPTH: usize = 32;
/// Longest key.
const MAX_KEY: usize = 511;
/// Faults that are told; the rest is counted.
const MAX_FAULTS: usize = 20;
/// Longest value that is read: longer than any that pinfold writes.
const MAX_LONG: usize = 16 << 20;

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What is wrong, each a clause that names the page.
    pub faults: Vec<String>,
    /// Faults beyond those that are told.
    pub more: u64,
    /// Pages in use, the two meta pages among them.
    pub used: u64,
    /// Pages on the list of free ones.
    pub free: u64,
    /// Pages that are neither: lost room, and no harm.
    pub lost: u64,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

impl Found {
    /// Whether the file is whole.
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, what: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(what.into());
        } else {
            self.more += 1;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tree {
    flags: u16,
    depth: u16,
    branches: u64,
    leaves: u64,
    overflow: u64,
    entries: u64,
    root: u64,
}

#[derive(Clone, Copy, Debug)]
struct Meta {
    free: Tree,
    main: Tree,
    last: u64,
    txn: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + WORD)?.try_into().ok().map(|word| usize::from_ne_bytes(word) as u64)
}

fn tree_at(bytes: &[u8], at: usize) -> Option<(u32, Tree)> {
    let word = |n: usize| word_at(bytes, at + 8 + n * WORD);
    let tree = Tree {
        flags: u16_at(bytes, at + 4)?,
        depth: u16_at(bytes, at + 6)?,
        branches: word(0)?,
        leaves: word(1)?,
        overflow: word(2)?,
        entries: word(3)?,
        root: word(4)?,
    };
    Some((u32_at(bytes, at)?, tree))
}

/// How many bits the words have in a file that begins with these bytes, if it was written by a system with others than ours.
fn other_words(bytes: &[u8]) -> Option<usize> {
    let other = 12 - WORD;
    let right = u16_at(bytes, other + 2)? == META_PAGE
        && u32_at(bytes, other + 8)? == MAGIC
        && u32_at(bytes, other + 12)? == VERSION;
    right.then_some(8 * other)
}

/// One meta page, and the page size that it tells.
fn meta_at(bytes: &[u8], number: u64) -> Result<(Meta, usize), String> {
    let read = || {
        let trees = HEADER + 8 + 2 * WORD;
        let (page, free) = tree_at(bytes, trees)?;
        let (pad, main) = tree_at(bytes, trees + TREE)?;
        let rest = trees + 2 * TREE;
        let meta = Meta { free, main, last: word_at(bytes, rest)?, txn: word_at(bytes, rest + WORD)? };
        let right = word_at(bytes, 0)? == number
            && u16_at(bytes, WORD + 2)? == META_PAGE
            && u32_at(bytes, HEADER)? == MAGIC
            && u32_at(bytes, HEADER + 4)? == VERSION
            && free.flags == INTEGER_KEYS
            && main.flags == 0
            && pad == 0;
        right.then_some((meta, page as usize))
    };
    let (meta, page) = read().ok_or_else(|| match other_words(bytes) {
        Some(bits) => format!("a {bits}-bit system wrote it, and this is a {}-bit pinfold", 8 * WORD),
        None => format!("meta page {number} is not one of LMDB"),
    })?;
    if !page.is_power_of_two() || !(512..=65_536).contains(&page) {
        return Err(format!("meta page {number} tells pages of {page} bytes"));
    }
    // Transactions are written to the two pages in turn.
    if meta.txn != 0 && meta.txn % 2 != number {
        return Err(format!(
            "meta page {number} is of transaction {}, which belongs on the other one",
            meta.txn
        ));
    }
    Ok((meta, page))
}

/// Files up to this size are verified page by page whenever they are opened: some 150,000 pins.
const VERIFIED: u64 = 64 << 20;

/// Verifies a file before LMDB trusts it: every page when there are few, else the meta pages. A file that is not there or
/// empty is LMDB's to make.
///
/// # Errors
/// [`crate::Kind::Corrupt`] with the first fault; [`crate::Kind::Version`] when it is of a system with other words, as a
/// card is that moves from a 32-bit to a 64-bit one.
pub(crate) fn verify(file: &Path) -> Result<()> {
    let size = std::fs::metadata(file).map_or(0, |meta| meta.len());
    if size == 0 {
        return Ok(());
    }
    refuse_other_words(file)?;
    let found = Pages::open(file, None).map(|pages| match size <= VERIFIED {
        true => pages.walk(&[], &mut |_, _, _| ()),
        false => Found::default(),
    });
    let fault = match found {
        Ok(found) if found.is_whole() => return Ok(()),
        Ok(found) => found.faults.into_iter().next().unwrap_or_default(),
        Err(fault) => fault,
    };
    Err(Error::corrupt(format!(
        "the database {} is damaged: {fault}; `pinfold state check` says what to do",
        file.display()
    )))
}

fn refuse_other_words(file: &Path) -> Result<()> {
    let mut bytes = [0; META];
    // What cannot be read is told by who needs it.
    let read = File::open(file).and_then(|file| file.read_exact_at(&mut bytes, 0));
    let (Ok(()), Some(bits)) = (read, other_words(&bytes)) else { return Ok(()) };
    Err(Error::version(format!(
        "the database {} was written by a {bits}-bit pinfold and this one has {} bits: write the pins to a file with \
         that one (`pinfold state export`), then begin with a new folder and import them, or join the cluster again",
        file.display(),
        8 * WORD
    )))
}

/// A file, at one transaction.
pub struct Pages {
    file: File,
    path: PathBuf,
    page: usize,
    meta: Meta,
}

/// Pages by number.
struct Marks(Vec<u64>);

impl Marks {
    fn new(pages: u64) -> Self {
        Marks(vec![0; usize::try_from(pages / 64 + 1).unwrap_or(0)])
    }

    /// Marks one; whether it was new.
    fn mark(&mut self, page: u64) -> bool {
        let Some(word) = usize::try_from(page / 64).ok().and_then(|at| self.0.get_mut(at)) else {
            return false;
        };
        let bit = 1 << (page % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn has(&self, page: u64) -> bool {
        let word = usize::try_from(page / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word & (1 << (page % 64)) != 0)
    }
}

/// What is gathered while a file is walked.
struct Walk {
    used: Marks,
    free: Marks,
    found: Found,
    /// Counted in the tree being walked.
    branches: u64,
    leaves: u64,
    overflow: u64,
    entries: u64,
}

/// The bounds of the keys on a page: from the first, up to and without the second.
type Bounds<'k> = (Option<&'k [u8]>, Option<&'k [u8]>);
/// Takes the rows of a tree: key, node flags, value.
type Sink<'s> = &'s mut dyn FnMut(&mut Walk, &[u8], u16, &[u8]);

impl Pages {
    /// Opens a file at its last transaction, or at `txn` if a reader holds that one.
    ///
    /// # Errors
    /// A clause that says what is wrong with the file or its meta pages.
    pub fn open(path: &Path, txn: Option<u64>) -> Result<Pages, String> {
        let file = File::open(path).map_err(|e| format!("it cannot be opened: {e}"))?;
        let size = file.metadata().map_err(|e| format!("its size cannot be told: {e}"))?.len();
        let mut bytes = [0; META];
        let mut read = |at: u64, number: u64| {
            file.read_exact_at(&mut bytes, at)
                .map_err(|e| format!("meta page {number} cannot be read: {e}"))?;
            meta_at(&bytes, number)
        };
        let (first, page) = read(0, 0)?;
        let (second, other) = read(page as u64, 1)?;
        if page != other {
            return Err("the two meta pages tell different sizes of pages".into());
        }
        let fresh = first.txn == 0 && second.txn == 0;
        if !fresh && first.txn.abs_diff(second.txn) != 1 {
            return Err(format!(
                "the two meta pages are of the transactions {} and {}, which do not follow each other",
                first.txn, second.txn
            ));
        }
        let newest = if second.txn > first.txn { second } else { first };
        let meta = match txn {
            None => newest,
            Some(txn) => *[&first, &second]
                .into_iter()
                .find(|meta| meta.txn == txn)
                .ok_or_else(|| format!("transaction {txn} has been written over"))?,
        };
        if meta.last > size / page as u64 {
            // LMDB may leave the last pages unwritten when they are free; the walk tells if one is used.
            let most = size / page as u64 + (1 << 20);
            if meta.last > most {
                return Err(format!("the last page should be {}, far beyond the end of the file", meta.last));
            }
        }
        Ok(Pages { file, path: path.to_path_buf(), page, meta })
    }

    /// The transaction.
    pub fn txn(&self) -> u64 {
        self.meta.txn
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Verifies everything and hands out the rows: table, key, value. `first` are the tables that come first, in this
    /// order; others follow by name.
    pub fn walk(&self, first: &[&str], rows: &mut dyn FnMut(&str, &[u8], &[u8])) -> Found {
        let mut walk = Walk {
            used: Marks::new(self.meta.last + 1),
            free: Marks::new(self.meta.last + 1),
            found: Found::default(),
            branches: 0,
            leaves: 0,
            overflow: 0,
            entries: 0,
        };
        let last = self.meta.last;
        self.tree(
            &mut walk,
            "the list of free pages",
            &self.meta.free,
            true,
            &mut |walk, _, flags, value| {
                if flags != 0 {
                    walk.found.fault("the list of free pages has a tree in it");
                }
                free_pages(walk, value, last);
            },
        );
        let mut tables: Vec<(String, Tree)> = Vec::new();
        self.tree(&mut walk, "the list of tables", &self.meta.main, false, &mut |walk, key, flags, value| {
            let name = String::from_utf8_lossy(key).into_owned();
            match tree_at(value, 0)
                .filter(|(pad, tree)| flags == SUBTREE && value.len() == TREE && *pad == 0 && tree.flags == 0)
            {
                Some((_, tree)) => tables.push((name, tree)),
                None => walk.found.fault(format!("the table {name:?} is not described as one")),
            }
        });
        tables.sort_by_key(|(name, _)| {
            let place = first.iter().position(|f| f == name).unwrap_or(first.len());
            (place, name.clone())
        });
        for (name, tree) in &tables {
            self.tree(&mut walk, name, tree, false, &mut |walk, key, flags, value| {
                if flags != 0 {
                    walk.found.fault(format!("the table {name} has a tree in it"));
                }
                rows(name, key, value);
            });
            walk.found.rows.insert(name.clone(), walk.entries);
        }
        self.account(walk)
    }

    /// Every page is used once, or free once.
    fn account(&self, walk: Walk) -> Found {
        let Walk { used, free, mut found, .. } = walk;
        found.used = 2;
        for page in 2..=self.meta.last {
            match (used.has(page), free.has(page)) {
                (true, true) => found.fault(format!("page {page} is used and on the list of free pages")),
                (true, false) => found.used += 1,
                (false, true) => found.free += 1,
                (false, false) => found.lost += 1,
            }
        }
        found
    }

    fn tree(&self, walk: &mut Walk, name: &str, tree: &Tree, integers: bool, sink: Sink<'_>) {
        (walk.branches, walk.leaves, walk.overflow, walk.entries) = (0, 0, 0, 0);
        if tree.root != NO_PAGE {
            if usize::from(tree.depth) > MAX_DEPTH || tree.depth == 0 {
                return walk.found.fault(format!("{name} should be a tree {} pages deep", tree.depth));
            }
            if let Err(what) = self.branch_or_leaf(walk, tree.root, tree.depth, (None, None), integers, sink)
            {
                walk.found.fault(format!("{name}: {what}"));
            }
        } else if tree.depth != 0 {
            walk.found.fault(format!("{name} has a depth and no root"));
        }
        let counted = (walk.branches, walk.leaves, walk.overflow, walk.entries);
        let told = (tree.branches, tree.leaves, tree.overflow, tree.entries);
        if counted != told {
            walk.found.fault(format!(
                "{name} should have {} branch pages, {} leaf pages, {} pages of long values and {} rows, and has {}, {}, {} and {}",
                told.0, told.1, told.2, told.3, counted.0, counted.1, counted.2, counted.3
            ));
        }
    }

    /// Takes a page for this use; its number must be one that is free for it.
    fn take(&self, walk: &mut Walk, page: u64) -> Result<(), String> {
        if page < 2 || page > self.meta.last {
            return Err(format!("page {page} does not exist"));
        }
        if !walk.used.mark(page) {
            return Err(format!("page {page} is used twice"));
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], page: u64) -> Result<(), String> {
        let at = page * self.page as u64;
        self.file.read_exact_at(bytes, at).map_err(|e| format!("page {page} cannot be read: {e}"))
    }

    /// One page and everything below it. `depth` counts down to 1, the leaves.
    fn branch_or_leaf(
        &self,
        walk: &mut Walk,
        page: u64,
        depth: u16,
        bounds: Bounds<'_>,
        integers: bool,
        sink: Sink<'_>,
    ) -> Result<(), String> {
        self.take(walk, page)?;
        let mut bytes = vec![0; self.page];
        self.read(&mut bytes, page)?;
        let nodes = Nodes::of(&bytes, page, depth == 1)?;
        if depth == 1 {
            walk.leaves += 1;
            return self.leaf(walk, &nodes, bounds, integers, sink);
        }
        walk.branches += 1;
        // The first key of a branch stands for "everything before the second".
        let key = |n: usize| nodes.key(n).filter(|_| n > 0);
        let mut before = bounds.0;
        for n in 0..nodes.len() {
            if let Some(key) = key(n) {
                if !within(key, bounds, integers) || before.is_some_and(|b| !less(b, key, integers)) && n > 1
                {
                    return Err(format!("page {page}: key {n} is out of order"));
                }
                before = Some(key);
            }
            let below = (key(n).or(bounds.0), if n + 1 < nodes.len() { key(n + 1) } else { bounds.1 });
            // One lost branch does not keep the others from being looked at.
            if let Err(what) = self.branch_or_leaf(walk, nodes.child(n), depth - 1, below, integers, sink) {
                walk.found.fault(format!("below page {page}: {what}"));
            }
        }
        Ok(())
    }

    fn leaf(
        &self,
        walk: &mut Walk,
        nodes: &Nodes<'_>,
        bounds: Bounds<'_>,
        integers: bool,
        sink: Sink<'_>,
    ) -> Result<(), String> {
        let mut before: Option<&[u8]> = None;
        for n in 0..nodes.len() {
            let bad = |what: &str| format!("page {}: row {n} {what}", nodes.page);
            let key = nodes.key(n).filter(|key| !key.is_empty() && key.len() <= MAX_KEY);
            let key = key.ok_or_else(|| bad("has no key"))?;
            let ordered = before.is_none_or(|before| less(before, key, integers));
            if !ordered || !within(key, bounds, integers) || (integers && key.len() != WORD) {
                return Err(bad("is out of order"));
            }
            before = Some(key);
            let (flags, size) = (nodes.flags(n), nodes.size(n));
            let long;
            let value = match flags {
                0 | SUBTREE => nodes.value(n).ok_or_else(|| bad("is cut off"))?,
                LONG => {
                    let at = nodes.value(n).and_then(|v| word_at(v, 0)).ok_or_else(|| bad("is cut off"))?;
                    long = self.long(walk, at, size).map_err(|what| bad(&what))?;
                    &long
                }
                _ => return Err(bad("is of an unknown kind")),
            };
            walk.entries += 1;
            sink(walk, key, flags & !LONG, value);
        }
        Ok(())
    }

    /// A value on pages of its own.
    fn long(&self, walk: &mut Walk, page: u64, size: usize) -> Result<Vec<u8>, String> {
        if size > MAX_LONG {
            return Err(format!("has a value of {size} bytes"));
        }
        let wrong = |what: String| format!("has a long value, but {what}");
        self.take(walk, page).map_err(wrong)?;
        let mut bytes = vec![0; HEADER + size];
        self.read(&mut bytes, page).map_err(wrong)?;
        let pages = u32_at(&bytes, WORD + 4).map_or(0, u64::from);
        let right = word_at(&bytes, 0) == Some(page) && u16_at(&bytes, WORD + 2) == Some(OVERFLOW);
        // A shorter value may have taken the place of a longer one.
        if !right || pages < ((HEADER + size).div_ceil(self.page)) as u64 || pages > self.meta.last {
            return Err(format!("has a long value, but page {page} does not begin one"));
        }
        for next in page + 1..page + pages {
            self.take(walk, next).map_err(wrong)?;
        }
        walk.overflow += pages;
        bytes.drain(..HEADER);
        Ok(bytes)
    }
}

fn free_pages(walk: &mut Walk, value: &[u8], last: u64) {
    let count = word_at(value, 0).and_then(|n| usize::try_from(n).ok());
    let Some(list) = count.and_then(|n| value.get(WORD..WORD.checked_add(n.checked_mul(WORD)?)?)) else {
        return walk.found.fault("a list of free pages is longer than its row");
    };
    let mut before = u64::MAX;
    for page in list.chunks_exact(WORD).filter_map(|word| word_at(word, 0)) {
        if page < 2 || page > last || page >= before {
            return walk.found.fault(format!(
                "a list of free pages has page {page} in it, out of order or beyond the last"
            ));
        }
        if !walk.free.mark(page) {
            walk.found.fault(format!("page {page} is free twice"));
        }
        before = page;
    }
}

fn less(a: &[u8], b: &[u8], integers: bool) -> bool {
    if integers {
        return word_at(a, 0) < word_at(b, 0);
    }
    a < b
}

fn within(key: &[u8], (from, to): Bounds<'_>, integers: bool) -> bool {
    from.is_none_or(|from| !less(key, from, integers)) && to.is_none_or(|to| less(key, to, integers))
}

/// The nodes of a page, of which each was found to lie on it, beside the others.
struct Nodes<'p> {
    page: u64,
    bytes: &'p [u8],
    offsets: Vec<usize>,
}

impl<'p> Nodes<'p> {
    fn of(bytes: &'p [u8], page: u64, leaf: bool) -> Result<Nodes<'p>, String> {
        let bad = |what: &str| format!("page {page} {what}");
        let field = |at: usize| u16_at(bytes, at).unwrap_or(0);
        if word_at(bytes, 0) != Some(page) {
            return Err(bad("has another number in it"));
        }
        if field(WORD + 2) != if leaf { LEAF } else { BRANCH } {
            return Err(bad("is of another kind than it should be"));
        }
        let (lower, upper) = (usize::from(field(WORD + 4)), usize::from(field(WORD + 6)));
        // Where pages have 64 KiB their size is no number of 16 bits.
        let upper = if upper == 0 && bytes.len() == 65_536 { 65_536 } else { upper };
        if lower < HEADER || lower % 2 != 0 || lower > upper || upper > bytes.len() {
            return Err(bad("has impossible bounds"));
        }
        let count = (lower - HEADER) / 2;
        if count < if leaf { 1 } else { 2 } {
            return Err(bad("has too few rows"));
        }
        let offsets: Vec<usize> = (0..count).map(|n| usize::from(field(HEADER + 2 * n))).collect();
        let nodes = Nodes { page, bytes, offsets };
        // Packed from the end of the page, without a gap.
        let mut places = Vec::with_capacity(count);
        for (n, at) in nodes.offsets.iter().enumerate() {
            let inside = *at >= upper && at + NODE <= bytes.len();
            let size = if inside { nodes.room(n, leaf) } else { usize::MAX };
            if !inside || size > bytes.len() - at {
                return Err(bad("has a row that does not lie on it"));
            }
            places.push((*at, size));
        }
        places.sort_unstable();
        let mut end = upper;
        for (at, size) in places {
            if at != end {
                return Err(bad("has rows that overlap, or a gap between them"));
            }
            end = at + size;
        }
        if end != bytes.len() {
            return Err(bad("does not end with its last row"));
        }
        Ok(nodes)
    }

    fn len(&self) -> usize {
        self.offsets.len()
    }

    fn field(&self, n: usize, at: usize) -> u16 {
        u16_at(self.bytes, self.offsets[n] + at).unwrap_or(0)
    }

    fn flags(&self, n: usize) -> u16 {
        self.field(n, 4)
    }

    fn key_len(&self, n: usize) -> usize {
        usize::from(self.field(n, 6))
    }

    /// Bytes of a row's value.
    fn size(&self, n: usize) -> usize {
        usize::from(self.field(n, 0)) | usize::from(self.field(n, 2)) << 16
    }

    /// The page below a branch's row.
    fn child(&self, n: usize) -> u64 {
        let high = if WORD > 4 { u64::from(self.flags(n)) << 32 } else { 0 };
        self.size(n) as u64 | high
    }

    /// Bytes that a row takes.
    fn room(&self, n: usize, leaf: bool) -> usize {
        let value = match (leaf, self.flags(n) & LONG != 0) {
            (false, _) => 0,
            (true, true) => WORD,
            (true, false) => self.size(n),
        };
        (NODE + self.key_len(n) + value).next_multiple_of(2)
    }

    fn key(&self, n: usize) -> Option<&'p [u8]> {
        let at = self.offsets[n] + NODE;
        self.bytes.get(at..at + self.key_len(n))
    }

    /// A row's value as it lies on the page: of a long one, the number of its first page.
    fn value(&self, n: usize) -> Option<&'p [u8]> {
        let at = self.offsets[n] + NODE + self.key_len(n);
        let size = if self.flags(n) & LONG != 0 { WORD } else { self.size(n) };
        self.bytes.get(at..at.checked_add(size)?)
    }
}

#[cfg(test)]
mod tests;

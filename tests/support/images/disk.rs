//! What a disk may hold after the power went: the model behind the images.
//!
//! A flush that returned makes what it covers certain: a file's bytes and length (`fsync`, `fdatasync`, writes through
//! a file opened with `O_DSYNC`), a folder's names (`fsync` of the folder). Everything else *may* have happened:
//!
//! * any of the writes since, each by itself, in any order; of one write any of its 4 KiB pages or 512-byte sectors;
//! * the length of a grown file before its bytes (the gap reads as zeros, or as what lay there before), the bytes
//!   before the length, or both;
//! * names: the first so many changes of all (a journal, as on ext4, xfs and f2fs), the first so many of each folder,
//!   or any subset (no journal at all);
//! * a flush in progress may have made any part of what it covers durable: that is a cut just before its return.
//!
//! After a flush that *failed* the system takes the pages for clean: no later flush writes them again, although
//! reading shows them. They may be on the disk or not until they are written anew.
//!
//! Not modelled: bytes that change by themselves (bit rot), a sector that is half old and half new, a disk that
//! acknowledges flushes which it does not do.

use super::trace::{Event, Inode};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

/// What a disk writes as one.
const SECTOR: usize = 512;
/// What the system writes as one.
const PAGE: usize = 4096;
/// Changes between two flushes of which every subset is tried.
const EXHAUSTIVE: usize = 5;

/// A small generator: everything about an image follows from its number.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Random {
        // splitmix: near seeds give unrelated streams.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((z ^ (z >> 31)) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a change of a file does.
#[derive(Clone)]
enum What {
    Write { at: u64, data: Arc<[u8]> },
    Size(u64),
}

/// How sure a change is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// The next flush makes it certain.
    Open,
    /// A failed flush covered it: no other will, unless its page is written again.
    Lost,
    /// It flushed itself, over others that are open.
    Certain,
}

/// A change of a file, in its place among the others.
#[derive(Clone)]
struct Change {
    what: What,
    hold: Hold,
}

#[derive(Clone, Default)]
struct File {
    /// What is certain.
    durable: Arc<Vec<u8>>,
    /// In order.
    changes: Vec<Change>,
    /// Length as the process sees it.
    len: u64,
}

/// Files and folders by number; names point to them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Node {
    File(usize),
    Folder(usize),
}

type Names = BTreeMap<(usize, String), Node>;

/// A change of names, in one folder or two.
#[derive(Clone, Debug)]
struct NameChange {
    folders: [usize; 2],
    set: Vec<(usize, String, Option<Node>)>,
}

/// A disk on which a trace is played.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    inodes: HashMap<Inode, Node>,
    folders: usize,
    /// Names as the process sees them.
    seen: Names,
    /// Names that are certain.
    durable: Names,
    changes: Vec<NameChange>,
    /// Counts what became certain: two images of different numbers differ in that.
    certain: u64,
    /// Flushes that returned, writes, changes of names: a trace without them shows nothing.
    pub flushes: u64,
    /// Writes of files.
    pub writes: u64,
}

/// The folder that is recorded.
const ROOT: usize = 0;

impl Disk {
    /// A disk with what lies in `folder` now, all of it certain.
    pub fn with(folder: &Path) -> Disk {
        use std::os::unix::fs::MetadataExt as _;
        let mut disk = Disk { folders: 1, ..Disk::default() };
        let own = std::fs::metadata(folder).expect("the folder to record").ino();
        disk.inodes.insert(own, Node::Folder(ROOT));
        let mut waiting = vec![(folder.to_owned(), ROOT)];
        while let Some((path, number)) = waiting.pop() {
            for entry in std::fs::read_dir(&path).expect("a folder") {
                let entry = entry.expect("an entry");
                let meta = entry.metadata().expect("metadata");
                let name = entry.file_name().into_string().expect("UTF-8");
                let node = if meta.is_dir() {
                    disk.folders += 1;
                    waiting.push((entry.path(), disk.folders - 1));
                    Node::Folder(disk.folders - 1)
                } else {
                    let bytes = std::fs::read(entry.path()).expect("a file");
                    let len = bytes.len() as u64;
                    disk.files.push(File { durable: Arc::new(bytes), changes: Vec::new(), len });
                    Node::File(disk.files.len() - 1)
                };
                disk.inodes.insert(meta.ino(), node);
                disk.seen.insert((number, name), node);
            }
        }
        disk.durable = disk.seen.clone();
        disk
    }

    /// The folder and last part of a path.
    fn place(&self, path: &str) -> Result<(usize, String), String> {
        let mut at = ROOT;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Ok((at, part.to_owned()));
            }
            match self.seen.get(&(at, part.to_owned())) {
                Some(Node::Folder(number)) => at = *number,
                other => return Err(format!("{path}: {part} is {other:?}")),
            }
        }
        Err("an empty path".into())
    }

    fn file(&mut self, inode: Inode) -> Result<&mut File, String> {
        match self.inodes.get(&inode) {
            Some(Node::File(number)) => Ok(&mut self.files[*number]),
            other => Err(format!("inode {inode} is {other:?}")),
        }
    }

    fn rename(&mut self, set: Vec<((usize, String), Option<Node>)>) {
        let folders = [set[0].0 .0, set[set.len() - 1].0 .0];
        for (place, node) in &set {
            match node {
                Some(node) => self.seen.insert(place.clone(), *node),
                None => self.seen.remove(place),
            };
        }
        let set = set.into_iter().map(|((folder, name), node)| (folder, name, node)).collect();
        self.changes.push(NameChange { folders, set });
    }

    fn known(&self, place: &(usize, String)) -> Result<Node, String> {
        self.seen.get(place).copied().ok_or_else(|| format!("there is no {place:?}"))
    }

    /// Plays one event.
    ///
    /// # Errors
    /// For one that cannot be, or that the model does not know: then the images would not be what a disk may hold.
    pub fn play(&mut self, event: &Event) -> Result<(), String> {
        if matches!(event, Event::Sync { .. } | Event::Write { durable: true, .. }) {
            self.certain += 1;
        }
        match event {
            Event::Create { inode, path } => {
                let place = self.place(path)?;
                self.files.push(File::default());
                let node = Node::File(self.files.len() - 1);
                self.inodes.insert(*inode, node);
                self.rename(vec![(place, Some(node))]);
            }
            Event::MakeDir { inode, path } => {
                let place = self.place(path)?;
                self.folders += 1;
                let node = Node::Folder(self.folders - 1);
                self.inodes.insert(*inode, node);
                self.rename(vec![(place, Some(node))]);
            }
            Event::Write { inode, at, data, durable } => {
                self.writes += 1;
                self.flushes += u64::from(*durable);
                self.file(*inode)?.write(*at, data, *durable);
            }
            Event::Size { inode, len } => {
                let file = self.file(*inode)?;
                file.len = *len;
                file.changes.push(Change { what: What::Size(*len), hold: Hold::Open });
            }
            Event::SyncStart { .. } | Event::Mark(_) => {}
            Event::Sync { inode, ok } => {
                self.flushes += u64::from(*ok);
                let node = self.inodes.get(inode).copied();
                match node.ok_or_else(|| format!("a flush of {inode}"))? {
                    Node::File(number) => {
                        let file = &mut self.files[number];
                        if *ok {
                            file.settle();
                        } else {
                            file.lose();
                        }
                    }
                    Node::Folder(number) if *ok => {
                        let (certain, open): (Vec<_>, Vec<_>) =
                            self.changes.drain(..).partition(|change| change.folders.contains(&number));
                        certain.iter().for_each(|change| change_names(&mut self.durable, change));
                        self.changes = open;
                    }
                    Node::Folder(_) => {}
                }
            }
            Event::Rename { from, to, exchange } => {
                let (from, to) = (self.place(from)?, self.place(to)?);
                let node = self.known(&from)?;
                let other = if *exchange { Some(self.known(&to)?) } else { None };
                self.rename(vec![(from, other), (to, Some(node))]);
            }
            Event::Link { from, to } => {
                let (from, to) = (self.place(from)?, self.place(to)?);
                let node = self.known(&from)?;
                self.rename(vec![(to, Some(node))]);
            }
            Event::Unlink { path } | Event::RemoveDir { path } => {
                let place = self.place(path)?;
                self.known(&place)?;
                self.rename(vec![(place, None)]);
            }
            Event::Odd(what) => return Err(format!("the images cannot show {what}")),
        }
        Ok(())
    }

    /// Changes that a cut now may leave out.
    pub fn open_changes(&self) -> usize {
        self.changes.len() + self.files.iter().map(|f| f.changes.len()).sum::<usize>()
    }

    /// Images of a cut now: every subset while that is few, and `random` more.
    pub fn images(&self, random: usize) -> usize {
        let open = self.open_changes();
        if open == 0 {
            1
        } else if open <= EXHAUSTIVE {
            (1 << open) + random / 2
        } else {
            2 + random
        }
    }

    /// One image of a cut now.
    pub fn image(&self, variant: usize, seed: u64) -> Image {
        let mut random = Random::new(seed);
        let open = self.open_changes();
        let exhaustive = open <= EXHAUSTIVE && variant < 1 << open;
        let mut kinds = Kinds::default();
        // Which of the changes happened, in the order: names, then file by file.
        let mut bits: Vec<bool> = if exhaustive {
            (0..open).map(|bit| variant >> bit & 1 == 1).collect()
        } else if open > EXHAUSTIVE && variant < 2 {
            vec![variant == 1; open]
        } else {
            pick(open, &mut random, &mut kinds)
        };
        kinds.subset = exhaustive && variant != 0 && variant + 1 != 1 << open;
        let file_bits = bits.split_off(self.changes.len());
        let names = self.names(bits, !exhaustive, &mut random, &mut kinds);
        let mut image = Image { files: Vec::new(), folders: Vec::new(), kinds, fingerprint: 0 };
        let mut print = Fingerprint(self.certain);
        let mut contents: Vec<Option<Arc<Vec<u8>>>> = vec![None; self.files.len()];
        let mut offset = 0;
        for (file, content) in self.files.iter().zip(&mut contents) {
            let chosen = &file_bits[offset..offset + file.changes.len()];
            offset += file.changes.len();
            let bytes = cut(file, chosen, !exhaustive, &mut random, &mut image.kinds);
            print.add(&file.changes, &bytes);
            *content = Some(bytes);
        }
        let mut waiting = vec![(ROOT, String::new())];
        while let Some((folder, path)) = waiting.pop() {
            for ((_, name), node) in names.range((folder, String::new())..(folder + 1, String::new())) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                let (Node::File(number) | Node::Folder(number)) = node;
                print.bytes(path.as_bytes());
                print.bytes(&number.to_le_bytes());
                match node {
                    Node::Folder(number) => {
                        image.folders.push(path.clone());
                        waiting.push((*number, path));
                    }
                    Node::File(number) => {
                        let content = contents[*number].clone().expect("every file was cut");
                        image.files.push((path, content));
                    }
                }
            }
        }
        image.fingerprint = print.0;
        image
    }

    /// The names that there are, given which of the open changes happened.
    fn names(&self, mut bits: Vec<bool>, free: bool, random: &mut Random, kinds: &mut Kinds) -> Names {
        let mut names = self.durable.clone();
        if free && !self.changes.is_empty() {
            match random.below(4) {
                0 | 1 => {
                    // A journal: the first so many.
                    let n = random.below(self.changes.len() as u64 + 1) as usize;
                    bits.iter_mut().enumerate().for_each(|(i, bit)| *bit = i < n);
                }
                2 => {
                    // Each folder by itself.
                    let folders: BTreeSet<usize> = self.changes.iter().map(|c| c.folders[1]).collect();
                    for folder in folders {
                        let of: Vec<usize> =
                            (0..bits.len()).filter(|i| self.changes[*i].folders[1] == folder).collect();
                        let n = random.below(of.len() as u64 + 1) as usize;
                        of.iter().enumerate().for_each(|(k, i)| bits[*i] = k < n);
                    }
                }
                _ => {}
            }
        }
        for (change, happened) in self.changes.iter().zip(bits) {
            if happened {
                change_names(&mut names, change);
            } else {
                kinds.names = true;
            }
        }
        names
    }
}

fn change_names(names: &mut Names, change: &NameChange) {
    for (folder, name, node) in &change.set {
        match node {
            Some(node) => names.insert((*folder, name.clone()), *node),
            None => names.remove(&(*folder, name.clone())),
        };
    }
}

impl File {
    fn write(&mut self, at: u64, data: &Arc<[u8]>, durable: bool) {
        let end = at + data.len() as u64;
        self.len = self.len.max(end);
        let (first, last) = (at / PAGE as u64, end.div_ceil(PAGE as u64));
        for change in &mut self.changes {
            // What a failed flush left in this page is written with it now.
            if let (What::Write { at, .. }, Hold::Lost) = (&change.what, change.hold) {
                if (first..last).contains(&(at / PAGE as u64)) {
                    change.hold = Hold::Open;
                }
            }
        }
        let what = What::Write { at, data: data.clone() };
        if durable {
            apply(Arc::make_mut(&mut self.durable), &what, None);
        }
        if !durable || !self.changes.is_empty() {
            let hold = if durable { Hold::Certain } else { Hold::Open };
            self.changes.push(Change { what, hold });
        }
    }

    /// A flush succeeded: what is open becomes certain, but for what a failed one has hidden.
    fn settle(&mut self) {
        let durable = Arc::make_mut(&mut self.durable);
        for change in self.changes.iter().filter(|change| change.hold != Hold::Lost) {
            apply(durable, &change.what, None);
        }
        self.changes.retain(|change| change.hold == Hold::Lost);
        // Lengths are the folder's books: they are written whatever became of the pages.
        durable.resize(self.len as usize, 0);
    }

    /// A flush failed: page by page, nobody knows.
    fn lose(&mut self) {
        let mut pieces = Vec::new();
        for change in std::mem::take(&mut self.changes) {
            let What::Write { at, data } = &change.what else {
                pieces.push(change);
                continue;
            };
            let mut from = 0;
            while from < data.len() {
                let start = *at as usize + from;
                let to = (start / PAGE * PAGE + PAGE - *at as usize).min(data.len());
                let what = What::Write { at: start as u64, data: data[from..to].into() };
                let hold = if change.hold == Hold::Open { Hold::Lost } else { change.hold };
                pieces.push(Change { what, hold });
                from = to;
            }
        }
        self.changes = pieces;
    }
}

fn apply(bytes: &mut Vec<u8>, what: &What, sectors: Option<&dyn Fn(usize) -> bool>) {
    match what {
        What::Size(len) => bytes.resize(*len as usize, 0),
        What::Write { at, data } => {
            let at = *at as usize;
            let mut put = |from: usize, to: usize| {
                if bytes.len() < at + to {
                    bytes.resize(at + to, 0);
                }
                bytes[at + from..at + to].copy_from_slice(&data[from..to]);
            };
            let Some(sectors) = sectors else { return put(0, data.len()) };
            let mut from = 0;
            while from < data.len() {
                let to = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(data.len());
                if sectors((at + from) / SECTOR) {
                    put(from, to);
                }
                from = to;
            }
        }
    }
}

/// Which of `n` open changes happened.
fn pick(n: usize, random: &mut Random, kinds: &mut Kinds) -> Vec<bool> {
    match random.below(5) {
        0 => {
            kinds.prefix = true;
            let k = random.below(n as u64 + 1) as usize;
            (0..n).map(|i| i < k).collect()
        }
        1 => {
            // Reordered: the end and not the beginning.
            kinds.subset = true;
            let k = random.below(n as u64 + 1) as usize;
            (0..n).map(|i| i >= k).collect()
        }
        2 => {
            kinds.subset = true;
            let k = random.below(n.max(1) as u64) as usize;
            let missing = random.one_in(2);
            (0..n).map(|i| (i == k) != missing).collect()
        }
        _ => {
            kinds.subset = true;
            (0..n).map(|_| random.one_in(2)).collect()
        }
    }
}

/// A file's content after the cut.
fn cut(file: &File, chosen: &[bool], free: bool, random: &mut Random, kinds: &mut Kinds) -> Arc<Vec<u8>> {
    if file.changes.is_empty() {
        return file.durable.clone();
    }
    let mut bytes = (*file.durable).clone();
    let length = random.below(4);
    if free && length < 2 && bytes.len() < file.len as usize {
        // The length went ahead of the bytes.
        kinds.length = true;
        let from = bytes.len();
        bytes.resize(file.len as usize, 0);
        if length == 1 {
            bytes[from..].iter_mut().for_each(|b| *b = random.next() as u8);
        }
    }
    for (Change { what, hold }, happened) in file.changes.iter().zip(chosen) {
        if !happened && *hold != Hold::Certain {
            continue;
        }
        let large = matches!(what, What::Write { data, .. } if data.len() > SECTOR);
        if free && large && *hold != Hold::Certain && random.one_in(3) {
            kinds.torn = true;
            let unit = if random.one_in(2) { 1 } else { PAGE / SECTOR };
            let keep = random.next();
            let torn = |sector: usize| Random::new(keep ^ (sector / unit) as u64).one_in(2);
            apply(&mut bytes, what, Some(&torn));
        } else {
            apply(&mut bytes, what, None);
        }
    }
    if free && length == 2 && bytes.len() > file.durable.len() {
        // The bytes went ahead of the length: nobody sees them.
        kinds.length = true;
        bytes.truncate(file.durable.len());
    }
    Arc::new(bytes)
}

/// What sorts of damage an image shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds {
    /// The first so many changes.
    pub prefix: bool,
    /// Some of them, in another order than they were made.
    pub subset: bool,
    /// Parts of a write.
    pub torn: bool,
    /// Length and bytes apart.
    pub length: bool,
    /// Names that are not there yet, or still.
    pub names: bool,
}

/// What a disk may hold.
pub struct Image {
    /// Path and content.
    pub files: Vec<(String, Arc<Vec<u8>>)>,
    /// Folders, each after the one it is in.
    pub folders: Vec<String>,
    /// What is special about it.
    pub kinds: Kinds,
    /// Two images with the same number here are the same.
    pub fingerprint: u64,
}

impl Image {
    /// Writes the image into an empty folder.
    pub fn write(&self, to: &Path) -> std::io::Result<()> {
        for folder in &self.folders {
            std::fs::create_dir(to.join(folder))?;
        }
        for (path, content) in &self.files {
            std::fs::write(to.join(path), &content[..])?;
        }
        Ok(())
    }
}

/// Sums an image up: what was certain by its number, what was open by its bytes.
struct Fingerprint(u64);

impl Fingerprint {
    fn bytes(&mut self, bytes: &[u8]) {
        let words = bytes.chunks_exact(8);
        let rest = words.remainder().iter().fold(bytes.len() as u64, |n, b| n << 8 ^ u64::from(*b));
        for word in words.map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes"))).chain([rest]) {
            self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x2545_f491_4f6c_dd1d);
        }
    }

    fn add(&mut self, changes: &[Change], bytes: &[u8]) {
        for change in changes {
            if let What::Write { at, data } = &change.what {
                let from = (*at as usize).min(bytes.len());
                self.bytes(&bytes[from..(from + data.len()).min(bytes.len())]);
            }
        }
        self.bytes(&(bytes.len() as u64).to_le_bytes());
    }
}

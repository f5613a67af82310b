//! Which store this peer's is: an identity in the store's folder, and beside the configuration a note of it.
//!
//! An empty folder says nothing: it may be a store that is still to be made, or the place of a disk that is not mounted.
//! So a new store gets a random identity (`store-id` in its folder), and the folder of the configuration remembers it
//! (`ipfs-store.json`), with where it was and whether that was another disk than the configuration's. From the two,
//! [`examine`] tells before anything is made or opened:
//!
//! | noted | in the folder | |
//! |---|---|---|
//! | this store | this store | ours |
//! | another store | a store | refused: somebody else's disk |
//! | a store on a disk of its own, or somewhere else | nothing | refused: the disk is not there |
//! | a store beside the configuration, here | nothing | somebody removed it: made anew |
//! | nothing | a store | taken: a card was replaced, the disk stayed; or an older release made it |
//! | nothing | nothing | made, unless fstab says that a disk belongs there |
//!
//! Whoever removes the note says by that: take or make what there is.
//!
//! The identity is written before the note, so that a power cut between the two leaves a store that is taken. Must
//! never: make anything where a disk is missing; write a note of a store that is not durable.

use super::mounts;
use crate::config::write_private;
use crate::durable;
use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file in the store's folder.
const MARK: &str = "store-id";
/// The note beside the configuration.
const NOTE: &str = "ipfs-store.json";
/// Most bytes that are read of either.
const MAX_BYTES: u64 = 64 << 10;
/// Hexadecimal digits of an identity.
const DIGITS: usize = 32;

/// Where the blocks are, and where that is noted.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder of the blocks.
    pub blocks: PathBuf,
    /// The folder of the configuration.
    pub home: PathBuf,
}

/// What is known of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Its identity.
    id: String,
    /// Where it was.
    folder: PathBuf,
    /// On another disk than the configuration.
    apart: bool,
}

/// What to do about the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Open it.
    Ours(String),
    /// There is none and never was, or it was removed on purpose: make it, with this identity.
    None(String),
}

impl Place {
    /// The note's file.
    pub fn note(&self) -> PathBuf {
        self.home.join(NOTE)
    }

    fn read_note(&self) -> Result<Option<Note>> {
        let Some(text) = read(&self.note())? else { return Ok(None) };
        let note = serde_json::from_str(&text).map_err(|e| {
            Error::corrupt(format!(
                "{} is damaged ({e}): see that the disk with the blocks is mounted, then remove that file",
                self.note().display()
            ))
        })?;
        Ok(Some(note))
    }

    fn read_mark(&self) -> Result<Option<String>> {
        let path = self.blocks.join(MARK);
        let Some(text) = read(&path)? else { return Ok(None) };
        let id = text.trim();
        if id.len() != DIGITS || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::corrupt(format!(
                "{} is damaged: remove it and {}, and the store is taken as it is",
                path.display(),
                self.note().display()
            )));
        }
        Ok(Some(id.to_owned()))
    }

    /// Whether an index or a block file is there.
    fn has_store(&self) -> Result<bool> {
        match std::fs::read_dir(&self.blocks) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            entries => {
                let entries = entries.context(format!("listing {}", self.blocks.display()))?;
                let names = entries.flatten().map(|e| e.file_name());
                let of_store = |n: std::ffi::OsString| {
                    n.to_str().is_some_and(|n| n == "data.mdb" || n.ends_with(".blocks"))
                };
                Ok(names.into_iter().any(of_store))
            }
        }
    }

    /// Whether blocks and configuration are on two disks.
    fn is_apart(&self) -> bool {
        let device = |path: &Path| path.metadata().map(|m| m.dev()).ok();
        device(&self.blocks) != device(&self.home)
    }

    /// Whether the store was on a disk of its own when it was seen last.
    pub(super) fn was_apart(&self) -> bool {
        self.read_note().ok().flatten().is_some_and(|note| note.apart)
    }
}

/// The text of a small file, if it is there.
fn read(path: &Path) -> Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None)
        }
        Err(error) => return Err(Error::from_io(format!("reading {}", path.display()), &error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).context(format!("reading {}", path.display()))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Looks at what is there, changing nothing.
///
/// # Errors
/// One sentence when the store is not there, or is not this peer's; or when the disk cannot be read.
pub(super) fn examine(place: &Place) -> Result<Found> {
    let (blocks, note_file) = (place.blocks.display(), place.note());
    let forget = note_file.display();
    let (note, mark) = (place.read_note()?, place.read_mark()?);
    match (note, mark) {
        (Some(note), Some(mark)) if note.id == mark => Ok(Found::Ours(mark)),
        (Some(_), Some(_)) => Err(Error::unavailable(format!(
            "the blocks in {blocks} are not this peer's: another disk is mounted there; mount the right one, or remove \
             {forget} to work with this one"
        ))),
        (Some(note), None) => {
            // What was on the same disk as the note is not unmounted while the note can be read.
            let here = !note.apart && note.folder == place.blocks;
            match (here, place.has_store()?) {
                (true, true) => Ok(Found::Ours(note.id)),
                (true, false) => Ok(Found::None(note.id)),
                (false, true) => Err(Error::unavailable(format!(
                    "{blocks} has blocks, but not those that were in {}: mount the right disk, or remove {forget} to work \
                     with these",
                    note.folder.display()
                ))),
                (false, false) if note.folder == place.blocks => Err(Error::unavailable(format!(
                    "the disk with the blocks is not there: there is no block store in {blocks}, and none is made in its \
                     place; mount the disk, or, if it is lost for good, remove {forget} to begin with an empty store"
                ))),
                (false, false) => Err(Error::unavailable(format!(
                    "there are no blocks in {blocks}; they were in {}: copy that folder (cp -a), mount the disk, or \
                     remove {forget} to begin with an empty store",
                    note.folder.display()
                ))),
            }
        }
        (None, Some(mark)) => Ok(Found::Ours(mark)),
        (None, None) if place.has_store()? => Ok(Found::Ours(new_id()?)),
        (None, None) => {
            let inside = place.blocks.starts_with(&place.home);
            match mounts::unmounted(&place.blocks) {
                Some(missing) => Err(Error::unavailable(format!(
                    "the disk for the blocks is not there: /etc/fstab wants {} at {}, and nothing is mounted there; mount \
                     it (mount {})",
                    missing.device,
                    missing.point.display(),
                    missing.point.display()
                ))),
                None if !inside && durable::above(&place.blocks).is_some_and(|above| !above.exists()) => {
                    Err(Error::unavailable(format!(
                        "the disk for the blocks is not there: {} does not exist; mount the disk, or make that folder",
                        durable::folder_of(&place.blocks).display()
                    )))
                }
                None => Ok(Found::None(new_id()?)),
            }
        }
    }
}

fn new_id() -> Result<String> {
    let mut bytes = [0; DIGITS / 2];
    getrandom::fill(&mut bytes).map_err(|e| Error::io(format!("no random numbers: {e}")))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// Marks the folder and notes it, after [`examine`] has allowed it and before the store is opened.
///
/// # Errors
/// When either cannot be written.
pub(super) fn settle(place: &Place, found: &Found) -> Result<()> {
    let (Found::Ours(id) | Found::None(id)) = found;
    if let Found::None(_) = found {
        durable::make_folder(&place.blocks)?;
    }
    if place.read_mark()?.as_deref() != Some(id) {
        write_private(&place.blocks.join(MARK), format!("{id}\n").as_bytes())?;
    }
    let note = Note { id: id.clone(), folder: place.blocks.clone(), apart: place.is_apart() };
    if place.read_note()?.as_ref() != Some(&note) {
        let text = serde_json::to_string_pretty(&note)
            .map_err(|e| Error::internal(format!("the note of the block store: {e}")))?;
        write_private(&place.note(), (text + "\n").as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        _tmp: tempfile::TempDir,
        place: Place,
    }

    fn case() -> Case {
        let tmp = tempfile::tempdir().expect("tempdir");
        let home = tmp.path().join("home");
        std::fs::create_dir(&home).expect("home");
        Case { place: Place { blocks: tmp.path().join("disk"), home }, _tmp: tmp }
    }

    /// As if the store was on a disk of its own.
    fn set_apart(place: &Place) {
        let mut note = place.read_note().expect("note").expect("a note");
        note.apart = true;
        std::fs::write(place.note(), serde_json::to_string(&note).expect("JSON")).expect("note");
    }

    fn made(place: &Place) -> String {
        let found = examine(place).expect("nothing there");
        let Found::None(id) = &found else { panic!("{found:?}") };
        settle(place, &found).expect("settled");
        std::fs::write(place.blocks.join("data.mdb"), "index").expect("index");
        id.clone()
    }

    fn refusal(place: &Place) -> String {
        // Whatever is there of the way to the blocks: it stays as it is.
        let there = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
        let own = |path: &&Path| **path != *std::env::temp_dir(); // others make folders there, too
        let count = || place.blocks.ancestors().take(3).filter(own).map(there).collect::<Vec<_>>();
        let before = count();
        let error = examine(place).expect_err("refused");
        assert_eq!(before, count(), "nothing was made");
        error.message().to_owned()
    }

    #[test]
    fn a_store_is_made_once_and_known_again() {
        let Case { place, .. } = &case();
        let id = made(place);
        assert_eq!(examine(place).expect("there"), Found::Ours(id));
    }

    #[test]
    fn an_empty_place_is_no_store_when_there_was_one_on_a_disk_of_its_own() {
        let Case { place, _tmp } = &case();
        let id = made(place);
        set_apart(place);
        assert_eq!(examine(place).expect("there"), Found::Ours(id));
        std::fs::rename(&place.blocks, _tmp.path().join("unplugged")).expect("unplugged");
        for _ in 0..2 {
            assert!(refusal(place).contains("the disk with the blocks is not there"));
            // The place of the mount, empty.
            std::fs::create_dir_all(&place.blocks).expect("mount point");
        }
        std::fs::remove_dir(&place.blocks).expect("mount point");
        std::fs::rename(_tmp.path().join("unplugged"), &place.blocks).expect("plugged in");
        assert!(matches!(examine(place), Ok(Found::Ours(_))));
        // Lost for good: whoever removes the note says so.
        std::fs::remove_dir_all(&place.blocks).expect("lost");
        refusal(place);
        std::fs::remove_file(place.note()).expect("note");
        assert!(matches!(examine(place), Ok(Found::None(_))));
    }

    #[test]
    fn a_folder_beside_the_configuration_that_was_removed_is_made_again() {
        let Case { place, .. } = &case();
        let id = made(place);
        std::fs::remove_dir_all(&place.blocks).expect("removed");
        assert_eq!(examine(place).expect("nothing there"), Found::None(id.clone()));
        made(place);
        std::fs::remove_file(place.blocks.join(MARK)).expect("mark");
        assert_eq!(examine(place).expect("there"), Found::Ours(id), "only its mark was lost");
    }

    #[test]
    fn another_store_and_another_place_are_not_taken_for_it() {
        let Case { place, _tmp } = &case();
        made(place);
        let other = Place { blocks: _tmp.path().join("other"), home: _tmp.path().join("home2") };
        std::fs::create_dir(&other.home).expect("home");
        made(&other);
        let moved = Place { blocks: other.blocks.clone(), home: place.home.clone() };
        assert!(refusal(&moved).contains("not this peer's"));
        let nowhere = Place { blocks: _tmp.path().join("nowhere"), home: place.home.clone() };
        let said = refusal(&nowhere);
        assert!(said.contains("they were in") && said.contains("/disk"), "{said}");
        // Without its mark: some other store.
        std::fs::remove_file(other.blocks.join(MARK)).expect("mark");
        assert!(refusal(&moved).contains("not those that were in"));
    }

    #[test]
    fn a_store_without_a_note_is_taken() {
        let Case { place, .. } = &case();
        let id = made(place);
        std::fs::remove_file(place.note()).expect("note");
        assert_eq!(examine(place).expect("there"), Found::Ours(id));
        // Of a release that marked nothing.
        std::fs::remove_file(place.blocks.join(MARK)).expect("mark");
        let found = examine(place).expect("there");
        assert!(matches!(found, Found::Ours(_)));
        settle(place, &found).expect("settled");
        assert_eq!(examine(place).expect("there"), found);
    }

    #[test]
    fn a_place_below_a_folder_that_is_not_there_is_not_made() {
        let Case { place, _tmp } = &case();
        let deep = Place { blocks: _tmp.path().join("media/stick/blocks"), home: place.home.clone() };
        assert!(refusal(&deep).contains("media/stick does not exist"));
        let inside = Place { blocks: place.home.join("deep/er/ipfs"), home: place.home.clone() };
        assert!(matches!(examine(&inside), Ok(Found::None(_))));
    }

    #[test]
    fn damage_is_told_and_nothing_is_made() {
        let Case { place, .. } = &case();
        made(place);
        std::fs::write(place.blocks.join(MARK), "what").expect("mark");
        assert!(refusal(place).contains("store-id is damaged"));
        std::fs::write(place.note(), "{").expect("note");
        assert!(refusal(place).contains("ipfs-store.json is damaged"));
    }
}

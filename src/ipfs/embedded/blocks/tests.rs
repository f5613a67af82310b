//! Power cuts, damage, limits and collections of the block store.

use super::*;
use crate::error::Kind;
use crate::ipfs::unixfs::hash::{cid_of, DAG_PB, RAW};
use crate::runtime::block_on;
use std::os::unix::fs::FileExt;

/// Small segments, no reserve, no grace.
fn config(folder: &Path) -> StoreConfig {
    StoreConfig {
        reserve: 0,
        grace: Duration::ZERO,
        segment_size: 64 * 1024,
        ..StoreConfig::new(folder, 1 << 30)
    }
}

fn block(n: u64, len: usize) -> (Cid, Bytes) {
    let mut data = vec![n as u8; len];
    let bytes = n.to_le_bytes();
    let end = len.min(8);
    data[..end].copy_from_slice(&bytes[..end]);
    let data = Bytes::from(data);
    (cid_of(1, RAW, &data), data)
}

fn put(store: &BlockStore, blocks: &[(Cid, Bytes)]) -> Result<()> {
    block_on(store.put(blocks.to_vec(), Durability::Flushed))
}

/// Copies a store's folder while it is open, as a power cut would leave it.
fn cut_power(from: &Path) -> tempfile::TempDir {
    let to = memory_folder();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// A folder in memory where there is one: for tests that open hundreds of stores and need no real flush.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn last_segment(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "blocks"));
    files.sort();
    files.pop().unwrap()
}

#[test]
fn what_was_put_is_read_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let blocks: Vec<_> = (0..500).map(|n| block(n, (n * 7 % 2_000) as usize + 8)).collect();
    let store = BlockStore::open(config(folder.path())).unwrap();
    put(&store, &blocks).unwrap();
    for round in 0..2 {
        let store = if round == 0 { store.clone() } else { BlockStore::open(config(folder.path())).unwrap() };
        for (cid, data) in &blocks {
            assert_eq!(store.get(cid).unwrap().as_ref(), Some(data));
            assert_eq!(store.size(cid).unwrap(), Some(data.len() as u64));
        }
        assert_eq!(store.get(&cid_of(1, RAW, b"none")).unwrap(), None);
        assert_eq!(store.usage().blocks, 500);
        if round == 0 {
            block_on(store.close());
            assert_eq!(put(&store, &blocks[..1]).unwrap_err().kind(), Kind::Unavailable);
            break;
        }
    }
    drop(store);
    let store = BlockStore::open(config(folder.path())).unwrap();
    assert!(blocks.iter().all(|(cid, data)| store.get(cid).unwrap().as_ref() == Some(data)));
}

#[test]
fn all_versions_of_a_cid_share_one_block_and_identity_cids_need_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let data = Bytes::from_static(b"shared");
    put(&store, &[(cid_of(0, DAG_PB, &data), data.clone()), (cid_of(1, RAW, &data), data.clone())]).unwrap();
    assert_eq!(store.usage().blocks, 1);
    assert_eq!(store.get(&cid_of(1, DAG_PB, &data)).unwrap(), Some(data.clone()));
    let inline = Cid::new_v1(RAW, Hash::wrap(0, b"inline").unwrap());
    assert_eq!(store.get(&inline).unwrap().unwrap(), "inline");
    assert_eq!(store.size(&inline).unwrap(), Some(6));
    put(&store, &[(inline, Bytes::from_static(b"inline"))]).unwrap();
    assert_eq!(store.usage().blocks, 1);
}

#[test]
fn an_acknowledged_block_survives_a_power_cut_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let mut acknowledged = Vec::new();
    for n in 0..40 {
        let batch: Vec<_> = (0..5).map(|i| block(n * 5 + i, 3_000)).collect();
        put(&store, &batch).unwrap();
        acknowledged.extend(batch);
        if n % 10 == 9 {
            block_on(store.commit()).unwrap();
        }
        if n % 3 == 0 {
            let copy = cut_power(folder.path());
            let after = BlockStore::open(config(copy.path())).unwrap();
            for (cid, data) in &acknowledged {
                assert_eq!(after.get(cid).unwrap().as_ref(), Some(data), "after {n}");
            }
            assert_eq!(after.usage().blocks, acknowledged.len() as u64);
        }
    }
}

#[test]
fn a_record_torn_at_any_byte_is_cut_off_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let (kept, torn) = (block(1, 100), block(2, 61));
    put(&store, std::slice::from_ref(&kept)).unwrap();
    let before = last_segment(folder.path()).metadata().unwrap().len();
    put(&store, std::slice::from_ref(&torn)).unwrap();
    let copy = cut_power(folder.path());
    drop(store);
    let whole = std::fs::read(last_segment(copy.path())).unwrap();
    let record_end = before + (16 + 34 + 61);
    for len in before..=whole.len() as u64 {
        let trial = cut_power(copy.path());
        let path = last_segment(trial.path());
        std::fs::write(&path, &whole[..len as usize]).unwrap();
        let store = BlockStore::open(config(trial.path())).unwrap();
        assert_eq!(store.get(&kept.0).unwrap(), Some(kept.1.clone()));
        let expected = (len >= record_end).then(|| torn.1.clone());
        assert_eq!(store.get(&torn.0).unwrap(), expected, "cut at {len}");
        // Writing goes on behind the cut.
        put(&store, &[torn.clone(), block(3, 10)]).unwrap();
        drop(store);
        let store = BlockStore::open(config(trial.path())).unwrap();
        assert_eq!(store.get(&torn.0).unwrap(), Some(torn.1.clone()));
        assert_eq!(store.usage().blocks, 3);
    }
}

#[test]
fn a_record_that_lost_its_padding_does_not_hide_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = [block(1, 61), block(2, 61), block(3, 61)];
    put(&BlockStore::open(config(folder.path())).unwrap(), &blocks[..1]).unwrap();
    let copy = cut_power(folder.path());
    let file = File::options().write(true).open(last_segment(copy.path())).unwrap();
    file.set_len(16 + 16 + 34 + 61).unwrap();
    // The index is gone too, so that only the records themselves tell.
    std::fs::remove_file(copy.path().join("data.mdb")).unwrap();
    put(&BlockStore::open(config(copy.path())).unwrap(), &blocks[1..]).unwrap();
    std::fs::remove_file(copy.path().join("data.mdb")).unwrap();
    let store = BlockStore::open(config(copy.path())).unwrap();
    for (cid, data) in &blocks {
        assert_eq!(store.get(cid).unwrap().as_ref(), Some(data));
    }
}

#[test]
fn a_new_block_file_whose_header_never_came_is_no_obstacle() {
    for garbage in [&[][..], &[7; 5], &[0; 16], &[7; 16]] {
        let folder = tempfile::tempdir().unwrap();
        put(&BlockStore::open(config(folder.path())).unwrap(), &[block(1, 61)]).unwrap();
        std::fs::write(folder.path().join("00000002.blocks"), garbage).unwrap();
        let store = BlockStore::open(config(folder.path())).unwrap();
        assert!(store.get(&block(1, 61).0).unwrap().is_some());
        put(&store, &[block(2, 61)]).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_the_unindexed_tail_costs_its_block_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let blocks: Vec<_> = (0..3).map(|n| block(n, 40)).collect();
    put(&store, &blocks).unwrap();
    let copy = cut_power(folder.path());
    drop(store);
    let whole = std::fs::read(last_segment(copy.path())).unwrap();
    for at in 16..whole.len() {
        let trial = cut_power(copy.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(last_segment(trial.path()), &bytes).unwrap();
        let store = BlockStore::open(config(trial.path())).unwrap();
        let here = blocks
            .iter()
            .filter(|(cid, data)| store.get(cid).unwrap().inspect(|b| assert_eq!(b, data)).is_some());
        assert!(here.count() >= 2, "flipped at {at}");
    }
}

#[test]
fn a_damaged_block_is_never_served_and_can_be_put_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let (cid, data) = block(7, 5_000);
    put(&store, &[(cid, data.clone())]).unwrap();
    block_on(store.commit()).unwrap();
    let file = File::options().write(true).open(last_segment(folder.path())).unwrap();
    file.write_all_at(&[0xee], 2_000).unwrap();
    assert_eq!(store.get(&cid).unwrap_err().kind(), Kind::Corrupt);
    block_on(store.commit()).unwrap();
    assert_eq!(store.get(&cid).unwrap(), None, "forgotten");
    put(&store, &[(cid, data.clone())]).unwrap();
    assert_eq!(store.get(&cid).unwrap(), Some(data));
}

#[test]
fn the_storage_limit_is_never_exceeded_and_refuses_whole_puts() {
    let folder = tempfile::tempdir().unwrap();
    let index = BlockStore::open(config(folder.path())).unwrap().usage().bytes;
    let max = index + 50_000;
    let store = BlockStore::open(StoreConfig { storage_max: max, ..config(folder.path()) }).unwrap();
    let mut stored = 0;
    let error = loop {
        match put(&store, &[block(stored * 2, 4_000), block(stored * 2 + 1, 4_000)]) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(store.usage().bytes <= max);
    };
    assert_eq!(error.kind(), Kind::Full);
    assert!(error.message().contains("storage_max"), "{error}");
    assert!(stored >= 4);
    assert_eq!(store.usage().blocks, stored * 2);
    assert_eq!(store.get(&block(stored * 2, 4_000).0).unwrap(), None, "half of a refused put");
    put(&store, &[block(0, 4_000)]).unwrap();
}

#[test]
fn the_reserve_of_the_file_system_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(StoreConfig { reserve: u64::MAX / 2, ..config(folder.path()) }).unwrap();
    let error = put(&store, &[block(1, 10)]).unwrap_err();
    assert_eq!(error.kind(), Kind::Full);
    assert!(error.message().contains("reserve"), "{error}");
}

#[test]
fn an_oversized_block_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    assert_eq!(put(&store, &[block(1, MAX_BLOCK + 1)]).unwrap_err().kind(), Kind::TooLarge);
    put(&store, &[block(1, MAX_BLOCK)]).unwrap();
    assert_eq!(store.get(&block(1, MAX_BLOCK).0).unwrap().unwrap().len(), MAX_BLOCK);
}

#[test]
fn a_folder_belongs_to_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let _store = BlockStore::open(config(folder.path())).unwrap();
    assert_eq!(BlockStore::open(config(folder.path())).err().unwrap().kind(), Kind::Conflict);
}

#[test]
fn a_missing_or_foreign_block_file_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    put(&store, &[block(1, 100)]).unwrap();
    drop(store);
    let path = last_segment(folder.path());
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"something else entirely").unwrap();
    assert_eq!(BlockStore::open(config(folder.path())).err().unwrap().kind(), Kind::Corrupt);
    std::fs::remove_file(&path).unwrap();
    let error = BlockStore::open(config(folder.path())).err().unwrap();
    assert!(error.message().contains("missing"), "{error}");
    std::fs::write(&path, &good).unwrap();
    assert!(BlockStore::open(config(folder.path())).unwrap().get(&block(1, 100).0).unwrap().is_some());
}

#[test]
fn a_lost_index_is_rebuilt_from_the_segments() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let blocks: Vec<_> = (0..100).map(|n| block(n, 2_000)).collect();
    put(&store, &blocks).unwrap();
    drop(store);
    std::fs::remove_file(folder.path().join("data.mdb")).unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    assert!(blocks.iter().all(|(cid, data)| store.get(cid).unwrap().as_ref() == Some(data)));
}

#[test]
fn removed_blocks_stay_removed_and_their_space_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let blocks: Vec<_> = (0..200).map(|n| block(n, 2_000)).collect();
    put(&store, &blocks).unwrap();
    let full = store.usage().bytes;
    let (keep, drop_): (Vec<_>, Vec<_>) = blocks.iter().cloned().partition(|(_, data)| data[0] % 5 == 0);
    store.begin_collection().unwrap();
    let removed = block_on(store.remove(drop_.iter().map(|(cid, _)| *cid.hash()).collect())).unwrap();
    assert_eq!(removed.len(), drop_.len());
    block_on(store.compact()).unwrap();
    store.end_collection();
    assert!(store.usage().bytes < full / 2, "{} of {full}", store.usage().bytes);
    let copy = cut_power(folder.path());
    drop(store);
    for path in [folder.path(), copy.path()] {
        let store = BlockStore::open(config(path)).unwrap();
        assert!(keep.iter().all(|(cid, data)| store.get(cid).unwrap().as_ref() == Some(data)));
        assert!(drop_.iter().all(|(cid, _)| store.get(cid).unwrap().is_none()));
        assert_eq!(store.usage().blocks, keep.len() as u64);
    }
}

#[test]
fn compaction_loses_nothing_at_any_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    let blocks: Vec<_> = (0..150).map(|n| block(n, 2_000)).collect();
    put(&store, &blocks).unwrap();
    let dead: Vec<_> = blocks.iter().filter(|(_, d)| d[0] % 3 != 0).map(|(cid, _)| *cid.hash()).collect();
    block_on(store.remove(dead)).unwrap();
    let cuts = std::thread::scope(|scope| {
        let compaction = scope.spawn(|| block_on(store.compact()));
        let mut cuts = Vec::new();
        while !compaction.is_finished() && cuts.len() < 50 {
            // A copy taken while files come and go may be unusable as a whole; a real power cut sees one moment.
            let number = |p: &Path| std::fs::read_dir(p).unwrap().count();
            let before = number(folder.path());
            let to = tempfile::tempdir().unwrap();
            let copied = std::fs::read_dir(folder.path()).unwrap().all(|e| {
                let e = e.unwrap();
                std::fs::copy(e.path(), to.path().join(e.file_name())).is_ok()
            });
            if copied && number(folder.path()) == before {
                cuts.push(to);
            }
        }
        compaction.join().unwrap().unwrap();
        cuts
    });
    let check = |store: &BlockStore| {
        for (cid, data) in blocks.iter().filter(|(_, d)| d[0] % 3 == 0) {
            assert_eq!(store.get(cid).unwrap().as_ref(), Some(data));
        }
    };
    check(&store);
    for cut in cuts {
        // LMDB's file may be torn by the copy; then it says so and is not what is tested here.
        if let Ok(store) = BlockStore::open(config(cut.path())) {
            let here = blocks.iter().filter(|(_, d)| d[0] % 3 == 0).filter(|(cid, _)| store.get(cid).is_ok());
            assert_eq!(here.count(), 50);
        }
    }
    drop(store);
    check(&BlockStore::open(config(folder.path())).unwrap());
}

#[test]
fn many_writers_and_readers_agree() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(config(folder.path())).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    let (cid, data) = block(writer * 1_000 + n % 40, 1_500);
                    put(&store, &[(cid, data.clone())]).unwrap();
                    assert_eq!(store.get(&cid).unwrap(), Some(data));
                }
            });
        }
    });
    assert_eq!(store.usage().blocks, 160);
}

/// Mounts a tiny file system; `None` where the test may not.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn mount(size: &str) -> Option<Tiny> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        mount.status.success().then_some(Tiny(folder))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_refuses_whole_puts_and_keeps_what_it_has() {
    let Some(tiny) = Tiny::mount("2m") else {
        eprintln!("skipped: may not mount a tmpfs");
        return;
    };
    let folder = tiny.0.path().join("blocks");
    let store = BlockStore::open(config(&folder)).unwrap();
    let mut stored = Vec::new();
    let mut refused = 0;
    for n in 0..200 {
        let batch = [block(n * 2, 10_000), block(n * 2 + 1, 10_000)];
        match put(&store, &batch) {
            Ok(()) => stored.extend(batch),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Full, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && stored.len() > 100, "{} stored, {refused} refused", stored.len());
    assert!(stored.iter().all(|(cid, data)| store.get(cid).unwrap().as_ref() == Some(data)));
    let _ = block_on(store.commit());
    drop(store);
    // Full to the last byte, the index may be unable to grow: opening says so; with a little room all is there.
    let first = BlockStore::open(config(&folder));
    let store = match first {
        Ok(store) => store,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Full, "{error}");
            let grow = std::process::Command::new("mount")
                .args(["-o", "remount,size=8m"])
                .arg(tiny.0.path())
                .status();
            assert!(grow.unwrap().success());
            BlockStore::open(config(&folder)).unwrap()
        }
    };
    assert!(stored.iter().all(|(cid, data)| store.get(cid).unwrap().as_ref() == Some(data)));
    drop(store);
}

//! Opening: what a crash or a power cut left, and what of it is whole.
//!
//! The index covers everything up to its mark. Behind the mark the segments are read record by record, each checked by
//! its hash; whole records are written once more and flushed (reading them does not prove that they are on the disk)
//! and enter the index, damage between them is skipped and reported, a torn end is cut off. What was acknowledged was
//! flushed, so it is among the whole ones.

use super::env::lmdb;
use super::held::Held;
use super::segment::{name_of, Segment, FILE_HEADER};
use super::writer::{segment_of, Writer, MARK};
use super::Shared;
use crate::error::{Context, Error, Result};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Name of the format version in the table of small records.
const VERSION: &[u8] = b"version";
/// The format version that this code writes.
const FORMAT: &[u8] = &[1];

impl Writer {
    /// Finds out what is on disk: reads again what the index does not cover, cuts a torn end, removes files that a
    /// crash left over.
    pub(super) fn recover(shared: Arc<Shared>) -> Result<Writer> {
        let folder = &shared.folder;
        check_version(&shared)?;
        let mark = read_mark(&shared)?;
        let mut numbers = segment_files(folder)?;
        let mut bytes = 0;
        let known: HashSet<u32> = {
            let txn = shared.tables.read()?;
            let rows = shared.tables.segments.iter(&txn).map_err(lmdb("reading the segments"))?;
            rows.map(|row| segment_of(row.map_err(lmdb("reading the segments"))?.0)).collect::<Result<_>>()?
        };
        // A segment below the mark without an account was emptied; only its file survived a crash.
        numbers.retain(|number| {
            let leftover = *number < mark.0 && !known.contains(number);
            if leftover {
                log::info!("removing block file {number}, which was emptied before the last stop");
                let _ = folder.remove(&name_of(*number));
            }
            !leftover
        });
        if let Some(missing) = known.iter().find(|n| !numbers.contains(n)) {
            return Err(Error::corrupt(format!(
                "the block file {} is missing: restore it, or remove the folder {} and pin again",
                folder.shown(&name_of(*missing)).display(),
                folder.path().display()
            )));
        }
        let last = numbers.last().copied();
        let mut found = HashMap::new();
        let mut current = None;
        for number in numbers {
            let Some(segment) = Segment::open(folder, number)? else {
                // Its creation was cut short, or it is the torn last one: nothing in it was ever acknowledged.
                if known.contains(&number) || Some(number) != last {
                    return Err(Error::corrupt(format!("the block file {number} has lost its header")));
                }
                folder.remove(&name_of(number)).context("removing an empty block file")?;
                continue;
            };
            let mut end = segment.size()?;
            if number >= mark.0 {
                let from = if number == mark.0 { mark.1 } else { u64::from(FILE_HEADER) };
                if end < from {
                    return Err(Error::corrupt(format!(
                        "the block file {number} has lost its end: blocks in it may be missing; pin again"
                    )));
                }
                let (whole, skipped) = segment.scan(from, |hash, at| {
                    found.insert(hash, at);
                })?;
                if skipped > 0 {
                    log::error!(
                        "block file {number}: {skipped} damaged bytes between whole blocks were skipped"
                    );
                }
                if Some(number) == last && whole != end {
                    if whole < end {
                        log::warn!("block file {number}: the torn end ({} bytes) was cut off", end - whole);
                    }
                    // Or the last record lacks some of its padding: the next one must begin at a multiple of 8.
                    segment.truncate(whole).context("cutting a torn block file")?;
                    end = whole;
                }
                if whole > from {
                    // What can be read may be in memory only: a process before may have been told that its flush
                    // failed, and the system does not write such pages again by itself.
                    let again = segment.rewrite(from, whole.min(end)).and_then(|()| segment.sync());
                    again.context(format!("writing the end of block file {number} again"))?;
                }
            }
            bytes += end;
            current = Some((segment, end));
        }
        let (segment, end) = match current {
            Some((segment, end)) => (segment, end),
            None => {
                bytes += u64::from(FILE_HEADER);
                (Segment::create(folder, mark.0.max(1))?, u64::from(FILE_HEADER))
            }
        };
        let segment = Arc::new(segment);
        shared.open.lock().add(segment.clone());
        let txn = shared.tables.read()?;
        let blocks = shared.tables.blocks.len(&txn).map_err(lmdb("counting blocks"))?;
        drop(txn);
        shared.bytes.store(bytes, Ordering::Relaxed);
        shared.blocks.store(blocks, Ordering::Relaxed);
        let number = segment.number;
        let mut writer = Writer::new(shared, segment, end);
        // Every segment that exists has an account, so that an unaccounted file is known to be a leftover.
        writer.account(number)?;
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable_by_key(|(_, at)| *at);
        for (hash, at) in found {
            writer.enter(hash, at)?;
        }
        writer.commit()?;
        Ok(writer)
    }
}

fn check_version(shared: &Shared) -> Result<()> {
    let error = lmdb("reading the block index");
    let txn = shared.tables.read()?;
    let version = shared.tables.meta.get(&txn, VERSION).map_err(&error)?.map(<[u8]>::to_vec);
    drop(txn);
    match version.as_deref() {
        Some(FORMAT) => Ok(()),
        None => {
            let mut txn = shared.tables.write()?;
            shared.tables.meta.put(&mut txn, VERSION, FORMAT).map_err(&error)?;
            txn.commit().map_err(&error)
        }
        Some(other) => Err(Error::version(format!(
            "the block store in {} has format {other:?}, newer than this program: use the newer pinfold",
            shared.config.folder.display()
        ))),
    }
}

fn read_mark(shared: &Shared) -> Result<(u32, u64)> {
    let txn = shared.tables.read()?;
    let row = shared.tables.meta.get(&txn, MARK).map_err(lmdb("reading the block index"))?;
    let Some(row) = row else { return Ok((0, 0)) };
    let number = row.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let offset = row.get(4..12).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    number.zip(offset).ok_or_else(|| Error::corrupt("the mark of the block index is damaged"))
}

/// Numbers of all segment files, ascending.
fn segment_files(folder: &Held) -> Result<Vec<u32>> {
    let names = folder.names().context(format!("listing {}", folder.path().display()))?;
    let number = |name: &String| name.strip_suffix(".blocks").and_then(|n| n.parse::<u32>().ok());
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

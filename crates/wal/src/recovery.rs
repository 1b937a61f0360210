//! Opening a log: find the segments, read them, judge the end, and say what is there.
//!
//! Nothing here needs free space: no file is made, and a repair writes zeros over bytes that exist.
//! What has been read is not trusted yet: a process that was killed may have left it in the page cache
//! alone, and one whose sync failed may have left it there marked as written, so that no sync would ever
//! write it. Only the last batch can be such; it is written once more, as it is, and synced.

use std::io;
use std::path::{Path, PathBuf};

use raft::{Entry, HardState, Index, SnapshotMeta};

use crate::disk::{Disk, DiskFile};
use crate::error::WalError;
use crate::record::{self, Kind};
use crate::replay::Replay;
use crate::segment::{Reader, SegmentName, Step};
use crate::torn::{self, Verdict};

/// What the log held.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// The bytes given to `create`.
    pub metadata: Vec<u8>,
    /// The last hard state; the default if none was ever written.
    pub hard_state: HardState,
    /// The last snapshot marker that was read; index 0 if there was none in the segments that were read.
    pub snapshot: SnapshotMeta,
    /// A snapshot from another member has taken the place of the log, ahead of the index asked for: its
    /// body, durable since before this was written, did not reach the database, and must do so before
    /// anything else happens.
    pub install: Option<SnapshotMeta>,
    /// The index before the first of `entries`: that of `install`, if there is one, else the index asked for.
    pub begins_after: Index,
    /// The log after `begins_after`, contiguous, terms never falling.
    pub entries: Vec<Entry>,
    /// The torn tail that was cut, if there was one.
    pub repaired: Option<Repair>,
}

/// A torn tail that was cut: the remains of a batch whose sync never came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The last segment.
    pub file: PathBuf,
    /// Where the log ends now.
    pub offset: u64,
    /// What was found there.
    pub reason: String,
}

/// The end of the log, where writing goes on.
pub(crate) struct Tail {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) offset: u64,
    pub(crate) crc: u32,
    pub(crate) last: Index,
}

/// The segments in `dir`, oldest first. Other names are none of our business.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>, WalError> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(WalError::Io { doing: "list", path: dir.into(), source }),
    };
    let mut segments: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.sort();
    Ok(segments)
}

/// Which of `segments` is the first that holds anything behind `from`.
pub(crate) fn first_needed(segments: &[SegmentName], from: Index) -> Option<usize> {
    segments.iter().rposition(|name| name.first <= from.0)
}

/// Reads everything behind `from` and repairs a torn tail.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    segments: &[SegmentName],
    from: Index,
) -> Result<(Recovered, Tail), WalError> {
    let gap = |reason| WalError::Gap { dir: dir.into(), reason };
    let Some(first) = first_needed(segments, from) else {
        let begin = segments.iter().map(|name| name.first).min().unwrap_or(0);
        return Err(gap(format!("the database holds entry {from}, the log begins at entry {begin}")));
    };
    let needed = &segments[first..];
    if let Some(pair) = needed.windows(2).find(|pair| pair[1].seq != pair[0].seq + 1) {
        return Err(gap(format!("{} is followed by {}", pair[0].file_name(), pair[1].file_name())));
    }

    let mut replay = Replay::new(from, Index(needed[0].first.saturating_sub(1)));
    // Only the very first segment is known to continue nothing.
    let mut crc = (needed[0].seq == 0).then_some(0);
    for (i, &name) in needed.iter().enumerate() {
        let path = name.path(dir);
        let io = |doing| {
            let path = path.clone();
            move |source| WalError::Io { doing, path, source }
        };
        let damaged = |offset, reason| WalError::Damaged { file: path.clone(), offset, reason };
        let is_last = i + 1 == needed.len();
        let file = disk.open(&path).map_err(io("open"))?;
        if is_last {
            file.claim().map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock => WalError::Locked(path.clone()),
                _ => WalError::Io { doing: "lock", path: path.clone(), source },
            })?;
        }
        let mut reader = Reader::new(&*file, &path, crc)?;
        let end = read_segment(&mut reader, name.seq, &mut replay, &damaged)?;
        if !is_last {
            if let End::Bad { reason, .. } = end {
                return Err(damaged(reader.at, reason));
            }
            crc = reader.crc;
            continue;
        }

        let offset = reader.at;
        let mut repaired = None;
        let (End::Bad { last_mark, .. } | End::Clean { last_mark }) = end;
        if let End::Bad { reason, .. } = end {
            let marked = last_mark.is_some();
            if let Verdict::Damaged(reason) = torn::judge(&mut reader, name.seq, marked)? {
                return Err(damaged(offset, reason));
            }
            // Even a tail that looks torn is not cut below what is known to have been durable.
            replay.check_end().map_err(|why| damaged(offset, format!("{reason}; {why}")))?;
            erase(&mut reader, &*file).map_err(io("erase the torn tail of"))?;
            repaired = Some(Repair { file: path.clone(), offset, reason });
        }
        replay.check_end().map_err(|reason| damaged(offset, reason))?;
        rewrite(&mut reader, &*file, last_mark.unwrap_or(0), offset)
            .map_err(io("rewrite the last batch of"))?;
        file.sync_data().map_err(io("sync"))?;
        disk.sync_dir(dir).map_err(|source| WalError::Io { doing: "sync", path: dir.into(), source })?;

        let tail = Tail { crc: reader.crc.unwrap_or(0), file, offset, last: replay.last };
        let recovered = Recovered {
            hard_state: replay.final_state(),
            metadata: replay.metadata.unwrap_or_default(),
            snapshot: replay.snapshot,
            install: replay.installed.filter(|meta| meta.index > from),
            begins_after: replay.base,
            entries: replay.entries,
            repaired,
        };
        return Ok((recovered, tail));
    }
    Err(WalError::Missing(dir.into()))
}

/// How a segment ended, and where the last batch in it opens with a mark, if any does.
enum End {
    Clean {
        last_mark: Option<u64>,
    },
    /// With something that is no record.
    Bad {
        reason: String,
        last_mark: Option<u64>,
    },
}

fn read_segment(
    reader: &mut Reader<'_>,
    seq: u64,
    replay: &mut Replay,
    damaged: &dyn Fn(u64, String) -> WalError,
) -> Result<End, WalError> {
    let mut last_mark = None;
    // The head was synced before the segment got its name, so a crash cannot have torn it.
    for expected in [Kind::Crc, Kind::Metadata] {
        match reader.step()? {
            Step::Record { header, at } if header.kind == expected => {
                replay.apply(header.kind, reader.data()).map_err(|reason| damaged(at, reason))?;
            }
            Step::Record { at, .. } => return Err(damaged(at, "a segment does not open like this".into())),
            Step::End => return Err(damaged(reader.at, "the segment ends within its head".into())),
            Step::Bad(reason) if expected == Kind::Crc => {
                let reason =
                    format!("{reason}; it must continue the segment before, whose end may be missing");
                return Err(damaged(reader.at, reason));
            }
            Step::Bad(reason) => return Err(damaged(reader.at, reason)),
        }
    }
    loop {
        match reader.step()? {
            Step::Record { header, at } => {
                if header.kind == Kind::Crc && reader.data() == record::mark_proof(header.crc, seq, at) {
                    last_mark = Some(at);
                }
                replay.apply(header.kind, reader.data()).map_err(|reason| damaged(at, reason))?;
            }
            Step::End => return Ok(End::Clean { last_mark }),
            Step::Bad(reason) => return Ok(End::Bad { reason, last_mark }),
        }
    }
}

/// Writes what stands between two places once more.
fn rewrite(reader: &mut Reader<'_>, file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let take = (to - at).min(1 << 20);
        let bytes = reader.bytes(at, take).map_err(io::Error::other)?;
        file.write_at(bytes, at)?;
        at += take;
    }
    Ok(())
}

/// Writes zeros over everything from the reader's place on that is not zero.
fn erase(reader: &mut Reader<'_>, file: &dyn DiskFile) -> io::Result<()> {
    const PIECE: u64 = 64 << 10;
    let zeros = vec![0; PIECE as usize];
    let mut at = reader.at;
    while let Some(offset) = reader.next_nonzero(at).map_err(io::Error::other)? {
        // Piece borders are sector borders, but for the first.
        at = at.max(offset / PIECE * PIECE);
        let end = ((at / PIECE + 1) * PIECE).min(reader.size);
        file.write_at(&zeros[..(end - at) as usize], at)?;
        at = end;
    }
    Ok(())
}

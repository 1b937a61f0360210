//! Reading the log back beside its writer, for members that are behind the part in memory.
//!
//! Entries are overwritten by later ones, so the place of an entry is that of its last version. The
//! reader walks over the log once, as far as it is durable, and remembers one place in every stretch of
//! [`STRIDE`] bytes: a run. Whatever overwrites an entry begins a new run and ends those behind it, so
//! that the runs, one after the other, always spell the log as it stands.
//!
//! ```text
//!   written:   1 2 3 4 5 │ 4' 5' 6' │ 7' …          runs: 1 at ▲, 4 at △
//!              ▲           △                         read 1 2 3 from ▲, then 4' 5' 6' 7' from △
//! ```

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::{Entry, Index, Term};

use crate::disk::{Disk, DiskFile};
use crate::error::WalError;
use crate::record::{self, Kind};
use crate::recovery::first_needed;
use crate::replay::Replay;
use crate::segment::{Reader, SegmentName, Step};

/// A run is at most about this long, in bytes: what a read may have to pass over before it begins.
const STRIDE: u64 = 64 << 10;

/// How far readers may read. The writer moves it, after the disk has said that it is so.
pub(crate) struct Frontier {
    pub(crate) segments: Vec<SegmentName>,
    /// The last segment. Shared, not opened again: closing a second handle would let go of the claim
    /// that keeps etcd away from it.
    tail: Arc<dyn DiskFile>,
    /// Where the durable part of the last segment ends.
    pub(crate) end: u64,
}

impl Frontier {
    pub(crate) fn new(segments: Vec<SegmentName>, tail: Arc<dyn DiskFile>, end: u64) -> Arc<Mutex<Frontier>> {
        Arc::new(Mutex::new(Frontier { segments, tail, end }))
    }

    pub(crate) fn lock(shared: &Mutex<Frontier>) -> MutexGuard<'_, Frontier> {
        // Every change of it is one assignment or one call: a panic leaves nothing half done.
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another segment has begun.
    pub(crate) fn cut(&mut self, name: SegmentName, tail: Arc<dyn DiskFile>, end: u64) {
        self.segments.push(name);
        (self.tail, self.end) = (tail, end);
    }
}

/// Reads what a [`crate::Wal`] has made durable, while that goes on writing. Clones share what they
/// have learnt of where things are; one reads at a time.
#[derive(Clone)]
pub struct LogReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    frontier: Arc<Mutex<Frontier>>,
    map: Arc<Mutex<Map>>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Where the entries are.
#[derive(Default)]
struct Map {
    runs: VecDeque<Run>,
    /// The index and term right before the first run, if that is known.
    base: Option<(Index, Term)>,
    /// How far the log has been walked over.
    walk: Option<Walk>,
}

/// A stretch of the log: from `first` to where the next run begins, in the order of writing.
#[derive(Clone, Copy)]
struct Run {
    first: Index,
    seq: u64,
    offset: u64,
    /// The checksum chain before the record there.
    crc: Option<u32>,
}

struct Walk {
    /// Where it began, and where it goes on.
    began: u64,
    seq: u64,
    offset: u64,
    crc: Option<u32>,
    /// What the records mean.
    replay: Replay,
}

/// What a read may see, as it was when the read began.
struct View {
    segments: Vec<SegmentName>,
    tail: Arc<dyn DiskFile>,
    end: u64,
}

impl LogReader {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, frontier: Arc<Mutex<Frontier>>) -> LogReader {
        LogReader { disk, dir, frontier, map: Arc::default() }
    }

    /// The term of the entry `after` and what follows it, up to `upto`: as many entries as fit into
    /// `bytes`, counted by [`Entry::size`], but at least one if there is one. `None` if the log no
    /// longer begins there, or never did.
    ///
    /// Only what is durable is seen, and of each entry the version that was written last.
    ///
    /// # Errors
    /// If the disk fails, or if what it holds is not what was written: the member must stop.
    pub fn read(
        &self,
        after: Index,
        upto: Index,
        bytes: usize,
    ) -> Result<Option<(Term, Vec<Entry>)>, WalError> {
        let view = {
            let frontier = Frontier::lock(&self.frontier);
            View { segments: frontier.segments.clone(), tail: Arc::clone(&frontier.tail), end: frontier.end }
        };
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        // A read that fails or panics on the way may leave the map behind its walk: start over then.
        let mut known = std::mem::take(&mut *map);
        let result = self.look_up(&mut known, &view, after, upto, bytes);
        match result {
            // The writer has let go of it meanwhile.
            Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(found) => {
                *map = known;
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    fn look_up(
        &self,
        map: &mut Map,
        view: &View,
        after: Index,
        upto: Index,
        bytes: usize,
    ) -> Result<Option<(Term, Vec<Entry>)>, WalError> {
        let Some(at) = first_needed(&view.segments, after) else { return Ok(None) };
        let needed = &view.segments[at..];
        if needed.windows(2).any(|pair| pair[1].seq != pair[0].seq + 1) {
            return Ok(None);
        }
        let oldest = view.segments[0].seq;
        map.forget_before(oldest);
        // It began too late, or stopped in a segment that is gone.
        let useless = |walk: &Walk| walk.began > needed[0].seq || walk.seq < oldest;
        if map.walk.as_ref().is_none_or(useless) {
            *map = Map::beginning_at(needed[0]);
        }
        self.walk(map, view)?;
        self.collect(map, view, after, upto, bytes)
    }

    /// Walks on to the end of what is durable.
    fn walk(&self, map: &mut Map, view: &View) -> Result<(), WalError> {
        let Map { runs, base, walk: Some(walk) } = map else { return Ok(()) };
        let begin = walk.seq;
        for name in view.segments.iter().skip_while(|name| name.seq < begin) {
            if name.seq > walk.seq {
                (walk.seq, walk.offset) = (name.seq, 0);
            }
            let (file, path, size) = self.open(view, name.seq)?;
            let mut reader = Reader::resume(&*file, &path, size, (walk.offset, walk.crc));
            loop {
                let crc = reader.crc;
                let (header, at) = match reader.step()? {
                    Step::Record { header, at } => (header, at),
                    Step::End => break,
                    Step::Bad(reason) => {
                        return Err(WalError::Damaged { file: path.clone(), offset: reader.at, reason });
                    }
                };
                let before = walk.replay.installed.as_ref().map(|meta| meta.index);
                let meaning = walk.replay.apply(header.kind, reader.data());
                meaning.map_err(|reason| WalError::Damaged { file: path.clone(), offset: at, reason })?;
                let installed = walk.replay.installed.as_ref();
                if let Some(meta) = installed.filter(|meta| Some(meta.index) != before) {
                    runs.clear();
                    *base = Some((meta.index, meta.term));
                }
                if header.kind != Kind::Entry {
                    continue;
                }
                let first = walk.replay.last;
                while runs.back().is_some_and(|run| run.first >= first) {
                    runs.pop_back();
                }
                let near = |run: &Run| run.seq == name.seq && at - run.offset < STRIDE;
                if walk.replay.overwrote || !runs.back().is_some_and(near) {
                    runs.push_back(Run { first, seq: name.seq, offset: at, crc });
                }
            }
            (walk.offset, walk.crc) = (reader.at, reader.crc);
        }
        Ok(())
    }

    fn collect(
        &self,
        map: &Map,
        view: &View,
        after: Index,
        upto: Index,
        bytes: usize,
    ) -> Result<Option<(Term, Vec<Entry>)>, WalError> {
        let mut term = map.base.filter(|base| base.0 == after).map(|base| base.1);
        let mut at = match term {
            Some(_) => 0,
            None => match map.runs.iter().rposition(|run| run.first <= after) {
                Some(at) => at,
                None => return Ok(None),
            },
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut taken = 0;
        while let Some(run) = map.runs.get(at) {
            at += 1;
            let end = map.runs.get(at).map_or(Index(u64::MAX), |next| next.first);
            let (file, path, size) = self.open(view, run.seq)?;
            let mut reader = Reader::resume(&*file, &path, size, (run.offset, run.crc));
            loop {
                let (header, offset) = match reader.step()? {
                    Step::Record { header, at } => (header, at),
                    Step::End => break,
                    Step::Bad(reason) => {
                        return Err(WalError::Damaged { file: path.clone(), offset: reader.at, reason });
                    }
                };
                if header.kind != Kind::Entry {
                    continue;
                }
                let damaged =
                    |reason: &str| WalError::Damaged { file: path.clone(), offset, reason: reason.into() };
                let place = record::entry_place(reader.data()).map_err(damaged)?;
                if place.1 >= end || place.1 > upto {
                    break;
                }
                if place.1 == after {
                    term = Some(place.0);
                }
                if place.1 > after {
                    let entry = record::decode_entry(reader.data()).map_err(damaged)?;
                    taken += entry.size();
                    if taken > bytes && !entries.is_empty() {
                        return Ok(term.map(|term| (term, entries)));
                    }
                    entries.push(entry);
                }
            }
        }
        Ok(term.map(|term| (term, entries)))
    }

    /// A segment, and how far it may be read.
    fn open(&self, view: &View, seq: u64) -> Result<(Arc<dyn DiskFile>, PathBuf, u64), WalError> {
        let Some(name) = SegmentName::find(&view.segments, seq) else {
            let source = io::ErrorKind::NotFound.into();
            return Err(WalError::Io { doing: "open", path: self.dir.clone(), source });
        };
        let path = name.path(&self.dir);
        if view.segments.last() == Some(&name) {
            return Ok((Arc::clone(&view.tail), path, view.end));
        }
        let failed = |doing| {
            let path = path.clone();
            move |source| WalError::Io { doing, path, source }
        };
        let file = self.disk.open(&path).map_err(failed("open"))?;
        let size = file.size().map_err(failed("read the size of"))?;
        Ok((file.into(), path, size))
    }
}

impl Map {
    fn beginning_at(name: SegmentName) -> Map {
        // Only the very first segment is known to continue nothing.
        let first = name.seq == 0;
        let last = Index(name.first.saturating_sub(1));
        let walk = Walk {
            began: name.seq,
            seq: name.seq,
            offset: 0,
            crc: first.then_some(0),
            replay: Replay::walking(last),
        };
        Map { runs: VecDeque::new(), base: first.then_some((Index(0), Term(0))), walk: Some(walk) }
    }

    /// Segments before `seq` are gone.
    fn forget_before(&mut self, seq: u64) {
        while self.runs.front().is_some_and(|run| run.seq < seq) {
            self.runs.pop_front();
            self.base = None;
        }
    }
}

//! The log, open for writing: batches, cuts, releases, and the poison that follows a failure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use raft::{Entry, HardState, Index, Persist, SnapshotMeta};

use crate::disk::{Disk, DiskFile, Guard};
use crate::error::WalError;
use crate::reader::{Frontier, LogReader};
use crate::record::Encoder;
use crate::recovery::{self, Recovered};
use crate::segment::SegmentName;

/// What may be chosen about a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes reserved for a segment, and the size past which the next one is begun. A batch is never
    /// split, so a segment may be longer than this by one batch.
    pub segment_bytes: u64,
}

impl Default for Options {
    /// etcd's segments: 64,000,000 bytes.
    fn default() -> Options {
        Options { segment_bytes: 64_000_000 }
    }
}

/// The segment that is not one yet. etcd passes over names that end like this.
const NEXT: &str = "next.tmp";

/// A buffer that one huge batch has grown is not kept.
const KEEP_BUFFER: usize = 4 << 20;

/// An open log. One owner, one thread; see the crate's essay.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    metadata: Vec<u8>,
    /// Repeated at the head of every segment, so that any of them can be the first one read.
    state: HardState,
    /// All segments in the directory, oldest first; the last one is being written.
    segments: Vec<SegmentName>,
    tail: Arc<dyn DiskFile>,
    /// What readers may read; told after every sync.
    frontier: Arc<Mutex<Frontier>>,
    /// Where the next batch goes. Everything before it is durable.
    offset: u64,
    /// Where the last mark ended, so that a batch right behind a head does not repeat it.
    marked_at: u64,
    /// The last index written, in the order of writing.
    last: Index,
    encoder: Encoder,
    /// The next segment, made ahead of need.
    next: Option<Box<dyn DiskFile>>,
    poison: Option<String>,
    _guard: Box<dyn Guard>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("segments", &self.segments.len())
            .field("offset", &self.offset)
            .field("last", &self.last)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Whether `dir` holds a log. A directory that is not there holds none.
    pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
        Ok(!recovery::list_segments(disk, dir)?.is_empty())
    }

    /// Makes a new log in `dir`, whose parent must exist. When this returns, the log is durable.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, metadata: &[u8]) -> Result<Wal, WalError> {
        Wal::create_with(disk, dir, metadata, Options::default())
    }

    /// [`Wal::create`] with other segment sizes.
    pub fn create_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        metadata: &[u8],
        options: Options,
    ) -> Result<Wal, WalError> {
        Wal::found(disk, dir, metadata, options, None, &[])
    }

    /// Makes a new log that begins with a hard state and entries, as a new member's does. A crash leaves
    /// all of it or no log at all: there is never one without its first entries.
    pub fn found(
        disk: Arc<dyn Disk>,
        dir: &Path,
        metadata: &[u8],
        options: Options,
        hard_state: Option<&HardState>,
        entries: &[Entry],
    ) -> Result<Wal, WalError> {
        disk.create_dir(dir).map_err(io_error("create", dir))?;
        let guard = lock(&*disk, dir)?;
        if Wal::exists(&*disk, dir)? {
            return Err(WalError::Exists(dir.into()));
        }
        remove_stale(&*disk, dir)?;
        let file = make_next(&*disk, dir, options.segment_bytes)?;
        let name = SegmentName { seq: 0, first: 0 };
        let mut encoder = Encoder::default();
        encoder.crc();
        encoder.metadata(metadata);
        // etcd's reader wants to find the snapshot that it starts from, also when it is none.
        encoder.snapshot(&SnapshotMeta::default());
        entries.iter().for_each(|entry| encoder.entry(entry));
        let state = hard_state.copied().unwrap_or_default();
        if state.term.0 > 0 {
            encoder.state(&state);
        }
        let offset = publish(&*disk, dir, &*file, name, &mut encoder)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(io_error("sync", parent))?;
        }
        let tail: Arc<dyn DiskFile> = file.into();
        Ok(Wal {
            disk,
            dir: dir.into(),
            options,
            metadata: metadata.into(),
            state,
            segments: vec![name],
            frontier: Frontier::new(vec![name], Arc::clone(&tail), offset),
            tail,
            offset,
            marked_at: offset,
            last: entries.last().map_or(Index(0), |entry| entry.index),
            encoder,
            next: None,
            poison: None,
            _guard: guard,
        })
    }

    /// Opens the log in `dir` and reads what stands behind `from`, the last entry whose effects the
    /// database holds durably. A torn tail is cut; any other damage is refused and left as it is.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: Index) -> Result<(Wal, Recovered), WalError> {
        Wal::open_with(disk, dir, from, Options::default())
    }

    /// [`Wal::open`] with other segment sizes.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        from: Index,
        options: Options,
    ) -> Result<(Wal, Recovered), WalError> {
        if !Wal::exists(&*disk, dir)? {
            return Err(WalError::Missing(dir.into()));
        }
        let guard = lock(&*disk, dir)?;
        let segments = recovery::list_segments(&*disk, dir)?;
        let (recovered, tail) = recovery::recover(&*disk, dir, &segments, from)?;
        remove_stale(&*disk, dir)?;
        let file: Arc<dyn DiskFile> = tail.file.into();
        let wal = Wal {
            disk,
            dir: dir.into(),
            options,
            metadata: recovered.metadata.clone(),
            state: recovered.hard_state,
            frontier: Frontier::new(segments.clone(), Arc::clone(&file), tail.offset),
            segments,
            tail: file,
            offset: tail.offset,
            marked_at: 0,
            last: tail.last,
            encoder: Encoder { buf: Vec::new(), crc: tail.crc },
            next: None,
            poison: None,
            _guard: guard,
        };
        Ok((wal, recovered))
    }

    /// Takes entries and then the hard state into the batch that the next [`Wal::sync`] writes.
    /// An entry at or below the last index replaces what stood there and all behind it.
    ///
    /// Nothing is durable yet. If the last segment is full, the next one is begun here.
    pub fn append(&mut self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), WalError> {
        if hard_state.is_none() && entries.is_empty() {
            return Ok(());
        }
        self.begin()?;
        for entry in entries {
            self.encoder.entry(entry);
            self.last = entry.index;
        }
        // What etcd calls empty is not written: its readers take it for damage, and it says nothing.
        if let Some(&state) = hard_state.filter(|state| state.term.0 > 0) {
            self.encoder.state(&state);
            self.state = state;
        }
        Ok(())
    }

    /// Takes all of one write of raft's into the batch that the next [`Wal::sync`] writes: [`Wal::append`],
    /// after the snapshot that takes the log's place, if there is one. Its body must be durable already.
    pub fn append_persist(&mut self, persist: &Persist) -> Result<(), WalError> {
        if let Some(snapshot) = &persist.snapshot {
            let state = persist.hard_state.unwrap_or(self.state);
            self.append_install(&snapshot.meta, &state)?;
        }
        self.append(persist.hard_state.as_ref(), &persist.entries)
    }

    /// A snapshot of another member takes the place of the whole log. `state` is the hard state that comes
    /// with it; what it says of the commit index beyond the snapshot is left for [`Wal::append`].
    ///
    /// The record alone, as a torn batch may leave it, installs nothing: only a commit index that reaches it
    /// says that it counts. So that index is written right behind it, before entries that would otherwise
    /// seem to follow what was there before.
    pub fn append_install(&mut self, meta: &SnapshotMeta, state: &HardState) -> Result<(), WalError> {
        self.begin()?;
        self.encoder.snapshot(meta);
        self.last = meta.index;
        self.state = HardState { commit: meta.index, ..*state };
        self.encoder.state(&self.state);
        Ok(())
    }

    /// Notes that a snapshot of everything up to `meta.index` is durable elsewhere: the database, after a
    /// flush.
    pub fn append_snapshot(&mut self, meta: &SnapshotMeta) -> Result<(), WalError> {
        self.begin()?;
        self.encoder.snapshot(meta);
        self.last = self.last.max(meta.index);
        Ok(())
    }

    /// Writes what was appended, in one write, and makes it durable. With nothing appended, does nothing.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.check()?;
        if self.encoder.buf.is_empty() {
            return Ok(());
        }
        let result = write_and_sync(&*self.tail, &self.encoder.buf, self.offset);
        if let Err((doing, source)) = result {
            let path = self.tail_name().path(&self.dir);
            return self.poisoned(WalError::Io { doing, path, source });
        }
        self.offset += self.encoder.buf.len() as u64;
        self.encoder.buf.clear();
        self.encoder.buf.shrink_to(KEEP_BUFFER);
        Frontier::lock(&self.frontier).end = self.offset;
        Ok(())
    }

    /// Does ahead of time what the next batches would else have to wait for: makes the next segment once
    /// this one is half full, and begins it once this one is full. To be called when no one waits.
    pub fn prepare(&mut self) -> Result<(), WalError> {
        self.check()?;
        if self.offset >= self.options.segment_bytes && self.encoder.buf.is_empty() {
            self.cut()?;
        }
        if self.next.is_none() && self.offset >= self.options.segment_bytes / 2 {
            match make_next(&*self.disk, &self.dir, self.options.segment_bytes) {
                Ok(file) => self.next = Some(file),
                Err(e) => return self.poisoned(e),
            }
        }
        Ok(())
    }

    /// Removes the segments that hold nothing behind `index`, which a durable snapshot must cover.
    /// The last segment always stays.
    pub fn release_to(&mut self, index: Index) -> Result<(), WalError> {
        self.check()?;
        let keep = recovery::first_needed(&self.segments, index).unwrap_or(0);
        if keep == 0 {
            return Ok(());
        }
        Frontier::lock(&self.frontier).segments.drain(..keep);
        // Oldest first, so that whatever a crash leaves is a suffix, and perhaps strays before it.
        for name in self.segments.drain(..keep).collect::<Vec<_>>() {
            let path = name.path(&self.dir);
            if let Err(source) = self.disk.remove(&path) {
                return self.poisoned(WalError::Io { doing: "remove", path, source });
            }
        }
        match self.disk.sync_dir(&self.dir) {
            Ok(()) => Ok(()),
            Err(source) => self.poisoned(WalError::Io { doing: "sync", path: self.dir.clone(), source }),
        }
    }

    /// The bytes given to [`Wal::create`].
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// Reads what has been synced, beside this writer, from any thread.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.disk), self.dir.clone(), Arc::clone(&self.frontier))
    }

    /// The last index appended.
    pub fn last_index(&self) -> Index {
        self.last
    }

    /// Bytes appended and not yet synced.
    pub fn buffered_bytes(&self) -> usize {
        self.encoder.buf.len()
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Opens a batch if none is open.
    fn begin(&mut self) -> Result<(), WalError> {
        self.check()?;
        if !self.encoder.buf.is_empty() {
            return Ok(());
        }
        if self.offset >= self.options.segment_bytes {
            self.cut()?;
        }
        if self.marked_at != self.offset {
            self.encoder.mark(self.tail_name().seq, self.offset);
        }
        Ok(())
    }

    /// Begins the next segment. Everything in this one is durable already.
    fn cut(&mut self) -> Result<(), WalError> {
        assert!(self.encoder.buf.is_empty(), "a batch of {} bytes is open", self.encoder.buf.len());
        let result = self.try_cut();
        match result {
            Ok(()) => Ok(()),
            Err(e) => self.poisoned(e),
        }
    }

    fn try_cut(&mut self) -> Result<(), WalError> {
        let old = self.tail_name();
        let file = match self.next.take() {
            Some(file) => file,
            None => make_next(&*self.disk, &self.dir, self.options.segment_bytes)?,
        };
        let name = SegmentName { seq: old.seq + 1, first: self.last.0 + 1 };
        self.encoder.crc();
        self.encoder.metadata(&self.metadata);
        if self.state.term.0 > 0 {
            self.encoder.state(&self.state);
        }
        let offset = publish(&*self.disk, &self.dir, &*file, name, &mut self.encoder)?;
        // What was reserved and not used goes back. If a crash undoes it, zeros follow the last record.
        self.tail.set_len(self.offset).map_err(io_error("trim", &old.path(&self.dir)))?;
        self.segments.push(name);
        self.tail = file.into();
        self.offset = offset;
        Frontier::lock(&self.frontier).cut(name, Arc::clone(&self.tail), offset);
        self.marked_at = offset;
        Ok(())
    }

    fn tail_name(&self) -> SegmentName {
        self.segments[self.segments.len() - 1]
    }

    fn check(&self) -> Result<(), WalError> {
        match &self.poison {
            Some(earlier) => Err(WalError::Poisoned(earlier.clone())),
            None => Ok(()),
        }
    }

    fn poisoned(&mut self, error: WalError) -> Result<(), WalError> {
        self.poison = Some(error.to_string());
        Err(error)
    }
}

fn write_and_sync(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> Result<(), (&'static str, io::Error)> {
    file.write_at(bytes, offset).map_err(|e| ("write", e))?;
    // W1, planted: skip-fsync.
    if planted::is("skip-fsync") {
        return Ok(());
    }
    file.sync_data().map_err(|e| ("sync", e))
}

/// Makes the file that is to be the next segment. Space is reserved if the disk has it; if not, the
/// segment grows as it is written.
fn make_next(disk: &dyn Disk, dir: &Path, size: u64) -> Result<Box<dyn DiskFile>, WalError> {
    let path = dir.join(NEXT);
    let file = disk.create(&path).map_err(io_error("create", &path))?;
    file.claim().map_err(io_error("lock", &path))?;
    match file.allocate(size) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::Unsupported) => {
            Err(io_error("reserve space for", &path)(e))
        }
        _ => Ok(file),
    }
}

/// Completes the head that `encoder` holds, writes it to the file made by [`make_next`], and gives that
/// file its name. Returns the length of the head.
fn publish(
    disk: &dyn Disk,
    dir: &Path,
    file: &dyn DiskFile,
    name: SegmentName,
    encoder: &mut Encoder,
) -> Result<u64, WalError> {
    let temporary = dir.join(NEXT);
    let path = name.path(dir);
    encoder.mark(name.seq, encoder.buf.len() as u64);
    write_and_sync(file, &encoder.buf, 0).map_err(|(doing, e)| io_error(doing, &temporary)(e))?;
    disk.rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
    // W7, planted: skip-directory-sync.
    if !planted::is("skip-directory-sync") {
        disk.sync_dir(dir).map_err(io_error("sync", dir))?;
    }
    let head = encoder.buf.len() as u64;
    encoder.buf.clear();
    Ok(head)
}

/// Removes the segment that an earlier run prepared, ours or etcd's, and never came to use.
fn remove_stale(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    for name in disk.list(dir).map_err(io_error("list", dir))? {
        let etcds = name.strip_suffix(".tmp").is_some_and(|n| matches!(n, "0" | "1"));
        if name == NEXT || etcds {
            let path = dir.join(&name);
            disk.remove(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Guard>, WalError> {
    disk.lock(dir).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => WalError::Locked(dir.into()),
        _ => WalError::Io { doing: "lock", path: dir.into(), source },
    })
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalError {
    let path = path.to_path_buf();
    move |source| WalError::Io { doing, path, source }
}

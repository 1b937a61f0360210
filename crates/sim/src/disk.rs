//! A disk in memory that writes down what is done to it, and fails when told to.
//!
//! It does what a page cache does: everything written can be read at once, and what of it would survive a
//! crash is another question, which [`crate::crash`] answers from the record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::crash::Image;
use crate::file::{self, File};

/// Which file, whatever it is called.
pub type Inode = u64;

/// The unit that reaches the disk whole or not at all.
pub const SECTOR: usize = 512;
pub(crate) const PAGE: usize = 4096;

pub(crate) type Page = [u8; PAGE];

/// Bytes in pages that are shared until they are written to, so that a crash image costs little.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pub(crate) len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Pages {
    fn read(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (page, at) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
            let take = out.len().min(PAGE - at);
            let (now, later) = out.split_at_mut(take);
            match self.pages.get(&page) {
                Some(bytes) => now.copy_from_slice(&bytes[at..at + take]),
                None => now.fill(0),
            }
            out = later;
            offset += take as u64;
        }
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        self.len = self.len.max(offset + data.len() as u64);
        while !data.is_empty() {
            let (page, at) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
            let take = data.len().min(PAGE - at);
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at..at + take].copy_from_slice(&data[..take]);
            data = &data[take..];
            offset += take as u64;
        }
    }

    /// What is cut off reads as zeros should the file grow again.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.retain(|&page, _| page * (PAGE as u64) < len);
            let (page, at) = (len / PAGE as u64, (len % PAGE as u64) as usize);
            if let Some(bytes) = self.pages.get_mut(&page) {
                Arc::make_mut(bytes)[at..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes one sector over from a page as it once was.
    pub(crate) fn set_sector(&mut self, sector: u64, from: &Arc<Page>) {
        let offset = sector * SECTOR as u64;
        if offset < self.len {
            let at = (offset % PAGE as u64) as usize;
            let page = self.pages.entry(offset / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at..at + SECTOR].copy_from_slice(&from[at..at + SECTOR]);
        }
    }

    fn page(&self, page: u64) -> Arc<Page> {
        self.pages.get(&page).cloned().unwrap_or_else(|| Arc::new([0; PAGE]))
    }
}

/// One entry of the record.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sectors `first..last` of a file are now as in these pages; `page` is the number of the first.
    Write {
        inode: Inode,
        first: u64,
        last: u64,
        page: u64,
        pages: Vec<Arc<Page>>,
    },
    Len {
        inode: Inode,
        len: u64,
    },
    Sync {
        inode: Inode,
    },
    /// What was not durable by then may never be, whatever later syncs say.
    FailedSync {
        inode: Inode,
    },
    Create {
        path: PathBuf,
        inode: Inode,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: Inode,
    },
    Remove {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    /// A client was told that the entry at this index took effect.
    Acknowledged {
        index: u64,
    },
}

/// The disk, as one process sees it. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    process: u64,
}

struct State {
    names: BTreeMap<PathBuf, Inode>,
    files: BTreeMap<Inode, Pages>,
    next_inode: Inode,
    locked: BTreeSet<PathBuf>,
    record: Vec<Op>,
    calls: u64,
    log_calls: u64,
    fail_at: Option<u64>,
    fail_log_at: Option<u64>,
    kill_at: Option<u64>,
    full: bool,
    /// Who may make calls: processes before this one are dead.
    process: u64,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Disk")
            .field("names", &state.names)
            .field("calls", &state.calls)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk that holds what an image holds; its record is empty.
    pub fn new(image: &Image) -> Disk {
        let next_inode = image.files.keys().next_back().map_or(1, |last| last + 1);
        let state = State {
            names: image.names.clone(),
            files: image.files.clone(),
            next_inode,
            locked: BTreeSet::new(),
            record: Vec::new(),
            calls: 0,
            log_calls: 0,
            fail_at: None,
            fail_log_at: None,
            kill_at: None,
            full: false,
            process: 0,
        };
        Disk { state: Arc::new(Mutex::new(state)), process: 0 }
    }

    /// What can be read now: what a process finds that is started after the last one was killed.
    pub fn image(&self) -> Image {
        let state = self.state.lock();
        let kept = |inode: &Inode| state.names.values().any(|named| named == inode);
        let files = state.files.iter().filter(|(inode, _)| kept(inode));
        Image {
            names: state.names.clone(),
            files: files.map(|(&inode, pages)| (inode, pages.clone())).collect(),
        }
    }

    pub(crate) fn record(&self) -> Vec<Op> {
        self.state.lock().record.clone()
    }

    /// Notes that a client was told, unless the process that would tell it is dead.
    pub fn acknowledge(&self, index: u64) {
        let mut state = self.state.lock();
        if state.alive(self.process).is_ok() {
            state.record.push(Op::Acknowledged { index });
        }
    }

    /// The last index that a client was told of, 0 if none was.
    pub fn acknowledged(&self) -> u64 {
        let state = self.state.lock();
        let told = |op: &Op| if let Op::Acknowledged { index } = op { Some(*index) } else { None };
        state.record.iter().rev().find_map(told).unwrap_or(0)
    }

    /// How many calls that could have failed were made.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Makes the `n`-th call fail, counted from 1 and from the beginning. Later ones work again, as they do on
    /// real disks: it is for the caller not to believe them.
    pub fn fail_at(&self, n: u64) {
        self.state.lock().fail_at = Some(n);
    }

    /// As [`Disk::fail_at`], counting only calls that have to do with the log: all but those to what
    /// [`Disk::storage`] gave out.
    pub fn fail_log_at(&self, n: u64) {
        self.state.lock().fail_log_at = Some(n);
    }

    /// Kills the process at the `n`-th call: that one is not finished, and none comes after it. What was
    /// written stays in the page cache.
    pub fn kill_at(&self, n: u64) {
        self.state.lock().kill_at = Some(n);
    }

    /// The same disk and page cache, for the process that is started next.
    pub fn restart(&self) -> Disk {
        let mut state = self.state.lock();
        state.process += 1;
        state.kill_at = None;
        state.fail_at = None;
        state.fail_log_at = None;
        state.locked.clear();
        Disk { state: self.state.clone(), process: state.process }
    }

    /// How long the record is by now; see [`crate::Shadow::position`].
    pub fn position(&self) -> usize {
        self.state.lock().record.len()
    }

    /// From now on no file can grow, until this is called with `false`.
    pub fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Whether the call that was to fail has come.
    pub fn has_failed(&self) -> bool {
        let state = self.state.lock();
        state.fail_at.is_some_and(|n| state.calls >= n)
    }

    /// Opens a file, making it durable and empty first if it is not there.
    pub fn storage(&self, path: &Path) -> File<Handle> {
        let mut state = self.state.lock();
        let inode = match state.names.get(path) {
            Some(&inode) => inode,
            None => {
                let inode = state.create(path);
                let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
                state.record.push(Op::SyncDir { dir });
                inode
            }
        };
        File(Handle { disk: self.clone(), inode, of_log: false })
    }
}

impl State {
    fn alive(&self, process: u64) -> io::Result<()> {
        if process == self.process { Ok(()) } else { Err(io::Error::other("the process was killed")) }
    }

    /// Counts a call; an error if it is the one that is to fail.
    fn call(&mut self, process: u64, of_log: bool) -> io::Result<()> {
        self.alive(process)?;
        self.calls += 1;
        self.log_calls += u64::from(of_log);
        if self.kill_at == Some(self.calls) {
            self.process += 1;
            return Err(io::Error::other("the process was killed"));
        }
        let fails = self.fail_at == Some(self.calls) || of_log && self.fail_log_at == Some(self.log_calls);
        if fails { Err(io::Error::other("the disk failed, as it was told to")) } else { Ok(()) }
    }

    /// Whether a file may become this long.
    fn room(&self, inode: Inode, len: u64) -> io::Result<()> {
        let grows = self.files.get(&inode).is_some_and(|file| len > file.len);
        if self.full && grows { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn create(&mut self, path: &Path) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, Pages::default());
        self.names.insert(path.into(), inode);
        self.record.push(Op::Create { path: path.into(), inode });
        inode
    }

    fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let Some(file) = self.files.get_mut(&inode) else { return };
        let (before, end) = (file.len, offset + data.len() as u64);
        file.write(offset, data);
        if end > before {
            self.record.push(Op::Len { inode, len: end });
        }
        let (page, last_page) = (offset / PAGE as u64, (end - 1) / PAGE as u64);
        let pages = (page..=last_page).map(|page| file.page(page)).collect();
        let (first, last) = (offset / SECTOR as u64, end.div_ceil(SECTOR as u64));
        self.record.push(Op::Write { inode, first, last, page, pages });
    }

    fn set_len(&mut self, inode: Inode, len: u64) {
        if let Some(file) = self.files.get_mut(&inode).filter(|file| file.len != len) {
            file.set_len(len);
            self.record.push(Op::Len { inode, len });
        }
    }
}

/// An open file.
#[derive(Clone, Debug)]
pub struct Handle {
    disk: Disk,
    inode: Inode,
    of_log: bool,
}

impl file::Handle for Handle {
    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.call(self.disk.process, self.of_log)?;
        Ok(state.files.get(&self.inode).map_or(0, |file| file.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call(self.disk.process, self.of_log)?;
        let file = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        if offset + out.len() as u64 > file.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.read(offset, out);
        Ok(())
    }

    /// A write that fails has done half of its work: it ends where a sector does, because the kernel copies
    /// whole pages and a file system gives out whole blocks.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.alive(self.disk.process)?;
        let called = state
            .call(self.disk.process, self.of_log)
            .and_then(|()| state.room(self.inode, offset + data.len() as u64));
        let half = (offset + data.len() as u64 / 2) / SECTOR as u64 * SECTOR as u64;
        let done = if called.is_ok() { data.len() } else { half.saturating_sub(offset) as usize };
        state.write(self.inode, offset, &data[..done]);
        called
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call(self.disk.process, self.of_log)?;
        state.room(self.inode, len)?;
        state.set_len(self.inode, len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let called = state.call(self.disk.process, self.of_log);
        let inode = self.inode;
        if called.is_ok() {
            state.record.push(Op::Sync { inode });
        } else if state.alive(self.disk.process).is_ok() {
            state.record.push(Op::FailedSync { inode });
        }
        called
    }
}

/// Lets go of a directory when dropped.
struct Claim {
    disk: Disk,
    dir: PathBuf,
}

impl wal::Guard for Claim {}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        // The locks of a dead process went when it died; this one may be its successor's.
        if state.alive(self.disk.process).is_ok() {
            state.locked.remove(&self.dir);
        }
    }
}

impl wal::Disk for Disk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    /// Directories are there when they are named; what matters is the names in them.
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.state.lock().call(self.process, true)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn wal::DiskFile>> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.create(path);
        Ok(Box::new(File(Handle { disk: self.clone(), inode, of_log: true })))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn wal::DiskFile>> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File(Handle { disk: self.clone(), inode, of_log: true })))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), inode);
        state.record.push(Op::Rename { from: from.into(), to: to.into(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.record.push(Op::Remove { path: path.into() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        state.record.push(Op::SyncDir { dir: dir.into() });
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn wal::Guard>> {
        let mut state = self.state.lock();
        state.call(self.process, true)?;
        match state.locked.insert(dir.into()) {
            true => Ok(Box::new(Claim { disk: self.clone(), dir: dir.into() })),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

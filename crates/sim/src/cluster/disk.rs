//! The false disk of one machine in a cluster.
//!
//! As [`crate::disk`], but it lives long: what a crash may take back is kept beside the data, sector by
//! sector, and forgotten at each sync, so that minutes of writing take no more memory than what is there.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::file::{self, File};
use crate::random::Random;

const SECTOR: u64 = 512;

type Inode = u64;

/// A machine's disk as one process sees it. Clones are the same disk and the same process.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    process: u64,
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// The sync after so many fails.
    Sync(u64),
    /// The write after so many fails half-way.
    Write(u64),
    /// The process is killed in the middle of the sync after so many.
    Kill(u64),
    /// No file can grow.
    Full,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    /// Changes of names that no sync of their directory has covered.
    renaming: Vec<Naming>,
    files: BTreeMap<Inode, Contents>,
    next_inode: Inode,
    locked: Vec<PathBuf>,
    trouble: Trouble,
    /// Whether something has failed since the machine was started last.
    failed: bool,
    /// A sync of something that is not the log failed: what it covered may be lost although later
    /// syncs say otherwise.
    forsaken: bool,
    process: u64,
}

#[derive(Clone, Debug)]
enum Naming {
    Set(PathBuf, Inode),
    Rename(PathBuf, PathBuf, Inode),
    Remove(PathBuf),
}

#[derive(Clone, Default)]
struct Contents {
    data: Vec<u8>,
    /// What the disk has of sectors that were written since the last sync.
    before: BTreeMap<u64, Before>,
    durable_len: u64,
}

#[derive(Clone)]
struct Before {
    sector: Box<[u8; SECTOR as usize]>,
    /// A sync of it failed: the page cache believes it clean, and no later sync writes it.
    forsaken: bool,
}

impl Contents {
    fn save(&mut self, from: u64, to: u64) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let data = &self.data;
            let saved = self.before.entry(sector).or_insert_with(|| {
                let mut old = Box::new([0; SECTOR as usize]);
                let start = (sector * SECTOR) as usize;
                if let Some(bytes) = data.get(start..) {
                    let len = bytes.len().min(SECTOR as usize);
                    old[..len].copy_from_slice(&bytes[..len]);
                }
                Before { sector: old, forsaken: false }
            });
            saved.forsaken = false;
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.save(offset, end);
        if self.data.len() < end as usize {
            self.data.resize(end as usize, 0);
        }
        self.data[offset as usize..end as usize].copy_from_slice(bytes);
    }

    fn set_len(&mut self, len: u64) {
        let old = self.data.len() as u64;
        if len < old {
            // What is cut off reads as zeros should the file grow again; until a sync it may come back.
            self.save(len, old);
        }
        self.data.resize(len as usize, 0);
    }

    fn sync(&mut self) {
        self.before.retain(|_, before| before.forsaken);
        self.durable_len = self.data.len() as u64;
    }

    /// What is left when the power goes.
    fn crash(&mut self, style: Style, random: &mut Random) {
        let before = std::mem::take(&mut self.before);
        if !style.keeps(random) {
            self.data.resize(self.durable_len as usize, 0);
        }
        for (sector, Before { sector: old, .. }) in before {
            if !style.keeps(random) {
                let start = (sector * SECTOR) as usize;
                if let Some(bytes) = self.data.get_mut(start..) {
                    let len = bytes.len().min(SECTOR as usize);
                    bytes[..len].copy_from_slice(&old[..len]);
                }
            }
        }
        self.durable_len = self.data.len() as u64;
    }
}

/// How much of what was not synced a loss of power leaves.
#[derive(Clone, Copy)]
enum Style {
    Nothing,
    Everything,
    Some(u64),
}

impl Style {
    fn keeps(self, random: &mut Random) -> bool {
        match self {
            Style::Nothing => false,
            Style::Everything => true,
            Style::Some(permille) => random.below(1000) < permille,
        }
    }
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk { state: Arc::default(), process: 0 }
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.state.lock().trouble = trouble;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// Whether only a loss of power makes it honest again.
    pub(crate) fn is_forsaken(&self) -> bool {
        self.state.lock().forsaken
    }

    /// The process is killed; what it wrote stays in the page cache. Calls of the dead fail.
    pub(crate) fn kill(&self) {
        let mut state = self.state.lock();
        state.process += 1;
        state.locked.clear();
    }

    /// The power goes: of what no sync had covered, chance keeps some.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        self.kill();
        let state = &mut *self.state.lock();
        let style = match random.below(4) {
            0 => Style::Nothing,
            1 => Style::Everything,
            _ => Style::Some(random.below(1000)),
        };
        for naming in std::mem::take(&mut state.renaming) {
            if !style.keeps(random) {
                continue;
            }
            match naming {
                Naming::Set(path, inode) => drop(state.durable_names.insert(path, inode)),
                Naming::Rename(from, to, inode) => {
                    if state.durable_names.get(&from) == Some(&inode) {
                        state.durable_names.remove(&from);
                    }
                    state.durable_names.insert(to, inode);
                }
                Naming::Remove(path) => drop(state.durable_names.remove(&path)),
            }
        }
        state.names = state.durable_names.clone();
        for contents in state.files.values_mut() {
            contents.crash(style, random);
        }
        state.forsaken = false;
    }

    /// The same disk, for the process that is started next.
    pub(crate) fn restart(&self) -> Disk {
        let state = &mut *self.state.lock();
        state.process += 1;
        state.locked.clear();
        state.trouble = Trouble::None;
        state.failed = false;
        let named: std::collections::BTreeSet<Inode> = state.names.values().copied().collect();
        state.files.retain(|inode, _| named.contains(inode));
        Disk { state: self.state.clone(), process: state.process }
    }

    /// Opens a file, making it durable and empty first if it is not there.
    pub(crate) fn storage(&self, path: &Path) -> File<Handle> {
        let mut state = self.state.lock();
        let inode = match state.names.get(path) {
            Some(&inode) => inode,
            None => {
                let inode = state.create(path);
                state.renaming.retain(|naming| !matches!(naming, Naming::Set(at, _) if at == path));
                state.durable_names.insert(path.into(), inode);
                inode
            }
        };
        File(Handle { disk: self.clone(), inode, of_log: false })
    }

    /// The whole of a file, if there is one of that name.
    pub(crate) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.names.get(path)?;
        state.files.get(inode).map(|contents| contents.data.clone())
    }

    /// A whole file, durable when this returns.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use wal::Disk as _;
        if self.state.lock().names.contains_key(path) {
            self.remove(path)?;
        }
        let file = self.create(path)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/")))
    }
}

impl State {
    fn alive(&self, process: u64) -> io::Result<()> {
        if process == self.process { Ok(()) } else { Err(io::Error::other("the process was killed")) }
    }

    fn fail(&mut self) -> io::Error {
        self.trouble = Trouble::None;
        self.failed = true;
        io::Error::other("the disk failed")
    }

    fn create(&mut self, path: &Path) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, Contents::default());
        self.names.insert(path.into(), inode);
        self.renaming.push(Naming::Set(path.into(), inode));
        inode
    }

    fn room(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        let grows = self.files.get(&inode).is_some_and(|file| len > file.data.len() as u64);
        if self.trouble == Trouble::Full && grows {
            self.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// What comes before every sync: it may fail, or be the last thing that the process does.
    fn about_to_sync(&mut self) -> io::Result<()> {
        match &mut self.trouble {
            Trouble::Sync(0) => Err(self.fail()),
            Trouble::Kill(0) => {
                self.process += 1;
                self.trouble = Trouble::None;
                Err(io::Error::other("the process was killed"))
            }
            Trouble::Sync(left) | Trouble::Kill(left) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// An open file.
#[derive(Clone)]
pub(crate) struct Handle {
    disk: Disk,
    inode: Inode,
    of_log: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl file::Handle for Handle {
    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.alive(self.disk.process)?;
        Ok(state.files.get(&self.inode).map_or(0, |file| file.data.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state.lock();
        state.alive(self.disk.process)?;
        let file = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.data.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.disk.state.lock();
        state.alive(self.disk.process)?;
        state.room(self.inode, offset + bytes.len() as u64)?;
        let mut done = bytes;
        let mut result = Ok(());
        match &mut state.trouble {
            Trouble::Write(0) => {
                // Whole sectors, up to the middle.
                let half = (offset + bytes.len() as u64 / 2) / SECTOR * SECTOR;
                done = &bytes[..half.saturating_sub(offset) as usize];
                result = Err(state.fail());
            }
            Trouble::Write(left) => *left -= 1,
            _ => {}
        }
        if let Some(file) = state.files.get_mut(&self.inode) {
            file.write(offset, done);
        }
        result
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        let state = &mut *self.disk.state.lock();
        state.alive(self.disk.process)?;
        state.room(self.inode, len)?;
        if let Some(file) = state.files.get_mut(&self.inode) {
            file.set_len(len);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.disk.state.lock();
        state.alive(self.disk.process)?;
        let result = state.about_to_sync();
        let Some(file) = state.files.get_mut(&self.inode) else { return result };
        if result.is_ok() {
            file.sync();
        } else if state.failed {
            file.before.values_mut().for_each(|before| before.forsaken = true);
            state.forsaken |= !self.of_log;
        }
        result
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
        // The locks of a dead process went when it died.
        if state.alive(self.disk.process).is_ok() {
            state.locked.retain(|dir| *dir != self.dir);
        }
    }
}

impl wal::Disk for Disk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive(self.process)?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.state.lock().alive(self.process)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn wal::DiskFile>> {
        let mut state = self.state.lock();
        state.alive(self.process)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.create(path);
        Ok(Box::new(File(Handle { disk: self.clone(), inode, of_log: true })))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn wal::DiskFile>> {
        let state = self.state.lock();
        state.alive(self.process)?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File(Handle { disk: self.clone(), inode, of_log: true })))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive(self.process)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), inode);
        state.renaming.push(Naming::Rename(from.into(), to.into(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive(self.process)?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.renaming.push(Naming::Remove(path.into()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        state.alive(self.process)?;
        state.about_to_sync()?;
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let (durable, rest): (Vec<Naming>, Vec<Naming>) =
            std::mem::take(&mut state.renaming).into_iter().partition(|naming| {
                matches!(naming, Naming::Set(path, _) | Naming::Rename(_, path, _) | Naming::Remove(path)
                if inside(path))
            });
        state.renaming = rest;
        for naming in durable {
            match naming {
                Naming::Set(path, inode) => drop(state.durable_names.insert(path, inode)),
                Naming::Rename(from, to, inode) => {
                    state.durable_names.remove(&from);
                    state.durable_names.insert(to, inode);
                }
                Naming::Remove(path) => drop(state.durable_names.remove(&path)),
            }
        }
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn wal::Guard>> {
        let mut state = self.state.lock();
        state.alive(self.process)?;
        if state.locked.iter().any(|locked| locked == dir) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked.push(dir.into());
        Ok(Box::new(Claim { disk: self.clone(), dir: dir.into() }))
    }
}
